"""Figures beyond the papers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record


def depth(record: Record) -> Figure:
    """A row for each kind of stack: exponents, gradients over the layers, learning; plain and flossed."""
    kinds = record["kind"]
    with style():
        figure = Figure(figsize=(10, 2.6 * len(kinds)), layout="constrained")
        rows = figure.subplots(len(kinds), 3, squeeze=False)
        for i, (kind, (spectra, gradients, learning)) in enumerate(zip(kinds, rows, strict=True)):
            for j, (color, label) in enumerate(((BLUE, "as torch starts it"), (ORANGE, "flossed"))):
                spectra.plot(record["exponents"][i, j].T, color=color, alpha=0.7, linewidth=1)
                gradients.semilogy(record["gradient"][i, j].T, color=color, alpha=0.7, linewidth=1)
                accuracy = record["accuracy"][i, j]
                window = np.ones(max(1, accuracy.shape[-1] // 20))
                for one in accuracy:
                    smooth = np.convolve(one, window / window.sum(), "valid")
                    learning.plot(smooth, color=color, alpha=0.7, linewidth=1)
                learning.plot([], color=color, label=label)
            spectra.axhline(0.0, color="#777777", linestyle=":", linewidth=0.8)
            spectra.set(
                xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per block)", title=f"{kind}: exponents"
            )
            gradients.set(xlabel="layer", ylabel="norm of the gradient", title="Gradient at each layer")
            learning.set(xlabel="task step", ylabel="accuracy", title="Learning", ylim=(0.4, 1.03))
        rows[0][2].legend()
    return figure


def input_suppresses_chaos(record: Record) -> Figure:
    """lambda_1 against the strength of the input, a panel for each kind of input; lines are theory."""
    strengths = record["strength"]
    with style():
        figure, axes = panels(len(record["noise"]), width=3.9)
        for i, (kind, panel) in enumerate(zip(record["noise"], axes, strict=True)):
            panel.axhline(0.0, color=GREY, linestyle=":", linewidth=0.8)
            for j, gain in enumerate(record["gain"]):
                color = PALETTE[j % len(PALETTE)]
                panel.plot(
                    strengths, record["theory"][i, j], color=color, linewidth=1.4, label=f"$g = {gain:g}$"
                )
                panel.plot(strengths, record["lambda_1"][i, j], "o", color=color, alpha=0.5, markersize=3)
            panel.set(
                xlabel="strength of the input $s$",
                ylabel=r"$\lambda_1$ (nats per step)",
                title=f"{kind} noise",
            )
        axes[0].legend()
    return figure


def cheap_flossing(record: Record) -> Figure:
    """Mean accuracy of each way of flossing against its operations, and against its seconds."""
    mean, ways = record["final_accuracy"].mean((1, 2)), record["way"]
    with style():
        figure, axes = panels(2, width=4.6, height=3.6)
        for panel, name, label in zip(
            axes, ("flops", "seconds"), ("operations of flossing", "seconds of flossing"), strict=True
        ):
            panel.axhline(mean[0], color=GREY, linestyle="--", linewidth=0.9, label="not flossed")
            for i, way in enumerate(ways[1:], 1):
                color = ORANGE if way == "published" else PALETTE[(i - 2) % len(PALETTE)]
                marker = "*" if way == "published" else "os^vD"[(i - 2) % 5]
                low, high = np.quantile(record["final_accuracy"][i].mean(0), (0.25, 0.75))
                panel.plot([record[name][i]] * 2, (low, high), color=color, linewidth=0.8, alpha=0.6)
                panel.plot(record[name][i], mean[i], marker, color=color, markersize=6, label=str(way))
            panel.set(xscale="log", xlabel=f"{label} of a network", ylabel="accuracy", ylim=(0.45, 1.03))
        axes[0].set_title("Accuracy against cost")
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    return figure


def auto_flossing(record: Record) -> Figure:
    """Spectra and what is chosen from them; accuracy against delay for each gain."""
    gains, delays = record["gain"], record["delay"]
    with style():
        figure, (spectra, *axes) = panels(1 + len(gains), width=3.1)
        for j, gain in enumerate(gains):
            rows, color = record["exponents"][j], PALETTE[j % len(PALETTE)]
            spectra.plot(np.arange(1, rows.shape[-1] + 1), rows.mean(0), color=color, label=f"$g = {gain:g}$")
            k = int(record["k"][j])
            spectra.plot(k, rows.mean(0)[k - 1], "o", color=color, markersize=5)
            for i, way in enumerate(record["way"]):
                final = record["final_accuracy"][j, i]
                axes[j].plot(delays, final, "o", color=PALETTE[i], alpha=0.3, markersize=3)
                axes[j].plot(delays, final.mean(-1), "o-", color=PALETTE[i], label=str(way))
            words = f"$k$ = {k}, {record['steps'][j]} steps, interval {record['interval'][j]}"
            axes[j].set_title(f"$g = {gain:g}$: {words}", fontsize=8)
            axes[j].set(xlabel="delay", ylabel="accuracy", ylim=(0.42, 1.03))
        spectra.axhline(0.0, color=GREY, linestyle=":", linewidth=0.8)
        spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Before flossing")
        spectra.legend()
        axes[0].legend()
    return figure


def memory_limit(record: Record) -> Figure:
    """Accuracy over epochs at each delay, and after training against delay."""
    delays, n = record["delay"], record.config["hidden_size"]
    with style():
        figure, (curves, last) = panels(2, width=4.0)
        for j, delay in enumerate(delays):
            color = PALETTE[j % len(PALETTE)]
            curves.plot(smooth(record["accuracy"][j], 20).mean(0), color=color, label=f"$d = {delay}$")
            last.plot(
                [delay] * record["final_accuracy"].shape[1],
                record["final_accuracy"][j],
                "o",
                color=color,
                alpha=0.4,
            )
        last.plot(delays, record["final_accuracy"].mean(-1), color=GREY, linewidth=1.4)
        last.axhline(0.5, color=GREY, linestyle=":", linewidth=0.8)
        last.axvline(n, color=GREY, linestyle="--", linewidth=0.8)
        last.annotate(f"$n = {n}$", (n, 0.95), ha="right", color=GREY)
        curves.set(xlabel="epoch", ylabel="accuracy", title="Learning, mean over networks", ylim=(0.42, 1.03))
        last.set(xlabel="delay $d$", ylabel="accuracy", title="After training", ylim=(0.42, 1.03))
        curves.legend()
    return figure


FIGURES = {
    "beyond depth": depth,
    "beyond input-suppresses-chaos": input_suppresses_chaos,
    "beyond cheap-flossing": cheap_flossing,
    "beyond auto-flossing": auto_flossing,
    "beyond memory-limit": memory_limit,
}
"""By the kind of the Record."""
