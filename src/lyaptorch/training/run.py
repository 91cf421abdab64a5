"""A run: a stack of phases under way, on which triggers put episodes; saved and resumed at any epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._shown import progress
from lyaptorch.schedules import FitPhase, FlossPhase, Phase, Schedule
from lyaptorch.schedules.phases import check_per_member, plain, select
from lyaptorch.tasks.batch import Draw, Task
from lyaptorch.training.checkpoint import CHECKPOINT_SECONDS, save_checkpoint, seconds_between
from lyaptorch.training.dropout import generators, set_generators
from lyaptorch.training.ensemble import Ensemble, UnstableError, flossed, overflow_of, told_apart
from lyaptorch.training.epochs import Row
from lyaptorch.training.flossing import most_exponents, warn_of_death
from lyaptorch.training.history import History, any_of
from lyaptorch.training.metrics import measure, measured_exponents
from lyaptorch.training.work import Settings, Work, apart, drawing, work_of


@dataclass
class _Active:
    """A phase under way: where it stands in the schedule, its members, and how far it is."""

    path: tuple[int, ...]
    mask: Tensor
    done: int = 0
    checked: int = -1


class Run:
    """A stack of phases under way; a trigger puts a phase on top of the fit that it interrupts.

    The path of a trigger: `step` calls `_check` before every epoch of a fit; `_check` asks each moment for
    whom it is time (`fires` in `lyaptorch/schedules/triggers.py`) and pushes an episode for these members.
    """

    def __init__(self, networks: Ensemble, task: Task, schedule: Schedule, settings: Settings) -> None:
        self.all, self.task, self.schedule, self.settings = networks, task, tuple(schedule), settings
        ensemble = tuple(networks.ids.shape)
        self.history = History(ensemble)
        if settings.clip is not None:
            _checks.per_member("clip", settings.clip, ensemble)
        for phase in self.schedule:
            if not isinstance(phase, FitPhase | FlossPhase):
                raise ValueError(f"a schedule holds FitPhase and FlossPhase, got {type(phase).__name__}")
            self._refuse_early(phase)
        parts = [(i, m) for i, phase in enumerate(self.schedule) for m in apart(phase, self._mask(phase))]
        self.stack = [_Active((i,), mask) for i, mask in reversed(parts)]
        self._part: Ensemble | None = None
        self.works: dict[tuple[int, ...], Work] = {}
        self._ready: Work | None = None

    def _refuse_early(self, phase: Phase) -> None:
        """Raise before the work what would be raised in the middle of it."""
        model, ids, cell = self.all.model, self.all.ids, self.all.model.cell
        check_per_member(phase, tuple(ids.shape))
        self._mask(phase)
        if isinstance(phase, FlossPhase):
            flossed(cell, phase.named)
            if cell.state_size:
                most_exponents(phase.k, cell.state_size - cell.travelling)
            return
        self.task.draw(Draw(self.settings.seed, self.settings.steps, member_ids=ids))
        for floss in (phase.flossing, *(trigger.phase for trigger in phase.triggers)):
            self._refuse_early(floss)
        for trigger in phase.triggers:
            if trigger.action is not None:
                trigger.action.apply(model, torch.zeros_like(ids, dtype=torch.bool), model.of_members())

    def phase(self, path: tuple[int, ...]) -> Phase:
        """The phase at a place: `(i,)` in the schedule, `(i, j)` of trigger j of fit i."""
        phase = self.schedule[path[0]]
        return phase.triggers[path[1]].phase if len(path) > 1 and isinstance(phase, FitPhase) else phase

    @property
    def part(self) -> Ensemble:
        """Those who take part in the phase on top, as an ensemble of their own; made when first asked for."""
        if self._part is None:
            mask = self.stack[-1].mask
            self._part = self.all if mask.all() else self.all.select(mask)
        return self._part

    def go(self, path: Path | None, facts: dict[str, Any], show_progress: bool | None) -> None:
        """Run what is on the stack."""
        saved, between = time.monotonic(), seconds_between(CHECKPOINT_SECONDS)
        left = sum(self.phase(a.path).epochs - a.done for a in self.stack)
        with progress("training", left, show_progress) as advance:
            while self.stack:
                for text in self.step():
                    advance(text)
                if path is not None and time.monotonic() - saved > between:
                    self.save(path, facts)
                    saved = time.monotonic()
        if path is not None:
            self.save(path, facts)

    def step(self) -> Iterator[_Told]:
        """Epochs of the phase on top until the next look, or one change of the stack.

        Gives what to show beside the bar after each epoch.
        """
        active = self.stack[-1]
        phase = self.phase(active.path)
        if active.done >= phase.epochs or not any_of(active.mask):
            self._put_back()
            self.stack.pop()
            return
        try:
            # a fit is asked once before each of its epochs. `checked` counts what was asked, `done` what was
            # run: when the episodes that a check pushed are over the fit is on top again at the same epoch,
            # and would fire again; a checkpoint in between has both numbers
            if isinstance(phase, FitPhase) and active.checked < active.done:
                changed = self._check(active, phase)
                active.checked = active.done
                if changed:
                    return
            measured = self._measure(active) if isinstance(phase, FitPhase) else {}
            if not active.done:
                # the growth may have changed since the last phase
                self.part.allowed.zero_()
            work = self._ready = self._ready or self._work(phase, active)
            until = self._until_look(phase, active)
            for rows in work.epochs.run(until if until == 1 else min(until, work.wait())):
                self.history.add({**measured, **rows}, active.mask)
                for name, amount in work.flops().items():
                    self.history.count(name, amount, active.mask)
                if "exponents" in rows:
                    warn_of_death(rows["exponents"], self.part.ids)
                measured = {}
                active.done += 1
                yield _Told(rows)
        except (UnstableError, ValueError) as error:
            failure = overflow_of(error, self.part)
            if self.settings.unstable == "raise":
                raise failure from error.__cause__
            self._drop(active, failure)

    def _until_look(self, phase: Phase, active: _Active) -> int:
        """How many epochs may pass before a metric, a trigger or the end of the phase is due."""
        ends = [self.settings.fetch_every, phase.epochs - active.done]
        if isinstance(phase, FitPhase):
            if self.settings.metrics:
                ends.append(self.settings.metrics_every - active.done % self.settings.metrics_every)
            conditions = phase.moments
            if conditions and min(ends) > 1:
                # triggers at epochs count those of each member over all fits, since a member that was left
                # out of one is behind; triggers at metrics count those of the phase, equal for all
                due = phase.check_every - active.done % phase.check_every
                waits = (when.wait(self.part.epoch.cpu(), due) for when in conditions)
                ends += [wait for wait in waits if wait is not None]
        return min(ends)

    def _work(self, phase: Phase, active: _Active) -> Work:
        """What a phase does for those who take part; where nothing changed since, what it was before."""
        part, mask = self.part, active.mask
        phase, settings = select(phase, mask, part.epoch.device), self.settings
        settings = select(settings, mask, part.epoch.device)
        if isinstance(phase, FlossPhase):
            part.flossers[phase.named].set_lr(phase.lr)
        else:
            part.optimizer.set_lr(settings.lr if phase.lr is None else phase.lr)
        if active.path not in self.works or self.works[active.path].part is not part:
            self.works[active.path] = work_of(phase, part, self.task, settings)
        return self.works[active.path]

    def _drop(self, active: _Active, failure: UnstableError) -> None:
        """Mark members whose numbers overflowed; the others go on without them."""
        # failure.who (count,) is of those who take part, active.mask (*e) of all: with m the mask and u who,
        # gone[m] = u lays them back in their places
        gone = torch.zeros_like(active.mask).masked_scatter(active.mask, failure.who.cpu())
        self.history.mark("unstable_at", self.part.epoch[failure.who], gone)
        self.history.mark("overflow_step", failure.step, gone)
        self._put_back()
        for waiting in self.stack:
            waiting.mask = waiting.mask & ~gone

    def _measure(self, active: _Active) -> Row:
        """The metrics, where they are due."""
        part, settings = self.part, self.settings
        if not settings.metrics or active.done % settings.metrics_every:
            return {}
        batch = drawing(self.task, settings, part)()

        def attempt(some: Ensemble, mask: Tensor) -> Row:
            own = batch if mask.all() else batch.select(mask.to(batch.mask.device).nonzero(as_tuple=True))
            return measure(some, own, settings.metrics, self.task, settings.seed, settings.test_batches)

        found = told_apart(part, attempt)
        return {**found, "measured_at": part.epoch.to(batch.inputs.dtype)}

    def _check(self, active: _Active, phase: FitPhase) -> bool:
        """Stop members that are done and push the phases whose triggers fire; whether the stack changed."""
        conditions = phase.moments
        if not conditions:
            return False
        self._write_back()

        def metric(name: str) -> Tensor:
            if name == "lambda1":
                return self._leading_exponent(active.mask)
            # whom this fit still has took part in its every step; what an earlier one told is out of date
            return self.history.last(name, active.done)

        due = active.done % phase.check_every == 0
        # all moments see the same epoch and the same metrics, whatever the episodes of the first will change;
        # the last mask is the stop's
        masks = [when.fires(self.all.epoch.cpu(), active.mask, due, metric) for when in conditions]
        changed = bool(torch.stack(masks).any())
        if changed:
            # what an action scales, and an episode flosses, are the weights as training left them
            self._put_back()
        if phase.stop is not None:
            # who stops floss no more: the mask shrinks before triggers are looked at
            active.mask = active.mask & ~masks.pop()
        # the top of the stack runs first: pushed from the last, episodes run in the order of the triggers
        for j in reversed(range(len(phase.triggers))):
            trigger, hit = phase.triggers[j], masks[j] & active.mask
            if hit.any():
                hit &= self._mask(trigger.phase)
                if trigger.action is not None:
                    trigger.action.apply(self.all.model, hit, self.all.model.of_members())
                self.stack.append(_Active((active.path[0], j), hit))
        return changed

    def _leading_exponent(self, mask: Tensor) -> Tensor:
        """lambda_1 of who takes part, `*e`; NaN of the others, whom nobody asks."""
        own = told_apart(
            self.part, lambda some, _: measured_exponents(some, self.task, self.settings.seed, k=1)[..., 0]
        )
        everybody = torch.full(mask.shape, torch.nan, dtype=own.dtype, device="cpu")
        return everybody.masked_scatter(mask, own.cpu())

    def _mask(self, phase: Phase) -> Tensor:
        """Who takes part in a phase."""
        own, ensemble = phase.who, tuple(self.all.ids.shape)
        if own is None:
            return torch.ones(ensemble, dtype=torch.bool, device="cpu")
        if own.dtype != torch.bool or tuple(own.shape) != ensemble:
            raise ValueError(
                f"members of a phase must be a bool tensor of the ensemble's shape {ensemble}, "
                f"got {own.dtype} {tuple(own.shape)}"
            )
        if not own.any():
            raise ValueError("members of a phase must not be all false: nobody would take part; drop it")
        return own.clone()

    def _write_back(self) -> None:
        """What became of those who take part."""
        if self._part is not None and self._part is not self.all:
            self.all.put(self.stack[-1].mask, self._part)

    def _put_back(self) -> None:
        """The same, before others take part."""
        self._write_back()
        if self._part is not self.all:
            # those who took part are at epochs of their own now
            self.works = {}
        self._part = self._ready = None

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write a checkpoint, and these facts of the run."""
        self._write_back()
        kept = {**self.all.tensors(), **self.history.tensors(), **generators(self.all.ids.device)}
        save_checkpoint(path, kept, {**facts, "stack": plain([vars(a) for a in self.stack])})

    def load(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.all.load(tensors)
        self.history.load(tensors)
        set_generators(tensors, self.all.ids.device)
        self.stack = [
            _Active(tuple(a["path"]), torch.tensor(a["mask"], device="cpu"), a["done"], a["checked"])
            for a in facts["stack"]
        ]


@dataclass(frozen=True)
class _Told:
    """A row as text, made when somebody looks."""

    rows: Row

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {self.rows[name].mean().item():.3g}"
            for name in ("loss", "accuracy", "floss_loss")
            if name in self.rows
        )
