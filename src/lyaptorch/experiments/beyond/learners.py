"""Base of the figures of training: networks of `gf2023`, a schedule, and a test at its end."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from lyaptorch.experiments.check import OURS, at_least, at_most
from lyaptorch.experiments.figure import Scales, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import Setting
from lyaptorch.schedules import FlossPhase, Phase, Schedule

TIMED_EPOCHS = 40
figure = partial(declare, "beyond")
"""Declares a figure that no paper has."""
# no paper expects an answer to what is asked here
asks_at_least, asks_at_most = partial(at_least, **OURS), partial(at_most, **OURS)
LEARNED = 0.6
"""Accuracy above which a network has left chance, of two answers."""


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

    def flossing(self, who: Tensor | None = None, **changed: Any) -> FlossPhase:
        """An episode for the networks where `who` is true, or for all."""
        return FlossPhase(self.floss_epochs, who=who, **{"k": self.k, "clip": self.floss_clip, **changed})

    def seconds(self, phase: Phase) -> float:
        """Seconds of one core that an epoch of a phase takes for one network, from a few measured ones."""
        taken, study = [], Study(self.seed, show_progress=False)
        for epochs in (1, TIMED_EPOCHS + 1):
            model, task, ids = self.networks()
            few: Schedule = (replace(phase, epochs=epochs, who=None),)
            start = time.process_time()
            study.train(model, task, few, member_ids=ids, **self.trial)
            taken.append(time.process_time() - start)
        # the difference is free of what is done once: graphs, buffers, the Record
        return max(0.0, taken[1] - taken[0]) / TIMED_EPOCHS / ids.numel()
