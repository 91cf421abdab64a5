"""The tangent dynamics of a `Form` and their vjp, by hand.

All that does not depend on the frame is computed for the whole sequence at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch.cells import Activation, Form
from lyaptorch.cells.cell import ADVICE
from lyaptorch.cells.form import Bars, Residual, columns, linear, rows, time_in_batch, weight_gradients


class FormDynamics:
    """h' = P(h) + c f(W g(h) + V x + b): the sum of two branches, each with its own pullback.

    One step back costs O(b n^2 k).
    """

    advice = ADVICE

    def __init__(self, form: Form, inputs: Tensor, leaves: Sequence[Tensor]) -> None:
        self.form, self.inputs, self.leaves = form, inputs, leaves
        with torch.no_grad():
            self.drive = form.drive(inputs)
        # one view is made in a fraction of the time of an index
        self._drives = self.drive.unbind()
        self._totals = {id(leaf): torch.zeros_like(leaf) for leaf in leaves}
        self._x_bars: Tensor | None = None

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        return self.form.pushforward(self._drives[s], h, Q)

    def step(self, s: int, h: Tensor) -> Tensor:
        return self.form.step(self._drives[s], h)

    def jacobians(self, start: int, stop: int, h: Tensor) -> Tensor:
        return self.form.jacobian(time_in_batch(self.drive[start:stop]), h)

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        form, h = self.form, torch.stack(list(states))
        if self._x_bars is None and self.inputs.requires_grad:
            self._x_bars = torch.zeros_like(self.inputs)
        self._start, self._states = start, h
        self._recurrent = _Recurrent(form, h, self.drive[start : start + len(h)], self._totals)
        self._bypass = None if form.residual is None else _Bypass(form.residual, h, self._totals)

    def product(self, s: int, Q: Tensor) -> Tensor:
        i, Y = s - self._start, Q.mT
        out = self._recurrent.product(i, Y)
        return (out if self._bypass is None else out + self._bypass.product(i, Y)).mT

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        i, Y, N = s - self._start, Q.mT, Z.mT
        # the step is a sum: each branch gets the same cotangents
        h_out, Y_bar = self._recurrent.pullback(i, Y, h_bar, N)
        if self._bypass is not None:
            h_more, Y_more = self._bypass.pullback(i, Y, h_bar, N)
            h_out, Y_bar = h_out + h_more, Y_bar + Y_more
        return h_out, Y_bar.mT

    def finish(self) -> None:
        inputs = self.inputs[self._start : self._start + len(self._states)]
        bars = self._recurrent.finish()
        if self._x_bars is not None:
            self._x_bars[self._start : self._start + len(inputs)] = linear(bars.a, self.form.weight_ih.mT)
        if self._bypass is not None:
            bars = bars._replace(matrix=self._bypass.finish())
        for leaf, bar in zip(
            self.leaves, weight_gradients(self.form, self.leaves, inputs, bars), strict=True
        ):
            self._totals[id(leaf)] += bar

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        return self._x_bars, [self._totals[id(leaf)] for leaf in self.leaves]


class _Recurrent:
    """c f(W g(h) + drive), along states h `(t, *e, b, n)`.

    With M = W (g' Q) and A = W^T (c f' Z), the state receives `c f''(a) sum_k Z M` and `g''(h) sum_k A Q`
    beside the terms of ordinary backpropagation.
    """

    def __init__(self, form: Form, h: Tensor, drive: Tensor, totals: dict[int, Tensor]) -> None:
        self.form, self.h, self.totals, self.values = form, h, totals, h
        # the frames' share of W_bar grows step by step; that of the states is one product at the end
        self.W_frames = torch.zeros_like(form.weight_hh) if id(form.weight_hh) in totals else None
        # cotangents of a, of f'(a), of g(h), of g'(h) and of c, filled in by pullback
        self.a_bars = torch.empty_like(h)
        if form.inner is not None:
            self.values, self.g1, self.g2 = form.inner(h), form.inner.slope(h), form.inner.curvature(h)
            self.g_bars, self.g1_bars = torch.empty_like(h), torch.empty_like(h)
        if form.outer is not None or form.coupling is not None:
            self.a = linear(self.values, form.weight_hh) + drive
        if form.outer is not None:
            self.f1, self.f2 = form.outer.slope(self.a), form.outer.curvature(self.a)
            self.f_bars, self.f1_bars = torch.empty_like(h), torch.empty_like(h)
        if form.coupling is not None:
            self.out, self.c_bars = self.a if form.outer is None else form.outer(self.a), torch.empty_like(h)

    def product(self, i: int, Y: Tensor) -> Tensor:
        if self.form.inner is not None:
            Y = Y * self.g1[i].unsqueeze(-2)
        Y = rows(Y, self.form.weight_hh.mT)
        if self.form.outer is not None:
            Y = Y * self.f1[i].unsqueeze(-2)
        return self.form.coupled_rows(Y)

    def pullback(self, i: int, Y: Tensor, h_bar: Tensor, N: Tensor) -> tuple[Tensor, Tensor]:
        form, W = self.form, self.form.weight_hh
        P = Y if form.inner is None else Y * self.g1[i].unsqueeze(-2)
        if form.outer is not None or form.coupling is not None:
            # differentiated is <h_bar, c f(a)> + <N, c f'(a) M>, M = (Y g') W^T, by c, a, W, Y and h in turn
            M = rows(P, W.mT)
        if form.coupling is not None:
            pushed = M if form.outer is None else M * self.f1[i].unsqueeze(-2)
            self.c_bars[i] = h_bar * self.out[i] + (N * pushed).sum(-2)
            h_bar, N = form.coupled(h_bar), form.coupled_rows(N)
        a_bar = h_bar
        if form.outer is not None:
            # by a: c f' h_bar + c f'' sum_k N M, of which h_bar and N have c in them already
            slope, bend = self.f1[i], (N * M).sum(-2)
            self.f_bars[i], self.f1_bars[i] = h_bar, bend
            a_bar, N = h_bar * slope + self.f2[i] * bend, N * slope.unsqueeze(-2)
        self.a_bars[i] = a_bar
        if self.W_frames is not None:
            # by W: sum_k N P^T, trajectories and columns as one index; a_bar u^T waits for all steps
            n = W.shape[-1]
            bk = N.shape[-2] * N.shape[-3]
            self.W_frames.view(-1, n, n).baddbmm_(N.reshape(-1, bk, n).mT, P.reshape(-1, bk, n))
        # by P and by u = g(h): N W and a_bar W
        A, u_bar = rows(N, W), a_bar @ W
        if form.inner is None:
            return u_bar, A
        # P = g'(h) Y: by Y A g', by h u_bar g' + g'' sum_k A Y
        slope, bend = self.g1[i], (A * Y).sum(-2)
        self.g_bars[i], self.g1_bars[i] = u_bar, bend
        return u_bar * slope + self.g2[i] * bend, A * slope.unsqueeze(-2)

    def finish(self) -> Bars:
        form, W_bar, c_bar = self.form, None, None
        if self.W_frames is not None:
            W_bar = self.W_frames + time_in_batch(self.a_bars).mT @ time_in_batch(self.values)
        if form.coupling is not None:
            c_bar = self.c_bars.sum((0, -2))
        if form.inner is not None:
            _add_parameters(self.totals, form.inner, self.h, self.g_bars, self.g1_bars)
        if form.outer is not None:
            _add_parameters(self.totals, form.outer, self.a, self.f_bars, self.f1_bars)
        return Bars(self.a_bars, self.h, W_bar, coupling=c_bar)


class _Bypass:
    """P(h) = phi(A h), along states h `(t, *e, b, n)`."""

    def __init__(self, residual: Residual, h: Tensor, totals: dict[int, Tensor]) -> None:
        self.residual, self.back, self.h, self.totals = residual, residual.transposed(), h, totals
        self.matrix_bar = torch.zeros_like(residual.matrix) if id(residual.matrix) in totals else None
        self.p_bars, phi = torch.empty_like(h), residual.activation
        if phi is not None:
            self.p = residual.product(h)
            self.slope, self.curvature = phi.slope(self.p), phi.curvature(self.p)
            self.phi_bars, self.phi1_bars = torch.empty_like(h), torch.empty_like(h)

    def product(self, i: int, Y: Tensor) -> Tensor:
        Y = columns(self.residual, Y)
        return Y if self.residual.activation is None else Y * self.slope[i].unsqueeze(-2)

    def pullback(self, i: int, Y: Tensor, h_bar: Tensor, N: Tensor) -> tuple[Tensor, Tensor]:
        p_bar = h_bar
        if self.residual.activation is not None:
            # as of f: <h_bar, phi(p)> + <N, phi'(p) A Y>, p = A h, by p: phi' h_bar + phi'' sum_k N (A Y)
            slope, bend = self.slope[i], (N * columns(self.residual, Y)).sum(-2)
            self.phi_bars[i], self.phi1_bars[i] = h_bar, bend
            p_bar, N = h_bar * slope + self.curvature[i] * bend, N * slope.unsqueeze(-2)
        self.p_bars[i] = p_bar
        if self.matrix_bar is not None:
            # its other part, p_bar h^T, waits for all steps
            self.matrix_bar += self.residual.gradient(N.flatten(-3, -2), Y.flatten(-3, -2))
        return self.back.product(p_bar), columns(self.back, N)

    def finish(self) -> Tensor | None:
        if self.residual.activation is not None:
            _add_parameters(self.totals, self.residual.activation, self.p, self.phi_bars, self.phi1_bars)
        if self.matrix_bar is None:
            return None
        return self.matrix_bar + self.residual.gradient(time_in_batch(self.p_bars), time_in_batch(self.h))


def _add_parameters(
    totals: dict[int, Tensor], f: Activation, x: Tensor, value_bar: Tensor, slope_bar: Tensor
) -> None:
    if not any(id(p) in totals for p in f.arguments):
        return
    for p, (dvalue, dslope) in zip(f.arguments, f.parameter_derivatives(x), strict=True):
        if id(p) in totals:
            # value and slope both depend on p, and each has its cotangent
            totals[id(p)] += (value_bar * dvalue + slope_bar * dslope).sum_to_size(p.shape)
