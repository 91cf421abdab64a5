"""Figure: one figure of a paper, declared once: what it shows, costs, runs, claims and looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from lyaptorch.experiments.check import Check
from lyaptorch.experiments.study import Study
from lyaptorch.record import Given, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SCALES = ("smoke", "small", "paper")
Results: TypeAlias = tuple[Mapping[str, Given], Mapping[str, Given]]
"""Variables and coordinates of a Record."""
F = TypeVar("F", bound="type[Figure]")


@dataclass(frozen=True)
class Figure:
    """A figure of a paper: its fields are its configuration, their defaults those of paper scale.

    A subclass writes `run` and `checks` and is declared by `declare`.

    Attributes:
        seed: determines everything.
        paper: where it is from.
        figure: its name on the command line.
        shows: what it shows, in a sentence.
        scales: for "smoke" and "small", the fields that differ from paper scale.
        cost: for each scale, roughly the processor time it takes, such as "2 min" or "a day; 1 h on a GPU".
        draw: its picture, from its Record alone.
    """

    seed: int = 0

    paper: ClassVar[str]
    figure: ClassVar[str]
    shows: ClassVar[str]
    scales: ClassVar[Mapping[str, Mapping[str, Any]]]
    cost: ClassVar[Mapping[str, str]]
    draw: ClassVar[Callable[[Record], Picture]]

    def run(self, study: Study) -> Results:
        """Variables and coordinates of the Record."""
        raise NotImplementedError

    def checks(self, record: Record) -> list[Check]:
        """What the figure claims, from the Record alone."""
        raise NotImplementedError

    def record(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """Run it, resuming from `checkpoint` if that exists."""
        found = self.run(Study(self.seed, show_progress, checkpoint))
        return Record(f"{self.paper} {self.figure}", asdict(self), *found)


def coordinates(**values: Sequence[Any]) -> dict[str, Given]:
    """What stands along dimensions of these names."""
    return {name: ((name,), np.array(along)) for name, along in values.items()}


def declare(
    paper: str,
    name: str,
    shows: str,
    *,
    cost: tuple[str, str, str],
    draw: Callable[[Record], Picture],
    smoke: Mapping[str, Any] | None = None,
    small: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Declare a subclass of `Figure`: `cost` at the three scales, and what the two small ones change."""

    def decorate(cls: F) -> F:
        cls.paper, cls.figure, cls.shows = paper, name, shows
        cls.cost = dict(zip(SCALES, cost, strict=True))
        cls.scales = {"smoke": smoke or {}, "small": small or {}}
        cls.draw = staticmethod(draw)
        return cls

    return decorate
