"""States made of several tensors, packed into one and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class StateError(ValueError):
    """A state that is not as it should be; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """How a tuple, list, dict or dataclass of tensors `(*e, b, n_i)` lies in one tensor `(*e, b, n)`.

    Attributes:
        kind: its type.
        sizes: each part's n_i by its name, in the order in which they are concatenated.
    """

    kind: type[Any]
    sizes: dict[Any, int]

    @staticmethod
    def of(state: Any) -> Structure:
        """The structure of a state.

        Raises:
            StateError: if it is not a flat tuple, list, dict or dataclass of tensors.
        """
        sizes = {name: _size(part) for name, part in (parts(state) or {}).items()}
        if not sizes or None in sizes.values():
            raise StateError(
                "a state must be a tensor, or a tuple, list, dict or dataclass of tensors (*e, b, n_i), got "
                f"{describe(state)}; flatten nested parts, and keep what is no tensor out of it"
            )
        return Structure(type(state), {name: size for name, size in sizes.items() if size is not None})

    def pack(self, state: Any) -> Tensor:
        """The parts, concatenated along the last dimension.

        Raises:
            StateError: if their names or sizes are others, or they differ in dtype, device or leading
                dimensions.
        """
        named = parts(state) or {}
        if {name: _size(part) for name, part in named.items()} != self.sizes:
            raise StateError(
                f"the state must remain a {self.kind.__name__} of parts with the last dimensions "
                f"{self.sizes}, got {describe(state)}; a step returns a state like the one that it was given"
            )
        # a dict may come in another order
        tensors = [named[name] for name in self.sizes]
        if len({(part.dtype, part.device) for part in tensors}) > 1:
            raise StateError(
                f"the parts of a state must have one dtype and device, got {describe(state)}; convert them "
                "with .to(), and keep counters out of the state"
            )
        if len({part.shape[:-1] for part in tensors}) > 1:
            raise StateError(
                f"the parts of a state must have shapes (*e, b, n_i) with the same *e and b, got "
                f"{describe(state)}"
            )
        return torch.cat(tensors, -1)

    def unpack(self, h: Tensor) -> Any:
        """The parts of `h (*e, b, n)`: a dict for any mapping, else the type that they came in."""
        split = dict(zip(self.sizes, torch.split(h, list(self.sizes.values()), -1), strict=True))
        if issubclass(self.kind, Mapping):
            return split
        if dataclasses.is_dataclass(self.kind):
            return self.kind(**split)
        return self.kind(*split.values()) if hasattr(self.kind, "_fields") else self.kind(split.values())


def parts(state: Any) -> dict[Any, Any] | None:
    """The parts of a state by name; None if it has no parts."""
    if isinstance(state, Mapping):
        return dict(state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    if isinstance(state, tuple | list):
        return dict(zip(getattr(state, "_fields", map(str, range(len(state)))), state, strict=True))
    return None


def alike(state: Any, other: Any) -> bool:
    """Whether two states have the same parts, of the same shapes."""
    if isinstance(state, Tensor) or isinstance(other, Tensor):
        return isinstance(state, Tensor) and isinstance(other, Tensor) and state.shape == other.shape
    one, two = parts(state), parts(other)
    if one is None or two is None or one.keys() != two.keys():
        return False
    return all(isinstance(one[name], Tensor) and alike(one[name], two[name]) for name in one)


def _size(part: Any) -> int | None:
    return part.shape[-1] if isinstance(part, Tensor) and part.dim() else None


def describe(state: Any) -> str:
    """A state in words: its parts, their shapes and dtypes."""
    if isinstance(state, Tensor):
        return f"{tuple(state.shape)} {state.dtype}"
    named = parts(state)
    if named is None:
        return f"a {type(state).__name__}"
    return f"a {type(state).__name__} of " + ", ".join(f"{k}: {describe(part)}" for k, part in named.items())
