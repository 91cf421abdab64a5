"""Sequences of the user's, as a source of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Inputs
from lyaptorch.tasks.batch import Source


class Sequences:
    """Recorded inputs, from which each draw takes other trajectories and another beginning.

    Args:
        inputs: `(t, b, m)`, time first.

    Raises:
        ValueError: if it is no floating tensor of that shape, or not finite.

    Example:
        >>> from lyaptorch._random import member_ids
        >>> drawn = Sequences(torch.randn(100, 8, 3)).inputs(
        ...     0, members=member_ids((), None), epoch=0, batch=2, length=55)
        >>> drawn.shape
        torch.Size([55, 2, 3])
    """

    def __init__(self, inputs: Tensor) -> None:
        if _checks.tensor("inputs", inputs).dim() != 3 or 0 in inputs.shape[:2]:
            raise ValueError(
                f"inputs must have shape (t, b, m), time first, got {tuple(inputs.shape)}; of a batch-first "
                "batch pass x.transpose(0, 1)"
            )
        self._inputs = _checks.finite("inputs", inputs.detach())

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
        """The inputs of one epoch `(length, batch, m)`, the same for all members; arguments as of a `Task`.

        Raises:
            ValueError: if the sequences are shorter than `length`.
        """
        t, b, _ = self._inputs.shape
        if t < length:
            raise ValueError(f"inputs must hold steps={length} steps, got {t}; pass fewer steps")
        at = int(_checks.numbers(epoch).reshape(-1)[0])
        drawn = Stream(seed, f"{stream}_sequences")
        rows = drawn.permutation(b, members=0, epoch=at)[torch.arange(batch, device="cpu") % b]
        start = int(drawn.permutation(t - length + 1, members=1, epoch=at)[0])
        taken = self._inputs[start : start + length, rows.to(self._inputs.device)]
        return taken.to(dtype or taken.dtype)


class Placed:
    """A source whose inputs come in the dtype and on the device of a network."""

    def __init__(self, source: Source, like: Tensor) -> None:
        self._source, self._like = source, like

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
        """Those of the source."""
        drawn = self._source.inputs(
            seed,
            members=members,
            epoch=epoch,
            batch=batch,
            length=length,
            stream=stream,
            dtype=self._like.dtype,
        )
        return drawn.to(self._like)
