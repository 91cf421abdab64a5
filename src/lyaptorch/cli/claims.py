"""The page of all checks, in Markdown: at paper scale from parts, and at a smaller one over seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED, tally
from lyaptorch.cli.figures import Made
from lyaptorch.cli.parts import PAPER, PaperOrder, checked
from lyaptorch.cli.tables import markdown, measured
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.check import reason
from lyaptorch.experiments.over_seeds import OverSeeds, over_seeds
from lyaptorch.experiments.parts import coverage
from lyaptorch.plots.pages import duration

NOT_RUN, SMALL = "not run", "small"
NO_PAPER = "beyond"
"""Where figures are ours, which claim nothing of a paper."""
CHECKED = ("figure", "check", "expected", "measured", "networks or seeds", "outcome", "kind")
COSTS = ("", "figure", "shows", "processor time", "time on the clock", "checks")
"""The columns of the tables."""
IN_PART = "in part"
REPRODUCED = {
    HOLDS: "reproduced",
    IN_PART: "reproduced in part",
    FAILS: "not reproduced",
    UNDECIDED: "not decided",
}
"""What is said of claims."""


@dataclass(frozen=True)
class Standing:
    """How the checks of a figure stand at one scale.

    Attributes:
        checks: each over its runs.
        seeds: in words, where all checks are of the same runs.
        seconds: of all its runs, of all cores and on the clock, where they are known.
        refused: why it cannot be made from what there is; empty where it can.
    """

    checks: Sequence[OverSeeds]
    seeds: str = ""
    seconds: tuple[float | None, float | None] = (None, None)
    refused: str = ""


Standings: TypeAlias = Mapping[tuple[str, str], Standing]
"""Of figures, by paper and name."""


def at_paper_scale(order: PaperOrder) -> tuple[dict[tuple[str, str], Standing], dict[Path, str]]:
    """Those of the figures of which there are parts; and why other Records among these are refused."""
    found: dict[tuple[str, str], Standing] = {}
    refused: dict[Path, str] = {}
    for paper, figures in FIGURES.items():
        for name in figures:
            store = order.store(paper, name)
            records, others = store.look()
            refused |= others
            if not records:
                continue
            chosen = order.figure(paper, name)
            there = coverage(store.figure, records, store.seeds)
            known = [len(own) for own in there.seeds.values() if own]
            places = f", {len(known)} of {len(there.seeds)} points" if len(known) < len(there.seeds) else ""
            # the networks of a figure that is cut decide together; others are made once for each seed
            seeds = f"{min(known, default=0)} of {there.of} networks{places}" if chosen.cut else ""
            try:
                told = over_seeds(checked(chosen, store, records)[1])
            except ValueError as error:
                found[paper, name] = Standing((), refused=str(error))
                continue
            found[paper, name] = Standing(told, seeds, store.spent())
    return found, refused


def over_runs(made: Sequence[Made], scale: str) -> dict[tuple[str, str], Standing]:
    """Those of the figures that were made at a scale, over the seeds with which they were."""
    groups: dict[tuple[str, str], dict[int, Made]] = {}
    for m in made:
        if m.scale == scale and m.checks is not None:
            groups.setdefault((m.paper, m.figure), {})[m.seed] = m
    return {
        name: Standing(
            over_seeds([m.checks or () for m in runs.values()]),
            seconds=(_sum(runs.values(), "cpu_seconds"), _sum(runs.values(), "seconds")),
        )
        for name, runs in groups.items()
    }


def headline(standings: Standings) -> str:
    """Of the claims of the papers: "12 reproduced, 1 not reproduced, ... (3 of 5 figures, 2 not run)".

    A sentence that is checked at several points is one claim.

    Nobody knows how many claims the figures have that were not run.
    """
    papers = [(name, figure) for name, own in FIGURES.items() if name != NO_PAPER for figure in own]
    made = sum(name in standings and not standings[name].refused for name in papers)
    counts = Counter(REPRODUCED[_of_sentence(rows)] for rows in _sentences(standings).values())
    words = [
        f"{counts[word]} {word}"
        for word in REPRODUCED.values()
        if counts[word] or word != REPRODUCED[IN_PART]
    ]
    left = len(papers) - made
    return f"{', '.join(words)} ({made} of {len(papers)} figures{f', {left} {NOT_RUN}' * (left > 0)})"


def checks_page(paper: Standings, small: Standings, scale: str, folder: Path) -> str:
    """How all checks stand at paper scale, and at a smaller one over seeds; of what does not hold, why.

    A paper that has a page of its own in `folder`, such as gradient-flossing.md, is linked to it.
    """
    blocks = [
        "# All checks",
        badge(paper, small, scale),
        *_missed(paper),
        "`lyap report --markdown checks.md` makes this page: at paper scale from the finished parts of each "
        f"figure, at {scale} scale over the seeds with which each was made.",
        "- *Expected*: a value with its tolerance, ±, or a bound, ≥ or ≤.\n"
        "- *Measured*: the mean over seeds with its 95% interval; measured - expected where the expected "
        "value differs between seeds.\n"
        "- *Networks or seeds*: how many of the published number of networks were trained, which decide "
        "together; or, of figures that are made once for each seed, in how many the check holds, and "
        "“together” where single seeds decide nothing but their mean does.\n"
        "- *Outcome*: over seeds a check holds, or does not, as most of the seeds that decide it say. It is "
        "not decided if at most half of them decide it, or if they disagree no more clearly than coin flips, "
        "unless the whole interval lies on one side of the bound. A single run decides nothing if the "
        "situation did not occur (nan), if the value is within chance of the bound, or if there are fewer "
        "than three networks.\n"
        "- *Kind*: only claims, the sentences of a paper, are counted above, each once. Checks of one "
        "sentence at several points are counted together, under the name given: reproduced if none fails "
        "and at least half hold. For the others the column says why they are not claims.",
    ]
    titles = {PAPER: "Paper scale", scale: f"{scale.capitalize()} scale, over seeds"}
    for at, standings in ((PAPER, paper), (scale, small)):
        blocks.append(f"## {titles[at]}")
        for name in FIGURES:
            page = f"{name}.md"
            blocks.append(f"### [{name}]({page})" if (folder / page).is_file() else f"### {name}")
            rows = [row for own in FIGURES[name] for row in _rows(name, own, standings, at)]
            blocks.append(markdown(CHECKED, ("---",) * len(CHECKED), *rows))
        blocks += [f"### What it took at {at} scale", _costs(standings)]
    return "\n\n".join(blocks) + "\n"


def badge(paper: Standings, small: Standings, scale: str) -> str:
    """The claims of the papers in a line, for a README."""
    told = {PAPER: paper, **({scale: small} if small else {})}
    words = (f"at {at} scale {headline(standings)}" for at, standings in told.items())
    return f"**Claims of the papers**: {'; '.join(words)}."


def _missed(paper: Standings) -> list[str]:
    """The claims that are not reproduced at paper scale, by name: they come first."""
    lines = [
        f"- {name} {figure}: {over.checks[0].sentence} ({over.checks[0].bound}), measured {measured(over)}"
        for (name, figure, _), over in _claims(paper).items()
        if over.outcome == FAILS
    ]
    return ["Not reproduced at paper scale:", "\n".join(lines)] if lines else []


def _sentences(standings: Standings) -> dict[tuple[str, str, str], list[OverSeeds]]:
    """The claims that stand for one sentence of a paper together."""
    found: dict[tuple[str, str, str], list[OverSeeds]] = {}
    for (paper, figure, key), over in _claims(standings).items():
        found.setdefault((paper, figure, over.checks[0].part_of or key), []).append(over)
    return found


def _of_sentence(rows: Sequence[OverSeeds]) -> str:
    """What becomes of it: it holds where nothing speaks against it and at least half is decided."""
    counts = Counter(over.outcome for over in rows)
    if counts[FAILS]:
        return IN_PART if counts[HOLDS] else FAILS
    return HOLDS if 2 * counts[HOLDS] >= len(rows) else UNDECIDED


def _claims(standings: Standings) -> dict[tuple[str, str, str], OverSeeds]:
    """Those of papers, by figure and key."""
    return {
        (*name, over.checks[0].key): over
        for name, standing in standings.items()
        for over in standing.checks
        if over.checks[0].kind == "claim"
    }


def _rows(paper: str, name: str, standings: Standings, scale: str) -> list[tuple[str, ...]]:
    """A row for each check of a figure."""
    standing = standings.get((paper, name))
    if standing is None or standing.refused:
        why = f": {standing.refused}" if standing else ""
        return [(name, "", "", "", "", f"{NOT_RUN}{why}", "")]
    rows: list[tuple[str, ...]] = []
    for over in standing.checks:
        check, outcome = over.checks[0], over.outcome
        # what is known is that of small scale
        why = reason(paper, name, check) if scale == SMALL and outcome != HOLDS else ""
        shown = ": ".join(filter(None, (f"**{FAILS}**" if outcome == FAILS else outcome, why)))
        together = f"counted together as “{check.part_of}”" if check.part_of else ""
        kind = ": ".join(filter(None, (check.kind, check.because or together)))
        seeds = standing.seeds or over.standing
        rows.append((name, check.sentence, check.bound, measured(over), seeds, shown, kind))
    return rows


def _costs(standings: Standings) -> str:
    """A row for each figure that was made, and their sum: time of all cores, and on the clock."""
    rows = []
    for (paper, name), standing in standings.items():
        if standing.refused:
            continue
        outcomes = tally(over.outcome for over in standing.checks)
        times = ("" if s is None else duration(s) for s in standing.seconds)
        rows.append((paper, name, FIGURES[paper][name].shows, *times, outcomes))
    columns = zip(*(standing.seconds for standing in standings.values()), strict=True)
    sums = [duration(math.fsum(s for s in column if s is not None)) for column in columns] or ["", ""]
    rows.append(("", "all that is known", "", *sums, ""))
    return markdown(COSTS, ("---",) * len(COSTS), *rows)


def _sum(made: Iterable[Made], clock: str) -> float | None:
    """Of what is known."""
    known = [cost for m in made if (cost := m.cost(clock)) is not None]
    return sum(known) if known else None
