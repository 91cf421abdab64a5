"""Figures beyond the papers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, ORANGE, style
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
