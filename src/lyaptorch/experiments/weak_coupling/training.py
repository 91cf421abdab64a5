"""What the training runs of this paper share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch._types import Number
from lyaptorch.cells import Cell
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Task
from lyaptorch.training import SGD, Model, Readout, train


def generator(seed: int) -> torch.Generator:
    """A fresh one, because each use takes a seed from it."""
    return torch.Generator().manual_seed(seed)


def named(name: str) -> Task:
    """The task called "adding LENGTH", or images such as "mnist" and "permuted mnist"."""
    kind, _, last = name.rpartition(" ")
    return Adding(int(last)) if kind == "adding" else SequentialImages(last, permuted=kind == "permuted")


def network(cell: Cell, task: Task, member_ids: Tensor, seed: int) -> Model:
    """A cell with a readout that starts as `torch.nn.Linear` does, with its variance."""
    n = cell.output_size
    readout = Readout(
        n,
        task.output_size,
        scale=(3 * n) ** -0.5,
        offset=0.0,
        ensemble=cell.ensemble,
        member_ids=member_ids,
        generator=generator(seed),
    )
    return Model(cell, readout, loss=task.loss)


def trained(
    model: Model,
    task: Task,
    iterations: int,
    *,
    member_ids: Tensor,
    seed: int,
    batch: int,
    lr: Number,
    measure_every: int,
    test_batches: int,
    show_progress: bool | None,
    checkpoint: Path | None,
    **settings: Any,
) -> Record:
    """Train by gradient descent with momentum 0.9, with test scores.

    Members that overflow are marked and left out from there on.
    """
    return train(
        model,
        task,
        (FitPhase(iterations),),
        **{
            "batch": batch,
            "lr": lr,
            "optimizer": SGD(momentum=0.9),
            "clip": None,
            "metrics": ("test",),
            "metrics_every": measure_every,
            "test_batches": test_batches,
            "unstable": "mark",
            "member_ids": member_ids,
            "generator": generator(seed),
            "checkpoint": checkpoint,
            "show_progress": show_progress,
            **settings,
        },
    )


def by_member(record: Record, name: str, shape: tuple[int, ...]) -> Any:
    """A variable with its members in the shape of the ensemble."""
    return record[name].reshape(*shape, *record[name].shape[1:])


def first_unstable(record: Record, shape: tuple[int, ...]) -> Any:
    """The task step at which each member overflowed, -1 where none did."""
    if "unstable_at" not in record:
        return torch.full(shape, -1.0)
    return torch.as_tensor(record["unstable_at"]).nan_to_num(-1.0).reshape(shape)
