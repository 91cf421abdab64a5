"""`lyap reproduce`."""

from __future__ import annotations

import json as json_module
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from lyaptorch import _checks
from lyaptorch._files import run_path
from lyaptorch.cli.output import checkpoint_path, save, show
from lyaptorch.experiments import FIGURES, SCALES, Check
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
        list: List all figures and what they cost, and stop.
        runs: Folder for the Record and the picture.
        data_dir: Folder of image files; else that in LYAPTORCH_DATA, or a cache filled from the net.
        json: Print one JSON object instead of tables.
        threads: Threads of torch; small networks are fastest with one.
    """
    if list or not paper:
        _list(json)
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
    show(json, summary, [_table(f"{paper} {figure}, {scale} scale", checks)], path, picture, seconds)


def _list(json: bool) -> None:
    rows = [(paper, name, figure) for paper, figures in FIGURES.items() for name, figure in figures.items()]
    if json:
        facts = [{"paper": p, "figure": n, "shows": f.shows, "cost": dict(f.cost)} for p, n, f in rows]
        print(json_module.dumps({"figures": facts}))
        return
    table = Table(title="Figures")
    for column in ("paper", "figure", "shows", "smoke", "small", "paper scale"):
        # a name that is cut off cannot be typed
        table.add_column(column, no_wrap=column in ("paper", "figure"))
    for paper, name, figure in rows:
        table.add_row(paper, name, figure.shows, *(figure.cost[scale] for scale in SCALES))
    Console().print(table)


def _table(title: str, checks: list[Check]) -> Table:
    table = Table(title=title)
    table.add_column("check")
    for column in ("expected", "measured", "±", "holds"):
        table.add_column(column, justify="right")
    for check in checks:
        table.add_row(
            check.sentence,
            f"{check.expected:.3g}",
            f"{check.measured:.3g}",
            f"{check.tolerance:.2g}",
            "yes" if check.holds else "[bold red]NO[/]",
        )
    return table
