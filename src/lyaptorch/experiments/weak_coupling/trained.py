"""The tasks and networks of this paper, how they are trained and tested; figure 1, which draws them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, residuals
from lyaptorch.experiments.check import THEORY, Checks, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, letters, picture
from lyaptorch.record import Given, Record, Variable
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Draw, Task
from lyaptorch.training import SGD, Model, Readout

figure = partial(declare, "weak-coupling")
"""Declares a figure of this paper."""
AUTHORS = "Dubinin & Effenberger 2024"
MINIMAL = {False: 0.5, True: 0.3}
"""Accuracy that counts as minimal performance, of digits in order and permuted; the paper's are lost."""


def uniform(seed: int, name: str, size: int, low: float, high: float, ids: Tensor) -> Tensor:
    """Settings `(*ids, size)` of units, U(low, high)."""
    return low + (high - low) * Stream(seed, name).uniform((size,), member_ids=ids)


def network(study: Study, cell: Cell, task: Task, ids: Tensor) -> Model:
    """A cell with a readout that starts as `torch.nn.Linear` does, with its variance."""
    # U(-a, a) with a^2 = 1/n has the variance a^2 / 3
    n = cell.output_size
    readout = Readout(n, task.output_size, scale=(3 * n) ** -0.5, offset=0.0, **study.ensemble(ids))
    return Model(cell, readout, loss=task.loss)


def steps_to(curves: NDArray[Any], at: NDArray[Any], least: float, *, falls: bool = False) -> NDArray[Any]:
    """Task steps until `curves (..., measurement)` reach minimal performance; the last where they never do.

    A loss falls to it; NaN reaches nothing.

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1.
    """
    reached = curves <= least if falls else curves >= least
    # argmax of truth values is the first that is true
    return np.asarray(np.where(reached.any(-1), at[reached.argmax(-1)], at[-1]))


def learned(record: Record, ids: Tensor, dims: tuple[str, ...]) -> dict[str, Any]:
    """Test scores of networks `ids (*dims)`, when they were measured, and when members overflowed, or -1."""
    # a Record has it only where somebody overflowed
    unstable = record["unstable_at"] if "unstable_at" in record else np.full(ids.shape, -1.0, np.float32)
    scores = {name: record[name].reshape(*ids.shape, -1) for name in ("test_loss", "test_accuracy")}
    return {
        **{name: ((*dims, "measurement"), values) for name, values in scores.items()},
        "unstable_at": (dims, np.nan_to_num(unstable, nan=-1.0).reshape(ids.shape)),
        "measured_at": (("measurement",), record["measured_at"][0]),
    }


def to_the_end(record: Record, times: NDArray[np.integer]) -> Record:
    """The same with what is measured at all of these epochs, NaN after the last member has overflowed.

    The training ends there: without, a part whose networks all overflow would not fit to others.
    """

    def whole(variable: Variable) -> Given:
        dims, values, attributes = variable
        if "measurement" in dims and (lost := len(times) - values.shape[dims.index("measurement")]):
            more = [(0, lost if dim == "measurement" else 0) for dim in dims]
            values = np.pad(values, more, constant_values=np.nan)
        return dims, values, attributes

    variables = {name: whole(variable) for name, variable in record.variables.items()}
    dims, values, attributes = record.variables["measured_at"]
    every = np.broadcast_to(times, (len(values), len(times))).astype(values.dtype)
    variables["measured_at"] = dims, every, attributes
    return Record(record.kind, record.config, variables, record.coordinates)


class Trained(Figure):
    """Networks that are trained on a task.

    Attributes:
        hidden_size: n.
        coupling: eps, of homogeneous residuals where there are others.
        batch: trajectories of a task step.
    """

    hidden_size: int = 100
    coupling: float = 0.03
    batch: int = 128

    def fit(
        self, study: Study, model: Model, task: Task, ids: Tensor, iterations: int, **settings: Any
    ) -> Record:
        """Train on the task alone, with test scores.

        Without other `settings` of `lt.train` by gradient descent with momentum 0.9 and no clip; members that
        overflow are marked and left out from there on.
        """
        # where r > 1 states and gradients grow exponentially, and some overflow; the others go on
        usual = {"optimizer": SGD(momentum=0.9), "clip": None, "metrics": ("test",), "unstable": "mark"}
        whose = {"member_ids": ids, "batch": self.batch}
        chosen: dict[str, Any] = {"metrics_every": 100, **usual, **settings}
        record = study.train(model, task, (FitPhase(iterations),), **whose, **chosen)
        return to_the_end(record, np.arange(0, iterations, chosen["metrics_every"]))


@picture(5, width=3.0)
def overview(record: Record, axes: list[Axes]) -> None:
    """An image and its sequence, a sum, a network, and where the eigenvalues of residuals lie."""
    image, pixels, adding, network, plane = axes
    image.imshow(record["image"], cmap="gray_r")
    image.set(title=f"An image: {int(record['label'])}")
    image.axis("off")
    for i, name in enumerate(("in order", "permuted")):
        # pixels are in [0, 1]: one sequence below the other
        pixels.plot(record["pixels"][i] - 1.3 * i, color=PALETTE[i], linewidth=0.6, label=name)
    pixels.set(xlabel="step", yticks=(), ylim=(-1.4, 1.7), title="Pixel by pixel")
    pixels.legend(loc="upper right", ncols=2)
    _sum(adding, record)
    _network(network)
    _plane(plane, record)
    letters(axes, "ABCDE")


def _plane(axes: Axes, record: Record) -> None:
    """Inside the unit circle memory fades, on it it stays, outside it grows."""
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
    # one cue lies in each half
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
        "$x_t$": (1.5, 0.0),
    }
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


@figure(
    "fig1",
    "the tasks, and the networks with their residuals, drawn",
    cost=("1 s", "2 s", "2 s"),
    smoke={"length": 10, "hidden_size": 4},
    small={"length": 100, "hidden_size": 20},
    draw=overview,
)
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
        orders = [SequentialImages(self.images, permuted=p) for p in (False, True)]
        plain, permuted = (task.draw(Draw(self.seed, task.length)) for task in orders)
        pixels = torch.stack([batch.inputs[:, 0, 0] for batch in (plain, permuted)])
        side = math.isqrt(orders[0].length)
        adding = Adding(self.length).draw(Draw(self.seed, self.length, dtype=torch.float64))
        # both ends are among them, so that the largest deviation from r is delta itself
        heterogeneous = torch.linspace(-1, 1, self.hidden_size) * self.spread + self.decay
        recipes = {
            f"decay, r = {self.decay:g}": residuals.decay(self.decay),
            "rotation": residuals.rotation(self.angle),
            "heterogeneous": residuals.decay(heterogeneous),
            "random orthogonal": residuals.orthogonal(self.hidden_size, generator=study.generator()),
        }
        made = [recipe(self.hidden_size, torch.tensor(0)).dense().double() for recipe in recipes.values()]
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

    def claims(self, record: Record) -> Checks:
        """What is drawn is what it says."""
        numbers, cues = record["addends"]
        ordered, permuted = np.sort(record["pixels"], -1)
        # |lambda| of a decay is r, of a rotation or an orthogonal matrix 1
        sizes = np.hypot(*np.moveaxis(record["eigenvalues"], -1, 0))
        off = np.abs(sizes - np.array([self.decay, 1.0, self.decay, 1.0])[:, None]).max(-1)
        same, total = float(abs(ordered - permuted).max()), float(record["sum"])
        sentence = "largest |difference| of the sorted pixels, in order vs permuted"
        yield at_most("pixels", sentence, 0.0, same, **THEORY)
        sentence = "target of the adding task (expected: sum of the cued numbers)"
        yield near("sum", sentence, numbers @ cues, total, 1e-12, **THEORY)
        yield at_most("decays", "homogeneous decay: largest ||eigenvalue| − r|", 1e-6, off[0], **THEORY)
        sentence = "rotation and random orthogonal residual: largest ||eigenvalue| − 1|"
        yield at_most("turns", sentence, 1e-6, off[1::2].max(), **THEORY)
        sentence = "heterogeneous decays: largest ||eigenvalue| − r| (expected: delta)"
        yield near("spread", sentence, self.spread, off[2], 1e-6, **THEORY)
