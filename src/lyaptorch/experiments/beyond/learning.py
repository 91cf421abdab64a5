"""What the figures of training have in common: networks of `gf2023`, a schedule, and a test at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lyaptorch.experiments.gradient_flossing.setting import Setting
from lyaptorch.flossing import FlossPhase, Schedule
from lyaptorch.record import Record
from lyaptorch.tasks import Task
from lyaptorch.train import Model, evaluate, train


@dataclass(frozen=True)
class Learning(Setting):
    """Networks that learn a task, and are tested. The attributes are those of figure 4c."""

    floss_clip: float | None = 1.0

    SMOKE: ClassVar[Mapping[str, Any]] = {"seeds": 2, "epochs": 6, "floss_epochs": 3, "k": 6} | {
        "hidden_size": 8,
        "batch": 2,
        "length": 20,
    }
    SMALL: ClassVar[Mapping[str, Any]] = {"seeds": 4, "epochs": 800, "floss_epochs": 200, "k": 30} | {
        "hidden_size": 32,
        "batch": 8,
        "length": 100,
    }

    def flossing(self, members: Tensor) -> FlossPhase:
        """An episode for the networks where `members` is true."""
        return FlossPhase(self.floss_epochs, k=self.k, clip=self.floss_clip, members=members)

    def learn(
        self,
        model: Model,
        task: Task,
        schedule: Schedule,
        ids: Tensor,
        checkpoint: Path | None,
        show_progress: bool | None,
    ) -> tuple[Record, Tensor]:
        """The Record of `lt.train`, and the accuracy `(*e)` on batches that training never saw."""
        record = train(
            model,
            task,
            schedule,
            batch=self.batch,
            length=self.length,
            members=ids,
            generator=self._generator(),
            checkpoint=checkpoint,
            show_progress=show_progress,
        )
        _, accuracy = evaluate(
            model, task, batch=self.batch, length=self.length, members=ids, generator=self._generator()
        )
        return record, accuracy
