"""The scan of a form and its log-R adjoint in Triton, on tensors.

The trajectory does not depend on the frame: it is unrolled first, and the slopes of all steps are computed at
once. Then the frame's kernel is linear. Back, the frame's cotangents do not depend on the state's: what they
leave at each step is a source of ordinary backpropagation through time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import Bars, Form, Residual, linear, weight_gradients
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.scan import Scanned, Settings
from lyaptorch.kernels.triton import frame_kernels
from lyaptorch.kernels.triton.operands import (
    Shape,
    bent,
    beside,
    by_time,
    padded,
    sequence,
    shape_of,
)
from lyaptorch.kernels.triton.unroll import (
    DENSE,
    Kept,
    bypassed,
    form_bars,
    pull_back,
    trains,
    unroll_forward,
)


class Slopes(NamedTuple):
    """g'(h), c f'(a) and phi'(A h) of all steps `(e, t, b, n)`; None where they are one."""

    g: Tensor | None
    f: Tensor | None
    phi: Tensor | None


class Tape(NamedTuple):
    """Of a trajectory, its slopes and frames `(e, t + 1, b, k, n)`, and L `(e, s, b, k, k)` of every span."""

    kept: Kept
    slopes: Slopes
    frames: Tensor
    factors: Tensor


def scan_forward(
    form: Form, inputs: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """As `kernels.scan.scan_forward`. Cost O(t n^2 k + s n k^2) per trajectory; `keep` keeps t frames."""
    shape, (n, k), spans = shape_of(form, inputs, h), frame.shape[-2:], len(settings.twice)
    e, b, t = shape.members, shape.b, shape.t
    _, kept = unroll_forward(form, inputs, h, keep=True)
    assert kept is not None
    slopes = slopes_of(form, kept, shape)
    own, a_size, special = _own(form, h, shape, k, slopes)
    frames = h.new_empty(e, t + 1 if keep else 1, b, k, n)
    frames[:, 0] = frame.detach().mT.expand(*shape.ensemble, b, k, n).reshape(e, b, k, n)
    factors, dead = h.new_empty(e, spans, b, k, k), frames.new_zeros(e, spans + 1, b, k, dtype=torch.uint8)
    status = torch.full((e, b), -1, dtype=torch.int32, device=h.device)
    frame_kernels.forward[(e, b)](
        *own, frames, factors, h.new_empty(e, b, 2, k, n), dead, status, *cuts_of(settings, h.device),
        spans, t, b, k, n, a_size, torch.finfo(h.dtype).eps, KEEP=keep, **special,
    )  # fmt: skip
    pivots = by_time(factors.diagonal(dim1=-2, dim2=-1), shape)
    tape = Tape(kept, slopes, frames, factors) if keep else None
    end = kept.states[:, -1].reshape(h.shape).clone()
    Q = frames[:, -1].reshape(*shape.ensemble, b, k, n).mT
    return Scanned(pivots, by_time(dead[:, 1:], shape).bool(), end, Q, *broken(status, kept, settings), tape)


def scan_adjoint(
    form: Form,
    leaves: Sequence[Tensor],
    inputs: Tensor,
    h0: Tensor,
    settings: Settings,
    tape: Tape,
    c: Tensor,
    log_r: Tensor,
    h_bar: Tensor,
) -> list[Tensor | None]:
    """As `kernels.scan.scan_adjoint`. Cost about twice the forward scan's."""
    shape, k = shape_of(form, inputs, h0), c.shape[-1]
    e, b, t, n = shape.members, shape.b, shape.t, shape.n
    own, a_size, special = _own(form, h0, shape, k, tape.slopes)
    A = None if form.residual is None else form.residual.matrix
    bars, work = tape.frames.new_empty(e, t, b, k, n), tape.frames.new_empty(e, b, 2, k, n)
    work[:, :, 0] = tape.frames[:, -1] * sequence(c[-1:], shape)[:, 0].unsqueeze(-1)
    past = torch.empty_like(bars) if trains(leaves, A) or special["KIND"] == DENSE else bars
    bends = [torch.zeros_like(tape.kept.inner) for _ in range(3)]
    frame_kernels.backward[(e, b)](
        *own, tape.frames, inverse_of(tape.factors), sequence(c, shape), sequence(spread_of(log_r), shape),
        cuts_of(settings, h0.device)[0],
        bars.new_empty(e, b, k, k), work, bars, past, *bends, len(settings.twice), t, b, k, n, a_size,
        PAST=past is not bars, **special,
    )  # fmt: skip
    g_bend, f_bend, p_bend = (by_time(z, shape) for z in bends)
    a_more, p_more = _through(form, tape, shape, f_bend, p_bend)
    source = _source(form, tape, shape, g_bend, a_more, p_more)
    cut = settings.cut or 0
    if cut:
        source[::cut] = 0
    states_bar = torch.cat([source[1:], torch.zeros_like(source[:1])])
    pulled = pull_back(
        form, leaves, tape.kept, shape, sequence(states_bar, shape), h_bar.reshape(e, b, n), cut
    )
    if a_more is not None:
        pulled = pulled._replace(a=pulled.a + sequence(a_more, shape))
    if p_more is not None and trains(leaves, A):
        pulled = pulled._replace(p=pulled.p + sequence(p_more, shape))
    total = _with_frames(form, form_bars(form, leaves, tape.kept, pulled, shape), tape, bars, past, shape)
    if total.coupling is not None:
        a = by_time(tape.kept.inner, shape)
        share = f_bend if form.outer is None else f_bend * form.outer.slope(a)
        total = total._replace(coupling=total.coupling + share.sum((0, -2)))
    found = weight_gradients(form, leaves, inputs, total)
    _add_sharpness(form, leaves, found, tape, shape, g_bend, f_bend, p_bend)
    inputs_bar = linear(total.a, form.weight_ih.mT).detach() if inputs.requires_grad else None
    frame_bar = work[:, :, len(settings.twice) % 2]
    h0_bar = total.h.reshape(h0.shape) + source[0]
    return [inputs_bar, h0_bar, frame_bar.reshape(*shape.ensemble, b, k, n).mT, *found]


def slopes_of(form: Form, kept: Kept, shape: Shape) -> Slopes:
    """The slopes of all steps."""
    phi = None if form.residual is None else form.residual.activation
    f = None
    if bent(form.outer) or form.coupling is not None:
        a = by_time(kept.inner, shape)
        f = form.coupled(torch.ones_like(a) if form.outer is None else form.outer.slope(a))
    return Slopes(
        _slope(form.inner, by_time(kept.states[:, :-1], shape), shape),
        None if f is None else _rows(f, shape),
        None if form.residual is None else _slope(phi, _past(form.residual, kept, shape), shape),
    )


def _slope(f: Activation | None, x: Tensor, shape: Shape) -> Tensor | None:
    return _rows(f.slope(x), shape) if f is not None and bent(f) else None


def _rows(z: Tensor, shape: Shape) -> Tensor:
    return sequence(z.expand(shape.t, *shape.ensemble, shape.b, shape.n), shape)


def _past(residual: Residual, kept: Kept, shape: Shape) -> Tensor:
    """A h of all steps `(t, *e, b, n)`."""
    return by_time(bypassed(residual, kept.states, shape), shape)


def _own(
    form: Form, h: Tensor, shape: Shape, k: int, slopes: Slopes
) -> tuple[list[Tensor], int, dict[str, Any]]:
    """Weights and slopes, the size of A, and what the frame's kernels are specialised by."""
    (W, A, *_), a_size, special = beside(form, h, shape)
    tiles = {"K": min(32, padded(k)), "N": shape.tile}
    special = {
        **dict(zip(("G", "F", "PHI"), (z is not None for z in slopes), strict=True)),
        "KIND": special["KIND"],
        "PRECISION": special["PRECISION"],
        **tiles,
        "num_warps": 4 if shape.tile <= 64 else 8,
    }
    return [W, A, *(W if z is None else z for z in slopes)], a_size, special


@lru_cache(maxsize=16)
def cuts_of(settings: Settings, device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device once and for all: a captured graph can copy nothing from the host."""
    cuts, twice = (torch.tensor(z, dtype=torch.int32) for z in (settings.cuts, settings.twice))
    return cuts.to(device), twice.to(device)


def inverse_of(factors: Tensor) -> Tensor:
    """L^-1 of every span."""
    unit = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    inverse: Tensor = torch.linalg.solve_triangular(factors, unit, upper=False)
    return inverse.contiguous()


def spread_of(log_r: Tensor) -> Tensor:
    """The largest difference of the living log R_ii of every span `(s, *e, b, 1)`."""
    finite = torch.isfinite(log_r)
    top = torch.where(finite, log_r, -torch.inf).amax(-1, keepdim=True)
    bottom = torch.where(finite, log_r, torch.inf).amin(-1, keepdim=True)
    return torch.where(finite.any(-1, keepdim=True), top - bottom, 0.0)


def broken(status: Tensor, kept: Kept, settings: Settings) -> tuple[int | None, int | None]:
    """The first span after which the frame is not finite, or the first step after which the state is not.

    Of the two the one that came first; None for never.
    """
    if not _checks.can_look():
        return None, None
    overflow = None
    if not torch.isfinite(kept.states[:, -1]).all():
        finite = torch.isfinite(kept.states).all(-1).all(-1).all(0)
        overflow = int((~finite).int().argmax()) - 1
    if (broken := status[status >= 0]).numel() == 0:
        return None, overflow
    first = int(broken.min())
    return (
        (None, overflow)
        if overflow is not None and overflow < settings.cuts[first + 1]
        else (first, overflow)
    )


def _through(
    form: Form, tape: Tape, shape: Shape, f_bend: Tensor, p_bend: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Cotangents of a and of A h, from those of their slopes."""
    residual, a, p = form.residual, None, None
    if form.outer is not None and bent(form.outer):
        a = form.coupled(form.outer.curvature(by_time(tape.kept.inner, shape)) * f_bend)
    if residual is not None and residual.activation is not None and bent(residual.activation):
        p = residual.activation.curvature(_past(residual, tape.kept, shape)) * p_bend
    return a, p


def _source(
    form: Form, tape: Tape, shape: Shape, g_bend: Tensor, a_more: Tensor | None, p_more: Tensor | None
) -> Tensor:
    """What arrives at the state before every step `(t, *e, b, n)` besides backpropagation."""
    h = by_time(tape.kept.states[:, :-1], shape)
    source = torch.zeros_like(h)
    if a_more is not None:
        u_bar = linear(a_more, form.weight_hh.mT)
        source += u_bar if tape.slopes.g is None else u_bar * by_time(tape.slopes.g, shape)
    if form.inner is not None and bent(form.inner):
        source += form.inner.curvature(h) * g_bend
    if p_more is not None and form.residual is not None:
        source += form.residual.transposed().product(p_more)
    return source


def _with_frames(form: Form, total: Bars, tape: Tape, bars: Tensor, past: Tensor, shape: Shape) -> Bars:
    """Gradients of W and A with the frames' share, each in one product over all steps."""
    Y = tape.frames[:, :-1]
    if total.W is not None:
        P = Y if tape.slopes.g is None else Y * tape.slopes.g.unsqueeze(-2)
        share = bars.flatten(1, 3).mT @ P.flatten(1, 3)
        total = total._replace(W=total.W + share.reshape(total.W.shape))
    if total.matrix is not None and form.residual is not None:
        flat = (z.reshape(*shape.ensemble, -1, shape.n) for z in (past, Y))
        total = total._replace(matrix=total.matrix + form.residual.gradient(*flat))
    return total


def _add_sharpness(
    form: Form,
    leaves: Sequence[Tensor],
    found: list[Tensor],
    tape: Tape,
    shape: Shape,
    g: Tensor,
    f: Tensor,
    p: Tensor,
) -> None:
    """Add to the gradients of sharpnesses what comes from the cotangents of slopes."""
    residual, kept = form.residual, tape.kept
    uses: list[tuple[Activation | None, Callable[[], Tensor], Tensor]] = [
        (form.inner, lambda: by_time(kept.states[:, :-1], shape), g),
        (form.outer, lambda: by_time(kept.inner, shape), form.coupled(f)),
    ]
    if residual is not None:
        uses.append((residual.activation, lambda: _past(residual, kept, shape), p))
    for z, argument, bend in uses:
        for i, leaf in enumerate(leaves):
            if isinstance(z, Surrogate) and leaf is z.arguments[0]:
                _, dslope = z.parameter_derivatives(argument())[0]
                found[i] = found[i] + (bend * dslope).sum_to_size(leaf.shape)
