"""`lyap reproduce --dry-run`: what figures will cost on this machine, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lyaptorch.cli.figures import Order, seed_of
from lyaptorch.cli.parts import PAPER, PaperOrder
from lyaptorch.cli.tables import tabulated
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.forecast import Forecast, forecast
from lyaptorch.plots.pages import duration

HEAD = ("figure", "what", "networks", "epochs", "ms an epoch and network", "GFLOP/s", "processor time")


def foresee(figures: Sequence[tuple[str, str]], order: Order, seeds: int | None, records: Path) -> None:
    """Rehearse figures, and say what each part of them would take, with so many seeds; nothing is written.

    At paper scale those that are made from the parts of another one are rehearsed once.
    """
    facts: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    lines: list[str] = []
    stores: dict[Path, str] = {}
    for paper, name in figures:
        chosen, times = FIGURES[paper][name], seeds or 1
        made = chosen(**{**chosen.scales.get(order.scale, {}), "seed": seed_of(paper, name, order.seed)})
        if order.scale == PAPER:
            store = PaperOrder(records, order.seed, seeds, order.work).store(paper, name)
            first = stores.setdefault(store.folder, name)
            if first != name:
                lines.append(f"{paper} {name}: made from the same parts as {first}")
                continue
            made, times = store.figure, 1 if store.figure.cut else store.seeds
        found = forecast(made).repeated(times)
        rows += _rows(f"{paper} {name}", found)
        lines += [f"{paper} {name}: not in it: {what}" for what in found.unknown]
        facts.append({"paper": paper, "figure": name, **_facts(found)})
    caption = f"{order.scale} scale; measured on a few epochs each, with {order.work.threads} threads"
    order.work.answer({"figures": facts}, [tabulated(HEAD, rows, words=HEAD[:2], caption=caption), *lines])


def _rows(title: str, found: Forecast) -> list[list[str]]:
    rows = [
        [
            title,
            s.what,
            str(s.networks),
            str(s.epochs),
            f"{1e3 * s.seconds / max(s.networks, 1):.2f}",
            f"{s.operations / s.seconds / 1e9:.0f}" if s.seconds and s.operations else "",
            duration(s.epochs * s.seconds),
        ]
        for s in found.stretches
    ]
    memory = f"{found.memory / 2**20:.0f} MB at most"
    rows.append([title, "all else", *[""] * 4, duration(found.rest)])
    return [*rows, [title, "total", "", "", memory, "", duration(found.seconds)]]


def _facts(found: Forecast) -> dict[str, Any]:
    return {
        "processor_seconds": round(found.seconds, 3),
        "operations": found.operations,
        "memory": found.memory,
        "stretches": [asdict(s) for s in found.stretches],
        "unknown": found.unknown,
    }
