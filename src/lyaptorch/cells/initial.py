"""Checked sizes and random streams of a new cell with weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Number
from lyaptorch.cells.weights import Weights, fan_in
from lyaptorch.cells.weights import weights as weights_of


def checked_sizes(ensemble: tuple[int, ...], gain: Number = 1.0, **sizes: int) -> list[int]:
    """Return the sizes, which are given by name, if they and those of the ensemble are above 0.

    Raises:
        ValueError: for a size below 1, or a gain that does not fit the ensemble.
    """
    found = [_checks.integer(name, size, 1) for name, size in sizes.items()]
    for size in ensemble:
        _checks.integer("each entry of ensemble", size, 1)
    if isinstance(gain, Tensor) and gain.dim() and tuple(gain.shape) != tuple(ensemble):
        raise ValueError(
            f"gain must be a number or have the shape of ensemble, {tuple(ensemble)}, got {tuple(gain.shape)}"
        )
    return found


class Draws:
    """Parameters of a new cell by name, each from its own stream: a member's are the same in any ensemble."""

    def __init__(
        self,
        ensemble: tuple[int, ...],
        member_ids: int | Tensor | None,
        generator: torch.Generator | None,
    ) -> None:
        self.ids, self.seed = ids_of(ensemble, member_ids), seed_from(generator)

    def stream(self, name: str) -> Stream:
        """The stream of a name."""
        return Stream(self.seed, name)

    def recurrent(self, name: str, n: int, weights: str | Weights, gain: Number) -> Tensor:
        """`(*e, n, n)` from an ensemble of weights at a gain."""
        return weights_of(weights, gain)(n, self.stream(name), self.ids)

    def normal(self, name: str, *shape: int) -> nn.Parameter:
        """N(0, 1) `(*e, *shape)`."""
        return nn.Parameter(self.stream(name).normal(shape, member_ids=self.ids))

    def uniform(self, name: str, *shape: int) -> Tensor:
        """U(0, 1) `(*e, *shape)`."""
        return self.stream(name).uniform(shape, member_ids=self.ids)

    def bounded(self, name: str, bound: float, *shape: int) -> nn.Parameter:
        """U(-bound, bound) `(*e, *shape)`."""
        return nn.Parameter((2 * self.uniform(name, *shape) - 1) * bound)

    def fan_in(self, name: str, size: int, *shape: int) -> nn.Parameter:
        """U(-1/sqrt size, 1/sqrt size) `(*e, *shape)`, as in a `torch.nn.Linear` of that many inputs."""
        return nn.Parameter(fan_in(shape, size, self.stream(name), self.ids))
