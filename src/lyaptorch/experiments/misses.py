"""Why checks are missed at small scale, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping

MISSES: Mapping[str, Mapping[str, str]] = {}
"""By paper and figure: the beginnings of sentences of checks, and why these do not hold."""


def why_missed(paper: str, figure: str, sentence: str) -> str:
    """Why a check is missed at small scale; empty where nobody knows."""
    known = MISSES.get(f"{paper} {figure}", {})
    return next((why for beginning, why in known.items() if sentence.startswith(beginning)), "")
