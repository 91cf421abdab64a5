"""New cells with weights: checked sizes, random streams, and seeds when no generator was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Number
from lyaptorch.cells.matrices import Weights, fan_in
from lyaptorch.cells.matrices import weights as weights_of


class Draws:
    """Parameters of a new cell by name, each from its own stream: a member's are the same in any ensemble.

    Attributes:
        sizes: those that are given by name, in this order.

    Raises:
        ValueError: for a size below 1, or a gain or ids that do not fit the ensemble.
    """

    def __init__(
        self,
        ensemble: tuple[int, ...],
        member_ids: int | Tensor | None,
        generator: torch.Generator | None,
        gain: Number = 1.0,
        **sizes: int,
    ) -> None:
        self.sizes = [_checks.integer(name, size, 1) for name, size in sizes.items()]
        for size in ensemble:
            _checks.integer("each entry of ensemble", size, 1)
        _checks.per_member("gain", gain, tuple(ensemble))
        self.ids, self.seed = ids_of(ensemble, member_ids), seed_from(generator)

    def stream(self, name: str) -> Stream:
        """The stream of a name."""
        return Stream(self.seed, name)

    def recurrent(self, name: str, n: int, weights: str | Weights, gain: Number) -> Tensor:
        """`(*e, n, n)` from an ensemble of weights at a gain."""
        drawn = weights_of(weights, gain)
        return self._room(n, n) if _undrawn.get() else drawn(n, self.stream(name), self.ids)

    def normal(self, name: str, *shape: int) -> nn.Parameter:
        """N(0, 1) `(*e, *shape)`."""
        return nn.Parameter(self.stream(name).normal(shape, member_ids=self.ids))

    def uniform(self, name: str, *shape: int) -> Tensor:
        """U(0, 1) `(*e, *shape)`."""
        return self._room(*shape) if _undrawn.get() else self.stream(name).uniform(shape, member_ids=self.ids)

    def _room(self, *shape: int) -> Tensor:
        return torch.zeros(*self.ids.shape, *shape, device=self.ids.device)

    def bounded(self, name: str, bound: float, *shape: int) -> nn.Parameter:
        """U(-bound, bound) `(*e, *shape)`."""
        return nn.Parameter((2 * self.uniform(name, *shape) - 1) * bound)

    def fan_in(self, name: str, size: int, *shape: int) -> nn.Parameter:
        """U(-1/sqrt size, 1/sqrt size) `(*e, *shape)`, as in a `torch.nn.Linear` of that many inputs."""
        return nn.Parameter(fan_in(shape, size, self.stream(name), self.ids))


_undrawn: ContextVar[bool] = ContextVar("undrawn", default=False)


@contextmanager
def undrawn() -> Iterator[None]:
    """New cells draw no recurrent or uniform weights, because others take their place."""
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


_made: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], dict[str, Any], int]] = WeakKeyDictionary()
"""Arguments of each cell, and the place in a stack that seeds it; 0 for the fixed seed."""


def remember(cell: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
    """How a cell of this library was made, if without a generator; others draw as they like."""
    # a constructor of the user's may do more than draw weights: it is not called a second time
    ours = type(cell).__module__.partition(".")[0] == __name__.partition(".")[0]
    if ours and arguments and settings.get("generator") is None:
        _made[cell] = arguments, settings, 0


def forget(cell: nn.Module) -> None:
    """Its weights are somebody else's now."""
    _made.pop(cell, None)


@torch.no_grad()
def distinguish(layers: Sequence[nn.Module]) -> None:
    """Draw anew each layer but the first that still is as a fixed seed made it, seeded by its place.

    Equal seeds would give layers equal weights. What was trained, loaded or made with a generator is not
    touched, nor is a layer that stands in two places. Layers of stacks within a stack count one by one.
    """
    layers = _single(layers)
    for place, layer in enumerate(layers):
        known = _made.get(layer)
        if place == 0 or known is None or any(layer is below for below in layers[:place]):
            continue
        # drawing it again is the test of whether anybody touched it
        if "weight_ih" not in layer._parameters or not _equal(layer, _drawn(layer)):
            continue
        _made[layer] = *known[:2], place
        for name, drawn in _tensors(_drawn(layer)).items():
            _tensors(layer)[name].copy_(drawn)


def _single(layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Layers, with those of a stack in its place."""
    found: list[nn.Module] = []
    for layer in layers:
        inner = layer._modules.get("layers")
        found += _single(list(inner)) if isinstance(inner, nn.ModuleList) else [layer]
    return found


def _drawn(layer: nn.Module) -> nn.Module:
    """A layer as it was made, or drawn anew for a place in a stack."""
    arguments, settings, place = _made[layer]
    if place:
        settings = {**settings, "generator": torch.Generator().manual_seed(place)}
    return type(layer)(*arguments, **settings)


def _tensors(cell: nn.Module) -> dict[str, Tensor]:
    return {**dict(cell.named_parameters()), **dict(cell.named_buffers())}


def _equal(cell: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(z, _tensors(other)[name].to(z)) for name, z in _tensors(cell).items())
