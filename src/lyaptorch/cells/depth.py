"""A stack of layers as a cell: depth is time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._types import Input, State
from lyaptorch.cells.cell import Cell

Block = Callable[[Tensor], Tensor]
"""A layer: what it returns has the shape of what it gets."""


class Depth(Cell):
    """h' = block_i(h), where the input i is the number of the block.

    Its trajectories are examples, its steps the blocks, and its state all that passes from one block to the
    next, as one row. So whatever works on cells works on deep networks: a spectrum (`depth_spectrum` is the
    short way), covariant vectors, flossing.

    Args:
        blocks: modules or functions, `(b, *shape) -> (b, *shape)`, such as the blocks of a residual network
            or the layers of a transformer.
        shape: of one example between two blocks.

    Raises:
        ValueError: if there is no block, or one is not callable.

    Example:
        >>> import lyaptorch as lt
        >>> x = torch.randn(4, 16)
        >>> blocks = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh()) for _ in range(6)]
        >>> cell = Depth(blocks, (16,))
        >>> record = lt.floss(cell, cell.numbers(x), h0=x, k=4, steps=6, tangent_transient=0, epochs=2)
        >>> record["exponents"].shape
        (1, 2, 4)
    """

    def __init__(self, blocks: Sequence[Block] | nn.Module, shape: Sequence[int]) -> None:
        listed: list[Any] = (
            list(blocks) if isinstance(blocks, Sequence | nn.ModuleList | nn.Sequential) else []
        )
        if not listed or not all(callable(block) for block in listed):
            raise ValueError(
                f"blocks must be a list of at least one module or function, got {blocks!r:.80}; pass "
                "model.layers, or whatever holds the blocks of equal width"
            )
        super().__init__(1, math.prod(shape))
        self.shape = tuple(shape)
        # functions beside modules; the modules are registered
        self._blocks: tuple[Block, ...] = tuple(listed)
        self.registered: Any = nn.ModuleList(block for block in listed if isinstance(block, nn.Module))

    def __len__(self) -> int:
        return len(self._blocks)

    def numbers(self, x: Tensor) -> Tensor:
        """The numbers of all blocks `(t, b, 1)`, to be the inputs, for examples x `(b, ...)`."""
        numbers = torch.arange(len(self), dtype=x.dtype, device=x.device)
        return numbers[:, None, None].expand(-1, len(x), 1)

    def step(self, x: Input, h: State) -> State:
        """Through the block whose number is x."""
        after: Tensor = self._blocks[int(x.reshape(-1)[0])](self.unpack(h))
        return after.flatten(1)

    def pack(self, state: Any) -> Tensor:
        """Examples `(b, *shape)` as rows."""
        if isinstance(state, Tensor) and tuple(state.shape[1:]) == self.shape:
            return state.flatten(1)
        return super().pack(state)

    def unpack(self, h: Tensor) -> Tensor:
        """Rows as examples."""
        return h.reshape(-1, *self.shape)

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """The tensors with `requires_grad` that any block depends on."""
        found = {id(leaf): leaf for number in self._each(x) for leaf in super(Depth, self).leaves(number, h)}
        return list(found.values())

    def _each(self, x: Tensor) -> Iterator[Tensor]:
        return (torch.full_like(x, i) for i in range(len(self)))
