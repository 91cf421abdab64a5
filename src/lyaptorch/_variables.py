"""The arrays of a Record: checked, copied, read-only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch import _checks


class Variable(NamedTuple):
    """Dimension names, values, and optionally what they mean: `units`, `long_name`, `comment`.

    Example:
        >>> from lyaptorch import Record
        >>> record = Record("scan", {}, {"x": (("t",), [0.5, 0.7], {"units": "nats per step"})})
        >>> record.variables["x"].dims, record.variables["x"].attributes["units"]
        (('t',), 'nats per step')
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    attributes: Mapping[str, str]


Given: TypeAlias = tuple[Sequence[str], Any] | tuple[Sequence[str], Any, Mapping[str, str]]
"""What a `Variable` is made from: `(dims, values)` or `(dims, values, attributes)`."""


def variable(name: str, given: Given) -> Variable:
    """Return a checked, read-only copy."""
    if not isinstance(given, tuple) or len(given) not in (2, 3) or isinstance(given[0], str):
        raise ValueError(f"{name} must be (dims, values) with dims a tuple of names, got {given!r:.80}")
    dims, attributes = tuple(given[0]), dict(given[2]) if len(given) == 3 else {}
    values = _values(name, given[1])
    for word in (name, *dims):
        if not isinstance(word, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", word):
            raise ValueError(f"a name must be ASCII letters, digits and _, got {word!r}; rename it")
    if len(dims) != values.ndim or len(set(dims)) < len(dims):
        need = f"{name} must have a dimension name for each axis, none twice"
        raise ValueError(f"{need}, got {dims} for shape {values.shape}; name or rename them")
    for key, words in attributes.items():
        text(_checks.choice(f"attribute of {name}", key, ("comment", "long_name", "units")), words)
    return Variable(dims, values, attributes)


def _values(name: str, given: Any) -> NDArray[Any]:
    try:
        values = np.array(given.numpy(force=True) if isinstance(given, Tensor) else given, order="C")
    except (TypeError, ValueError) as error:  # bfloat16, ragged lists
        raise ValueError(f"{name} must be a tensor or array, got {error}; call .float() or pad it") from error
    kind = values.dtype.kind
    if kind not in "biufU" or (kind == "f" and values.itemsize not in (4, 8)):
        need = f"{name} must hold booleans, integers, float32, float64 or strings"
        raise ValueError(f"{need}, got {values.dtype}; convert it, for example with .float()")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind == "f":
        np.copyto(values, np.nan, where=np.isnan(values))  # NaN has many bit patterns, a checksum needs one
    # the shortest type that holds them: equal words of numpy's U3 and U10 are equal Records
    if kind == "U":
        values = values.astype(f"U{max(1, int(np.strings.str_len(values).max(initial=0)))}")
        text(name, "".join(values.flat) or " ")
    values.flags.writeable = False
    return values


def check_together(variables: Mapping[str, Variable], coordinates: Mapping[str, Variable]) -> None:
    """Raise unless every dimension has one length, and every name one place."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, v in (*variables.items(), *coordinates.items()):
        for dim, length in zip(v.dims, v.values.shape, strict=True):
            known, first = lengths.setdefault(dim, (length, name))
            if known != length:
                both = f"{known} in {first} and {length} in {name}"
                raise ValueError(f"dimension {dim} must have one length, got {both}; rename one of them")
    for name in (*variables, *coordinates):
        if name in variables and name in coordinates:
            raise ValueError(f"a name must be a variable or a coordinate, got {name} as both; rename one")
        if name in lengths and (name in variables or coordinates[name].dims != (name,)):
            raise ValueError(f"{name} names a dimension, so it must be a coordinate along it; rename one")


def text(name: str, value: object) -> str:
    """Return `value` if it is text that every netCDF file can hold, or raise."""
    if not isinstance(value, str) or not value or re.search("[\0\ud800-\udfff]", value):
        raise ValueError(f"{name} must be text without NUL or lone surrogates, got {value!r:.80}; change it")
    return value
