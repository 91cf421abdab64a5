"""Work of a phase in each epoch: draw, step, tell; the settings of a run, and what its Record says of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.cells import Activation
from lyaptorch.cells.settings import settings_of
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase, Schedule
from lyaptorch.schedules.phases import EXPONENTS, plain, select
from lyaptorch.tasks.batch import Batch, Draw, Task
from lyaptorch.training.ensemble import OVERFLOWS, Ensemble, blame, flossed
from lyaptorch.training.epochs import Epochs, Row
from lyaptorch.training.flossing import Flossed, Flossing, Joint, Value, flossing_of, most_exponents
from lyaptorch.training.metrics import answerable, fit_flops, floss_flops
from lyaptorch.training.model import Model
from lyaptorch.training.optim import Rule
from lyaptorch.training.steps import first_row, fit_step, floss_step


class Work(NamedTuple):
    """The epochs of a phase for some members.

    Attributes:
        part: these members.
        epochs: what they do.
        flops: the operations of the last epoch, by their names in the history.
        wait: so many epochs are alike from here on, and nobody need look in between.
    """

    part: Ensemble
    epochs: Epochs
    flops: Callable[[], dict[str, int | Tensor]]
    wait: Callable[[], int] = lambda: sys.maxsize


def apart(phase: FitPhase | FlossPhase, mask: Tensor) -> list[Tensor]:
    """Those who take part in a phase, by whether a flossing loss is added to theirs.

    Nothing is computed of a loss whose weight is 0, and nothing of it can overflow.
    """
    if isinstance(phase, FlossPhase):
        return [mask]
    weighted = _checks.numbers(phase.flossing_weight).cpu() != 0
    return [part for part in (mask & ~weighted, mask & weighted) if part.any()]


def work_of(phase: FitPhase | FlossPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    """The work of a phase for a part of the members, whose ensemble the phase and the settings have."""
    if isinstance(phase, FitPhase):
        return _fit(phase, part, task, settings)
    return _floss(phase, part, task, settings)


def drawing(task: Task, settings: Settings, part: Ensemble) -> Callable[[], Batch]:
    """A function that draws what a part of the members sees at its epoch."""
    # the epoch is a tensor that each step advances in place
    d = Draw(settings.seed, settings.steps, settings.batch, part.epoch, part.everybody, dtype=part.dtype)
    return lambda: part.batch(task, d)


def _fit(phase: FitPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    # operations are the same in every epoch: counted once, from a batch that is drawn to be looked at
    n, draw = _state_size(part), drawing(task, settings, part)
    first = answerable(draw(), part.model)
    flops: dict[str, int | Tensor] = {"fit_flops": fit_flops(first, n, task.output_size)}
    joint, flossing, weighted = None, None, _checks.numbers(phase.flossing_weight).cpu() != 0
    if weighted.any():
        flossing, value = _flossing(phase.flossing, part, task, settings, "joint")
        own = None if phase.flossing.named is None else flossed(part.model.cell, phase.flossing.named)
        joint = Joint(value, phase.flossing_weight, own)

    def epoch() -> Row:
        try:
            return fit_step(part, draw(), settings.clip, settings.clip_mode, joint)
        except OVERFLOWS as error:
            # only the flossing loss raises without saying who: the task's own losses are looked at one by one
            blame(error, part, _attempt(phase.flossing, task, settings, "joint"))

    if flossing is None:
        return Work(part, Epochs(epoch, part.tensors().values()), lambda: flops)
    epochs = Epochs(epoch, part.tensors().values(), flossing.choose)
    return Work(
        part, epochs, lambda: {**flops, "floss_flops": weighted * _floss_flops(flossing, n)}, flossing.wait
    )


def _floss(phase: FlossPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    flosser = part.flossers[phase.named]
    if not flosser.parameters:
        raise ValueError("there is nothing to floss: no parameter of the cell has requires_grad; set it")
    flossing, value = _flossing(phase, part, task, settings, "floss", flosser.parameters)

    def epoch() -> Row:
        try:
            row = floss_step(value, flossing, flosser, part.ids)
        except OVERFLOWS as error:
            blame(error, part, _attempt(phase, task, settings, "floss"))
        part.floss_epoch += 1
        return {**row, "at_epoch": part.epoch.to(row["floss_loss"].dtype)}

    epochs, n = Epochs(epoch, part.tensors().values(), flossing.choose), _state_size(part)
    return Work(part, epochs, lambda: {"floss_flops": _floss_flops(flossing, n)}, flossing.wait)


def _attempt(
    phase: FlossPhase, task: Task, settings: Settings, stream: str
) -> Callable[[Ensemble, Tensor], object]:
    """The value of a flossing loss, of some members of a phase."""

    def attempt(some: Ensemble, mask: Tensor) -> object:
        return _flossing(select(phase, mask, some.epoch.device), some, task, settings, stream)[1]()

    return attempt


def _flossing(
    phase: FlossPhase,
    part: Ensemble,
    task: Task,
    settings: Settings,
    stream: str,
    trained: Sequence[Tensor] | None = None,
) -> tuple[Flossing, Value]:
    """The flossing loss of some members, of fresh inputs at their epoch."""
    epoch = part.floss_epoch if stream == "floss" else part.epoch
    flossing = flossing_of(phase, settings.seed, epoch, part.allowed, trained)

    def value() -> Flossed:
        d = Draw(settings.seed, phase.steps, phase.batch, epoch, stream=stream, dtype=part.dtype)
        return flossing.value(part.model.cell, part.inputs(task, d), first_row(part, phase))

    return flossing, value


def _state_size(part: Ensemble) -> int:
    """Units n; a function does not know them, but its initial state does."""
    size, h0 = part.model.cell.state_size, part.model.h0
    return h0.shape[-1] if size == 0 and h0 is not None else size


def _floss_flops(flossing: Flossing, n: int) -> int | Tensor:
    phase = flossing.phase
    k = most_exponents(phase.k, n) if phase.penalty == EXPONENTS else n
    each: int | Tensor = floss_flops(n, k, phase.steps, flossing.taken)
    return phase.batch * each


@dataclass(frozen=True)
class Settings:
    """What does not change during a run; `train` says what each is."""

    seed: int
    batch: int
    steps: int
    lr: Number
    optimizer: Rule
    clip: Number | None
    clip_mode: str
    metrics: tuple[str, ...]
    metrics_every: int
    test_batches: int
    unstable: str
    fetch_every: int


def describe(networks: Ensemble, task: Task, schedule: Schedule, settings: Settings) -> dict[str, Any]:
    """The run as JSON; what does not fit into it is refused here, not after the training."""
    # how often somebody looks changes no number of the Record
    described = {name: plain(value) for name, value in vars(settings).items() if name != "fetch_every"}
    described |= {"schedule": plain(tuple(schedule)), **subject(networks.model, task, networks.ids)}
    return Record("train", described, {}).config


def _settings(task: Task) -> dict[str, Any]:
    """What a task holds, as JSON."""
    found: dict[str, Any] = plain(dict(vars(task)))
    for name, value in found.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(
                "what a task holds goes into the Record, as numbers, text, tensors, lists and dicts, got "
                f"{type(value).__name__} as {name}; keep it outside, or make it a property of the class"
            ) from error
    return found


def subject(model: Model, task: Task, ids: Tensor) -> dict[str, Any]:
    """Who is trained or asked, and on what, as JSON."""
    return {
        "task": {"type": type(task).__name__, **_settings(task)},
        "model": {
            "cell": type(model.cell).__name__,
            "activation": [m.name for m in model.modules() if isinstance(m, Activation)],
            "state_size": model.cell.state_size,
            "settings": settings_of(model.cell),
            "loss": model.loss_name,
        },
        "ensemble": list(ids.shape),
        "member_ids": ids.tolist(),
    }
