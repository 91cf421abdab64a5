"""Growth: log-rates of a scan per interval, its means and errors, and when directions died.

Everything here is a pure function of `log R_ii`. Exponents are in nats per step, or, with `dt`, in nats
per unit of time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._types import Exponents, Healthy, LogR, Steps
from lyaptorch.tangent.error_bars import error_of_sum
from lyaptorch.tangent.scan import Layout

ROUND_OFF = 16.0
"""Growth that scatters by less than this many times its round-off is constant."""
LOST = {torch.float32: 11.0, torch.float64: 31.0}
"""Largest (lambda_1 - lambda_i) * interval, in nats, at which round-off leaves lambda_i standing."""


@dataclass(frozen=True)
class Growth:
    """The growth of k tangent vectors over s intervals.

    Attributes:
        log_r: `(s, *e, b, k)`, log R_ii of each interval; -inf from the interval in which a column dies, 0
            after the end of a trajectory, and -inf everywhere where it ended before anything was counted.
        steps: `(s,)`, steps in each interval, or `(s, *e, b)`, those of each trajectory: 0 after its end.
        healthy: `(s, *e, b, k)`, whether the column was alive at the end of the interval.

    Example:
        >>> import lyaptorch as lt
        >>> growth = lt.lyapunov_spectrum(lt.RateCell(1, 8), torch.zeros(60, 1, 1), k=2, interval=3).growth
        >>> growth.log_r.shape, growth.steps.sum().item()
        (torch.Size([20, 1, 2]), 60)
    """

    log_r: LogR
    steps: Steps
    healthy: Healthy

    __repr__ = brief

    def exponents(self, dt: float = 1.0) -> Exponents:
        """lambda_i = sum_s log R_ii(s) / (steps dt), in the frame's column order, -inf without steps.

        Source: Gradient Flossing, eq 7 and 27.
        """
        total = self.log_r.sum(0)
        if self.steps.dim() == 1 and self.steps.device.type == "cpu" and _checks.can_look():
            # a number is divided by in one operation
            return total / (max(1, int(self.steps.sum())) * dt)
        return total / (self._rows(self.steps.sum(0, keepdim=True))[0] * dt)

    def running(self, dt: float = 1.0) -> LogR:
        """The estimate of every exponent after each interval, `(s, *e, b, k)`."""
        return self.log_r.cumsum(0) / (self._rows(self.steps.cumsum(0)) * dt)

    def local(self, dt: float = 1.0) -> LogR:
        """The local exponents, growth rates in every interval `(s, *e, b, k)`; 0 after a trajectory's end."""
        return self.log_r / (self._rows(self.steps) * dt)

    def finite_time(self, window: int, dt: float = 1.0) -> LogR:
        """The finite-time exponents of successive windows of `window` intervals, `(s // window, *e, b, k)`.

        The first intervals are left out where the windows do not fill all of them.

        Raises:
            ValueError: if `window` is not in 1..s.
        """
        s = self.log_r.shape[0]
        _checks.integer("window", window, 1, s, do=f"there are {s} intervals")
        first = s % window
        log_r, steps = (torch.unflatten(z[first:], 0, (-1, window)).sum(1) for z in (self.log_r, self.steps))
        return log_r / (self._rows(steps) * dt)

    def stderr(self, dt: float = 1.0) -> Exponents:
        """Standard error of every exponent `(*e, b, k)`; one covers the truth in 68.3% of all cases.

        It knows that growth is autocorrelated, and how uncertain it is itself (`error_bars.error_of_sum`). It
        is inf where nothing can be said: where the intervals are worth less than 4 independent ones, and
        where a column died.
        """
        deviation, there = self._deviations()
        noise = self._noise()
        if self.steps.dim() == 1:
            error = error_of_sum(deviation, noise)
        else:
            error, counts = torch.full_like(noise, torch.inf), (self.steps > 0).sum(0)
            for count in torch.unique(counts).tolist():
                own = counts == count
                error[own] = error_of_sum(deviation[:count, own], noise[own])
        elapsed = self._rows(self.steps.sum(0, keepdim=True))[0] * dt
        return torch.where(there, error / elapsed, torch.inf)

    def stderr_of_mean(self, dt: float = 1.0) -> Tensor:
        """Standard error `(*e, k)` of the mean of every exponent over the trajectories that have it.

        It is that of their mean growth, so that trajectories which fluctuate together, such as synchronised
        ones, do not count as independent. It is inf where nothing can be said, as in `stderr`.
        """
        deviation, there = self._deviations()
        number = there.sum(-2).clamp_min(1)
        share = torch.where(there, 1 / (self._rows(self.steps.sum(0, keepdim=True))[0] * dt), 0.0)
        mean = (deviation * share).sum(-2) / number
        noise = (self._noise() * share).sum(-2) / number
        return torch.where(there.any(-2), error_of_sum(mean, noise), torch.inf)

    def reliable(self) -> Tensor:
        """Which exponents round-off has left standing, `(*e, b, k)` bool.

        A direction is lost when (lambda_1 - lambda_i) * interval exceeds about 11 nats in float32 or 31 in
        float64, and when its column died.
        """
        # R_ii is what is left of a column as long as exp(lambda_1 interval): its relative error is
        # eps exp((lambda_1 - lambda_i) interval), at 11 and 31 nats 0.7% and 0.6%
        rates = self.exponents().detach()
        gap = (rates.amax(-1, keepdim=True) - rates) * self._rows(self.steps.amax(0, keepdim=True))[0]
        return self.healthy[-1] & (gap < LOST[self.log_r.dtype])

    def kaplan_yorke(self) -> Tensor:
        """Kaplan-Yorke dimension `(*e, b)`: j + (lambda_1 + ... + lambda_j) / |lambda_{j+1}|.

        j is the last index at which the sum of the sorted exponents is not negative. With fewer exponents
        than it takes for the sum to turn negative, the answer is k, a lower bound (and exact if k = n).
        """
        # the frame's order is that of the growth in the long run only
        ordered = self.exponents().sort(-1, descending=True).values
        total = ordered.cumsum(-1)
        j = (total >= 0).sum(-1, keepdim=True)
        last = (j - 1).clamp_min(0)
        after = j.clamp_max(ordered.shape[-1] - 1)
        part = torch.gather(total, -1, last) / torch.gather(ordered, -1, after).abs()
        inside = (j > 0) & (j < ordered.shape[-1])
        return (j + torch.where(inside, part, 0.0)).squeeze(-1)

    def entropy(self, dt: float = 1.0) -> Tensor:
        """Sum of the positive exponents `(*e, b)`, an upper bound of the entropy rate (Pesin)."""
        return self.exponents(dt).clamp_min(0.0).sum(-1)

    def repeated(self, copies: int, k: int) -> Growth:
        """The first k columns, where each of these is there so many times."""
        if copies == 1:
            return self
        log_r, healthy = (z.repeat_interleave(copies, -1)[..., :k] for z in (self.log_r, self.healthy))
        return Growth(log_r, self.steps, healthy)

    def ended(self, counted: Tensor) -> Growth:
        """Growth of which each trajectory has the first `counted (b,)` or `(*e, b)` steps alone."""
        before = self.steps.cumsum(0) - self.steps
        shape = self.log_r.shape[:-1]
        before, steps = (z.reshape(-1, *[1] * (len(shape) - 1)) for z in (before, self.steps))
        own = (counted - before).clamp_min(0).minimum(steps).expand(shape)
        there = (own.sum(0) > 0).unsqueeze(-1)
        log_r = torch.where(own.unsqueeze(-1) > 0, self.log_r, 0.0)
        return Growth(torch.where(there, log_r, -torch.inf), own, self.healthy & there)

    def clock(self) -> Tensor:
        """Steps `(s,)` after each interval, of the longest trajectory."""
        return self.steps.reshape(len(self.steps), -1).amax(1).cumsum(0)

    def too_short(self) -> Tensor:
        """Which trajectories `(*e, b)` ended before anything was counted."""
        return (self.steps.sum(0) == 0).expand(self.log_r.shape[1:-1])

    def _rows(self, steps: Tensor) -> Tensor:
        """Steps `(s,)` or `(s, *e, b)` against `log_r`, at least 1, and floating.

        An integer tensor times dt would have the default dtype.
        """
        shape = (-1, *[1] * (self.log_r.dim() - 1)) if steps.dim() == 1 else (*steps.shape, 1)
        return steps.clamp_min(1).to(self.log_r.dtype).reshape(shape)

    def _deviations(self) -> tuple[Tensor, Tensor]:
        """What every interval gained beyond its share `(s, *e, b, k)`, 0 where dead; and who lives."""
        there, log_r = self.healthy[-1], self.log_r.detach()
        log_r = torch.where(there, log_r, 0.0)
        steps = self.steps.to(log_r.dtype).reshape(*self.steps.shape, *[1] * (log_r.dim() - self.steps.dim()))
        return log_r - torch.where(there, self.exponents().detach(), 0.0) * steps, there

    def _noise(self) -> Tensor:
        """Round-off of the growth in single intervals `(*e, b, k)`."""
        log_r = self.log_r.detach()
        largest = torch.where(self.healthy[-1], log_r, 0.0).abs().amax(0)
        return ROUND_OFF * torch.finfo(log_r.dtype).eps * largest.clamp_min(1.0)


def in_spans(laid: Layout, log_r: Tensor, healthy: Tensor, after: Tensor | None = None) -> Growth:
    """The growth in the spans that count, which follow those that do not.

    `after` is the step at which each trajectory ends, if not all do with the last.
    """
    first = laid.uncounted
    # layouts are kept for later calls, and who gets the growth may write into it
    steps = laid.steps.clone()
    growth = Growth(log_r[first:] if first else log_r, steps, healthy[first:] if first else healthy)
    return growth if after is None else growth.ended(after - laid.cuts[first])


def mean_over_trajectories(exponents: Tensor) -> Tensor:
    """The mean over the trajectories b of `(..., b, k)` that have an exponent; -inf where none has.

    Left out is what is -inf: the columns that died, and trajectories that ended before anything was counted.
    NaN is not left out. Differentiable.

    Cost O(b k).

    Example:
        >>> mean_over_trajectories(torch.tensor([[1.0, -torch.inf], [3.0, -torch.inf]]))
        tensor([2., -inf])
    """
    there = exponents != -torch.inf
    total = torch.where(there, exponents, 0.0).sum(-2)
    number = there.sum(-2)
    return torch.where(number > 0, total / number.clamp_min(1), -torch.inf)


CAUSE = (
    "the Jacobian is singular there: a slope of exactly 0, of a unit at a kink, saturated or dead, or a reset"
)
_told: ContextVar[bool] = ContextVar("told", default=True)


def died_at(healthy: Tensor, laid: Layout, transient: int) -> Tensor | None:
    """After how many inputs each column `(*e, b, k)` was found dead, 0 where it lives; None if none died.

    Args:
        healthy: `(spans, *e, b, k)`, whether a column was alive at the end of each span.
        laid: the spans.
        transient: inputs before the first of them.
    """
    if not _checks.can_look() or healthy[-1].all():
        return None
    # who lives through all spans died at step 0
    stops = torch.cat([laid.stops + transient, laid.stops.new_zeros(1)])
    return stops[healthy.sum(0)]


def tell_of_deaths(when: Tensor | None) -> None:
    """Warn where every tangent vector of every trajectory of a network died."""
    if when is None or not _told.get():
        return
    members = (when > 0).flatten(-2).all(-1)
    if members.any():
        steps = when.flatten(-2).amax(-1)[members]
        warnings.warn(
            f"every tangent vector has died after step {int(steps.max())}, transients counted, so all "
            f"exponents are -inf: {CAUSE}; start from another h0, or add noise to it or to the inputs; "
            "died_at of the Spectrum tells when each died",
            stacklevel=4,
        )


@contextmanager
def untold() -> Iterator[None]:
    """Within a loop that tells of deaths in its own words."""
    before = _told.set(False)
    try:
        yield
    finally:
        _told.reset(before)
