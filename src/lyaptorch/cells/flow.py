"""`Flow`: the time-dt map of a neural ODE as a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Input, State
from lyaptorch.cells.adapt.skeleton import describe
from lyaptorch.cells.cell import Cell

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
    `dt=1.0` there for nats per step, in which flossing targets and triggers always are. It compares steps of
    dt with shorter ones, and its `discretisation`, error bars and `reliable` say what dt costs.

    An input that is held over a step drives the flow at first order in dt only. An ODE that is driven by a
    known function of time takes the time as an input: with `time=True` the last channel of the inputs is the
    time at which each step begins, and f sees it at each stage's own time, which gives the full order; an
    f(t, y), as torchdiffeq has it, is taken only so, on inputs that are the time alone. Data
    that are known at the steps alone can be interpolated by f: pass both ends of a step as channels.

    Args:
        f: a module or a function; input `(*e, b, m)` and state `(*e, b, n)` to dh/dt `(*e, b, n)`. Its
            parameters, and tensors that it closes over, are found. Its state size comes from the h0 that is
            passed later.
        dt: time per step.
        method: "rk4" (error dt^4, 4 evaluations of f) or "dopri5" (error dt^5, 6 evaluations).
        time: whether the last input channel is the time at the beginning of each step.

    Attributes:
        pieces: in how many equal ones each step is taken; `finer` sets it for a while.

    Raises:
        ValueError: for an unknown method, a dt that is not above zero, or an f that returns another shape
            or dtype than the state's.

    Example:
        >>> import torch, lyaptorch as lt
        >>> decay = lt.Flow(lambda x, h: x - 3 * h, dt=0.01)
        >>> lt.lyapunov_spectrum(decay, torch.zeros(50, 1, 2), h0=torch.ones(1, 2)).exponents
        tensor([[-3.0000, -3.0000]])
        >>> driven = lt.Flow(lambda x, h: torch.sin(x) - h, dt=0.01, time=True)
        >>> t = 0.01 * torch.arange(50.0).reshape(-1, 1, 1)
        >>> lt.lyapunov_spectrum(driven, t, h0=torch.ones(1, 1)).exponents
        tensor([[-1.0000]])

    Source: Gradient Flossing, appendix J (a continuous system in stroboscopic view); Dormand and Prince
    (1980).
    """

    def __init__(
        self,
        f: Callable[[Tensor, Tensor], Tensor],
        *,
        dt: float,
        method: str = "rk4",
        time: bool = False,
    ) -> None:
        super().__init__(0, 0)
        if not callable(f):
            raise ValueError(f"f must be a module or a function f(x, h), got {type(f).__name__}")
        self.function = f
        self.time_step = _checks.positive("dt", dt)
        self.method = _checks.choice("method", method, METHODS)
        self.time, self.pieces = time, 1
        self.advice = f"the flow blows up with dt={dt:g}; take a smaller dt, weaker inputs, or another h0"

    def step(self, x: Input, h: State) -> State:
        """The state a time dt later."""
        rows, weights = METHODS[self.method]
        dt = self.time_step / self.pieces
        for piece in range(self.pieces):
            slopes: list[Tensor] = []
            for row in rows:
                # stages lie at c_i = sum_j a_ij
                at = self._at(x, (piece + sum(row)) * dt)
                slopes.append(self._slope(at, _along(h, dt, row, slopes)))
            h = _along(h, dt, weights, slopes)
        return h

    def _at(self, x: Tensor, later: float) -> Tensor:
        """The input at a time after the beginning of the step."""
        if not self.time or later == 0:
            return x
        if x.shape[-1] == 0:
            raise ValueError("with time=True the last input channel is the time, got inputs of no channels")
        return torch.cat([x[..., :-1], x[..., -1:] + later], -1)

    def _slope(self, x: Tensor, h: Tensor) -> Tensor:
        slope = self.function(x, h)
        if not isinstance(slope, Tensor) or slope.shape != h.shape or slope.dtype != h.dtype:
            raise ValueError(
                f"f(x, h) must return dh/dt like the state, {describe(h)}, got {describe(slope)}"
            )
        return slope

    def extra_repr(self) -> str:
        """The step, as `print(flow)` shows it."""
        return f"dt={self.time_step:g}, method={self.method!r}" + (", time=True" if self.time else "")


def flows(cell: Cell) -> list[Flow]:
    """The flows that a cell is, or is made of."""
    return [module for module in cell.modules() if isinstance(module, Flow)]


@contextmanager
def finer(cell: Cell, pieces: int) -> Iterator[None]:
    """For a while every flow in a cell takes each of its steps in `pieces` equal pieces."""
    found = flows(cell)
    try:
        for flow in found:
            flow.pieces = pieces
        yield
    finally:
        for flow in found:
            flow.pieces = 1


def _along(h: Tensor, dt: float, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            # one operation: a number times a dual tensor is a slow one
            h = torch.add(h, slope, alpha=dt * weight)
    return h
