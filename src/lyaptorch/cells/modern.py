"""Cells of other papers, as baselines: UR-LSTM, diagonal state space, coupled oscillators."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Frame, Input, Inputs, State, States
from lyaptorch.cells.activation import sech2, tanh
from lyaptorch.cells.cell import Cell, FormCell
from lyaptorch.cells.form import Form, Residual, linear
from lyaptorch.cells.gated import Gains, GateWeights, PairCell, over_columns, two_sided
from lyaptorch.cells.initial import Draws, checked_sizes


class URLSTMCell(PairCell):
    """An LSTM with uniform gate initialisation and a refine gate (UR-LSTM), its state (h, c).

        f, r, o = sigmoid(a_f), sigmoid(a_r), sigmoid(a_o);  g = 2 r f + (1 - 2 r) f^2;  u = tanh(a_u)
        c' = g c + (1 - g) u;  h' = o tanh(c');  a = V x + b_ih + W h + b_hh

    The refined gate g lies between f^2 and 1 - (1 - f)^2, and is f where r = 1/2. Initially the bias of f
    is such that f is uniform in [1/n, 1 - 1/n] over units: their memories last from one step to n; the bias
    of r is its negative. It has as many parameters as an LSTM.

    Args:
        input_size: m.
        hidden_size: n, half the size of the state.
        gain: scale of the initial recurrent weights, as of an `LSTMCell`; the gates are "forget", "refine",
            "cell", "output".
        weights: ensemble of the initial recurrent weights, likewise.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, unknown names, or a gain that does not fit the ensemble.

    Example:
        >>> cell = URLSTMCell(3, 8)
        >>> cell(torch.zeros(5, 3), torch.zeros(5, 16)).shape
        torch.Size([5, 16])

    Source: Gu, Gulcehre, Paine, Hoffman & Pascanu (2020), Improving the gating mechanism of recurrent
    neural networks.
    """

    gates: ClassVar[tuple[str, ...]] = ("forget", "refine", "cell", "output")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        gain: Gains = 1.0,
        weights: GateWeights = "uniform",
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        seed = seed_from(generator)
        super().__init__(
            input_size,
            hidden_size,
            gain=gain,
            weights=weights,
            ensemble=ensemble,
            member_ids=member_ids,
            generator=generator,
        )
        n = hidden_size
        drawn = Stream(seed, "forget").uniform((n,), member_ids=ids_of(self.ensemble, member_ids))
        least = 1 / max(n, 2)
        forget = (least + (1 - 2 * least) * drawn).logit()
        assert self.bias_ih is not None
        assert self.bias_hh is not None
        with torch.no_grad():
            self.bias_ih[..., :n], self.bias_ih[..., n : 2 * n] = forget, -forget
            self.bias_hh[..., : 2 * n] = 0

    def step(self, x: Input, h: State) -> State:
        """The next (h, c)."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        c = torch.lerp(torch.tanh(a_u), c, _refined(torch.sigmoid(a_f), torch.sigmoid(a_r)))
        return torch.cat([torch.sigmoid(a_o) * torch.tanh(c), c], -1)

    def _push(
        self, x: Tensor, h: Tensor, moved: Tensor, Q: Tensor, driven: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """With A the tangents of a: C' = g C + (c - u) (g_f f' A_f + g_r r' A_r) + (1 - g) u' A_u."""
        y, c = h.chunk(2, -1)
        a_f, a_r, a_u, a_o = (self._drive(x) + self._recur(y)).chunk(4, -1)
        A_f, A_r, A_u, A_o = (moved if driven is None else moved + driven).chunk(4, -1)
        (f, no_f), (r, no_r), (o, no_o), u = *map(two_sided, (a_f, a_r, a_o)), torch.tanh(a_u)
        # g = f (f + 2 r (1 - f)), and all below, without a difference of numbers that are nearly equal
        g, no_g = f * (f + 2 * r * no_f), no_f * (no_f + 2 * no_r * f)
        after = torch.lerp(u, c, g)
        C = over_columns(g) * Q.mT[..., self.hidden_size :]
        for factor, A in (
            ((c - u) * 2 * (r * no_f + no_r * f) * f * no_f, A_f),
            ((c - u) * 2 * f * no_f * r * no_r, A_r),
            (no_g * sech2(a_u), A_u),
        ):
            C = C + over_columns(factor) * A
        z = torch.tanh(after)
        H = over_columns(z * o * no_o) * A_o + over_columns(o * sech2(after)) * C
        return torch.cat([o * z, after], -1), torch.cat([H, C], -1).mT


class S4DCell(Cell):
    """One layer of a diagonal structured state space: linear, with complex modes s of every channel.

        s' = e^(dt A) s + (e^(dt A) - 1) / A * u;  u = V x;  A = -e^r + i w

    The state holds real and imaginary parts of all modes in pairs. A readout of all of it is the general
    output of the layer. With dt and A fixed, so are the exponents: each mode has `-e^r dt`, twice, on any
    input and at any t. Initially A = -1/2 + i pi j for mode j, and dt is log-uniform in [0.001, 0.1].

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
        m, c, modes = checked_sizes(ensemble, input_size=input_size, channels=channels, modes=modes)
        super().__init__(m, 2 * c * modes, ensemble)
        draw = Draws(self.ensemble, member_ids, generator)
        low, high = math.log(0.001), math.log(0.1)
        self.log_dt = nn.Parameter(low + (high - low) * draw.uniform("log_dt", c))
        full = (*self.ensemble, c, modes)
        self.log_decay = nn.Parameter(torch.full(full, math.log(0.5)))
        waves = math.pi * torch.arange(modes, dtype=self.log_dt.dtype)
        self.frequency = nn.Parameter(waves.repeat(*full[:-1], 1))
        self.weight_ih = draw.fan_in("weight_ih", m, c, m)

    def step(self, x: Input, h: State) -> State:
        """The next modes."""
        factor, gain = (z.unsqueeze(-3) for z in self._modes())
        return _packed(factor * self._unpacked(h) + gain * linear(x, self.weight_ih).unsqueeze(-1))

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q; D does not depend on where the state is. Cost O(b n k)."""
        factor, _ = self._modes()
        pushed = factor[..., None, None, :, :] * self._unpacked(Q.mT)
        return self.step(x, h), _packed(pushed).mT

    def convolve(self, inputs: Inputs) -> States:
        """All states from rest at once, as the convolution of the inputs with e^(dt A s); O(t log t).

        Args:
            inputs: `(t, *e, b, m)`.
        """
        factor, gain = self._modes()
        t = len(inputs)
        steps = torch.arange(t, dtype=self.log_dt.dtype, device=factor.device)
        kernel = gain * torch.exp(factor.log() * steps.reshape(-1, *[1] * factor.dim()))
        u = linear(inputs, self.weight_ih).unsqueeze(-1)
        # twice as long, so that the end does not reach the start
        product = torch.fft.fft(kernel, 2 * t, 0).unsqueeze(-3) * torch.fft.fft(u, 2 * t, 0)
        return _packed(torch.fft.ifft(product, dim=0)[:t])

    def _modes(self) -> tuple[Tensor, Tensor]:
        """The factor and the gain `(*e, channels, modes)` of a step, complex."""
        A = torch.complex(-self.log_decay.exp(), self.frequency)
        exponent = self.log_dt.exp().unsqueeze(-1) * A
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
        m, n = checked_sizes(ensemble, input_size=input_size, hidden_size=hidden_size)
        for name, value in (("dt", dt), ("gamma", gamma), ("damping", damping)):
            _checks.positive(name, value)
        super().__init__(m, 2 * n, ensemble)
        self.dt, self.gamma, self.damping = dt, gamma, damping
        self.readable, self.activation = slice(0, None, 2), tanh()
        draw = Draws(self.ensemble, member_ids, generator)
        self.weight_hh = draw.fan_in("weight_hh", n, n, n)
        self.weight_zh = draw.fan_in("weight_zh", n, n, n)
        self.weight_ih = draw.fan_in("weight_ih", m, n, m)
        self.bias = draw.fan_in("bias", m, n)

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


def _refined(f: Tensor, r: Tensor) -> Tensor:
    return 2 * r * f + (1 - 2 * r) * f.square()


def _packed(s: Tensor) -> Tensor:
    return torch.view_as_real(s).flatten(-3)
