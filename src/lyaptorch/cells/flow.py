"""`Flow`: the time-dt map of a neural ODE as a cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Input, State
from lyaptorch.cells.protocol import Cell

Tableau: TypeAlias = tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
"""Row i holds the weights a_ij of the stages before stage i; then the weights b_i of the sum."""

METHODS: dict[str, Tableau] = {
    "rk4": (((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    "dopri5": (
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
}
"""Classical Runge-Kutta, and the fifth-order weights of Dormand and Prince (1980), with a fixed step."""


class Flow(Cell):
    """One step of length dt of dh/dt = f(x, h), x held constant over the step.

    With stages `K_i = f(x, h + dt sum_j a_ij K_j)` the step is `h' = h + dt sum_i b_i K_i`. Tangent vectors
    are carried through the same stages, each with one forward-mode product of f: the variational equation
    `dQ/dt = (df/dh) Q` is integrated together with the state, and D is the exact derivative of the step.

    `lyapunov_spectrum` takes dt from the flow: exponents and error bars are in nats per unit of time; pass
    `dt=1.0` there for nats per step, in which flossing targets and triggers always are. An ODE that depends
    on time takes it as an input.

    Args:
        f: a module or a function; input `(*e, b, m)` and state `(*e, b, n)` to dh/dt `(*e, b, n)`. Its
            parameters, and tensors that it closes over, are found. Its state size comes from the h0 that is
            passed later.
        dt: time per step.
        method: "rk4" (error dt^4, 4 evaluations of f) or "dopri5" (error dt^5, 6 evaluations).

    Raises:
        ValueError: for an unknown method, a dt that is not above zero, or an f that returns another shape
            or dtype than the state's.

    Example:
        >>> import torch, lyaptorch as lt
        >>> decay = lt.Flow(lambda x, h: x - 3 * h, dt=0.01)
        >>> lt.lyapunov_spectrum(decay, torch.zeros(50, 1, 2), h0=torch.ones(1, 2)).exponents
        tensor([[-3.0000, -3.0000]])

    Source: Gradient Flossing, appendix J (a continuous system in stroboscopic view); Dormand and Prince
    (1980).
    """

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor], *, dt: float, method: str = "rk4") -> None:
        super().__init__(0, 0)
        if not callable(f):
            raise ValueError(f"f must be a module or a function f(x, h), got {type(f).__name__}")
        self.function = f
        self.time_step = _checks.positive("dt", dt)
        self.method = _checks.choice("method", method, METHODS)
        self.advice = f"the flow blows up with dt={dt:g}; take a smaller dt, weaker inputs, or another h0"

    def step(self, x: Input, h: State) -> State:
        """The state a time dt later."""
        rows, weights = METHODS[self.method]
        slopes: list[Tensor] = []
        for row in rows:
            slopes.append(self._slope(x, self._along(h, row, slopes)))
        return self._along(h, weights, slopes)

    def _along(self, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
        for weight, slope in zip(weights, slopes, strict=True):
            if weight:
                h = h + (self.time_step * weight) * slope
        return h

    def _slope(self, x: Tensor, h: Tensor) -> Tensor:
        slope = self.function(x, h)
        if not isinstance(slope, Tensor) or slope.shape != h.shape or slope.dtype != h.dtype:
            got = (
                f"{tuple(slope.shape)} {slope.dtype}"
                if isinstance(slope, Tensor)
                else f"a {type(slope).__name__}"
            )
            raise ValueError(
                f"f(x, h) must return dh/dt like the state, {tuple(h.shape)} {h.dtype}, got {got}"
            )
        return slope

    def extra_repr(self) -> str:
        """The step, as `print(flow)` shows it."""
        return f"dt={self.time_step:g}, method={self.method!r}"
