"""Figures of weakly coupled residual networks that learn, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.style import GREY, PALETTE, panels, style
from lyaptorch.record import Record


def fig3(record: Record) -> Figure:
    """By task, a row: learning curves, plain and clipped, the best score against r, and curvature."""
    names, r = record["name"], record["r"]
    colors = _shades(len(r))
    with style():
        figure = Figure(figsize=(13, 2.7 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 4, squeeze=False)
        for i, (name, row) in enumerate(zip(names, grid, strict=True)):
            adding = str(name).startswith("adding")
            curves = record["test_loss" if adding else "test_accuracy"][i]
            label = "RMS error" if adding else "test accuracy"
            for axes, clipped, of_clip in zip(row, record["clipped"], curves, strict=False):
                for j, own in enumerate(of_clip):
                    axes.plot(record["measured_at"][i], own.T, color=colors[j], linewidth=0.7, alpha=0.4)
                    axes.plot(
                        record["measured_at"][i], np.median(own, 0), color=colors[j], label=f"$r = {r[j]:g}$"
                    )
                kind = "clipped" if clipped else "not clipped"
                axes.set(xlabel="task step", ylabel=label, title=f"{name}, {kind}")
                axes.set_ylim((0, 0.8) if adding else (0, 1.03))
            _best(row[2], r, curves, adding, f"best {label}")
            change = record["curvature"][i]
            for j, own in enumerate(np.abs(change)):
                row[3].semilogy(record["curved_at"][i], own, "o-", color=colors[j], markersize=3)
            row[3].set(xlabel="task step", ylabel="|leading eigenvalue|", title="Hessian, clipped")
        grid[0, 0].legend()
    return figure


def fig6(record: Record) -> Figure:
    """Best accuracy of kinds A and B against r, and against the angle at r = 1."""
    r, multiples = record.config["decays"], record.config["multiples"]
    orders = record["permuted"]
    with style():
        figure, axes = panels(2 * len(orders))
        for order, permuted in enumerate(orders):
            left, right = axes[2 * order : 2 * order + 2]
            for i, kind in enumerate(record["kind_name"]):
                scores = np.nan_to_num(record["best_accuracy"][i, order]).max(1)
                at_rest = scores[r.index(1.0)] if 1.0 in r else np.full(scores.shape[-1], np.nan)
                angles = np.concatenate([at_rest[None], scores[len(r) :]])
                for panel, x, y in ((left, r, scores[: len(r)]), (right, [0.0, *multiples], angles)):
                    panel.plot(x, y, ".", color=PALETTE[i], alpha=0.4)
                    panel.plot(x, y.mean(-1), "o-", color=PALETTE[i], label=f"kind {kind}")
            title = "permuted" if permuted else "in order"
            left.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
            left.set(xlabel="$r$", ylabel="best test accuracy", title=f"Decay, {title}")
            right.set(xlabel=r"angle / $\omega_0$", ylabel="best test accuracy", title=f"Rotation, {title}")
            left.legend()
    return figure


def table2(record: Record) -> Figure:
    """By task, learning curves of each network at its best rate."""
    names = record["name"]
    with style():
        figure, axes = panels(len(names))
        for i, name in enumerate(names):
            adding = str(name).startswith("adding")
            key, label = ("test_loss", "RMS error") if adding else ("test_accuracy", "test accuracy")
            for j, network in enumerate(record["network_name"]):
                best = record[f"best_{key[5:]}"][i, j].mean(-1)
                rate = int(np.nanargmin(best) if adding else np.nanargmax(best))
                own, color = record[key][i, j, rate], PALETTE[j % len(PALETTE)]
                dash = "-" if j < len(PALETTE) else "--"
                axes[i].plot(record["measured_at"][i], own.T, dash, color=color, alpha=0.3, linewidth=0.7)
                axes[i].plot(record["measured_at"][i], np.median(own, 0), dash, color=color, label=network)
            axes[i].set(xlabel="task step", ylabel=label, title=name)
            axes[i].set_ylim((0, 0.8) if adding else (0, 1.03))
        axes[0].legend()
    return figure


def _best(
    axes: Axes, r: NDArray[np.floating], curves: NDArray[np.floating], adding: bool, label: str
) -> None:
    """The best score `(clip, decay, seed)` against r."""
    for i, own in enumerate(np.nanmin(curves, -1) if adding else np.nanmax(curves, -1)):
        kind = ("not clipped", "clipped")[i]
        axes.plot(r, own, ".", color=PALETTE[i], alpha=0.4)
        axes.plot(r, np.median(own, -1), "o-", color=PALETTE[i], label=kind)
    axes.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    axes.set(xlabel="$r$", ylabel=label, title="Best")
    axes.legend()


def _shades(count: int) -> list[tuple[float, float, float, float]]:
    """From blue, where memory fades, to red, where it grows."""
    return [colormaps["coolwarm"](x) for x in np.linspace(0, 1, count)]
