"""`Following`: a Flosser that follows a trainer, the part that the callbacks of all libraries share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nan

from lyaptorch import _checks
from lyaptorch.integrations.flosser import Flosser
from lyaptorch.tangent import mean_over_trajectories


class Following:
    """A Flosser that follows a trainer's count of optimiser steps, and what it logs.

    Args:
        flosser: of the recurrent part of the model that is trained.
        log_every: optimiser steps between two measurements of the first `k` exponents; 0 for none.
        k: how many are measured.
    """

    def __init__(self, flosser: Flosser, log_every: int = 0, k: int = 1) -> None:
        self.flosser = flosser
        self.log_every, self.k = _checks.integer("log_every", log_every, 0), _checks.integer("k", k, 1)
        self._last = -1

    def follow(self, step: int, logged: Mapping[str, Any]) -> dict[str, float]:
        """Floss if it is time to; return what there is to log.

        Args:
            step: optimiser steps so far. Nothing happens a second time at the same one, as when gradients are
                accumulated over batches.
            logged: what the trainer has measured, for the conditions.
        """
        if step == self._last:
            return {}
        self._last, row = step, dict[str, float]()
        # no condition holds of NaN: what was not logged yet triggers nothing
        metrics = {name: float(logged.get(name, nan)) for name in self.flosser.metrics}
        for record in self.flosser.step(step, **metrics):
            # of the last step of the episode, if it has any, the mean over members
            if "floss_loss" in record:
                row["floss_loss"] = float(record["floss_loss"].mean(0)[-1])
                row |= _named(mean_over_trajectories(torch.from_numpy(record["exponents"][:, -1])).tolist())
        if self.log_every and step % self.log_every == 0:
            exponents = self.flosser.exponents(self.k)
            row |= _named(mean_over_trajectories(exponents.reshape(-1, self.k)).tolist())
        return row


def _named(exponents: Any) -> dict[str, float]:
    """The first, the middle and the last exponent."""
    ranks = sorted({1, (len(exponents) + 1) // 2, len(exponents)})
    return {f"lambda_{rank}": float(exponents[rank - 1]) for rank in ranks}
