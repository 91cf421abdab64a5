"""Figures of training runs: accuracy over epochs, exponents over flossing."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import BLUE, GREY, ORANGE, panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]


def training_figure(record: Record) -> Figure:
    """Accuracy and loss of every member over task epochs, and the exponents over flossing epochs."""
    flossed = "exponents" in record
    with style():
        figure, axes = panels(3 if flossed else 2)
        for panel, name in zip(axes, ("accuracy", "loss"), strict=False):
            panel.plot(smooth(record[name]).T, color=BLUE, alpha=0.6, linewidth=1)
            panel.set(xlabel="epoch", ylabel=name, title=name.capitalize())
        if flossed:
            exponents_panel(axes[2], record["exponents"], BLUE, _rate(record))
    return figure


def flossing_figure(record: Record) -> Figure:
    """The flossing loss and the exponents over flossing epochs."""
    with style():
        figure, (left, right) = panels(2)
        left.semilogy(record["floss_loss"].T, color=BLUE, alpha=0.6, linewidth=1)
        left.set(xlabel="flossing epoch", ylabel=r"mean $(\lambda_i - \lambda^*)^2$", title="Flossing loss")
        exponents_panel(right, record["exponents"], BLUE, _rate(record))
    return figure


def demo_figure(record: Record) -> Figure:
    """Three panels: the spectrum before and after flossing, the exponents during it, the accuracy."""
    flossed = record["flossed"]
    with style():
        figure, (left, middle, right) = panels(3)
        left.axhline(0, color=GREY, linewidth=0.8)
        exponents_panel(middle, record["exponents"][flossed], ORANGE)
        for on, color, label in ((False, BLUE, "plain"), (True, ORANGE, "preflossed")):
            rows = record["spectrum"][flossed == on]
            index = np.arange(1, rows.shape[-1] + 1)
            left.plot(index, rows.T, color=color, alpha=0.4, linewidth=0.8)
            left.plot(index, finite_mean(rows, axis=0), color=color, linewidth=1.8, label=label)
            curves = smooth(record["accuracy"][flossed == on])
            right.plot(curves.T, color=color, alpha=0.4, linewidth=0.8)
            right.plot(curves.mean(0), color=color, linewidth=1.8, label=label)
        k = record["exponents"].shape[-1]
        left.axvline(k, color=GREY, linestyle=":", linewidth=0.8)
        left.annotate(f"$k = {k}$", (k, left.get_ylim()[0]), ha="right", va="bottom", color=GREY)
        left.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Spectrum before training")
        right.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        right.set(xlabel="training epoch", ylabel="accuracy", title=f"XOR, delay {record.config['delay']}")
        right.set_ylim(0.42, 1.03)
        left.legend(loc="lower left")
        right.legend(loc="center right")
    return figure


def _rate(record: Record) -> str:
    """The unit of its exponents."""
    return record.variables["exponents"].attributes.get("units", "nats per step")


def exponents_panel(axes: Axes, exponents: Array, color: str, rate: str = "nats per step") -> None:
    """First, middle and last exponent `(member, floss_epoch, k)` over flossing."""
    k = exponents.shape[-1]
    axes.axhline(0, color=GREY, linewidth=0.8)
    for i, style_of in zip(sorted({0, k // 2, k - 1}), ("-", "--", ":"), strict=False):
        rows = exponents[:, :, i]
        axes.plot(rows.T, style_of, color=color, alpha=0.3, linewidth=0.8)
        axes.plot(
            finite_mean(rows, axis=0), style_of, color=color, linewidth=1.6, label=rf"$\lambda_{{{i + 1}}}$"
        )
    axes.set(xlabel="flossing epoch", ylabel=rf"$\lambda_i$ ({rate})", title="Flossing")
    axes.legend()


def smooth(rows: Array, width: int = 10) -> Array:
    """A running mean over the last `width` epochs, of those in which a member took part."""
    present = ~np.isnan(rows)
    epochs, shape = rows.shape[-1], (*rows.shape[:-1], min(width, rows.shape[-1]))
    total, count = (
        sums - np.concatenate([np.zeros(shape), sums], -1)[..., :epochs]
        for sums in (np.cumsum(np.nan_to_num(rows), axis=-1), np.cumsum(present, axis=-1))
    )
    return np.where(present, total / np.maximum(count, 1), np.nan)
