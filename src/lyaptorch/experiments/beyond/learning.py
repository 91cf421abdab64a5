"""Base of the figures of training: networks of `gf2023`, a schedule, and a test at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lyaptorch.experiments.gradient_flossing.setting import Setting
from lyaptorch.experiments.study import Study
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, Phase, Schedule
from lyaptorch.tasks import Task
from lyaptorch.training import Model
from lyaptorch.training.presets import gf2023

PAPER = "beyond"
TIMED_EPOCHS = 40
SMOKE: dict[str, Any] = {
    "seeds": 2,
    "epochs": 6,
    "floss_epochs": 3,
    "k": 6,
    "hidden_size": 8,
    "batch": 2,
    "length": 20,
}
SMALL: dict[str, Any] = {
    "seeds": 3,
    "epochs": 600,
    "floss_epochs": 200,
    "k": 30,
    "hidden_size": 32,
    "batch": 8,
    "length": 100,
}


@dataclass(frozen=True)
class Learning(Setting):
    """Networks that learn a task, and are tested. The attributes are those of figure 4c."""

    floss_clip: float | None = 1.0

    def model(self, study: Study, task: Task, ids: Tensor, **settings: Any) -> Model:
        """The networks `ids` of `gf2023`."""
        return gf2023(
            task,
            hidden_size=self.hidden_size,
            rows=self.batch,
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=study.generator(),
            **settings,
        )

    def flossing(self, who: Tensor) -> FlossPhase:
        """An episode for the networks where `who` is true."""
        return FlossPhase(self.floss_epochs, k=self.k, clip=self.floss_clip, who=who)

    def learn(
        self, study: Study, model: Model, task: Task, schedule: Schedule, ids: Tensor, **settings: Any
    ) -> tuple[Record, Tensor]:
        """The Record of `lt.train`, and the accuracy `(*e)` on batches that training never saw."""
        sizes = {"batch": self.batch, "steps": self.length}
        record = study.train(model, task, schedule, member_ids=ids, **sizes, **settings)
        accuracy = self.test(study, model, task, ids)["accuracy"]
        return record, torch.from_numpy(accuracy).reshape(ids.shape)

    def seconds(self, phase: Phase) -> float:
        """Seconds of one core that an epoch of a phase takes for one network, from a few measured ones."""
        taken, study = [], Study(self.seed, show_progress=False)
        for epochs in (1, TIMED_EPOCHS + 1):
            model, task, ids = self.networks()
            few: Schedule = (replace(phase, epochs=epochs, who=None),)
            start = time.process_time()
            study.train(model, task, few, batch=self.batch, steps=self.length, member_ids=ids)
            taken.append(time.process_time() - start)
        return max(0.0, taken[1] - taken[0]) / TIMED_EPOCHS / ids.numel()
