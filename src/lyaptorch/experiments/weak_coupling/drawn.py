"""Figure 1: the tasks and the networks, drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.cells import residuals
from lyaptorch.experiments.check import Check, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.weak_coupling.adding import PAPER
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, picture
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages


@picture(5, width=3.0)
def overview(record: Record, axes: list[Axes]) -> None:
    """An image and its sequence, a sum, a network, and where the eigenvalues of residuals lie."""
    image, pixels, adding, network, plane = axes
    image.imshow(record["image"], cmap="gray_r")
    image.set(title=f"An image: {int(record['label'])}")
    image.axis("off")
    for i, name in enumerate(("in order", "permuted")):
        pixels.plot(record["pixels"][i] - 1.3 * i, color=PALETTE[i], linewidth=0.6, label=name)
    pixels.set(xlabel="step", yticks=(), ylim=(-1.4, 1.7), title="Pixel by pixel")
    pixels.legend(loc="upper right", ncols=2)
    _sum(adding, record)
    _network(network)
    _plane(plane, record)


def _plane(axes: Axes, record: Record) -> None:
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=0.8)
    for i, name in enumerate(record["residual_name"]):
        marks = {"color": PALETTE[i], "markersize": 4 - i / 2, "zorder": 9 - i, "label": name}
        axes.plot(*record["eigenvalues"][i].T, "o^sv"[i], **marks)
    axes.set(xlabel="real", ylabel="imaginary", title="Eigenvalues of residuals", aspect="equal")
    axes.legend(loc="center")


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


@declare(
    PAPER,
    "fig1",
    "the tasks, and the networks with their residuals, drawn",
    cost=("1 s", "2 s", "2 s"),
    smoke={"length": 10, "hidden_size": 4},
    small={"length": 100, "hidden_size": 20},
    draw=overview,
)
@dataclass(frozen=True)
class Fig1(Figure):
    """A trial of each task, and the residual matrices of four kinds of networks.

    Attributes:
        images: the data set.
        length: steps of the adding problem.
        hidden_size: n.
        decay: r of the subcritical residual, and the middle of heterogeneous ones.
        spread: delta, how far heterogeneous decays are from r.
        angle: of the rotation, radians per step.
    """

    images: str = "mnist"
    length: int = 200
    hidden_size: int = 100
    decay: float = 0.95
    spread: float = 0.04
    angle: float = 2 * math.pi / 28

    def run(self, study: Study) -> Results:
        """An image `(row, column)` and its `pixels (order, step)`, a sum, and eigenvalues of residuals."""
        shared_id = torch.tensor(0)
        orders = [SequentialImages(self.images, permuted=p) for p in (False, True)]
        plain, permuted = (
            task.draw(self.seed, member_ids=shared_id, epoch=0, batch=1, length=task.length)
            for task in orders
        )
        pixels = torch.stack([batch.inputs[:, 0, 0] for batch in (plain, permuted)])
        side = math.isqrt(orders[0].length)
        adding = Adding(self.length).draw(
            self.seed, member_ids=shared_id, epoch=0, batch=1, length=self.length, dtype=torch.float64
        )
        heterogeneous = torch.linspace(-1, 1, self.hidden_size) * self.spread + self.decay
        recipes = {
            f"decay, r = {self.decay:g}": residuals.decay(self.decay),
            "rotation": residuals.rotation(self.angle),
            "heterogeneous": residuals.decay(heterogeneous),
            "random orthogonal": residuals.orthogonal(self.hidden_size, generator=study.generator()),
        }
        made = [recipe(self.hidden_size, shared_id).dense().double() for recipe in recipes.values()]
        eigenvalues = torch.view_as_real(torch.stack([torch.linalg.eigvals(A) for A in made]))
        variables: dict[str, Any] = {
            "image": (("row", "column"), pixels[0].reshape(side, side)),
            "pixels": (("order", "step"), pixels),
            "label": ((), plain.targets[-1].reshape(())),
            "addends": (("channel", "time"), adding.inputs[:, 0].T),
            "sum": ((), adding.targets[-1].reshape(())),
            "eigenvalues": (("residual", "unit", "part"), eigenvalues),
        }
        coordinates = {
            "residual_name": (("residual",), list(recipes)),
            "part": (("part",), ["real", "imaginary"]),
        }
        return variables, coordinates

    def checks(self, record: Record) -> list[Check]:
        """What is drawn is what it says."""
        numbers, cues = record["addends"]
        ordered, permuted = np.sort(record["pixels"], -1)
        sizes = np.hypot(*np.moveaxis(record["eigenvalues"], -1, 0))
        off = np.abs(sizes - np.array([self.decay, 1.0, self.decay, 1.0])[:, None]).max(-1)
        same, total = float(abs(ordered - permuted).max()), float(record["sum"])
        exact: dict[str, Any] = {"kind": "identity", "source": "theory"}
        return [
            at_most("pixels", "permuted, the pixels are the same ones", 0.0, same, **exact),
            near("sum", "the sum is that of the cued numbers", numbers @ cues, total, 1e-12, **exact),
            at_most("decays", "homogeneous decays: |eigenvalues| are r", 1e-6, off[0], **exact),
            at_most("turns", "rotations and orthogonal ones: they are 1", 1e-6, max(off[1], off[3]), **exact),
            near("spread", "heterogeneous ones: they reach r + delta", self.spread, off[2], 1e-6, **exact),
        ]
