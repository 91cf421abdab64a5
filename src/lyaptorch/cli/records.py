"""`lyap list`, `show`, `diff`, `rm` and `report`: Records in folders."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lyaptorch._brief import tally
from lyaptorch._files import host_of, replace_file
from lyaptorch.cells import ACTIVATIONS, WEIGHTS
from lyaptorch.cli.figures import made_in
from lyaptorch.cli.networks import CELLS
from lyaptorch.cli.output import check_table, counted, finite
from lyaptorch.cli.reproduce import checks_page
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.figure import figure_of, recorded_checks
from lyaptorch.plots.curves import write_events
from lyaptorch.plots.pages import Claim, Entry, runs_page
from lyaptorch.record import Record
from lyaptorch.tasks import TASKS
from lyaptorch.training import PRESETS

BESIDE = (".host.json", ".png", ".pdf", ".html")
"""What stands beside a Record under the same name."""


def report(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    /,
    *,
    out: Path | None = None,
    tensorboard: Path | None = None,
    markdown: Path | None = None,
    scale: Literal["smoke", "small", "paper"] = "small",
    json: bool = False,
) -> None:
    """Write one page about all Records in a folder: figures, checks, configurations, costs, versions.

    Args:
        runs: Folder with Records.
        out: File of the page; report.html in the folder when missing.
        tensorboard: Also write the curves of all Records as TensorBoard events into this folder.
        markdown: Also write the costs and checks of all figures at one scale as Markdown into this file.
        scale: That scale.
        json: Print one JSON object.
    """
    paths = sorted(runs.glob("*.nc"))
    if not paths:
        raise ValueError(f"there are no Records in {runs}; make one, or name another folder")
    entries, unreadable, curves = [], [], 0
    for path in paths:
        try:
            record = Record.load(path)
        except ValueError as error:
            unreadable.append((path.name, str(error)))
            continue
        entries.append(_entry(path, record))
        if tensorboard is not None:
            curves += write_events(record, tensorboard / path.stem)
    out = runs / "report.html" if out is None else out
    replace_file(out, runs_page(f"Records in {runs}", entries, unreadable).encode())
    outcomes = [check.outcome for entry in entries for check in entry.checks]
    facts = {"page": str(out), "records": len(entries), "unreadable": [name for name, _ in unreadable]}
    facts |= counted(outcomes)
    if tensorboard is not None:
        facts |= {"tensorboard": str(tensorboard), "curves": curves}
    if markdown is not None:
        replace_file(markdown, checks_page(made_in(runs), scale, markdown.parent).encode())
        facts |= {"markdown": str(markdown)}
    if json:
        print(json_module.dumps(facts))
        return
    print(f"{len(entries)} Records; of {len(outcomes)} checks {tally(outcomes)}")
    for name, why in unreadable:
        print(f"{name}: {why}")
    if tensorboard is not None:
        print(f"TensorBoard {tensorboard}, {curves} curves")
    if markdown is not None:
        print(f"Markdown {markdown}")
    print(f"Page {out}")


def show(
    record: Annotated[Path, tyro.conf.Positional], /, *, runs: Path = Path("runs"), json: bool = False
) -> None:
    """Show what a Record holds: variables, configuration, checks, cost and versions.

    Args:
        record: A file, or its name under `runs`.
        runs: Folder with Records.
        json: Print one JSON object instead of tables.
    """
    path = _find(record, runs)
    loaded, host = Record.load(path), host_of(path)
    entries = {**loaded.variables, **loaded.coordinates}
    rows: list[dict[str, Any]] = [
        {"name": name, "size": dict(zip(v.dims, v.values.shape, strict=True)), **_range(v.values)}
        for name, v in entries.items()
    ]
    figure = figure_of(loaded, FIGURES)
    checks = (recorded_checks(loaded, figure) if figure else None) or []
    if json:
        facts = {"path": str(path), "kind": loaded.kind, "config": loaded.config, "variables": rows}
        facts |= {"host": host, "checks": [check.facts() for check in checks]}
        print(json_module.dumps(finite(facts), allow_nan=False))
        return
    table = Table(title=f"{path}: {loaded.kind}")
    for column in ("variable", "size", "least", "mean", "most"):
        table.add_column(column)
    for row in rows:
        size = ", ".join(f"{dim} {length}" for dim, length in row["size"].items())
        numbers = ("" if row[k] is None else f"{row[k]:.4g}" for k in ("least", "mean", "most"))
        table.add_row(row["name"], size, *numbers)
    console = Console()
    console.print(table)
    for title, pairs in (("Configuration", loaded.config), ("Cost and versions", host)):
        console.print(_pairs(title, pairs))
    if checks:
        console.print(check_table("Checks", checks))


def diff(
    first: Annotated[Path, tyro.conf.Positional],
    second: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    runs: Path = Path("runs"),
    json: bool = False,
) -> None:
    """Say in what two Records differ: settings, and values by how much.

    Args:
        first: A file, or its name under `runs`.
        second: Another.
        runs: Folder with Records.
        json: Print one JSON object instead of a table.
    """
    a, b = (Record.load(_find(path, runs)) for path in (first, second))
    settings = {
        key: [a.config.get(key), b.config.get(key)]
        for key in sorted({*a.config, *b.config})
        if a.config.get(key) != b.config.get(key)
    }
    if a.kind != b.kind:
        settings = {"kind": [a.kind, b.kind], **settings}
    names = dict.fromkeys((*a.variables, *a.coordinates, *b.variables, *b.coordinates))
    values = {name: _difference(name, a, b) for name in names}
    if json:
        facts = {"equal": a == b, "settings": settings, "values": values}
        print(json_module.dumps(finite(facts), allow_nan=False))
        return
    if a == b:
        print("equal")
        return
    table = Table(title="Differences")
    for column in ("", str(first), str(second)):
        table.add_column(column)
    for key, (left, right) in settings.items():
        table.add_row(key, _short(left), _short(right))
    for name, found in values.items():
        if found != 0.0:
            table.add_row(name, found if isinstance(found, str) else f"at most {found:.3g} apart", "")
    Console().print(table)


def remove(
    records: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    runs: Path = Path("runs"),
    yes: bool = False,
    json: bool = False,
) -> None:
    """Remove Records with their figures, pages and side files.

    Args:
        records: Files, or their names under `runs`.
        runs: Folder with Records.
        yes: Do not ask.
        json: Print one JSON object.
    """
    if not records:
        raise ValueError("rm must be told which Records, got none; name one")
    found = [_find(path, runs) for path in records]
    files = [path.with_suffix(end) for path in found for end in (".nc", *BESIDE)]
    gone = [file for file in files if file.exists()]
    if not yes:
        if not sys.stdin.isatty():
            raise ValueError(f"{len(gone)} files would be removed; pass --yes to do so")
        print(*gone, sep="\n")
        if input(f"Remove these {len(gone)} files? [y/N] ").strip().lower() != "y":
            return
    for file in gone:
        file.unlink(missing_ok=True)
    removed = json_module.dumps({"removed": [str(file) for file in gone]})
    print(removed if json else f"{len(gone)} files removed")


def _find(path: Path, runs: Path) -> Path:
    """A Record by its path, or by its name in a folder."""
    named = path if path.suffix == ".nc" else path.with_name(f"{path.name}.nc")
    for candidate in (named, runs / named):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in runs.glob("*.nc"))) or "none"
    raise ValueError(f"there is no Record {named}, nor {runs / named}; in {runs} there are: {known}")


def _entry(path: Path, record: Record) -> Entry:
    figure = figure_of(record, FIGURES)
    checks = (recorded_checks(record, figure) if figure else None) or []
    try:
        drawn = record.plot()
    except (ValueError, KeyError, IndexError):
        # of a kind without a figure, or made by another version of it
        drawn = None
    claims = [Claim(c.sentence, c.bound, c.measured, c.outcome, c.kind) for c in checks]
    return Entry(path.stem, record, drawn, claims, host_of(path))


def _range(values: NDArray[Any]) -> dict[str, float | None]:
    """Least, mean and most of what is finite."""
    numbers = values.astype(float) if values.dtype.kind in "biuf" else np.zeros(0)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return {"least": None, "mean": None, "most": None}
    return {"least": float(numbers.min()), "mean": float(numbers.mean()), "most": float(numbers.max())}


def _difference(name: str, a: Record, b: Record) -> float | str:
    """The largest distance, or in words why there is none."""
    if name not in a or name not in b:
        return f"only in the {'first' if name in a else 'second'}"
    x, y = a[name], b[name]
    if x.shape != y.shape:
        return f"sizes {' by '.join(map(str, x.shape))} and {' by '.join(map(str, y.shape))}"
    if "U" in x.dtype.kind + y.dtype.kind:
        return 0.0 if (x == y).all() else "other words"
    with np.errstate(invalid="ignore"):
        apart = np.abs(x.astype(float) - y.astype(float))
    # two NaN, or two equal infinities, are no difference
    same = (x == y) | (np.isnan(x.astype(float)) & np.isnan(y.astype(float)))
    return float(np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart)).max(initial=0.0))


def _pairs(title: str, facts: dict[str, Any]) -> Table:
    table = Table(title=title, show_header=False)
    for key, value in facts.items():
        table.add_row(key, _short(value))
    return table


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def list_all(*, runs: Path = Path("runs"), json: bool = False) -> None:
    """List what can be named on the command line, and the Records under `runs`.

    Args:
        runs: Folder with Records.
        json: Print one JSON object instead of tables.
    """
    names = {
        "cells": sorted(CELLS),
        "activations": sorted(ACTIVATIONS),
        "weights": sorted(WEIGHTS),
        "tasks": sorted(TASKS),
        "presets": sorted(PRESETS),
    }
    records = [_describe(path) for path in sorted(runs.glob("*.nc"))]
    if json:
        print(json_module.dumps({**names, "records": records}))
        return
    table = Table(title="Names", show_header=False)
    for kind, known in names.items():
        table.add_row(kind, ", ".join(known))
    found = Table(title=f"Records under {runs}", show_header=False)
    for row in records:
        found.add_row(row["path"], row["kind"], row["contents"])
    console = Console()
    console.print(table)
    console.print(found if records else f"No Records under {runs}.")


def _describe(path: Path) -> dict[str, str]:
    try:
        record = Record.load(path)
    except ValueError as error:
        return {"path": str(path), "kind": "unreadable", "contents": str(error)}
    return {"path": str(path), "kind": record.kind, "contents": ", ".join(record.variables)}
