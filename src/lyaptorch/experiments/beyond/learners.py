"""Base of the figures of training: networks of `gf2023`, a schedule, and a test at its end."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lyaptorch.experiments.check import at_least, at_most
from lyaptorch.experiments.figure import Scales, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import Setting
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, Phase, Schedule
from lyaptorch.tangent import Spectrum, lyapunov_spectrum
from lyaptorch.tasks import Task
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model
from lyaptorch.training.presets import gf2023

TIMED_EPOCHS = 40
figure = partial(declare, "beyond")
"""Declares a figure that no paper has."""
# no paper expects an answer to what is asked here
asks_at_least, asks_at_most = partial(at_least, kind="question"), partial(at_most, kind="question")


class Learning(Setting):
    """Networks that learn a task, and are tested. The attributes are those of figure 4c."""

    floss_clip: float | None = 1.0

    scales: ClassVar[Scales] = {
        "smoke": {
            "seeds": 2,
            "epochs": 6,
            "floss_epochs": 3,
            "k": 6,
            "hidden_size": 8,
            "batch": 2,
            "length": 20,
        },
        "small": {
            "seeds": 3,
            "epochs": 600,
            "floss_epochs": 200,
            "k": 30,
            "hidden_size": 32,
            "batch": 8,
            "length": 100,
        },
    }

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

    def flossing(self, who: Tensor | None = None, **changed: Any) -> FlossPhase:
        """An episode for the networks where `who` is true, or for all."""
        settings = {"k": self.k, "clip": self.floss_clip, "who": who, **changed}
        return FlossPhase(self.floss_epochs, **settings)

    def learn(
        self,
        study: Study,
        model: Model,
        task: Task,
        schedule: Schedule,
        ids: Tensor,
        dims: tuple[str, ...],
        **settings: Any,
    ) -> tuple[Record, dict[str, Any]]:
        """The Record of `lt.train`; `accuracy (*dims, epoch)`, and `final_accuracy (*dims)` of a test."""
        sizes = {"batch": self.batch, "steps": self.length}
        record = study.train(model, task, schedule, member_ids=ids, **sizes, **settings)
        final = self.test(study, model, task, ids)["accuracy"]
        return record, {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "final_accuracy": (dims, final.reshape(ids.shape)),
        }

    @torch.no_grad()
    def spectrum(self, model: Model, task: Task, ids: Tensor, steps: int, k: int | None = None) -> Spectrum:
        """Exponents of the networks `(*e, 1, k)` on inputs of the task, after 50 steps for the frame."""
        inputs = task.inputs(Draw(self.seed, 50 + steps, member_ids=ids, stream="measure"))
        # 50 steps in which the frame turns towards the directions that grow most
        return lyapunov_spectrum(model.cell, inputs, k=k, h0=model.initial_state(1), tangent_transient=50)

    def seconds(self, phase: Phase) -> float:
        """Seconds of one core that an epoch of a phase takes for one network, from a few measured ones."""
        taken, study = [], Study(self.seed, show_progress=False)
        for epochs in (1, TIMED_EPOCHS + 1):
            model, task, ids = self.networks()
            few: Schedule = (replace(phase, epochs=epochs, who=None),)
            start = time.process_time()
            study.train(model, task, few, batch=self.batch, steps=self.length, member_ids=ids)
            taken.append(time.process_time() - start)
        # the difference is free of what is done once: graphs, buffers, the Record
        return max(0.0, taken[1] - taken[0]) / TIMED_EPOCHS / ids.numel()
