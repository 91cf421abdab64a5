"""Table 2: residual networks beside other networks, on all tasks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import best_so_far
from lyaptorch.cells import Cell, CoRNNCell, ElmanCell, LSTMCell, ResidualCell, S4DCell, URLSTMCell, residuals
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.weak_coupling.adding import (
    AUTHORS,
    PAPER,
    ensemble,
    fit,
    learned,
    named,
    network,
    uniform,
)
from lyaptorch.plots.primitives import PALETTE, picture
from lyaptorch.record import Record
from lyaptorch.training import Adam

FREQUENCY = {"mnist": 2 * math.pi / 28, "fashion": 2 * math.pi / 28, "cifar10-grey": 2 * math.pi / 32}
"""Characteristic frequencies: a period is a row of the image."""
TABLE = f"{AUTHORS}, table 2"
Networks: TypeAlias = dict[str, Any]
"""Which networks a cell holds, as `training.ensemble` says."""


@picture(lambda record: len(record["name"]))
def curves(record: Record, axes: list[Axes]) -> None:
    """By task, learning curves of each network at its best rate."""
    for i, (name, panel) in enumerate(zip(record["name"], axes, strict=True)):
        adding = str(name).startswith("adding")
        key, label = ("test_loss", "RMS error") if adding else ("test_accuracy", "test accuracy")
        for j, kind in enumerate(record["network_name"]):
            best = record[f"best_{key[5:]}"][i, j].mean(-1)
            rate = int(np.nanargmin(best) if adding else np.nanargmax(best))
            at, own = record["measured_at"][i], record[key][i, j, rate]
            look: dict[str, Any] = {
                "color": PALETTE[j % len(PALETTE)],
                "linestyle": "-" if j < len(PALETTE) else "--",
            }
            panel.plot(at, own.T, alpha=0.3, linewidth=0.7, **look)
            panel.plot(at, np.median(own, 0), label=str(kind), **look)
        panel.set(xlabel="task step", ylabel=label, title=name, ylim=(0, 0.8) if adding else (0, 1.03))
    axes[0].legend()


@declare(
    PAPER,
    "table2",
    "residual networks, Elman, LSTM, UR-LSTM, S4D and coRNN on all tasks",
    cost=("5 s", "9 min", "a day on a GPU"),
    smoke={
        "tasks": ("mnist", "adding 8"),
        "learning_rates": (1e-3,),
        "seeds": 1,
        "hidden_size": 8,
        "batch": 4,
        "iterations": 2,
        "adding_iterations": 2,
        "measurements": 2,
        "test_batches": 1,
    },
    small={
        "tasks": ("mnist", "adding 50"),
        "learning_rates": (3e-3, 1e-2),
        "seeds": 1,
        "hidden_size": 32,
        "batch": 32,
        "iterations": 200,
        "adding_iterations": 2500,
        "measurements": 5,
        "test_batches": 10,
    },
    draw=curves,
)
@dataclass(frozen=True)
class Table2(Figure):
    """The best test score of each network on each task, with Adam and a clipped gradient for all.

    Attributes:
        tasks: names, as `training.named` takes them.
        learning_rates: of each network; the best one counts.
        seeds: networks of each kind and rate.
        hidden_size: n; an S4D has n / 8 channels of 8 modes.
        coupling: eps of the homogeneous residuals.
        batch: trajectories of a task step.
        iterations: task steps on images.
        adding_iterations: and on the adding problem.
        clip: largest norm of the whole gradient.
        measurements: of the test score, evenly spaced; one more before training.
        test_batches: of each test.
    """

    tasks: tuple[str, ...] = (
        "mnist",
        "permuted mnist",
        "adding 100",
        "adding 200",
        "adding 400",
        "adding 800",
        "cifar10-grey",
    )
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    seeds: int = 5
    hidden_size: int = 100
    coupling: float = 0.06
    batch: int = 128
    iterations: int = 23_400
    adding_iterations: int = 60_000
    clip: float = 1.0
    measurements: int = 50
    test_batches: int = 78

    def run(self, study: Study) -> Results:
        """`test_loss, test_accuracy (task, network, lr, seed, measurement)`, `parameters (task, network)`."""
        rows = [
            [self._train(study.part(name, i), name, make) for i, make in enumerate(NETWORKS.values())]
            for name in self.tasks
        ]
        dims = ("task", "network", "lr", "seed")
        shapes = {
            "test_loss": (*dims, "measurement"),
            "test_accuracy": (*dims, "measurement"),
            "best_loss": dims,
            "best_accuracy": dims,
            "unstable_at": dims,
            "parameters": ("task", "network"),
        }
        variables = {
            name: (own, np.array([[cell[name] for cell in row] for row in rows]))
            for name, own in shapes.items()
        }
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "network_name": (("network",), list(NETWORKS)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("task", "measurement"), np.stack([row[0]["measured_at"] for row in rows])),
        }
        return variables, coordinates

    def _train(self, study: Study, name: str, make: Callable[..., Cell]) -> dict[str, Any]:
        """One kind of network, all rates and seeds at once."""
        task, images = named(name), not name.startswith("adding")
        shape = (len(self.learning_rates), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        every = (self.iterations if images else self.adding_iterations) // self.measurements
        w0 = FREQUENCY[name.split()[-1]] if images else 0.0
        turn = 0.0 if name.startswith("permuted") else w0
        cell = make(self, task.input_size, turn, ensemble(study, ids))
        record = fit(
            study,
            network(study, cell, task, ids),
            task,
            every * self.measurements + 1,
            member_ids=ids,
            batch=self.batch,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            optimizer=Adam(),
            clip=self.clip,
            clip_mode="global",
            metrics_every=every,
            test_batches=self.test_batches,
        )
        best = {
            f"best_{score}": best_so_far(record, f"test_{score}")[:, -1].reshape(shape)
            for score in ("loss", "accuracy")
        }
        parameters = sum(p.numel() for p in cell.parameters()) // ids.numel()
        return {**learned(record, shape), **best, "parameters": parameters}

    def checks(self, record: Record) -> list[Check]:
        """The ordering of the table."""
        found = []
        for i, name in enumerate(self.tasks):
            loss = scores(record, "best_loss", i)
            accuracy = scores(record, "best_accuracy", i)
            if name.startswith("adding"):
                least = min(loss["homogeneous"], loss["heterogeneous"])
                sentence = f"{name}: residual networks get below 0.3"
                found.append(at_most(f"{name} residual", sentence, 0.3, least, source=TABLE))
                for other, words in (
                    ("linear", "without the non-linearity they do not"),
                    ("Elman", "nor does an Elman network from the identity"),
                ):
                    found.append(
                        at_least(f"{name} {other}", f"{name}: {words}", 0.3, loss[other], source=TABLE)
                    )
            else:
                best = max(accuracy["homogeneous"], accuracy["heterogeneous"])
                for other, words in (
                    ("linear", "a non-linearity makes residual networks better"),
                    ("Elman", "residual networks beat an Elman network from the identity"),
                    ("LSTM", "and an LSTM"),
                ):
                    bound, sentence = accuracy[other], f"{name}: {words}"
                    found.append(at_least(f"{name} {other}", sentence, bound, best, source=TABLE))
        return found


def scores(record: Record, name: str, task: int) -> dict[str, float]:
    """By network, the score at the best rate, averaged over seeds."""
    worst, best = (np.inf, np.min) if name.endswith("loss") else (-np.inf, np.max)
    means = np.nan_to_num(record[name][task], nan=worst).mean(-1)
    return {str(n): float(best(row)) for n, row in zip(record["network_name"], means, strict=True)}


def _homogeneous(table: Table2, m: int, w0: float, networks: Networks, activation: str = "tanh") -> Cell:
    """A rotation at the frequency of the data; a decay where they have none."""
    turn = residuals.rotation(w0) if w0 else residuals.decay(0.998)
    return ResidualCell(
        m, table.hidden_size, residual=turn, coupling=table.coupling, activation=activation, **networks
    )


def _heterogeneous(table: Table2, m: int, w0: float, networks: Networks) -> Cell:
    """Decays U(0.99, 1) and couplings U(0.02, 0.1), as in table 1; angles U(0, 2 w0)."""
    n, ids = table.hidden_size, networks["member_ids"]
    decays = uniform(table.seed, "decays", n, 0.99, 1.0, ids)
    couplings = uniform(table.seed, "couplings", n, 0.02, 0.1, ids)
    angles = uniform(table.seed, "angles", n // 2, 0.0, 2 * w0, ids)
    turn = residuals.rotation(angles) @ residuals.decay(decays)
    return ResidualCell(m, n, residual=turn, coupling=couplings, **networks)


def _s4d(table: Table2, m: int, w0: float, networks: Networks) -> Cell:
    return S4DCell(m, max(table.hidden_size // 8, 1), 8, **networks)


def _standard(kind: Callable[..., Cell], **settings: Any) -> Callable[..., Cell]:
    def make(table: Table2, m: int, w0: float, networks: Networks) -> Cell:
        return kind(m, table.hidden_size, **settings, **networks)

    return make


NETWORKS: dict[str, Callable[..., Cell]] = {
    "homogeneous": _homogeneous,
    "heterogeneous": _heterogeneous,
    "linear": functools.partial(_homogeneous, activation="linear"),
    "Elman": _standard(ElmanCell, weights="identity"),
    "LSTM": _standard(LSTMCell),
    "UR-LSTM": _standard(URLSTMCell),
    "S4D": _s4d,
    "coRNN": _standard(CoRNNCell),
}
"""Makes an ensemble from the table, the inputs, the frequency of the data and what `ensemble` gives."""
