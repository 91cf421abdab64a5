"""The scan of a form and its log-R adjoint in Triton, on tensors.

The trajectory does not depend on the frame: it is unrolled first, and the slopes of all steps are computed at
once. Then the frame's kernel is linear. Back, the frame's cotangents do not depend on the state's: what they
leave at each step is a source of ordinary backpropagation through time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import Bars, Form, Residual, linear
from lyaptorch.kernels.arguments import Saved, Scanned, Settings
from lyaptorch.kernels.triton import frame_kernels, recurrence
from lyaptorch.kernels.triton.frames import Own, Tape, pull, push
from lyaptorch.kernels.triton.operands import by_time, is_nonlinear, padded, residual_operands, sequence
from lyaptorch.kernels.triton.recurrence import Kept


class Slopes(NamedTuple):
    """g'(h), c f'(a) and phi'(A h) of all steps `(e, t, b, n)`; None where they are one."""

    g: Tensor | None
    f: Tensor | None
    phi: Tensor | None


def scan_forward(
    form: Form, inputs: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """As `kernels.fused.scan_forward`. Cost O(t n^2 k + s n k^2) per trajectory; `keep` keeps t frames."""
    kept = recurrence.unroll_forward(form, inputs, h, keep=True)
    slopes = slopes_of(form, kept)
    own = _own(form, kept, frame.shape[-1], slopes)
    return push(frame_kernels.forward, own, kept, slopes, frame, settings, keep=keep)


def scan_adjoint(
    form: Form, leaves: Sequence[Tensor], settings: Settings, saved: Saved, c: Tensor, h_bar: Tensor
) -> list[Tensor | None]:
    """As `kernels.fused.scan_adjoint`. Cost about twice the forward scan's."""
    tape: Tape[Slopes] = saved.tape
    kept, shape = tape.kept, tape.kept.shape
    tensors, special = _own(form, kept, c.shape[-1], tape.slopes)
    A = None if form.residual is None else form.residual.matrix
    wanted = recurrence.trains(leaves, A) or special["KIND"] == recurrence.DENSE
    # of a dense A the cotangents are read again by other threads, else only by its gradient
    past = tape.frames.new_empty(tape.frames[:, 1:].shape) if wanted else tape.frames
    own = Own([*tensors, past], {**special, "PAST": wanted})
    bars, (g_bend, f_bend, p_bend), frame_bar = pull(
        frame_kernels.backward, own, tape, settings, c, saved.log_r
    )
    a_more, p_more = _through(form, kept, f_bend, p_bend)
    source = _source(form, tape, g_bend, a_more, p_more)
    cut = settings.cut or 0
    if cut:
        # what a frame leaves at a state that was detached reaches nobody
        source[::cut] = 0
    # a source lies at the state before a step: the unrolled adjoint takes those of the states after it
    states_bar = torch.cat([source[1:], torch.zeros_like(source[:1])])
    h_bar = h_bar.reshape(shape.members, shape.b, shape.n)
    pulled = recurrence.pull_back(form, leaves, kept, sequence(states_bar, shape), h_bar, cut)
    if a_more is not None:
        # what slopes leave at a went on to the state before as a source; here it counts for W, V and b
        pulled = pulled._replace(a=pulled.a + sequence(a_more, shape))
    if p_more is not None and recurrence.trains(leaves, A):
        pulled = pulled._replace(p=pulled.p + sequence(p_more, shape))
    total = _with_frames(form, recurrence.form_bars(form, leaves, kept, pulled), tape, bars, past)
    if total.coupling is not None:
        share = f_bend if form.outer is None else f_bend * form.outer.slope(by_time(kept.inner, shape))
        total = total._replace(coupling=total.coupling + share.sum((0, -2)))
    inputs_bar, h0_bar, found = recurrence.gradients(form, leaves, saved.inputs, saved.h0, total)
    recurrence.add_sharpness(leaves, found, form.inner, lambda: kept.before, g_bend)
    recurrence.add_sharpness(
        leaves, found, form.outer, lambda: by_time(kept.inner, shape), form.coupled(f_bend)
    )
    if (residual := form.residual) is not None:
        recurrence.add_sharpness(leaves, found, residual.activation, lambda: _past(residual, kept), p_bend)
    return [inputs_bar, h0_bar + source[0], frame_bar, *found]


def slopes_of(form: Form, kept: Kept) -> Slopes:
    """The slopes of all steps."""
    f, phi = None, None if form.residual is None else form.residual.activation
    if is_nonlinear(form.outer) or form.coupling is not None:
        a = by_time(kept.inner, kept.shape)
        f = form.coupled(torch.ones_like(a) if form.outer is None else form.outer.slope(a))
    return Slopes(
        _slope(form.inner, kept.before, kept),
        None if f is None else _rows(f, kept),
        None if form.residual is None else _slope(phi, _past(form.residual, kept), kept),
    )


def _slope(f: Activation | None, x: Tensor, kept: Kept) -> Tensor | None:
    return _rows(f.slope(x), kept) if f is not None and is_nonlinear(f) else None


def _rows(z: Tensor, kept: Kept) -> Tensor:
    shape = kept.shape
    return sequence(z.expand(shape.t, *shape.ensemble, shape.b, shape.n), shape)


def _past(residual: Residual, kept: Kept) -> Tensor:
    """A h of all steps `(t, *e, b, n)`."""
    return by_time(recurrence.bypassed(residual, kept), kept.shape)


def _own(form: Form, kept: Kept, k: int, slopes: Slopes) -> Own:
    """Weights and slopes, the size of A, and what the frame's kernels are specialised by."""
    (W, A, *_), a_size, special = residual_operands(form, kept.states, kept.shape)
    tile = kept.shape.tile
    special = {
        "a_size": a_size,
        **dict(zip(("G", "F", "PHI"), (z is not None for z in slopes), strict=True)),
        "KIND": special["KIND"],
        "PRECISION": special["PRECISION"],
        # 32 x 128 numbers of float32 are 16 kB, and five such tiles live at once in the way back
        "K": min(32, padded(k)),
        "N": tile,
        "num_warps": 4 if tile <= 64 else 8,
    }
    return Own([W, A, *(W if z is None else z for z in slopes)], special)


def _through(form: Form, kept: Kept, f_bend: Tensor, p_bend: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Cotangents of a and of A h, from those of their slopes."""
    residual, a, p = form.residual, None, None
    if form.outer is not None and is_nonlinear(form.outer):
        a = form.coupled(form.outer.curvature(by_time(kept.inner, kept.shape)) * f_bend)
    if residual is not None and residual.activation is not None and is_nonlinear(residual.activation):
        p = residual.activation.curvature(_past(residual, kept)) * p_bend
    return a, p


def _source(
    form: Form, tape: Tape[Slopes], g_bend: Tensor, a_more: Tensor | None, p_more: Tensor | None
) -> Tensor:
    """What arrives at the state before every step `(t, *e, b, n)` besides backpropagation."""
    h = tape.kept.before
    source = torch.zeros_like(h)
    if a_more is not None:
        u_bar = linear(a_more, form.weight_hh.mT)
        source += u_bar if tape.slopes.g is None else u_bar * by_time(tape.slopes.g, tape.kept.shape)
    if form.inner is not None and is_nonlinear(form.inner):
        source += form.inner.curvature(h) * g_bend
    if p_more is not None and form.residual is not None:
        source += form.residual.transposed().product(p_more)
    return source


def _with_frames(form: Form, total: Bars, tape: Tape[Slopes], bars: Tensor, past: Tensor) -> Bars:
    """Gradients of W and A with the frames' share, each in one product over all steps."""
    Y, shape = tape.frames[:, :-1], tape.kept.shape
    if total.W is not None:
        P = Y if tape.slopes.g is None else Y * tape.slopes.g.unsqueeze(-2)
        total = total._replace(W=total.W + recurrence.over_time(bars, P, shape))
    if total.matrix is not None and form.residual is not None:
        flat = (z.reshape(*shape.ensemble, -1, shape.n) for z in (past, Y))
        total = total._replace(matrix=total.matrix + form.residual.gradient(*flat))
    return total
