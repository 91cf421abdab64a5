"""Settings of a run, which do not change during it, and the run as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lyaptorch._types import Number
from lyaptorch.cells import Activation
from lyaptorch.record import Record
from lyaptorch.schedules import Schedule
from lyaptorch.schedules.phases import plain
from lyaptorch.tasks.batch import Task
from lyaptorch.training.ensemble import Ensemble
from lyaptorch.training.optim import Rule
from lyaptorch.training.steps import Clip


@dataclass(frozen=True)
class Settings:
    """What does not change during a run."""

    seed: int
    batch: int
    length: int
    clip: Clip
    metrics: tuple[str, ...]
    metrics_every: int
    test_batches: int
    unstable: str
    fetch_every: int


def config(
    networks: Ensemble, task: Task, schedule: Schedule, settings: Settings, lr: Number, optimizer: Rule
) -> dict[str, Any]:
    """The run as JSON; what does not fit into it is refused here, not after the training."""
    model = networks.model
    described = {
        "schedule": plain(tuple(schedule)),
        "task": {"type": type(task).__name__, **plain(dict(vars(task)))},
        "model": {
            "cell": type(model.cell).__name__,
            "activation": [m.name for m in model.modules() if isinstance(m, Activation)],
            "state_size": model.cell.state_size,
            "loss": model.loss_name,
        },
        "ensemble": list(networks.ids.shape),
        "member_ids": networks.ids.tolist(),
        "batch": settings.batch,
        "length": settings.length,
        "lr": plain(lr),
        "optimizer": plain(optimizer),
        "clip": plain(settings.clip.norm),
        "clip_mode": settings.clip.mode,
        "metrics": list(settings.metrics),
        "metrics_every": settings.metrics_every,
        "test_batches": settings.test_batches,
        "unstable": settings.unstable,
        "seed": settings.seed,
    }
    return Record("train", described, {}).config
