"""The tape: what a fused scan leaves for its adjoint, in memory that is used again by the next scan."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 1 << 28
"""Bytes of the largest block that is kept when its tape is dropped."""

_spare: list[Tensor] = []
"""At most one block: the system hands out fresh pages so slowly that they would take half of the time."""


@dataclass
class Tape:
    """What the adjoint needs beside the arguments: per unit, per frame and per triangle."""

    units: Tensor
    frames: Tensor
    factors: Tensor
    inverses: Tensor
    block: Tensor

    def fields(self) -> dict[str, Tensor]:
        """The tensors by the names that the kernels use."""
        return {name: getattr(self, name) for name in ("units", "frames", "factors", "inverses")}

    def __del__(self) -> None:
        if self.block.nbytes <= LARGEST:
            _spare[:] = [self.block]


def blank_tape(dtype: torch.dtype, *shapes: tuple[int, ...]) -> Tape:
    """An unwritten tape of these four shapes."""
    sizes = [math.prod(shape) for shape in shapes]
    bytes_ = sum(sizes) * dtype.itemsize
    try:
        block = _spare.pop()
    except IndexError:
        block = torch.empty(0, dtype=torch.uint8)
    # neither too small nor much too large
    if not bytes_ <= block.nbytes <= 4 * bytes_ + (1 << 20):
        block = torch.empty(bytes_, dtype=torch.uint8)
    pieces = torch.split(block[:bytes_].view(dtype), sizes)
    units, frames, factors, inverses = (
        piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)
    )
    return Tape(units, frames, factors, inverses, block)
