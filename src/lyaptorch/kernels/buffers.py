"""Memory that is used again: fresh pages come so slowly that touching them would take half of the time."""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor

from lyaptorch.kernels.library import large_pages

SMALL, LARGEST, BLOCKS = 1 << 16, 1 << 28, 4
"""Bytes of tensors that are not worth the trouble, bytes of the largest block that is kept, how many are."""

_spare: dict[int, Tensor] = {}
"""By address; each change is one operation, because threads and the garbage collector meet here."""


def reuse_buffer(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of any numbers, whose memory is lent again when the tensor and all its views are gone."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return torch.empty(shape, dtype=dtype, device="cpu")
    block = _block(size)
    lent = memoryview(block.numpy())  # type: ignore[arg-type]
    weakref.finalize(lent, _give_back, block).atexit = False
    return torch.frombuffer(lent, dtype=dtype, count=math.prod(shape)).view(shape)


def _block(size: int) -> Tensor:
    """A spare block, neither too small nor much too large, or a fresh one."""
    for address in reversed(list(_spare)):
        block = _spare.pop(address, None)
        if block is not None and size <= block.nbytes <= 2 * size + SMALL:
            return block
        if block is not None:
            _give_back(block)
    return large_pages(torch.empty(size, dtype=torch.uint8, device="cpu"))


def _give_back(block: Tensor) -> None:
    if block.nbytes <= LARGEST:
        _spare[block.data_ptr()] = block
        for address in list(_spare)[:-BLOCKS]:
            _spare.pop(address, None)
