"""The tasks and the networks of weakly coupled residuals, drawn."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.record import Record


def fig1(record: Record) -> Figure:
    """An image and its sequence, a sum, a network, and where the eigenvalues of residuals lie."""
    with style():
        figure, (image, pixels, adding, network, plane) = panels(5, width=3.0)
        image.imshow(record["image"], cmap="gray_r")
        image.set(title=f"An image: {int(record['label'])}")
        image.axis("off")
        for i, name in enumerate(("in order", "permuted")):
            pixels.plot(record["pixels"][i] - 1.3 * i, color=PALETTE[i], linewidth=0.6, label=name)
        pixels.set(xlabel="step", yticks=(), ylim=(-1.4, 1.7), title="Pixel by pixel")
        pixels.legend(loc="upper right", ncols=2)
        _sum(adding, record)
        _network(network)
        turn = np.linspace(0, 2 * np.pi, 200)
        plane.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.8)
        for i, name in enumerate(record["residual_name"]):
            plane.plot(
                *record["eigenvalues"][i].T,
                "o^sv"[i],
                color=PALETTE[i],
                markersize=4 - i / 2,
                zorder=9 - i,
                label=name,
            )
        plane.set(xlabel="real", ylabel="imaginary", title="Eigenvalues of residuals", aspect="equal")
        plane.legend(loc="center")
    return figure


def _sum(axes: Axes, record: Record) -> None:
    numbers, cues = record["addends"]
    cued = np.flatnonzero(cues)
    axes.plot(numbers, color=GREY, linewidth=0.7)
    axes.vlines(cued, 0, numbers[cued], color=ORANGE)
    axes.plot(cued, numbers[cued], "o", color=ORANGE, markersize=4)
    axes.axvline((len(numbers) - 1) / 2, color=GREY, linestyle=":", linewidth=0.8)
    words = " + ".join(f"{number:.2f}" for number in numbers[cued])
    axes.set(xlabel="step", ylabel="number", title=f"Adding: {words} = {float(record['sum']):.2f}")


def _network(axes: Axes) -> None:
    """h' = A h + eps phi(W h + V x + b), with the residual as a way past the recurrent layer."""
    boxes = {
        "$h_{t-1}$": (0.0, 1.0),
        r"$\epsilon\,\phi(a)$": (1.5, 1.0),
        "$+$": (2.8, 1.0),
        "$h_t$": (3.8, 1.0),
    }
    boxes["$x_t$"] = (1.5, 0.0)
    for text, at in boxes.items():
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": BLUE if "h_" in text else GREY}
        axes.text(*at, text, ha="center", va="center", bbox=box)
    arrows = (
        ((0.35, 1.0), (1.0, 1.0), "$W$", (0.65, 1.06)),
        ((1.5, 0.2), (1.5, 0.8), "$V$", (1.6, 0.45)),
        ((2.05, 1.0), (2.6, 1.0), "", (0.0, 0.0)),
        ((3.0, 1.0), (3.5, 1.0), "", (0.0, 0.0)),
    )
    for start, end, text, at in arrows:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GREY})
        axes.text(*at, text, ha="center")
    past = {"arrowstyle": "->", "color": ORANGE, "connectionstyle": "arc3,rad=-0.45"}
    axes.annotate("", (2.8, 1.15), (0.0, 1.15), arrowprops=past)
    axes.text(1.4, 1.83, "residual $A$", ha="center", color=ORANGE)
    axes.set(xlim=(-0.5, 4.3), ylim=(-0.3, 2.2), title="A network")
    axes.axis("off")
