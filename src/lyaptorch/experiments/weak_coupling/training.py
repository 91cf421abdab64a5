"""Tasks by name, ensembles of networks, and their training, as the figures of this paper share them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell
from lyaptorch.experiments.study import Study
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Task
from lyaptorch.training import SGD, Model, Readout

PAPER = "weak-coupling"
AUTHORS = "Dubinin & Effenberger 2024"


def named(name: str) -> Task:
    """The task called "adding LENGTH", or images such as "mnist" and "permuted mnist"."""
    kind, _, last = name.rpartition(" ")
    return Adding(int(last)) if kind == "adding" else SequentialImages(last, permuted=kind == "permuted")


def ensemble(study: Study, ids: Tensor) -> dict[str, Any]:
    """The arguments of a cell or readout that say which networks it holds; the seed draws their weights."""
    return {"ensemble": tuple(ids.shape), "member_ids": ids, "generator": study.generator()}


def uniform(seed: int, name: str, size: int, low: float, high: float, ids: Tensor) -> Tensor:
    """Settings `(*ids, size)` of units, U(low, high)."""
    return low + (high - low) * Stream(seed, name).uniform((size,), member_ids=ids)


def network(study: Study, cell: Cell, task: Task, ids: Tensor) -> Model:
    """A cell with a readout that starts as `torch.nn.Linear` does, with its variance."""
    n = cell.output_size
    readout = Readout(n, task.output_size, scale=(3 * n) ** -0.5, offset=0.0, **ensemble(study, ids))
    return Model(cell, readout, loss=task.loss)


def fit(study: Study, model: Model, task: Task, iterations: int, **settings: Any) -> Record:
    """Train on the task alone, with test scores: by gradient descent with momentum 0.9, without a clip.

    Other `settings` of `lt.train` go before these. Members that overflow are marked and left out from there
    on.
    """
    usual = {"optimizer": SGD(momentum=0.9), "clip": None, "metrics": ("test",), "unstable": "mark"}
    return study.train(model, task, (FitPhase(iterations),), **{**usual, **settings})


def learned(record: Record, shape: tuple[int, ...]) -> dict[str, Any]:
    """Test scores `(*shape, measurement)`, when they were measured, and when members overflowed, or -1."""
    unstable = record["unstable_at"] if "unstable_at" in record else np.full(shape, -1.0, np.float32)
    return {
        "test_loss": record["test_loss"].reshape(*shape, -1),
        "test_accuracy": record["test_accuracy"].reshape(*shape, -1),
        "unstable_at": np.nan_to_num(unstable, nan=-1.0).reshape(shape),
        "measured_at": np.nanmax(record["measured_at"], 0),
    }
