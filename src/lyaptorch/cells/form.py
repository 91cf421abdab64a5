"""Form and LIFForm: what a cell computes, as plain data that kernels can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lyaptorch.cells.activation import Activation


@dataclass(frozen=True)
class Residual:
    """P(h) = phi(A h), the part of a step that passes W by; A is never larger than its kind needs.

    Attributes:
        matrix: A, "diagonal" `(*e, n)`, 2x2 "blocks" `(*e, n/2, 2, 2)` along it, or "dense" `(*e, n, n)`.
        kind: which of these.
        activation: phi, or None for the identity.
    """

    matrix: Tensor
    kind: Literal["diagonal", "blocks", "dense"]
    activation: Activation | None = None

    def product(self, Y: Tensor) -> Tensor:
        """A y for rows y of Y `(..., *e, r, n)`."""
        if self.kind == "dense":
            return linear(Y, self.matrix)
        if self.kind == "diagonal":
            return Y * self.matrix.unsqueeze(-2)
        pairs = torch.unflatten(Y, -1, (-1, 2))
        # with the columns of each block, A y = y_0 A[:, 0] + y_1 A[:, 1]
        first, second = self.matrix.unsqueeze(-4).unbind(-1)
        return (first * pairs[..., :1] + second * pairs[..., 1:]).flatten(-2)

    def transposed(self) -> Residual:
        """The same with A^T in the place of A."""
        return self if self.kind == "diagonal" else replace(self, matrix=self.matrix.mT)

    def dense(self) -> Tensor:
        """A itself `(*e, n, n)`."""
        n = self.matrix.shape[-1] * (self.matrix.shape[-3] if self.kind == "blocks" else 1)
        # rows A e_i are columns of A
        return self.product(torch.eye(n, dtype=self.matrix.dtype, device=self.matrix.device)).mT

    def gradient(self, bars: Tensor, Y: Tensor) -> Tensor:
        """The gradient of A from cotangents of its products with rows y of Y, all `(*e, r, n)`."""
        # <bar, A y> by A is bar y^T, summed over rows; of it the entries that A has
        if self.kind == "dense":
            return bars.mT @ Y
        if self.kind == "diagonal":
            return (bars * Y).sum(-2)
        bars, Y = (torch.unflatten(z, -1, (-1, 2)) for z in (bars, Y))
        return torch.stack([(bars * Y[..., j : j + 1]).sum(-3) for j in (0, 1)], -1)


@dataclass(frozen=True)
class Form:
    """h' = P(h) + c f(W g(h) + V x + sum b), one step of a recurrent network.

    A rate network has f = id, an Elman network g = id; the identity is None, so that it costs nothing, and
    so are P = 0 and c = 1. A residual network has P.

    Attributes:
        weight_hh: W `(*e, n, n)`.
        weight_ih: V `(*e, n, m)`.
        biases: each b `(*e, n)`; they are added.
        inner: g, or None for the identity.
        outer: f, or None for the identity.
        residual: P, or None for zero.
        coupling: c, any shape that broadcasts against `(*e, n)`, or None for one.
    """

    weight_hh: Tensor
    weight_ih: Tensor
    biases: tuple[Tensor, ...]
    inner: Activation | None
    outer: Activation | None
    residual: Residual | None = None
    coupling: Tensor | None = None

    def weights(self) -> list[Tensor]:
        """W, V, the biases, A and c."""
        matrix = None if self.residual is None else self.residual.matrix
        rest = [z for z in (matrix, self.coupling) if z is not None]
        return [self.weight_hh, self.weight_ih, *self.biases, *rest]

    def activations(self) -> list[Activation]:
        """Those of g, f and phi that there are."""
        phi = None if self.residual is None else self.residual.activation
        return [f for f in (self.inner, self.outer, phi) if f is not None]

    def tensors(self) -> list[Tensor]:
        """Everything the step depends on."""
        return self.weights() + [p for f in self.activations() for p in f.arguments]

    def trained(self) -> list[Tensor]:
        """Those of `tensors` that require a gradient, each once; they may be computed ones."""
        return _trained(self.tensors())

    def drive(self, x: Tensor) -> Tensor:
        """V x + sum b `(..., *e, b, n)`, of one step or of a whole sequence in one product."""
        drive = linear(x, self.weight_ih)
        for bias in self.biases:
            drive = drive + bias.unsqueeze(-2)
        return drive

    def step(self, drive: Tensor, h: Tensor) -> Tensor:
        """h', from the drive. Cost O(b n^2)."""
        a = self._recur(h if self.inner is None else self.inner(h), drive)
        out = self.coupled(a if self.outer is None else self.outer(a))
        if self.residual is None:
            return out
        p, phi = self.residual.product(h), self.residual.activation
        return (p if phi is None else phi(p)) + out

    def pushforward(
        self, drive: Tensor, h: Tensor, Q: Tensor, X: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """h' and D Q = phi'(A h) A Q + c f'(a) (W (g'(h) Q) + V X), a the argument of f. Cost O(b n^2 k)."""
        # a = W g(h) + V x + b, so da = W (g'(h) Q) + V X; Y has the columns of Q as its rows, so that slopes
        # `(*e, b, 1, n)` scale them and all trajectories share the product with W
        u, Y = h, Q.mT
        if self.inner is not None:
            u, Y = self.inner(h), Y * self.inner.slope(h).unsqueeze(-2)
        out, Y = self._recur(u, drive), rows(Y, self.weight_hh.mT)
        if X is not None:
            Y = Y + rows(X.mT, self.weight_ih.mT)
        if self.outer is not None:
            # the right side is evaluated first: the slope is that at a, not at f(a)
            Y, out = Y * self.outer.slope(out).unsqueeze(-2), self.outer(out)
        out, Y = self.coupled(out), self.coupled_rows(Y)
        if self.residual is None:
            return out, Y.mT
        p, phi = self.residual.product(h), self.residual.activation
        pushed = columns(self.residual, Q.mT)
        if phi is not None:
            # d phi(A h) = phi'(A h) A Q, again at the old p
            p, pushed = phi(p), pushed * phi.slope(p).unsqueeze(-2)
        return p + out, (pushed + Y).mT

    def jacobian(self, drive: Tensor, h: Tensor) -> Tensor:
        """D `(*e, b, n, n)` itself. Cost O(b n^2)."""
        u, D = h, self.weight_hh.unsqueeze(-3)
        if self.inner is not None:
            u, D = self.inner(h), D * self.inner.slope(h).unsqueeze(-2)
        if self.outer is not None:
            D = D * self.outer.slope(self._recur(u, drive)).unsqueeze(-1)
        # c scales rows of D, the columns of its transpose
        D = self.coupled_rows(D.mT).mT
        if self.residual is not None:
            P, phi = self.residual.dense().unsqueeze(-3), self.residual.activation
            D = D + (P if phi is None else P * phi.slope(self.residual.product(h)).unsqueeze(-1))
        return D.expand(*h.shape, h.shape[-1])

    def coupled(self, y: Tensor) -> Tensor:
        """c y for states y `(..., *e, b, n)`."""
        c = self.coupling
        return y if c is None else y * (c.unsqueeze(-2) if c.dim() else c)

    def coupled_rows(self, Y: Tensor) -> Tensor:
        """The same for rows of Y `(*e, b, k, n)`."""
        c = self.coupling
        return Y if c is None else Y * (c[..., None, None, :] if c.dim() else c)

    def _recur(self, u: Tensor, drive: Tensor) -> Tensor:
        W = self.weight_hh
        # a sum within the product is one operation less
        if W.dim() == u.dim() == drive.dim() == 2:
            return torch.addmm(drive, u, W.mT)
        return u @ W.mT + drive


@dataclass(frozen=True)
class LIFForm:
    """One step of leaky integrate-and-fire neurons, as `LIFCell` has it; the state is (U, I).

    Attributes:
        weight_hh: from spikes to currents, `(*e, n, n)`.
        weight_ih: from inputs to currents, `(*e, n, m)`.
        biases: none or one `(*e, n)`.
        spike: Theta and its slope.
        alpha: decay of the currents over a step, `(*e, n)`.
        beta: decay of the potentials, `(*e, n)`.
        threshold: theta `(*e, n)`.
        reset: "product" or "subtract".
        reset_grad: "detach", "full" or "ignore".
        order: "sequential" or "simultaneous".
    """

    weight_hh: Tensor
    weight_ih: Tensor
    biases: tuple[Tensor, ...]
    spike: Activation
    alpha: Tensor
    beta: Tensor
    threshold: Tensor
    reset: str
    reset_grad: str
    order: str

    def weights(self) -> list[Tensor]:
        """Of recurrence and input, and the bias."""
        return [self.weight_hh, self.weight_ih, *self.biases]

    def constants(self) -> list[Tensor]:
        """Decays and threshold."""
        return [self.alpha, self.beta, self.threshold]

    def activations(self) -> list[Activation]:
        """That of the spikes."""
        return [self.spike]

    def trained(self) -> list[Tensor]:
        """What requires a gradient, each once; constants that do are for others to train than kernels."""
        return _trained([*self.weights(), *self.spike.arguments])


AnyForm: TypeAlias = Form | LIFForm


def _trained(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(z): z for z in tensors if z.requires_grad}.values())


class Ran(NamedTuple):
    """A sequence that was run, as its adjoint reads it; `leaves`, tensors of the form, want gradients."""

    form: Any
    leaves: Sequence[Tensor]
    inputs: Tensor
    h0: Tensor
    states: Tensor
    kept: Any


class Bars(NamedTuple):
    """Cotangents of a = W g(h) + V x + sum b at every step `(t, *e, b, n)`, and gradients of h0, W, A and c.

    That of c has the shape `(*e, n)`. What nobody asks for, or is not there, is None.
    """

    a: Tensor
    h: Tensor
    W: Tensor | None = None
    matrix: Tensor | None = None
    coupling: Tensor | None = None


def rows(Y: Tensor, W: Tensor) -> Tensor:
    """Y W for rows Y `(*e, b, k, n)`: trajectories and columns share one product with the weights."""
    return torch.unflatten(Y.flatten(-3, -2) @ W, -2, Y.shape[-3:-1])


def linear(x: Tensor, W: Tensor) -> Tensor:
    """W x for x `(*e, b, m)` or, in one product a member, for a whole sequence `(t, *e, b, m)`."""
    if x.dim() <= W.dim() or W.dim() == 2:
        return x @ W.mT
    # broadcast against `(*e, n, m)` it would be t products for each member, with b rows each
    y = time_in_batch(x) @ W.mT
    return torch.unflatten(y, -2, (len(x), -1)).movedim(-3, 0)


def columns(residual: Residual, Y: Tensor) -> Tensor:
    """A y for rows y of Y `(*e, b, k, n)`."""
    return torch.unflatten(residual.product(Y.flatten(-3, -2)), -2, Y.shape[-3:-1])


def weight_gradients(form: Form, leaves: Sequence[Tensor], inputs: Tensor, bars: Bars) -> list[Tensor]:
    """The gradient of each of `leaves`; zero of what is none of the form's weights."""
    a_bars, residual, gradients = time_in_batch(bars.a), form.residual, []
    for leaf in leaves:
        # of all its uses: weights may be tied
        bar = torch.zeros_like(leaf)
        if leaf is form.weight_hh and bars.W is not None:
            bar = bar + bars.W
        if leaf is form.weight_ih:
            # this way round, because products with few columns are slow
            bar = bar + (time_in_batch(inputs).mT @ a_bars).mT
        for bias in form.biases:
            if leaf is bias:
                bar = bar + a_bars.sum(-2)
        if residual is not None and leaf is residual.matrix and bars.matrix is not None:
            bar = bar + bars.matrix
        if leaf is form.coupling and bars.coupling is not None:
            bar = bar + bars.coupling.sum_to_size(leaf.shape)
        gradients.append(bar)
    return gradients


def time_in_batch(x: Tensor) -> Tensor:
    """`(t, *e, b, n)` to `(*e, t b, n)`."""
    return x.movedim(0, -3).flatten(-3, -2)
