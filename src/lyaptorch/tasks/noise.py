"""Noise: inputs without a target, for flossing and for measuring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs


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
