"""Errors of exponents: of a fluctuating, autocorrelated sum, and of the time step of a flow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lyaptorch.cells import Cell
from lyaptorch.cells.flow import finer, flows
from lyaptorch.tangent.scan import Span

BATCHES = 128
"""A series of at least four times as many numbers is summed into about this many batches."""
FEWEST = 4.0
"""Independent numbers that it takes to say how far they scatter."""
UNSURE = 1.0
"""Standard errors by which a series may be more correlated than it looks, before it counts as long enough."""


def error_of_sum(series: Tensor, noise: Tensor) -> Tensor:
    """Standard error of the sum of `series (s, ...)`, each about its own mean; inf where it is too short.

    The variance of a sum of s numbers is s times their spectral density at frequency 0. That is taken from an
    autoregression of the numbers (of batches of them, if they are many), of order 1 or
    higher as the corrected criterion of Akaike chooses, with the bias of its coefficients removed. What
    remains uncertain is folded in: the error is multiplied by Student's quantile for the degrees of freedom
    of the density, so that one error covers the truth in 68.3% of all cases. Where the series is worth less
    than 4 independent numbers, or may be, the answer is inf.

    Args:
        series: `(s, ...)`.
        noise: `(...)`, round-off of single numbers: what scatters no more than that counts as constant.

    Cost O(s p) with p at most 27.

    Source: Marriott and Pope (1954), Bias in the estimation of autocorrelations; Hurvich and Tsai (1989),
    Regression and time series model selection in small samples; Berk (1974), Consistent autoregressive
    spectral estimates.
    """
    s = len(series)
    if s < FEWEST:
        return torch.full_like(noise, torch.inf)
    width = s // BATCHES if s >= 4 * BATCHES else 1
    z = torch.unflatten(series[s % width :].double(), 0, (-1, width)).sum(1)
    z, m = z - z.mean(0), s // width
    variance = z.square().mean(0)
    constant = variance <= width * noise.double().square()
    order, total, innovation = _autoregression(z)
    # 1 + 3 total would remove the bias of the mean; 1 / (1 - total) is convex, and its median asks for less
    total = (total + (1 + 2.5 * total) / m).clamp_max(1 - 1e-9)
    # var(sum) = s f(0), and of z_t = sum_j a_j z_{t-j} + e_t, f(0) = var(e) / (1 - sum_j a_j)^2
    density = innovation * m / (m - order - 1) / (1 - total).square()
    # too short is what may be: how far a sum of coefficients is off can be told from 16 numbers on
    most = total + UNSURE * ((1 - total.square()).clamp_min(0.0) / m).sqrt() if m >= 16 else total
    # of so many independent values of the same variance the sum would be as uncertain
    size = m * variance * m / (m - 1) / density.clamp_min(torch.finfo(z.dtype).tiny)
    size = size * ((1 - most) / (1 - total)).clamp_min(0.0).square()
    # of log density: 2 / m of the innovation, and 4 var(total) / (1 - total)^2 with var = (1 - total^2) / m
    freedom = (m / (1 + 2 * (1 + total).clamp_min(0.0) / (1 - total))).clamp_min(1.0)
    density = torch.where(constant, variance, density * _student(freedom).square())
    error = (density * s / width).sqrt().to(series.dtype)
    return torch.where(constant | (size >= FEWEST), error, torch.inf)


def _autoregression(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order, sum of the coefficients and variance of the innovations, by the recursion of Levinson."""
    m = len(z)
    highest = max(1, min(int(10 * math.log10(m)), m // 4))
    lags = torch.stack([(z[: m - lag] * z[lag:]).sum(0) / m for lag in range(highest + 1)])
    tiny = torch.finfo(z.dtype).tiny
    left, coefficients = lags[0].clamp_min(tiny), lags.new_zeros(0, *lags.shape[1:])
    best = order = total = innovation = lags[0]
    for p in range(1, highest + 1):
        # Levinson: of order p from p - 1 by what lag p has beyond its prediction; the rest shrinks by 1 - r^2
        reflection = (lags[p] - (coefficients * lags[1:p].flip(0)).sum(0)) / left
        coefficients = torch.cat([coefficients - reflection * coefficients.flip(0), reflection.unsqueeze(0)])
        left = (left * (1 - reflection.square())).clamp_min(tiny)
        # AICc: a coefficient costs m / (m - p - 2) times what it costs of many values
        criterion = m * left.log() + 2 * (p + 1) * m / max(m - p - 2, 0.5)
        better = criterion < best if p > 1 else torch.ones_like(left, dtype=torch.bool)
        best = torch.where(better, criterion, best)
        order = torch.where(better, float(p), order)
        total = torch.where(better, coefficients.sum(0), total)
        innovation = torch.where(better, left, innovation)
    return order, total, innovation


def _student(freedom: Tensor) -> Tensor:
    """What of Student's distribution holds 68.27%, over that of the normal one: 1.3% too small at 1 degree.

    Source: Fisher and Cornish (1960), The percentile points of distributions having known cumulants.
    """
    one = 1 / freedom
    return 1 + one * (0.5 + one * (0.25 + one * 0.0625))


MOST, SMALL = 64, 1 << 15
"""So many moments are looked at, as long as their states and frames hold no more numbers than this."""
LEAST, RARELY = 2, 200
"""Of large systems one moment of so many steps, but not fewer than these."""
PIECES = (1, 2, 4)
SLOWEST = 0.9
"""Ratio of successive differences from which on they do not fall: the steps are too long to tell anything."""
NOISE = 100
"""Differences below so many eps are round-off."""
OF_EXPONENT, OF_SPEED = 0.05, 0.005
"""Parts of an exponent, and of the speed at which tangent vectors move, that an error may reach."""


@dataclass
class Moments:
    """The states and frames from which some steps of a scan leave; `sweep` calls it at every span."""

    cell: Cell
    starts: frozenset[int]
    after: Tensor | None
    kept: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, s: int, h: Tensor, Q: Tensor) -> None:
        """Keep what step s leaves from, if it is one of the moments."""
        if s in self.starts:
            self.kept.append((s, h.detach(), Q.detach()))


def moments(cell: Cell, over: Sequence[Span], Q: Tensor, after: Tensor | None = None) -> Moments | None:
    """The moments to look at in a scan over `over` that starts at a frame Q; None without a flow.

    With `after`, the steps of each trajectory, there are some before each end.
    """
    if not flows(cell):
        return None
    starts = [span.start for span in over if span.counted]
    count = min(len(starts), max(LEAST, len(starts) // RARELY, min(MOST, SMALL // Q.numel())))
    # one in each of equal stretches; at no fixed distance, which a period could share
    where = [(i + i * 0.618034 % 1) / count for i in range(count)]
    chosen = {starts[int(w * len(starts))] for w in where}
    end, shortest = starts[-1], starts[-1] if after is None else max(1, int(after.min()))
    while end > shortest:
        end = max(end // 2, shortest)
        own = [start for start in starts if start < end]
        chosen.update(own[int(w * len(own))] for w in where if own)
    return Moments(cell, frozenset(chosen), after)


@torch.no_grad()
def discretisation(
    seen: Moments | None, inputs: Tensor, exponents: Callable[[float], Tensor], dt: float
) -> tuple[Tensor | None, Tensor | None]:
    """How far `exponents(dt) (*e, b, k)`, per unit of time, are off by the length of the steps.

    And where that is small beside the exponent, or the speed of the tangent vectors; None twice for maps.

    At each moment log R_ii of one step is compared with those of the same step in 2 and in 4 pieces. With
    the mean |differences| d_1 and d_2 of a method that converges, the rest is a geometric series of ratio
    r = d_2 / d_1, and the error d_1 / (1 - r); where they do not fall, it is inf. Local errors are taken to
    add up, which bounds them where they cancel. Cost: 7 steps of all moments at once.

    Moments after the end of a trajectory do not count.
    """
    if seen is None:
        return None, None
    logs, rates = [], exponents(dt)
    x = torch.cat([inputs[s] for s, _, _ in seen.kept], -2)
    h, Q = torch.cat([h for _, h, _ in seen.kept], -2), torch.cat([Q for _, _, Q in seen.kept], -3)
    for pieces in PIECES:
        with finer(seen.cell, pieces):
            _, A = seen.cell.pushforward(x, h, Q)
        logs.append(torch.linalg.qr(A).R.diagonal(dim1=-2, dim2=-1).abs().log())
    speed = torch.linalg.vector_norm(A - Q, dim=-2)
    shares = _shares([s for s, _, _ in seen.kept], rates, seen.after)
    seen.kept.clear()
    differences = [(a - b).abs() for a, b in itertools.pairwise(logs)]
    first, second, speed = (_mean(z, shares) for z in (*differences, speed))
    # log R of 1, 2, 4, ... pieces: d_1 + d_1 r + d_1 r^2 + ... = d_1 / (1 - r), r = 2^-p for a method of
    # order p
    ratio = second / first.clamp_min(torch.finfo(first.dtype).tiny)
    noise = NOISE * torch.finfo(first.dtype).eps
    series = torch.where(ratio < SLOWEST, first / (1 - ratio), torch.inf)
    error = torch.where(second <= noise, first + second, series) / dt
    # a direction that died has no logarithm
    dead = torch.isinf(rates)
    error = torch.where(torch.isnan(error) & ~dead, torch.inf, error).masked_fill(dead, 0.0)
    speed = speed.nan_to_num(0.0).amax(-1, keepdim=True) / dt
    return error, error <= OF_EXPONENT * rates.abs() + OF_SPEED * speed


def _shares(steps: Sequence[int], rates: Tensor, after: Tensor | None) -> Tensor:
    """The part of its run for which each moment stands, `(*e, moments, b, 1)`; 0 after a trajectory's end.

    Moments stand for the steps up to the next one; where all have all steps, for equal stretches.
    """
    if after is None:
        return rates.new_full((len(steps), 1, 1), 1 / len(steps))
    starts = torch.tensor(steps, device=rates.device).unsqueeze(-1)
    last = after.amax(-1, keepdim=True).unsqueeze(-2).clamp_min(steps[-1] + 1)
    stops = torch.cat([starts[1:].expand(*last.shape[:-2], -1, 1), last], -2)
    spans = (stops.minimum(after.unsqueeze(-2)) - starts).clamp_min(0).to(rates.dtype)
    # NaN where there is none
    return (spans / spans.sum(-2, keepdim=True)).unsqueeze(-1)


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """Over moments, which lie side by side in the batch `(*e, moments * b, k)`."""
    values = torch.unflatten(values, -2, (shares.shape[-3], -1))
    return torch.where(shares == 0, 0.0, values * shares).sum(-3)
