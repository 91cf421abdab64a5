"""`lyap bench`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from lyaptorch._files import run_path
from lyaptorch.bench import METHODS, Benchmark, summary
from lyaptorch.cli.output import save, show
from lyaptorch.record import Record

COLUMNS = ("", *METHODS, *(f"{method}/fused" for method in METHODS[:-1]), "of limit")


def bench(
    config: Annotated[Benchmark, tyro.conf.arg(name="")] = Benchmark(),  # noqa: B008
    *,
    runs: Path = Path("runs"),
    json: bool = False,
    markdown: bool = False,
) -> None:
    """Time exponents with their gradient, and training, against a plain loop and the core's limit.

    Args:
        config: What to time.
        runs: Folder for the Record and the figure.
        json: Print one JSON object instead of a table.
        markdown: Print the table in Markdown.
    """
    path, start = run_path(runs, "bench"), time.monotonic()
    record = config.run(False if json else None)
    seconds = time.monotonic() - start
    path, figure = save(record, path, seconds)
    rows = summary(record)
    if markdown:
        print(_markdown(record, rows))
        return
    limit = [round(float(z) / 1e9, 1) for z in record["limit"]]
    facts = {"rows": rows, "limit_gflops": limit, "load": record["load"].tolist()}
    show(json, facts, [_table(record, rows)], path, figure, seconds)


def _cells(entry: dict[str, Any]) -> list[str]:
    times = [entry[f"{method}_ms"] for method in METHODS]
    ratios = [entry[f"{method}_ratio"] for method in METHODS[:-1]]
    return [
        entry["row"],
        *("" if z is None else f"{z:.2f}" for z in times),
        *("" if z is None else f"{z:.1f}x" for z in ratios),
        f"{entry['share_of_limit']:.0%}",
    ]


def _caption(record: Record) -> str:
    config, cores = record.config, record["cores"]
    limit = float((record["limit"] / record["threads"]).max()) / 1e9
    return (
        f"ms per network, forward and backward, {config['dtype']}, median of {config['rounds']}; "
        f"{record['instruction_set']}, "
        f"limit {limit:.0f} GFLOP/s a core; load {record['load'].max():.1f} on {cores} cores"
    )


def _table(record: Record, rows: list[dict[str, Any]]) -> Table:
    table = Table(caption=_caption(record))
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left")
    for entry in rows:
        table.add_row(*_cells(entry))
    return table


def _markdown(record: Record, rows: list[dict[str, Any]]) -> str:
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)], *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{_caption(record)}"
