"""What a figure will cost, from a few epochs of the very networks, before any of it is made."""

from __future__ import annotations

import copy
import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lyaptorch.cells import Cell
from lyaptorch.experiments.figure import Figure, Study
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase, Schedule
from lyaptorch.tasks import Task
from lyaptorch.tasks.batch import Source
from lyaptorch.training import Model, floss, train

FEW, MORE, MOST = 1, 4, 100
"""Epochs that are taken off, those beyond them that are measured, and most of these."""
LEAST = 1.0
"""Seconds that they take at least, unless there are `MOST` of them."""
Phase = FitPhase | FlossPhase


@dataclass(frozen=True)
class Stretch:
    """Epochs of one kind: of a phase, or of the episodes of a trigger.

    Attributes:
        what: "fit" or "floss".
        networks: how many take part.
        epochs: each one's.
        seconds: processor time of an epoch of all of them.
        operations: of an epoch of all of them; 0 where they are not counted.
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
    """Rehearse a figure: trainings and flossing of a few epochs each, everything else as it is.

    Its result is thrown away. Cost: some seconds, or about ten epochs, of each phase.
    """
    found, start = Forecast(), clock()
    rehearsal = _Rehearsal(figure.seed, False, None, found, clock)
    try:
        figure.run(rehearsal)
    except Exception as error:  # what comes of a few epochs may suit no later part
        found.unknown.append(f"all after training {len(found.stretches)} ({error})")
    found.rest = max(0.0, clock() - start - sum(rehearsal.spent))
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    found.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return found


@dataclass(frozen=True)
class _Rehearsal(Study):
    """A study whose trainings and flossing are short, and measured."""

    found: Forecast = field(default_factory=Forecast)
    clock: Callable[[], float] = time.process_time
    spent: list[float] = field(default_factory=list)

    def train(self, model: Model, task: Task, schedule: Schedule, **settings: Any) -> Record:
        """The Record of so few epochs that it tells nothing."""
        records = []
        for phase, epochs in self._expected(schedule):
            seconds, operations, record = self._measured(self._training(model, task, phase, settings))
            what = "fit" if isinstance(phase, FitPhase) else "floss"
            networks = _number(model) if phase.who is None else int(phase.who.sum())
            self.found.stretches.append(Stretch(what, networks, epochs, seconds, operations))
            records.append(record)
        # that of the task, which every figure reads; what flossing took may be asked for, too
        fitted = next((r for r in records if "fit_flops" in r), records[-1])
        flossed = next((r for r in records if "floss_flops" in r), fitted)
        took = {"floss_flops": flossed.variables["floss_flops"]} if "floss_flops" in flossed else {}
        return Record(fitted.kind, fitted.config, {**took, **fitted.variables}, fitted.coordinates)

    def _expected(self, schedule: Schedule) -> list[tuple[Phase, int]]:
        """Phases without what interrupts them, and that beside them, with their epochs."""
        expected: list[tuple[Phase, int]] = []
        for phase in schedule:
            if isinstance(phase, FlossPhase):
                expected.append((phase, phase.epochs))
                continue
            expected.append((replace(phase, triggers=(), stop=None), phase.epochs))
            for trigger in phase.triggers:
                times = trigger.when.times(phase.epochs)
                if times is None:
                    self.found.unknown.append(f"episodes that depend on what happens ({trigger.when})")
                else:
                    expected.append((trigger.phase, times * trigger.phase.epochs))
            if phase.stop is not None:
                self.found.unknown.append("when networks stop early: all epochs count")
        return [(phase, epochs) for phase, epochs in expected if epochs]

    def _training(
        self, model: Model, task: Task, phase: Phase, settings: dict[str, Any]
    ) -> Callable[[int], Record]:
        """So many epochs of a phase, of a copy."""

        def run(few: int) -> Record:
            own, schedule = copy.deepcopy(model), (replace(phase, epochs=few),)
            return train(own, task, schedule, generator=self.generator(), show_progress=False, **settings)

        return run

    def floss(self, cell: Cell, source: Source, *, epochs: int, **settings: Any) -> Record:
        """A Record of its length, of a cell that is as it was."""

        def run(few: int) -> Record:
            own = copy.deepcopy(cell)
            return floss(own, source, epochs=few, generator=self.generator(), show_progress=False, **settings)

        seconds, _, record = self._measured(run)
        networks = settings["member_ids"].numel()
        self.found.stretches.append(Stretch("floss", networks, epochs, seconds, 0.0))
        longer = {
            name: (v.dims, np.take(v.values, np.zeros(epochs, int), v.dims.index("floss_epoch")))
            for name, v in record.variables.items()
            if "floss_epoch" in v.dims
        }
        return Record(record.kind, record.config, longer)

    def _measured(self, run: Callable[[int], Record]) -> tuple[float, float, Record]:
        """Seconds and operations of an epoch, and the Record of `FEW`, which all phases have.

        Args:
            run: so many epochs of them.
        """

        def took(epochs: int) -> tuple[float, Record]:
            start = self.clock()
            record = run(epochs)
            return self.clock() - start, record

        # the first call of a phase pays for what is made once; it does not count
        took(FEW)
        once, short = took(FEW)
        more, rehearsed = MORE, 2 * FEW
        while True:
            seconds, record = took(FEW + more)
            rehearsed += FEW + more
            beyond = max(0.0, seconds - once)
            if beyond >= LEAST or more == MOST:
                break
            # a few quick epochs tell more of the machine's moods than of what they take
            more = MOST if beyond == 0 else min(MOST, max(more + 1, math.ceil(1.2 * more * LEAST / beyond)))
        epoch = beyond / more
        self.spent.append(epoch * (rehearsed - FEW))
        flops = sum(float(np.sum(record[name])) for name in ("fit_flops", "floss_flops") if name in record)
        return epoch, flops / (FEW + more), short


def _number(model: Model) -> int:
    return int(np.prod(model.ensemble, dtype=int))
