"""The recurrence of a form in Triton, and backpropagation through it, on tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import AnyForm, Bars, Form, LIFForm, Residual, linear, weight_gradients
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.arguments import KINDS
from lyaptorch.kernels.triton import form_kernels, lif_kernels
from lyaptorch.kernels.triton.operands import (
    Shape,
    by_time,
    drive_of,
    is_nonlinear,
    neurons,
    residual_operands,
    sequence,
    shape_of,
)

DENSE = KINDS["dense"]
RESET_GRADS = ("detach", "full", "ignore")


class Kept(NamedTuple):
    """A trajectory: sizes, all states `(e, t + 1, b, N)`, and a of a form, or the spikes of neurons."""

    shape: Shape
    states: Tensor
    inner: Tensor

    @property
    def before(self) -> Tensor:
        """The states before each step `(t, *e, b, N)`, a view."""
        return by_time(self.states[:, :-1], self.shape)

    @property
    def after(self) -> Tensor:
        """The states after each step `(t, *e, b, N)`, a view."""
        return by_time(self.states[:, 1:], self.shape)


class Pulled(NamedTuple):
    """Cotangents of h', of a and of p = A h `(e, t, b, n)`, the values g(h), and the first state's cotangent.

    Those of h' and p are there if c and A are trained.
    """

    out: Tensor
    a: Tensor
    p: Tensor
    values: Tensor
    h: Tensor


def unroll_forward(form: AnyForm, inputs: Tensor, h0: Tensor, *, keep: bool) -> Kept:
    """The states and, with `keep`, what the adjoint reads besides. Cost O(t b n^2) per network."""
    shape = shape_of(form, inputs, h0)
    drive, N = drive_of(form, inputs, shape), h0.shape[-1]
    # one more than steps: the kernel reads h0 as it reads every state before a step
    states = h0.new_empty(shape.members, shape.t + 1, shape.b, N)
    states[:, 0] = h0.detach().reshape(shape.members, shape.b, N)
    inner, sizes = drive, (shape.t, shape.b, shape.n)
    if isinstance(form, LIFForm):
        inner = torch.empty_like(drive)
        own, special = neurons(form, h0, shape)
        lif_kernels.forward[shape.grid](*own, drive, inner, states, *sizes, **special)
    else:
        own, a_size, special = residual_operands(form, h0, shape)
        form_kernels.forward[shape.grid](*own, drive, states, *sizes, a_size, KEEP=keep, **special)
    return Kept(shape, states, inner)


def unroll_adjoint(
    form: AnyForm, leaves: Sequence[Tensor], inputs: Tensor, h0: Tensor, kept: Kept, states_bar: Tensor
) -> list[Tensor | None]:
    """Gradients of inputs (None where not wanted), h0 and leaves. Cost about twice the forward's."""
    shape = kept.shape
    states_bar, h_bar = sequence(states_bar, shape), h0.new_zeros(shape.members, shape.b, h0.shape[-1])
    if isinstance(form, LIFForm):
        a_bars, h_bar = pull_back_neurons(form, kept, states_bar, h_bar)
        bars = Bars(by_time(a_bars, shape), h_bar, over_time(a_bars, kept.inner, shape))
    else:
        bars = form_bars(form, leaves, kept, pull_back(form, leaves, kept, states_bar, h_bar))
    inputs_bar, h0_bar, found = gradients(form, leaves, inputs, h0, bars)
    return [inputs_bar, h0_bar, *found]


def gradients(
    form: AnyForm, leaves: Sequence[Tensor], inputs: Tensor, h0: Tensor, bars: Bars
) -> tuple[Tensor | None, Tensor, list[Tensor]]:
    """Those of inputs (None where not wanted), h0 and leaves, but for what comes through slopes."""
    if isinstance(form, LIFForm):
        # what follows from the cotangents of W S + V x + b is the same for both
        form = Form(form.weight_hh, form.weight_ih, form.biases, None, None)
    inputs_bar = linear(bars.a, form.weight_ih.mT).detach() if inputs.requires_grad else None
    return inputs_bar, bars.h.reshape(h0.shape), weight_gradients(form, leaves, inputs, bars)


def add_sharpness(
    leaves: Sequence[Tensor], found: list[Tensor], f: Activation | None, x: Callable[[], Tensor], bend: Tensor
) -> None:
    """Add to the gradient of f's sharpness what comes from `bend`, the cotangent of its slope at x."""
    for i, leaf in enumerate(leaves):
        if isinstance(f, Surrogate) and leaf is f.arguments[0]:
            _, dslope = f.parameter_derivatives(x())[0]
            found[i] = found[i] + (bend * dslope).sum_to_size(leaf.shape)


def pull_back_neurons(
    form: LIFForm, kept: Kept, states_bar: Tensor, h_bar: Tensor, cut: int = 0
) -> tuple[Tensor, Tensor]:
    """Cotangents of W S + V x + b `(e, t, b, n)` and of the first state; arguments as of `pull_back`."""
    shape, a_bars = kept.shape, torch.empty_like(kept.inner)
    h_bar = h_bar.clone(memory_format=torch.contiguous_format)
    own, special = neurons(form, kept.states, shape)
    lif_kernels.backward[shape.grid](
        *own, kept.states, kept.inner, states_bar, a_bars, h_bar, shape.t, shape.b, shape.n, cut,
        GRAD=RESET_GRADS.index(form.reset_grad), **special,
    )  # fmt: skip
    return a_bars, h_bar


def pull_back(
    form: Form, leaves: Sequence[Tensor], kept: Kept, states_bar: Tensor, h_bar: Tensor, cut: int = 0
) -> Pulled:
    """From cotangents of the states after each step `(e, t, b, n)`, and more of the last, back to the first.

    With `cut` the cotangent of the state before each of its multiples is dropped.
    """
    residual, states, shape = form.residual, kept.states, kept.shape
    own, a_size, special = residual_operands(form, states, shape)
    # the kernel leaves the first state's cotangent in its place: not the caller's
    a_bars, h_bar = torch.empty_like(kept.inner), h_bar.clone(memory_format=torch.contiguous_format)
    # what a kernel neither reads nor writes is any tensor: its pointer must be of the right type
    outs = p = p_bars = values = a_bars
    trained = residual is not None and trains(leaves, residual.matrix)
    if trained or (special["KIND"] == DENSE and not special["RESIDENT"]):
        p_bars = torch.empty_like(a_bars)
    if residual is not None and is_nonlinear(residual.activation):
        p = bypassed(residual, kept)
    if is_nonlinear(form.inner):
        values = torch.empty_like(a_bars)
    if trains(leaves, form.coupling):
        outs = torch.empty_like(a_bars)
    form_kernels.backward[shape.grid](
        *own, states, kept.inner, p, states_bar, outs, a_bars, p_bars, values, h_bar,
        shape.t, shape.b, shape.n, a_size, cut,
        OUTS=outs is not a_bars, P_BARS=p_bars is not a_bars, **special,
    )  # fmt: skip
    return Pulled(outs, a_bars, p_bars, values if is_nonlinear(form.inner) else states[:, :-1], h_bar)


def form_bars(form: Form, leaves: Sequence[Tensor], kept: Kept, pulled: Pulled) -> Bars:
    """Cotangents of a, and the gradients of h0, W, A and c, each in one product over all steps."""
    shape, W_bar, matrix_bar, coupling_bar = kept.shape, None, None, None
    if trains(leaves, form.weight_hh):
        W_bar = over_time(pulled.a, pulled.values, shape)
    if form.residual is not None and trains(leaves, form.residual.matrix):
        flat = (z.reshape(*shape.ensemble, -1, shape.n) for z in (pulled.p, kept.states[:, :-1]))
        matrix_bar = form.residual.gradient(*flat)
    if trains(leaves, form.coupling):
        f = by_time(kept.inner, shape) if form.outer is None else form.outer(by_time(kept.inner, shape))
        coupling_bar = (by_time(pulled.out, shape) * f).sum((0, -2))
    return Bars(by_time(pulled.a, shape), pulled.h, W_bar, matrix_bar, coupling_bar)


def over_time(bars: Tensor, values: Tensor, shape: Shape) -> Tensor:
    """Sum over steps, trajectories and rows of frames of bars^T values `(*e, n, n)`."""
    # sequences lie as (e, t, b, n): time, trajectories and rows are one inner index without a copy
    total = bars.flatten(1, -2).mT @ values.flatten(1, -2)
    return total.reshape(*shape.ensemble, *total.shape[1:])


def bypassed(residual: Residual, kept: Kept) -> Tensor:
    """A h `(e, t, b, n)` of all states but the last."""
    return sequence(residual.product(kept.before), kept.shape)


def trains(leaves: Sequence[Tensor], tensor: Tensor | None) -> bool:
    """Whether a tensor is one of the leaves."""
    return any(leaf is tensor for leaf in leaves)
