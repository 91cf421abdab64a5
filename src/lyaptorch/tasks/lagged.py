"""Tasks whose target is a function of past inputs: copies and XORs of a random stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, Draw


@dataclass(frozen=True)
class LaggedTask:
    """y_t is a function of x at t minus some lags, the longest of them `delay`.

    Inputs are independent: bits if `binary`, else uniform on [0, 1). What the network sees is divided by
    the number of channels, as in the published setting.
    """

    delay: int | Tensor
    binary: bool = True
    input_size: int = field(default=1, init=False)
    output_size: int = field(default=1, init=False)

    def __post_init__(self) -> None:
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
        return (d.bernoulli if self.binary else d.uniform)(self.input_size) / self.input_size

    def draw(self, d: Draw) -> Batch:
        """Inputs, and targets from step `delay` on."""
        _checks.per_member("delay", self.delay, tuple(d.member_ids.shape))
        given = _checks.numbers(self.delay)
        delays = tuple(given.reshape(-1).tolist())
        if max(delays) >= d.steps:
            raise ValueError(
                f"delay must be below the length of a trial, got delay={max(delays)} and "
                f"length={d.steps}; pass a longer length"
            )
        delay = _whole(delays, d.device).reshape(given.shape)
        x = self.inputs(d)
        lags = [(delay * fraction).round().long() for fraction in self.fractions()]
        targets = self.combine([_earlier(x * self.input_size, d.now - lag) for lag in lags])
        return Batch(x, targets, d.where(d.now >= delay), min(delays))


@dataclass(frozen=True)
class DelayedCopy(LaggedTask):
    """y_t = x_{t-d}; even a linear network can, with a delay line.

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
    then of those, and so on.

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
        while len(taps) > 1:
            taps = [(a - b).abs() for a, b in zip(taps[::2], taps[1::2], strict=True)]
        return taps[0]


@dataclass(frozen=True)
class OneHotXOR(TemporalXOR):
    """`TemporalXOR` of bits with two outputs, one for each answer, and cross-entropy between them.

    Raises:
        ValueError: as `TemporalXOR`, and for analogue inputs, which have no classes.

    Example:
        >>> OneHotXOR(2).draw(Draw(0, 5, 1, member_ids=torch.arange(1))).targets.shape
        torch.Size([5, 1, 1, 2])

    Source: Surrogate Gradient Flossing, section 5.
    """

    output_size: int = field(default=2, init=False)

    loss = "cross_entropy"

    def __post_init__(self) -> None:
        if not self.binary:
            raise ValueError("OneHotXOR has binary inputs only, got binary=False; drop the argument")
        super().__post_init__()

    def combine(self, taps: list[Tensor]) -> Tensor:
        """(1 - y, y)."""
        y = super().combine(taps)
        return torch.cat([1 - y, y], -1)


@dataclass(frozen=True)
class SpatialXOR(LaggedTask):
    """y_t = x1_{t-d} xor x2_{t-d} xor x3_{t-d}, of three channels of bits.

    Args:
        delay: d >= 1; a number or a tensor of shape `*e`.

    Raises:
        ValueError: for a delay below 1, or for analogue inputs, which have no XOR of three.

    Example:
        >>> SpatialXOR(2).draw(Draw(0, 5, 1, member_ids=torch.arange(1))).inputs.shape
        torch.Size([5, 1, 1, 3])

    Source: Gradient Flossing, section 7.
    """

    input_size: int = field(default=3, init=False)

    def __post_init__(self) -> None:
        if not self.binary:
            raise ValueError("SpatialXOR has binary inputs only, got binary=False; drop the argument")
        super().__post_init__()

    def combine(self, taps: list[Tensor]) -> Tensor:
        """The parity of the channels."""
        return functools.reduce(lambda a, b: (a - b).abs(), torch.split(taps[0], 1, -1))


@functools.lru_cache(maxsize=16)
def _whole(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """On the device once and for all: a captured graph can copy nothing from the host."""
    return torch.tensor(numbers, device=device)


def _earlier(x: Tensor, when: Tensor) -> Tensor:
    """x `(t, *e, b, m)` at the steps `when` `(t, *e)`; step 0 stands in for steps before the start."""
    return torch.gather(x, 0, when.clamp_min(0)[..., None, None].expand_as(x))
