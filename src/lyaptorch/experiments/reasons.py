"""Why checks do not hold at small scale, as far as it is known: read from `reasons.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from lyaptorch.experiments.check import Check

REASONS: dict[str, dict[str, dict[str, str]]] = tomllib.loads(
    Path(__file__).with_name("reasons.toml").read_text(encoding="utf-8")
)
"""By paper, figure and key of the check; of checks without one, by the beginning of the sentence."""


def reason(paper: str, figure: str, check: Check) -> str:
    """Why a check does not hold; empty where nobody knows."""
    known = REASONS.get(paper, {}).get(figure, {})
    if check.key and check.key in known:
        return known[check.key]
    return next((why for beginning, why in known.items() if check.sentence.startswith(beginning)), "")
