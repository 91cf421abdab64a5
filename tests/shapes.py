"""Public shapes checked at run time: jaxtyping and beartype, asked once for calls that look the same.

A check sees types, shapes, dtypes and, of a Literal, values. Where all of these have passed before, the
answer is known; asking again at every step of every scan took half of the time of all tests. Even to look at
every call took a quarter: in each test the first calls of a function are looked at, and then a few of many.
Signatures are read at the first call and not at import.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
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
EVERY, THEN = 8, 16
"""Of a function in a test so many calls are looked at, and then one of so many."""

_jaxtyped = jaxtyping.jaxtyped
_plain: set[type] = set()
"""Types of which a check sees nothing else."""


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


class Checks(threading.local):
    """The check of one code, for all functions that have it: closures are made anew at every call around."""

    def __init__(self, code: types.CodeType) -> None:
        # held, so that no other code gets its id
        self.code = code
        self.targets: list[Callable[..., Any]] = []
        self.passed: dict[Any, set[Any]] = {}
        self.check: Callable[..., Any] | None = None
        self.test, self.calls = 0, 0

    def idle(self) -> bool:
        """Whether this call is one of those that are not looked at."""
        if self.test != _tests[0]:
            self.test, self.calls = _tests[0], 0
        self.calls += 1
        return self.calls > EVERY and self.calls % THEN != 0

    def __call__(
        self, function: types.FunctionType, target: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """What `target` returns, checked by the signature of `function`."""
        if self.check is None:
            targets = self.targets

            def handed(*args: Any, **kwargs: Any) -> Any:
                return targets[-1](*args, **kwargs)

            # names in annotations are those of the module
            made = types.FunctionType(handed.__code__, function.__globals__, closure=handed.__closure__)
            self.check = _jaxtyped(functools.update_wrapper(made, function), typechecker=checked)
        self.targets.append(target)
        try:
            return self.check(*args, **kwargs)
        finally:
            self.targets.pop()


_checks: dict[int, Checks] = {}
_tests = [0]
"""How many have begun."""


def begin_test() -> None:
    """From now on the first calls are looked at again."""
    _tests[0] += 1


def jaxtyped(function: Any = None, *, typechecker: Any = None) -> Any:
    """In the place of jaxtyping's, which the import hook names."""
    if function is None:
        return jaxtyped
    if isinstance(function, classmethod | staticmethod):
        return type(function)(jaxtyped(function.__func__))
    if isinstance(function, property):
        return property(*(f and jaxtyped(f) for f in (function.fget, function.fset, function.fdel)))
    if dataclasses.is_dataclass(function) and "__init__" in vars(function):
        function.__init__ = jaxtyped(function.__init__)
    # an __init__ written by hand has been met before its class
    known = getattr(function, "__code__", None) is CALL
    return _once(function) if isinstance(function, types.FunctionType) and not known else function


def _once(function: types.FunctionType) -> Callable[..., Any]:
    checks = _checks.setdefault(id(function.__code__), Checks(function.__code__))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable or checks.idle():
            return function(*args, **kwargs)
        try:
            given = looks((*args, *kwargs, *kwargs.values()) if kwargs else args)
            before = checks.passed.get(given)
        except (TypeError, RecursionError):
            # sizes that are symbols, where torch.compile traces; a dict that holds itself
            return checks(function, function, args, kwargs)
        if before is None:
            found = checks(function, function, args, kwargs)
            checks.passed[given] = {looks((found,))}
            return found
        found = function(*args, **kwargs)
        if (seen := looks((found,))) not in before:
            checks(function, lambda *_, **__: found, args, kwargs)
            before.add(seen)
        return found

    return call


CALL = _once(lambda: None).__code__
"""The code of everything that is checked."""


def install(modules: list[str]) -> None:
    """From now on the modules are imported with their shapes checked."""
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(modules, "shapes.checked")
