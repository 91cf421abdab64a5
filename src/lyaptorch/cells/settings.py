"""Settings with which cells were made, for the Records of what was done with them."""

from __future__ import annotations

import inspect
import math
from typing import Any

from torch import nn

from lyaptorch.cells.cell import Cell


def settings_of(cell: nn.Module) -> list[dict[str, Any]]:
    """Numbers and words that constructors took, of each cell within a cell that has some, as JSON."""
    found = (_own(module) for module in cell.modules() if isinstance(module, Cell))
    return [own for own in found if own]


def _own(cell: Cell) -> dict[str, Any]:
    # what is no plain attribute, such as a gain, has become weights
    named = {name: vars(cell).get(name) for name in inspect.signature(type(cell).__init__).parameters}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }
