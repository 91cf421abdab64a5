"""A cell bound to its inputs: one step of the tangent dynamics forwards, and its vjp backwards.

`CellDynamics` serves any cell by autograd; `FormDynamics` serves cells with a `Form` by hand, with all
that does not depend on the frame computed for the whole sequence at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lyaptorch.cells import Activation, Cell, Form
from lyaptorch.cells.form import linear, rows, weight_gradients
from lyaptorch.cells.protocol import ADVICE


class Dynamics(Protocol):
    """What the scan and its adjoint ask of a cell bound to inputs `(t, *e, b, m)`.

    Attributes:
        advice: what an error says when the state overflows.
    """

    advice: str

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and D Q at step s."""

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        """Prepare to pull back through the steps `start`, `start + 1`, ... that left from `states`."""

    def product(self, s: int, Q: Tensor) -> Tensor:
        """D Q at step s, after `begin`."""

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Pull the cotangents (h_bar, Z) of (h', D Q) at step s back to (h, Q), after `begin`."""

    def finish(self) -> None:
        """Account for the steps since `begin`."""

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        """The gradients of the inputs (None where not wanted) and of the leaves, so far."""


def bind(cell: Cell, inputs: Tensor, leaves: Sequence[Tensor]) -> Dynamics:
    """The fastest dynamics that serve this cell and give the gradient of each of `leaves`."""
    form = cell.form()
    if form is not None and all(any(leaf is own for own in form.tensors()) for leaf in leaves):
        return FormDynamics(form, inputs, leaves)
    return CellDynamics(cell, inputs, leaves)


class CellDynamics:
    """Any cell: the vjp of its `pushforward` by autograd, step by step."""

    def __init__(self, cell: Cell, inputs: Tensor, leaves: Sequence[Tensor]) -> None:
        self.cell, self.inputs, self.leaves, self.advice = cell, inputs, leaves, cell.advice
        self._totals = [torch.zeros_like(leaf) for leaf in leaves]
        self._x_bars: Tensor | None = None

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        return self.cell.pushforward(self.inputs[s], h, Q)

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        self._start, self._states = start, states
        if self._x_bars is None and self.inputs.requires_grad:
            self._x_bars = torch.zeros_like(self.inputs)

    def product(self, s: int, Q: Tensor) -> Tensor:
        return self.pushforward(s, self._states[s - self._start], Q)[1]

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        h = self._states[s - self._start].detach().requires_grad_()
        x, Q = self.inputs[s].detach(), Q.detach().requires_grad_()
        wanted = [h, Q, *self.leaves]
        if self._x_bars is not None:
            wanted.append(x.requires_grad_())
        with torch.enable_grad():
            pairs = zip(self.cell.pushforward(x, h, Q), (h_bar, Z), strict=True)
        live = [(y, bar) for y, bar in pairs if y.requires_grad]
        if not live:
            return torch.zeros_like(h), torch.zeros_like(Q)
        # retain_graph: the step may read tensors that were computed outside it
        bars = torch.autograd.grad(
            [y for y, _ in live],
            wanted,
            [bar for _, bar in live],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        for total, bar in zip(self._totals, bars[2:], strict=False):
            total += bar
        if self._x_bars is not None:
            self._x_bars[s] = bars[-1]
        return bars[0], bars[1]

    def finish(self) -> None:
        self._states = []

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        return self._x_bars, self._totals


class FormDynamics:
    """h' = f(W g(h) + V x + b), differentiated by hand.

    With M = W (g' Q) and A = W^T (f' Z), the state receives `f''(a) sum_k Z M` and `g''(h) sum_k A Q`
    beside the terms of ordinary backpropagation. One step back costs O(b n^2 k).
    """

    advice = ADVICE

    def __init__(self, form: Form, inputs: Tensor, leaves: Sequence[Tensor]) -> None:
        self.form, self.inputs, self.leaves = form, inputs, leaves
        with torch.no_grad():
            self.drive = form.drive(inputs)
        self._totals = {id(leaf): torch.zeros_like(leaf) for leaf in leaves}
        self._x_bars: Tensor | None = None

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        return self.form.pushforward(self.drive[s], h, Q)

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        form, h = self.form, torch.stack(list(states))
        if self._x_bars is None and self.inputs.requires_grad:
            self._x_bars = torch.zeros_like(self.inputs)
        self._start, self._states, self._values = start, h, h
        self._W_frames: Tensor | None = None
        if any(leaf is form.weight_hh for leaf in self.leaves):
            n = form.weight_hh.shape[-1]
            self._W_frames = self._totals[id(form.weight_hh)].view(-1, n, n)
        # cotangents of a, of f'(a), of g(h) and of g'(h), filled in by pullback
        self._a_bars = torch.empty_like(h)
        if form.inner is not None:
            self._values, self._g1, self._g2 = form.inner(h), form.inner.slope(h), form.inner.curvature(h)
            self._g_bars, self._g1_bars = torch.empty_like(h), torch.empty_like(h)
        if form.outer is not None:
            self._a = linear(self._values, form.weight_hh) + self.drive[start : start + len(h)]
            self._f1, self._f2 = form.outer.slope(self._a), form.outer.curvature(self._a)
            self._f_bars, self._f1_bars = torch.empty_like(h), torch.empty_like(h)

    def product(self, s: int, Q: Tensor) -> Tensor:
        i, Y = s - self._start, Q.mT
        if self.form.inner is not None:
            Y = Y * self._g1[i].unsqueeze(-2)
        Y = rows(Y, self.form.weight_hh.mT)
        return Y.mT if self.form.outer is None else (Y * self._f1[i].unsqueeze(-2)).mT

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        i, W, Y, N = s - self._start, self.form.weight_hh, Q.mT, Z.mT
        P = Y if self.form.inner is None else Y * self._g1[i].unsqueeze(-2)
        a_bar = h_bar
        if self.form.outer is not None:
            slope = self._f1[i]
            bend = (N * rows(P, W.mT)).sum(-2)
            self._f_bars[i], self._f1_bars[i] = h_bar, bend
            a_bar, N = h_bar * slope + self._f2[i] * bend, N * slope.unsqueeze(-2)
        self._a_bars[i] = a_bar
        if self._W_frames is not None:
            n = N.shape[-1]
            bk = N.shape[-2] * N.shape[-3]
            self._W_frames.baddbmm_(N.reshape(-1, bk, n).mT, P.reshape(-1, bk, n))
        A, u_bar = rows(N, W), a_bar @ W
        if self.form.inner is None:
            return u_bar, A.mT
        slope, bend = self._g1[i], (A * Y).sum(-2)
        self._g_bars[i], self._g1_bars[i] = u_bar, bend
        return u_bar * slope + self._g2[i] * bend, (A * slope.unsqueeze(-2)).mT

    def finish(self) -> None:
        form, inputs = self.form, self.inputs[self._start : self._start + len(self._states)]
        if self._x_bars is not None:
            self._x_bars[self._start : self._start + len(inputs)] = linear(self._a_bars, form.weight_ih.mT)
        bars = weight_gradients(form, self.leaves, inputs, self._values, self._a_bars)
        for leaf, bar in zip(self.leaves, bars, strict=True):
            self._totals[id(leaf)] += bar
        if form.inner is not None:
            self._add_parameters(form.inner, self._states, self._g_bars, self._g1_bars)
        if form.outer is not None:
            self._add_parameters(form.outer, self._a, self._f_bars, self._f1_bars)

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        return self._x_bars, [self._totals[id(leaf)] for leaf in self.leaves]

    def _add_parameters(self, f: Activation, x: Tensor, value_bar: Tensor, slope_bar: Tensor) -> None:
        if not any(id(p) in self._totals for p in f.arguments):
            return
        for p, (dvalue, dslope) in zip(f.arguments, f.parameter_derivatives(x), strict=True):
            if id(p) in self._totals:
                self._totals[id(p)] += (value_bar * dvalue + slope_bar * dslope).sum_to_size(p.shape)
