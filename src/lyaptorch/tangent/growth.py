"""Growth: what the tangent vectors gained in each interval, and what follows from it.

Everything here is a pure function of `log R_ii`. Exponents are in nats per step, or, with `dt`, in nats
per unit of time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Exponents, Healthy, LogR, Steps

LOST = {torch.float32: 11.0, torch.float64: 31.0}
"""Largest (lambda_1 - lambda_i) * interval, in nats, at which round-off leaves lambda_i standing."""


@dataclass(frozen=True)
class Growth:
    """The growth of k tangent vectors over s intervals.

    Attributes:
        log_r: `(s, *e, b, k)`, log R_ii of each interval; -inf from the interval in which a column dies.
        steps: `(s,)`, steps in each interval.
        healthy: `(s, *e, b, k)`, whether the column was alive at the end of the interval.
    """

    log_r: LogR
    steps: Steps
    healthy: Healthy


def exponents(growth: Growth, dt: float = 1.0) -> Exponents:
    """lambda_i = sum_s log R_ii(s) / (steps dt), in the frame's column order.

    Source: Gradient Flossing, eq 7 and 27.
    """
    return growth.log_r.sum(0) / (_elapsed(growth)[-1] * dt)


def mean_over_trajectories(exponents: Tensor) -> Tensor:
    """The mean over the trajectories b of `(..., b, k)` that have an exponent; -inf where none has.

    Left out is what is -inf: the columns that died, and trajectories that ended before anything was counted.
    NaN is not left out. Differentiable.
    """
    there = exponents != -torch.inf
    total = torch.where(there, exponents, 0.0).sum(-2)
    number = there.sum(-2)
    return torch.where(number > 0, total / number.clamp_min(1), -torch.inf)


def running(growth: Growth, dt: float = 1.0) -> LogR:
    """The estimate of every exponent after each interval, `(s, *e, b, k)`."""
    return growth.log_r.cumsum(0) / (_elapsed(growth) * dt)


def local(growth: Growth, dt: float = 1.0) -> LogR:
    """The local exponents: the growth rate in every interval, `(s, *e, b, k)`."""
    return growth.log_r / (_per_interval(growth, growth.steps) * dt)


def finite_time(growth: Growth, window: int, dt: float = 1.0) -> LogR:
    """The finite-time exponents of successive windows of `window` intervals, `(s // window, *e, b, k)`.

    The first intervals are left out where the windows do not fill all of them.

    Raises:
        ValueError: if `window` is not in 1..s.
    """
    s = growth.log_r.shape[0]
    _checks.integer("window", window, 1, s, do=f"there are {s} intervals")
    first = s % window
    log_r = torch.unflatten(growth.log_r[first:], 0, (-1, window)).sum(1)
    steps = torch.unflatten(growth.steps[first:], 0, (-1, window)).sum(1)
    return log_r / (_per_interval(growth, steps) * dt)


def stderr(growth: Growth, dt: float = 1.0) -> Exponents:
    """Standard error of every exponent, from about sqrt(s) batch means of the growth.

    Batches, not single intervals, because growth is autocorrelated. It is inf with fewer than 4 intervals
    and where a column died: then nothing can be said.
    """
    s = growth.log_r.shape[0]
    if s < 4:
        return torch.full_like(growth.log_r[0], torch.inf).detach()
    means = finite_time(growth, s // int(s**0.5), dt).detach()
    error = means.std(0) / len(means) ** 0.5
    return torch.where(growth.healthy[-1], error, torch.inf)


def stderr_of_mean(growth: Growth, dt: float = 1.0) -> Tensor:
    """Standard error `(*e, k)` of the mean of every exponent over the trajectories that have it.

    It is that of their mean growth, so that trajectories which fluctuate together, such as synchronised ones,
    do not count as independent. It is inf where nothing can be said, as in `stderr`.
    """
    there = growth.healthy[-1]
    total = torch.where(there, growth.log_r, 0.0).sum(-2, keepdim=True)
    mean = total / there.sum(-2, keepdim=True).clamp_min(1)
    lives = there.any(-2, keepdim=True)
    return stderr(Growth(mean, growth.steps, lives.expand(mean.shape)), dt).squeeze(-2)


def reliable(growth: Growth) -> Tensor:
    """Which exponents round-off has left standing, `(*e, b, k)` bool.

    A direction is lost when (lambda_1 - lambda_i) * interval exceeds about 11 nats in float32 or 31 in
    float64, and when its column died.
    """
    rates = exponents(growth).detach()
    leading = rates.amax(-1, keepdim=True)
    gap = (leading - rates) * growth.steps.max()
    return growth.healthy[-1] & (gap < LOST[growth.log_r.dtype])


def kaplan_yorke(growth: Growth) -> Tensor:
    """Kaplan-Yorke dimension `(*e, b)`: j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|.

    j is the last index at which the sum of the sorted exponents is not negative. With fewer exponents
    than it takes for the sum to turn negative, the answer is k, a lower bound (and exact if k = n).
    """
    ordered = exponents(growth).sort(-1, descending=True).values
    total = ordered.cumsum(-1)
    j = (total >= 0).sum(-1, keepdim=True)
    last = (j - 1).clamp_min(0)
    after = j.clamp_max(ordered.shape[-1] - 1)
    part = torch.gather(total, -1, last) / torch.gather(ordered, -1, after).abs()
    inside = (j > 0) & (j < ordered.shape[-1])
    return (j + torch.where(inside, part, 0.0)).squeeze(-1)


def entropy(growth: Growth, dt: float = 1.0) -> Tensor:
    """Sum of the positive exponents `(*e, b)`, an upper bound of the entropy rate (Pesin)."""
    return exponents(growth, dt).clamp_min(0.0).sum(-1)


def _elapsed(growth: Growth) -> Tensor:
    """Steps so far."""
    return _per_interval(growth, growth.steps.cumsum(0))


def _per_interval(growth: Growth, steps: Tensor) -> Tensor:
    """Steps `(s, 1, ..., 1)`, floating: an integer tensor times dt would have the default dtype."""
    return steps.to(growth.log_r.dtype).reshape(-1, *[1] * (growth.log_r.dim() - 1))
