"""Form: what a cell computes, as plain data that kernels can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation


@dataclass(frozen=True)
class Form:
    """h' = f(W g(h) + V x + sum b), one step of a recurrent network.

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

    def weights(self) -> list[Tensor]:
        """W, V and the biases."""
        return [self.weight_hh, self.weight_ih, *self.biases]

    def tensors(self) -> list[Tensor]:
        """Everything the step depends on."""
        return self.weights() + [p for f in (self.inner, self.outer) if f is not None for p in f.arguments]

    def drive(self, x: Tensor) -> Tensor:
        """V x + sum b `(..., *e, b, n)`, of one step or of a whole sequence in one product."""
        drive = linear(x, self.weight_ih)
        for bias in self.biases:
            drive = drive + bias.unsqueeze(-2)
        return drive

    def step(self, drive: Tensor, h: Tensor) -> Tensor:
        """h', from the drive. Cost O(b n^2)."""
        a = self._recur(h if self.inner is None else self.inner(h), drive)
        return a if self.outer is None else self.outer(a)

    def pushforward(self, drive: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """h' and D Q = f'(a) W (g'(h) Q), a the argument of f. Cost O(b n^2 k)."""
        u, Y = h, Q.mT
        if self.inner is not None:
            u, Y = self.inner(h), Y * self.inner.slope(h).unsqueeze(-2)
        a, Y = self._recur(u, drive), rows(Y, self.weight_hh.mT)
        if self.outer is None:
            return a, Y.mT
        return self.outer(a), (Y * self.outer.slope(a).unsqueeze(-2)).mT

    def _recur(self, u: Tensor, drive: Tensor) -> Tensor:
        return u @ self.weight_hh.mT + drive


def rows(Y: Tensor, W: Tensor) -> Tensor:
    """Y W for rows Y `(*e, b, k, n)`: trajectories and columns share one product with the weights."""
    return torch.unflatten(Y.flatten(-3, -2) @ W, -2, Y.shape[-3:-1])


def linear(x: Tensor, W: Tensor) -> Tensor:
    """W x for x `(*e, b, m)` or, in one product a member, for a whole sequence `(t, *e, b, m)`."""
    if x.dim() <= W.dim() or W.dim() == 2:
        return x @ W.mT
    y = time_in_batch(x) @ W.mT
    return torch.unflatten(y, -2, (len(x), -1)).movedim(-3, 0)


def weight_gradients(
    form: Form, leaves: Sequence[Tensor], inputs: Tensor, values: Tensor, a_bars: Tensor
) -> list[Tensor]:
    """The gradient of each of `leaves` from cotangents of a = W u + V x + sum b, over a whole sequence.

    Args:
        form: what was computed.
        leaves: some of its weights; zero is returned for anything else.
        inputs: x `(t, *e, b, m)`.
        values: u = g(h) `(t, *e, b, n)`.
        a_bars: cotangents of a, `(t, *e, b, n)`.
    """
    W_bar = None
    if any(leaf is form.weight_hh for leaf in leaves):
        W_bar = time_in_batch(a_bars).mT @ time_in_batch(values)
    return drive_gradients(form, leaves, inputs, a_bars, W_bar)


def drive_gradients(
    form: Form, leaves: Sequence[Tensor], inputs: Tensor, a_bars: Tensor, W_bar: Tensor | None
) -> list[Tensor]:
    """`weight_gradients` where that of W is known already."""
    a_bars = time_in_batch(a_bars)
    gradients = []
    for leaf in leaves:
        # of all its uses: weights may be tied
        bar = torch.zeros_like(leaf)
        if leaf is form.weight_hh and W_bar is not None:
            bar = bar + W_bar
        if leaf is form.weight_ih:
            # this way round, because products with few columns are slow
            bar = bar + (time_in_batch(inputs).mT @ a_bars).mT
        for bias in form.biases:
            if leaf is bias:
                bar = bar + a_bars.sum(-2)
        gradients.append(bar)
    return gradients


def time_in_batch(x: Tensor) -> Tensor:
    """`(t, *e, b, n)` to `(*e, t b, n)`."""
    return x.movedim(0, -3).flatten(-3, -2)
