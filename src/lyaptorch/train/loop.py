"""`lt.train`: one loop that runs a schedule of phases over an ensemble of independent networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import member_ids, seed_from
from lyaptorch._types import Number
from lyaptorch.cells import fit
from lyaptorch.flossing import FitPhase, FlossPhase, Schedule
from lyaptorch.record import Record
from lyaptorch.tasks import Task
from lyaptorch.train.floss import floss_epochs, flossing_inputs, flossing_variables, phase_config
from lyaptorch.train.model import Model
from lyaptorch.train.optim import MemberAdam, finite
from lyaptorch.train.optim import clip as clip_gradients
from lyaptorch.train.progress import progress


def train(
    model: Model,
    task: Task,
    schedule: Schedule,
    *,
    batch: int = 16,
    length: int = 300,
    lr: Number = 1e-3,
    clip: Number | None = 0.03,
    members: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    show_progress: bool | None = None,
) -> Record:
    """Train every member of `model` on `task`, changing it in place.

    Members are independent: losses are summed over them, each has its own optimiser state, clipping and
    random streams, and trains to the numbers it would train to alone (to round-off). The defaults are
    the published setting (see `presets.gf2023`): a fresh batch each epoch, Adam with betas (.9, .999),
    gradients clipped per tensor; flossing has an Adam of its own, unclipped, on the cell's parameters,
    and starts from the first row of the initial state.

    Args:
        model: a `Model`; its parameters with `requires_grad` are trained.
        task: where batches come from.
        schedule: phases, run in order, such as `(FlossPhase(500), FitPhase(600))`.
        batch: trajectories of a task step.
        length: steps of a task step.
        lr: learning rate of the task, a number or `*e`.
        clip: largest gradient norm of each tensor of each member, a number or `*e`; None for no limit.
        members: ids of shape `*e`; equal ids see equal batches.
        generator: seeds batches and frames; None is a fixed seed.
        show_progress: None shows a bar on a terminal.

    Returns:
        A Record: `loss`, `accuracy (member, epoch)` of each fresh batch before its step (NaN where a member
        did not take part), and, with flossing, `exponents (member, floss_epoch, index)`, `floss_loss` and
        `at_epoch (floss_epoch)`, the task epoch at which the flossing took place.

    Raises:
        ValueError: for a schedule, shapes or hyperparameters that do not fit; the sentence says how.
        FloatingPointError: if a member's loss or gradient is not finite, before the step, naming epoch and
            member; or if the dynamics overflow.

    Example:
        >>> import lyaptorch as lt
        >>> task = lt.tasks.TemporalXOR(2)
        >>> model = lt.presets.gf2023(task, hidden_size=8, rows=4, ensemble=(2,))
        >>> record = lt.train(model, task, (lt.FlossPhase(2), lt.FitPhase(3)), batch=4, length=20)
        >>> record["loss"].shape, record["exponents"].shape
        ((2, 3), (2, 2, 8))

    Source: Gradient Flossing, sections 6-7.
    """
    run = _Run(model, task, batch, length, lr, clip, members, seed_from(generator), show_progress)
    config = run.config(schedule)
    for phase in schedule:
        if isinstance(phase, FitPhase):
            run.fit(phase)
        else:
            run.floss(phase)
    return Record("train", config, run.variables())


class _Run:
    """The state of a run between phases."""

    def __init__(
        self,
        model: Model,
        task: Task,
        batch: int,
        length: int,
        lr: Number,
        clip: Number | None,
        members: int | Tensor | None,
        seed: int,
        show_progress: bool | None,
    ) -> None:
        self.model, self.task, self.seed, self.show_progress = model, task, seed, show_progress
        self.batch, self.length = _checks.integer("batch", batch, 1), _checks.integer("length", length, 1)
        self.ids = member_ids(model.ensemble, members)
        self.lr, self.clip = lr, clip
        self.parameters = _trainable(model)
        if not self.parameters:
            raise ValueError("there is nothing to train: no parameter of the model has requires_grad; set it")
        for name, p in model.named_parameters():
            if p.requires_grad and tuple(p.shape[: self.ids.dim()]) != model.ensemble:
                raise ValueError(
                    f"parameter {name} must have the leading dimensions {model.ensemble} of the ensemble, "
                    f"got {tuple(p.shape)}: members that share it are not independent"
                )
        self.adam = MemberAdam(self.parameters, model.ensemble, lr)
        self.floss_adam = MemberAdam(_trainable(model.cell), model.ensemble)
        self.epoch = self.floss_epoch = 0
        self.losses: list[Tensor] = []
        self.accuracies: list[Tensor] = []
        self.exponents: list[Tensor] = []
        self.floss_losses: list[Tensor] = []
        self.at_epoch: list[int] = []

    def fit(self, phase: FitPhase) -> None:
        """Task steps."""
        mask = _mask(phase.members, self.model.ensemble)
        model, adam, ids, clip = self.model, self.adam, self.ids, self.clip
        if mask is not None:
            model = self.model.select(mask)
            adam = self.adam.select(_trainable(model), mask)
            ids, clip = ids[mask], _of(clip, mask)
        with progress("training", phase.epochs, self.show_progress) as advance:
            for _ in range(phase.epochs):
                loss, right = self._fit_step(model, adam, ids, clip, mask)
                self.losses.append(_scatter(loss, mask, self.model.ensemble))
                self.accuracies.append(_scatter(right, mask, self.model.ensemble))
                self.epoch += 1
                advance(f"loss {loss.mean().item():.3f}, accuracy {right.mean().item():.3f}")
        if mask is not None:
            self.model.put(mask, model)
            self.adam.put(mask, adam)

    def _fit_step(
        self, model: Model, adam: MemberAdam, ids: Tensor, clip: Number | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        batch = self.task.draw(
            self.seed,
            members=self.ids,
            epoch=self.epoch,
            batch=self.batch,
            length=self.length,
            dtype=self.parameters[0].dtype,
        )
        # a task may have a delay for each member of the whole ensemble
        loss, right = model.loss(batch if mask is None else batch.select(mask))
        self._check_finite("loss", torch.isfinite(loss), ids)
        gradients = torch.autograd.grad(loss.sum(), adam.parameters, materialize_grads=True)
        self._check_finite("gradient", finite(gradients, tuple(ids.shape)), ids)
        if clip is not None:
            gradients = clip_gradients(gradients, tuple(ids.shape), clip)
        adam.step(gradients)
        return loss.detach(), right

    def _check_finite(self, what: str, fine: Tensor, ids: Tensor) -> None:
        if not fine.all():
            raise FloatingPointError(
                f"the {what} is not finite at epoch {self.epoch} for member {ids[~fine].tolist()}; "
                "lower the learning rate, the clip, the gain or the length of a trial"
            )

    def floss(self, phase: FlossPhase) -> None:
        """Flossing steps, from the first row of the initial state."""
        mask = _mask(phase.members, self.model.ensemble)
        model, adam, ids = self.model, self.floss_adam, self.ids
        if mask is not None:
            model, ids = self.model.select(mask), ids[mask]
            adam = adam.select(_trainable(model.cell), mask)
            own = {name: _of(getattr(phase, name), mask) for name in ("k", "target", "lr", "clip")}
            phase = replace(phase, members=None, **own)
        adam.set_lr(phase.lr)
        source = flossing_inputs(self.task, phase, self.seed, ids, model.cell)
        row = model.initial_state(1)
        if row is not None:
            row = row.detach().expand(*row.shape[:-2], phase.batch, -1)
        _, h0 = fit(model.cell, source(self.floss_epoch), row)
        exponents, losses = floss_epochs(
            model.cell,
            source,
            phase,
            adam,
            self.seed,
            h0,
            ids,
            first_epoch=self.floss_epoch,
            show_progress=self.show_progress,
        )
        self.exponents += [_scatter(e, mask, self.model.ensemble) for e in exponents]
        self.floss_losses += [_scatter(loss, mask, self.model.ensemble) for loss in losses]
        self.at_epoch += [self.epoch] * phase.epochs
        self.floss_epoch += phase.epochs
        if mask is not None:
            self.model.put(mask, model)
            self.floss_adam.put(mask, adam)

    def config(self, schedule: Schedule) -> dict[str, Any]:
        """The run as JSON; what does not fit into it is refused here, not after the training."""
        for phase in schedule:
            if not isinstance(phase, FitPhase | FlossPhase):
                raise ValueError(f"a schedule holds FitPhase and FlossPhase, got {type(phase).__name__}")
            _mask(phase.members, self.model.ensemble)
        config = {
            "schedule": [phase_config(phase) for phase in schedule],
            "task": {"type": type(self.task).__name__, **_plain(vars(self.task))},
            "model": {"cell": type(self.model.cell).__name__, "state_size": self.model.cell.state_size},
            "ensemble": list(self.model.ensemble),
            "members": self.ids.tolist(),
            "batch": self.batch,
            "length": self.length,
            **_plain({"lr": self.lr, "clip": self.clip}),
            "seed": self.seed,
        }
        return Record("train", config, {}).config

    def variables(self) -> dict[str, Any]:
        """What happened, members flattened into one dimension."""
        variables: dict[str, Any] = {}
        for name, values in (("loss", self.losses), ("accuracy", self.accuracies)):
            rows = [value.reshape(-1) for value in values]
            flat = torch.stack(rows, 1) if rows else torch.zeros(self.ids.numel(), 0)
            variables[name] = (("member", "epoch"), flat)
        if self.exponents:
            k = max(e.shape[-1] for e in self.exponents)
            padded = [
                torch.nn.functional.pad(e, (0, k - e.shape[-1]), value=torch.nan) for e in self.exponents
            ]
            variables |= flossing_variables(torch.stack(padded), torch.stack(self.floss_losses))
            variables["at_epoch"] = (("floss_epoch",), torch.tensor(self.at_epoch))
        return variables


def evaluate(
    model: Model,
    task: Task,
    *,
    batch: int = 16,
    length: int = 300,
    batches: int = 10,
    members: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of every member `(*e,)` on batches that training never saw."""
    seed, ids = seed_from(generator), member_ids(model.ensemble, members)
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        pairs = [
            model.loss(
                task.draw(seed, members=ids, epoch=i, batch=batch, length=length, stream="test", dtype=dtype)
            )
            for i in range(_checks.integer("batches", batches, 1))
        ]
    loss, accuracy = (torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
    return loss, accuracy


def _trainable(module: torch.nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def _mask(members: Tensor | None, ensemble: tuple[int, ...]) -> Tensor | None:
    """Who takes part in a phase; None for everybody."""
    if members is None:
        return None
    if members.dtype != torch.bool or tuple(members.shape) != ensemble:
        raise ValueError(
            f"members of a phase must be a bool tensor of the ensemble's shape {ensemble}, "
            f"got {members.dtype} {tuple(members.shape)}"
        )
    if not members.any():
        raise ValueError("members of a phase must not be all false: nobody would take part; drop the phase")
    return None if members.all() else members


def _of(value: Any, mask: Tensor) -> Any:
    """The hyperparameters of the members where `mask` is true."""
    return value[mask] if isinstance(value, Tensor) and value.dim() else value


def _scatter(values: Tensor, mask: Tensor | None, ensemble: tuple[int, ...]) -> Tensor:
    """Values of the members who took part among those of all, NaN for the others."""
    if mask is None:
        return values
    full = torch.full((*ensemble, *values.shape[1:]), torch.nan, dtype=values.dtype, device=values.device)
    full[mask] = values
    return full


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in fields.items()}
