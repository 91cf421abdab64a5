"""Drawing: a figure for a page, with its alternative text, its caption and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.style import panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]
DASHES = ("-", "--", ":", "-.")


class Drawing(NamedTuple):
    """A figure for a page."""

    name: str
    draw: Callable[[Record, Axes], None]
    alt: str
    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]

    def figure(self, record: Record) -> Figure:
        """It alone, in a size that is readable on a phone."""
        with style():
            drawn, (axes,) = panels(1, width=3.9, height=2.9)
            self.draw(record, axes)
        return drawn
