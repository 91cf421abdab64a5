"""`lyap list`, `show`, `diff`, `rm` and `report`: Records in folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from lyaptorch._brief import tally
from lyaptorch._files import host_of, replace_file, to_json
from lyaptorch.cells import ACTIVATIONS, WEIGHTS
from lyaptorch.cli.claims import at_paper_scale, badge, checks_page, over_runs
from lyaptorch.cli.figures import made_in, records_in
from lyaptorch.cli.output import Output, Outputs, Quiet, Verbose, Work
from lyaptorch.cli.parts import PaperOrder, Parts
from lyaptorch.cli.subject import CELLS
from lyaptorch.cli.tables import check_table, counted, pairs, shortened, tabulated
from lyaptorch.experiments import FIGURES, Check
from lyaptorch.experiments.recorded import figure_of, recorded_checks
from lyaptorch.plots.curves import write_events
from lyaptorch.plots.pages import Claim, Entry, runs_page
from lyaptorch.record import Record
from lyaptorch.tasks import TASKS
from lyaptorch.training import PRESETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".nc", ".host.json", ".png", ".pdf", ".html")
"""A Record, and what stands beside it under the same name."""


def report(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    /,
    *,
    out: Path | None = None,
    tensorboard: Path | None = None,
    markdown: Path | None = None,
    scale: Literal["smoke", "small"] | None = None,
    records: Path | None = None,
    figures: bool = True,
    json: bool = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write one page about all Records in a folder: figures, checks, configurations, costs, versions.

    Args:
        runs: Folder with Records.
        out: File of the page; report.html in the folder when missing.
        tensorboard: Also write the curves of all Records as TensorBoard events into this folder.
        markdown: Also write the checks and costs of all figures as Markdown into this file: at paper scale
            from finished parts, and at a smaller one over the seeds that are among the Records.
        scale: The smaller one, of the Markdown; small when missing.
        records: Folder of finished parts, for the Markdown; RUNS/records when missing.
        figures: Draw every Record, which takes about a second each.
        json: Print one JSON object.
        quiet: Print nothing, errors and JSON aside.
        verbose: Say on stderr where an error arose.
    """
    if markdown is None and (scale, records) != (None, None):
        raise ValueError("--scale and --records are of the Markdown; add --markdown checks.md, or drop them")
    for option, path in (("out", out), ("markdown", markdown)):
        # a name that a Record, or what stands beside it, may have
        if path is not None and path.suffix in (".nc", ".json", ".png", ".pdf"):
            raise ValueError(f"--{option} writes a page, got {path}; name a file such as page.html")
    entries, unreadable, curves, output = [], [], 0, Output(runs, json, quiet, verbose)
    for path, record in records_in(runs):
        if isinstance(record, ValueError):
            unreadable.append((path.name, str(record)))
            continue
        entries.append(_entry(path, record, figures))
        if tensorboard is not None:
            curves += write_events(record, tensorboard / path.stem)
    # a folder of damaged Records alone has its page, which says so
    if not entries and not unreadable:
        raise ValueError(f"there are no Records in {runs}; make one, or name another folder")
    text = ""
    if markdown is not None:
        # before anything is written: it may be refused
        order = PaperOrder(Parts(records).folder(output), None, None, Work(runs))
        scale = scale or "small"
        paper, refused = at_paper_scale(order)
        told = paper, over_runs(made_in(runs), scale), scale
        text = checks_page(*told, markdown.parent)
    out = runs / "report.html" if out is None else out
    replace_file(out, runs_page(f"Records in {runs}", entries, unreadable).encode())
    outcomes = [check.outcome for entry in entries for check in entry.checks]
    facts = {"page": str(out), "records": len(entries), "unreadable": [name for name, _ in unreadable]}
    facts |= counted(outcomes)
    lines = [f"{len(entries)} Records; of {len(outcomes)} checks {tally(outcomes)}"]
    lines += [f"{name}: {why}" for name, why in unreadable]
    if tensorboard is not None:
        facts |= {"tensorboard": str(tensorboard), "curves": curves}
        lines.append(f"TensorBoard {tensorboard}, {curves} curves")
    if markdown is not None:
        replace_file(markdown, text.encode())
        facts |= {"markdown": str(markdown), "refused": list(refused.values())}
        lines += [f"refused: {why}" for why in refused.values()]
        lines += [f"Markdown {markdown}", badge(*told)]
    output.answer(facts, [*lines, f"Page {out}"])


def show(record: Annotated[Path, tyro.conf.Positional], /, *, output: Outputs) -> None:
    """Show what a Record holds: variables, configuration, checks, cost and versions.

    Args:
        record: A file, or its name under `runs`.
        output: Where Records are, and how to answer.
    """
    path = _find(record, output.runs)
    loaded, host = Record.load(path), host_of(path)
    checks = _checks_of(loaded)
    entries = {**loaded.variables, **loaded.coordinates}
    sizes = {name: dict(zip(v.dims, v.values.shape, strict=True)) for name, v in entries.items()}
    ranges = {name: _range(v.values) for name, v in entries.items()}
    rows = []
    for name, size in sizes.items():
        numbers = ("" if number is None else f"{number:.4g}" for number in ranges[name].values())
        rows.append((name, ", ".join(f"{dim} {length}" for dim, length in size.items()), *numbers))
    facts = {
        "path": str(path),
        "kind": loaded.kind,
        "config": loaded.config,
        "variables": [{"name": name, "size": sizes[name], **ranges[name]} for name in sizes],
        "host": host,
        "checks": [check.facts() for check in checks],
    }
    columns = ("variable", "size", "least", "mean", "most")
    parts = [tabulated(columns, rows, f"{path}: {loaded.kind}", words=columns)]
    parts += [pairs("Configuration", loaded.config), pairs("Cost and versions", host)]
    output.answer(facts, [*parts, check_table("Checks", checks)] if checks else parts)


def diff(
    first: Annotated[Path, tyro.conf.Positional],
    second: Annotated[Path, tyro.conf.Positional],
    /,
    *,
    output: Outputs,
) -> None:
    """Say in what two Records differ: settings, and values by how much.

    Args:
        first: A file, or its name under `runs`.
        second: Another.
        output: Where Records are, and how to answer.
    """
    a, b = (Record.load(_find(path, output.runs)) for path in (first, second))
    kept = [{"kind": record.kind, **record.config} for record in (a, b)]
    names = ["kind", *sorted({*a.config, *b.config} - {"kind"})]
    # as text: 1, 1.0 and true are equal in Python, and one that is missing is not null
    texts = [{n: to_json(n, value) for n, value in c.items()} for c in kept]
    settings = {n: [c.get(n) for c in kept] for n in names if texts[0].get(n) != texts[1].get(n)}
    values = {name: _difference(name, a, b) for name in dict.fromkeys((*a, *b))}
    # values that agree are left out of the table, but not of JSON
    rows = [(n, *(shortened(c.get(n, "missing")) for c in kept)) for n in settings]
    for name, found in values.items():
        if found != 0.0:
            rows.append((name, found if isinstance(found, str) else f"at most {found:.3g} apart", ""))
    header = ("", str(first), str(second))
    told = "equal" if a == b else tabulated(header, rows, "Differences", words=header)
    output.answer({"equal": a == b, "settings": settings, "values": values}, [told])


def remove(
    records: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    yes: bool = False,
    output: Outputs,
) -> None:
    """Remove Records with their figures, pages and side files.

    Args:
        records: Files, or their names under `runs`.
        yes: Do not ask.
        output: Where Records are, and how to answer.
    """
    if not records:
        raise ValueError("rm must be told which Records, got none; name one")
    found = dict.fromkeys(_find(path, output.runs) for path in records)
    gone = [file for path in found for end in ENDINGS if (file := path.with_suffix(end)).exists()]
    if not yes:
        if not sys.stdin.isatty():
            raise ValueError(f"{len(gone)} files would be removed; pass --yes to do so")
        # on stderr: stdout is for the answer alone
        print(*gone, f"Remove these {len(gone)} files? [y/N] ", sep="\n", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() != "y":
            gone = []
    for file in gone:
        file.unlink(missing_ok=True)
    output.answer({"removed": [str(file) for file in gone]}, [f"{len(gone)} files removed"])


def _find(path: Path, runs: Path) -> Path:
    """A Record by its path, or by its name in a folder."""
    named = path if path.suffix == ".nc" else path.with_name(f"{path.name}.nc")
    for candidate in (named, runs / named):
        if candidate.is_file():
            return candidate
    known = ", ".join(sorted(p.stem for p in runs.glob("*.nc"))) or "none"
    raise ValueError(f"there is no Record {named}, nor {runs / named}; in {runs} there are: {known}")


def _entry(path: Path, record: Record, figures: bool) -> Entry:
    drawn: Figure | str = "Figures were left out."
    if figures:
        try:
            drawn = record.plot()
        except (ValueError, KeyError, IndexError):
            # of a kind without a figure, or made by another version of it
            drawn = "This version of lyaptorch draws no figure of it."
    claims = [Claim(c.sentence, c.bound, c.measured, c.outcome, c.kind) for c in _checks_of(record)]
    return Entry(path.stem, record, drawn, claims, host_of(path))


def _checks_of(record: Record) -> list[Check]:
    """What its figure claims, if it is that of one, in its present version."""
    figure = figure_of(record, FIGURES)
    return (recorded_checks(record, figure) if figure else None) or []


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
        # words have no distance
        return _otherwise(name, a, b) if (x == y).all() else "other words"
    x, y = x.astype(float), y.astype(float)
    # two NaN, or two equal infinities, are no difference; where one is alone the distance is NaN: infinite
    same = np.isclose(x, y, rtol=0.0, atol=0.0, equal_nan=True)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(x - y), nan=np.inf)
    return float(np.where(same, 0.0, apart).max(initial=0.0)) or _otherwise(name, a, b)


def _otherwise(name: str, a: Record, b: Record) -> float | str:
    """In what else equal values differ; 0 if in nothing."""
    told = []
    for record in (a, b):
        dims, values, attributes = {**record.variables, **record.coordinates}[name]
        role = "a variable" if name in record.variables else "a coordinate"
        words = (role, f"along {', '.join(dims)}", f"of type {values.dtype}", f"with attributes {attributes}")
        told.append((*words, values.tobytes()))
    for one, other in zip(*told, strict=True):
        if one != other:
            return "equal, but not to the bit" if isinstance(one, bytes) else f"equal, but {one} and {other}"
    return 0.0


def list_all(*, output: Outputs) -> None:
    """List what can be named on the command line, and the Records under `runs`.

    Args:
        output: Where Records are, and how to answer.
    """
    names = {
        "cells": sorted(CELLS),
        "activations": sorted(ACTIVATIONS),
        "weights": sorted(WEIGHTS),
        "tasks": sorted(TASKS),
        "presets": sorted(PRESETS),
    }
    records = []
    for path, record in records_in(output.runs):
        row = {"path": str(path), "kind": "unreadable", "contents": str(record)}
        if isinstance(record, Record):
            row |= {"kind": record.kind, "contents": ", ".join(record.variables)}
        records.append(row)
    title, rows = f"Records under {output.runs}", [tuple(row.values()) for row in records]
    found = tabulated(("",) * 3, rows, title, words=("",), show_header=False)
    table = pairs("Names", {kind: ", ".join(known) for kind, known in names.items()})
    none = f"No Records under {output.runs}."
    output.answer({**names, "records": records}, [table, found if records else none])
