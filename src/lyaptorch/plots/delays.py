"""Figures of sweeps over delays, each from its Record alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.drawing import DASHES, Array
from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record

BITS = (0.42, 1.03)
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
"""Where a legend covers nothing: curves may run anywhere in a panel."""


def sweep(record: Record) -> Figure:
    """Accuracy, or the error of numbers, over epochs for each delay, and after training against delay."""
    numbers = record.config["analogue"]
    name, label = ("loss", "mean squared error") if numbers else ("accuracy", "accuracy")
    delays, conditions = record["delay"], record["condition"]
    with style():
        figure, axes = panels(len(delays) + 1, width=3.0)
        for j, delay in enumerate(delays):
            for i, condition in enumerate(conditions):
                _curves(axes[j], record[name][i, j], i, str(condition))
            axes[j].set(xlabel="epoch", ylabel=label, title=f"delay {delay}")
        _against_delay(axes[-1], record, record[f"final_{name}"], label)
        for panel in axes:
            panel.set(**({"yscale": "log"} if numbers else {"ylim": BITS}))
        axes[-1].set_title("After training")
        axes[-1].legend(title="flossed", **BESIDE)
    return figure


def controls(record: Record) -> Figure:
    """Accuracy over epochs, and after training a row for each condition, for each delay."""
    names = [str(name) for name in record["condition"]]
    with style():
        figure, axes = panels(2 * len(record["delay"]), width=3.6, height=3.3)
        for j, delay in enumerate(record["delay"]):
            curves, final = axes[2 * j : 2 * j + 2]
            for i, name in enumerate(names):
                _curves(curves, record["accuracy"][i, j], i, name)
                rows, color = record["final_accuracy"][i, j], PALETTE[i % len(PALETTE)]
                final.plot(rows, np.full(len(rows), i), "o", color=color, alpha=0.4, markersize=4)
                final.plot(rows.mean(), i, "|", color=color, markersize=16, markeredgewidth=2)
            curves.set(xlabel="epoch", ylabel="accuracy", ylim=BITS, title=f"delay {delay}")
            final.axvline(0.5, color=GREY, linestyle=":", linewidth=0.8)
            final.set_yticks(range(len(names)), names)
            final.invert_yaxis()
            final.set(xlabel="accuracy", xlim=BITS, title="After training")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def linear(record: Record) -> Figure:
    """Variance explained against delay, and over epochs at the longest one, for each task."""
    with style():
        figure, axes = panels(2 * len(record["task"]), width=3.0)
        for row, task in enumerate(record["task"]):
            curves, final = axes[2 * row : 2 * row + 2]
            for i, condition in enumerate(record["condition"]):
                _curves(curves, record["accuracy"][row, i, -1].clip(-1), i, str(condition))
            _against_delay(final, record, record["final_accuracy"][row].clip(-1), "variance explained")
            title = str(task).replace("_", " ")
            curves.set(
                xlabel="epoch", ylabel="variance explained", title=f"{title}, d = {record['delay'][-1]}"
            )
            final.set(title=f"{title}, after training", ylim=(-1.05, 1.05))
            final.legend(title="flossed")
    return figure


def counts(record: Record) -> Figure:
    """Accuracy against delay for each k, and against k for each delay, for each schedule."""
    ks, schedules, delays = record.config["ks"], record.config["schedules"], record["delay"]
    final = record["final_accuracy"].reshape(len(schedules), len(ks), len(delays), -1)
    with style():
        figure, axes = panels(2 * len(schedules), width=3.2)
        for row, schedule in enumerate(schedules):
            left, right = axes[2 * row : 2 * row + 2]
            for i, k in enumerate(ks):
                _points(left, delays, final[row, i], i, f"$k = {k}$")
            for j, delay in enumerate(delays):
                _points(right, np.asarray(ks), final[row, :, j], j, f"$d = {delay}$")
            for panel, label in ((left, "delay"), (right, "exponents flossed $k$")):
                panel.axhline(0.5, color=GREY, linestyle=":", linewidth=0.8)
                panel.set(xlabel=label, ylabel="accuracy", ylim=BITS, title=f"Flossed {schedule}")
                panel.legend(**BESIDE)
    return figure


def fig13(record: Record) -> Figure:
    """Exponents against delay for each index: filled where solved, hollow where not, and the mean of each."""
    indices, delays = record.config["indices"], record["delay"]
    solved = record["final_accuracy"] >= 0.9
    with style():
        figure, axes = panels(len(indices), width=3.6)
        for panel, index in zip(axes, indices, strict=True):
            values = record["exponents"][..., index - 1]
            panel.axhline(0, color=GREY, linestyle=":", linewidth=0.8)
            for chosen, color, face, label in (
                (solved, ORANGE, ORANGE, "solved"),
                (~solved, BLUE, "none", "not solved"),
            ):
                rows = np.where(chosen, values, np.nan).transpose(1, 0, 2).reshape(len(delays), -1)
                panel.plot(delays, rows, "o", color=color, markerfacecolor=face, markersize=4, alpha=0.6)
                panel.plot(
                    delays, finite_mean(rows, -1), "o-", color=color, markerfacecolor=face, label=label
                )
            panel.set(
                xlabel="delay", ylabel=rf"$\lambda_{{{index}}}$ (nats per step)", title="After training"
            )
        axes[-1].legend(**BESIDE)
    return figure


def _curves(axes: Axes, rows: Array, i: int, label: str) -> None:
    """A thin curve for each network and their mean."""
    color, dash = PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE)]
    rows = smooth(rows, 20)
    axes.plot(rows.T, dash, color=color, alpha=0.3, linewidth=0.7)
    axes.plot(rows.mean(0), dash, color=color, linewidth=1.6, label=label)


def _points(axes: Axes, x: NDArray[Any], rows: Array, i: int, label: str) -> None:
    """A point for each network and the line of their means, `rows (x, seed)`."""
    color, dash = PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE)]
    axes.plot(x, rows, "o", color=color, alpha=0.3, markersize=3)
    axes.plot(x, rows.mean(-1), f"o{dash}", color=color, linewidth=1.6, label=label)


def _against_delay(axes: Axes, record: Record, final: Array, label: str) -> None:
    for i, condition in enumerate(record["condition"]):
        _points(axes, record["delay"], final[i], i, str(condition))
    if label == "accuracy":
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=0.8)
    axes.set(xlabel="delay", ylabel=label)
