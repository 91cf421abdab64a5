"""A cell that computes on other weights than its own, for one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch.cells.cell import Cell


class Substituted(nn.Module):
    """A method of a cell, as a module that `functional_call` can call."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, name: str, *arguments: Tensor) -> Any:
        """The method."""
        return getattr(self.cell, name)(*arguments)

    def on(self, weights: dict[str, Tensor], name: str, *arguments: Tensor) -> Any:
        """The method on these weights, by their names with "cell." in front, also where they are tied.

        What is not among them stays. torch ties by names, and of a submodule that has two names it would not
        put the old weights back.
        """
        first: dict[int, str] = {}
        places: set[tuple[int, str]] = set()
        every = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for leaf, tensor in [*module._parameters.items(), *module._buffers.items()]:
                place = id(module), leaf
                if tensor is None or place in places:
                    continue
                places.add(place)
                own = f"{path}.{leaf}"
                known = first.setdefault(id(tensor), own)
                if known in weights:
                    every[own] = weights[known]
        return torch.func.functional_call(self, every, (name, *arguments), tie_weights=False)
