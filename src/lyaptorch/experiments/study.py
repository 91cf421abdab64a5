"""Study: what the run of a figure is given: seed, progress and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch.record import Record
from lyaptorch.schedules import Schedule
from lyaptorch.tasks import Task
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

    def evaluate(self, model: Model, task: Task, **settings: Any) -> tuple[Tensor, Tensor]:
        """Loss and accuracy `(*e)` on batches that training never saw."""
        return evaluate(model, task, generator=self.generator(), **settings)
