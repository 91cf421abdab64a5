"""Figures declared once: paper, name, costs, scales, picture; and what a Record of one says again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
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


Figures: TypeAlias = Mapping[str, Mapping[str, type[Any]]]


def figure_of(record: Record, figures: Figures) -> type[Any] | None:
    """The figure whose Record it is, if any."""
    paper, _, name = record.kind.partition(" ")
    return figures.get(paper, {}).get(name)


def recorded_checks(record: Record, figure: type[Any]) -> list[Check] | None:
    """The checks of a figure on its Record; None if another version of the figure made it."""
    names = {field.name for field in fields(figure)}
    if set(record.config) != names:
        return None
    try:
        made = figure(**{name: _tuples(value) for name, value in record.config.items()})
        checks: list[Check] = made.checks(record)
        return checks
    except (ValueError, KeyError, IndexError):
        return None


def recorded_scale(record: Record, figure: type[Any]) -> str:
    """smoke, small or paper, whatever the seed; empty where the configuration is none of them."""
    for scale in SCALES:
        config = asdict(figure(**figure.scales.get(scale, {})))
        config["seed"] = record.config.get("seed")
        if Record(record.kind, config, {}).config == record.config:
            return scale
    return ""


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples they were."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
