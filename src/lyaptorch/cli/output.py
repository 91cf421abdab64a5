"""What every command does with its result: save, draw, print."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED, tally
from lyaptorch._files import replace_file, to_json
from lyaptorch.experiments import Check
from lyaptorch.record import Record


def checkpoint_path(runs: Path, name: str, options: Mapping[str, Any]) -> Path:
    """Where a command with these options keeps its checkpoint: the same command finds it again."""
    digest = hashlib.sha256(to_json("options", dict(options)).encode()).hexdigest()[:12]
    return runs / f".{name}-{digest}.checkpoint"


@contextmanager
def resumable(kept: Callable[[], bool]) -> Iterator[None]:
    """An interrupt in here says that the same command resumes, if anything was kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        said = ("the same command resumes",) if kept() else ()
        raise KeyboardInterrupt(*(interrupt.args or said)) from None


def has(checkpoint: Path) -> Callable[[], bool]:
    """Whether a checkpoint was written whose name begins like this."""
    return lambda: any(checkpoint.parent.glob(f"{checkpoint.name}*"))


def save(
    record: Record,
    path: Path,
    seconds: float,
    checkpoint: Path | None = None,
    *,
    fresh: bool = True,
    **host: Any,
) -> tuple[Path, Path]:
    """Write the Record at `path`, or if `fresh` at the next free name, and its figure beside it; return both.

    If not `fresh`, an equal Record at `path` stays, with what it cost. `host` goes to the side file.
    The checkpoints whose names begin like `checkpoint` have then done their work and are removed.
    """
    if fresh or not path.exists() or Record.load(path) != record:
        path = record.save(path, host={"seconds": seconds, **host}, fresh=fresh)
    if checkpoint is not None:
        for done in checkpoint.parent.glob(f"{checkpoint.name}*"):
            done.unlink(missing_ok=True)
    return path, draw(record, path)


def draw(record: Record, path: Path) -> Path:
    """Draw the Record at `path` beside it; return where.

    Raises:
        ValueError: if that fails; it says that the Record is there.
    """
    drawing, figure = io.BytesIO(), path.with_suffix(".png")
    try:
        record.plot().savefig(drawing, format="png")
        replace_file(figure, drawing.getvalue())
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the Record is saved as {path}") from None
    except Exception as error:  # matplotlib raises almost any type
        reason = str(error) if type(error) is ValueError else repr(error)
        raise ValueError(
            f"the Record is saved as {path}, but its figure cannot be drawn: {reason}; when that is mended, "
            f"lt.Record.load({str(path)!r}).plot() draws it"
        ) from error
    return figure


def save_page(record: Path, page: str) -> Path:
    """Write a page of HTML beside the Record at `record`; return where."""
    path = record.with_suffix(".html")
    replace_file(path, page.encode())
    return path


def show(
    as_json: bool,
    summary: Mapping[str, Any],
    tables: Sequence[RenderableType],
    path: Path,
    figure: Path | None,
    seconds: float,
    page: Path | None = None,
) -> None:
    """Print the summary as one JSON object, or the tables and where the files are."""
    files = {"record": path, "figure": figure, "page": page}
    written = {name: str(file) for name, file in files.items() if file is not None}
    if as_json:
        places = {**written, "seconds": round(seconds, 1)}
        print(json.dumps(finite({**summary, **places}), allow_nan=False))
        return
    console = Console()
    for table in tables:
        # text keeps its lines, which may be code to copy
        console.print(table, soft_wrap=isinstance(table, Text))
    for name, file in written.items():
        console.print(f"{name.capitalize()} {file}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"{seconds:.0f} s", highlight=False)


def finite(value: Any) -> Any:
    """The same with None for inf and NaN, which JSON cannot hold: a dead exponent, an unknown error."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(outcomes: Sequence[str]) -> dict[str, int | None]:
    """How many checks there are, hold, and are not decided, for a script."""
    held, undecided = outcomes.count(HOLDS), outcomes.count(UNDECIDED)
    return {"checks": len(outcomes), "held": held, "undecided": undecided}


def check_table(title: str, checks: Sequence[Check]) -> Table:
    """Checks as a table, with their kinds where not all are claims; what does not hold stands out."""
    table = Table(title=title, caption=tally(check.outcome for check in checks))
    table.add_column("check")
    for column in ("expected", "measured"):
        table.add_column(column, justify="right")
    table.add_column("outcome")
    told = any(check.kind != "claim" for check in checks)
    if told:
        table.add_column("kind")
    styles = {HOLDS: "", FAILS: "bold red", UNDECIDED: "yellow"}
    for check in checks:
        outcome = Text(check.outcome, styles[check.outcome])
        kind = (check.kind,) if told else ()
        table.add_row(check.sentence, check.bound, f"{check.measured:.3g}", outcome, *kind)
    return table
