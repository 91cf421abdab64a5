"""What a Record of a figure says again: at which scale it was made, and which checks hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeAlias

from lyaptorch.experiments.check import Check
from lyaptorch.experiments.figure import SCALES
from lyaptorch.record import Record

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
