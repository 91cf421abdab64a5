"""Modules that keep their state within, and states made of several tensors, packed into one and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lyaptorch.cells.cell import Cell


class Layer(Protocol):
    """One layer that holds its state between calls."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its variables."""

    def rest(self) -> None:
        """Forget the state."""

    def put(self, values: Sequence[Tensor]) -> None:
        """Set the state."""

    def get(self) -> list[Tensor]:
        """The state after a step."""

    def held(self) -> dict[str, Any]:
        """Everything that `put` overwrites, as the user left it."""

    def restore(self, held: dict[str, Any]) -> None:
        """Put it back."""


class HeldCell(Cell):
    """A network whose layers hold their states: the state is all of theirs, in the order of its modules."""

    def __init__(self, network: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(0, 0)
        self.network, self._layers = network, list(layers)
        self.unproven = self.reverse_mode = True
        self._shapes: list[torch.Size] = []

    def rest(self, x: Tensor) -> Tensor:
        """The packed state at rest, after one dry run that finds all sizes."""
        with self._borrowed(), torch.no_grad():
            for layer in self._layers:
                layer.rest()
            self.network(x)
            values = [z for layer in self._layers for z in layer.get()]
            self._shapes = [z.shape[1:] for z in values]
            self._check_state(x, values)
        return torch.zeros(len(x), sum(map(math.prod, self._shapes)), dtype=x.dtype, device=x.device)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """The network's own step, its states before and after packed into one tensor."""
        if not self._shapes:
            self.rest(x)
        with self._borrowed():
            self._put(h)
            self.network(x)
            return torch.cat([z.flatten(1) for layer in self._layers for z in layer.get()], -1)

    def _put(self, h: Tensor) -> None:
        pieces = iter(torch.split(h, [math.prod(shape) for shape in self._shapes], -1))
        values = [next(pieces).reshape(len(h), *shape) for shape in self._shapes]
        for layer in self._layers:
            layer.put(values[: len(layer.names)])
            del values[: len(layer.names)]

    def _check_state(self, x: Tensor, values: Sequence[Tensor]) -> None:
        """A network that forgets its state in every call has no recurrent dynamics to measure."""
        self._put(torch.cat([torch.full_like(z, 0.1).flatten(1) for z in values], -1))
        self.network(x)
        after = [z for layer in self._layers for z in layer.get()]
        if all(torch.equal(z, y) for z, y in zip(values, after, strict=True)):
            raise ValueError(
                "one call of the network must go on from the state that its layers hold, got the same state "
                "after it from two different ones; as_cell takes networks whose forward(x) is ONE step, with "
                "the loop over time and the reset of the states outside it"
            )

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        held = [layer.held() for layer in self._layers]
        try:
            yield
        finally:
            for layer, was in zip(self._layers, held, strict=True):
                layer.restore(was)


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
