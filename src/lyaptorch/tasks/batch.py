"""Batch, and the Draw that names one; Source and Task draw inputs and batches; Noise has no target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
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
        inputs: `(t, *e, b, m)`, or `(t, b, m)` where all members see the same.
        targets: `(t, *e, b, o)`.
        mask: `(t, *e)` or `(t, *e, b)`, the steps whose target was really shown; only these count.
        lengths: `(b,)` or `(*e, b)`, the steps of each trajectory, if they differ: no later one counts. What
            stands in the padding, be it NaN, does not matter.
        first: the first step that counts for anybody: those before need not be read out.

    Args:
        since: `first`, where it is known; else it is looked up in the mask, and is 0 where nobody can look.

    Raises:
        ValueError: for shapes that do not fit each other, a mask that is not bool or lets no step of a member
            count, or a PackedSequence.

    Example:
        >>> import lyaptorch as lt
        >>> batch = lt.tasks.DelayedCopy(2).draw(lt.tasks.Draw(0, 5, 3, member_ids=torch.arange(1)))
        >>> batch.inputs.shape, batch.mask[:, 0].tolist()
        (torch.Size([5, 1, 3, 1]), [False, False, True, True, True])
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
        self._check_shapes()
        if self.lengths is not None:
            inputs, own = padded(self.inputs, self.lengths)
            assert own is not None
            mask = real(own, self.targets.shape[:-1])
            # the class is frozen for its users; its own constructor finishes what it was given
            object.__setattr__(self, "inputs", inputs)
            object.__setattr__(self, "lengths", own)
            # taken out of the targets, too: a cotangent of 0 times NaN would be NaN
            object.__setattr__(self, "targets", torch.where(mask.unsqueeze(-1), self.targets, 0.0))
            object.__setattr__(self, "mask", mask & self.counts)
        if since is None:
            since = first_counted(self.counts) if _checks.can_look() else 0
        object.__setattr__(self, "first", since)

    def _check_shapes(self) -> None:
        inputs, targets, mask = (tuple(z.shape) for z in (self.inputs, self.targets, self.mask))
        steps = targets[:-1]
        if self.mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be bool, True where a step counts, got {self.mask.dtype}; of 0 and 1 call .bool()"
            )
        if len(targets) < 3 or len(inputs) < 3 or inputs[:-1] not in (steps, (steps[0], steps[-1])):
            raise ValueError(
                f"inputs must have shape (t, *e, b, m) and targets (t, *e, b, o), got {inputs} and "
                f"{targets}; time comes first in both, and only *e may be missing in the inputs"
            )
        if mask not in (steps, steps[:-1]):
            raise ValueError(
                f"mask must have shape (t, *e) = {steps[:-1]} or (t, *e, b) = {steps} as the targets, got "
                f"{mask}"
            )

    @property
    def counts(self) -> Bool[Tensor, "t *e #b"]:
        """Which steps count, of each trajectory, or of all alike where the last dimension is 1."""
        return self.mask if self.mask.dim() == self.targets.dim() - 1 else self.mask.unsqueeze(-1)

    def select(self, who: tuple[Tensor, ...]) -> Batch:
        """What some members see, by their places as `nonzero(as_tuple=True)` gives them, as an ensemble."""
        at: tuple[slice | Tensor, ...] = (slice(None), *who)
        lengths = self.lengths
        own = lengths if lengths is None or lengths.dim() == 1 else lengths[who]
        inputs = self.inputs[at] if self.inputs.dim() == self.targets.dim() else self.inputs
        return Batch(inputs, self.targets[at], self.mask[at], self.first, own)

    def after(self, step: int) -> Batch:
        """What is left after the first steps; of a trajectory that ended before, one that does not count."""
        rest = (slice(step, None),)
        # a length of 0 is refused everywhere: one step is kept, and its mask says that it does not count
        lengths = None if self.lengths is None else (self.lengths - step).clamp_min(1)
        return Batch(self.inputs[rest], self.targets[rest], self.mask[rest], None, lengths)


def last_step(inputs: Tensor, answers: Tensor, lengths: Tensor | None = None) -> Batch:
    """A batch of which the last step of each trajectory alone counts, with the answers `(*e, b, o)`."""
    # as the answers have it: members may share the inputs
    t, (*ensemble, b, _) = len(inputs), answers.shape
    if lengths is None:
        mask = torch.zeros(t, dtype=torch.bool, device=inputs.device)
        mask[-1] = True
        mask = mask.reshape(-1, *[1] * len(ensemble)).expand(-1, *ensemble)
        return Batch(inputs, answers.expand(t, *answers.shape), mask, t - 1)
    # the steps below the length without those below the length less one: the last
    shape = (t, *ensemble, b)
    mask = (real(lengths, shape) & ~real(lengths - 1, shape)).expand(shape)
    return Batch(inputs, answers.expand(t, *answers.shape), mask, lengths=lengths)


@dataclass(frozen=True, eq=False)
class Draw:
    """Which batch: the same name draws the same numbers, for a member alone and in any ensemble.

    Attributes:
        seed: of the run.
        steps: t of each trajectory.
        batch: trajectories b.
        epoch: how many batches came before, a number or one for each member `*e`.
        member_ids: ids `*e`; what is drawn lies on their device. When missing, member 0 alone.
        stream: which of several independent sequences of batches.
        dtype: of the numbers; the default one when missing.

    Example:
        >>> d = Draw(0, steps=10, batch=4, member_ids=torch.arange(3))
        >>> d.normal(2).shape, torch.equal(d.normal(2)[:, 0], Draw(0, steps=10, batch=4).normal(2))
        (torch.Size([10, 3, 4, 2]), True)
    """

    seed: int
    steps: int
    batch: int = 1
    epoch: int | Tensor = 0
    member_ids: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64, device="cpu"))
    stream: str = "task"
    dtype: torch.dtype | None = None

    __repr__ = brief

    def normal(self, channels: int = 1) -> Inputs:
        """Numbers from N(0, 1), `(t, *e, b, channels)`."""
        return self._numbers(Stream.normal, channels)

    def uniform(self, channels: int = 1) -> Inputs:
        """Numbers from [0, 1), `(t, *e, b, channels)`."""
        return self._numbers(Stream.uniform, channels)

    def bernoulli(self, channels: int = 1) -> Tensor:
        """Fair coins, 0 or 1, `(t, *e, b, channels)`."""
        return self._numbers(Stream.bernoulli, channels)

    def _numbers(self, kind: Callable[..., Tensor], channels: int) -> Tensor:
        return kind(
            Stream(self.seed, self.stream),
            (self.steps, self.batch, channels),
            member_ids=self.member_ids,
            epoch=self.epoch,
            dtype=self.dtype,
            before=1,
        )

    @property
    def device(self) -> torch.device:
        """Where everything of this draw lies."""
        return self.member_ids.device

    @property
    def now(self) -> Int[Tensor, "t *#e"]:
        """The number of each step."""
        return torch.arange(self.steps, device=self.device).reshape(-1, *[1] * self.member_ids.dim())

    def where(self, steps: Bool[Tensor, "t *#e"]) -> Bool[Tensor, "t *e"]:
        """A mask of some steps, the same or its own for each member."""
        return steps.expand(self.steps, *self.member_ids.shape)


class Source(Protocol):
    """A source of inputs."""

    def inputs(self, d: Draw, /) -> Inputs | Padded:
        """The inputs alone `(t, *e, b, m)`, of any length, with lengths where trajectories differ."""


class Task(Source, Protocol):
    """A source of batches; it knows no model. If all its trials have one `length`, it has that attribute.

    A subclass need not say what its `inputs` are.
    """

    @property
    def input_size(self) -> int:
        """Channels m of the inputs."""

    @property
    def output_size(self) -> int:
        """Channels o of the targets."""

    @property
    def loss(self) -> str:
        """The loss that suits the targets, by its name in `Model`."""

    def draw(self, d: Draw, /) -> Batch:
        """Inputs, targets, and the steps that count."""

    def inputs(self, d: Draw, /) -> Inputs | Padded:
        """Those of a batch."""
        batch = self.draw(d)
        return Padded(batch.inputs, batch.lengths)


@dataclass(frozen=True)
class Noise:
    """Independent N(0, std^2) inputs.

    A draw costs O(t b m) per member.

    Attributes:
        channels: m.
        std: standard deviation.

    Example:
        >>> Noise(2).inputs(Draw(0, steps=10, batch=4, member_ids=torch.arange(3))).shape
        torch.Size([10, 3, 4, 2])

    Source: Gradient Flossing, section 4.
    """

    channels: int = 1
    std: float = 1.0

    def __post_init__(self) -> None:
        _checks.integer("channels", self.channels, 1)
        _checks.positive("std", self.std)

    def inputs(self, d: Draw) -> Inputs:
        """The noise."""
        return self.std * d.normal(self.channels)


def first_counted(counts: Bool[Tensor, "t *e b"]) -> int:
    """The first step that counts for anybody; each member must have one, or its means would be NaN."""
    some = counts.any(-1)
    if not bool(some.any(0).all()):
        raise ValueError("mask must let some step count for each member, got one of which none does")
    # argmax finds the first of equal values
    return int(some.reshape(len(some), -1).any(1).int().argmax())
