"""Figures made: a Record each, at some scale, with its checks and what it cost."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lyaptorch import _checks
from lyaptorch._brief import tally
from lyaptorch._files import host_of
from lyaptorch.cli.output import Work, draw, resumable
from lyaptorch.experiments import FIGURES, Check
from lyaptorch.experiments.check import reason
from lyaptorch.experiments.figure import Figure
from lyaptorch.experiments.parts import completed
from lyaptorch.experiments.recorded import figure_of, recorded_checks, recorded_scale
from lyaptorch.record import Record
from lyaptorch.sweep import Group, Processes, Serial

UNITS = {"day": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
"""Seconds in the units of rough costs."""


@dataclass(frozen=True)
class Made:
    """A figure that was made.

    Attributes:
        paper: where it is from.
        figure: its name there.
        scale: smoke, small or paper; empty for other settings.
        seed: of its networks and batches.
        path: of its Record.
        checks: what it claims; None if another version of the figure made it.
        host: seconds, versions and other volatile facts.
    """

    paper: str
    figure: str
    scale: str
    seed: int
    path: Path
    checks: Sequence[Check] | None
    host: dict[str, Any]

    @property
    def usual(self) -> bool:
        """Whether its seed is the one that the figure has unless another is asked for."""
        return self.seed == seed_of(self.paper, self.figure)

    @property
    def standing(self) -> str:
        """How many checks hold, in words."""
        return "not checked" if self.checks is None else tally(check.outcome for check in self.checks)

    def cost(self, clock: str) -> float | None:
        """What it took in "seconds", or in "cpu_seconds" of all its threads; None where nobody knows."""
        value = self.host.get(clock)
        return float(value) if isinstance(value, int | float) else None

    def why(self, check: Check) -> str:
        """Why a check does not hold, where that is known; what is known is that of small scale."""
        known = self.scale == "small" and self.usual and not check.holds
        return reason(self.paper, self.figure, check) if known else ""


def seed_of(paper: str, figure: str, seed: int | None = None) -> int:
    """The seed that is asked for, or the figure's own."""
    return _checks.seed(FIGURES[paper][figure]().seed if seed is None else seed)


def other_seed(paper: str, figure: str, seed: int | None) -> str:
    """What the files of a figure with another seed than its own have in their names."""
    # what is committed and linked is that of the figure's own
    other = seed_of(paper, figure, seed)
    return "" if other == seed_of(paper, figure) else f"-seed{other}"


@dataclass(frozen=True)
class Order:
    """How figures are to be made.

    Attributes:
        scale: smoke, small or paper.
        seed: of networks and batches; each figure's own when None.
        work: where their Records go, and with how many threads.
    """

    scale: str
    seed: int | None
    work: Work


def make(paper: str, figure: str, order: Order, show_progress: bool | None) -> Made:
    """Make a figure: its Record, the picture beside it, and its checks; it resumes where it was killed.

    Of a Record whose picture could not be drawn, only that is made.
    """
    chosen, scale, seed = FIGURES[paper][figure], order.scale, seed_of(paper, figure, order.seed)
    other = other_seed(paper, figure, seed)
    experiment = chosen(**{**chosen.scales.get(scale, {}), "seed": seed})
    config: dict[str, Any] = asdict(experiment)
    job = order.work.job(f"{paper}-{figure}-{scale}{other}", config)
    path, record = _undrawn(job.path, f"{paper} {figure}", config)
    if record is None:
        record = _measured(experiment, order.work.runs)
        if record is None:
            with resumable(job.checkpoints):
                record = experiment.record(show_progress, job.checkpoint)
        path, _ = job.save(record)
    # a vector picture for print; the other, which the docs show, comes last, as it says that all is drawn
    draw(record, path, (".pdf", ".png"))
    return Made(paper, figure, scale, seed, path, experiment.checks(record), host_of(path))


def _undrawn(path: Path, kind: str, config: Mapping[str, Any]) -> tuple[Path, Record | None]:
    """The Record of this run that has no picture, if there is one, and where."""
    # as a Record has it: JSON turns tuples into lists
    config = Record(kind, config, {}).config
    for made, record in records_in(path.parent, f"{path.stem}*.nc"):
        if isinstance(record, ValueError) or drawn(made):
            continue
        if (record.kind, record.config) == (kind, config):
            return made, record
    return path, None


def _measured(figure: Figure, runs: Path) -> Record | None:
    """Its Record from that of another figure which measures the same, if that was made with its settings."""
    if figure.measured_by == figure.figure:
        return None
    other = FIGURES[figure.paper][figure.measured_by]
    # as a Record has it: JSON turns tuples into lists
    config, known = Record(figure.figure, asdict(figure), {}).config, {field.name for field in fields(other)}
    for _, record in records_in(runs, f"{other.paper}-{other.figure}-*.nc"):
        # one of another version has other fields
        if (
            isinstance(record, Record)
            and figure_of(record, FIGURES) is other
            and set(record.config) == known
            and all(record.config[name] == config[name] for name in known & config.keys())
        ):
            return completed(figure, record)
    return None


def drawn(path: Path) -> bool:
    """Whether the Record at `path` has its picture beside it."""
    return path.with_suffix(".png").is_file()


def make_all(
    figures: Sequence[tuple[str, str, int]], order: Order, workers: int
) -> Iterator[tuple[tuple[str, str, int], Made | Exception]]:
    """Make figures by paper, name and seed, one after the other or in several processes.

    One that fails does not stop the others. In several processes those that take long come first, so that
    none waits for the others at the end.
    """
    if workers > 1:
        cost = {(p, f): rough_seconds(FIGURES[p][f].costs()[order.scale]) for p, f, _ in figures}
        figures = sorted(figures, key=lambda job: -cost[job[:2]])
    groups = [Group(({"job": job},), (" ".join(map(str, job)),)) for job in figures]
    work = functools.partial(_work, order)
    for group, result in (Serial() if workers == 1 else Processes(workers)).execute(work, groups):
        yield group.configs[0]["job"], result


def rough_seconds(cost: str) -> float:
    """The seconds of a rough cost, such as "1.5 min" or "a day"."""
    # the first unit that is named, once where no number stands before it: h begins hour
    found = re.match(r"(\d+(?:\.\d+)?)?\D*?(day|h|min|s)", cost)
    assert found is not None, cost
    return float(found[1] or 1) * UNITS[found[2]]


def _work(order: Order, group: Group) -> Made:
    """What a worker does with one figure."""
    paper, figure, seed = group.configs[0]["job"]
    return make(paper, figure, replace(order, seed=seed), show_progress=False)


def records_in(folder: Path, names: str = "*.nc") -> Iterator[tuple[Path, Record | ValueError]]:
    """The Records of a folder, or why one cannot be read."""
    for path in sorted(folder.glob(names)):
        try:
            yield path, Record.load(path)
        except ValueError as error:
            yield path, error


def made_in(runs: Path) -> list[Made]:
    """All figures whose Records are in a folder, newest last; those that cannot be read `lyap list` tells."""
    found = []
    for path, record in records_in(runs):
        if isinstance(record, Record) and (figure := figure_of(record, FIGURES)) is not None:
            paper, _, name = record.kind.partition(" ")
            scale, checks = recorded_scale(record, figure), recorded_checks(record, figure)
            # that of another version of the figure may have none
            seed = record.config.get("seed")
            seed = seed if isinstance(seed, int) else seed_of(paper, name)
            found.append(Made(paper, name, scale, seed, path, checks, host_of(path)))
    # of two of one figure the newer counts, whatever the number in its name
    return sorted(found, key=lambda made: str(made.host.get("time", "")))
