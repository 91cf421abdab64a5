"""The gated delta rule: a linear recurrence whose state is a matrix for each head."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyaptorch._types import Input, State
from lyaptorch.cells.diagonal import Shaped
from lyaptorch.cells.form import linear
from lyaptorch.cells.initial import Draws

OfRows = Float[Tensor, "*e b rows k"]
"""A frame of n rows, or of those of one copy."""


class DeltaCell(Shaped):
    """Gated delta rule: S' = alpha (S - beta k (k^T S)) + beta k v^T, a matrix (d_k, d_v) for each head.

    Keys k = W_k x / |W_k x|, values v = W_v x, strengths beta = sigmoid(w_b x + b) and decays
    alpha = exp(-e^r softplus(w_a x + a)) see the input alone. The columns of S share alpha (1 - beta k k^T),
    so that each exponent is there d_v times, the cell's `multiplicity`: where no frame is given, one column
    is pushed for all of them. `weight_ih` has W_k, W_v, w_b, w_a below each other. A readout sees S.
    A step costs O(b (n + (d_k + d_v) heads m)), with k tangent vectors O(b n k).

    Args:
        input_size: m.
        heads: matrices.
        key_size: d_k.
        value_size: d_v.
        ensemble: leading dimensions `*e` of every parameter; this and what follows as of an `S4DCell`.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1.

    Example:
        >>> cell = DeltaCell(8, 2, 4, 3)
        >>> cell.state_size, cell.unpack(torch.zeros(5, 24)).shape
        (24, torch.Size([5, 2, 4, 3]))

    Source: Yang, Kautz & Hatamizadeh (2024), Gated delta networks, eq 10; its S is the transpose of this.
    """

    def __init__(
        self,
        input_size: int,
        heads: int,
        key_size: int,
        value_size: int,
        *,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        sizes = {"heads": heads, "key_size": key_size, "value_size": value_size}
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, **sizes)
        m, *shape = draw.sizes
        super().__init__(m, heads * key_size * value_size, ensemble)
        self.shape = tuple(shape)
        self.weight_ih = draw.fan_in("weight_ih", m, heads * (key_size + value_size + 2), m)
        self.bias = draw.fan_in("bias", m, 2 * heads)
        # decays from e^-.7, of a step or so, to e^-.01
        self.log_rate = nn.Parameter((0.015 + draw.uniform("log_rate", heads)).log())

    @property
    def multiplicity(self) -> int:
        """d_v."""
        return self.shape[2]

    def step(self, x: Input, h: State) -> State:
        """The next matrices, in one row."""
        k, v, beta, alpha = self._given(x)
        S = self.unpack(h)
        return (alpha * (S - beta * k * (k.mT @ S)) + beta * k * v).flatten(-3)

    def pushforward(self, x: Input, h: State, Q: OfRows) -> tuple[State, OfRows]:
        """The next state and D Q, of a frame of n rows or of n / d_v, one column's. Cost O(b n k)."""
        k, v, beta, alpha = self._given(x)
        S, Y = self.unpack(h), torch.unflatten(Q, -2, (*self.shape[:2], -1)).flatten(-2)
        moved = alpha * (Y - beta * k * (k.mT @ Y))
        after = alpha * (S - beta * k * (k.mT @ S)) + beta * k * v
        return after.flatten(-3), moved.reshape(Q.shape)

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """How much of the matrices is kept, and how strongly they are written."""
        _, _, beta, alpha = self._given(x)
        return {"keep": alpha.flatten(-3), "write": beta.flatten(-3)}

    def _given(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """k `(*e, b, heads, d_k, 1)`, v `(..., 1, d_v)`, beta and alpha `(..., 1, 1)`."""
        heads, d_k, d_v = self.shape
        sizes = [heads * d_k, heads * d_v, 2 * heads]
        keys, values, gates = torch.split(linear(x, self.weight_ih), sizes, -1)
        k = nn.functional.normalize(torch.unflatten(keys, -1, (heads, d_k)), dim=-1).unsqueeze(-1)
        v = torch.unflatten(values, -1, (heads, d_v)).unsqueeze(-2)
        b, a = (gates + self.bias.unsqueeze(-2)).chunk(2, -1)
        alpha = torch.exp(-self.log_rate.exp().unsqueeze(-2) * nn.functional.softplus(a))
        return k, v, torch.sigmoid(b)[..., None, None], alpha[..., None, None]
