"""Error bars: how far the sum of a fluctuating, autocorrelated series may be from what is expected."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
