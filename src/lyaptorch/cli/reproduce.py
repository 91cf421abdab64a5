"""`lyap reproduce`."""

from __future__ import annotations

import json as json_module
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from lyaptorch import _checks
from lyaptorch._files import host_of, run_path
from lyaptorch.cli.output import check_table, checkpoint_path, save, show
from lyaptorch.experiments import FIGURES, SCALES, Check
from lyaptorch.experiments.recorded import figure_of, recorded_checks, recorded_scale
from lyaptorch.plots.runs import duration
from lyaptorch.record import Record
from lyaptorch.tasks.archives import VARIABLE


def reproduce(
    paper: Annotated[str, tyro.conf.Positional] = "",
    figure: Annotated[str, tyro.conf.Positional] = "",
    /,
    *,
    scale: Literal["smoke", "small", "paper"] = "small",
    list: bool = False,  # noqa: A002
    runs: Path = Path("runs"),
    data_dir: Path | None = None,
    json: bool = False,
    threads: int = 1,
) -> None:
    """Reproduce a figure of a paper and check what it claims; training resumes where it was killed.

    Args:
        paper: Such as gradient-flossing.
        figure: Such as fig1b.
        scale: smoke (seconds), small (minutes, shows the effect) or paper (the published size).
        list: List all figures, what they cost, and the checks of those made already, and stop.
        runs: Folder for the Record and the picture.
        data_dir: Folder of image files; else that in LYAPTORCH_DATA, or a cache filled from the net.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    if list or not paper:
        _list(runs, json)
        return
    figures = FIGURES[_checks.choice("paper", paper, FIGURES)]
    chosen = figures[_checks.choice("figure", figure, figures)]
    torch.set_num_threads(_checks.integer("threads", threads, 1))
    if data_dir is not None:
        os.environ[VARIABLE] = str(data_dir)
    name = f"{paper}-{figure}-{scale}"
    path, start = run_path(runs, name), time.monotonic()
    experiment = chosen(**chosen.scales.get(scale, {}))
    checkpoint = checkpoint_path(runs, name, asdict(experiment))  # type: ignore[call-overload]
    record = experiment.run(False if json else None, checkpoint)
    seconds = time.monotonic() - start
    path, picture = save(record, path, seconds, checkpoint)
    checks = experiment.checks(record)
    summary = {"checks": [asdict(check) for check in checks]}
    show(json, summary, [check_table(f"{paper} {figure}, {scale} scale", checks)], path, picture, seconds)


def _list(runs: Path, json: bool) -> None:
    """All figures, what they cost, and how the checks stand of those whose Records are in `runs`."""
    made = _made(runs)
    rows: list[dict[str, Any]] = []
    for paper, figures in FIGURES.items():
        for name, figure in figures.items():
            found = made.get((paper, name), [])
            facts = {"paper": paper, "figure": name, "shows": figure.shows, "cost": dict(figure.cost)}
            rows.append({**facts, "records": found})
    if json:
        print(json_module.dumps({"figures": rows}))
        return
    console = Console()
    for paper in FIGURES:
        console.print(_figures(paper, [row for row in rows if row["paper"] == paper]))
    console.print(f"* measured, from a Record in {runs}; the other costs are rough", highlight=False)


def _figures(paper: str, rows: list[dict[str, Any]]) -> Table:
    """A row for each figure of a paper."""
    table = Table(title=paper)
    # a name that is cut off cannot be typed
    table.add_column("figure", no_wrap=True)
    table.add_column("shows", ratio=1)
    for scale in ("smoke", "small", "paper"):
        table.add_column(scale, max_width=9)
    table.add_column("checks that hold", max_width=14)
    for row in rows:
        costs, status = dict(row["cost"]), []
        for record in row["records"]:
            scale = record["scale"] or "other settings"
            if record["scale"] and record["seconds"] is not None:
                costs[record["scale"]] = f"{duration(record['seconds'])} *"
            held = "not checked" if record["checks"] is None else f"{record['held']} of {record['checks']}"
            status.append(f"{scale}: {held}")
        table.add_row(row["figure"], row["shows"], *(costs[s] for s in SCALES), "\n".join(status) or "-")
    return table


def _made(runs: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By paper and figure, the Records in a folder: their scale, cost, and how many checks hold."""
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(runs.glob("*.nc")):
        try:
            record = Record.load(path)
        except ValueError:
            # `lyap list` says why
            continue
        figure = figure_of(record, FIGURES)
        if figure is None:
            continue
        checks = recorded_checks(record, figure)
        facts: dict[str, Any] = {"path": str(path), "scale": recorded_scale(record, figure)}
        facts["seconds"] = host_of(path).get("seconds")
        facts |= {"checks": None, "held": None} if checks is None else _held(checks)
        paper, _, name = record.kind.partition(" ")
        made.setdefault((paper, name), []).append(facts)
    return made


def _held(checks: list[Check]) -> dict[str, Any]:
    return {"checks": len(checks), "held": sum(check.holds for check in checks)}
