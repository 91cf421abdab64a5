"""Batch and Task: inputs, targets and mask, drawn from counter-based streams."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._types import Inputs


@dataclass(frozen=True)
class Batch:
    """What a network sees and what it should answer.

    Attributes:
        inputs: `(t, *e, b, m)`.
        targets: `(t, *e, b, o)`.
        mask: `(t, *e)`, the steps whose target was really shown; only these count.
        first: the first step that counts for anybody: those before need not be read out.

    Args:
        since: `first`, where it is known; else it is looked up in the mask, and is 0 where nobody can look.
    """

    inputs: Inputs
    targets: Float[Tensor, "t *e b o"]
    mask: Bool[Tensor, "t *e"]
    since: InitVar[int | None] = None
    first: int = field(init=False)

    __repr__ = brief

    def __post_init__(self, since: int | None) -> None:
        if since is None:
            counts = self.mask.reshape(len(self.mask), -1).any(1)
            since = int(counts.int().argmax()) if _checks.can_look() else 0
        object.__setattr__(self, "first", since)

    def select(self, members: tuple[Tensor, ...]) -> Batch:
        """What some members see, by their places as `nonzero(as_tuple=True)` gives them, as an ensemble."""
        at: tuple[slice | Tensor, ...] = (slice(None), *members)
        return Batch(self.inputs[at], self.targets[at], self.mask[at], self.first)


def last_step(inputs: Tensor, answers: Tensor) -> Batch:
    """A batch of which the last step alone counts, with the answers `(*e, b, o)`."""
    mask = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    mask[-1] = True
    ensemble = inputs.shape[1:-2]
    return Batch(
        inputs,
        answers.expand(len(inputs), *answers.shape),
        mask.reshape(-1, *[1] * len(ensemble)).expand(-1, *ensemble),
        len(inputs) - 1,
    )


class Source(Protocol):
    """A source of inputs."""

    def inputs(
        self,
        seed: int,
        *,
        members: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Inputs:
        """The inputs alone `(t, *e, b, m)`, of any length.

        Args:
            seed: of the run.
            members: ids `*e`.
            epoch: which batch, a number or one for each member.
            batch: trajectories b.
            length: steps t.
            stream: which of several independent sequences of batches.
            dtype: of the inputs.
        """


class Task(Source, Protocol):
    """A source of batches; it knows no model. If all its trials have one `length`, it has that attribute."""

    @property
    def input_size(self) -> int:
        """Channels m of the inputs."""

    @property
    def output_size(self) -> int:
        """Channels o of the targets."""

    @property
    def loss(self) -> str:
        """The loss that suits the targets, by its name in `Model`."""

    def draw(
        self,
        seed: int,
        *,
        members: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Batch:
        """The batch of one epoch, the same for a member alone and in any ensemble. Arguments as `inputs`."""
