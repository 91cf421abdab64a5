"""Figures of spectra: the exponents with their errors, and how the estimates converged."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch._units import Clock
from lyaptorch.plots.style import BLUE, GREY, ORANGE, panels, style

Array = NDArray[np.floating]


def spectrum_figure(
    exponents: Array,
    stderr: Array,
    reliable: NDArray[np.bool_],
    running: Array,
    elapsed: Array,
    clock: Clock,
) -> Figure:
    """Two panels: lambda_i against i / n, and the running estimates of a few of them.

    Args:
        exponents: `(rows, k)`; a row is one trajectory of one network. Thin lines; their mean is thick.
        stderr: `(rows, k)`; drawn when there is one row.
        reliable: `(rows, k)`; others are drawn hollow.
        running: `(s, rows, k)`.
        elapsed: `(s,)`, time of each running estimate.
        clock: of steps and time.
    """
    with style():
        figure, (left, right) = panels(2)
        draw_exponents(left, exponents, stderr, reliable, clock)
        draw_convergence(right, running, elapsed, clock)
    return figure


def covariant_figure(local: Array, angles: Array, clock: Clock) -> Figure:
    """Two panels: the spread of growth along each vector, and how often neighbours enclose an angle.

    Args:
        local: `(rows, k)`, growth rates; -inf where dead.
        angles: `(rows, k, k)`, radians.
        clock: of steps and time.
    """
    with style():
        figure, (left, right) = panels(2)
        k = local.shape[-1]
        index, alive = np.arange(1, k + 1), np.isfinite(local).all(0)
        low, high = np.quantile(local[:, alive], [0.1, 0.9], axis=0)
        left.axhline(0, color=GREY, linewidth=0.8)
        left.fill_between(index[alive], low, high, color=BLUE, alpha=0.25, linewidth=0)
        left.plot(index[alive], local[:, alive].mean(0), color=BLUE, marker=".", markersize=4)
        left.set(
            xlabel="index $i$",
            ylabel=f"growth ({clock.rate})",
            title="Along covariant vectors: mean, 10-90%",
        )
        for i in sorted({0, (k - 1) // 2, k - 2} & set(range(k - 1))):
            counts, edges = np.histogram(
                np.degrees(angles[:, i, i + 1]), bins=45, range=(0, 90), density=True
            )
            label = f"$v_{{{i + 1}}}, v_{{{i + 2}}}$"
            right.stairs(counts, edges, color=BLUE, alpha=1 - 0.7 * i / k, label=label)
        right.set(xlabel="angle (degrees)", ylabel="density", title="Angle between neighbours")
        if k > 1:
            right.legend()
    return figure


def draw_exponents(
    axes: Axes, exponents: Array, stderr: Array, reliable: NDArray[np.bool_], clock: Clock
) -> None:
    """lambda_i against i: one row with error bars, or several and their mean; what is lost hollow."""
    index = np.arange(1, exponents.shape[-1] + 1)
    rows = np.where(np.isfinite(exponents), exponents, np.nan)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if len(rows) == 1:
        error = np.where(np.isfinite(stderr), stderr, np.nan)
        axes.errorbar(index, rows[0], yerr=error[0], color=BLUE, marker=".", markersize=4, linewidth=1)
    else:
        axes.plot(index, rows.T, color=BLUE, alpha=0.25, linewidth=0.8)
        axes.plot(index, finite_mean(rows, axis=0), color=BLUE, linewidth=1.8)
    lost = ~reliable & np.isfinite(rows)
    if lost.any():
        at = np.nonzero(lost)
        axes.plot(
            index[at[1]], rows[at], "o", mfc="white", color=ORANGE, markersize=4, label="lost to round-off"
        )
        axes.legend()
    axes.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ ({clock.rate})", title="Lyapunov spectrum")


def draw_convergence(axes: Axes, running: Array, elapsed: Array, clock: Clock) -> None:
    """Running estimates of a few exponents over time."""
    k = running.shape[-1]
    shown = sorted({0, k // 4, k // 2, k - 1})
    for i, dash in zip(shown, ("-", "--", "-.", ":"), strict=False):
        mean = finite_mean(running[:, :, i], axis=1)
        axes.plot(elapsed, mean, dash, color=BLUE, alpha=1 - 0.5 * i / k, label=rf"$\lambda_{{{i + 1}}}$")
    axes.set(
        xlabel=clock.span,
        ylabel="running estimate",
        title="Convergence",
        xscale="log",
    )
    axes.legend()


def finite_mean(values: Array, axis: int) -> Array:
    """The mean of what is finite, NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis)
    total = np.where(finite, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
