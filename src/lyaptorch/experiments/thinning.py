"""Records with fewer points along epochs, for keeping."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyaptorch._variables import Variable
from lyaptorch.record import Given, Record

POINTS = 300
"""Most points of a part along epochs."""
MANY, FEWER = 100_000, 100
"""Of a curve of more numbers, such as of all exponents, so many points are kept."""
LARGE = 20_000
"""Variables of more numbers than these are kept with seven digits."""
EPOCHS = ("epoch", "floss_epoch")
"""Dimensions along which means of blocks are kept."""
ENDS = {"long_name": "epochs that have passed; curves are means since the point before"}
"""Marks the coordinate of a Record that is thinned."""


def thinned(record: Record) -> Record:
    """The same with at most `POINTS` points along epochs: means of 2, 5, 10, 20, ... epochs each.

    Of measurements that were made every so many epochs every second, fifth, ... stays. Large variables are
    kept in single precision, and very large ones with fewer points. What is thinned already counts its epochs
    as before, and so may be thinned by a rule that has changed.
    """
    record = restored(record)
    size = {dim: n for v in record.variables.values() for dim, n in zip(v.dims, v.values.shape, strict=True)}
    many = {dim for v in record.variables.values() if v.values.size > MANY for dim in v.dims}
    stride: dict[str, int] = {
        dim: resolution(size[dim], FEWER if dim in many and dim in EPOCHS else POINTS)
        for dim in (*EPOCHS, "measurement")
        if dim in size
    }

    def few(variable: Variable) -> Given:
        values = variable.values
        for axis, dim in enumerate(variable.dims):
            if stride.get(dim, 1) > 1:
                values = (_means if dim in EPOCHS else _every)(values, stride[dim], axis)
        if values.size > LARGE and values.dtype == np.float64:
            values = values.astype(np.float32)
        return variable.dims, values, variable.attributes

    variables, coordinates = (
        {name: few(v) for name, v in group.items()} for group in (record.variables, record.coordinates)
    )
    for dim in EPOCHS:
        if (step := stride.get(dim, 1)) > 1:
            ends = np.arange(step, size[dim] + step, step).clip(max=size[dim])
            coordinates[dim] = ((dim,), ends, ENDS)
    return Record(record.kind, record.config, variables, coordinates)


def restored(record: Record) -> Record:
    """A thinned Record with all epochs: curves are constant between their points."""
    repeats = {
        dim: np.diff(ends.values, prepend=0)
        for dim in EPOCHS
        if (ends := record.coordinates.get(dim)) is not None and dict(ends.attributes) == ENDS
    }
    if not repeats:
        return record

    def whole(variable: Variable) -> Given:
        values = variable.values
        for axis, dim in enumerate(variable.dims):
            if dim in repeats:
                values = np.repeat(values, repeats[dim], axis)
        return variable.dims, values, variable.attributes

    variables, coordinates = (
        {name: whole(v) for name, v in group.items() if name not in repeats}
        for group in (record.variables, record.coordinates)
    )
    return Record(record.kind, record.config, variables, coordinates)


def resolution(length: int, most: int = POINTS) -> int:
    """Epochs that a kept point of a curve of so many stands for.

    The smallest of 1, 2, 5, 10, 20, ... that leaves at most so many.
    """
    # such blocks begin where things happen, at epochs that are multiples of a hundred
    nice: Iterator[int] = (step * 10**power for power in count() for step in (1, 2, 5))
    return next(stride for stride in nice if -(-length // stride) <= most)


def stands_for(curves: NDArray[Any]) -> int:
    """Epochs that a point of restored curves `(..., epoch)` stands for; 1 of such as were not thinned."""
    for step in (resolution(curves.shape[-1], most) for most in (FEWER, POINTS)):
        whole = curves[..., : curves.shape[-1] // step * step]
        blocks = whole.reshape(*whole.shape[:-1], -1, step)
        if np.array_equal(blocks, np.broadcast_to(blocks[..., :1], blocks.shape), equal_nan=True):
            return step
    return 1


def _every(values: NDArray[Any], stride: int, axis: int) -> NDArray[Any]:
    return np.take(values, np.arange(0, values.shape[axis], stride), axis)


def _means(values: NDArray[Any], stride: int, axis: int) -> NDArray[Any]:
    """Means of blocks, without what is NaN; the last block may be shorter."""
    starts = np.arange(0, values.shape[axis], stride)
    known = ~np.isnan(values)
    total = np.add.reduceat(np.where(known, values, 0.0).astype(np.float64), starts, axis)
    number = np.add.reduceat(known.astype(np.int64), starts, axis)
    # of a block that is NaN throughout the mean is NaN
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / number).astype(values.dtype)
