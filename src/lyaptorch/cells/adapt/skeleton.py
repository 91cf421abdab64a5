"""The parts of a state, taken out of its tuples, dicts, dataclasses and objects, and put back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SHOWN = 8
"""Parts of a state that a message names."""


class StateError(ValueError):
    """A state that is not as it should be; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of a part in a structure."""

    name: str


@dataclasses.dataclass(frozen=True)
class Instance:
    """An object with tensors in its fields: one to copy, and those fields."""

    like: Any
    fields: dict[str, Any]


def take_apart(state: Any) -> tuple[Any, dict[str, Any]]:
    """A state's skeleton, a `Slot` in each part's place, and its parts: tensors and integers, by name."""
    found: dict[str, Any] = {}
    if isinstance(state, int):
        return state, found
    return _taken(state, "", found, ()), found


def fill(skeleton: Any, values: Mapping[str, Any]) -> Any:
    """A skeleton with `values` in its slots; containers are new, all else is as it was."""
    if isinstance(skeleton, Slot):
        return values[skeleton.name]
    if isinstance(skeleton, Instance):
        made = copy.copy(skeleton.like)
        for name, value in skeleton.fields.items():
            object.__setattr__(made, name, fill(value, values))
        return made
    if isinstance(skeleton, dict):
        return {name: fill(value, values) for name, value in skeleton.items()}
    if isinstance(skeleton, tuple | list) and skeleton:
        return _sequence(type(skeleton), [fill(value, values) for value in skeleton])
    return skeleton


def alike(state: Any, other: Any, *, shapes: bool = True) -> bool:
    """Whether two states have the same parts, and these the same shapes."""
    if isinstance(state, Tensor) != isinstance(other, Tensor):
        return False
    (_, one), (_, two) = take_apart(state), take_apart(other)
    if not one or one.keys() != two.keys():
        return False
    return not shapes or all(_shape(one[name]) == _shape(two[name]) for name in one)


def describe(state: Any) -> str:
    """A state in words: its parts, their shapes and dtypes."""
    if isinstance(state, Tensor):
        return f"{tuple(state.shape)} {state.dtype}"
    if state is None or isinstance(state, int | float | str):
        return f"a {type(state).__name__}"
    _, given = take_apart(state)
    if not given:
        return f"a {type(state).__name__}"
    return f"a {type(state).__name__} of " + listed([f"{name}: {describe(z)}" for name, z in given.items()])


def _taken(value: Any, name: str, found: dict[str, Any], inside: tuple[int, ...]) -> Any:
    if isinstance(value, Tensor) or (isinstance(value, int) and not isinstance(value, bool)):
        found[name] = value
        return Slot(name)
    children = _children(value)
    # a way back to where it came from is no part
    if children is None or id(value) in inside:
        return value
    below = (*inside, id(value))
    taken = {key: _taken(z, f"{name}.{key}" if name else str(key), found, below) for key, z in children}
    if isinstance(value, Mapping):
        return taken
    if isinstance(value, tuple | list):
        return _sequence(type(value), list(taken.values()))
    return Instance(value, {key: z for key, z in taken.items() if z is not getattr(value, key)})


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    """What lies in a container; None for what is none, or has no tensor."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):
        return list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, nn.Module | type | torch.Generator) or not hasattr(value, "__dict__"):
        return None
    return list(vars(value).items()) if _holds_tensors(value, ()) else None


def _holds_tensors(value: Any, inside: tuple[int, ...]) -> bool:
    """Whether there is a tensor in an object, at any depth."""
    if isinstance(value, Tensor):
        return True
    if id(value) in inside or isinstance(value, nn.Module | type | str) or callable(value):
        return False
    below = (*inside, id(value))
    if isinstance(value, Mapping):
        return any(_holds_tensors(z, below) for z in value.values())
    if isinstance(value, tuple | list):
        return any(_holds_tensors(z, below) for z in value)
    return any(_holds_tensors(z, below) for z in getattr(value, "__dict__", {}).values())


def _sequence(kind: type[Any], values: list[Any]) -> Any:
    return kind(*values) if hasattr(kind, "_fields") else kind(values)


def kind_of(skeleton: Any) -> str:
    """The name of the type of a state."""
    return type(skeleton.like if isinstance(skeleton, Instance) else skeleton).__name__


def fixed(before: Any, after: Any, at: str = "it") -> Iterator[tuple[str, Any, Any]]:
    """Where two skeletons differ in what is no part: flags, texts, None."""
    if isinstance(before, Instance) and isinstance(after, Instance):
        for name in before.fields.keys() & after.fields.keys():
            yield from fixed(before.fields[name], after.fields[name], f"{at}.{name}")
        one, two = vars(before.like), vars(after.like)
        for name in (one.keys() & two.keys()) - before.fields.keys() - after.fields.keys():
            yield from fixed(one[name], two[name], f"{at}.{name}")
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() & after.keys():
            yield from fixed(before[name], after[name], f"{at}[{name!r}]")
    elif isinstance(before, tuple | list) and isinstance(after, tuple | list):
        for i, (one, two) in enumerate(zip(before, after, strict=False)):
            yield from fixed(one, two, f"{at}[{i}]")
    elif isinstance(before, bool | float | str) and (type(before) is not type(after) or before != after):
        yield at, before, after


def _shape(z: Any) -> tuple[int, ...]:
    return tuple(z.shape) if isinstance(z, Tensor) else ()


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first ones of many."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
