"""A check over several seeds: how often it holds, and what was measured, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.experiments.check import Check, by_coin, half_width


@dataclass(frozen=True)
class OverSeeds:
    """One check of several runs of a figure, which differ by their seed.

    Attributes:
        checks: of each run that made it.
        seeds: how many runs there are; those that did not make it did not decide it.
    """

    checks: tuple[Check, ...]
    seeds: int

    @property
    def held(self) -> int:
        """In how many runs it holds."""
        return sum(check.outcome == HOLDS for check in self.checks)

    @property
    def undecided(self) -> int:
        """In how many it is not decided."""
        return self.seeds - sum(check.outcome != UNDECIDED for check in self.checks)

    @property
    def outcome(self) -> str:
        """`HOLDS` or `FAILS` as most of the runs that decide it say; `UNDECIDED` if no more than half do.

        Where they disagree, it takes more than a coin would do in one of twenty cases, or that the interval
        of 95% of the mean lies on their side.
        """
        decided = self.seeds - self.undecided
        if self._few_decide:
            # what is within chance in single runs may be beyond it in most of them together
            (word, *others) = self._ends
            return UNDECIDED if others or 2 * len(self._values()) <= self.seeds else word
        word, count = max((HOLDS, self.held), (FAILS, decided - self.held), key=lambda pair: pair[1])
        alike = count == decided or by_coin(count, decided) <= 0.05
        return word if alike or self._ends == {word} else UNDECIDED

    @property
    def _few_decide(self) -> bool:
        """Whether at most half of the runs decide it."""
        return 2 * (self.seeds - self.undecided) <= self.seeds

    @property
    def _ends(self) -> set[str]:
        """What both ends of the interval of the mean would say."""
        return {self.checks[0].outcome_of(end) for end in self.interval}

    @property
    def standing(self) -> str:
        """In words: "holds in 4 of 5 seeds, 1 not decided"; "5 seeds together" if only their mean decides."""
        if self._few_decide and self.outcome != UNDECIDED:
            return f"{len(self._values())} seeds together"
        rest = f", {self.undecided} not decided" if self.undecided else ""
        return f"holds in {self.held} of {self.seeds} seeds{rest}"

    @property
    def mean(self) -> float:
        """Of what was measured, within chance or beyond it; NaN where nothing was."""
        values = self._values()
        return float(np.mean(values)) if values else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95% for the mean, by Student's t; NaN of fewer than two values."""
        values = self._values()
        if len(values) < 2:
            return math.nan, math.nan
        half = half_width(np.array(values))
        return self.mean - half, self.mean + half

    def facts(self) -> dict[str, Any]:
        """For a script."""
        low, high = self.interval
        told = {"measured": self.mean, "low": low, "high": high}
        counts = {"seeds": self.seeds, "held": self.held, "undecided": self.undecided}
        return {**asdict(self.checks[0]), **told, **counts}

    def _values(self) -> list[float]:
        return [check.measured for check in self.checks if math.isfinite(check.measured)]


def over_seeds(runs: Sequence[Sequence[Check]]) -> list[OverSeeds]:
    """The checks of runs that differ by their seed, each over all of them."""
    keys = dict.fromkeys(check.key for checks in runs for check in checks)
    by_key = [{check.key: check for check in checks} for checks in runs]
    return [OverSeeds(_alike([own[key] for own in by_key if key in own]), len(runs)) for key in keys]


def _alike(checks: Sequence[Check]) -> tuple[Check, ...]:
    """About one bound: where each run expects a number of its own, what is measured beyond that."""
    if len({check.expected for check in checks if not math.isnan(check.expected)}) < 2:
        return tuple(checks)
    return tuple(
        replace(
            check,
            sentence=f"{check.sentence}: measured - expected",
            expected=0.0,
            measured=check.measured - check.expected,
        )
        for check in checks
    )
