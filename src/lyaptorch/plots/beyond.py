"""Figures beyond the papers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
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


FIGURES = {
    "beyond depth": depth,
    "beyond input-suppresses-chaos": input_suppresses_chaos,
}
"""By the kind of the Record."""
