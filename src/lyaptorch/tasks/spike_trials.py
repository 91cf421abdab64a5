"""Tasks in spikes: the XOR of two cues a delay apart, and the classification of spike patterns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, Draw

CODES = ("poisson", "latency")


class SpikeTask(Protocol):
    """Trials one after the other, each with a class that is to be named in its last steps.

    A subclass says how long a trial is, where in it the answer begins, and gives the spikes.
    """

    delay: int
    answer: int
    channels: int
    loss: str = "cross_entropy"

    @property
    def input_size(self) -> int:
        """The channels."""
        return self.channels

    @property
    def output_size(self) -> int:
        """The number of classes."""

    @property
    def period(self) -> int:
        """Steps of a trial."""

    def trials(self, d: Draw) -> Tensor:
        """What each of `d.steps` trials shows, `(count, *e, b)` integers."""

    def classes_of(self, shown: Tensor) -> Tensor:
        """The class of each trial; what it shows, unless a subclass says otherwise."""
        return shown

    def spikes(self, d: Draw, shown: Tensor) -> Tensor:
        """Spikes of whole trials, bool `(period, count, *e, b, m)`."""

    def inputs(self, d: Draw) -> Inputs:
        """The spikes, 0 or 1, alone."""
        return self._show(d)[0]

    def draw(self, d: Draw) -> Batch:
        """Spikes, and the class of a trial, one-hot, in its last `answer` steps."""
        if d.steps < self.period:
            raise ValueError(f"length must hold one trial of {self.period} steps, got {d.steps}; pass more")
        x, shown = self._show(d)
        named = self.classes_of(shown)[d.now.flatten() // self.period]
        targets = (named.unsqueeze(-1) == torch.arange(self.output_size, device=d.device)).to(x.dtype)
        asked = self.period - self.answer
        return Batch(x, targets, d.where(d.now % self.period >= asked), asked)

    def _show(self, d: Draw) -> tuple[Tensor, Tensor]:
        """Inputs, and what each trial shows."""
        # enough whole trials to cover the steps; the last one is cut off. Their own stream keeps the classes
        # the same whatever the number of channels
        shown = self.trials(replace(d, steps=-(-d.steps // self.period), stream=f"{d.stream}_trials"))
        x = self.spikes(d, shown).transpose(0, 1).flatten(0, 1)[: d.steps]
        return x.to(d.dtype or torch.get_default_dtype()), shown


@dataclass(frozen=True)
class SpikingXOR(SpikeTask):
    """Two cues, a delay apart, and the XOR of them to be named in the end.

    In a cue one half of the channels spikes for a 1, the other half for a 0, each with `probability` in
    every step. A trial has `cue + delay + cue + answer` steps; then comes the next.
    A draw costs O(t b m) per member.

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
        >>> batch = task.draw(Draw(0, task.period, 4, member_ids=torch.arange(2)))
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

    def trials(self, d: Draw) -> Tensor:
        """Two bits, as a number in 0..3."""
        # both bits of all trials in one draw: the first half are first bits, the second half second bits
        bits = replace(d, steps=2 * d.steps, dtype=torch.int64).bernoulli().squeeze(-1)
        return bits[: d.steps] + 2 * bits[d.steps :]

    def classes_of(self, shown: Tensor) -> Tensor:
        """Their XOR."""
        return (shown % 2) ^ (shown // 2)

    def spikes(self, d: Draw, shown: Tensor) -> Tensor:
        """Spikes of the half that the bit of a cue calls."""
        steps = torch.arange(self.period, device=shown.device)
        second = self.cue + self.delay
        first_cue, second_cue = steps < self.cue, (steps >= second) & (steps < second + self.cue)
        half = torch.arange(self.channels, device=shown.device) < self.channels // 2
        bits = torch.stack([shown % 2, shown // 2]).bool().unsqueeze(-1) == half
        across = [1] * shown.dim() + [1]
        called = first_cue.reshape(-1, *across) & bits[0] | second_cue.reshape(-1, *across) & bits[1]
        return called & (_noise(d, self.period, shown, self.channels) < self.probability)


@dataclass(frozen=True)
class SpikePatterns(SpikeTask):
    """Fixed random spike patterns, to be classified.

    With code="poisson" each class has a rate for each channel, uniform from 0 to twice `probability` spikes a
    step. With code="latency" each class has a time for each channel, which spikes once, `jitter` steps
    (a standard deviation) around it. A trial has `steps + delay + answer` steps; then comes the next.
    A draw costs O(t b m) per member.

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
        >>> batch = task.draw(Draw(0, task.period, 4, member_ids=torch.arange(1)))
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

    def trials(self, d: Draw) -> Tensor:
        """Classes, each as likely."""
        return (replace(d, dtype=torch.float64).uniform().squeeze(-1) * self.classes).long()

    def spikes(self, d: Draw, shown: Tensor) -> Tensor:
        """Spikes of the pattern of each trial."""
        # not of the run's seed: training and tests, and all members, see the same classes
        patterns = Stream(self.seed, "spike_patterns").uniform(
            (self.classes, self.channels), member_ids=0, dtype=torch.float64, device=shown.device
        )[shown]
        steps = torch.arange(self.period, device=shown.device).reshape(-1, *[1] * patterns.dim())
        noise = _noise(d, self.period if self.code == "poisson" else 1, shown, self.channels)
        if self.code == "poisson":
            # rate 2 p u with u ~ U(0, 1) has the mean p, the probability that is asked for
            return (steps < self.steps) & (noise < 2 * self.probability * patterns)
        # u = 0 is as improbable as the rest of the tail that the bound cuts off
        # a spike time is the class's plus N(0, jitter^2), through the inverse of the normal distribution
        shift = self.jitter * torch.special.ndtri(noise.clamp_min(1e-12))
        return torch.eq(steps, (patterns * self.steps + shift).floor().clamp(0, self.steps - 1))


def _noise(d: Draw, steps: int, shown: Tensor, channels: int) -> Tensor:
    """Uniform numbers `(steps, count, *e, b, m)`."""
    # float64 at any dtype, so that no spike depends on it; steps and trials count as one index of the stream
    whole = replace(d, steps=steps * len(shown), dtype=torch.float64)
    return torch.unflatten(whole.uniform(channels), 0, (steps, len(shown)))
