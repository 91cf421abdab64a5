"""Seeds of cells that were made without a generator: those of a stack get numbers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_made: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], dict[str, Any], int]] = WeakKeyDictionary()
"""Arguments of each cell, and the place in a stack that seeds it; 0 for the fixed seed."""


def remember(cell: nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
    """How a cell of this library was made, if without a generator; others draw as they like."""
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
