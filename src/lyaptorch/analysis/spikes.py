"""Statistics of spike trains and potentials."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch._types import States
from lyaptorch.cells import SpikingCell

Neurons = Float[Tensor, "*e b n"]


@dataclass(frozen=True)
class SpikeStatistics:
    """How neurons fire, each in each trajectory.

    Attributes:
        rates: spikes per second.
        cv: coefficient of variation of the intervals between spikes: 0 for a clock, 1 for a Poisson process,
            more for bursts; NaN, which is no number, for a neuron with fewer than three spikes.
        lowest: the least potential; far below zero it is no neuron's.
        highest: the greatest potential.
        below: share of time that the potential spends further below 0 than the threshold is above it.
    """

    rates: Neurons
    cv: Neurons
    lowest: Neurons
    highest: Neurons
    below: Neurons


@measures
@torch.no_grad()
def spike_statistics(cell: SpikingCell, states: States) -> SpikeStatistics:
    """Rates, irregularity and voltage excursions of a spiking network. Cost O(t b n).

    Args:
        cell: whose states they are.
        states: `(t, *e, b, N)`, as `Model.states` or `cells.unroll` give them.

    Raises:
        ValueError: for a cell that does not spike.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.LIFCell(1, 20)
        >>> states = lt.cells.unroll(cell, torch.ones(200, 1, 1), torch.zeros(1, 40))
        >>> spike_statistics(cell, states).rates.shape
        torch.Size([1, 20])

    Source: Surrogate Gradient Flossing, appendix D.
    """
    if not isinstance(cell, SpikingCell):
        raise ValueError(f"spike statistics need a spiking cell, got {type(cell).__name__}; pass a LIFCell")
    _checks.finite("states", _checks.tensor("states", states))
    spikes, U = cell.spikes(states), states[..., : cell.hidden_size]
    return SpikeStatistics(
        rates=spikes.mean(0) / cell.dt,
        cv=_interval_variation(spikes),
        lowest=U.amin(0),
        highest=U.amax(0),
        below=(-cell.threshold.unsqueeze(-2) > U).to(U.dtype).mean(0),
    )


def _interval_variation(spikes: Tensor) -> Tensor:
    """Standard deviation over mean of the intervals between spikes along the first dimension."""
    steps = torch.arange(1, len(spikes) + 1, dtype=spikes.dtype, device=spikes.device)
    marked = spikes * steps.reshape(-1, *[1] * (spikes.dim() - 1))
    # the step of the last spike before each step, 0 for none
    last = torch.cat([torch.zeros_like(marked[:1]), marked.cummax(0).values[:-1]])
    intervals = torch.where((spikes > 0) & (last > 0), marked - last, 0.0)
    count = (intervals > 0).sum(0)
    mean = intervals.sum(0) / count
    variance = (torch.where(intervals > 0, intervals - mean, 0.0)).square().sum(0) / count
    return torch.where(count >= 2, variance.sqrt() / mean, torch.nan)
