"""The adding problem."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch, last_step


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
