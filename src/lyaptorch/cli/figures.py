"""Figures made: a Record each, at some scale, with its checks and what it cost."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lyaptorch import _checks
from lyaptorch._brief import tally
from lyaptorch._files import host_of, run_path
from lyaptorch.cli.output import checkpoint_path, draw, has, resumable, save
from lyaptorch.experiments import FIGURES, Check
from lyaptorch.experiments.check import reason
from lyaptorch.experiments.figure import Figure, figure_of, recorded_checks, recorded_scale
from lyaptorch.plots import figure_of_kind
from lyaptorch.record import Record
from lyaptorch.sweep import Group, Processes, Serial
from lyaptorch.training.epochs import keep_pages

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
    return _checks.integer("seed", FIGURES[paper][figure]().seed if seed is None else seed, 0)


def make(
    paper: str,
    figure: str,
    scale: str,
    seed: int | None,
    runs: Path,
    threads: int,
    show_progress: bool | None,
) -> Made:
    """Make a figure: its Record, the picture beside it, and its checks; it resumes where it was killed.

    Of a Record whose picture could not be drawn, only that is made.
    """
    chosen = FIGURES[paper][figure]
    if not issubclass(chosen, Figure):
        figure_of_kind(f"{paper} {figure}")
    torch.set_num_threads(threads)
    keep_pages()
    own = seed_of(paper, figure, seed)
    other = "" if own == seed_of(paper, figure) else f"-seed{own}"
    name = f"{paper}-{figure}-{scale}{other}"
    path, start, cpu = run_path(runs, name), time.monotonic(), time.process_time()
    experiment = chosen(**{**chosen.scales.get(scale, {}), "seed": own})
    config: dict[str, Any] = asdict(experiment)
    undrawn = _undrawn(path, f"{paper} {figure}", config)
    if undrawn is not None:
        path, record = undrawn
        draw(record, path)
        return Made(paper, figure, scale, own, path, experiment.checks(record), host_of(path))
    checkpoint = checkpoint_path(runs, name, config)
    with resumable(has(checkpoint)):
        run = experiment.record if isinstance(experiment, Figure) else experiment.run
        record = run(show_progress, checkpoint)
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    path, _ = save(record, path, seconds, checkpoint, cpu_seconds=cpu_seconds)
    return Made(paper, figure, scale, own, path, experiment.checks(record), host_of(path))


def _undrawn(path: Path, kind: str, config: Mapping[str, Any]) -> tuple[Path, Record] | None:
    """The Record of this run that has no picture, if there is one."""
    for made in sorted(path.parent.glob(f"{path.stem}*.nc")):
        if drawn(made):
            continue
        try:
            record = Record.load(made)
        except ValueError:
            continue
        if record.kind == kind and record.config == Record(kind, config, {}).config:
            return made, record
    return None


def drawn(path: Path) -> bool:
    """Whether the Record at `path` has its picture beside it."""
    return path.with_suffix(".png").is_file()


def make_all(
    figures: Sequence[tuple[str, str]],
    scale: str,
    seed: int | None,
    runs: Path,
    threads: int,
    workers: int,
) -> Iterator[tuple[str, str, Made | Exception]]:
    """Make figures, one after the other or in several processes; one that fails does not stop the others.

    In several processes those that take long come first, so that none waits for the others at the end.
    """
    if workers > 1:
        figures = sorted(figures, key=lambda name: -rough_seconds(FIGURES[name[0]][name[1]].cost[scale]))
    packs = [
        Group(({"paper": paper, "figure": figure},), (f"{paper} {figure}",)) for paper, figure in figures
    ]
    work = functools.partial(_work, scale, seed, runs, threads)
    for group, result in (Serial() if workers == 1 else Processes(workers)).execute(work, packs):
        yield group.configs[0]["paper"], group.configs[0]["figure"], result


def rough_seconds(cost: str) -> float:
    """The seconds of a rough cost, such as "2 min" or "an hour on a GPU"."""
    found = re.match(r"(\d*)\D*?(day|h|min|s)", cost)
    assert found is not None, cost
    return float(found[1] or 1) * UNITS[found[2]]


def _work(scale: str, seed: int | None, runs: Path, threads: int, group: Group) -> Made:
    """What a worker does with one figure."""
    return make(**group.configs[0], scale=scale, seed=seed, runs=runs, threads=threads, show_progress=False)


def made_in(runs: Path) -> list[Made]:
    """All figures whose Records are in a folder; those that cannot be read are left to `lyap list`."""
    found = []
    for path in sorted(runs.glob("*.nc")):
        try:
            record = Record.load(path)
        except ValueError:
            continue
        figure = figure_of(record, FIGURES)
        if figure is not None:
            paper, _, name = record.kind.partition(" ")
            scale, checks = recorded_scale(record, figure), recorded_checks(record, figure)
            seed = int(record.config.get("seed", seed_of(paper, name)))
            found.append(Made(paper, name, scale, seed, path, checks, host_of(path)))
    return found
