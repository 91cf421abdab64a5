"""Diagonal state-space models."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Frame, Input, Inputs, State, States
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import linear
from lyaptorch.cells.weights import fan_in


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
        m, c = _checks.integer("input_size", input_size, 1), _checks.integer("channels", channels, 1)
        super().__init__(m, 2 * c * _checks.integer("modes", modes, 1), ensemble)
        ids, seed = ids_of(self.ensemble, member_ids), seed_from(generator)
        low, high = math.log(0.001), math.log(0.1)
        self.log_dt = nn.Parameter(low + (high - low) * Stream(seed, "log_dt").uniform((c,), member_ids=ids))
        full = (*self.ensemble, c, modes)
        self.log_decay = nn.Parameter(torch.full(full, math.log(0.5)))
        waves = math.pi * torch.arange(modes, dtype=self.log_dt.dtype)
        self.frequency = nn.Parameter(waves.repeat(*full[:-1], 1))
        self.weight_ih = nn.Parameter(fan_in((c, m), m, Stream(seed, "weight_ih"), ids))

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


def _packed(s: Tensor) -> Tensor:
    return torch.view_as_real(s).flatten(-3)
