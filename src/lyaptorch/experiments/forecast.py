"""What a figure will cost, from a few epochs of the very networks, before any of it is made."""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lyaptorch.experiments.figure import Figure, Study
from lyaptorch.record import Record
from lyaptorch.schedules import At, Every, FitPhase, FlossPhase, Schedule
from lyaptorch.tasks import Task
from lyaptorch.training import Model, train

FEW, MORE = 1, 4
"""Epochs that are taken off, and those beyond them that are measured."""
Phase = FitPhase | FlossPhase


@dataclass(frozen=True)
class Stretch:
    """Epochs of one kind: of a phase, or of the episodes of a trigger.

    Attributes:
        what: "fit" or "floss".
        networks: how many take part.
        epochs: each one's.
        seconds: processor time of an epoch of all of them.
        operations: of an epoch of all of them.
    """

    what: str
    networks: int
    epochs: int
    seconds: float
    operations: float


@dataclass
class Forecast:
    """The trainings of a figure, as they would be.

    Attributes:
        stretches: what is trained, in its order.
        rest: seconds of all else: networks, settling, tests.
        unknown: what was left out, because it depends on what happens, or the figure stopped there.
        memory: bytes of this process at most, so far.
    """

    stretches: list[Stretch] = field(default_factory=list)
    rest: float = 0.0
    unknown: list[str] = field(default_factory=list)
    memory: int = 0

    @property
    def seconds(self) -> float:
        """Processor time; over the threads, where they share the work, the time it takes."""
        return self.rest + sum(s.epochs * s.seconds for s in self.stretches)

    @property
    def operations(self) -> float:
        """Floating-point operations of all epochs, as `lt.train` counts them."""
        return sum(s.epochs * s.operations for s in self.stretches)

    def repeated(self, n: int) -> Forecast:
        """The same with n seeds, one after another."""
        many = [
            replace(s, networks=n * s.networks, seconds=n * s.seconds, operations=n * s.operations)
            for s in self.stretches
        ]
        return replace(self, stretches=many, rest=n * self.rest)


def forecast(figure: Figure, clock: Callable[[], float] = time.process_time) -> Forecast:
    """Rehearse a figure: every training of a few epochs, everything else as it is.

    Its result is thrown away. Cost: about ten epochs of each phase.
    """
    found, start = Forecast(), clock()
    rehearsal = _Rehearsal(figure.seed, False, None, found, clock)
    try:
        figure.run(rehearsal)
    except Exception as error:  # what comes of a few epochs may suit no later part
        found.unknown.append(f"all after training {len(found.stretches)} ({error})")
    measured = sum(s.seconds * (2 * FEW + MORE) for s in found.stretches)
    found.rest = max(0.0, clock() - start - measured)
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    found.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found


@dataclass(frozen=True)
class _Rehearsal(Study):
    """A study whose trainings are short, and measured."""

    found: Forecast = field(default_factory=Forecast)
    clock: Callable[[], float] = time.process_time

    def train(self, model: Model, task: Task, schedule: Schedule, **settings: Any) -> Record:
        """The Record of so few epochs that it tells nothing."""
        records = []
        for phase, epochs in self._expected(schedule):
            seconds, operations, record = self._measured(model, task, phase, settings)
            what = "fit" if isinstance(phase, FitPhase) else "floss"
            networks = _number(model) if phase.who is None else int(phase.who.sum())
            self.found.stretches.append(Stretch(what, networks, epochs, seconds, operations))
            records.append(record)
        # that of the task, which every figure reads
        return next((r for r in records if "fit_flops" in r), records[-1])

    def _expected(self, schedule: Schedule) -> list[tuple[Phase, int]]:
        """Phases without what interrupts them, and that beside them, with their epochs."""
        expected: list[tuple[Phase, int]] = []
        for phase in schedule:
            if isinstance(phase, FlossPhase):
                expected.append((phase, phase.epochs))
                continue
            expected.append((replace(phase, triggers=(), stop=None), phase.epochs))
            for trigger in phase.triggers:
                times = _times(trigger.when, phase.epochs)
                if times is None:
                    self.found.unknown.append(f"episodes that depend on what happens ({trigger.when})")
                else:
                    expected.append((trigger.phase, times * trigger.phase.epochs))
            if phase.stop is not None:
                self.found.unknown.append("when networks stop early: all epochs count")
        return [(phase, epochs) for phase, epochs in expected if epochs]

    def _measured(
        self, model: Model, task: Task, phase: Phase, settings: dict[str, Any]
    ) -> tuple[float, float, Record]:
        """Seconds and operations of an epoch, and the Record of the longer run."""
        seconds, records = [], []
        # the first call of a phase pays for what is made once; it does not count
        for epochs in (FEW, FEW, FEW + MORE):
            own, start = copy.deepcopy(model), self.clock()
            schedule = (replace(phase, epochs=epochs),)
            records.append(
                train(own, task, schedule, generator=self.generator(), show_progress=False, **settings)
            )
            seconds.append(self.clock() - start)
        flops = sum(
            float(np.sum(records[-1][name])) for name in ("fit_flops", "floss_flops") if name in records[-1]
        )
        return max(0.0, seconds[2] - seconds[1]) / MORE, flops / (FEW + MORE), records[-1]


def _times(when: Any, epochs: int) -> int | None:
    """How often a moment comes within so many task epochs; None where that cannot be told."""
    if isinstance(when, At):
        return sum(at <= epochs for at in when.epochs)
    return (epochs - 1) // when.epochs if isinstance(when, Every) else None


def _number(model: Model) -> int:
    return int(np.prod(model.ensemble, dtype=int))
