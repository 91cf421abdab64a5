"""Mean-field theory of large random networks: variance of the states and largest exponent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch._types import Number

HALVINGS = 80
"""Bisection steps: enough for every digit of float64."""


class MeanField(NamedTuple):
    """What the theory predicts, as float64 tensors.

    Attributes:
        variance: q, of the states over units and time.
        lambda_max: the largest exponent, nats per step.
    """

    variance: Tensor
    lambda_max: Tensor


def tanh_mean_field(g: Number, s: Number = 0.0) -> MeanField:
    """A discrete-time rate network, h' = W tanh(h) + input, W ~ N(0, g^2 / n), n to infinity.

    `q = g^2 E[tanh^2(sqrt q z)] + s^2`, `lambda_max = 1/2 log(g^2 E[sech^4(sqrt q z)])`, z ~ N(0, 1).

    Args:
        g: gain > 0; a number or tensor.
        s: standard deviation of the input to a unit, white in time; broadcasts with `g`.

    Raises:
        ValueError: for a gain that is not above 0 or a negative s.

    Example:
        >>> field = tanh_mean_field(0.5)
        >>> field.variance.item(), round(field.lambda_max.item(), 6)
        (0.0, -0.693147)

    Source: Sompolinsky, Crisanti & Sommers (1988) in discrete time; Engelken, Wolf & Abbott (2023).
    """
    gain, std = (torch.as_tensor(value, dtype=torch.float64) for value in (g, s))
    gain, std = gain + 0 * std, std + 0 * gain
    if not (gain > 0).all() or not (std >= 0).all():
        raise ValueError(f"tanh_mean_field needs g > 0 and s >= 0, got g={g}, s={s}")
    # g^2 E[tanh^2] + s^2 over q falls with q: its crossing of 1 is the fixed point
    low, high = torch.zeros_like(gain), gain.square() + std.square()
    for _ in range(HALVINGS):
        q = 0.5 * (low + high)
        above = gain.square() * _gaussian_mean(torch.tanh, 2, q) + std.square() > q
        low, high = torch.where(above, q, low), torch.where(above, high, q)
    quiet = (gain <= 1) & (std == 0)
    q = torch.where(quiet, 0.0, 0.5 * (low + high))
    slope = gain.square() * _gaussian_mean(lambda x: 1 / torch.cosh(x), 4, q)
    return MeanField(q, 0.5 * slope.log())


def critical_gain(s: Number) -> Tensor:
    """The gain at which `tanh_mean_field(g, s).lambda_max` is 0: input of strength s suppresses chaos below.

    Example:
        >>> round(critical_gain(0.0).item(), 6)
        1.0

    Source: as `tanh_mean_field`.
    """
    std = torch.as_tensor(s, dtype=torch.float64)
    low, high = torch.ones_like(std), 4 * (1 + std)
    while (tanh_mean_field(high, std).lambda_max < 0).any():
        high = 2 * high
    for _ in range(HALVINGS // 2):
        g = 0.5 * (low + high)
        stable = tanh_mean_field(g, std).lambda_max < 0
        low, high = torch.where(stable, g, low), torch.where(stable, high, g)
    return 0.5 * (low + high)


def _gaussian_mean(f: Callable[[Tensor], Tensor], power: int, q: Tensor) -> Tensor:
    """E[f(sqrt q z)^power], z ~ N(0, 1), by the trapezoidal rule, which converges exponentially here."""
    # the integrand is analytic within pi / (2 sqrt q) of the real axis: a grid finer than that is exact
    spread = max(1.0, float(q.max().sqrt()))
    count = int(400 * min(spread, 1000.0)) + 1
    z = torch.linspace(-10.0, 10.0, count, dtype=torch.float64, device=q.device)
    weight = torch.exp(-0.5 * z.square())
    values = f(q.sqrt().unsqueeze(-1) * z).pow(power)
    return (values * weight).sum(-1) / weight.sum()
