"""Where a scan starts: checked arguments, the state after the transient, and the first frame."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream, seed_from
from lyaptorch.cells import Cell, Network, as_cell, fit, random_frame, settle
from lyaptorch.tangent.automatic import AUTO, choose_transient


class Start(NamedTuple):
    """A cell, the inputs after the transient, the state and the frame there, and the transient taken."""

    cell: Cell
    inputs: Tensor
    h: Tensor
    Q: Tensor
    transient: int


def start(
    cell: Network,
    inputs: Tensor,
    *,
    k: int | None,
    h0: Any,
    transient: int | str,
    uncounted: dict[str, int],
    frame: Tensor | None,
    generator: torch.Generator | None,
) -> Start:
    """Check the arguments, draw the frame and let the state settle.

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`.
        k: how many tangent vectors; n when missing.
        h0: state, or None for zeros.
        transient: first steps, of the state only, or "auto".
        uncounted: by name, how many of the other steps are not counted.
        frame: `(n, k)` or `(*e, b, n, k)`, or None for a random one.
        generator: seeds the random frame.

    Raises:
        ValueError: as `lyapunov_spectrum` says.
        FloatingPointError: if the state overflows in the transient.
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    t, n = inputs.shape[0], h.shape[-1]
    k = n if k is None else _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")
    lengths = uncounted if transient == AUTO else {"transient": transient, **uncounted}
    lengths = {
        name: _checks.integer(name, length, 0, do='or pass "auto"' if name == "transient" else "")
        for name, length in lengths.items()
    }
    transient, rest = lengths.get("transient", AUTO), sum(int(length) for length in uncounted.values())
    least = rest if isinstance(transient, str) else rest + transient
    if t - least < 1:
        raise ValueError(
            f"inputs must hold {' + '.join(lengths)} + at least 1 counted step, got t={t} for "
            f"{' + '.join(map(str, lengths.values()))} + 1; pass more inputs or shorten the transients"
        )
    Q = _frame(frame, k, h, generator)
    if isinstance(transient, str):
        transient = choose_transient(cell, inputs[: t - rest], h, Q)
    return Start(cell, inputs[transient:], settle(cell, inputs[:transient], h), Q, transient)


def _frame(frame: Tensor | None, k: int, h: Tensor, generator: torch.Generator | None) -> Tensor:
    n, full = h.shape[-1], (*h.shape, k)
    if frame is None:
        stream, nobody = (
            Stream(seed_from(generator), "frame"),
            torch.zeros((), dtype=torch.int64, device=h.device),
        )
        return random_frame(n, k, stream, nobody, dtype=h.dtype).expand(full)
    _checks.alike("frame", _checks.tensor("frame", frame), "the state", h)
    if tuple(frame.shape) not in ((n, k), full):
        raise ValueError(
            f"frame must have shape (n, k) = {(n, k)} or (*e, b, n, k) = {full}, got {tuple(frame.shape)}; "
            "it has exactly k columns"
        )
    _checks.finite("frame", frame)
    if not _checks.can_look():
        return frame.expand(full)
    off = (frame.mT @ frame - torch.eye(k, dtype=frame.dtype, device=frame.device)).abs().max().item()
    if off > torch.finfo(frame.dtype).eps ** 0.5:
        raise ValueError(
            f"frame must have orthonormal columns, got |Q^T Q - 1| up to {off:.2g}; take Q of torch.linalg.qr"
        )
    return frame.expand(full)
