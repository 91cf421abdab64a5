"""What can come of a check, and how many of several did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decided"
"""It does, it does not, or the situation of which it speaks did not occur."""


def tally(outcomes: Iterable[str]) -> str:
    """In words: "17 hold, 2 do not, 1 not decided"; what none did is left out."""
    count = Counter(outcomes)
    held, failed, undecided = (count[outcome] for outcome in (HOLDS, FAILS, UNDECIDED))
    words = [f"{held} hold{'s' * (held == 1)}"]
    words += [f"{failed} do{'es' * (failed == 1)} not"] if failed else []
    words += [f"{undecided} not decided"] if undecided else []
    return ", ".join(words)
