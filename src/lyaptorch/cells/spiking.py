"""Networks of neurons that spike: leaky integrate-and-fire, with and without an adaptive threshold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Frame, Input, Number, State
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import LIFForm, linear, rows
from lyaptorch.cells.initial import Draws
from lyaptorch.cells.matrices import Weights
from lyaptorch.cells.surrogates import Surrogate, fast_sigmoid

RESETS = ("product", "subtract")
RESET_GRADS = ("detach", "full", "ignore")
ORDERS = ("sequential", "simultaneous")


class SpikingCell(Cell):
    """What spiking cells share: weights, time constants, spikes S = Theta(U - theta) and the reset.

    A new neuron is a subclass with a `step`; the state is packed, U first: `h = (U, I, ...)`.
    The settings are those of `LIFCell`.

    Attributes:
        hidden_size: n, the number of neurons; the state has `variables * n` entries.
        activation: the step whose slope, the surrogate, stands in Jacobians.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.LIFCell(3, 8)
        >>> isinstance(cell, SpikingCell), cell.state_size
        (True, 16)
    """

    variables = 2
    ingredients = ("step", "_step", "decays", "spikes", "drive", "reset_potential")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
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
        draw = Draws(ensemble, member_ids, generator, gain, input_size=input_size, hidden_size=hidden_size)
        m, n = draw.sizes
        super().__init__(m, self.variables * n, ensemble)
        self.hidden_size = n
        self.dt = _checks.positive("dt", dt)
        self.reset = _checks.choice("reset", reset, RESETS)
        self.reset_grad = _checks.choice("reset_grad", reset_grad, RESET_GRADS)
        self.order = _checks.choice("order", order, ORDERS)
        activation = fast_sigmoid(10.0) if surrogate is None else surrogate
        if not isinstance(activation, Activation):
            got = type(activation).__name__
            raise ValueError(f"surrogate must be a surrogate, got {got}; write surrogates.fast_sigmoid(10.0)")
        self.activation = activation.of("step") if isinstance(activation, Surrogate) else activation
        self.tau_mem: Tensor
        self.tau_syn: Tensor
        self.threshold: Tensor
        for name, value in (("tau_mem", tau_mem), ("tau_syn", tau_syn), ("threshold", threshold)):
            self.per_neuron(name, value)
        self.weight_hh = nn.Parameter(draw.recurrent("weight_hh", n, weights, gain))
        self.weight_ih = draw.normal("weight_ih", n, m)
        self.bias = nn.Parameter(torch.zeros(*self.ensemble, n)) if bias else None

    def per_neuron(self, name: str, value: Number) -> None:
        """Register a constant above 0 as `(*e, n)`: a buffer, or a parameter where it is given as one."""
        given, n = torch.as_tensor(value, dtype=torch.get_default_dtype()), self.hidden_size
        _checks.positive(name, given.detach())
        shapes = ((), self.ensemble, (*self.ensemble, n))
        trained = isinstance(value, nn.Parameter)
        if tuple(given.shape) not in shapes[2 * trained :]:
            expected = f"the shape {shapes[2]}" if trained else f"one of the shapes {shapes[0]}, *e, (*e, n)"
            raise ValueError(
                f"{name} must be a number or a tensor of {expected} with *e = {self.ensemble} and n = {n}, "
                f"got {tuple(given.shape)}; give one value, one for each member or one for each neuron"
            )
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
            return
        # one for each member; clone, so that an action on one neuron does not reach all that share its memory
        given = given.unsqueeze(-1) if tuple(given.shape) != shapes[2] else given
        self.register_buffer(name, given.expand(shapes[2]).clone())
        self.per_member = (*self.per_member, name)

    def decays(self) -> tuple[Tensor, Tensor]:
        """alpha = exp(-dt / tau_syn) and beta = exp(-dt / tau_mem), `(*e, 1, n)`."""
        # exact over a step of dI/dt = -I / tau, where an Euler step would have 1 - dt / tau
        alpha, beta = (torch.exp(-self.dt / tau).unsqueeze(-2) for tau in (self.tau_syn, self.tau_mem))
        return alpha, beta

    def spikes(self, h: Tensor) -> Tensor:
        """S = Theta(U - theta) `(..., *e, b, n)` of states, or of their potentials alone; 0 at U = theta."""
        spikes: Tensor = self.activation(h[..., : self.hidden_size] - self.threshold.unsqueeze(-2))
        return spikes

    def drive(self, x: Tensor) -> Tensor:
        """W x + b."""
        drive = linear(x, self.weight_ih)
        return drive if self.bias is None else drive + self.bias.unsqueeze(-2)

    def reset_potential(self, v: Tensor, S: Tensor) -> Tensor:
        """V after the reset, with the derivative that `reset_grad` says: v (1 - S), or v - theta S."""
        still = S if self.reset_grad == "full" else S.detach()
        # v (1 - S) with S held constant has the derivative 1 - S; v - (v S held constant) has the same value
        # and the derivative 1, as if nothing were reset
        if self.reset == "subtract":
            return v - self.threshold.unsqueeze(-2) * still
        return v - (v * S).detach() if self.reset_grad == "ignore" else v * (1 - still)

    def _step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U and I of the next state, the potential before the reset, and the spikes."""
        (alpha, beta), S = self.decays(), self.spikes(h)
        U, I = torch.split(h, self.hidden_size, -1)[:2]  # noqa: E741
        current = alpha * I + S @ self.weight_hh.mT + self.drive(x)
        v = beta * U + (1 - beta) * (current if self.order == "sequential" else I)
        return self.reset_potential(v, S), current, v, S


class LIFCell(SpikingCell):
    """Leaky integrate-and-fire neurons with exponentially decaying synaptic currents; state (U, I).

    With S = Theta(U - theta), alpha = exp(-dt / tau_syn) and beta = exp(-dt / tau_mem):

        I' = alpha I + V S + W x + b
        U' = (beta U + (1 - beta) I') (1 - S)

    The derivative of Theta is the surrogate's slope, in backpropagation and in the Jacobian alike. What
    becomes of the reset there is a convention that changes exponents (lambda_1 up to twofold): `reset_grad`.
    A step costs O(b n (n + m)), with k tangent vectors O(b n^2 k).

    Args:
        input_size: m.
        hidden_size: n neurons; the state has 2 n entries.
        dt: seconds per step.
        tau_mem: membrane time constant in seconds, a number, one for each member `*e` or one for each neuron
            `(*e, n)`; an `nn.Parameter` `(*e, n)` is trained.
        tau_syn: synaptic time constant, likewise.
        threshold: theta, likewise.
        surrogate: a surrogate, or an `Activation` whose value is 1 above 0 and 0 elsewhere;
            `fast_sigmoid(10.0)` when missing.
        reset: "product", as above, or "subtract": U' = beta U + (1 - beta) I' - theta S.
        reset_grad: "detach": 1 - S is a constant to derivatives; "full": it is not; "ignore": to
            derivatives there is no reset at all (the paper's eq 11-14).
        order: "sequential", as above, or "simultaneous": U' is computed from I, not I' (the paper's eq 7).
        gain: scale of the initial recurrent weights; a number or a tensor of shape `*e`.
        weights: ensemble of the initial recurrent weights V; W ~ N(0, 1), and the bias, if any, is 0.
            `weights.fluctuation_driven` sets both for given rates.
        bias: whether there is a bias.
        ensemble: leading dimensions `*e` of every parameter.
        member_ids: ids of shape `*e`; equal ids get equal numbers, in any ensemble. Default 0, 1, 2, ...
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for sizes below 1, unknown names, constants that are not above 0 or do not fit.

    Example:
        >>> cell = LIFCell(2, 64, ensemble=(5,))
        >>> cell(torch.zeros(3, 2), torch.zeros(5, 3, 128)).shape
        torch.Size([5, 3, 128])

    Source: Surrogate Gradient Flossing, eq 7-18 (there V is `weight_hh` and W `weight_ih`).
    """

    def form(self) -> LIFForm:
        """The step as data."""
        alpha, beta = (decay.squeeze(-2) for decay in self.decays())
        return LIFForm(
            self.weight_hh,
            self.weight_ih,
            () if self.bias is None else (self.bias,),
            self.activation,
            alpha,
            beta,
            self.threshold,
            self.reset,
            self.reset_grad,
            self.order,
        )

    def step(self, x: Input, h: State) -> State:
        """The next state. Cost O(b n^2)."""
        return torch.cat(self._step(x, h)[:2], -1)

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next state and D Q. Cost O(b n^2 k)."""
        after, arriving, v, S = self._step(x, h)
        n, theta = self.hidden_size, self.threshold.unsqueeze(-2)
        alpha, beta = (decay.unsqueeze(-1) for decay in self.decays())
        # "product": dU' = (1 - S) dv - v dS, "subtract": dU' = dv - theta dS, with dS = slope dU; the terms
        # of what `reset_grad` holds constant are left out
        slope = self.activation.slope(h[..., :n] - theta).unsqueeze(-1)
        U, I = torch.split(Q, n, -2)  # noqa: E741
        # dS = surrogate slope times dU: everything below is the step with d in front
        #   dI' = alpha dI + V dS,  dv = beta dU + (1 - beta) dI'  (dI where I' comes too late),
        #   product:  dU' = (1 - S) dv - v dS ("full"), (1 - S) dv ("detach"), dv ("ignore"),
        #   subtract: dU' = dv - theta dS ("full"), dv (else).
        spikes = slope * U
        current = alpha * I + rows(spikes.mT, self.weight_hh.mT).mT
        pushed = beta * U + (1 - beta) * (current if self.order == "sequential" else I)
        if self.reset == "product" and self.reset_grad != "ignore":
            pushed = pushed * (1 - (S if self.reset_grad == "full" else S.detach())).unsqueeze(-1)
        if self.reset_grad == "full":
            pushed = pushed - (v if self.reset == "product" else theta.expand_as(v)).unsqueeze(-1) * spikes
        return torch.cat([after, arriving], -1), torch.cat([pushed, current], -2)
