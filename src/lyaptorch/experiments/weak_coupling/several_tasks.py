"""Networks that are trained on several tasks."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from lyaptorch.cells import Cell
from lyaptorch.experiments.figure import Scales, Study
from lyaptorch.experiments.weak_coupling.trained import (
    MINIMAL,
    Trained,
    network,
)
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Task


def named(name: str) -> Task:
    """The task called "adding LENGTH", or images such as "mnist" and "permuted mnist"."""
    kind, _, last = name.rpartition(" ")
    return Adding(int(last)) if kind == "adding" else SequentialImages(last, permuted=kind == "permuted")


def score_of(name: str) -> tuple[str, str, tuple[float, float]]:
    """The score of the task called so, as a Record has it; what an axis says of it, and where that ends."""
    if name.startswith("adding"):
        return "loss", "RMS error", (0.0, 0.8)
    return "accuracy", "test accuracy", (0.0, 1.03)


def minimal_of(name: str) -> tuple[str, float]:
    """The score of the task called so that counts as minimal performance, and its threshold."""
    if name.startswith("adding"):
        return "test_loss", 0.3
    return "test_accuracy", MINIMAL[name.startswith("permuted")]


class SeveralTasks(Trained):
    """Networks that are trained on images and on the adding problem.

    Attributes:
        tasks: names, as `named` takes them.
        seeds: networks of each kind.
        first: the number of the first of them.
        iterations: task steps on images.
        adding_iterations: and on the adding problem.
        clip: largest norm of the whole gradient, where it is clipped.
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
    )
    seeds: int = 5
    first: int = 0
    iterations: int = 93_600
    adding_iterations: int = 60_000
    clip: float = 1.0
    measurements: int = 40
    test_batches: int = 20

    scales: ClassVar[Scales] = {
        "smoke": {"seeds": 1, "batch": 4, "iterations": 2, "measurements": 2, "test_batches": 1},
        "small": {"hidden_size": 32, "batch": 32, "test_batches": 10},
    }

    def networks(self) -> int:
        """How many are trained on each task."""
        raise NotImplementedError

    def operations(self) -> float:
        """Of all task steps, with 6 for each weight of a network of one layer without gates at each step."""
        n, total = self.hidden_size, 0.0
        for name in self.tasks:
            adding, last = name.startswith("adding"), name.split()[-1]
            # without the data, which may not be there
            length = int(last) if adding else {"cifar10-grey": 1024}.get(last, 784)
            steps = self.adding_iterations if adding else self.iterations
            total += steps * length * n * (n + (2 if adding else 1))
        return 6.0 * self.batch * self.networks() * total

    def learn(
        self, study: Study, name: str, cell: Cell, ids: Tensor, measurements: int, **settings: Any
    ) -> Record:
        """Train on the task called so, and measure that often."""
        task, images = named(name), not name.startswith("adding")
        every = (self.iterations if images else self.adding_iterations) // measurements
        return self.fit(
            study,
            network(study, cell, task, ids),
            task,
            ids,
            # what is measured before the last step is the end
            every * measurements + 1,
            clip_mode="global",
            metrics_every=every,
            test_batches=self.test_batches,
            **settings,
        )
