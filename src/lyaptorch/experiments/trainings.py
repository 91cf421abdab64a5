"""Trainings by name: what the command line and sweeps train."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from lyaptorch import _checks
from lyaptorch._padded import padded
from lyaptorch.cells import WEIGHTS
from lyaptorch.experiments.figure import Study
from lyaptorch.record import Record
from lyaptorch.schedules import SCHEDULES, FitPhase, FlossPhase, Schedule
from lyaptorch.tasks import TASKS, Task, make_task
from lyaptorch.tasks.batch import Draw
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.theory import critical_gain
from lyaptorch.training import PRESETS, Model, evaluate
from lyaptorch.training.epochs import keep_pages

PER_NETWORK = ("delay", "gain", "k", "floss_clip", "lr")
"""Settings in which networks of one ensemble may differ."""


@dataclass(frozen=True)
class Training:
    """A network of a published setting, trained on a task under a named schedule.

    Attributes:
        task: temporal_xor, spatial_xor, delayed_copy or recall.
        delay: Longest lag of the task.
        items: Bits to remember in the recall task.
        schedule: none, pre, during, episodes, periodic, adaptive or joint.
        preset: Published setting: gf2023.
        hidden_size: Units n.
        gain: Scale of the initial recurrent weights; mean-field tunes it so that theory puts lambda_1 at 0.
        weights: gaussian, orthogonal, identity, uniform or shifted_mean.
        epochs: Training steps.
        floss_epochs: Flossing steps of an episode.
        k: Exponents flossed.
        floss_clip: Largest norm of a flossing gradient; none, as published, when missing.
        batch: Trajectories of a training step.
        length: Steps of a trial.
        lr: Learning rate of the task.
        seed: Determines everything.
    """

    task: str
    delay: int = 30
    items: int = 5
    schedule: str = "pre"
    preset: str = "gf2023"
    hidden_size: int = 80
    gain: float | Literal["mean-field"] = 1.0
    weights: str = "gaussian"
    epochs: int = 1000
    floss_epochs: int = 500
    k: int = 75
    floss_clip: float | None = None
    batch: int = 16
    length: int = 300
    lr: float = 1e-3
    seed: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Training:
        """From names and values, as a file holds them; the values are checked without training.

        Raises:
            ValueError: for an unknown name (the nearest one is named), or a value that cannot be.
        """
        known = {field.name: field.default for field in fields(cls)}
        for name in settings:
            _checks.choice("setting", name, known)
        if "task" not in settings:
            raise ValueError('task is missing; give one, such as task = "temporal_xor"')
        made: dict[str, Any] = {}
        for name, value in settings.items():
            kinds = {"task": str, "gain": float | str, "floss_clip": float | None}.get(
                name, type(known[name])
            )
            # TOML and JSON write 1 where 1.0 is meant; True, which Python takes for 1, is refused below
            made[name] = float(value) if kinds not in (int, str) and type(value) is int else value
            if isinstance(value, bool) or not isinstance(made[name], kinds):
                what = getattr(kinds, "__name__", str(kinds))
                raise ValueError(f"{name} must be of type {what}, got {value!r}; correct it")
        training = cls(**made)
        training.check()
        return training

    def check(self) -> None:
        """Raise before any work what would be raised in the middle of it."""
        _checks.choice("preset", self.preset, PRESETS)
        _checks.choice("weights", self.weights, WEIGHTS)
        for name in ("hidden_size", "batch", "length", "epochs", "floss_epochs"):
            _checks.integer(name, getattr(self, name), 0 if "epochs" in name else 1)
        _checks.seed(self.seed)
        _checks.rate("lr", self.lr)
        if self.floss_clip is not None:
            _checks.rate("floss_clip", self.floss_clip)
        if isinstance(self.gain, str):
            _checks.choice("gain", self.gain, ("mean-field",))
        elif not math.isfinite(self.gain):
            raise ValueError(f"gain must be finite, got {self.gain}; correct it")
        n = self.hidden_size
        # without flossing k is not looked at, and its default may exceed n
        if self.schedule != "none":
            _checks.integer("k", self.k, 1, n, do=f"a state of size {n} has {n} exponents")
        _schedule([self])
        # drawn and thrown away: only the task knows which lengths hold its delay
        _task([self]).draw(Draw(self.seed, self.length))


def train_networks(
    settings: Sequence[Training],
    networks: Sequence[int],
    checkpoint: Path | None = None,
    show_progress: bool | None = None,
    unstable: str = "raise",
) -> tuple[Record, Model, Task]:
    """Train one network for each of `settings`, all in one ensemble, as `lt.train` does.

    Args:
        settings: one for each network; they may differ in `PER_NETWORK`.
        networks: their numbers; equal numbers have equal weights and see equal batches.
        checkpoint: file to resume from and to write to.
        show_progress: None shows a bar on a terminal.
        unstable: as in `lt.train`.

    Returns:
        The Record of `lt.train`, the trained model, and its task.

    Raises:
        ValueError: if the settings cannot be or differ in more.
    """
    first = settings[0]
    if len({alike(asdict(s)) for s in settings}) > 1:
        raise ValueError(f"networks of one ensemble may differ in {', '.join(PER_NETWORK)} only; split them")
    study, task, ids = Study(first.seed, show_progress, checkpoint), _task(settings), torch.tensor(networks)
    model = PRESETS[_checks.choice("preset", first.preset, PRESETS)](
        task,
        hidden_size=first.hidden_size,
        gain=_shared([mean_field_gain(_task([s])) if s.gain == "mean-field" else s.gain for s in settings]),
        weights=first.weights,
        rows=first.batch,
        **study.ensemble(ids),
    )
    record = study.train(
        model,
        task,
        _schedule(settings),
        batch=first.batch,
        steps=first.length,
        lr=_shared([s.lr for s in settings]),
        member_ids=ids,
        unstable=unstable,
    )
    return record, model, task


def train_runs(runs: Sequence[Mapping[str, Any]], checkpoint: Path, *, threads: int = 1) -> Record:
    """Train the runs of a sweep, each with the settings of `Training` and the number of its `network`.

    Returns:
        The Record of `train_networks` with `final_loss` and `final_accuracy (member)`, measured on batches
        that training never saw.
    """
    torch.set_num_threads(threads)
    keep_pages()
    settings, networks = zip(*map(_split, runs), strict=True)
    record, model, task = train_networks(settings, networks, checkpoint, False, "mark")
    batch, length = settings[0].batch, settings[0].length
    scores = evaluate(model, task, batch=batch, steps=length, member_ids=torch.tensor(networks))
    final = {f"final_{name}": scores.variables[name] for name in ("loss", "accuracy")}
    return Record(record.kind, record.config, {**record.variables, **final}, record.coordinates)


def alike(run: Mapping[str, Any]) -> str:
    """What runs must have in common to be trained in one ensemble, as text."""
    key = {name: value for name, value in run.items() if name not in (*PER_NETWORK, "network")}
    # clips may differ, but a clip beside none cannot be one tensor
    key["floss_clip"] = run.get("floss_clip") is None
    # the lag of a lagged task is data; elsewhere it decides sizes, which an ensemble shares
    if not issubclass(TASKS[_checks.choice("task", run["task"], TASKS)], LaggedTask):
        key["delay"] = run.get("delay")
    return json.dumps(key, sort_keys=True)


def check_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """The run with all its settings, checked without training.

    Raises:
        ValueError: as `Training.of`, or if `network` is no number of a network.
    """
    settings, network = _split(run)
    return {**asdict(settings), "network": _checks.integer("network", network, 0)}


def cost(runs: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that training the runs in one ensemble will take, from a few measured steps.

    Episodes that depend on what happens in the training are not counted.
    """
    settings, networks = zip(*map(_split, runs), strict=True)

    def seconds(schedule: str, fits: int, flosses: int) -> float:
        few = [replace(s, schedule=schedule, epochs=fits, floss_epochs=flosses) for s in settings]
        start = time.perf_counter()
        train_networks(few, networks, None, False)
        return time.perf_counter() - start

    # thrown away: the first training pays for what is loaded and allocated once
    seconds("pre", 1, 1)
    none = seconds("none", 0, 0)
    # what remains of a training of no steps is building it, which no step repeats
    fit, floss = (seconds("none", 4, 0) - none) / 4, (seconds("pre", 0, 4) - none) / 4
    fits, flosses = _steps(_schedule(settings))
    return max(0.0, fit * fits + floss * flosses) + none


def _split(run: Mapping[str, Any]) -> tuple[Training, int]:
    settings = dict(run)
    network: int = settings.pop("network", 0)
    return Training.of(settings), network


def _steps(schedule: Schedule) -> tuple[int, int]:
    """Steps of fits and of flossing, without episodes that depend on the training."""
    fits = flosses = 0
    for phase in schedule:
        if isinstance(phase, FlossPhase):
            flosses += phase.epochs
            continue
        fits += phase.epochs
        for trigger in phase.triggers:
            flosses += trigger.phase.epochs * (trigger.when.times(phase.epochs) or 0)
        # beside each task step, where both losses are minimised at once
        if isinstance(phase, FitPhase) and torch.as_tensor(phase.flossing_weight).any():
            flosses += phase.epochs
    return fits, flosses


def _schedule(settings: Sequence[Training]) -> Schedule:
    first = settings[0]
    plan = SCHEDULES[_checks.choice("schedule", first.schedule, SCHEDULES)]
    clip = None if first.floss_clip is None else _shared([s.floss_clip for s in settings])
    return plan(first.epochs, FlossPhase(first.floss_epochs, k=_shared([s.k for s in settings]), clip=clip))


def _task(settings: Sequence[Training]) -> Task:
    return make_task(settings[0].task, delay=_shared([s.delay for s in settings]), items=settings[0].items)


def _shared(values: Sequence[Any]) -> Any:
    """The value that all have in common, or a tensor with one for each."""
    return values[0] if all(value == values[0] for value in values) else torch.tensor(values)


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
    # V and x are independent, so E[(V x)^2] = sum_c E[x_c^2]; of b ~ U(0, 0.1), E[b^2] = 0.1^2 / 3
    strength = padded(x).inputs.square().mean((0, 1)).sum() + 0.1**2 / 3
    return float(critical_gain(strength.sqrt()))
