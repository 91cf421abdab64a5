"""Start of a scan: checked arguments, the state after the transient, and the first frame."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._padded import Padded, real
from lyaptorch._random import Stream, seed_from
from lyaptorch.cells import Cell, Network, as_cell, fit, random_frame, settle, unroll
from lyaptorch.tangent.automatic import AUTO, choose_transient


class Start(NamedTuple):
    """A cell, the inputs after the transient, the state and the frame there, and the transient taken.

    `ends (b,)` or `(*e, b)` are the steps of each trajectory after the transient, if not all have the same.
    """

    cell: Cell
    inputs: Tensor
    h: Tensor
    Q: Tensor
    transient: int
    ends: Tensor | None


def start(
    cell: Network,
    given: Padded,
    *,
    k: int | None,
    h0: Any,
    transient: int | str,
    uncounted: dict[str, int],
    frame: Tensor | None,
    generator: torch.Generator | None,
    copies: bool = False,
) -> Start:
    """Check the arguments, draw the frame and let the state settle.

    Args:
        cell: anything that `as_cell` takes.
        given: inputs `(t, *e, b, m)`, and the steps of each trajectory, `(b,)` or `(*e, b)`.
        k: how many tangent vectors; n when missing.
        h0: state, or None for zeros.
        transient: first steps, of the state only, or "auto".
        uncounted: by name, how many of the other steps are not counted.
        frame: `(n, k)` or `(*e, b, n, k)`, or None for a random one.
        generator: seeds the random frame.
        copies: whether a random frame may stand for the copies of a cell's `multiplicity`.

    Raises:
        ValueError: as `lyapunov_spectrum` says.
        FloatingPointError: if the state overflows in the transient.
    """
    cell = as_cell(cell)
    inputs, h, ends = fit_padded(cell, given, h0)
    t = len(inputs)
    waits: dict[str, Any] = dict(uncounted) if transient == AUTO else {"transient": transient, **uncounted}
    for name, steps in waits.items():
        waits[name] = _checks.integer(name, steps, 0, do='or pass "auto"' if name == "transient" else "")
    transient, least = waits.get("transient", AUTO), sum(waits.values())
    if ends is not None:
        name_too_short(ends, least)
    if t - least < 1:
        raise ValueError(
            f"inputs must hold {' + '.join(waits)} + at least 1 counted step, got t={t} for "
            f"{' + '.join(map(str, waits.values()))} + 1; pass more inputs or shorten the transients"
        )
    Q = first_frame(frame, k, h, generator, cell, cell.multiplicity if copies else 1)
    if isinstance(transient, str):
        if ends is not None:
            raise ValueError(
                'transient="auto" looks at all trajectories at once, and lengths were given; pass a number'
            )
        transient = choose_transient(cell, inputs[: t - least], h, Q)
    if ends is None:
        return Start(cell, inputs[transient:], settle(cell, inputs[:transient], h), Q, transient, None)
    h, inputs, ends = _settled(cell, inputs[:transient], h, ends), inputs[transient:], ends - transient
    # after an end the first input is taken again, as `Ended` does with the state: it can be no NaN of the
    # padding
    if transient:
        inputs = torch.where(real(ends, inputs.shape[:-1]).unsqueeze(-1), inputs, inputs[:1])
    return Start(cell, inputs, h, Q, transient, ends)


def fit_padded(cell: Cell, given: Padded, h0: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `fit`: the inputs up to the last end, and the initial state; and the ends, None where all are one.

    Raises:
        ValueError: as `fit` does, and for lengths that are not those of the cell's members.
    """
    inputs, lengths = given
    if lengths is not None and cell.state_size and lengths.shape[:-1] not in ((), cell.ensemble):
        raise ValueError(
            f"lengths must have shape (b,) or (*e, b) with *e = {cell.ensemble}, got {tuple(lengths.shape)}; "
            "all members may share those of (b,)"
        )
    inputs, h = fit(cell, inputs, h0)
    if lengths is None or not _checks.can_look():
        return inputs, h, lengths
    inputs = inputs[: int(lengths.max())]
    return inputs, h, None if (lengths == len(inputs)).all() else lengths


def name_too_short(ends: Tensor, least: int) -> None:
    """Trajectories that end before anything is counted are left out of averages, but not in silence."""
    if not _checks.can_look() or not (short := ends <= least).any():
        return
    if short.all(-1).any():
        raise ValueError(
            f"lengths must be above the {least} steps of the transients for some trajectory, got at most "
            f"{int(ends[short.all(-1)].max())}; shorten the transients or leave these sequences out"
        )
    places = [tuple(place) if ends.dim() > 1 else place[0] for place in short.nonzero().tolist()]
    warnings.warn(
        f"trajectories {places} end within the {least} steps of the transients, so they have no exponents "
        "(-inf) and are left out of averages",
        stacklevel=5,
    )


def _settled(cell: Cell, inputs: Tensor, h: Tensor, ends: Tensor) -> Tensor:
    """The state after all `inputs`, or at a trajectory's end where that comes before; without gradient."""
    if not len(inputs) or (_checks.can_look() and (ends >= len(inputs)).all()):
        return settle(cell, inputs, h)
    with torch.no_grad():
        states = unroll(cell, inputs, h.detach())
        last = (ends.clamp(1, len(inputs)) - 1).expand(h.shape[:-1])
        ended = states.gather(0, last[None, ..., None].expand(1, *h.shape))[0]
    if not _checks.all_finite(ended):
        raise FloatingPointError(f"the state is not finite after the transient: {cell.advice}")
    return ended


KEPT = 1 << 14
"""Numbers of the largest frame that is kept: without a generator every call would draw the same one."""


def _drawn_frame(n: int, k: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    shared_id = torch.zeros((), dtype=torch.int64, device=device)
    return random_frame(n, k, Stream(seed, "frame"), shared_id, dtype=dtype)


_kept_frame = lru_cache(maxsize=16)(_drawn_frame)


def first_frame(
    frame: Tensor | None,
    k: int | None,
    h: Tensor,
    generator: torch.Generator | None,
    cell: Cell,
    copies: int = 1,
) -> Tensor:
    """The frame given, checked, or a random one, in full shape `(*e, b, n, k)`; k is n when missing.

    One that is drawn is as `framed` makes it. With `copies` it has so many times fewer rows, and of columns
    as many as hold k copies.

    Raises:
        ValueError: for k out of range, for a frame of the wrong shape, dtype or device, or that is not
            orthonormal.
    """
    n = h.shape[-1]
    travelling = cell.travelling
    most = n - travelling
    told = f", {travelling} of which have no tangent" if travelling else ""
    do = f"a state of size {n}{told} has {most} exponents"
    k = most if k is None else _checks.integer("k", k, 1, most, do=do)
    full = (*h.shape, k)
    if frame is None:
        seed, n, k = seed_from(generator), n // copies, -(-k // copies)
        again = n * k <= KEPT and h.device.type == "cpu" and _checks.can_look()
        draw = _kept_frame if again and not torch.is_inference_mode_enabled() else _drawn_frame
        drawn = framed(draw(most // copies, k, seed, h.dtype, h.device), cell)
        return drawn.expand(*h.shape[:-1], n, k)
    _checks.alike("frame", _checks.tensor("frame", frame), "the state", h)
    if tuple(frame.shape) not in ((n, k), full):
        raise ValueError(
            f"frame must have shape (n, k) = {(n, k)} or (*e, b, n, k) = {full}, got {tuple(frame.shape)}; "
            "it has exactly k columns"
        )
    if not _checks.can_look():
        return frame.expand(full)
    if frame[..., most:, :].any():
        raise ValueError(
            f"frame must be zero in the last {travelling} entries of the state, which have no tangents, got "
            "other numbers there; leave the frame out, or draw it for the first "
            f"{most}"
        )
    overlaps = frame.detach().mT @ frame.detach()
    overlaps.diagonal(dim1=-2, dim2=-1).sub_(1)
    off = overlaps.abs_().max().item()
    if not off <= torch.finfo(frame.dtype).eps ** 0.5:
        _checks.finite("frame", frame)
        raise ValueError(
            f"frame must have orthonormal columns, got |Q^T Q - 1| up to {off:.2g}; take Q of torch.linalg.qr"
        )
    return frame.expand(full)


def framed(drawn: Tensor, cell: Cell) -> Tensor:
    """A frame for the part of the state that has tangents `(..., n', k)`, as one for all of it.

    Below are rows of zeros, for what has none. Columns whose exponents are -inf by the make of the cell are
    zero, and so dead from the beginning: what round-off would leave of them is no direction.
    """
    beyond = max(0, drawn.shape[-1] - (drawn.shape[-2] - cell.nilpotent)) if cell.nilpotent else 0
    if beyond:
        kept = drawn[..., : drawn.shape[-1] - beyond]
        drawn = torch.nn.functional.pad(kept, (0, beyond))
    return torch.nn.functional.pad(drawn, (0, 0, 0, cell.travelling)) if cell.travelling else drawn
