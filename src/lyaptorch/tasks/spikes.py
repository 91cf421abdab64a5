"""Tasks in spikes: the XOR of two cues a delay apart, and the classification of spike patterns."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch

CODES = ("poisson", "latency")


class SpikeTask:
    """Trials one after the other, each with a class that is to be named in its last steps.

    A subclass says how long a trial is, where in it the answer begins, and gives the spikes.
    """

    delay: int
    answer: int
    channels: int

    @property
    def input_size(self) -> int:
        """The channels."""
        return self.channels

    @property
    def loss(self) -> str:
        """Cross-entropy between classes."""
        return "cross_entropy"

    @property
    def output_size(self) -> int:
        """The number of classes."""
        raise NotImplementedError

    @property
    def period(self) -> int:
        """Steps of a trial."""
        raise NotImplementedError

    def trials(
        self, source: Stream, count: int, batch: int, member_ids: Tensor, epoch: int | Tensor
    ) -> Tensor:
        """What each trial shows, `(count, *e, b)` integers."""
        raise NotImplementedError

    def classes_of(self, shown: Tensor) -> Tensor:
        """The class of each trial."""
        raise NotImplementedError

    def spikes(self, source: Stream, shown: Tensor, member_ids: Tensor, epoch: int | Tensor) -> Tensor:
        """Spikes of whole trials, bool `(period, count, *e, b, m)`."""
        raise NotImplementedError

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
        """The spikes, 0 or 1, alone; see `Task.inputs`."""
        return self._show(seed, member_ids, epoch, batch, length, stream, dtype)[0]

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
        """Spikes, and the class of a trial, one-hot, in its last `answer` steps; see `Task.draw`."""
        if length < self.period:
            raise ValueError(f"length must hold one trial of {self.period} steps, got {length}; pass more")
        x, shown = self._show(seed, member_ids, epoch, batch, length, stream, dtype)
        steps = torch.arange(length, device=member_ids.device)
        named = self.classes_of(shown)[steps // self.period]
        targets = (named.unsqueeze(-1) == torch.arange(self.output_size, device=member_ids.device)).to(
            x.dtype
        )
        mask = steps % self.period >= self.period - self.answer
        mask = mask.reshape(-1, *[1] * member_ids.dim()).expand(length, *member_ids.shape)
        return Batch(x, targets, mask, self.period - self.answer)

    def _show(
        self,
        seed: int,
        member_ids: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        """Inputs, and what each trial shows."""
        count = -(-length // self.period)
        shown = self.trials(Stream(seed, f"{stream}_trials"), count, batch, member_ids, epoch)
        spikes = self.spikes(Stream(seed, stream), shown, member_ids, epoch)
        x = spikes.transpose(0, 1).flatten(0, 1)[:length]
        return x.to(dtype or torch.get_default_dtype()), shown


@dataclass(frozen=True)
class SpikingXOR(SpikeTask):
    """Two cues, a delay apart, and the XOR of them to be named in the end.

    In a cue one half of the channels spikes for a 1, the other half for a 0, each with `probability` in
    every step. A trial has `cue + delay + cue + answer` steps; then comes the next.

    Attributes:
        delay: silent steps between the cues.
        channels: an even number.
        cue: steps of each cue.
        answer: steps in which the network is asked.
        probability: of a spike in a step.

    Raises:
        ValueError: for an odd number of channels or no steps; on drawing, if the length holds no trial.

    Example:
        >>> task = SpikingXOR(30)
        >>> batch = task.draw(0, member_ids=torch.arange(2), epoch=0, batch=4, length=task.period)
        >>> batch.inputs.shape, batch.targets.shape
        (torch.Size([60, 2, 4, 20]), torch.Size([60, 2, 4, 2]))
    """

    delay: int
    channels: int = 20
    cue: int = 10
    answer: int = 10
    probability: float = 0.2
    output_size: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        for name, low in (("delay", 0), ("channels", 2), ("cue", 1), ("answer", 1)):
            _checks.integer(name, getattr(self, name), low)
        _checks.share("probability", self.probability)
        if self.channels % 2:
            raise ValueError(f"channels must be even, half for each bit, got {self.channels}")

    @property
    def period(self) -> int:
        """Two cues, the delay and the answer."""
        return 2 * self.cue + self.delay + self.answer

    def trials(
        self, source: Stream, count: int, batch: int, member_ids: Tensor, epoch: int | Tensor
    ) -> Tensor:
        """Two bits, as a number in 0..3."""
        bits = source.bernoulli((2, count, batch), member_ids=member_ids, epoch=epoch, dtype=torch.int64)
        return (bits.select(-3, 0) + 2 * bits.select(-3, 1)).movedim(-2, 0)

    def classes_of(self, shown: Tensor) -> Tensor:
        """Their XOR."""
        return (shown % 2) ^ (shown // 2)

    def spikes(self, source: Stream, shown: Tensor, member_ids: Tensor, epoch: int | Tensor) -> Tensor:
        """Spikes of the half that the bit of a cue calls."""
        steps = torch.arange(self.period, device=shown.device)
        second = self.cue + self.delay
        first_cue, second_cue = steps < self.cue, (steps >= second) & (steps < second + self.cue)
        half = torch.arange(self.channels, device=shown.device) < self.channels // 2
        bits = torch.stack([shown % 2, shown // 2]).bool().unsqueeze(-1) == half
        across = [1] * shown.dim() + [1]
        called = first_cue.reshape(-1, *across) & bits[0] | second_cue.reshape(-1, *across) & bits[1]
        return called & (
            _noise(source, self.period, shown, self.channels, member_ids, epoch) < self.probability
        )


@dataclass(frozen=True)
class SpikePatterns(SpikeTask):
    """Fixed random spike patterns, to be classified.

    With code="poisson" each class has a rate for each channel, uniform from 0 to twice `probability` spikes a
    step. With code="latency" each class has a time for each channel, which spikes once, `jitter` steps
    (a standard deviation) around it. A trial has `steps + delay + answer` steps; then comes the next.

    Attributes:
        delay: silent steps between the pattern and the answer.
        classes: how many patterns.
        channels: m.
        code: "poisson" or "latency".
        steps: length of a pattern.
        answer: steps in which the network is asked.
        probability: mean number of spikes in a step and channel, for "poisson".
        jitter: of a spike's time, in steps, for "latency".
        seed: which patterns; the same for all members, in training and in tests.

    Raises:
        ValueError: for fewer than two classes, unknown codes or no steps; on drawing, if the length holds no
            trial.

    Example:
        >>> task = SpikePatterns(classes=3, code="latency", steps=40)
        >>> batch = task.draw(0, member_ids=torch.arange(1), epoch=0, batch=4, length=task.period)
        >>> batch.targets[-1, 0].sum(-1)
        tensor([1., 1., 1., 1.])
    """

    delay: int = 0
    classes: int = 4
    channels: int = 40
    code: str = "poisson"
    steps: int = 50
    answer: int = 10
    probability: float = 0.05
    jitter: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("delay", 0), ("classes", 2), ("channels", 1), ("steps", 1), ("answer", 1)):
            _checks.integer(name, getattr(self, name), low)
        _checks.choice("code", self.code, CODES)
        _checks.share("probability", 2 * self.probability)
        _checks.rate("jitter", self.jitter)

    @property
    def output_size(self) -> int:
        """The classes."""
        return self.classes

    @property
    def period(self) -> int:
        """Pattern, delay and answer."""
        return self.steps + self.delay + self.answer

    def trials(
        self, source: Stream, count: int, batch: int, member_ids: Tensor, epoch: int | Tensor
    ) -> Tensor:
        """Classes, each as likely."""
        u = source.uniform((count, batch), member_ids=member_ids, epoch=epoch, dtype=torch.float64)
        return (u * self.classes).long().movedim(-2, 0)

    def classes_of(self, shown: Tensor) -> Tensor:
        """Themselves."""
        return shown

    def spikes(self, source: Stream, shown: Tensor, member_ids: Tensor, epoch: int | Tensor) -> Tensor:
        """Spikes of the pattern of each trial."""
        patterns = Stream(self.seed, "spike_patterns").uniform(
            (self.classes, self.channels), member_ids=0, dtype=torch.float64, device=shown.device
        )[shown]
        steps = torch.arange(self.period, device=shown.device).reshape(-1, *[1] * patterns.dim())
        draws = self.period if self.code == "poisson" else 1
        noise = _noise(source, draws, shown, self.channels, member_ids, epoch)
        if self.code == "poisson":
            return (steps < self.steps) & (noise < 2 * self.probability * patterns)
        # u = 0 is as improbable as the rest of the tail that the bound cuts off
        shift = self.jitter * torch.special.ndtri(noise.clamp_min(1e-12))
        when: Tensor = (patterns * self.steps + shift).floor().clamp(0, self.steps - 1)
        return steps == when


def _noise(
    source: Stream, steps: int, shown: Tensor, channels: int, member_ids: Tensor, epoch: int | Tensor
) -> Tensor:
    """Uniform numbers `(steps, count, *e, b, m)`."""
    shape = (steps, shown.shape[0], shown.shape[-1], channels)
    u = source.uniform(shape, member_ids=member_ids, epoch=epoch, dtype=torch.float64, device=shown.device)
    return u.movedim((-4, -3), (0, 1))
