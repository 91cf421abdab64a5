"""Checks as data: what is claimed, what was measured, what came of it, and why if it does not hold."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lyaptorch._brief import FAILS, HOLDS, UNDECIDED

Kind: TypeAlias = Literal["claim", "identity", "timing", "question"]
"""A sentence of a paper; exact, or theory within its error; a measured time; ours, with no expectation."""
Side: TypeAlias = Literal["at least", "at most", "within"]
"""Where a measured value may lie: above its bound, below it, or around an expected value."""


@dataclass(frozen=True)
class Check:
    """One claim.

    Attributes:
        key: names it for good, whatever becomes of the sentence.
        sentence: the claim, in words.
        expected: the number or bound it names.
        measured: what came out; NaN where the situation that the claim speaks of did not occur.
        tolerance: how far measured may be from expected on the wrong side.
        side: of the bound.
        kind: claim, identity, timing or question.
        source: where the claim is made: paper and place, "theory", or an independent run.
        because: why it is no claim, of those that are none.
        told: whether measured is beyond chance; if not, it decides nothing.
        part_of: the sentence of the paper, by a name, of those that say the same at several points.
    """

    key: str
    sentence: str
    expected: float
    measured: float
    tolerance: float
    side: Side
    kind: Kind = "claim"
    source: str = ""
    because: str = ""
    told: bool = True
    part_of: str = ""

    @property
    def outcome(self) -> str:
        """`HOLDS`, `FAILS`, or `UNDECIDED` where there was nothing to compare."""
        if self.told:
            return self.outcome_of(self.measured)
        return UNDECIDED

    def outcome_of(self, measured: float) -> str:
        """What would come of this value."""
        # all comparisons with NaN are false: it would be taken for a failure
        if math.isnan(measured) or math.isnan(self.expected):
            return UNDECIDED
        gap = measured - self.expected
        short = {"at least": -gap, "at most": gap, "within": abs(gap)}[self.side]
        return HOLDS if short <= self.tolerance else FAILS

    @property
    def bound(self) -> str:
        """What is expected, with its side: "≥ 100", "≤ 1 + 0.3" with a tolerance of 0.3, "0 ± 0.05"."""
        if self.side == "within":
            return f"{self.expected:.3g} ± {self.tolerance:.2g}"
        sign, slack = ("≥", "-") if self.side == "at least" else ("≤", "+")
        return f"{sign} {self.expected:.3g}" + (f" {slack} {self.tolerance:.2g}" if self.tolerance else "")

    def facts(self) -> dict[str, Any]:
        """The check and its outcome, for a script."""
        return {**asdict(self), "holds": self.holds, "outcome": self.outcome}

    @property
    def holds(self) -> bool:
        """Whether it does; an undecided one does not."""
        return self.outcome == HOLDS


def claimed(source: str, part_of: str) -> dict[str, Any]:
    """Of a claim that stands for one sentence together with others: where it is made, and its name."""
    return {"source": source, "part_of": part_of}


class WithinChance(float):
    """A number that chance may have made as well: it is shown, and decides nothing."""


THEORY: dict[str, Any] = {
    "kind": "identity",
    "source": "theory",
    "because": "It follows from theory: it fails only if the code is wrong.",
}
"""Of a check that is exact, or within the error of theory."""
OURS: dict[str, Any] = {"kind": "question", "source": "ours", "because": "The paper does not say."}
"""Of a check that no paper speaks of."""
Checks: TypeAlias = Iterator[Check]
"""What a figure yields."""


def _sided(
    side: Side,
    key: str,
    sentence: str,
    expected: SupportsFloat,
    measured: SupportsFloat,
    tolerance: SupportsFloat = 0.0,
    **more: Any,
) -> Check:
    # numbers of numpy and torch become plain ones, which JSON can hold
    told = not isinstance(measured, WithinChance)
    return Check(key, sentence, float(expected), float(measured), float(tolerance), side, told=told, **more)


near = partial(_sided, "within")
"""|measured - expected| <= tolerance."""
at_least = partial(_sided, "at least")
"""Measured >= expected - tolerance."""
at_most = partial(_sided, "at most")
"""Measured <= expected + tolerance."""


def where(occurred: object, measured: SupportsFloat) -> float:
    """What was measured, or NaN, which leaves a check undecided, where its situation did not occur."""
    # as it is: one that is within chance stays so
    return (measured if isinstance(measured, float) else float(measured)) if occurred else math.nan


def failing(beside: object, measured: SupportsFloat, bound: float, *, below: bool = True) -> float:
    """What was measured of something that is claimed to fail, to stay below or above a bound.

    Where nothing `beside` it succeeds it is NaN, because then its failure says nothing. A success says that
    the claim is wrong, whatever became of the others.
    """
    succeeds = float(measured) > bound if below else float(measured) < bound
    return where(beside or succeeds, measured)


def typical(values: NDArray[Any], middle: Callable[..., Any] = np.median) -> float:
    """The median, or what else `middle` is, of what is finite; NaN of nothing."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    return float(middle(finite)) if finite.size else math.nan


class ByName(dict[str, float]):
    """A number for each name; NaN, which decides nothing, of one that no part has."""

    def __init__(self, names: Iterable[object], values: Iterable[float]) -> None:
        super().__init__(zip(map(str, names), values, strict=True))

    def __missing__(self, name: str) -> float:
        return math.nan


def slopes(x: NDArray[Any], y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Least-squares slope of `y (..., points)` over `x (points,)`."""
    # sum (x - <x>) (y - <y>) = sum (x - <x>) y, since the x - <x> add up to 0
    centred = x - x.mean()
    return np.asarray((y * centred).sum(-1) / (centred**2).sum())


def beyond_chance(measured: SupportsFloat, by_chance: NDArray[np.floating], share: float = 0.1) -> float:
    """What was measured; `WithinChance` in the middle of what chance makes of it."""
    # of this share half lies below the middle, half above
    low, high = np.quantile(by_chance, (share / 2, 1 - share / 2))
    return WithinChance(measured) if low <= float(measured) <= high else float(measured)


LEAST_NETWORKS = 3
"""Fewer decide nothing of others; what was measured of them is shown, and counts in a mean over seeds."""


def of_enough(networks: int, measured: SupportsFloat) -> float:
    """What was measured of so many networks; `WithinChance` of fewer than `LEAST_NETWORKS`."""
    return where(True, measured) if networks >= LEAST_NETWORKS else WithinChance(measured)


def half_width(values: NDArray[np.floating]) -> float:
    """Of the interval of 95% of their mean, by Student's t; NaN of fewer than two."""
    if values.size < 2:
        return math.nan
    from scipy import stats

    t = stats.t.ppf(0.975, values.size - 1)
    return float(t * values.std(ddof=1) / values.size**0.5)


def sure(values: NDArray[np.floating], bound: float) -> float:
    """Their mean, one for each network; `WithinChance` where its interval of 95% holds the bound.

    So it is of fewer than `LEAST_NETWORKS`, and NaN of none.
    """
    mean = float(values.mean()) if values.size else math.nan
    # of one the interval is NaN: nothing is beyond it
    told = abs(mean - bound) > half_width(values)
    return of_enough(values.size, mean if told else WithinChance(mean))


def beyond_error(differences: NDArray[np.floating], least: float = 0.0) -> float:
    """The mean of differences between twins, where its interval of 95% leaves out 0, or lies below `least`.

    It is `WithinChance` where it may be 0, and as well more than the least that is claimed.
    """
    mean = sure(differences, 0.0)
    # below 0 it may be, and yet be less than what is claimed
    if isinstance(mean, WithinChance) or mean < 0:
        told = mean + half_width(differences) < least
        return of_enough(differences.size, float(mean) if told else WithinChance(mean))
    return mean


def as_sure(told: float, value: SupportsFloat) -> float:
    """The value, such as an exponential of what was told, which is `WithinChance` where that is."""
    return WithinChance(value) if isinstance(told, WithinChance) else float(value)


def sure_median(values: NDArray[np.floating], bound: float) -> float:
    """Their median, which is `WithinChance` unless more of them than a coin makes lie on its side."""
    middle = typical(values)
    same = int((values >= bound).sum() if middle >= bound else (values < bound).sum())
    return middle if by_coin(same, values.size) <= 0.05 else WithinChance(middle)


def by_coin(count: int, of: int) -> float:
    """The probability that a coin falls on one side at least so often."""
    return float(sum(math.comb(of, i) for i in range(count, of + 1)) / 2**of)


REASONS: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
    Path(__file__).with_name("reasons.toml").read_text(encoding="utf-8")
)
"""By paper, figure and key of the check."""


def reason(paper: str, figure: str, check: Check) -> str:
    """Why a check does not hold; empty where nobody knows."""
    return REASONS.get(paper, {}).get(figure, {}).get(check.key, "")
