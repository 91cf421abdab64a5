"""Batch and Task: inputs, targets and mask, drawn from counter-based streams; Noise without a target."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._padded import Padded, padded, real
from lyaptorch._random import Stream
from lyaptorch._types import Inputs


@dataclass(frozen=True)
class Batch:
    """What a network sees and what it should answer.

    Attributes:
        inputs: `(t, *e, b, m)`.
        targets: `(t, *e, b, o)`.
        mask: `(t, *e)` or `(t, *e, b)`, the steps whose target was really shown; only these count.
        lengths: `(b,)` or `(*e, b)`, the steps of each trajectory, if they differ: no later one counts. What
            stands in the padding, be it NaN, does not matter.
        first: the first step that counts for anybody: those before need not be read out.

    Args:
        since: `first`, where it is known; else it is looked up in the mask, and is 0 where nobody can look.
    """

    inputs: Inputs
    targets: Float[Tensor, "t *e b o"]
    mask: Bool[Tensor, "t *e"] | Bool[Tensor, "t *e b"]
    since: InitVar[int | None] = None
    lengths: Tensor | None = None
    first: int = field(init=False)

    __repr__ = brief

    def __post_init__(self, since: int | None) -> None:
        _checks.unpacked(
            "inputs",
            self.inputs,
            do="pad it with torch.nn.utils.rnn.pad_packed_sequence and give the lengths",
        )
        if self.lengths is not None:
            self._take_out_padding(self.lengths)
        if since is None:
            counts = self.mask.reshape(len(self.mask), -1).any(1)
            since = int(counts.int().argmax()) if _checks.can_look() else 0
        object.__setattr__(self, "first", since)

    def _take_out_padding(self, lengths: Tensor) -> None:
        """From inputs, targets and the mask: a cotangent of 0 times NaN would be NaN."""
        inputs, own = padded(self.inputs, lengths)
        assert own is not None
        mask = real(own, inputs.shape[:-1])
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "lengths", own)
        object.__setattr__(self, "targets", torch.where(mask.unsqueeze(-1), self.targets, 0.0))
        object.__setattr__(self, "mask", mask & self.counts)

    @property
    def counts(self) -> Bool[Tensor, "t *e #b"]:
        """Which steps count, of each trajectory, or of all alike where the last dimension is 1."""
        return self.mask if self.mask.dim() == self.inputs.dim() - 1 else self.mask.unsqueeze(-1)

    def select(self, who: tuple[Tensor, ...]) -> Batch:
        """What some members see, by their places as `nonzero(as_tuple=True)` gives them, as an ensemble."""
        at: tuple[slice | Tensor, ...] = (slice(None), *who)
        lengths = self.lengths
        own = lengths if lengths is None or lengths.dim() == 1 else lengths[who]
        return Batch(self.inputs[at], self.targets[at], self.mask[at], self.first, own)

    def after(self, step: int) -> Batch:
        """What is left after the first steps; of a trajectory that ended before, one that does not count."""
        rest = (slice(step, None),)
        lengths = None if self.lengths is None else (self.lengths - step).clamp_min(1)
        return Batch(self.inputs[rest], self.targets[rest], self.mask[rest], None, lengths)


def last_step(inputs: Tensor, answers: Tensor, lengths: Tensor | None = None) -> Batch:
    """A batch of which the last step of each trajectory alone counts, with the answers `(*e, b, o)`."""
    t, *ensemble, b, _ = inputs.shape
    if lengths is None:
        mask = torch.zeros(t, dtype=torch.bool, device=inputs.device)
        mask[-1] = True
        mask = mask.reshape(-1, *[1] * len(ensemble)).expand(-1, *ensemble)
        return Batch(inputs, answers.expand(t, *answers.shape), mask, t - 1)
    shape = (t, *ensemble, b)
    mask = real(lengths, shape) & ~real(lengths - 1, shape)
    return Batch(inputs, answers.expand(t, *answers.shape), mask, lengths=lengths)


class Source(Protocol):
    """A source of inputs."""

    def inputs(
        self,
        seed: int,
        *,
        member_ids: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Inputs | Padded:
        """The inputs alone `(t, *e, b, m)`, of any length, with lengths where those of trajectories differ.

        Args:
            seed: of the run.
            member_ids: ids `*e`.
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
        member_ids: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Batch:
        """The batch of one epoch, the same for a member alone and in any ensemble. Arguments as `inputs`."""


@dataclass(frozen=True)
class Noise:
    """Independent N(0, std^2) inputs.

    Attributes:
        channels: m.
        std: standard deviation.

    Example:
        >>> Noise(2).inputs(0, member_ids=torch.arange(3), epoch=0, batch=4, length=10).shape
        torch.Size([10, 3, 4, 2])

    Source: Gradient Flossing, section 4.
    """

    channels: int = 1
    std: float = 1.0

    def __post_init__(self) -> None:
        _checks.integer("channels", self.channels, 1)
        _checks.positive("std", self.std)

    def inputs(
        self,
        seed: int,
        *,
        member_ids: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Inputs:
        """The noise; see `Task.inputs`."""
        x = Stream(seed, stream).normal(
            (length, batch, self.channels),
            member_ids=member_ids,
            epoch=epoch,
            dtype=dtype,
            device=member_ids.device,
        )
        return self.std * x.movedim(-3, 0)
