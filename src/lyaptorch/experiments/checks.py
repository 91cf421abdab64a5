"""Checks as data: what a figure claims, what was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from lyaptorch.record import Record

SCALES = ("smoke", "small", "paper")


@dataclass(frozen=True)
class Check:
    """One claim.

    Attributes:
        sentence: the claim, in words.
        expected: the number or bound it names.
        measured: what came out.
        tolerance: how far measured may be from expected on the wrong side.
        holds: whether it is so.
    """

    sentence: str
    expected: float
    measured: float
    tolerance: float
    holds: bool


def near(sentence: str, expected: float, measured: float, tolerance: float) -> Check:
    """|measured - expected| <= tolerance; NaN does not hold."""
    return Check(sentence, expected, measured, tolerance, abs(measured - expected) <= tolerance)


def at_least(sentence: str, expected: float, measured: float, tolerance: float = 0.0) -> Check:
    """Measured >= expected - tolerance; NaN does not hold."""
    return Check(sentence, expected, measured, tolerance, measured >= expected - tolerance)


def at_most(sentence: str, expected: float, measured: float, tolerance: float = 0.0) -> Check:
    """Measured <= expected + tolerance; NaN does not hold."""
    return Check(sentence, expected, measured, tolerance, measured <= expected + tolerance)


def slopes(x: NDArray[Any], y: NDArray[np.floating]) -> NDArray[np.floating]:
    """Least-squares slope of `y (..., points)` over `x (points,)`."""
    centred = x - x.mean()
    return np.asarray((y * centred).sum(-1) / (centred**2).sum())


class Experiment(Protocol):
    """A figure of a paper: a frozen dataclass of its configuration, with defaults at paper scale.

    Attributes:
        figure: its name on the command line.
        shows: what it shows, in a sentence.
        scales: for "smoke" and "small", the fields that differ from paper scale.
        seed: determines its networks and batches.
        cost: for each scale, roughly the processor time it takes, such as "2 min" or "a day; 1 h on a GPU".
    """

    figure: ClassVar[str]
    shows: ClassVar[str]
    scales: ClassVar[Mapping[str, Mapping[str, Any]]]
    cost: ClassVar[Mapping[str, str]]

    @property
    def seed(self) -> int:
        """A field of every figure."""

    def run(self, show_progress: bool | None, checkpoint: Path | None) -> Record:
        """Run it, resuming from `checkpoint` if that exists."""

    def checks(self, record: Record) -> list[Check]:
        """What the figure claims, from the Record alone."""
