"""Which figure, scale and checks a Record is of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace

import numpy as np

from lyaptorch.experiments.check import Check
from lyaptorch.experiments.figure import SCALES, Figure
from lyaptorch.experiments.parts import Labels, labels, networks_of, own_labels, tuples
from lyaptorch.record import Given, Record


def figure_of(record: Record, figures: Mapping[str, Mapping[str, type[Figure]]]) -> type[Figure] | None:
    """The figure whose Record it is, if any."""
    paper, _, name = record.kind.partition(" ")
    return figures.get(paper, {}).get(name)


def as_recorded(record: Record, figure: type[Figure]) -> Figure:
    """The figure with the configuration of its Record."""
    return figure(**{name: tuples(value) for name, value in record.config.items()})


def recorded_checks(record: Record, figure: type[Figure]) -> list[Check] | None:
    """The checks of a figure on its Record; None if another version of the figure made it."""
    if set(record.config) != {field.name for field in fields(figure)}:
        return None
    try:
        return as_recorded(record, figure).checks(record)
    # a figure of another version reads what its Records do not hold, and computes with what they hold instead
    except Exception:
        return None


def gathered_checks(record: Record, whole: Figure) -> list[Check]:
    """The checks of a figure on a Record of some of its points.

    Those of the others are not decided, nor are those of the whole that depend on what is not there.
    """
    found = {check.key: check for check in as_recorded(record, type(whole)).checks(record)}
    for place in (0, -1):
        every = stretched(whole, record, place)
        if every.config == record.config:
            # all points are there
            break
        try:
            more = recorded_checks(every, type(whole)) or []
        # points that are made up may be such as no figure has
        except (ArithmeticError, TypeError):
            more = []
        for check in more:
            own = found.setdefault(check.key, replace(check, measured=math.nan))
            numbers = zip((own.measured, own.expected), (check.measured, check.expected), strict=True)
            if not all(math.isclose(one, other, rel_tol=1e-9) for one, other in numbers):
                found[check.key] = replace(own, measured=math.nan)
    return list(found.values())


def stretched(figure: Figure, record: Record, place: int = 0) -> Record:
    """A gathered Record with all points of the figure: those that are not there hold what another does.

    It is good for nothing but to ask what the figure would claim of them, and which claims depend on them.

    Args:
        figure: the whole.
        record: of some of its points.
        place: of the point along each dimension whose values the others get.
    """
    groups: list[dict[str, Given]] = [dict(record.variables), dict(record.coordinates)]
    config = dict(record.config)
    for along, own in zip(figure.cut, own_labels(record, figure), strict=True):
        if along != networks_of(figure):
            every = labels(figure, along)
            groups = [_taken(group, along.dim, own, every, place) for group in groups]
            config[along.field] = list(every)
    return Record(record.kind, config, *groups)


def _taken(group: dict[str, Given], dim: str, own: Labels, every: Labels, place: int) -> dict[str, Given]:
    places = [own.index(label) if label in own else place for label in every]
    found: dict[str, Given] = {}
    for name, (dims, values, *attributes) in group.items():
        if dim in dims:
            labelled = tuple(dims) == (dim,) and values.tolist() == list(own)
            values = np.array(every) if labelled else values.take(places, list(dims).index(dim))
        found[name] = (dims, values, *attributes)
    return found


def recorded_scale(record: Record, figure: type[Figure]) -> str:
    """smoke, small or paper, whatever the seed; empty where the configuration is none of them.

    Paper scale it is, too, with some of the parts of paper scale alone.
    """
    free = {"seed"}
    for scale in SCALES:
        if scale == SCALES[-1]:
            free |= {"first", *(along.field for along in figure.cut)}
        config = asdict(figure(**figure.scales.get(scale, {})))
        config |= {name: record.config[name] for name in free & record.config.keys()}
        # through a Record, because JSON makes lists of tuples
        if Record(record.kind, config, {}).config == record.config:
            return scale
    return ""
