"""Any function or module `step(x, h)` as a cell."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lyaptorch.cells.protocol import Cell, graph_leaves


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

    def initial_state(self, x: Tensor) -> Tensor:
        """Unknown."""
        raise ValueError(
            "h0 must be given for a function or module, whose state size comes from it, got None"
        )

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """Every leaf with `requires_grad` in the graph of one step."""
        return graph_leaves(self, x, h)
