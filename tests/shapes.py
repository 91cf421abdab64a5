"""Public shapes checked at run time: jaxtyping and beartype, asked once for calls that look the same.

A check sees types, shapes, dtypes and, of a Literal, values. Where all of these have passed before, the
answer is known; asking again at every step of every scan took half of the time of all tests. Signatures are
read at the first call and not at import.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from typing import Any

import beartype
import jaxtyping
import numpy as np
import torch
from beartype.roar import BeartypeDecorHintPep3119Exception

FIRST = 64
"""Of a container as many entries are looked at; beartype asks one."""

_jaxtyped = jaxtyping.jaxtyped
_passed: dict[types.CodeType, dict[Any, set[Any]]] = defaultdict(dict)
_plain: set[type] = set()


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype; a signature that names a protocol which cannot be checked at run time is let go."""
    try:
        return beartype.beartype(function)
    except BeartypeDecorHintPep3119Exception:
        return function


def look(value: Any, kind: type) -> Any:
    """What a check can see of a value beside its type."""
    if issubclass(kind, torch.Tensor | np.ndarray):
        return value.shape, value.dtype
    if issubclass(kind, str | int):
        return value
    if issubclass(kind, tuple | list | set | frozenset):
        return len(value), looks(islice(value, FIRST))
    if issubclass(kind, Mapping):
        return len(value), looks(islice(chain(*value.items()), FIRST))
    _plain.add(kind)
    return None


def looks(values: Iterable[Any]) -> tuple[Any, ...]:
    """All that a check can see of values."""
    seen: list[Any] = []
    # every call of the library comes by here: no function is called for what is most frequent
    for value in values:
        kind = type(value)
        seen.append(kind)
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            seen.append(value.shape)
            seen.append(value.dtype)
        elif kind not in _plain:
            seen.append(look(value, kind))
    return tuple(seen)


def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """In the place of jaxtyping's, which the import hook names."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if isinstance(function, classmethod | staticmethod):
        return type(function)(jaxtyped(function.__func__, typechecker=typechecker))
    if isinstance(function, property):
        parts = (function.fget, function.fset, function.fdel)
        return property(*(part and jaxtyped(part, typechecker=typechecker) for part in parts))
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        function.__init__ = jaxtyped(function.__init__, typechecker=typechecker)
    return _once(function, typechecker) if isinstance(function, types.FunctionType) else function


def _once(function: types.FunctionType, typechecker: Any) -> Callable[..., Any]:
    # closures are made anew at every call of the function around them; their signatures are equal
    passed = _passed[function.__code__]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        try:
            given = looks((*args, *kwargs, *kwargs.values()) if kwargs else args)
            before = passed.get(given)
        except TypeError:
            # sizes that are symbols, where torch.compile traces
            return _jaxtyped(function, typechecker=typechecker)(*args, **kwargs)
        if before is None:
            found = _jaxtyped(function, typechecker=typechecker)(*args, **kwargs)
            passed[given] = {looks((found,))}
            return found
        found = function(*args, **kwargs)
        if (seen := looks((found,))) not in before:
            _jaxtyped(returning(function, found), typechecker=typechecker)(*args, **kwargs)
            before.add(seen)
        return found

    return call


def returning(function: types.FunctionType, found: Any) -> types.FunctionType:
    """A function of the same signature that returns what was found."""

    def stub(*args: Any, **kwargs: Any) -> Any:
        return found

    made = types.FunctionType(stub.__code__, function.__globals__, closure=stub.__closure__)
    return functools.update_wrapper(made, function)


def install(modules: list[str]) -> None:
    """From now on the modules are imported with their shapes checked."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(modules, "shapes.checked")
