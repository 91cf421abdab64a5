"""What the figures of training have in common: networks of `gf2023`, a schedule, and a test at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lyaptorch._types import Number
from lyaptorch.experiments.gradient_flossing.setting import Setting
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, Phase, Schedule
from lyaptorch.tasks import Task
from lyaptorch.training import Model, evaluate, train

TIMED_EPOCHS = 40


@dataclass(frozen=True)
class Learning(Setting):
    """Networks that learn a task, and are tested. The attributes are those of figure 4c."""

    floss_clip: float | None = 1.0

    SMOKE: ClassVar[Mapping[str, Any]] = {"seeds": 2, "epochs": 6, "floss_epochs": 3, "k": 6} | {
        "hidden_size": 8,
        "batch": 2,
        "length": 20,
    }
    SMALL: ClassVar[Mapping[str, Any]] = {"seeds": 3, "epochs": 600, "floss_epochs": 200, "k": 30} | {
        "hidden_size": 32,
        "batch": 8,
        "length": 100,
    }

    def flossing(self, who: Tensor) -> FlossPhase:
        """An episode for the networks where `members` is true."""
        return FlossPhase(self.floss_epochs, k=self.k, clip=self.floss_clip, who=who)

    def learn(
        self,
        model: Model,
        task: Task,
        schedule: Schedule,
        ids: Tensor,
        checkpoint: Path | None,
        show_progress: bool | None,
        lr: Number = 1e-3,
    ) -> tuple[Record, Tensor]:
        """The Record of `lt.train`, and the accuracy `(*e)` on batches that training never saw."""
        record = train(
            model,
            task,
            schedule,
            batch=self.batch,
            length=self.length,
            lr=lr,
            member_ids=ids,
            generator=self._generator(),
            checkpoint=checkpoint,
            show_progress=show_progress,
        )
        _, accuracy = evaluate(
            model, task, batch=self.batch, length=self.length, member_ids=ids, generator=self._generator()
        )
        return record, accuracy

    def seconds(self, phase: Phase) -> float:
        """Seconds of one core that an epoch of a phase takes for one network, from a few measured ones."""
        taken = []
        for epochs in (1, TIMED_EPOCHS + 1):
            model, task, ids = self.networks()
            few: Schedule = (replace(phase, epochs=epochs, who=None),)
            start = time.process_time()
            train(
                model,
                task,
                few,
                batch=self.batch,
                length=self.length,
                member_ids=ids,
                generator=self._generator(),
                show_progress=False,
            )
            taken.append(time.process_time() - start)
        return max(0.0, taken[1] - taken[0]) / TIMED_EPOCHS / ids.numel()
