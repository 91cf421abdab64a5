"""Statistics of signals: power spectra of data, spike trains and potentials of spiking networks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._caller import measures
from lyaptorch._types import States
from lyaptorch.cells import SpikingCell

CHUNK = 4096
"""Sequences that are transformed at a time."""


class Peak(NamedTuple):
    """A local maximum of a power spectrum.

    Attributes:
        bin: k, its place.
        frequency: 2 pi k / t, radians per step.
        error: half the width of a bin, pi / t.
        ratio: its power relative to the mean bin, the one at zero left out.
        stderr: standard error of the ratio over sequences.
    """

    bin: int
    frequency: float
    error: float
    ratio: float
    stderr: float


@dataclass(frozen=True)
class PowerSpectrum:
    """The mean power spectrum of many sequences.

    Attributes:
        length: t, steps of a sequence.
        power: `(t // 2 + 1,)`, mean of |sum_s x_s e^(-2 pi i k s / t)|^2 / t over sequences, float64.
        stderr: its standard error.

    Example:
        >>> import lyaptorch as lt
        >>> waves = torch.sin(0.5 * torch.arange(400.0))[:, None]
        >>> found = lt.analysis.characteristic_frequency(waves)
        >>> found.power.shape, round(found.frequency, 1)
        (torch.Size([201]), 0.5)
    """

    length: int
    power: Float[Tensor, " bins"]
    stderr: Float[Tensor, " bins"]

    __repr__ = brief

    @property
    def mean(self) -> float:
        """Of all bins but the one at zero."""
        return self.power[1:].mean().item()

    @property
    def peaks(self) -> list[Peak]:
        """The local maxima above zero frequency, the strongest first."""
        # zero frequency is left out: beside the first bin stands a 0, and one behind the last
        padded = torch.nn.functional.pad(self.power[1:], (1, 1))
        higher = (padded[1:-1] > padded[:-2]) & (padded[1:-1] > padded[2:])
        # what stands in bins by round-off of the transform is no peak
        lost = self.power.max() * (torch.finfo(self.power.dtype).eps * self.length) ** 2
        higher &= self.power[1:] > lost
        bins = torch.nonzero(higher).flatten() + 1
        order = self.power[bins].argsort(descending=True)
        return [
            Peak(
                k,
                2 * math.pi * k / self.length,
                math.pi / self.length,
                self.power[k].item() / self.mean,
                self.stderr[k].item() / self.mean,
            )
            for k in bins[order].tolist()
        ]

    @property
    def frequency(self) -> float:
        """The characteristic frequency, that of the strongest peak, in radians per step."""
        if not (found := self.peaks):
            raise ValueError("the data have no frequency above zero: their spectrum has no peak")
        return found[0].frequency


@measures
@torch.no_grad()
def characteristic_frequency(sequences: Tensor) -> PowerSpectrum:
    """The mean power spectrum of sequences, its peaks, and the strongest of them. Cost O(t log t) each.

    Args:
        sequences: `(t, ...)`, time first, such as inputs `(t, *e, b, m)`; what follows are sequences.

    Returns:
        A `PowerSpectrum`; `.frequency` is that of its strongest peak.

    Raises:
        ValueError: for sequences that are no floating tensor, not finite, or shorter than 4 steps.

    Example:
        >>> wave = torch.sin(2 * math.pi / 28 * torch.arange(280.0))
        >>> found = characteristic_frequency(wave[:, None])
        >>> round(2 * math.pi / found.frequency, 6), found.peaks[0].bin
        (28.0, 10)

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.2 and Fig 4.
    """
    _checks.finite("sequences", _checks.tensor("sequences", sequences))
    length = len(sequences) if sequences.dim() else 0
    if length < 4 or sequences.numel() == 0:
        raise ValueError(f"sequences must be (t, ...) with t >= 4, got {tuple(sequences.shape)}")
    rows = sequences.reshape(length, -1)
    total = torch.zeros(length // 2 + 1, dtype=torch.float64, device=rows.device)
    squares = total.clone()
    for chunk in torch.split(rows, CHUNK, 1):
        power = torch.fft.rfft(chunk.double(), dim=0).abs().square() / length
        total, squares = total + power.sum(1), squares + power.square().sum(1)
    count = rows.shape[1]
    mean = total / count
    # <p^2> - <p>^2, which round-off may bring below 0; divided by n - 1 it is the unbiased variance of a
    # sequence over n, that of the mean
    variance = (squares / count - mean.square()).clamp_min(0.0)
    stderr = (variance / (count - 1)).sqrt() if count > 1 else torch.full_like(mean, torch.inf)
    return PowerSpectrum(length, mean, stderr)


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
    # step of a spike less that of the one before: cummax carries the last spike's step on
    intervals = torch.where((spikes > 0) & (last > 0), marked - last, 0.0)
    count = (intervals > 0).sum(0)
    mean = intervals.sum(0) / count
    variance = (torch.where(intervals > 0, intervals - mean, 0.0)).square().sum(0) / count
    return torch.where(count >= 2, variance.sqrt() / mean, torch.nan)
