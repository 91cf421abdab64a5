"""What most pictures are made of: rows of panels, bundles of curves, bands, scores against a setting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lyaptorch.plots.curves import smooth
from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import DASHES, GREY, PALETTE, panels, style
from lyaptorch.record import Record

TINY = 1e-30
"""What a curve on a logarithmic axis shows of zero."""
Draw = Callable[[Record, list[Axes]], None]
Picture = Callable[[Record], Figure]
Count = int | Callable[[Record], int]
Rows = NDArray[Any]


def picture(
    count: Count = 1, *, rows: Count = 1, width: float = 3.4, height: float = 2.9
) -> Callable[[Draw], Picture]:
    """Turn a function that draws into a list of axes into one that makes the whole picture.

    Args:
        count: panels in a row, or how many a Record needs.
        rows: of panels, likewise; the axes come row by row.
        width: of a panel, inches.
        height: likewise.
    """

    def decorate(draw: Draw) -> Picture:
        @functools.wraps(draw)
        def drawn(record: Record) -> Figure:
            with style():
                across, down = (n if isinstance(n, int) else n(record) for n in (count, rows))
                figure, axes = panels(across, rows=down, width=width, height=height)
                draw(record, axes)
            return figure

        return drawn

    return decorate


single = picture(1, width=4.4, height=3.2)
"""A picture of one large panel."""


def level(axes: Axes, value: float = 0.0) -> None:
    """A dotted line at what all is compared with: an exponent of 0, or chance."""
    axes.axhline(value, color=GREY, linestyle=":", linewidth=0.8)


def look(group: int) -> tuple[str, str]:
    """Colour and dash of a group: all colours solid, then all dashed, and so on."""
    return PALETTE[group % len(PALETTE)], DASHES[group // len(PALETTE)]


def bundle(
    axes: Axes,
    rows: Rows,
    color: str,
    label: str | None = None,
    *,
    x: ArrayLike | None = None,
    thick: Callable[..., Any] = np.mean,
    alpha: float = 0.3,
    thin: float = 0.7,
    linewidth: float = 1.6,
    dash: str = "-",
    marker: str = "",
) -> None:
    """Thin curves for `rows (members, points)`, and a thick one for their mean or what else `thick` is."""
    at = np.arange(rows.shape[-1]) if x is None else np.asarray(x)
    axes.plot(at, rows.T, dash, color=color, alpha=alpha, linewidth=thin)
    (line,) = axes.plot(at, thick(rows, 0), dash, color=color, linewidth=linewidth, label=label)
    line.set(marker=marker, markersize=3)


def learning(axes: Axes, rows: Rows, color: str, label: str, title: str, *, lowest: float = 0.42) -> None:
    """Accuracy over epochs: running means of `rows (members, epochs)`, and their median."""
    bundle(axes, smooth(rows, 20), color, label, thick=np.median)
    axes.set(xlabel="epoch", ylabel="accuracy", title=title, ylim=(lowest, 1.03))


def band(
    axes: Axes,
    rows: Rows,
    color: str,
    label: str | None = None,
    *,
    x: ArrayLike | None = None,
    alpha: float = 0.2,
) -> None:
    """The median of `rows (members, points)` in a band from the 25th to the 75th percentile."""
    at = np.arange(rows.shape[-1]) if x is None else np.asarray(x)
    low, middle, high = np.percentile(rows, (25, 50, 75), axis=0)
    axes.fill_between(at, low, high, color=color, alpha=alpha, linewidth=0)
    axes.plot(at, middle, color=color, linewidth=1.6, label=label)


def scores(
    axes: Axes,
    x: ArrayLike,
    values: Rows,
    color: str,
    label: str | None = None,
    *,
    thick: Callable[..., Any] = np.mean,
    alpha: float = 0.3,
    size: float = 3.0,
    dash: str = "-",
    face: str | None = None,
) -> None:
    """Dots for `values (points, members)` over a setting x, joined at their mean; `face` fills the dots."""
    face = face or color
    axes.plot(x, values, "o", color=color, markerfacecolor=face, alpha=alpha, markersize=size)
    middle, line = thick(values, -1), f"o{dash}"
    axes.plot(x, middle, line, color=color, markerfacecolor=face, linewidth=1.6, label=label)


def spectrum(axes: Axes, exponents: Rows, color: str, label: str | None = None, **look: Any) -> None:
    """Exponents `(rank,)`, or one curve for each of `(members, rank)`, over their index."""
    axes.plot(np.arange(1, exponents.shape[-1] + 1), exponents.T, color=color, label=label, **look)


def label_spectra(axes: Axes, title: str, per: str = "step") -> None:
    """What the axes of spectra say, and where 0 is."""
    level(axes)
    axes.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ (nats per {per})", title=title)


def label_accuracy(axes: Axes, x: str, title: str = "", y: str = "accuracy") -> None:
    """What the axes of accuracies over x say; from a little below chance among two to a little above 1."""
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(0.42, 1.03))


def geometric_mean(values: Rows, axis: int = 0) -> Rows:
    """Of what is finite, with `TINY` in the place of zeros."""
    return np.asarray(np.exp(finite_mean(np.log(np.maximum(values, TINY)), axis)))
