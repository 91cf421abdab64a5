"""Tasks of memory without a stream to copy: recall of items, and the adding problem."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, last_step


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
        >>> Recall(2, 4).draw(0, member_ids=torch.arange(1), epoch=0, batch=1, length=6).mask[:, 0]
        tensor([False, False, False, False,  True,  True])

    Source: Gradient Flossing, section 7.1 (its open question).
    """

    items: int
    delay: int

    def __post_init__(self) -> None:
        _checks.integer("delay", self.delay, 1)
        _checks.integer(
            "items", self.items, 1, self.delay, do="repetition may not overlap with what is shown"
        )

    @property
    def input_size(self) -> int:
        """Two: bits and cue."""
        return 2

    @property
    def output_size(self) -> int:
        """One."""
        return 1

    @property
    def loss(self) -> str:
        """Cross-entropy."""
        return "binary_cross_entropy"

    def inputs(
        self,
        seed: int,
        *,
        member_ids: torch.Tensor,
        epoch: int | torch.Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Inputs:
        """Bits and cue; see `Task.inputs`."""
        bits = Stream(seed, stream).bernoulli(
            (length, batch), member_ids=member_ids, epoch=epoch, dtype=dtype, device=member_ids.device
        )
        phase = self._phase(length, member_ids)
        shown, cued = phase < self.items, phase >= self.delay
        x = torch.stack([bits.movedim(-2, 0) * shown, cued.to(bits.dtype).expand_as(bits.movedim(-2, 0))], -1)
        return x / self.input_size

    def draw(
        self,
        seed: int,
        *,
        member_ids: torch.Tensor,
        epoch: int | torch.Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Batch:
        """Inputs, and targets where the cue is on; see `Task.draw`."""
        if length < self.delay + self.items:
            raise ValueError(
                f"length must hold delay + items = {self.delay + self.items} steps, got {length}; pass more"
            )
        x = self.inputs(
            seed, member_ids=member_ids, epoch=epoch, batch=batch, length=length, stream=stream, dtype=dtype
        )
        targets = torch.roll(x[..., :1] * self.input_size, self.delay, 0)
        mask = (self._phase(length, member_ids) >= self.delay)[..., 0].expand(length, *member_ids.shape)
        return Batch(x, targets, mask, self.delay)

    def _phase(self, length: int, member_ids: torch.Tensor) -> torch.Tensor:
        """Where in its period each step is, `(t, *1, 1)`."""
        steps = torch.arange(length, device=member_ids.device)
        return (steps % (self.delay + self.items)).reshape(-1, *[1] * (member_ids.dim() + 1))


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
        >>> batch = Adding(100).draw(0, member_ids=torch.arange(2), epoch=0, batch=4, length=100)
        >>> batch.inputs.shape, batch.targets[-1].shape
        (torch.Size([100, 2, 4, 2]), torch.Size([2, 4, 1]))

    Source: Hochreiter & Schmidhuber (1997), experiment 4, as in Fading memory as inductive bias in
    residual recurrent networks, section 4.
    """

    length: int
    input_size: int = field(default=2, init=False)
    output_size: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        _checks.integer("length", self.length, 2)

    @property
    def loss(self) -> str:
        """The root of the mean squared error."""
        return "root_mean_square"

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
        """Numbers and cues, one in each half of whatever length; see `Task.inputs`."""
        device, half = member_ids.device, length // 2
        numbers = Stream(seed, stream).uniform(
            (length, batch), member_ids=member_ids, epoch=epoch, dtype=dtype, device=device
        )
        # float64, so that the place does not depend on the dtype
        where = Stream(seed, f"{stream} cues").uniform(
            (2, batch), member_ids=member_ids, epoch=epoch, dtype=torch.float64, device=device
        )
        first, second = where.unbind(-2)
        places = torch.stack([(first * half).long(), (second * (length - half)).long() + half], -2)
        cues = torch.zeros_like(numbers).scatter_(-2, places, 1.0)
        return torch.stack([numbers, cues], -1).movedim(-3, 0)

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
        """Numbers and cues, and the sum at the last step; see `Task.draw`."""
        if length != self.length:
            raise ValueError(f"length must be {self.length}, that of the task, got {length}")
        x = self.inputs(
            seed, member_ids=member_ids, epoch=epoch, batch=batch, length=length, stream=stream, dtype=dtype
        )
        return last_step(x, x.prod(-1).sum(0).unsqueeze(-1))
