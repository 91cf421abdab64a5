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


def items_by_delay(record: Record) -> Figure:
    """Accuracy against the number of flossed exponents, a panel for each number of items."""
    with style():
        figure, axes = panels(len(record["items"]), width=3.2)
        places = np.arange(len(record["k"]))
        for i, (items, panel) in enumerate(zip(record["items"], axes, strict=True)):
            for j, delay in enumerate(record["delay"]):
                rows, color = record["final_accuracy"][i, j], PALETTE[j % len(PALETTE)]
                panel.plot(places, rows, "o", color=color, alpha=0.3, markersize=3)
                panel.plot(places, rows.mean(-1), "o-", color=color, label=f"delay {delay}")
            panel.axhline(0.5, color=GREY, linestyle=":", linewidth=0.8)
            panel.set_xticks(places, [str(k) for k in record["k"]])
            panel.set(
                xlabel="exponents flossed", ylabel="accuracy", title=f"{items} items", ylim=(0.42, 1.03)
            )
        axes[0].legend()
    return figure


def unit_parameters(record: Record) -> Figure:
    """Exponents after flossing; the time constants and gains it chose; accuracy against delay."""
    with style():
        figure, (spectra, units, learning) = panels(3, width=3.5)
        for i, name in enumerate(record["flossed"]):
            color, rows = PALETTE[i % len(PALETTE)], record["exponents"][i]
            spectra.plot(np.arange(1, rows.shape[-1] + 1), rows.mean(0), color=color, label=str(name))
            units.plot(
                record["time_constant"][i].ravel(),
                record["gain"][i].ravel(),
                "o",
                color=color,
                alpha=0.5,
                markersize=2,
            )
            final = record["final_accuracy"][i]
            learning.plot(record["delay"], final, "o", color=color, alpha=0.3, markersize=3)
            learning.plot(record["delay"], final.mean(-1), "o-", color=color)
        spectra.axhline(0.0, color=GREY, linestyle=":", linewidth=0.8)
        spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="After flossing")
        units.set(yscale="log", xlabel="time constant (steps)", ylabel="gain", title="Units")
        learning.set(xlabel="delay", ylabel="accuracy", title="After training", ylim=(0.42, 1.03))
        spectra.legend(title="flossed by")
    return figure


def flossed_cells(record: Record) -> Figure:
    """Exponents and accuracy of each kind of cell, plain and flossed."""
    kinds = record["kind"]
    with style():
        figure = Figure(figsize=(3.2 * len(kinds), 5.2), layout="constrained")
        rows = figure.subplots(2, len(kinds), squeeze=False)
        for i, kind in enumerate(kinds):
            spectra, learning = rows[:, i]
            for j, (color, label) in enumerate(((BLUE, "plain"), (ORANGE, "flossed"))):
                exponents, final = record["exponents"][i, j], record["final_accuracy"][i, j]
                spectra.plot(np.arange(1, exponents.shape[-1] + 1), exponents.T, color=color, alpha=0.6)
                learning.plot(record["delay"], final, "o", color=color, alpha=0.3, markersize=3)
                learning.plot(record["delay"], final.mean(-1), "o-", color=color, label=label)
            spectra.axhline(0.0, color=GREY, linestyle=":", linewidth=0.8)
            spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title=str(kind))
            learning.set(xlabel="delay", ylabel="accuracy", ylim=(0.42, 1.03))
        rows[1][0].legend()
    return figure


def horizon_per_cost(record: Record) -> Figure:
    """Mean accuracy over all delays against what was spent; accuracy against delay at equal cost."""
    with style():
        figure, axes = panels(4, width=3.1)
        for j, what in enumerate(("flops", "seconds")):
            spending, reached = axes[2 * j : 2 * j + 2]
            word = "operations" if what == "flops" else what
            for i, name in enumerate(record["network"]):
                color = ORANGE if i == 0 else PALETTE[(0, 2, 3, 5)[(i - 1) % 4]]
                curve = smooth(record["accuracy"][i], 20).mean((0, 1))
                cost = record[f"{what}_of_flossing"][i] + record[f"{what}_of_an_epoch"][i] * np.arange(
                    len(curve)
                )
                spending.plot(cost, curve, color=color, label=str(name))
                reached.plot(record["delay"], record[f"at_equal_{what}"][i], "o-", color=color)
            spending.set(xlabel=f"{word} of a network", ylabel="mean accuracy", ylim=(0.42, 1.03))
            reached.set(xlabel="delay", ylabel="accuracy", title=f"At equal {word}", ylim=(0.42, 1.03))
        axes[0].legend()
    return figure


FIGURES = {
    "beyond depth": depth,
    "beyond input-suppresses-chaos": input_suppresses_chaos,
    "beyond cheap-flossing": cheap_flossing,
    "beyond auto-flossing": auto_flossing,
    "beyond memory-limit": memory_limit,
    "beyond items-x-delay": items_by_delay,
    "beyond unit-parameters": unit_parameters,
    "beyond flossed-cells": flossed_cells,
    "beyond horizon-per-cost": horizon_per_cost,
}
"""By the kind of the Record."""
