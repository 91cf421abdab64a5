"""Work of a phase in each epoch: draw, step, tell, fire triggers; the settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._padded import Padded
from lyaptorch._types import Number
from lyaptorch.cells import Activation
from lyaptorch.record import Record
from lyaptorch.schedules import At, Every, FitPhase, FlossPhase, Scale, Schedule, When
from lyaptorch.schedules.phases import EXPONENTS, plain, select_phase
from lyaptorch.tasks.batch import Batch, Draw, Task
from lyaptorch.training.ensemble import OVERFLOWS, Ensemble, blame
from lyaptorch.training.epochs import Epochs, Row
from lyaptorch.training.metrics import fit_flops, floss_flops
from lyaptorch.training.model import Model
from lyaptorch.training.optim import Rule
from lyaptorch.training.steps import Clip, first_row, fit_step, floss_step, flossing_of, most_exponents


class Work(NamedTuple):
    """The epochs of a phase for some members, and the operations of each, by their names in the history."""

    part: Ensemble
    epochs: Epochs
    flops: dict[str, int | Tensor]


def work_of(phase: FitPhase | FlossPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    """The work of a phase for a part of the members, whose ensemble the phase and the settings have."""
    if isinstance(phase, FitPhase):
        return _fit(phase, part, task, settings)
    return _floss(phase, part, task, settings)


def drawing(task: Task, settings: Settings, part: Ensemble) -> Callable[[], Batch]:
    """A function that draws what a part of the members sees at its epoch."""
    d = Draw(settings.seed, settings.steps, settings.batch, dtype=part.dtype)
    return lambda: part.batch(task, replace(d, epoch=part.epoch))


def _fit(phase: FitPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    n, draw = _state_size(part), drawing(task, settings, part)
    flops: dict[str, int | Tensor] = {"fit_flops": fit_flops(draw(), n, task.output_size)}
    joined, weighted = None, _checks.numbers(phase.flossing_weight).cpu() != 0
    if weighted.any():
        joined = flossing_of(phase.flossing, settings.seed, part.epoch)
        flops["floss_flops"] = weighted * _floss_flops(phase.flossing, n)

    def epoch() -> Row:
        joint = None
        if joined is not None:
            inputs = _inputs(part, task, settings, joined.phase, part.epoch, "joint")
            joint = joined, inputs, phase.flossing_weight
        try:
            return fit_step(part, draw(), settings.clip, joint)
        except OVERFLOWS as error:
            blame(error, part, _attempt(phase.flossing, task, settings, "joint"))

    return Work(part, Epochs(epoch, part.tensors().values()), flops)


def _floss(phase: FlossPhase, part: Ensemble, task: Task, settings: Settings) -> Work:
    if not part.flosser.parameters:
        raise ValueError("there is nothing to floss: no parameter of the cell has requires_grad; set it")
    flossing = flossing_of(phase, settings.seed, part.floss_epoch)

    def epoch() -> Row:
        inputs = _inputs(part, task, settings, phase, part.floss_epoch, "floss")
        h0 = first_row(part, phase, inputs)
        try:
            row = floss_step(part.model.cell, inputs, h0, flossing, part.flosser, part.floss_epoch, part.ids)
        except OVERFLOWS as error:
            blame(error, part, _attempt(phase, task, settings, "floss"))
        part.floss_epoch += 1
        return {**row, "at_epoch": part.epoch.to(h0.dtype)}

    flops = _floss_flops(phase, _state_size(part))
    return Work(part, Epochs(epoch, part.tensors().values()), {"floss_flops": flops})


def _attempt(
    phase: FlossPhase, task: Task, settings: Settings, stream: str
) -> Callable[[Ensemble, Tensor], object]:
    """The value of a flossing loss, of some members of a phase."""

    def attempt(some: Ensemble, mask: Tensor) -> object:
        own = select_phase(phase, mask, some.epoch.device)
        epoch = some.floss_epoch if stream == "floss" else some.epoch
        inputs = _inputs(some, task, settings, own, epoch, stream)
        flossing = flossing_of(own, settings.seed, epoch)
        return flossing.value(some.model.cell, inputs, first_row(some, own, inputs), epoch)

    return attempt


def _state_size(part: Ensemble) -> int:
    """Units n; a function does not know them, but its initial state does."""
    size, h0 = part.model.cell.state_size, part.model.h0
    return h0.shape[-1] if size == 0 and h0 is not None else size


def _floss_flops(phase: FlossPhase, n: int) -> int:
    k = most_exponents(phase.k, n) if phase.penalty == EXPONENTS else n
    return phase.batch * floss_flops(n, k, phase.steps, phase.interval)


def _inputs(
    part: Ensemble, task: Task, settings: Settings, phase: FlossPhase, epoch: Tensor, stream: str
) -> Padded:
    return part.inputs(
        task, Draw(settings.seed, phase.steps, phase.batch, epoch, stream=stream, dtype=part.dtype)
    )


@dataclass(frozen=True)
class Settings:
    """What does not change during a run."""

    seed: int
    batch: int
    steps: int
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
    described = {
        "schedule": plain(tuple(schedule)),
        **subject(networks.model, task, networks.ids),
        "batch": settings.batch,
        "steps": settings.steps,
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


def subject(model: Model, task: Task, ids: Tensor) -> dict[str, Any]:
    """Who is trained or asked, and on what, as JSON."""
    return {
        "task": {"type": type(task).__name__, **plain(dict(vars(task)))},
        "model": {
            "cell": type(model.cell).__name__,
            "activation": [m.name for m in model.modules() if isinstance(m, Activation)],
            "state_size": model.cell.state_size,
            "loss": model.loss_name,
        },
        "ensemble": list(ids.shape),
        "member_ids": ids.tolist(),
    }


def fired(
    when: Every | At | When, epoch: Tensor, among: Tensor, due: bool, metric: Callable[[str], Tensor]
) -> Tensor:
    """For which members `*e` it is time.

    Args:
        when: epochs, or a condition on a metric.
        epoch: task epochs that each member has behind it.
        among: who may fire.
        due: whether conditions on metrics are evaluated now.
        metric: the values of a metric `*e`; NaN where there is none yet.
    """
    if isinstance(when, Every):
        # not at epoch 0: what comes before all training is a phase of its own
        return among & (epoch > 0) & (epoch % when.epochs == 0)
    if isinstance(when, At):
        return among & torch.isin(epoch, torch.tensor(when.epochs, dtype=epoch.dtype, device=epoch.device))
    # a metric may cost a scan: it is asked for only when it is due, and somebody may fire
    late = among & (epoch >= when.after)
    if not due or not late.any():
        return torch.zeros_like(among)
    # NaN, where there is no value yet, compares as false: nobody fires on it
    return late & torch.stack([c.holds(metric(c.metric)) for c in when.conditions]).any(0)


def quiet(when: Every | At | When, epoch: Tensor, among: Tensor, until_due: int) -> int | None:
    """How many epochs from now, at least 1, `fired` need not be asked; None for never again.

    Args:
        when: epochs, or a condition on a metric.
        epoch: task epochs that each member has behind it.
        among: who may fire.
        until_due: epochs until conditions on metrics are evaluated.
    """
    left = epoch[among]
    if isinstance(when, Every):
        # who stands at a multiple was asked before this epoch, and has the whole interval left
        return int((when.epochs - left % when.epochs).min())
    if isinstance(when, At):
        ahead = [at - now for at in when.epochs for now in set(left.tolist()) if at > now]
        return min(ahead, default=None)
    # no value of the metric can fire before it is looked at
    return until_due


@torch.no_grad()
def act(
    model: nn.Module, action: Scale, who: Tensor | None = None, own: Mapping[str, Tensor] | None = None
) -> None:
    """Do what an action says to the members where the bool mask `*e` is true, or to all.

    Args:
        model: what is changed.
        action: how.
        who: for whom.
        own: by name, what belongs to members, as `Model.of_members` gives it.

    Raises:
        ValueError: if the model has nothing of that name, or one thing for all members.
    """
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if action.optional and action.name not in named:
        return
    tensor = named[_checks.choice("parameter to scale", action.name, named)]
    if who is None:
        tensor.mul_(action.factor)
        return
    if own is None or own.get(action.name) is not tensor:
        raise ValueError(
            f"{action.name} must have the leading dimensions {tuple(who.shape)} of the ensemble to be "
            f"scaled, got {tuple(tensor.shape)}: members that share it are not independent"
        )
    tensor[who] = tensor[who] * action.factor
