"""Spiking cells whose threshold adapts to their own spikes."""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch._types import Input, Number, State
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.matrices import Weights
from lyaptorch.cells.spiking import SpikingCell


class AdaptiveLIFCell(SpikingCell):
    """`LIFCell` whose threshold rises with every spike and falls back; state (U, I, A).

    S = Theta(U - theta - jump A) and A' = rho A + (1 - rho) S with rho = exp(-dt / tau_adapt); all else is
    as in `LIFCell`. A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args:
        input_size: m.
        hidden_size: n neurons; the state has 3 n entries.
        jump: how far the threshold rises, a number, `*e` or `(*e, n)`.
        tau_adapt: time constant of the adaptation in seconds, likewise.
        dt: seconds per step; this and what follows as of an `LIFCell`.
        tau_mem: membrane time constant in seconds.
        tau_syn: synaptic time constant in seconds.
        threshold: theta, where nothing spiked before.
        surrogate: of the step.
        reset, reset_grad, order: conventions of the reset and of the order of updates.
        gain: scale of the initial recurrent weights.
        weights: ensemble of the initial recurrent weights.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: as `LIFCell`, and for a jump or a time constant that is not above 0 or does not fit.

    Example:
        >>> AdaptiveLIFCell(2, 8, tau_adapt=0.5).state_size
        24

    Source: Bellec et al. (2018), Long short-term memory and learning-to-learn in networks of spiking neurons.
    """

    variables = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        jump: Number = 1.0,
        tau_adapt: Number = 0.2,
        dt: float = 2e-3,
        tau_mem: Number = 10e-3,
        tau_syn: Number = 5e-3,
        threshold: Number = 1.0,
        surrogate: Activation | None = None,
        reset: str = "product",
        reset_grad: str = "detach",
        order: str = "sequential",
        gain: Number = 1.0,
        weights: str | Weights = "gaussian",
        bias: bool = False,
        ensemble: tuple[int, ...] = (),
        member_ids: int | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            dt=dt,
            tau_mem=tau_mem,
            tau_syn=tau_syn,
            threshold=threshold,
            surrogate=surrogate,
            reset=reset,
            reset_grad=reset_grad,
            order=order,
            gain=gain,
            weights=weights,
            bias=bias,
            ensemble=ensemble,
            member_ids=member_ids,
            generator=generator,
        )
        self.jump: Tensor
        self.tau_adapt: Tensor
        self.per_neuron("jump", jump)
        self.per_neuron("tau_adapt", tau_adapt)

    def spikes(self, h: Tensor) -> Tensor:
        """S of whole states."""
        U, _, A = torch.split(h, self.hidden_size, -1)
        return super().spikes(U - self.jump.unsqueeze(-2) * A)

    def step(self, x: Input, h: State) -> State:
        """The next state. Cost O(b n^2)."""
        after, current, _, S = self._step(x, h)
        # S saw the threshold of this step; what it adds to A raises that of the next
        rho = torch.exp(-self.dt / self.tau_adapt).unsqueeze(-2)
        return torch.cat([after, current, rho * h[..., 2 * self.hidden_size :] + (1 - rho) * S], -1)
