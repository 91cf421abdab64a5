"""Form: what a cell computes, as plain data that kernels can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation

Pullback = tuple[Tensor, Tensor, Tensor | None, list[Tensor]]


@dataclass(frozen=True)
class Form:
    """h' = f(W g(h) + V x + sum b), one step of a recurrent network and its derivatives by hand.

    A rate network has f = id, an Elman network g = id; the identity is None, so that it costs nothing.

    Attributes:
        weight_hh: W `(*e, n, n)`.
        weight_ih: V `(*e, n, m)`.
        biases: each b `(*e, n)`; they are added.
        inner: g, or None for the identity.
        outer: f, or None for the identity.
    """

    weight_hh: Tensor
    weight_ih: Tensor
    biases: tuple[Tensor, ...]
    inner: Activation | None
    outer: Activation | None

    def owns(self, leaves: Sequence[Tensor]) -> bool:
        """Whether `pullback` gives the gradient of each of these tensors."""
        own = [self.weight_hh, self.weight_ih, *self.biases]
        own += [p for f in (self.inner, self.outer) if f is not None for p in f.arguments]
        return all(any(leaf is mine for mine in own) for leaf in leaves)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """h'. Cost O(b n^2)."""
        a = self._preactivation(x, h if self.inner is None else self.inner(h))
        return a if self.outer is None else self.outer(a)

    def pushforward(self, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """h' and D Q = f'(a) W (g'(h) Q), a the argument of f. Cost O(b n^2 k)."""
        Y = Q.mT
        if self.inner is None:
            u = h
        else:
            u, Y = self.inner(h), Y * self.inner.slope(h).unsqueeze(-2)
        a, Y = self._preactivation(x, u), _rows(Y, self.weight_hh.mT)
        if self.outer is None:
            return a, Y.mT
        return self.outer(a), (Y * self.outer.slope(a).unsqueeze(-2)).mT

    def pullback(
        self,
        x: Tensor,
        h: Tensor,
        Q: Tensor,
        h_bar: Tensor,
        Z: Tensor,
        leaves: Sequence[Tensor],
        want_x: bool,
    ) -> Pullback:
        """Pull the cotangents (h_bar, Z) of (h', D Q) back to h, Q, x and each of `leaves`.

        With M = W (g' Q) and A = W^T (f' Z), the state receives `f''(a) sum_k Z M` and `g''(h) sum_k A Q`
        beside the terms of ordinary backpropagation. Cost O(b n^2 k).
        """
        W, g, f, Y, a_bar, N = self.weight_hh, self.inner, self.outer, Q.mT, h_bar, Z.mT
        bars: dict[int, Tensor] = {}
        if g is None:
            u, P = h, Y
        else:
            u, g_slope = g(h), g.slope(h).unsqueeze(-2)
            P = Y * g_slope
        if f is not None:
            a = self._preactivation(x, u)
            bend = (N * _rows(P, W.mT)).sum(-2)
            f_slope = f.slope(a)
            a_bar, N = h_bar * f_slope + f.curvature(a) * bend, N * f_slope.unsqueeze(-2)
            bars |= _parameter_bars(f, a, h_bar, bend, leaves)
        A = _rows(N, W)
        u_bar = a_bar @ W
        if g is None:
            h_bar, Q_bar = u_bar, A
        else:
            bend = (A * Y).sum(-2)
            h_bar, Q_bar = u_bar * g_slope.squeeze(-2) + g.curvature(h) * bend, A * g_slope
            bars |= _parameter_bars(g, h, u_bar, bend, leaves)
        for leaf in leaves:
            if leaf is W:
                bars[id(leaf)] = N.flatten(-3, -2).mT @ P.flatten(-3, -2) + a_bar.mT @ u
            elif leaf is self.weight_ih:
                bars[id(leaf)] = a_bar.mT @ x
            elif any(leaf is bias for bias in self.biases):
                bars[id(leaf)] = a_bar.sum(-2)
        x_bar = (a_bar @ self.weight_ih).sum_to_size(x.shape) if want_x else None
        return h_bar, Q_bar.mT, x_bar, [bars[id(leaf)] for leaf in leaves]

    def _preactivation(self, x: Tensor, u: Tensor) -> Tensor:
        a = u @ self.weight_hh.mT + x @ self.weight_ih.mT
        for bias in self.biases:
            a = a + bias.unsqueeze(-2)
        return a


def _rows(Y: Tensor, W: Tensor) -> Tensor:
    """Y W for rows Y `(*e, b, k, n)`: trajectories and columns share one product with the weights."""
    return (Y.flatten(-3, -2) @ W).unflatten(-2, Y.shape[-3:-1])


def _parameter_bars(
    f: Activation, x: Tensor, value_bar: Tensor, slope_bar: Tensor, leaves: Sequence[Tensor]
) -> dict[int, Tensor]:
    """Gradients of those parameters of `f` that are among `leaves`."""
    if not any(p is leaf for p in f.arguments for leaf in leaves):
        return {}
    return {
        id(p): (value_bar * dvalue + slope_bar * dslope).sum_to_size(p.shape)
        for p, (dvalue, dslope) in zip(f.arguments, f.parameter_derivatives(x), strict=True)
    }
