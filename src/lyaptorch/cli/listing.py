"""`lyap list`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lyaptorch.cells import ACTIVATIONS, WEIGHTS
from lyaptorch.cli.networks import CELLS
from lyaptorch.record import Record
from lyaptorch.tasks import TASKS
from lyaptorch.training import PRESETS


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
