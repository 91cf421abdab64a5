"""Coupled oscillators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch.cells.activation import tanh
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Form, Residual
from lyaptorch.cells.weights import fan_in


class CoRNNCell(FormCell):
    """A network of driven, damped oscillators with positions y and velocities z.

        z' = z + dt (tanh(W y + U z + V x + b) - gamma y - damping z);  y' = y + dt z'

    It is a residual network: each oscillator is a 2x2 block, with determinant 1 - dt damping, and the
    couplings are dt^2 and dt. The state is (y_1, z_1, y_2, z_2, ...); a readout sees y. Without coupling an
    oscillator that is not overdamped has twice the exponent `1/2 log(1 - dt damping)`.

    Args:
        input_size: m.
        hidden_size: oscillators n, half the size of the state.
        dt: step in time.
        gamma: square of the frequency.
        damping: epsilon of the source.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, or numbers that are not above 0.

    Example:
        >>> cell = CoRNNCell(1, 8)
        >>> cell.state_size, sum(p.numel() for p in cell.parameters())
        (16, 144)

    Source: Rusch & Mishra (2021), Coupled oscillatory recurrent neural network, eq 3 (explicit damping).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dt: float = 0.05,
        gamma: float = 2.0,
        damping: float = 1.0,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        m, n = _checks.integer("input_size", input_size, 1), _checks.integer("hidden_size", hidden_size, 1)
        for name, value in (("dt", dt), ("gamma", gamma), ("damping", damping)):
            _checks.positive(name, value)
        super().__init__(m, 2 * n, ensemble)
        self.dt, self.gamma, self.damping = dt, gamma, damping
        self.readable, self.activation = slice(0, None, 2), tanh()
        ids, seed = ids_of(self.ensemble, member_ids), seed_from(generator)

        def draw(name: str, *shape: int) -> nn.Parameter:
            return nn.Parameter(fan_in(shape, shape[-1], Stream(seed, name), ids))

        self.weight_hh, self.weight_zh = draw("weight_hh", n, n), draw("weight_zh", n, n)
        self.weight_ih = draw("weight_ih", n, m)
        self.bias = nn.Parameter(fan_in((n,), m, Stream(seed, "bias"), ids))

    def form(self) -> Form:
        """M (y, z) + (dt^2, dt) tanh(a), both rows of a block with the same a."""
        like, n = self.weight_hh, self.state_size // 2
        kept, dt = 1 - self.dt * self.damping, self.dt
        block = like.new_tensor([[1 - dt * dt * self.gamma, dt * kept], [-dt * self.gamma, kept]])
        W = torch.stack([self.weight_hh, self.weight_zh], -1).flatten(-2)
        return Form(
            W.repeat_interleave(2, -2),
            self.weight_ih.repeat_interleave(2, -2),
            (self.bias.repeat_interleave(2, -1),),
            None,
            self.activation,
            Residual(block.expand(*self.ensemble, n, 2, 2), "blocks"),
            like.new_tensor([dt * dt, dt]).repeat(n),
        )
