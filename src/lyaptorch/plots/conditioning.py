"""Figures of condition numbers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.record import Record

COLORS = (BLUE, ORANGE)
FEW = "256 bits, first network"
PER_DECADE = 1 / np.log(10)


def fig2a(record: Record) -> Figure:
    """log10 kappa against time: measured, predicted, and with too few bits."""
    time = record["time"]
    with style():
        figure, (axes,) = panels(1, width=5.0, height=3.4)
        for group, color in enumerate(COLORS):
            gap = record["exponents"][group, :, 0] - record["exponents"][group, :, -1]
            rows, name = record["log_kappa"][group] * PER_DECADE, record["group"][group]
            axes.plot(time, rows.T, color=color, alpha=0.3, linewidth=0.7)
            axes.plot(time, rows.mean(0), color=color, linewidth=1.8, label=str(name))
            axes.plot(time, gap.mean() * time * PER_DECADE, ":", color=color, linewidth=1.4)
            few = record["log_kappa_paper_bits"][group] * PER_DECADE
            axes.plot(
                time,
                few,
                "x",
                color=GREY,
                markersize=4,
                label="256 bits, first network" if group == 0 else None,
            )
        axes.plot([], [], ":", color=GREY, label=r"$(\lambda_1 - \lambda_n)\, t$")
        axes.axhline(256 * np.log10(2), color=GREY, linewidth=0.7)
        axes.annotate(r"$2^{256}$", (time[0], 256 * np.log10(2)), va="bottom", color=GREY)
        axes.set(xlabel="steps $t$", ylabel=r"$\log_{10} \kappa$", title="Long-term Jacobian")
        axes.legend()
    return figure


def fig2b(record: Record) -> Figure:
    """Usable dimensions against the condition number that is acceptable."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        for group, color in enumerate(COLORS):
            rows = record["usable"][group]
            axes.semilogx(record["kappa"], rows.T, color=color, alpha=0.3, linewidth=0.7)
            axes.semilogx(
                record["kappa"],
                rows.mean(0),
                "o-",
                color=color,
                markersize=3,
                linewidth=1.8,
                label=str(record["group"][group]),
            )
        steps = record.config["horizon"]
        axes.set(xlabel=r"acceptable $\kappa$", ylabel="dimensions", title=f"Usable after {steps} steps")
        axes.legend()
    return figure


def fig2c(record: Record) -> Figure:
    """Measured against predicted rate of every network."""
    with style():
        figure, (axes,) = panels(1, width=4.0, height=3.4)
        for i, (gap, rate) in enumerate(zip(record["gap"], record["rate"], strict=True)):
            color, size = PALETTE[i % len(PALETTE)], record["size"][i]
            axes.plot(gap, rate, "o", color=color, markersize=3.5, label=f"$n = {size}$")
        both = np.concatenate([record["gap"], record["rate"]])
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, color=GREY, linewidth=0.8)
        axes.set(
            xlabel=r"$\lambda_1 - \lambda_n$ (nats per step)",
            ylabel=r"$\log \kappa\, /\, t$",
            title="Every network its own",
        )
        axes.legend()
    return figure
