"""Any function or module `step(x, h)` as a cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lyaptorch.cells.protocol import Cell


class FunctionCell(Cell):
    """A step written elsewhere; sizes are taken from the first state it meets.

    Its parameters, and tensors that the function closes over, are found by walking the autograd graph.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(0, 0)
        self.function = function

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """The function's answer."""
        return self.function(x, h)

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """Every leaf with `requires_grad` in the graph of one step."""
        with torch.enable_grad():
            after = self.step(x.detach(), h.detach())
        found: dict[int, Tensor] = {}
        seen, stack = set(), [after.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                found[id(leaf)] = leaf
            stack += [parent for parent, _ in node.next_functions]
        return list(found.values())
