"""Figures of the algorithm itself: the QR step, convergence, cost, initial frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]


def fig15(record: Record) -> Figure:
    """A column for each step: the frame Q (grey), D Q (blue) and the next Q (orange), for n = 2 and 3."""
    steps = record.config["steps"]
    with style():
        figure = Figure(figsize=(2.6 * steps, 5.2), layout="constrained")
        for row, n in enumerate((2, 3)):
            for s in range(steps):
                keywords: dict[str, Any] = {"projection": "3d"} if n == 3 else {"aspect": "equal"}
                axes = figure.add_subplot(2, steps, row * steps + s + 1, **keywords)
                for vectors, color in (
                    (record[f"frames{n}"][s], GREY),
                    (record[f"evolved{n}"][s], BLUE),
                    (record[f"frames{n}"][s + 1], ORANGE),
                ):
                    for edge in _edges(vectors):
                        axes.plot(*edge, color=color, linewidth=0.7, alpha=0.6)
                    for vector in vectors.T:
                        axes.plot(*np.stack([0 * vector, vector], 1), color=color, linewidth=1.8)
                if row == 0:
                    axes.set_title(f"step {s + 1}")
                axes.set(xticks=[], yticks=[])
                if n == 3:
                    axes.set(zticks=[])
        for color, name in ((GREY, "$Q_s$"), (BLUE, "$D_s Q_s$"), (ORANGE, "$Q_{s+1}$")):
            figure.axes[0].plot([], [], color=color, label=name)
        figure.axes[0].legend()
    return figure


def fig16(record: Record) -> Figure:
    """Running estimates of a few exponents from each initial state, and their spread."""
    time, running = record["time"], record["running"]
    k = running.shape[-1]
    with style():
        figure, (left, right) = panels(2, width=3.6)
        for color, i in zip(PALETTE, sorted({0, k // 4, k // 2, k - 1}), strict=False):
            left.semilogx(time, running[:, :, i], color=color, linewidth=0.7, alpha=0.6)
            left.plot([], [], color=color, label=rf"$\lambda_{{{i + 1}}}$")
        left.set(xlabel="steps", ylabel="running estimate (nats per step)", title="Several initial states")
        left.legend()
        spread = np.exp(np.log(np.maximum(running.std(1, ddof=1), 1e-30)).mean(-1))
        right.loglog(time, spread, color=BLUE, linewidth=1.6, label="all exponents")
        right.loglog(time, running[:, :, 0].std(1, ddof=1), color=ORANGE, label=r"$\lambda_1$")
        right.loglog(time, spread[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
        right.set(xlabel="steps", ylabel="standard deviation", title="Spread")
        right.legend()
    return figure


def table1(record: Record) -> Figure:
    """Seconds against each size, with the power of the last doubling."""
    parts = list(dict.fromkeys(record["part"].tolist()))
    with style():
        figure, axes = panels(len(parts), width=3.0)
        for panel, part in zip(axes, parts, strict=True):
            for i in np.nonzero(record["part"] == part)[0]:
                label = f"{record['doubled'][i]}: power {record['power'][i]:.2f}"
                panel.loglog(record["sizes"][i], record["seconds"][i], "o-", markersize=3, label=label)
            # sizes are doubled: powers of two are few, and their labels do not run into each other
            panel.set_xscale("log", base=2)
            panel.set(xlabel="size", ylabel="processor seconds", title=part)
            panel.legend()
    return figure


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


def _edges(vectors: Array) -> list[Array]:
    """The edges of the parallelotope that the columns span, each `(axis, 2)`."""
    n = vectors.shape[1]
    edges = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for corner in np.ndindex(*[2] * len(others)):
            start = vectors[:, others] @ np.array(corner, dtype=float)
            edges.append(np.stack([start, start + vectors[:, i]], 1))
    return edges
