"""Checks as data: what a figure claims, what was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lyaptorch.experiments.check import Check as Check
from lyaptorch.experiments.check import slopes as slopes
from lyaptorch.experiments.figure import SCALES as SCALES
from lyaptorch.record import Record


def near(sentence: str, expected: float, measured: float, tolerance: float) -> Check:
    """|measured - expected| <= tolerance; NaN does not hold."""
    return Check("", sentence, expected, measured, tolerance, "within")


def at_least(sentence: str, expected: float, measured: float, tolerance: float = 0.0) -> Check:
    """Measured >= expected - tolerance; NaN does not hold."""
    return Check("", sentence, expected, measured, tolerance, "at least")


def at_most(sentence: str, expected: float, measured: float, tolerance: float = 0.0) -> Check:
    """Measured <= expected + tolerance; NaN does not hold."""
    return Check("", sentence, expected, measured, tolerance, "at most")


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
