"""Cells of other papers, as baselines: diagonal state space, coupled oscillators."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Frame, Input, Inputs, State, States
from lyaptorch.cells.activation import tanh
from lyaptorch.cells.cell import Cell, FormCell
from lyaptorch.cells.form import Form, Residual, linear
from lyaptorch.cells.initial import Draws


class S4DCell(Cell):
    """One layer of a diagonal structured state space: linear, with complex modes s of every channel.

        s' = e^(dt A) s + (e^(dt A) - 1) / A * u;  u = V x;  A = -e^r + i w

    The state holds real and imaginary parts of all modes in pairs. A readout of all of it is the general
    output of the layer. With dt and A fixed, so are the exponents: each mode has `-e^r dt`, twice, on any
    input and at any t. Initially A = -1/2 + i pi j for mode j, and dt is log-uniform in [0.001, 0.1].
    A step costs O(b (n + channels m)), with k tangent vectors O(b n k).

    Args:
        input_size: m.
        channels: inputs of the layer, each with its own dt.
        modes: complex modes of each channel; the state has 2 * channels * modes numbers.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1.

    Example:
        >>> cell = S4DCell(1, 4, 8)
        >>> cell.state_size, sum(p.numel() for p in cell.parameters())
        (64, 72)

    Source: Gu, Gupta, Goel & Re (2022), On the parameterization and initialization of diagonal state space
    models (S4D-Lin).
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        modes: int,
        *,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, channels=channels, modes=modes)
        m, c, modes = draw.sizes
        super().__init__(m, 2 * c * modes, ensemble)
        low, high = math.log(0.001), math.log(0.1)
        self.log_dt = nn.Parameter(low + (high - low) * draw.uniform("log_dt", c))
        full = (*self.ensemble, c, modes)
        self.log_decay = nn.Parameter(torch.full(full, math.log(0.5)))
        waves = math.pi * torch.arange(modes, dtype=self.log_dt.dtype)
        self.frequency = nn.Parameter(waves.repeat(*full[:-1], 1))
        self.weight_ih = draw.fan_in("weight_ih", m, c, m)

    def step(self, x: Input, h: State) -> State:
        """The next modes."""
        # u is held over the step: s' = e^(dt A) s + integral_0^dt e^(A r) dr u
        factor, gain = (z.unsqueeze(-3) for z in self._modes())
        return _packed(factor * self._unpacked(h) + gain * linear(x, self.weight_ih).unsqueeze(-1))

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q; D does not depend on where the state is. Cost O(b n k)."""
        factor, _ = self._modes()
        return self.step(x, h), _packed(factor[..., None, None, :, :] * self._unpacked(Q.mT)).mT

    def convolve(self, inputs: Inputs) -> States:
        """All states from rest at once, as the convolution of the inputs with e^(dt A s); O(t log t).

        Args:
            inputs: `(t, *e, b, m)`.
        """
        factor, gain = self._modes()
        t = len(inputs)
        steps = torch.arange(t, dtype=self.log_dt.dtype, device=factor.device)
        # s_t = sum_j factor^(t - j) gain u_j from rest
        kernel = gain * torch.exp(factor.log() * steps.reshape(-1, *[1] * factor.dim()))
        u = linear(inputs, self.weight_ih).unsqueeze(-1)
        # twice as long, so that the end does not reach the start
        product = torch.fft.fft(kernel, 2 * t, 0).unsqueeze(-3) * torch.fft.fft(u, 2 * t, 0)
        return _packed(torch.fft.ifft(product, dim=0)[:t])

    def _modes(self) -> tuple[Tensor, Tensor]:
        """The factor and the gain `(*e, channels, modes)` of a step, complex."""
        A = torch.complex(-self.log_decay.exp(), self.frequency)
        exponent = self.log_dt.exp().unsqueeze(-1) * A
        # dt |A| may be 1e-3: e^z - 1 would lose three digits
        return torch.exp(exponent), torch.expm1(exponent) / A

    def _unpacked(self, h: Tensor) -> Tensor:
        """`(..., n)` to complex `(..., channels, modes)`."""
        return torch.view_as_complex(torch.unflatten(h, -1, (*self.log_decay.shape[-2:], 2)).contiguous())


class CoRNNCell(FormCell):
    """A network of driven, damped oscillators with positions y and velocities z.

        z' = z + dt (tanh(W y + U z + V x + b) - gamma y - damping z);  y' = y + dt z'

    It is a residual network: each oscillator is a 2x2 block, with determinant 1 - dt damping, and the
    couplings are dt^2 and dt. The state is (y_1, z_1, y_2, z_2, ...); a readout sees y. Without coupling an
    oscillator that is not overdamped has twice the exponent `1/2 log(1 - dt damping)`.
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

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
        draw = Draws(ensemble, member_ids, generator, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        for name, value in (("dt", dt), ("gamma", gamma), ("damping", damping)):
            _checks.positive(name, value)
        super().__init__(m, 2 * n, ensemble)
        self.dt, self.gamma, self.damping = dt, gamma, damping
        self.readable, self.activation = slice(0, None, 2), tanh()
        self.weight_hh = draw.fan_in("weight_hh", n, n, n)
        self.weight_zh = draw.fan_in("weight_zh", n, n, n)
        self.weight_ih = draw.fan_in("weight_ih", m, n, m)
        self.bias = draw.fan_in("bias", m, n)

    def form(self) -> Form:
        """M (y, z) + (dt^2, dt) tanh(a), both rows of a block with the same a."""
        # z' = kept z - dt gamma y + dt f into y' = y + dt z':
        #   y' = (1 - dt^2 gamma) y + dt kept z + dt^2 f,  f = tanh(a),  kept = 1 - dt damping
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


def _packed(s: Tensor) -> Tensor:
    return torch.view_as_real(s).flatten(-3)
