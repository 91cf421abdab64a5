"""The scan of spiking neurons and its log-R adjoint in Triton, on tensors, as `scan` has it for forms.

Along a known trajectory a step of the tangent vectors (u, i) is linear: with the spikes' slopes S'

    i' = alpha i + (S' u) W^T,   u' = a u + d (i' or i),   a = keep beta - bite S',   d = keep (1 - beta)

where keep and bite are what the convention of the reset leaves of the derivative of U'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.form import Bars, Form, LIFForm, linear, weight_gradients
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.scan import Scanned, Settings
from lyaptorch.kernels.triton import lif_frame_kernels
from lyaptorch.kernels.triton.operands import Shape, by_time, neurons, padded, rowwise, sequence, shape_of
from lyaptorch.kernels.triton.scan import broken, cuts_of, inverse_of, spread_of
from lyaptorch.kernels.triton.unroll import Kept, over_time, pull_back_neurons, trains, unroll_forward


class Steps(NamedTuple):
    """Of all steps `(t, *e, b, n)`: U - theta, v before the reset, S', keep and bite."""

    above: Tensor
    v: Tensor
    slope: Tensor
    keep: Tensor
    bite: Tensor


class Tape(NamedTuple):
    """Of a trajectory, its steps, frames `(e, t + 1, b, k, 2 n)`, and L `(e, s, b, k, k)` of every span."""

    kept: Kept
    steps: Steps
    frames: Tensor
    factors: Tensor


def scan_forward(
    form: LIFForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """As `kernels.scan.scan_forward`. Cost O(t n^2 k + s n k^2) per trajectory; `keep` keeps t frames."""
    shape, (wide, k), spans = shape_of(form, inputs, h), frame.shape[-2:], len(settings.twice)
    e, b, t, n = shape.members, shape.b, shape.t, shape.n
    _, kept = unroll_forward(form, inputs, h, keep=True)
    assert kept is not None
    steps = steps_of(form, kept, shape)
    own, special = _own(form, h, shape, k, steps)
    frames = h.new_empty(e, t + 1 if keep else 1, b, k, wide)
    frames[:, 0] = frame.detach().mT.expand(*shape.ensemble, b, k, wide).reshape(e, b, k, wide)
    factors, dead = h.new_empty(e, spans, b, k, k), frames.new_zeros(e, spans + 1, b, k, dtype=torch.uint8)
    status = torch.full((e, b), -1, dtype=torch.int32, device=h.device)
    lif_frame_kernels.forward[(e, b)](
        *own, frames, factors, h.new_empty(e, b, 2, k, wide), dead, status, *cuts_of(settings, h.device),
        spans, t, b, k, n, torch.finfo(h.dtype).eps, KEEP=keep, **special,
    )  # fmt: skip
    pivots = by_time(factors.diagonal(dim1=-2, dim2=-1), shape)
    tape = Tape(kept, steps, frames, factors) if keep else None
    end = kept.states[:, -1].reshape(h.shape).clone()
    Q = frames[:, -1].reshape(*shape.ensemble, b, k, wide).mT
    return Scanned(pivots, by_time(dead[:, 1:], shape).bool(), end, Q, *broken(status, kept, settings), tape)


def scan_adjoint(
    form: LIFForm,
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
    shape, k, wide = shape_of(form, inputs, h0), c.shape[-1], h0.shape[-1]
    e, b, t, n = shape.members, shape.b, shape.t, shape.n
    own, special = _own(form, h0, shape, k, tape.steps)
    bars, work = tape.frames.new_empty(e, t, b, k, n), tape.frames.new_empty(e, b, 2, k, wide)
    work[:, :, 0] = tape.frames[:, -1] * sequence(c[-1:], shape)[:, 0].unsqueeze(-1)
    bends = [torch.zeros_like(tape.kept.inner) for _ in range(3)]
    lif_frame_kernels.backward[(e, b)](
        *own, tape.frames, inverse_of(tape.factors), sequence(c, shape), sequence(spread_of(log_r), shape),
        cuts_of(settings, h0.device)[0], bars.new_empty(e, b, k, k), work, bars, *bends,
        len(settings.twice), t, b, k, n, **special,
    )  # fmt: skip
    slope_bar, a_bar, d_bar = (by_time(z, shape) for z in bends)
    # a = keep beta - bite S'
    slope_bar = slope_bar - tape.steps.bite * a_bar
    cut = settings.cut or 0
    first, states_bar = _sources(form, tape.steps, slope_bar, a_bar, d_bar, cut)
    a_bars, h0_bar = pull_back_neurons(
        form, tape.kept, shape, sequence(states_bar, shape), h_bar.reshape(e, b, wide), cut
    )
    W_bar = None
    if trains(leaves, form.weight_hh):
        P = tape.frames[:, :-1, ..., :n] * sequence(tape.steps.slope, shape).unsqueeze(-2)
        share = bars.flatten(1, 3).mT @ P.flatten(1, 3)
        W_bar = over_time(a_bars, tape.kept.inner, shape) + share.reshape(form.weight_hh.shape)
    total = Bars(by_time(a_bars, shape), h0_bar, W_bar)
    plain = Form(form.weight_hh, form.weight_ih, form.biases, None, None)
    found = weight_gradients(plain, leaves, inputs, total)
    for i, leaf in enumerate(leaves):
        if isinstance(form.spike, Surrogate) and leaf is form.spike.arguments[0]:
            _, dslope = form.spike.parameter_derivatives(tape.steps.above)[0]
            found[i] = found[i] + (slope_bar * dslope).sum_to_size(leaf.shape)
    inputs_bar = linear(total.a, form.weight_ih.mT).detach() if inputs.requires_grad else None
    frame_bar = work[:, :, len(settings.twice) % 2]
    h0_bar = h0_bar.reshape(h0.shape) + first
    return [inputs_bar, h0_bar, frame_bar.reshape(*shape.ensemble, b, k, wide).mT, *found]


def steps_of(form: LIFForm, kept: Kept, shape: Shape) -> Steps:
    """What the tangent vectors meet at each step."""
    U, before = by_time(kept.states[:, :-1], shape).chunk(2, -1)
    after, S = by_time(kept.states[:, 1:], shape).chunk(2, -1)[1], by_time(kept.inner, shape)
    beta, theta = form.beta.detach().unsqueeze(-2), form.threshold.detach().unsqueeze(-2)
    v = beta * U + (1 - beta) * (before if form.order == "simultaneous" else after)
    resets, bites = form.reset == "product" and form.reset_grad != "ignore", form.reset_grad == "full"
    bite = (v if form.reset == "product" else theta.expand_as(v)) if bites else torch.zeros_like(v)
    above = U - theta
    slope = form.spike.slope(above).detach()
    return Steps(above, v, slope, 1 - S if resets else torch.ones_like(S), bite)


def _own(form: LIFForm, h: Tensor, shape: Shape, k: int, steps: Steps) -> tuple[list[Tensor], dict[str, Any]]:
    """Weights and steps as the frame's kernels read them, and what these are specialised by."""
    (W, alpha, *_), special = neurons(form, h, shape)
    beta, wide = form.beta.detach().unsqueeze(-2), padded(h.shape[-1])
    a, d = steps.keep * beta - steps.bite * steps.slope, steps.keep * (1 - beta)
    return [rowwise(W), alpha, *(sequence(z, shape) for z in (steps.slope, a, d))], {
        "SIMULTANEOUS": special["SIMULTANEOUS"],
        "PRECISION": special["PRECISION"],
        "K": min(32, padded(k)),
        "N": shape.tile,
        "WIDE": wide,
        "num_warps": 4 if wide <= 64 else 8,
    }


def _sources(
    form: LIFForm, steps: Steps, slope_bar: Tensor, a_bar: Tensor, d_bar: Tensor, cut: int
) -> tuple[Tensor, Tensor]:
    """What the tangent vectors leave at the first state, and at those after each step `(t, *e, b, 2 n)`."""
    beta = form.beta.detach().unsqueeze(-2)
    U_bar = form.spike.curvature(steps.above) * slope_bar
    within, before = torch.zeros_like(U_bar), torch.zeros_like(U_bar)
    if form.reset_grad == "full" and form.reset == "product":
        # keep = 1 - S and bite = v
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
