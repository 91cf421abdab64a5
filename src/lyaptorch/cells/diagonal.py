"""Linear recurrences whose transition is diagonal, fixed or made of the input: LRU, minGRU, selective SSM."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._types import Frame, Input, State
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import linear
from lyaptorch.cells.initial import Draws


class Shaped(Cell):
    """A cell whose state has the dimensions `shape` in the place of n.

    Attributes:
        shape: those, such as rows and columns of a matrix.
    """

    shape: tuple[int, ...]

    def pack(self, state: Any) -> Tensor:
        """A state `(*e, b, *shape)` in one row, or one that is."""
        axes = len(self.shape)
        fits = isinstance(state, Tensor) and state.dim() > axes and state.shape[-axes:] == self.shape
        return super().pack(state.flatten(-axes) if fits else state)

    def unpack(self, h: Tensor) -> Tensor:
        """A state in its shape, `(*e, b, *shape)`."""
        return torch.unflatten(h, -1, self.shape)


class DiagonalCell(Cell):
    """h' = a h + u, a and u made of the input: the exponents are the time means of log|a|, at any t."""

    def coefficients(self, x: Input) -> tuple[Tensor, Tensor]:
        """a and u `(*e, b, n)`, real, or complex `(*e, b, n / 2)` for pairs of real and imaginary parts."""
        raise NotImplementedError(f"{type(self).__name__} must define coefficients(x)")

    def step(self, x: Input, h: State) -> State:
        """The next state."""
        a, u = self.coefficients(x)
        return _real(a * _like(a, h) + u)

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q; D does not depend on where the state is. Cost O(b n k)."""
        a, u = self.coefficients(x)
        return _real(a * _like(a, h) + u), _real(a.unsqueeze(-2) * _like(a, Q.mT)).mT


class LRUCell(DiagonalCell):
    """A linear recurrent unit: h'_j = lambda_j h_j + sqrt(1 - |lambda_j|^2) (B x)_j, complex.

    lambda = exp(-e^nu + i e^theta) is stable whatever is trained. The state holds real and imaginary parts in
    pairs, so that each mode has the exponent log|lambda_j| = -e^nu_j twice, on any input and at any t.
    Initially the modes are uniform in the ring between two radii, and |lambda|^2 with them.
    A step costs O(b n m), with k tangent vectors O(b n k).

    Args:
        input_size: m.
        modes: complex modes; the state has twice as many numbers.
        radii: of the ring, from 0 to 1.
        ensemble: leading dimensions `*e` of every parameter; this and what follows as of an `S4DCell`.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, or radii that are not 0 <= low < high <= 1.

    Example:
        >>> cell = LRUCell(1, 8, radii=(0.9, 0.999))
        >>> cell.state_size, cell.unpack(torch.zeros(5, 16)).shape
        (16, torch.Size([5, 8]))

    Source: Orvieto et al. (2023), Resurrecting recurrent neural networks for long sequences, section 3.
    """

    def __init__(
        self,
        input_size: int,
        modes: int,
        *,
        radii: tuple[float, float] = (0.0, 1.0),
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, modes=modes)
        (m, n), (low, high) = draw.sizes, radii
        if not 0 <= low < high <= 1:
            raise ValueError(f"radii must be two numbers 0 <= low < high <= 1, got {radii}")
        super().__init__(m, 2 * n, ensemble)
        # within the ring, so that no logarithm is infinite
        squares = low**2 + (high**2 - low**2) * draw.uniform("radius", n).clamp(1e-6, 1 - 1e-6)
        self.log_decay = nn.Parameter((-0.5 * squares.log()).log())
        self.log_angle = nn.Parameter((2 * math.pi * draw.uniform("angle", n)).clamp_min(1e-6).log())
        self.weight_ih = nn.Parameter(draw.normal("weight_ih", 2 * n, m) / math.sqrt(2 * m))

    def coefficients(self, x: Input) -> tuple[Tensor, Tensor]:
        """lambda, and the input scaled so that white noise gives modes of its own power."""
        factor = torch.exp(torch.complex(-self.log_decay.exp(), self.log_angle.exp())).unsqueeze(-2)
        # 1 - |lambda|^2 = -(e^(-2 e^nu) - 1), without a difference
        gain = (-torch.expm1(-2 * self.log_decay.exp())).sqrt().unsqueeze(-2)
        return factor, gain * torch.view_as_complex(torch.unflatten(linear(x, self.weight_ih), -1, (-1, 2)))

    def pack(self, state: Any) -> Tensor:
        """Modes, complex `(*e, b, modes)`, as pairs of real numbers."""
        return _real(state) if isinstance(state, Tensor) and state.is_complex() else super().pack(state)

    def unpack(self, h: Tensor) -> Tensor:
        """The modes, complex."""
        return torch.view_as_complex(torch.unflatten(h, -1, (-1, 2)).contiguous())


class MinGRUCell(DiagonalCell):
    """A minimal gated unit: h' = (1 - z) h + z s with z = sigmoid(W_z x + b_z), s = W_s x + b_s.

    Neither gate nor candidate sees the state, so that the exponents are the time means of log(1 - z).
    A step costs O(b n m), with k tangent vectors O(b n k).

    Args:
        input_size: m.
        hidden_size: n.
        ensemble: leading dimensions `*e` of every parameter; this and what follows as of an `S4DCell`.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1.

    Example:
        >>> MinGRUCell(1, 8)(torch.zeros(5, 1), torch.zeros(5, 8)).shape
        torch.Size([5, 8])

    Source: Feng et al. (2024), Were RNNs all we needed?, section 3.1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, n, ensemble)
        self.weight_ih = draw.fan_in("weight_ih", m, 2 * n, m)
        self.bias = draw.fan_in("bias", m, 2 * n)

    def coefficients(self, x: Input) -> tuple[Tensor, Tensor]:
        """1 - z and z s."""
        z, s = self._drive(x)
        # 1 - sigmoid(z) would lose its digits where the gate is open
        return torch.sigmoid(-z), torch.sigmoid(z) * s

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """What the gate lets through."""
        return {"input": torch.sigmoid(self._drive(x)[0]).expand_as(h)}

    def _drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, s = (linear(x, self.weight_ih) + self.bias.unsqueeze(-2)).chunk(2, -1)
        return z, s


class SelectiveSSMCell(DiagonalCell, Shaped):
    """A selective state space (S6): of channel c and state s, h' = exp(dt_c A_cs) h + dt_c B_s u_c.

    u = V x, B = W_B x and dt = softplus(W_dt x + b_dt) follow the input, A = -e^r does not: the exponents are
    A_cs times the time means of dt_c. A readout sees all; that of the source, C h with C = W_C x, is its own.
    Initially A_cs = -s, s = 1, 2, ..., and dt is log-uniform in [0.001, 0.1] without input.
    A step costs O(b (n + (channels + states) m)), with k tangent vectors O(b n k).

    Args:
        input_size: m.
        channels: each with its own dt.
        states: of each channel; the cell has channels * states numbers.
        ensemble: leading dimensions `*e` of every parameter; this and what follows as of an `S4DCell`.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1.

    Example:
        >>> cell = SelectiveSSMCell(1, 4, 16)
        >>> cell.state_size, cell.unpack(torch.zeros(5, 64)).shape
        (64, torch.Size([5, 4, 16]))

    Source: Gu & Dao (2023), Mamba: linear-time sequence modeling with selective state spaces, algorithm 2.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        states: int,
        *,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, channels=channels, states=states)
        m, c, s = draw.sizes
        super().__init__(m, c * s, ensemble)
        self.shape = (c, s)
        self.log_decay = nn.Parameter(torch.arange(1.0, s + 1).log().repeat(*self.ensemble, c, 1))
        self.weight_ih = draw.fan_in("weight_ih", m, c, m)
        self.weight_B = draw.fan_in("weight_B", m, s, m)
        self.weight_dt = draw.fan_in("weight_dt", m, c, m)
        low, high = math.log(0.001), math.log(0.1)
        # softplus of log(e^dt - 1) is dt
        self.bias_dt = nn.Parameter((low + (high - low) * draw.uniform("bias_dt", c)).exp().expm1().log())

    def coefficients(self, x: Input) -> tuple[Tensor, Tensor]:
        """exp(dt A) and dt B u."""
        dt = nn.functional.softplus(linear(x, self.weight_dt) + self.bias_dt.unsqueeze(-2)).unsqueeze(-1)
        a = torch.exp(-dt * self.log_decay.exp().unsqueeze(-3))
        u = dt * linear(x, self.weight_ih).unsqueeze(-1) * linear(x, self.weight_B).unsqueeze(-2)
        return a.flatten(-2), u.flatten(-2)


def _like(a: Tensor, h: Tensor) -> Tensor:
    """Pairs of h as complex numbers, where a is complex."""
    return torch.view_as_complex(torch.unflatten(h, -1, (-1, 2)).contiguous()) if a.is_complex() else h


def _real(h: Tensor) -> Tensor:
    return torch.view_as_real(h).flatten(-2) if h.is_complex() else h
