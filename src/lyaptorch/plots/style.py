"""Style: palette and panels; Drawing: a figure for a page, with alternative text, caption and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.record import Record

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
"""Okabe and Ito's palette: plain, flossed, flossed during training, context."""
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
"""For groups in any order."""

_SETTINGS: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.dpi": 160,
    "figure.dpi": 110,
}


@contextmanager
def style() -> Iterator[None]:
    """The settings, for the figures made inside."""
    with mpl.rc_context(_SETTINGS):
        yield


def panels(
    count: int, *, rows: int = 1, width: float = 3.4, height: float = 2.9
) -> tuple[Figure, list[Axes]]:
    """Rows of so many axes; a plain `Figure`, so that no window or global state is involved."""
    figure = Figure(figsize=(width * count, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, count, i + 1) for i in range(rows * count)]
    return figure, axes


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
