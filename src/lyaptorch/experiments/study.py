"""Study: seed, progress and checkpoints of one run of a figure; a gain tuned by theory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch._padded import padded
from lyaptorch.record import Record
from lyaptorch.schedules import Schedule
from lyaptorch.tasks import Task
from lyaptorch.tasks.batch import Draw
from lyaptorch.theory import critical_gain
from lyaptorch.training import Model, evaluate, train


@dataclass(frozen=True)
class Study:
    """One run of a figure.

    Attributes:
        seed: determines everything.
        show_progress: None shows a bar on a terminal.
        checkpoint: a file to resume from if it exists, and to write to; None for none.
    """

    seed: int = 0
    show_progress: bool | None = None
    checkpoint: Path | None = None

    def generator(self) -> torch.Generator:
        """A fresh one of the seed, because each use takes a number from it."""
        return torch.Generator().manual_seed(self.seed)

    def ensemble(self, ids: Tensor) -> dict[str, Any]:
        """The arguments of a cell or readout that say which networks it holds, and draw them by the seed."""
        return {"ensemble": tuple(ids.shape), "member_ids": ids, "generator": self.generator()}

    def part(self, *words: object, seed: int | None = None) -> Study:
        """The same for one of several trainings, with a checkpoint of its own, named by these words."""
        name = "-".join(str(word).replace(" ", "-") for word in words)
        path = self.checkpoint and self.checkpoint.with_name(f"{self.checkpoint.name}-{name}")
        return replace(self, checkpoint=path, seed=self.seed if seed is None else seed)

    def train(self, model: Model, task: Task, schedule: Schedule, **settings: Any) -> Record:
        """The Record of `lt.train`."""
        return train(
            model,
            task,
            schedule,
            generator=self.generator(),
            checkpoint=self.checkpoint,
            show_progress=self.show_progress,
            **settings,
        )

    def evaluate(self, model: Model, task: Task, **settings: Any) -> Record:
        """The Record of `lt.evaluate`."""
        return evaluate(model, task, generator=self.generator(), **settings)


STEPS = 1000
"""Steps from which the strength of a task's inputs is estimated."""


def mean_field_gain(task: Task) -> float:
    """The gain at which mean-field theory puts lambda_1 of a `gf2023` network on this task at 0.

    Its units receive V x + b with V ~ N(0, 1) and b ~ U(0, 0.1): s^2 = sum_c E[x_c^2] + E[b^2]. Theory takes
    the input as white in time, so this is a guess for inputs with a mean, as bits have.

    Example:
        >>> from lyaptorch.tasks import TemporalXOR
        >>> 1.4 < mean_field_gain(TemporalXOR(10)) < 1.8
        True

    Source: Gradient Flossing, section 9 (mean-field tuned initialisation); `theory.critical_gain`.
    """
    x = task.inputs(Draw(0, STEPS, stream="gain", dtype=torch.float64))
    strength = padded(x).inputs.square().mean((0, 1)).sum() + 0.1**2 / 3
    return float(critical_gain(strength.sqrt()))
