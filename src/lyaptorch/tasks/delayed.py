"""Tasks of memory: answers that depend on inputs some steps ago. Copies, XORs, recall and adding."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, Draw, last_step
from lyaptorch.tasks.lags import earlier, since


@dataclass(frozen=True)
class LaggedTask:
    """y_t is a function of x at t minus some lags, the longest of them `delay`.

    Inputs are independent bits if `binary`, else U(0, 1); as published, divided by their number of channels.
    """

    delay: int | Tensor
    binary: bool = True
    input_size: int = field(default=1, init=False)
    output_size: int = field(default=1, init=False)

    bits_only = False

    def __post_init__(self) -> None:
        if self.bits_only and not self.binary:
            name = type(self).__name__
            raise ValueError(f"{name} has binary inputs only, got binary=False; drop the argument")
        parts = len(self.fractions())
        for d in _checks.numbers(self.delay).reshape(-1).tolist():
            _checks.integer("delay", d, parts, do=f"it is the longest lag, cut into {parts}")
            if d % parts:
                what, share = ("even", "half") if parts == 2 else (f"a multiple of {parts}", f"1/{parts}")
                raise ValueError(
                    f"delay must be {what}, got {d}; the shorter lag is {share} of it: try {d + -d % parts}"
                )

    @property
    def loss(self) -> str:
        """Cross-entropy of bits, squared error of numbers."""
        return "binary_cross_entropy" if self.binary else "mean_squared_error"

    def fractions(self) -> list[float]:
        """The lags, as fractions of the delay."""
        return [1.0]

    def combine(self, taps: list[Tensor]) -> Tensor:
        """The targets `(t, *e, b, 1)` from the inputs at the lags, each `(t, *e, b, m)`."""
        raise NotImplementedError

    def inputs(self, d: Draw) -> Inputs:
        """The random stream alone."""
        x = (d.bernoulli if self.binary else d.uniform)(self.input_size)
        return x if self.input_size == 1 else x.div_(self.input_size)

    def draw(self, d: Draw) -> Batch:
        """Inputs, and targets from step `delay` on: of the bits, which are divided for the network alone."""
        _checks.per_member("delay", self.delay, tuple(d.member_ids.shape))
        each = self.delay
        delays = (each,) if isinstance(each, int) else tuple(_checks.numbers(each).reshape(-1).tolist())
        if (longest := max(delays)) >= d.steps:
            what = f"got delay={longest} and length={d.steps}; pass a longer length, in Python more steps="
            raise ValueError(f"delay must be below the length of a trial, {what}")
        x = self.inputs(d)
        bits = x if self.input_size == 1 else x * self.input_size
        # exact in float: `__post_init__` made sure that every fraction of a delay is a whole number
        lags = [tuple(round(delay * fraction) for delay in delays) for fraction in self.fractions()]
        targets = self.combine([earlier(bits, lag) for lag in lags])
        counts = since(d.steps, delays, tuple(d.member_ids.shape), d.device)
        # a copy, because what is drawn is the caller's
        return Batch(x, targets, d.where(counts.clone()), min(delays))


@dataclass(frozen=True)
class DelayedCopy(LaggedTask):
    """y_t = x_{t-d}; even a linear network can, with a delay line.

    A draw costs O(t b) per member.

    Args:
        delay: d >= 1; a number or a tensor of shape `*e`.
        binary: bits instead of numbers in [0, 1).

    Raises:
        ValueError: for a delay below 1; on drawing, for one that the length does not hold.

    Example:
        >>> DelayedCopy(3).draw(Draw(0, 9, 4, member_ids=torch.arange(2))).mask.sum().item()
        12

    Source: Gradient Flossing, appendix H.1.
    """

    binary: bool = False

    def combine(self, taps: list[Tensor]) -> Tensor:
        """The input itself."""
        return taps[0]


@dataclass(frozen=True)
class TemporalXOR(LaggedTask):
    """y_t = |x_{t-d/2} - x_{t-d}|: of bits, their XOR.

    At depth h there are 2^h inputs, at d/2^h, 2d/2^h, ..., d, and absolute differences of neighbours,
    then of those, and so on. A draw costs O(t b) per member.

    Args:
        delay: d, the LONGEST lag, a multiple of 2^depth; a number or a tensor of shape `*e`.
        binary: bits, the default, or numbers in [0, 1).
        depth: h.

    Raises:
        ValueError: for a delay that cannot be cut so; on drawing, for one that the length does not hold.

    Example:
        >>> batch = TemporalXOR(4).draw(Draw(0, 10, 2, member_ids=torch.arange(3)))
        >>> batch.inputs.shape, batch.mask.sum(0)
        (torch.Size([10, 3, 2, 1]), tensor([6, 6, 6]))

    Source: Gradient Flossing, section 6 and appendix H.2 (the script's `delay` argument is our d / 2).
    """

    depth: int = 1

    def __post_init__(self) -> None:
        _checks.integer("depth", self.depth, 1, 10)
        super().__post_init__()

    def fractions(self) -> list[float]:
        """1/2^h, 2/2^h, ..., 1."""
        return [(i + 1) / 2**self.depth for i in range(2**self.depth)]

    def combine(self, taps: list[Tensor]) -> Tensor:
        """Differences of differences."""
        # |a - b| of two bits is their XOR; of numbers it keeps targets in [0, 1), so one loss does for all
        while len(taps) > 1:
            taps = [(a - b).abs_() for a, b in zip(taps[::2], taps[1::2], strict=True)]
        return taps[0]


@dataclass(frozen=True)
class OneHotXOR(TemporalXOR):
    """`TemporalXOR` of bits with two outputs, one for each answer, and cross-entropy between them.

    A draw costs O(t b) per member.

    Raises:
        ValueError: as `TemporalXOR`, and for analogue inputs, which have no classes.

    Example:
        >>> OneHotXOR(2).draw(Draw(0, 5, 1, member_ids=torch.arange(1))).targets.shape
        torch.Size([5, 1, 1, 2])

    Source: Surrogate Gradient Flossing, section 5.
    """

    output_size: int = field(default=2, init=False)

    loss, bits_only = "cross_entropy", True

    def combine(self, taps: list[Tensor]) -> Tensor:
        """(1 - y, y)."""
        y = super().combine(taps)
        return torch.cat([1 - y, y], -1)


@dataclass(frozen=True)
class SpatialXOR(LaggedTask):
    """y_t = x1_{t-d} xor x2_{t-d} xor x3_{t-d}, of three channels of bits; d as of `DelayedCopy`.

    A draw costs O(t b) per member.

    Raises:
        ValueError: for a delay below 1, or for analogue inputs, which have no XOR of three.

    Example:
        >>> SpatialXOR(2).draw(Draw(0, 5, 1, member_ids=torch.arange(1))).inputs.shape
        torch.Size([5, 1, 1, 3])

    Source: Gradient Flossing, section 7.
    """

    input_size: int = field(default=3, init=False)
    bits_only = True

    def combine(self, taps: list[Tensor]) -> Tensor:
        """The parity of the channels."""
        # XOR is associative: |.| of differences, one channel after the other, ends with 1 for an odd number
        return functools.reduce(lambda a, b: (a - b).abs(), torch.split(taps[0], 1, -1))


@dataclass(frozen=True)
class Recall:
    """Remember `items` bits and repeat them `delay` steps later; a longer delay is not more to remember.

    In a period of `delay + items` steps, the first `items` show bits on channel 0, then comes silence, and
    in the last `items` steps, cued by channel 1, the bits are to be repeated in order.
    A draw costs O(t b) per member.

    Attributes:
        items: bits to remember, at most `delay`.
        delay: steps from a bit to its repetition.

    Raises:
        ValueError: for items outside 1..delay; on drawing, if the length does not hold one period.

    Example:
        >>> Recall(2, 4).draw(Draw(0, 6, 1, member_ids=torch.arange(1))).mask[:, 0]
        tensor([False, False, False, False,  True,  True])

    Source: Gradient Flossing, section 7.1 (its open question).
    """

    items: int
    delay: int
    input_size, output_size, loss = 2, 1, "binary_cross_entropy"

    def __post_init__(self) -> None:
        _checks.integer("delay", self.delay, 1)
        _checks.integer("items", self.items, 1, self.delay, do="repetition may not overlap what is shown")

    def inputs(self, d: Draw) -> Inputs:
        """Bits and cues, over and over."""
        bits, phase = d.bernoulli(), self._phase(d)[..., None, None]
        x = torch.cat([bits * (phase < self.items), (phase >= self.delay).to(bits.dtype).expand_as(bits)], -1)
        return x / self.input_size

    def draw(self, d: Draw) -> Batch:
        """Inputs, and targets where the cue is on."""
        if d.steps < self.delay + self.items:
            raise ValueError(
                f"length must hold delay + items = {self.delay + self.items} steps, got {d.steps}; pass more"
            )
        # rolled by the delay, the bit of step i stands at its cue; what comes round to the front is not cued
        x, cued = self.inputs(d), self._phase(d) >= self.delay
        return Batch(x, torch.roll(x[..., :1] * self.input_size, self.delay, 0), d.where(cued), self.delay)

    def _phase(self, d: Draw) -> Tensor:
        """Where in its period each step is, `(t, *1)`."""
        return d.now % (self.delay + self.items)


@dataclass(frozen=True)
class Adding:
    """Add the two numbers that were cued, one in each half of the sequence; answer at the last step.

    Channel 0 has numbers from U(0, 1), channel 1 is 1 at the two cues and 0 elsewhere. To always answer 1,
    the mean, is wrong by a root mean square of sqrt(1/6) = 0.408. A draw costs O(t b) per member.

    Attributes:
        length: steps t of a sequence, at least 2.

    Raises:
        ValueError: for a length below 2; on drawing, for another one.

    Example:
        >>> batch = Adding(100).draw(Draw(0, 100, 4, member_ids=torch.arange(2)))
        >>> batch.inputs.shape, batch.targets[-1].shape
        (torch.Size([100, 2, 4, 2]), torch.Size([2, 4, 1]))

    Source: Hochreiter & Schmidhuber (1997), experiment 4, as in Fading memory as inductive bias in
    residual recurrent networks, section 4.
    """

    length: int
    input_size: int = field(default=2, init=False)
    output_size: int = field(default=1, init=False)

    loss = "root_mean_square"

    def __post_init__(self) -> None:
        _checks.integer("length", self.length, 2)

    def inputs(self, d: Draw) -> Inputs:
        """Numbers and cues, one in each half of whatever length."""
        numbers, half = d.uniform(), d.steps // 2
        # float64, so that the place does not depend on the dtype
        first, second = replace(d, steps=2, stream=f"{d.stream} cues", dtype=torch.float64).uniform()
        # floor(u * size) is uniform over 0..size-1, because u < 1; the halves differ by a step where t is odd
        places = torch.stack([(first * half).long(), (second * (d.steps - half)).long() + half])
        return torch.cat([numbers, torch.zeros_like(numbers).scatter_(0, places, 1.0)], -1)

    def draw(self, d: Draw) -> Batch:
        """Numbers and cues, and the sum at the last step."""
        if d.steps != self.length:
            raise ValueError(f"length must be {self.length}, that of the task, got {d.steps}")
        x = self.inputs(d)
        # number times cue is the number at the two cues and 0 elsewhere: its sum is the answer
        return last_step(x, x.prod(-1).sum(0).unsqueeze(-1))
