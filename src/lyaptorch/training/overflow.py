"""Members whose numbers are not finite, told apart, so that the others can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from lyaptorch.training.ensemble import Ensemble

T = TypeVar("T")

OVERFLOWS: tuple[type[Exception], ...] = (FloatingPointError, LinAlgError)
"""How it is said that numbers are not finite; the second by decompositions of torch."""
GO_ON = 'or pass unstable="mark" to go on without it'


class UnstableError(FloatingPointError):
    """Some members overflowed; nothing was changed.

    Attributes:
        who: bool `*e`, which.
        step: `(count,)`, the step of the trial at which the state of each overflowed; NaN where that is not
            what overflowed.
    """

    def __init__(self, message: str, who: Tensor, step: Tensor | None = None) -> None:
        self.who = who
        self.step = torch.full((int(who.sum()),), torch.nan, device="cpu") if step is None else step
        super().__init__(message)


def told_apart(networks: Ensemble, attempt: Callable[[Ensemble, Tensor], T]) -> T:
    """What an attempt gives for all these members.

    Args:
        networks: who takes part.
        attempt: a function, which changes nothing, of some of them and the mask `*e` of these.

    Raises:
        UnstableError: if it overflows, of those with whom alone it does.
    """
    try:
        return attempt(networks, torch.ones(networks.ids.shape, dtype=torch.bool, device="cpu"))
    except OVERFLOWS as error:
        blame(error, networks, attempt)


def blame(error: Exception, networks: Ensemble, attempt: Callable[[Ensemble, Tensor], object]) -> NoReturn:
    """Raise an error of all as that of those with whom alone an attempt overflows."""
    if isinstance(error, UnstableError):
        raise error
    gone = _overflowing(networks, attempt)
    if not gone.any():
        raise error
    ids, epoch = networks.ids.cpu()[gone].tolist(), int(networks.epoch.cpu()[gone].min())
    named = f"{error} (member {ids} at epoch {epoch})"
    raise UnstableError(f"{named}, {GO_ON}", gone.to(networks.ids.device)) from error


def _overflowing(networks: Ensemble, attempt: Callable[[Ensemble, Tensor], object]) -> Tensor:
    """With whom alone it overflows, bool `*e`; halves are asked, so that few are asked alone."""
    found = torch.zeros(networks.ids.shape, dtype=torch.bool, device="cpu")
    waiting = [torch.arange(found.numel(), device="cpu")]
    while waiting:
        places = waiting.pop()
        mask = (
            torch.zeros(found.numel(), dtype=torch.bool, device="cpu")
            .index_fill(0, places, True)
            .reshape(found.shape)
        )
        try:
            attempt(networks if mask.all() else networks.select(mask.to(networks.ids.device)), mask)
        except OVERFLOWS:
            if len(places) == 1:
                found |= mask
            else:
                waiting += places.tensor_split(2)
    return found
