"""A cell bound to its inputs: one step of the tangent dynamics, its vjp; trajectories that end early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lyaptorch.cells import AnyForm, Cell, Form
from lyaptorch.cells.form import time_in_batch
from lyaptorch.tangent.form_dynamics import FormDynamics
from lyaptorch.tangent.replay import Replay, blind


class Dynamics(Protocol):
    """What the scan and its adjoint ask of a cell bound to inputs `(t, *e, b, m)`.

    Attributes:
        advice: what an error says when the state overflows.
    """

    advice: str

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and D Q at step s."""

    def step(self, s: int, h: Tensor) -> Tensor:
        """The next state alone."""

    def jacobians(self, start: int, stop: int, h: Tensor) -> Tensor | None:
        """D of the steps `start .. stop - 1` at the states h, with time among trajectories `(*e, t b, n, n)`.

        None where steps cannot be taken side by side.
        """

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        """Prepare to pull back through the steps `start`, `start + 1`, ... that left from `states`."""

    def product(self, s: int, Q: Tensor) -> Tensor:
        """D Q at step s, after `begin`."""

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Pull the cotangents (h_bar, Z) of (h', D Q) at step s back to (h, Q), after `begin`."""

    def finish(self) -> None:
        """Account for the steps since `begin`."""

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        """The gradients of the inputs (None where not wanted) and of the leaves, so far."""


def bind(
    cell: Cell, form: AnyForm | None, inputs: Tensor, leaves: Sequence[Tensor], ends: Ends | None = None
) -> Dynamics:
    """The fastest dynamics that serve a cell, or its form, and give the gradient of each of `leaves`."""
    inner: Dynamics
    if isinstance(form, Form):
        inner = FormDynamics(form, inputs, leaves)
    else:
        inner = CellDynamics(cell, inputs, leaves)
    return inner if ends is None else Ended(inner, ends)


class CellDynamics:
    """Any cell: the vjp of its `pushforward` by autograd, step by step."""

    def __init__(self, cell: Cell, inputs: Tensor, leaves: Sequence[Tensor]) -> None:
        self.cell, self.inputs, self.leaves, self.advice = cell, inputs, leaves, cell.advice
        own = type(cell).pushforward is not Cell.pushforward or cell.unfused or cell.reverse_mode
        # forward mode finds the same operations anew at every step, which costs more than a small step itself
        self._forwards = cell.pushforward if own else Replay(cell.pushforward, len(inputs))
        self._totals = [torch.zeros_like(leaf) for leaf in leaves]
        self._x_bars: Tensor | None = None
        self._looks: bool | None = None

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        return self._forwards(self.inputs[s], h, Q)

    def step(self, s: int, h: Tensor) -> Tensor:
        return self.cell.step(self.inputs[s], h)

    def jacobians(self, start: int, stop: int, h: Tensor) -> Tensor | None:
        x, n = time_in_batch(self.inputs[start:stop]), h.shape[-1]
        eye = torch.eye(n, dtype=h.dtype, device=h.device).expand(*h.shape, n)
        if self._looks is False:
            return self.cell.pushforward(x, h, eye)[1]
        found = None if self._looks else blind(self.cell.pushforward, x, h, eye)
        # a step that does not look once will not
        self._looks = found is None
        return None if found is None else found[1]

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        self._start, self._states = start, states
        if self._x_bars is None and self.inputs.requires_grad:
            self._x_bars = torch.zeros_like(self.inputs)

    def product(self, s: int, Q: Tensor) -> Tensor:
        return self.pushforward(s, self._states[s - self._start], Q)[1]

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        h = self._states[s - self._start].detach().requires_grad_()
        x, Q = self.inputs[s].detach(), Q.detach().requires_grad_()
        wanted = [h, Q, *self.leaves]
        if self._x_bars is not None:
            wanted.append(x.requires_grad_())
        with torch.enable_grad():
            pairs = zip(self.cell.pushforward(x, h, Q), (h_bar, Z), strict=True)
        live = [(y, bar) for y, bar in pairs if y.requires_grad]
        # a step that ends in a hard reset, or in constants, has nothing to pull back
        if not live:
            return torch.zeros_like(h), torch.zeros_like(Q)
        ys, y_bars = zip(*live, strict=True)
        # retain_graph: the step may read tensors that were computed outside it
        bars = torch.autograd.grad(ys, wanted, y_bars, retain_graph=True, allow_unused=True)
        # of the leaves of a deep stack each step knows few
        for total, bar in zip(self._totals, bars[2:], strict=False):
            if bar is not None:
                total += bar
        if self._x_bars is not None and bars[-1] is not None:
            self._x_bars[s] = bars[-1]
        h_bar, Z = bars[:2]
        return torch.zeros_like(h) if h_bar is None else h_bar, torch.zeros_like(Q) if Z is None else Z

    def finish(self) -> None:
        self._states = []

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        return self._x_bars, self._totals


@dataclass(frozen=True)
class Ends:
    """Where trajectories end.

    Attributes:
        after: `(b,)` or `(*e, b)`, how many steps each has; 0 or less where it has none.
        first: `(*e, b, n)`, the states before step 0, without gradient.
        cut: detach the state every `cut` steps; None for never.
    """

    after: Tensor
    first: Tensor
    cut: int | None


class Ended:
    """Dynamics whose state and frame stay as they are after the end of their trajectory.

    So the final state and frame are those at each end, log R is 0 after it, and cotangents pass through.
    The dynamics within take the first step again meanwhile, which can overflow no more than it did, with
    cotangents 0: no leaf sees what comes after an end. (The inputs there are those of the first step.)
    """

    def __init__(self, inner: Dynamics, ends: Ends) -> None:
        self.inner, self.ends, self.advice = inner, ends, inner.advice

    def pushforward(self, s: int, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the dynamics within, or state and frame as they are."""
        state, frame = self._going(s)
        # the cut is here and not in the sweep: what is over must keep the gradient of its final state
        before = h.detach() if self._cuts(s) else h
        # what `where` discards must be finite, too: autograd multiplies it by 0, and 0 * inf is NaN
        after, pushed = self.inner.pushforward(s, torch.where(state, before, self.ends.first), Q)
        return torch.where(state, after, h), torch.where(frame, pushed, Q)

    def step(self, s: int, h: Tensor) -> Tensor:
        """The next state, or the same."""
        return self.pushforward(s, h, h.new_zeros(*h.shape, 0))[0]

    def jacobians(self, start: int, stop: int, h: Tensor) -> None:
        """None: trajectories do not all take the same steps."""

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        """Prepare the dynamics within."""
        self.inner.begin(
            start, [torch.where(self._going(start + i)[0], h, self.ends.first) for i, h in enumerate(states)]
        )

    def product(self, s: int, Q: Tensor) -> Tensor:
        """D Q, or Q."""
        return torch.where(self._going(s)[1], self.inner.product(s, Q), Q)

    def pullback(self, s: int, Q: Tensor, h_bar: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the dynamics within, or the cotangents as they are."""
        state, frame = self._going(s)
        # zeros into the step that counts for nothing, so that none of its products reaches a leaf
        own_h, own_Z = self.inner.pullback(s, Q, torch.where(state, h_bar, 0.0), torch.where(frame, Z, 0.0))
        if self._cuts(s):
            own_h = torch.zeros_like(own_h)
        return torch.where(state, own_h, h_bar), torch.where(frame, own_Z, Z)

    def finish(self) -> None:
        """Account for the steps since `begin`."""
        self.inner.finish()

    @property
    def bars(self) -> tuple[Tensor | None, list[Tensor]]:
        """The gradients of the inputs and of the leaves."""
        return self.inner.bars

    def _going(self, s: int) -> tuple[Tensor, Tensor]:
        """Which trajectories take step s, against states and against frames."""
        state = (self.ends.after > s).unsqueeze(-1)
        return state, state.unsqueeze(-1)

    def _cuts(self, s: int) -> bool:
        return self.ends.cut is not None and s % self.ends.cut == 0
