"""The results of a sweep as arrays over its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyaptorch.record import Record
from lyaptorch.sweep.grid import Axes, Config, grid, run_id
from lyaptorch.sweep.run import Plan


def gather(
    plan: Plan, config: Config, axes: Axes, *, name: str, names: Sequence[str] | None = None
) -> Record:
    """One Record of a sweep, its variables `(*axes, ...)`; NaN where a run is not finished.

    Args:
        plan: of a sweep.
        config: what all runs have in common.
        axes: what is varied, as for `grid`.
        name: of the sweep.
        names: of variables; when missing, those with one number for each run.

    Returns:
        A Record of kind "sweep" with the values of each axis as a coordinate.
    """
    found = [plan.finished.get(run_id(name, point)) for point in grid(config, axes)]
    values = [{} if entry is None else _values(*entry, names) for entry in found]
    shape, dims = tuple(len(v) for v in axes.values()), tuple(axes)
    variables: dict[str, Any] = {}
    for key in sorted({key for row in values for key in row}):
        rows = [row.get(key) for row in values]
        first = next(row for row in rows if row is not None)
        inner_dims, inner = first[0], first[1].shape
        missing = np.full(inner, np.nan)
        stacked = np.stack([missing if row is None else row[1] for row in rows])
        variables[key] = ((*dims, *inner_dims), stacked.reshape(*shape, *inner))
    coordinates = {key: ((key,), np.array(_plain(list(column)))) for key, column in axes.items()}
    common = {key: value for key, value in config.items() if key not in axes}
    return Record(
        "sweep",
        {"name": name, "config": common, "axes": {k: list(v) for k, v in axes.items()}},
        variables,
        coordinates,
    )


def _values(
    record: Record, index: int, names: Sequence[str] | None
) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """The variables of one run, without `member`."""
    own = {}
    for key, v in record.variables.items():
        if key not in names if names is not None else v.dims not in ((), ("member",)):
            continue
        if "member" in v.dims:
            at = v.dims.index("member")
            own[key] = (tuple(d for d in v.dims if d != "member"), np.take(v.values, index, at))
        else:
            own[key] = (v.dims, v.values)
    return own


def _plain(values: list[Any]) -> list[Any]:
    """Numbers, or all as text."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return values
    return [str(v) for v in values]
