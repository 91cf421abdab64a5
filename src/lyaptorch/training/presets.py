"""Published settings by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lyaptorch._types import Number
from lyaptorch.cells import Activation, RateCell, Readout
from lyaptorch.cells.matrices import Weights
from lyaptorch.tasks.batch import Task
from lyaptorch.training.model import Model, settled_state

__all__ = ["PRESETS", "gf2023"]


def gf2023(
    task: Task,
    *,
    hidden_size: int = 80,
    gain: Number = 1.0,
    activation: str | Activation = "tanh",
    weights: str | Weights = "gaussian",
    rows: int = 16,
    ensemble: tuple[int, ...] = (),
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Model:
    """The network of Gradient Flossing, sections 6-7, with the constants of the authors' script.

    A tanh rate network with W ~ N(0, g^2 / n), V ~ N(0, 1), b ~ U(0, 0.1); a readout of h (not phi(h))
    with weights N(0, 1) and offset 1e-3; an initial state for each of `rows` trajectories, settled 100
    steps without input and trained. `train`'s and `FlossPhase`'s defaults are the rest of the setting.

    Parameters `(*e, ...)`, an h0 `(*e, rows, n)`. Cost O(n^2) per network to draw.

    Example:
        >>> from lyaptorch.tasks import TemporalXOR
        >>> gf2023(TemporalXOR(30), ensemble=(3,)).h0.shape
        torch.Size([3, 16, 80])
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    cell = RateCell(
        task.input_size,
        hidden_size,
        gain=gain,
        activation=activation,
        weights=weights,
        ensemble=ensemble,
        member_ids=member_ids,
        generator=generator,
    )
    # each use of the generator gives another seed; members draw by their ids, alone as in an ensemble
    readout = Readout(
        hidden_size, task.output_size, ensemble=ensemble, member_ids=member_ids, generator=generator
    )
    h0 = settled_state(cell, rows, member_ids=member_ids, generator=generator)
    return Model(cell, readout, h0=h0, loss=task.loss)


PRESETS: dict[str, Callable[..., Model]] = {"gf2023": gf2023}
"""All, by name."""
