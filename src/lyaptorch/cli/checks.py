"""The page of all checks, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lyaptorch._outcomes import FAILS, tally
from lyaptorch.cli.figures import Made
from lyaptorch.experiments import FIGURES
from lyaptorch.plots.runs import duration

NOT_RUN = "not run at this scale"


def checks_page(made: Sequence[Made], scale: str, folder: Path) -> str:
    """What every figure costs at one scale, and for each check what came of it; if it does not hold, why.

    A paper that has a page of its own in `folder`, such as gradient-flossing.md, is linked to it.
    """
    found = {(m.paper, m.figure): m for m in made if m.scale == scale and m.usual and m.checks is not None}
    blocks = [
        f"# All checks, {scale} scale",
        _summary(list(found.values()), scale),
        "## Costs",
        _costs(found),
    ]
    for paper, figures in FIGURES.items():
        page = f"{paper}.md"
        blocks.append(f"## [{paper}]({page})" if (folder / page).is_file() else f"## {paper}")
        rows = [row for name in figures for row in _checks(name, found.get((paper, name)))]
        blocks.append(_table(("figure", "check", "expected", "measured", "outcome", "kind"), rows))
    return "\n\n".join(blocks) + "\n"


def _summary(found: Sequence[Made], scale: str) -> str:
    checks = [check for made in found for check in made.checks or ()]
    total = sum(len(figures) for figures in FIGURES.values())
    return (
        f"`lyap reproduce all --scale {scale}` makes {total} figures, and "
        f"`lyap report --markdown checks.md --scale {scale}` this page. "
        f"Made: {len(found)}, with {len(checks)} checks: {tally(check.outcome for check in checks)}. "
        "Expected is a value that must be met to within ±, or a bound from one side, ≥ or ≤. A check is not "
        "decided where what it speaks of did not occur. Processor time is that of all threads; "
        "time on the clock depends on what else the machine does."
    )


def _costs(found: dict[tuple[str, str], Made]) -> str:
    """A row for each figure, and their sum: time of all cores, and on the clock."""
    rows = []
    for paper, figures in FIGURES.items():
        for name, figure in figures.items():
            made = found.get((paper, name))
            times = (
                (NOT_RUN, "") if made is None else (_time([made], "cpu_seconds"), _time([made], "seconds"))
            )
            rows.append((paper, name, figure.shows, *times, "" if made is None else made.standing))
    every = list(found.values())
    rows.append(("", "all that is known", "", _time(every, "cpu_seconds"), _time(every, "seconds"), ""))
    return _table(("", "figure", "shows", "processor time", "time on the clock", "checks"), rows)


def _checks(name: str, made: Made | None) -> list[tuple[str, ...]]:
    """A row for each check of a figure."""
    if made is None:
        return [(name, "", "", "", NOT_RUN, "")]
    rows: list[tuple[str, ...]] = []
    for check in made.checks or ():
        outcome = f"**{FAILS}**" if check.outcome == FAILS else check.outcome
        outcome = ": ".join(filter(None, (outcome, made.why(check))))
        rows.append((name, check.sentence, check.bound, f"{check.measured:.3g}", outcome, check.kind))
    return rows


def _time(made: Sequence[Made], clock: str) -> str:
    """The sum of what is known."""
    known = [cost for m in made if (cost := m.cost(clock)) is not None]
    return duration(sum(known)) if known else ""


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
