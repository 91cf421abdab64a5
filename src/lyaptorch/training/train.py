"""`lt.train` runs a schedule over an ensemble of independent networks, `lt.evaluate` scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import measures, trains
from lyaptorch._files import writable_folder
from lyaptorch._random import ids_of, seed_from
from lyaptorch._types import Number
from lyaptorch.cells import owned
from lyaptorch.record import Record
from lyaptorch.schedules import Schedule
from lyaptorch.schedules.phases import flossings
from lyaptorch.tasks.batch import Draw, Task
from lyaptorch.training.checkpoint import load_checkpoint, start_of
from lyaptorch.training.choice import chosen_in
from lyaptorch.training.dropout import masks_from
from lyaptorch.training.ensemble import device_of, new_ensemble
from lyaptorch.training.epochs import between_looks
from lyaptorch.training.metrics import METRICS, test_scores
from lyaptorch.training.model import Model
from lyaptorch.training.optim import CLIPS, Adam, Rule
from lyaptorch.training.run import Run
from lyaptorch.training.work import Settings, describe, subject

STEPS = 300
"""Steps of a trial, of a task whose trials may be of any length."""
_STARTED: WeakKeyDictionary[Model, dict[Path, dict[str, Any]]] = WeakKeyDictionary()
"""By checkpoint, how a model started whose weights have changed since: it may be given again to go on."""


@trains
def train(
    model: Model,
    task: Task,
    schedule: Schedule,
    *,
    batch: int = 16,
    steps: int | None = None,
    lr: Number = 1e-3,
    optimizer: Rule = Adam(),  # noqa: B008
    clip: Number | None = 0.03,
    clip_mode: str = "tensor",
    metrics: Sequence[str] = (),
    metrics_every: int = 100,
    test_batches: int = 10,
    unstable: str = "raise",
    fetch_every: int | None = None,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    checkpoint: Path | str | None = None,
    show_progress: bool | None = None,
) -> Record:
    """Train every member of `model` on `task`, changing it in place.

    Members are independent: losses are summed over them, each has its own optimiser state, clipping,
    triggers and random streams, and trains to the numbers it would train to alone (to round-off). The
    defaults are the published setting (see `presets.gf2023`): a fresh batch each epoch, Adam with betas
    (.9, .999), gradients clipped per tensor; flossing has an Adam of its own, unclipped, on the cell's
    parameters, and starts from the first row of the initial state.

    Cost O(t b n^2) per network and epoch, flossing O(t b n^2 k).

    Args:
        model: a `Model`; its parameters with `requires_grad` are trained.
        task: where batches come from.
        schedule: phases, run in order, such as `(FlossPhase(500), FitPhase(600))`; the triggers of a
            `FitPhase` put episodes of flossing between its epochs, as `Run` in `training/run.py` does it.
        batch: trajectories of a task step.
        steps: of a trial; when missing, the `length` of the task's trials, or 300 where it has none.
        lr: learning rate of the task, a number or `*e`: a grid of them is a dimension of the ensemble. A
            `FitPhase` may have its own.
        optimizer: `Adam()` or `SGD(momentum, nesterov)`.
        clip: largest gradient norm of each member, a number or `*e`; None for no limit.
        clip_mode: "tensor", each tensor's norm, or "global", that of all together.
        metrics: names in `metrics.METRICS`, measured every `metrics_every` epochs of a fit.
        metrics_every: task epochs between measurements.
        test_batches: batches of the metric "test", of `batch` trajectories that training never sees.
        unstable: what happens to a member whose loss, gradient or exponents overflow, in a step of any phase,
            a metric or a trigger: "raise" stops the run, "mark" leaves it out from there on, with
            `unstable_at`, its epoch, and `overflow_step`, the step of the trial at which its state does, NaN
            where it was something else.
        fetch_every: epochs between two looks at what happened; a metric, a trigger and the end of a phase
            come when they are due. 100 on a GPU when missing, where an epoch is recorded once as a CUDA graph
            and replayed between looks; 1 elsewhere. The Record does not depend on it.
        member_ids: ids of shape `*e`; equal ids see equal batches.
        generator: seeds batches, frames and masks of dropout; None is a fixed seed.
        checkpoint: a file to resume from if it exists, and to write every 20 s (or as many
            as the environment variable LYAPTORCH_CHECKPOINT_SECONDS says); deleted by nobody. To resume,
            call again with the same model, or in a new process with one made as it was before the run.
        show_progress: None shows a bar on a terminal.

    Returns:
        A Record: `loss`, `accuracy`, `gradient_norm (member, epoch)` of each fresh batch before its step;
        with flossing `exponents (member, floss_epoch, index)`, `floss_loss` and `at_epoch (member,
        floss_epoch)`, the task epoch at which a flossing step took place; the metrics, with
        `measured_at (member, measurement)`; operations `fit_flops`, `floss_flops (member)`, in the latter
        those of a joint loss, too. Rows end in NaN for members with fewer epochs.

    Raises:
        ValueError: for a schedule, shapes or hyperparameters that do not fit; the sentence says how.
        FloatingPointError: if a member's loss or dynamics overflow; names epoch, member and step.

    Example:
        >>> import lyaptorch as lt
        >>> task = lt.tasks.TemporalXOR(2)
        >>> model = lt.presets.gf2023(task, hidden_size=8, rows=4, ensemble=(2,))
        >>> record = lt.train(model, task, (lt.FlossPhase(2), lt.FitPhase(3)), batch=4, steps=20)
        >>> record["loss"].shape, record["exponents"].shape
        ((2, 3), (2, 2, 8))

    Source: Gradient Flossing, sections 6-7.
    """
    _checks.draws(task)
    if not isinstance(schedule, tuple | list):
        raise ValueError(
            f"schedule must be a tuple of phases, got {type(schedule).__name__}; write (phase,) for one"
        )
    _checks.rate("lr", lr)
    if clip is not None:
        _checks.rate("clip", clip)
    settings = Settings(
        seed_from(generator),
        _checks.integer("batch", batch, 1),
        _steps(task, steps),
        lr,
        optimizer,
        clip,
        _checks.choice("clip_mode", clip_mode, CLIPS),
        tuple(_checks.choice("metric", name, METRICS) for name in metrics),
        _checks.integer("metrics_every", metrics_every, 1),
        _checks.integer("test_batches", test_batches, 1),
        _checks.choice("unstable", unstable, ("raise", "mark")),
        between_looks(device_of(model))
        if fetch_every is None
        else _checks.integer("fetch_every", fetch_every, 1),
    )
    path, cell = None if checkpoint is None else Path(checkpoint), model.cell
    try:
        # modules and functions are trained as parameters of a cell of their own, and written back at the end
        with owned(cell) as model.cell, masks_from(settings.seed, device_of(model)):
            schedule = chosen_in(schedule, model.cell)
            networks = new_ensemble(model, member_ids, lr, optimizer, flossings(schedule))
            run = Run(networks, task, schedule, settings)
            config = describe(run.all, task, schedule, settings)
            facts = {"config": config}
            if path is not None:
                started, where = _STARTED.setdefault(model, {}), path.absolute()
                facts["start"] = start_of(model.state_dict(), device_of(model))
                if path.exists():
                    facts["start"] = started.get(where, facts["start"])
                    run.load(*load_checkpoint(path, **facts))
                else:
                    writable_folder(path.parent)
                started[where] = facts["start"]
            run.go(path, facts, show_progress)
    finally:
        model.cell = cell
    return Record("train", config, run.history.variables(cell.time_step))


@measures
def evaluate(
    model: Model,
    task: Task,
    *,
    batch: int = 16,
    steps: int | None = None,
    batches: int = 10,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Record:
    """Loss and accuracy of every member on batches that training never saw.

    Cost O(t b n^2) per network and batch.

    Args:
        model: a `Model`.
        task: where batches come from.
        batch: trajectories of each batch.
        steps: of a trial; as in `train` when missing.
        batches: how many, over which scores are averaged.
        member_ids: ids of shape `*e`; equal ids see equal batches.
        generator: seeds the batches; None is a fixed seed.

    Returns:
        A Record with `loss` and `accuracy (member)`.

    Raises:
        ValueError: for shapes that do not fit; the sentence says how.

    Example:
        >>> import lyaptorch as lt
        >>> task = lt.tasks.TemporalXOR(2)
        >>> model = lt.presets.gf2023(task, hidden_size=8, rows=4, ensemble=(2,))
        >>> lt.evaluate(model, task, batch=4, steps=20)["accuracy"].shape
        (2,)
    """
    _checks.draws(task)
    ids, seed = ids_of(model.ensemble, member_ids, device_of(model)), seed_from(generator)
    batches, steps = _checks.integer("batches", batches, 1), _steps(task, steps)
    d = Draw(seed, steps, batch, member_ids=ids, stream="test", dtype=next(model.parameters()).dtype)
    config = {**subject(model, task, ids), "batch": batch, "steps": steps, "batches": batches, "seed": seed}
    loss, accuracy = test_scores(model, lambda i: task.draw(replace(d, epoch=i)), batches)
    scores = {"loss": loss, "accuracy": accuracy}
    return Record("evaluate", config, {name: (("member",), z.reshape(-1)) for name, z in scores.items()})


def _steps(task: Task, steps: int | None) -> int:
    """Those of a trial."""
    return _checks.integer("steps", getattr(task, "length", STEPS) if steps is None else steps, 1)
