"""Trajectories of the run that is diagnosed: inputs and states, each up to its own end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch._brief import brief
from lyaptorch.cells import Cell, unroll


@dataclass(frozen=True)
class Run:
    """What a network did.

    Attributes:
        inputs: `(t, *e, b, m)`.
        states: `(t + 1, *e, b, n)`, `states[s]` before `inputs[s]`; from its end on a trajectory stays.
        steps: `(*e, b)`, those of each trajectory, 1..t.
    """

    inputs: Tensor
    states: Tensor
    steps: Tensor

    __repr__ = brief

    def state(self, s: Tensor) -> Tensor:
        """The states `(*e, b, n)` of each trajectory before its step `s (*e, b)`."""
        return _taken(self.states, s)

    def at(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """What each trajectory takes in at its step `s (*e, b)`, and its state before that."""
        return _taken(self.inputs, s), self.state(s)

    def recent(self, most: int) -> Run:
        """The last steps of each trajectory, `most` of them or fewer."""
        if most >= len(self.inputs):
            return self
        steps = self.steps.clamp_max(most)
        # of a short trajectory all steps; what stands behind its end is its last input and state again
        first = self.steps - steps
        inputs = [_taken(self.inputs, (first + s).clamp_max(len(self.inputs) - 1)) for s in range(most)]
        states = [self.state((first + s).minimum(self.steps)) for s in range(most + 1)]
        return Run(torch.stack(inputs), torch.stack(states), steps)

    def until(self, step: int) -> Run:
        """The first steps of each trajectory, `step` of them or fewer."""
        return Run(self.inputs[:step], self.states[: step + 1], self.steps.clamp_max(step))

    def longest(self) -> Run:
        """The first of the longest trajectories alone, of one network."""
        i = int(self.steps.flatten().argmax())
        return Run(self.inputs[..., i : i + 1, :], self.states[..., i : i + 1, :], self.steps[..., i : i + 1])

    def moments(self, most: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Inputs and states at moments of each trajectory, and which trajectories `(*e, b)` have this one.

        There are at most `most` of them, evenly from a trajectory's first step to its last.
        """
        count, last = self.steps.clamp_max(most), self.steps - 1
        for i in range(int(count.max())):
            # moment i of c at round(i (t - 1) / (c - 1)): the first step and the last are among them
            s = (i * last.double() / (count - 1).clamp_min(1)).round().long()
            yield *self.at(s.minimum(last)), count > i

    def mean(self, most: int, look: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The mean of `look(x, h)` `(*e, b, ...)` over moments of each trajectory, then over trajectories."""
        total: Tensor | float = 0.0
        for x, h, there in self.moments(most):
            seen = look(x, h)
            total = total + torch.where(_against(there, seen), seen, 0.0)
        assert isinstance(total, Tensor)
        # a trajectory with few moments weighs as much as one with many
        mean = total / _against(self.steps.clamp_max(most), total)
        return mean.flatten(0, self.steps.dim() - 1).mean(0)


def run(cell: Cell, inputs: Tensor, h: Tensor, steps: Tensor | None = None) -> Run:
    """Follow a cell from `h (*e, b, n)`, each trajectory for its own `steps (*e, b)`, all t when missing."""
    states = torch.cat([h.unsqueeze(0), unroll(cell, inputs, h)])
    if steps is None:
        return Run(inputs, states, whole(inputs, h))
    # states[min(s, own steps)]: padding was run through, but nothing of it is kept
    at = torch.arange(len(states), device=h.device).reshape(-1, *[1] * steps.dim()).minimum(steps)
    return Run(inputs, states.gather(0, at.unsqueeze(-1).expand_as(states)), steps)


def whole(inputs: Tensor, h: Tensor) -> Tensor:
    """The steps `(*e, b)` of trajectories that have all."""
    return torch.full(h.shape[:-1], len(inputs), dtype=torch.int64, device=h.device)


def _taken(z: Tensor, s: Tensor) -> Tensor:
    """`z[s]` of each trajectory, of `(t, *e, b, n)`."""
    index = s.unsqueeze(-1).expand(*s.shape, z.shape[-1]).unsqueeze(0)
    return z.expand(len(z), *index.shape[1:]).gather(0, index)[0]


def _against(z: Tensor, like: Tensor) -> Tensor:
    """`(*e, b)` against `(*e, b, ...)`."""
    return z.reshape(*z.shape, *[1] * (like.dim() - z.dim()))
