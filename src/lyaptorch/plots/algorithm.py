"""Figures of the algorithm itself: the QR step, convergence, cost, initial frames."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.style import GREY, PALETTE, panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]


def frames(record: Record) -> Figure:
    """Exponents after flossing from each frame, and the accuracy reached."""
    with style():
        figure, (left, right) = panels(2, width=3.6)
        index = np.arange(1, record["exponents"].shape[-1] + 1)
        left.axhline(0, color=GREY, linewidth=0.8)
        for i, (mode, color) in enumerate(zip(record["mode"], PALETTE, strict=False)):
            rows = record["exponents"][i].reshape(-1, len(index))
            left.plot(index, rows.T, color=color, linewidth=0.6, alpha=0.5)
            left.plot([], [], color=color, label=str(mode))
            final = record["final_accuracy"][i].reshape(-1)
            right.plot(i + np.linspace(-0.2, 0.2, len(final)), final, "o", color=color, markersize=3.5)
        left.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="After flossing")
        left.legend()
        right.set(
            xticks=range(len(record["mode"])),
            xticklabels=record["mode"],
            ylabel="accuracy",
            ylim=(0.42, 1.03),
        )
    return figure
