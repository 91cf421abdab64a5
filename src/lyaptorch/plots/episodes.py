"""Figures of training with flossing episodes, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record

TINY = 1e-30
NORM = r"$|dL/dh_0|$"


def fig8(record: Record) -> Figure:
    """|dL/dh0| and accuracy over epochs; episodes as dotted lines."""
    delays = record["delay"]
    with style():
        figure, axes = panels(2 * len(delays), width=3.2)
        for j, delay in enumerate(delays):
            norms, accuracy = axes[2 * j], axes[2 * j + 1]
            rows = record["gradient_norm"][j]
            norms.semilogy(record["measured_at"], rows.T, color=BLUE, alpha=0.4, linewidth=0.8)
            middle = np.exp(np.log(np.maximum(rows, TINY)).mean(0))
            norms.semilogy(record["measured_at"], middle, color=BLUE, linewidth=1.6)
            _accuracy(accuracy, smooth(record["accuracy"][j], 20))
            for panel in (norms, accuracy):
                _mark_episodes(panel, record)
            norms.set(xlabel="epoch", ylabel=NORM, title=f"delay {delay}")
            accuracy.set(title=f"delay {delay}")
    return figure


def fig9(record: Record) -> Figure:
    """|dL/dh0| around the last epoch at chance, accuracy around the last epoch of a small gradient."""
    delays = record["delay"]
    with style():
        figure, axes = panels(2 * len(delays), width=3.2)
        for j, delay in enumerate(delays):
            norms, accuracy = axes[2 * j], axes[2 * j + 1]
            rows = np.maximum(record["aligned_norm"][j], TINY)
            norms.semilogy(record["place"], rows.T, color=BLUE, alpha=0.4, linewidth=0.8)
            norms.semilogy(record["place"], np.exp(finite_mean(np.log(rows), 0)), color=BLUE, linewidth=1.6)
            norms.axhline(record.config["norm_level"], color=GREY, linewidth=0.7)
            norms.set(xlabel="epochs after the last at chance", ylabel=NORM, title=f"delay {delay}")
            curves = smooth(record["aligned_accuracy"][j], 20)
            accuracy.plot(record["offset"], curves.T, color=ORANGE, alpha=0.4, linewidth=0.8)
            accuracy.plot(record["offset"], finite_mean(curves, 0), color=ORANGE, linewidth=1.6)
            accuracy.set(xlabel="epochs after the last small gradient", ylabel="accuracy", ylim=(0.42, 1.03))
            for panel in (norms, accuracy):
                panel.axvline(0, color=GREY, linestyle=":", linewidth=0.8)
    return figure


def fig10(record: Record) -> Figure:
    """Singular values of dL/dW of one network, solid flossed and dashed not, and its accuracy."""
    delays, at = record["delay"], record["measured_at"]
    ranks = (1, *record.config["ranks"])
    with style():
        figure, axes = panels(2 * len(delays), width=3.2)
        for j, delay in enumerate(delays):
            values, accuracy = axes[2 * j], axes[2 * j + 1]
            seed = int(record["shown"][j])
            for i, rank in enumerate(ranks):
                for condition, line in ((1, "-"), (0, "--")):
                    rows = np.maximum(record["singular_values"][condition, j, seed, :, rank - 1], TINY)
                    label = rf"$\sigma_{{{rank}}}$" if condition else None
                    color = PALETTE[i % len(PALETTE)]
                    values.semilogy(at, rows, line, color=color, linewidth=1.1, label=label)
            values.set(xlabel="epoch", ylabel="singular values of $dL/dW$", title=f"delay {delay}")
            values.legend(ncols=2)
            for condition, line in ((1, "-"), (0, "--")):
                row = smooth(record["accuracy"][condition, j, seed], 20)
                accuracy.plot(row, line, color=ORANGE if condition else BLUE, linewidth=1.2)
            accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0.42, 1.03), title=f"network {seed}")
            for panel in (values, accuracy):
                _mark_episodes(panel, record)
    return figure


def fig12(record: Record) -> Figure:
    """Accuracy, loss and |dL/dh0| over epochs: not flossed, flossed early, flossed throughout."""
    delays, at = record["delay"], record["measured_at"]
    with style():
        figure, axes = panels(3 * len(delays), width=3.2)
        for j, delay in enumerate(delays):
            accuracy, loss, norms = axes[3 * j : 3 * j + 3]
            for i, condition in enumerate(record["condition"]):
                color = PALETTE[i]
                for panel, name in ((accuracy, "accuracy"), (loss, "loss")):
                    rows = smooth(record[name][i, j], 5)
                    panel.plot(rows.T, color=color, alpha=0.3, linewidth=0.7)
                    panel.plot(rows.mean(0), color=color, linewidth=1.4, label=str(condition))
                rows = np.maximum(record["gradient_norm"][i, j], TINY)
                norms.semilogy(at, rows.T, color=color, alpha=0.3, linewidth=0.7)
                norms.semilogy(at, np.exp(np.log(rows).mean(0)), color=color, linewidth=1.4)
            accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0.42, 1.03), title=f"delay {delay}")
            loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
            norms.set(xlabel="epoch", ylabel=NORM)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, title="flossed", loc="outside right upper")
    return figure


def appendix_d(record: Record) -> Figure:
    """Overlap with the first covariant vector, and accuracy, over epochs."""
    delays = record["delay"]
    with style():
        figure, axes = panels(2 * len(delays), width=3.2)
        for j, delay in enumerate(delays):
            overlap, accuracy = axes[2 * j], axes[2 * j + 1]
            for i, (condition, color) in enumerate(zip(record["condition"], (BLUE, ORANGE), strict=True)):
                rows, curves = record["overlap"][i, j], smooth(record["accuracy"][i, j], 20)
                overlap.plot(record["measured_at"], rows.T, color=color, alpha=0.3, linewidth=0.7)
                mean = finite_mean(rows, 0)
                overlap.plot(record["measured_at"], mean, color=color, linewidth=1.6, label=str(condition))
                accuracy.plot(curves.T, color=color, alpha=0.3, linewidth=0.7)
                accuracy.plot(finite_mean(curves, 0), color=color, linewidth=1.6)
            overlap.set(xlabel="epoch", ylabel=r"|cos| of $dL/dh$ and $v_1$", title=f"delay {delay}")
            accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0.42, 1.03), title=f"delay {delay}")
            overlap.legend(title="flossed")
            for panel in (overlap, accuracy):
                _mark_episodes(panel, record)
    return figure


def _accuracy(axes: Axes, curves: np.ndarray) -> None:
    axes.plot(curves.T, color=ORANGE, alpha=0.4, linewidth=0.8)
    axes.plot(curves.mean(0), color=ORANGE, linewidth=1.6)
    axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0.42, 1.03))


def _mark_episodes(axes: Axes, record: Record) -> None:
    for epoch in (0, *record.config["episodes"]):
        axes.axvline(epoch, color=GREY, linestyle=":", linewidth=0.7)
