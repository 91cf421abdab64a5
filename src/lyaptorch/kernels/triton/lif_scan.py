"""The scan of spiking neurons and its log-R adjoint in Triton, on tensors, as `form_scan` has it for forms.

Along a known trajectory a step of the tangent vectors (u, i) is linear: with the spikes' slopes S'

    i' = alpha i + (S' u) W^T,   u' = a u + d (i' or i),   a = keep beta - bite S',   d = keep (1 - beta)

where keep and bite are what the convention of the reset leaves of the derivative of U'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.form import Bars, LIFForm
from lyaptorch.kernels.arguments import Saved, Scanned, Settings
from lyaptorch.kernels.triton import lif_kernels, recurrence
from lyaptorch.kernels.triton.frames import Own, Tape, pull, push
from lyaptorch.kernels.triton.operands import by_time, neurons, padded, rowwise, sequence
from lyaptorch.kernels.triton.recurrence import Kept


class Steps(NamedTuple):
    """Of all steps `(t, *e, b, n)`: U - theta, v before the reset, S', keep and bite."""

    above: Tensor
    v: Tensor
    slope: Tensor
    keep: Tensor
    bite: Tensor


def scan_forward(
    form: LIFForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """As `kernels.fused.scan_forward`. Cost O(t n^2 k + s n k^2) per trajectory; `keep` keeps t frames."""
    kept = recurrence.unroll_forward(form, inputs, h, keep=True)
    steps = steps_of(form, kept)
    own = _own(form, kept, frame.shape[-1], steps)
    return push(lif_kernels.forward_frame, own, kept, steps, frame, settings, keep=keep)


def scan_adjoint(
    form: LIFForm, leaves: Sequence[Tensor], settings: Settings, saved: Saved, c: Tensor, h_bar: Tensor
) -> list[Tensor | None]:
    """As `kernels.fused.scan_adjoint`. Cost about twice the forward scan's."""
    tape: Tape[Steps] = saved.tape
    kept, steps, shape, h0 = tape.kept, tape.slopes, tape.kept.shape, saved.h0
    own = _own(form, kept, c.shape[-1], steps)
    bars, bends, frame_bar = pull(lif_kernels.backward_frame, own, tape, settings, c, saved.log_r)
    slope_bar, a_bar, d_bar = bends
    # a = keep beta - bite S'
    slope_bar = slope_bar - steps.bite * a_bar
    cut = settings.cut or 0
    first, states_bar = _sources(form, steps, slope_bar, a_bar, d_bar, cut)
    h_bar = h_bar.reshape(shape.members, shape.b, h0.shape[-1])
    a_bars, h0_bar = recurrence.pull_back_neurons(form, kept, sequence(states_bar, shape), h_bar, cut)
    W_bar = None
    if recurrence.trains(leaves, form.weight_hh):
        P = tape.frames[:, :-1, ..., : shape.n] * sequence(steps.slope, shape).unsqueeze(-2)
        W_bar = recurrence.over_time(a_bars, kept.inner, shape) + recurrence.over_time(bars, P, shape)
    total = Bars(by_time(a_bars, shape), h0_bar, W_bar)
    inputs_bar, h0_bar, found = recurrence.gradients(form, leaves, saved.inputs, h0, total)
    recurrence.add_sharpness(leaves, found, form.spike, lambda: steps.above, slope_bar)
    return [inputs_bar, h0_bar + first, frame_bar, *found]


def steps_of(form: LIFForm, kept: Kept) -> Steps:
    """What the tangent vectors meet at each step."""
    U, before = kept.before.chunk(2, -1)
    after, S = kept.after.chunk(2, -1)[1], by_time(kept.inner, kept.shape)
    beta, theta = form.beta.detach().unsqueeze(-2), form.threshold.detach().unsqueeze(-2)
    v = beta * U + (1 - beta) * (before if form.order == "simultaneous" else after)
    resets, bites = form.reset == "product" and form.reset_grad != "ignore", form.reset_grad == "full"
    bite = (v if form.reset == "product" else theta.expand_as(v)) if bites else torch.zeros_like(v)
    above = U - theta
    slope = form.spike.slope(above).detach()
    return Steps(above, v, slope, 1 - S if resets else torch.ones_like(S), bite)


def _own(form: LIFForm, kept: Kept, k: int, steps: Steps) -> Own:
    """Weights and steps as the frame's kernels read them, and what these are specialised by."""
    shape, beta, wide = kept.shape, form.beta.detach().unsqueeze(-2), padded(kept.states.shape[-1])
    (W, alpha, *_), special = neurons(form, kept.states, shape)
    a, d = steps.keep * beta - steps.bite * steps.slope, steps.keep * (1 - beta)
    tensors = [rowwise(W), alpha, *(sequence(z, shape) for z in (steps.slope, a, d))]
    special = {
        "SIMULTANEOUS": special["SIMULTANEOUS"],
        "PRECISION": special["PRECISION"],
        "K": min(32, padded(k)),
        "N": shape.tile,
        "WIDE": wide,
        "num_warps": 4 if wide <= 64 else 8,
    }
    return Own(tensors, special)


def _sources(
    form: LIFForm, steps: Steps, slope_bar: Tensor, a_bar: Tensor, d_bar: Tensor, cut: int
) -> tuple[Tensor, Tensor]:
    """What the tangent vectors leave at the first state, and at those after each step `(t, *e, b, 2 n)`."""
    beta = form.beta.detach().unsqueeze(-2)
    U_bar = form.spike.curvature(steps.above) * slope_bar
    within, before = torch.zeros_like(U_bar), torch.zeros_like(U_bar)
    if form.reset_grad == "full" and form.reset == "product":
        # keep = 1 - S and bite = v
        # a = (1 - S) beta - v S', d = (1 - S) (1 - beta): v is in a alone, S in both
        v_bar = -steps.slope * a_bar
        U_bar = U_bar + beta * v_bar - steps.slope * (beta * a_bar + (1 - beta) * d_bar)
        (before if form.order == "simultaneous" else within).copy_((1 - beta) * v_bar)
    source = torch.cat([U_bar, before], -1)
    if cut:
        source[::cut] = 0
    states_bar = torch.cat([source[1:], torch.zeros_like(source[:1])])
    # the current of the same step is no earlier state: it is never cut
    states_bar[..., within.shape[-1] :] += within
    return source[0], states_bar
