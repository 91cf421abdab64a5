"""Networks whose layers hold their states between calls, as cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
