"""The tape: what a fused forward pass leaves for its adjoint, in memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 1 << 28
"""Bytes of the largest block that is kept when its tape is dropped."""

_spare: list[Tensor] = []
"""At most one block: the system hands out fresh pages so slowly that they would take half of the time."""


class Tape:
    """At least `size` bytes; what lies where is the kernels' business."""

    def __init__(self, size: int) -> None:
        try:
            block = _spare.pop()
        except IndexError:
            block = torch.empty(0, dtype=torch.uint8)
        # neither too small nor much too large
        if not size <= block.nbytes <= 4 * size + (1 << 20):
            block = torch.empty(size, dtype=torch.uint8)
        self.block = block

    def __del__(self) -> None:
        if self.block.nbytes <= LARGEST:
            _spare[:] = [self.block]
