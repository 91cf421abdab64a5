"""Trajectories that end before others: from there on nothing moves, and nothing is gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lyaptorch.tangent.dynamics import Dynamics


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

    def begin(self, start: int, states: Sequence[Tensor]) -> None:
        """Prepare the dynamics within."""
        first = self.ends.first
        self.inner.begin(
            start, [torch.where(self._going(start + i)[0], h, first) for i, h in enumerate(states)]
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
