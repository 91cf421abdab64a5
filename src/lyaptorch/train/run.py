"""A run: a stack of phases under way, one epoch at a time, saved and resumed at any of them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.flossing import FitPhase, FlossPhase, Schedule
from lyaptorch.flossing.schedule import EXPONENTS, check_members, select_members
from lyaptorch.tasks.batch import Task
from lyaptorch.train.checkpoint import save_checkpoint
from lyaptorch.train.history import History
from lyaptorch.train.metrics import fit_flops, floss_flops, leading_exponent, measure
from lyaptorch.train.progress import progress
from lyaptorch.train.settings import Settings
from lyaptorch.train.state import Members
from lyaptorch.train.steps import UnstableError, first_row, fit_step, floss_step, most_exponents
from lyaptorch.train.triggers import act, fired

CHECKPOINT_SECONDS = float(os.environ.get("LYAPTORCH_CHECKPOINT_SECONDS", "20"))
"""Seconds between two checkpoints: 20, or what the environment variable says."""


@dataclass
class _Active:
    """A phase under way: where it stands in the schedule, its members, and how far it is."""

    path: tuple[int, ...]
    mask: Tensor
    done: int = 0
    checked: int = -1


class Run:
    """A stack of phases under way; a trigger puts a phase on top of the fit that it interrupts."""

    def __init__(self, members: Members, task: Task, schedule: Schedule, settings: Settings) -> None:
        self.all, self.task, self.schedule, self.settings = members, task, tuple(schedule), settings
        ensemble = tuple(members.ids.shape)
        self.history = History(ensemble)
        if settings.clip.norm is not None:
            _checks.per_member("clip", settings.clip.norm, ensemble)
        for phase in self.schedule:
            if not isinstance(phase, FitPhase | FlossPhase):
                raise ValueError(f"a schedule holds FitPhase and FlossPhase, got {type(phase).__name__}")
            self._refuse_early(phase)
        self.stack = [self._active((i,), None) for i in reversed(range(len(self.schedule)))]
        self.part: Members | None = None

    def _refuse_early(self, phase: FitPhase | FlossPhase) -> None:
        """Raise before the work what would be raised in the middle of it."""
        model, ids, length = self.all.model, self.all.ids, self.settings.length
        n = model.cell.state_size
        check_members(phase, tuple(ids.shape))
        self._mask(phase)
        if isinstance(phase, FlossPhase):
            if n:
                most_exponents(phase, n)
            return
        self.task.draw(self.settings.seed, members=ids, epoch=0, batch=1, length=length)
        for floss in (phase.flossing, *(trigger.phase for trigger in phase.triggers)):
            self._refuse_early(floss)
        for trigger in phase.triggers:
            if trigger.action is not None:
                act(model, model.ensemble, trigger.action, torch.zeros_like(ids, dtype=torch.bool))

    def phase(self, path: tuple[int, ...]) -> FitPhase | FlossPhase:
        """The phase at a place: `(i,)` in the schedule, `(i, j)` of trigger j of fit i."""
        phase = self.schedule[path[0]]
        return phase.triggers[path[1]].phase if len(path) > 1 and isinstance(phase, FitPhase) else phase

    def go(self, path: Path | None, config: dict[str, Any], show_progress: bool | None) -> None:
        """Run what is on the stack."""
        saved = time.monotonic()
        left = sum(self.phase(a.path).epochs - a.done for a in self.stack)
        with progress("training", left, show_progress) as advance:
            while self.stack:
                text = self.step()
                if text:
                    advance(text)
                if path is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self.save(path, config)
                    saved = time.monotonic()
        if path is not None:
            self.save(path, config)

    def step(self) -> str:
        """One epoch of the phase on top, or one change of the stack; what to show beside the bar."""
        active = self.stack[-1]
        phase = self.phase(active.path)
        if active.done >= phase.epochs or not active.mask.any():
            self._put_back()
            self.stack.pop()
            return ""
        if isinstance(phase, FitPhase) and active.checked < active.done:
            active.checked = active.done
            if self._check(active, phase):
                return ""
        if self.part is None:
            self.part = self.all if active.mask.all() else self.all.select(active.mask)
        if not active.mask.all():
            phase = select_members(phase, active.mask)
        try:
            rows = self._fit(phase, active) if isinstance(phase, FitPhase) else self._floss(phase, active)
        except UnstableError as failure:
            if self.settings.unstable == "raise":
                raise
            self._drop(active, failure)
            return ""
        self.history.add(rows, active.mask)
        active.done += 1
        return ", ".join(
            f"{name} {rows[name].mean().item():.3g}"
            for name in ("loss", "accuracy", "floss_loss")
            if name in rows
        )

    def _drop(self, active: _Active, failure: UnstableError) -> None:
        """Mark members whose numbers overflowed; the others go on without them."""
        gone = torch.zeros_like(active.mask).masked_scatter(active.mask, failure.members)
        assert self.part is not None
        self.history.mark("unstable_at", self.part.epoch[failure.members], gone)
        self.history.mark("overflow_step", failure.step, gone)
        self._put_back()
        for waiting in self.stack:
            waiting.mask = waiting.mask & ~gone

    def _fit(self, phase: FitPhase, active: _Active) -> dict[str, Tensor]:
        part, settings, dtype = self.part, self.settings, self.all.optimizer.parameters[0].dtype
        assert part is not None
        everybody = bool(active.mask.all())
        epoch = part.epoch if everybody else self.all.epoch.masked_scatter(active.mask, part.epoch)
        # a task may have a delay for each member of the whole ensemble
        batch = self.task.draw(
            settings.seed,
            members=self.all.ids,
            epoch=epoch,
            batch=settings.batch,
            length=settings.length,
            dtype=dtype,
        )
        batch = batch if everybody else batch.select(active.mask)
        inputs = None
        if torch.as_tensor(phase.flossing_weight).any():
            inputs = self._flossing_inputs(part, phase.flossing, part.epoch, "joint")
        measured: dict[str, Tensor] = {}
        if settings.metrics and active.done % settings.metrics_every == 0:
            measured = measure(part, batch, settings.metrics, self.task, settings.seed, settings.test_batches)
            measured["measured_at"] = part.epoch.to(dtype)
        clip = settings.clip if everybody else settings.clip.select(active.mask)
        rows = fit_step(part, batch, phase, clip, inputs, settings.seed)
        flops = fit_flops(batch, part.model.cell.state_size, self.task.output_size)
        self.history.count("fit_flops", flops, active.mask)
        return {**measured, **rows}

    def _floss(self, phase: FlossPhase, active: _Active) -> dict[str, Tensor]:
        part = self.part
        assert part is not None
        if not part.flosser.parameters:
            raise ValueError("there is nothing to floss: no parameter of the cell has requires_grad; set it")
        part.flosser.set_lr(phase.lr)
        inputs = self._flossing_inputs(part, phase, part.floss_epoch, "floss")
        h0 = first_row(part, phase, inputs)
        rows = floss_step(
            part.model.cell, inputs, h0, phase, part.flosser, self.settings.seed, part.floss_epoch, part.ids
        )
        part.floss_epoch += 1
        n = part.model.cell.state_size
        k = most_exponents(phase, n) if phase.penalty == EXPONENTS else n
        flops = phase.batch * floss_flops(n, k, phase.steps, phase.interval)
        self.history.count("floss_flops", flops, active.mask)
        return {**rows, "at_epoch": part.epoch.to(h0.dtype)}

    def _flossing_inputs(self, part: Members, phase: FlossPhase, epoch: Tensor, stream: str) -> Tensor:
        return self.task.inputs(
            self.settings.seed,
            members=part.ids,
            epoch=epoch,
            batch=phase.batch,
            length=phase.steps,
            stream=stream,
            dtype=part.optimizer.parameters[0].dtype,
        )

    def _check(self, active: _Active, phase: FitPhase) -> bool:
        """Stop members that are done and push the phases whose triggers fire; whether the stack changed."""
        conditions = [t.when for t in phase.triggers] + ([phase.stop] if phase.stop else [])
        if not conditions:
            return False
        self._put_back()

        def metric(name: str) -> Tensor:
            if name == "lambda1":
                return leading_exponent(self.all, self.task, self.settings.seed)
            return self.history.last(name, active.mask)

        due = active.done % phase.check_every == 0
        masks = [fired(when, self.all.epoch, active.mask, due, metric) for when in conditions]
        changed = False
        if phase.stop is not None and (stopped := masks.pop()).any():
            active.mask = active.mask & ~stopped
            changed = True
        for j in reversed(range(len(phase.triggers))):
            hit = masks[j] & active.mask
            if hit.any():
                episode = self._active((active.path[0], j), hit)
                if (action := phase.triggers[j].action) is not None:
                    act(self.all.model, self.all.model.ensemble, action, episode.mask)
                self.stack.append(episode)
                changed = True
        return changed

    def _active(self, path: tuple[int, ...], mask: Tensor | None) -> _Active:
        own = self._mask(self.phase(path))
        return _Active(path, own if mask is None else own & mask)

    def _mask(self, phase: FitPhase | FlossPhase) -> Tensor:
        """Who takes part in a phase."""
        own = phase.members
        ensemble = tuple(self.all.ids.shape)
        everybody = torch.ones(ensemble, dtype=torch.bool)
        if own is not None:
            if own.dtype != torch.bool or tuple(own.shape) != ensemble:
                raise ValueError(
                    f"members of a phase must be a bool tensor of the ensemble's shape {ensemble}, "
                    f"got {own.dtype} {tuple(own.shape)}"
                )
            if not own.any():
                raise ValueError(
                    "members of a phase must not be all false: nobody would take part; drop the phase"
                )
            return own.clone()
        return everybody

    def _put_back(self) -> None:
        if self.part is not None and self.part is not self.all:
            self.all.put(self.stack[-1].mask, self.part)
        self.part = None

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write a checkpoint."""
        self._put_back()
        stack = [
            {"path": list(a.path), "mask": a.mask.tolist(), "done": a.done, "checked": a.checked}
            for a in self.stack
        ]
        save_checkpoint(
            path, {**self.all.tensors(), **self.history.tensors()}, {"config": config, "stack": stack}
        )

    def load(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.all.load(tensors)
        self.history.load(tensors)
        self.stack = [
            _Active(tuple(a["path"]), torch.tensor(a["mask"]), a["done"], a["checked"])
            for a in facts["stack"]
        ]
