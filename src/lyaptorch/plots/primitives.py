"""Primitives of pictures: style and panels, bundles of curves, bands, scores, spectra, running means."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from lyaptorch.record import Record

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
"""Okabe and Ito's palette: plain, flossed, flossed during training, context."""
PALETTE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
"""For groups in any order."""
DASHES = ("-", "--", ":", "-.")
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
"""Where a legend covers nothing: curves may run anywhere in a panel."""
NO_ERROR = "error not known"
"""Of what was measured too briefly to say how far it is off."""
TINY = 1e-30
"""What a curve on a logarithmic axis shows of zero."""

_SETTINGS: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 110,
}

Draw = Callable[[Record, list[Axes]], None]
Picture = Callable[[Record], Figure]
Rows = NDArray[Any]
Sized = int | float | Callable[[Record], float]
"""A size, or what it is for a Record."""


style = functools.partial(mpl.rc_context, _SETTINGS)
"""The settings, for the figures made inside."""


class Shown(Figure):
    """A figure that notebooks show: of pyplot's alone they know how."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def panels(
    count: int, *, rows: int = 1, width: float = 3.4, height: float = 2.9
) -> tuple[Figure, list[Axes]]:
    """Rows of so many axes, each of so many inches."""
    # `plt.subplots` would register the figure with a window system and keep it alive in global state
    figure = Shown(figsize=(width * count, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, count, i + 1) for i in range(rows * count)]


def picture(count: Sized = 1, **size: Sized) -> Callable[[Draw], Picture]:
    """Turn a function that draws into a list of axes into one that makes the whole picture.

    Args:
        count: panels in a row, or how many a Record needs.
        **size: `rows` of panels, likewise; the axes come row by row; `width` and `height` of one, inches.
    """

    def decorate(draw: Draw) -> Picture:
        @functools.wraps(draw)
        def drawn(record: Record) -> Figure:
            asked = {"count": count, **size}
            sizes: dict[str, Any] = {name: n(record) if callable(n) else n for name, n in asked.items()}
            with style():
                figure, axes = panels(**sizes)
                draw(record, axes)
            return figure

        return drawn

    return decorate


single = picture(1, width=4.4, height=3.2)
"""A picture of one large panel."""


class Drawing(NamedTuple):
    """A figure for a page: with a caption, what one would see in words, and the numbers behind it."""

    name: str
    figure: Figure
    caption: str
    alt: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


Told = tuple[str, str, Sequence[str], Sequence[Sequence[object]]]
"""What a drawing says besides the picture: caption, alternative text, head and rows of a table."""


def drawing(record: Record, name: str, draw: Callable[[Record, Axes], Told]) -> Drawing:
    """What `draw` shows of a Record, in a size that is readable on a phone."""
    with style():
        figure, (axes,) = panels(1, width=3.9, height=2.9)
        return Drawing(name, figure, *draw(record, axes))


def level(axes: Axes, value: float = 0.0) -> None:
    """A dotted line at what all is compared with: an exponent of 0, or chance."""
    axes.axhline(value, color=GREY, linestyle=":", linewidth=0.8)


def look(group: int) -> tuple[str, str]:
    """Colour and dash of a group: all colours solid, then all dashed, and so on."""
    return PALETTE[group % len(PALETTE)], DASHES[group // len(PALETTE) % len(DASHES)]


def letters(axes: Sequence[Axes], names: str) -> None:
    """The letters of panels, as the paper has them; a blank for a panel that it does not have."""
    for panel, name in zip(axes, names, strict=False):
        letter(panel, name)


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
    # matplotlib draws the columns of a matrix
    axes.plot(at, rows.T, dash, color=color, alpha=alpha, linewidth=thin)
    (line,) = axes.plot(at, thick(rows, 0), dash, color=color, linewidth=linewidth, label=label)
    line.set(marker=marker, markersize=3)


def learning(axes: Axes, rows: Rows, color: str, label: str, title: str, *, lowest: float = 0.42) -> None:
    """Accuracy over epochs: running means of `rows (members, epochs)`, and their median."""
    bundle(axes, smooth(rows, 20), color, label, thick=np.median)
    axes.set(xlabel="epoch", ylabel="accuracy", title=title, ylim=(lowest, 1.03))


def quartiles(axes: Axes, rows: Rows, color: str, x: ArrayLike | None = None) -> None:
    """A band from the 25th to the 75th percentile of what is there of `rows (members, points)`."""
    at = np.arange(rows.shape[-1]) if x is None else np.asarray(x)
    # a column of which nothing is there has no band, and is no reason to warn
    some = np.isfinite(rows).any(0)
    if not some.any():
        return
    low, high = np.nanpercentile(rows[:, some], (25, 75), axis=0)
    axes.fill_between(at[some], low, high, color=color, alpha=0.2, linewidth=0)


def band(axes: Axes, rows: Rows, color: str, label: str | None = None) -> None:
    """The median of `rows (members, points)` in a band from the 25th to the 75th percentile."""
    quartiles(axes, rows, color)
    axes.plot(np.median(rows, 0), color=color, linewidth=1.6, label=label)


def letter(axes: Axes, name: str) -> None:
    """The letter of a panel, at its upper left."""
    at = (-30, 5)
    axes.annotate(
        name, (0, 1), at, "axes fraction", textcoords="offset points", fontsize=12, fontweight="bold"
    )


def footnote(axes: Axes, *said: str) -> None:
    """Below a whole picture: how many networks there are, and what lines, bands and dots mean."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    # whatever is counted may be one
    text = re.sub(r"\b1 networks\b", "1 network", "; ".join(filter(None, said)))
    # letters of this size are some 1/16 of an inch wide
    text = textwrap.fill(text, round(16 * figure.get_figwidth()))
    figure.supxlabel(text, fontsize=7.5, color=GREY)


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


def smooth(rows: Rows, width: int = 10) -> Rows:
    """A running mean over the last `width` epochs, of what is finite; NaN where a member took no part."""
    # differences of running sums would keep the round-off of whatever was large before
    finite, before = np.isfinite(rows), [(0, 0)] * (rows.ndim - 1) + [(width, 0)]
    total, count = (
        sliding_window_view(np.pad(values, before), width, -1).sum(-1)[..., 1:]
        for values in (np.where(finite, rows, 0.0).astype(np.float64), finite)
    )
    return np.where((count > 0) & ~np.isnan(rows), total / np.maximum(count, 1), np.nan)


def finite_mean(values: Rows, axis: int) -> Rows:
    """The mean of what is finite, NaN where nothing is."""
    # np.nanmean would keep infinities, of which dead exponents have one, and warn where nothing is left
    finite = np.isfinite(values)
    count, total = finite.sum(axis), np.where(finite, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def geometric_mean(values: Rows, axis: int = 0) -> Rows:
    """Of what is finite, with `TINY` in the place of zeros."""
    return np.asarray(np.exp(finite_mean(np.log(np.maximum(values, TINY)), axis)))
