"""Tables of the command line: of what was measured, and of checks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED, tally
from lyaptorch._shown import printable
from lyaptorch.experiments import Check
from lyaptorch.experiments.over_seeds import OverSeeds

OPEN = (
    "not decided: nan did not occur; others are within chance, or of fewer than three networks "
    "(lyap reproduce --seeds 5 tells more)"
)
"""Why a single run leaves checks open."""


def tabulated(
    header: Sequence[str],
    rows: Iterable[Sequence[RenderableType]],
    title: str | None = None,
    *,
    words: Sequence[str] = (),
    **look: Any,
) -> Table:
    """A table: numbers stand at the right, and the columns called `words` at the left; `look` is rich's.

    Texts are shown as they are: those of a Record may be anybody's, and are neither markup nor commands.
    """

    def plain(cell: RenderableType) -> RenderableType:
        return Text(printable(cell)) if isinstance(cell, str) else cell

    columns = [Column(plain(name), justify="left" if name in words else "right") for name in header]
    above = None if title is None else Text(printable(title), "table.title", justify="center")
    table = Table(*columns, title=above, **look)
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def pairs(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values, cut where they are long."""
    rows = [(key, shortened(value)) for key, value in facts.items()]
    return tabulated(("", ""), rows, title, words=("",), show_header=False)


def shortened(value: Any) -> str:
    """A value as text, cut where it is long."""
    text = str(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def markdown(*lines: Sequence[str]) -> str:
    """A table in Markdown from its rows, the second of which is the rule."""
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def counted(outcomes: Sequence[str]) -> dict[str, int | None]:
    """How many checks there are, hold, and are not decided, for a script."""
    held, undecided = outcomes.count(HOLDS), outcomes.count(UNDECIDED)
    return {"checks": len(outcomes), "held": held, "undecided": undecided}


def check_table(title: str, checks: Sequence[Check]) -> Table:
    """Checks as a table, with their kinds where not all are claims; what does not hold stands out."""
    header = ["check", "expected", "measured", "outcome"]
    # most papers' figures hold claims alone: a column that says so in every row is left out
    told = any(check.kind != "claim" for check in checks)
    styles = {HOLDS: "", FAILS: "bold red", UNDECIDED: "yellow"}
    rows: list[list[RenderableType]] = []
    for check in checks:
        outcome = Text(check.outcome, styles[check.outcome])
        kind = [check.kind] if told else []
        rows.append([check.sentence, check.bound, f"{check.measured:.3g}", outcome, *kind])
    words, outcomes = ("check", "outcome", "kind"), [check.outcome for check in checks]
    caption = tally(outcomes) + (f"\n{OPEN}" if UNDECIDED in outcomes else "")
    return tabulated([*header, *["kind"] * told], rows, title, words=words, caption=caption)


def seeds_table(title: str, checks: Sequence[OverSeeds]) -> Table:
    """Checks over seeds as a table: what was measured, with an interval of 95%, and what comes of it."""
    rows = []
    for over in checks:
        first = over.checks[0]
        rows.append([first.sentence, first.bound, measured(over), over.standing, over.outcome, first.kind])
    header = ("check", "expected", "measured", "seeds", "outcome", "kind")
    return tabulated(header, rows, title, words=("check", "seeds", "outcome", "kind"))


def measured(over: OverSeeds) -> str:
    """The mean over seeds, with its interval where there are several."""
    low, high = over.interval
    return f"{over.mean:.3g}" + (f" [{low:.3g}, {high:.3g}]" if math.isfinite(low) else "")
