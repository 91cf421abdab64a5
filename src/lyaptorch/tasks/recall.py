"""Tasks of memory without a stream to copy: recall of items, and the adding problem."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, Draw, last_step


@dataclass(frozen=True)
class Recall:
    """Remember `items` bits and repeat them `delay` steps later, again and again.

    In a period of `delay + items` steps, the first `items` show bits on channel 0, then comes silence, and
    in the last `items` steps, cued by channel 1, the bits are to be repeated in order. Unlike the streaming
    tasks, a longer delay does not mean more to remember.

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
        _checks.integer(
            "items", self.items, 1, self.delay, do="repetition may not overlap with what is shown"
        )

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
        x, cued = self.inputs(d), self._phase(d) >= self.delay
        return Batch(x, torch.roll(x[..., :1] * self.input_size, self.delay, 0), d.where(cued), self.delay)

    def _phase(self, d: Draw) -> Tensor:
        """Where in its period each step is, `(t, *1)`."""
        return d.now % (self.delay + self.items)


@dataclass(frozen=True)
class Adding:
    """Add the two numbers that were cued, one in each half of the sequence; answer at the last step.

    Channel 0 has numbers from U(0, 1), channel 1 is 1 at the two cues and 0 elsewhere. To always answer 1,
    the mean, is wrong by a root mean square of sqrt(1/6) = 0.408.

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
        where = replace(d, steps=2, stream=f"{d.stream} cues", dtype=torch.float64).uniform()
        first, second = where
        places = torch.stack([(first * half).long(), (second * (d.steps - half)).long() + half])
        return torch.cat([numbers, torch.zeros_like(numbers).scatter_(0, places, 1.0)], -1)

    def draw(self, d: Draw) -> Batch:
        """Numbers and cues, and the sum at the last step."""
        if d.steps != self.length:
            raise ValueError(f"length must be {self.length}, that of the task, got {d.steps}")
        x = self.inputs(d)
        return last_step(x, x.prod(-1).sum(0).unsqueeze(-1))
