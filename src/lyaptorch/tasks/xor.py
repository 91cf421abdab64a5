"""Temporal XOR: a nonlinear function of two past inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Batch


@dataclass(frozen=True)
class TemporalXOR:
    """y_t = |x_{t-d/2} - x_{t-d}| of a stream of random bits: their XOR.

    Attributes:
        delay: d, the LONGEST lag, even; a number or a tensor of shape `*e`.

    Raises:
        ValueError: for an odd delay or one below 2; on drawing, for a delay that the length does not hold.

    Example:
        >>> batch = TemporalXOR(4).draw(0, members=torch.arange(3), epoch=0, batch=2, length=10)
        >>> batch.inputs.shape, batch.mask.sum(0)
        (torch.Size([10, 3, 2, 1]), tensor([6, 6, 6]))

    Source: Gradient Flossing, section 6 and appendix H.2 (its `delay` argument is our d / 2).
    """

    delay: int | Tensor
    input_size: int = 1
    output_size: int = 1
    loss: str = "binary_cross_entropy"

    def __post_init__(self) -> None:
        for d in torch.as_tensor(self.delay).reshape(-1).tolist():
            _checks.integer("delay", d, 2, do="it is the longest lag, twice the shorter one")
            if d % 2:
                raise ValueError(f"delay must be even, got {d}; the shorter lag is half of it: try {d + 1}")

    def inputs(
        self,
        seed: int,
        *,
        members: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Inputs:
        """Random bits; see `Task.inputs`."""
        source = Stream(seed, stream)
        bits = source.bernoulli(
            (length, batch, 1), members=members, epoch=epoch, dtype=dtype, device=members.device
        )
        return bits.movedim(-3, 0)

    def draw(
        self,
        seed: int,
        *,
        members: Tensor,
        epoch: int | Tensor,
        batch: int,
        length: int,
        stream: str = "task",
        dtype: torch.dtype | None = None,
    ) -> Batch:
        """Random bits and their XOR; see `Task.draw`."""
        delay = torch.as_tensor(self.delay, device=members.device)
        _checks.per_member("delay", delay, tuple(members.shape))
        if int(delay.max()) >= length:
            raise ValueError(
                f"delay must be below the length of a trial, got delay={int(delay.max())} and "
                f"length={length}; pass a longer length"
            )
        x = self.inputs(
            seed, members=members, epoch=epoch, batch=batch, length=length, stream=stream, dtype=dtype
        )
        now = torch.arange(length, device=members.device).reshape(-1, *[1] * members.dim())
        near, far = (_earlier(x, now - lag) for lag in (delay // 2, delay))
        return Batch(x, (near - far).abs(), (now >= delay).expand(length, *members.shape))


def _earlier(x: Tensor, when: Tensor) -> Tensor:
    """X `(t, *e, b, 1)` at the steps `when` `(t, *e)`; step 0 stands in for steps before the start."""
    return torch.gather(x, 0, when.clamp_min(0)[..., None, None].expand_as(x))
