"""Table 2: residual networks beside other networks, on all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import best_so_far
from lyaptorch.cells import Cell, CoRNNCell, ElmanCell, LSTMCell, ResidualCell, S4DCell, URLSTMCell, residuals
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.weak_coupling.training import (
    by_member,
    first_unstable,
    generator,
    named,
    network,
    trained,
)
from lyaptorch.record import Record
from lyaptorch.training import Adam

FREQUENCY = {"mnist": 2 * math.pi / 28, "fashion": 2 * math.pi / 28, "cifar10-grey": 2 * math.pi / 32}
"""Characteristic frequencies: a period is a row of the image."""


@dataclass(frozen=True)
class Table2:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "table2"
    shows: ClassVar[str] = "residual networks, Elman, LSTM, UR-LSTM, S4D and coRNN on all tasks"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
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
        "small": {
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
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "9 min", "paper": "a day on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`test_loss, test_accuracy (task, network, lr, seed, measurement)`, `parameters (task, network)`."""
        networks: tuple[Callable[..., Cell], ...] = tuple(NETWORKS.values())
        rows = []
        for name in self.tasks:
            path = checkpoint and checkpoint.with_name(f"{checkpoint.name}-{name}".replace(" ", "-"))
            rows.append([self._train(name, i, make, show_progress, path) for i, make in enumerate(networks)])
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
            name: (own, np.stack([np.stack([cell[name] for cell in row]) for row in rows]))
            for name, own in shapes.items()
        }
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "network_name": (("network",), list(NETWORKS)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("task", "measurement"), np.stack([row[0]["measured_at"] for row in rows])),
        }
        return Record(f"weak-coupling {self.figure}", asdict(self), variables, coordinates)

    def _train(
        self,
        name: str,
        index: int,
        make: Callable[..., Cell],
        show_progress: bool | None,
        checkpoint: Path | None,
    ) -> dict[str, Any]:
        """One kind of network, all rates and seeds at once."""
        task, images = named(name), not name.startswith("adding")
        shape = (len(self.learning_rates), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        every = (self.iterations if images else self.adding_iterations) // self.measurements
        w0 = FREQUENCY[name.split()[-1]] if images else 0.0
        cell = make(self, task.input_size, 0.0 if name.startswith("permuted") else w0, ids)
        record = trained(
            network(cell, task, ids, self.seed),
            task,
            every * self.measurements + 1,
            member_ids=ids,
            seed=self.seed,
            batch=self.batch,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            optimizer=Adam(),
            clip=self.clip,
            clip_mode="global",
            measure_every=every,
            test_batches=self.test_batches,
            show_progress=show_progress,
            checkpoint=checkpoint and checkpoint.with_name(f"{checkpoint.name}-{index}"),
        )
        scores = ("test_loss", "test_accuracy")
        best = {f"best_{key[5:]}": best_so_far(record, key)[:, -1].reshape(shape) for key in scores}
        return {
            **{key: by_member(record, key, shape) for key in scores},
            **best,
            "unstable_at": first_unstable(record, shape).numpy(),
            "parameters": sum(p.numel() for p in cell.parameters()) // ids.numel(),
            "measured_at": np.nanmax(record["measured_at"], 0),
        }

    def checks(self, record: Record) -> list[Check]:
        """The ordering of the table."""
        found = []
        for i, name in enumerate(self.tasks):
            loss = scores(record, "best_loss", i)
            accuracy = scores(record, "best_accuracy", i)
            best = max(accuracy["homogeneous"], accuracy["heterogeneous"])
            if name.startswith("adding"):
                least = min(loss["homogeneous"], loss["heterogeneous"])
                found += [
                    at_most(f"{name}: residual networks get below 0.3", 0.3, least),
                    at_least(f"{name}: without the non-linearity they do not", 0.3, loss["linear"]),
                    at_least(f"{name}: nor does an Elman network from the identity", 0.3, loss["Elman"]),
                ]
            else:
                found += [
                    at_least(f"{name}: {words}", accuracy[other], best)
                    for other, words in (
                        ("linear", "a non-linearity makes residual networks better"),
                        ("Elman", "residual networks beat an Elman network from the identity"),
                        ("LSTM", "and an LSTM"),
                    )
                ]
        return found


def scores(record: Record, name: str, task: int) -> dict[str, float]:
    """By network, the score at the best rate, averaged over seeds."""
    worst, best = (np.inf, np.min) if name.endswith("loss") else (-np.inf, np.max)
    means = np.nan_to_num(record[name][task], nan=worst).mean(-1)
    return {str(n): float(best(row)) for n, row in zip(record["network_name"], means, strict=True)}


def _homogeneous(table: Table2, m: int, w0: float, ids: Tensor, activation: str = "tanh") -> Cell:
    """A rotation at the frequency of the data; a decay where they have none."""
    turn = residuals.rotation(w0) if w0 else residuals.decay(0.998)
    shared = _shared(table, ids)
    return ResidualCell(
        m, table.hidden_size, residual=turn, coupling=table.coupling, activation=activation, **shared
    )


def _linear(table: Table2, m: int, w0: float, ids: Tensor) -> Cell:
    return _homogeneous(table, m, w0, ids, "linear")


def _heterogeneous(table: Table2, m: int, w0: float, ids: Tensor) -> Cell:
    """Decays U(0.99, 1) and couplings U(0.02, 0.1), as in table 1; angles U(0, 2 w0)."""
    n = table.hidden_size

    def draw(name: str, size: int, low: float, high: float) -> Tensor:
        return low + (high - low) * Stream(table.seed, name).uniform((size,), member_ids=ids)

    decays, couplings = draw("decays", n, 0.99, 1.0), draw("couplings", n, 0.02, 0.1)
    turn = residuals.rotation(draw("angles", n // 2, 0.0, 2 * w0)) @ residuals.decay(decays)
    return ResidualCell(m, n, residual=turn, coupling=couplings, **_shared(table, ids))


def _elman(table: Table2, m: int, w0: float, ids: Tensor) -> Cell:
    return ElmanCell(m, table.hidden_size, weights="identity", **_shared(table, ids))


def _gated(kind: Callable[..., Cell]) -> Callable[..., Cell]:
    def make(table: Table2, m: int, w0: float, ids: Tensor) -> Cell:
        return kind(m, table.hidden_size, **_shared(table, ids))

    return make


def _s4d(table: Table2, m: int, w0: float, ids: Tensor) -> Cell:
    return S4DCell(m, max(table.hidden_size // 8, 1), 8, **_shared(table, ids))


def _shared(table: Table2, ids: Tensor) -> dict[str, Any]:
    return {"ensemble": tuple(ids.shape), "member_ids": ids, "generator": generator(table.seed)}


NETWORKS: dict[str, Callable[..., Cell]] = {
    "homogeneous": _homogeneous,
    "heterogeneous": _heterogeneous,
    "linear": _linear,
    "Elman": _elman,
    "LSTM": _gated(LSTMCell),
    "UR-LSTM": _gated(URLSTMCell),
    "S4D": _s4d,
    "coRNN": _gated(CoRNNCell),
}
"""Makes an ensemble from the table, the inputs, the frequency of the data and the members."""
