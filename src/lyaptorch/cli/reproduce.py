"""`lyap reproduce`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table
from rich.text import Text

from lyaptorch import _checks
from lyaptorch.cli.figures import Made, Order, drawn, made_in, make, make_all, seed_of
from lyaptorch.cli.foresee import foresee
from lyaptorch.cli.output import Work, Works, resumable
from lyaptorch.cli.parts import (
    PAPER,
    PaperOrder,
    Parts,
    PartsOptions,
    coverage_of,
    refuse_seeds,
    reproduce_parts,
)
from lyaptorch.cli.tables import check_table, counted, seeds_table
from lyaptorch.experiments import FIGURES, SCALES
from lyaptorch.experiments.over_seeds import over_seeds
from lyaptorch.plots.pages import duration
from lyaptorch.tasks.archives import VARIABLE

ALL = "all"
"""The name of every figure of a paper, or of all papers."""
MEASURED = ("--scale", "--seed", "--seeds", "--data-dir")
"""Options that say what is made."""


def reproduce(
    paper: Annotated[str, tyro.conf.Positional] = "",
    figure: Annotated[str, tyro.conf.Positional] = "",
    /,
    *,
    scale: Literal["smoke", "small", "paper"] = "small",
    seed: int | None = None,
    seeds: int | None = None,
    list: bool = False,  # noqa: A002
    data_dir: Path | None = None,
    workers: int = 1,
    dry_run: bool = False,
    parts: PartsOptions = Parts(),  # noqa: B008
    work: Works,
) -> None:
    """Reproduce a figure of a paper and check what it claims; training resumes where it was killed.

    For `all` figures of a paper, or of `all` papers, it makes those of which there is no Record yet. What
    another figure measured with the same settings, as figure 8 for figure 9, is taken from its Record. At
    paper scale a figure is made in parts, some of its networks each: in any order, on any machines, as far as
    the budget goes; with --gather it is drawn and checked from those that are there.

    Args:
        paper: Such as gradient-flossing, or all.
        figure: Such as fig1b, or all.
        scale: smoke (seconds), small (minutes, shows the effect) or paper (the published size).
        seed: Random seed (default: the figure's own); results of other seeds are saved separately.
        seeds: Repeat with this many consecutive seeds, and count in how many each check holds; at paper
            scale, for figures that train: networks under each condition.
        list: List all figures, what they cost, and the checks of those made already, and stop.
        data_dir: Folder of images and sounds; else that in LYAPTORCH_DATA, or a cache filled from the net.
        workers: Figures that are made in parallel, each in a process of its own.
        dry_run: Measure a few epochs of what would be trained, print what all would take, and stop.
        parts: Of paper scale.
        work: Where the results go, and how.
    """
    given = {
        "--scale": scale != "small",
        "--seed": seed is not None,
        "--seeds": seeds is not None,
        "--data-dir": data_dir is not None,
        "--workers": workers != 1,
        "--threads": work.threads != 1,
        "--dry-run": dry_run,
        "--records": parts.records is not None,
        "--budget": parts.budget != "",
        "--gather": parts.gather,
    }
    if list or not paper:
        _refuse_idle("all figures are listed", given, but=("--records",), named=paper)
        _list(work, parts)
        return
    if seeds is not None:
        _checks.integer("seeds", seeds, 1)
    _checks.threads(work.threads)
    _checks.integer("workers", workers, 1)
    if scale != PAPER and parts != Parts():
        raise ValueError(
            "--records, --budget and --gather are of paper scale; add --scale paper, or drop them"
        )
    if dry_run:
        _refuse_idle("--dry-run makes nothing", given, but=(*MEASURED, "--threads", "--dry-run"))
    elif parts.gather:
        _refuse_idle("--gather makes nothing", given, but=(*MEASURED, "--threads", "--records", "--gather"))
    chosen = _chosen(paper, figure)
    if scale == PAPER and seeds is not None and len(chosen) == 1:
        refuse_seeds(*chosen[0], PaperOrder(parts.folder(work), seed, seeds, work))
    # through the environment: processes that make figures inherit it
    if data_dir is not None:
        os.environ[VARIABLE] = str(data_dir)
    if dry_run:
        foresee(chosen, Order(scale, seed, work), seeds, parts.folder(work))
        return
    if scale == PAPER:
        with resumable(lambda: True):
            cut = PaperOrder(parts.folder(work), seed, seeds, work)
            reproduce_parts(chosen, cut, parts, workers)
        return
    order = Order(scale, seed, work)
    if ALL in (paper, figure) or seeds is not None:
        with resumable(lambda: any(m.scale == scale for m in made_in(work.runs))):
            _reproduce_all(chosen, order, workers, seeds)
        return
    if workers > 1:
        raise ValueError(
            f"one figure of one seed is made by one process, got --workers {workers}; drop it, or add --seeds"
        )
    made = make(paper, figure, order, work.show_progress)
    checks = made.checks or []
    table = check_table(f"{paper} {figure}, {scale} scale", checks)
    known = [(check, why) for check in checks if (why := made.why(check))]
    reasons = [Text(f"{check.outcome}, {check.sentence}: {why}") for check, why in known]
    files = {"record": made.path, "figure": made.path.with_suffix(".png")}
    facts = {"checks": [check.facts() for check in checks]}
    work.conclude(facts, [table, *reasons], files, made.cost("seconds"))


def _refuse_idle(why: str, given: Mapping[str, bool], but: tuple[str, ...], named: str = "") -> None:
    """Raise for options that would change nothing, and for names."""
    idle = [option for option, there in given.items() if there and option not in but]
    idle += [named] if named else []
    if idle:
        raise ValueError(
            f"{why}, whatever {', '.join(idle)} may say; drop {'it' if len(idle) == 1 else 'them'}"
        )


def _chosen(paper: str, figure: str) -> list[tuple[str, str]]:
    """Papers and figures that are named."""
    if paper == ALL and figure in ("", ALL):
        return [(p, f) for p, figures in FIGURES.items() for f in figures]
    figures = FIGURES[_checks.choice("paper", paper, FIGURES)]
    names = figures if figure == ALL else [_checks.choice("figure", figure, figures)]
    return [(paper, name) for name in names]


def _reproduce_all(
    figures: list[tuple[str, str]], order: Order, workers: int, seeds: int | None = None
) -> None:
    """Make the figures that are missing, each with so many seeds; name those that failed at the end."""
    work = order.work
    jobs = [
        (paper, name, seed_of(paper, name, order.seed) + i)
        for paper, name in figures
        for i in range(seeds or 1)
    ]
    found = [m for m in made_in(work.runs) if m.scale == order.scale and drawn(m.path)]
    known = {(m.paper, m.figure, m.seed): m for m in found}
    done = {job: known[job] for job in jobs if job in known}
    failed: dict[str, str] = {}
    # flushed, as a line may be the last one for an hour, and output to a file would wait for a full block
    if work.talks:
        print(f"{len(done)} of {len(jobs)} figures are made already", flush=True)
    for job, result in make_all([job for job in jobs if job not in done], order, workers):
        name = " ".join(job[:2]) + (f" seed {job[2]}" if seeds else "")
        if isinstance(result, Made):
            done[job] = result
            # what it took stands beside the Record, and may be lost
            seconds = result.cost("seconds")
            said = result.standing + (f"; {duration(seconds)}" if seconds is not None else "")
        else:
            # the first line: some errors go on with a page of advice
            reason = [type(result).__name__, *str(result).strip().splitlines()[:1]]
            said = failed[name] = ": ".join(reason)
        if work.talks:
            print(f"{len(done) + len(failed)}/{len(jobs)} {name}: {said}", flush=True)
    facts: dict[str, Any] = {"figures": [_facts(made) for made in done.values()], "failed": failed}
    tables = []
    for paper, name in figures if seeds else []:
        told = over_seeds([m.checks or [] for (p, f, _), m in done.items() if (p, f) == (paper, name)])
        facts.setdefault("checks", []).append(
            {"paper": paper, "figure": name, "checks": [over.facts() for over in told]}
        )
        tables.append(seeds_table(f"{paper} {name}, {order.scale} scale", told))
    work.answer(facts, tables)
    if failed:
        alike = {error: [name for name in failed if failed[name] == error] for error in failed.values()}
        each = "; ".join(f"{', '.join(names)} with {error}" for error, names in alike.items())
        raise ValueError(f"{len(failed)} of {len(jobs)} figures failed, the others are saved: {each}")


def _list(work: Work, parts: Parts) -> None:
    """All figures, what they cost, how the checks stand of those whose Records are there, and their parts."""
    made, rows, order = made_in(work.runs), [], PaperOrder(parts.folder(work), None, None, work)
    parts_there: dict[tuple[str, str], str] = {}
    refused: dict[Path, str] = {}
    for paper, figures in FIGURES.items():
        for name, figure in figures.items():
            records = [_facts(m) for m in made if (m.paper, m.figure) == (paper, name)]
            facts = {"paper": paper, "figure": name, "shows": figure.shows, "cost": figure.costs()}
            there, others = coverage_of(paper, name, order)
            refused |= others
            counts = {"gathered": {"seeds": there.common, "of": there.of}, "left_out": len(there.left_out)}
            rows.append({**facts, "records": records, **counts})
            if there.common:
                told = f", {len(there.left_out)} of {len(there.seeds)} points left out" * bool(there.left_out)
                parts_there[paper, name] = f"paper: {there.common} of {there.of} seeds{told}"
    tables = [_figures(paper, [m for m in made if m.paper == paper], parts_there) for paper in FIGURES]
    note = f"* measured, from a Record in {work.runs}; the other costs are rough"
    named = [f"refused: {why}" for why in refused.values()]
    work.answer({"figures": rows, "refused": list(refused.values())}, [*tables, note, *named])


def _figures(paper: str, made: list[Made], parts_there: Mapping[tuple[str, str], str]) -> Table:
    """A row for each figure of a paper; of what is there of its parts a line."""
    table = Table(title=paper)
    # a name that is cut off cannot be typed
    table.add_column("figure", no_wrap=True)
    table.add_column("shows", ratio=1)
    for scale in SCALES:
        table.add_column(scale, max_width=9)
    table.add_column("checks", max_width=14)
    for name, figure in FIGURES[paper].items():
        costs, status = figure.costs(), []
        for record in made:
            if record.figure == name:
                seconds = record.cost("seconds")
                if record.scale and seconds is not None:
                    costs[record.scale] = f"{duration(seconds)} *"
                other = "" if record.usual else f", seed {record.seed}"
                status.append(f"{record.scale or 'other settings'}{other}: {record.standing}")
        status += [parts_there[paper, name]] if (paper, name) in parts_there else []
        table.add_row(name, figure.shows, *(costs[s] for s in SCALES), "\n".join(status) or "-")
    return table


def _facts(made: Made) -> dict[str, Any]:
    """What a script is told of a figure that was made."""
    counts: dict[str, int | None] = dict.fromkeys(("checks", "held", "undecided"))
    if made.checks is not None:
        counts = counted([check.outcome for check in made.checks])
    facts = {name: getattr(made, name) for name in ("paper", "figure", "scale", "seed")}
    costs = {clock: made.cost(clock) for clock in ("seconds", "cpu_seconds")}
    return {**facts, "path": str(made.path), **costs, **counts}
