"""Mean-field theory of random networks, and the condition number that a spectrum predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number

HALVINGS = 80
"""Bisection steps: enough for every digit of float64."""
POINTS = 2001
"""Of the trapezoidal rule."""


class MeanField(NamedTuple):
    """What the theory predicts, as float64 tensors.

    Attributes:
        variance: q, of the states over units and time.
        lambda_max: the largest exponent, nats per step.

    Example:
        >>> import lyaptorch as lt
        >>> variance, lambda_max = lt.theory.tanh_mean_field(torch.tensor([0.5, 2.0]))
        >>> variance.shape, lambda_max > 0
        (torch.Size([2]), tensor([False,  True]))
    """

    variance: Tensor
    lambda_max: Tensor


def tanh_mean_field(g: Number, s: Number = 0.0) -> MeanField:
    """A discrete-time rate network, h' = W tanh(h) + input, W ~ N(0, g^2 / n), n to infinity.

    `q = g^2 E[tanh^2(sqrt q z)] + s^2`, `lambda_max = 1/2 log(g^2 E[sech^4(sqrt q z)])`, z ~ N(0, 1).

    Costs some tens of milliseconds for each value, whatever n would be.

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
    gain, std = (_checks.numbers(value, torch.float64) for value in (g, s))
    gain, std = gain + 0 * std, std + 0 * gain
    if not (gain > 0).all() or not (std >= 0).all():
        raise ValueError(f"tanh_mean_field needs g > 0 and s >= 0, got g={g}, s={s}")
    # A unit sums many independent W_ij tanh(h_j), so h is Gaussian, and its variance maps to the right side
    # of the docstring's q. A perturbation's square grows by n Var(W_ij) E[phi'^2] = g^2 E[sech^4] a step.
    # g^2 E[tanh^2] + s^2 over q falls with q: its crossing of 1 is the fixed point
    power = std.square()
    q = _root(lambda q: gain.square() * _tanh2(q) + power > q, gain.square() + power)
    quiet = (gain <= 1) & (std == 0)
    q = torch.where(quiet, 0.0, q)
    return MeanField(q, torch.where(quiet, gain.log(), 0.5 * (gain.square() * _sech(4, q)).log()))


def binary_mean_field(g: Number, input_power: Number = 0.0) -> MeanField:
    """A binary network, h' = W sign(h) + input, W ~ N(0, 1 / n), with the surrogate slope sech^2(g h).

    `Delta0 = 1 + input_power`, `lambda_max = 1/2 log E[sech^4(g sqrt(Delta0) z)]`, z ~ N(0, 1). The exponent
    belongs to the surrogate Jacobian W diag(sech^2(g h)): that of the network itself is infinite.

    Costs less than a millisecond for each value.

    Args:
        g: sharpness > 0 of the surrogate; a number or tensor.
        input_power: mean over units of the squared input current (V x + b)_i^2; broadcasts with `g`. Where it
            changes in time, give its values and average `lambda_max`: logarithms are averaged, not powers.

    Raises:
        ValueError: for a sharpness that is not above 0 or a negative input power.

    Example:
        >>> field = binary_mean_field(1.0)
        >>> field.variance.item(), round(field.lambda_max.item(), 4)
        (1.0, -0.3835)

    Source: Surrogate Gradient Flossing, appendix C (eq 6's first exponent; Delta0 is a variance).
    """
    sharpness, power = (_checks.numbers(value, torch.float64) for value in (g, input_power))
    sharpness, power = sharpness + 0 * power, power + 0 * sharpness
    if not (sharpness > 0).all() or not (power >= 0).all():
        raise ValueError(f"binary_mean_field needs g > 0 and input_power >= 0, got g={g}, {input_power}")
    # W_ij have the variance 1/n and signs the square 1, so W sign(h) has 1; the input adds its power. With
    # slopes sech^2(g h), a perturbation's square grows by E[sech^4(g h)] a step, g h of variance g^2 Delta0.
    variance = 1 + power
    return MeanField(variance, 0.5 * _sech(4, sharpness.square() * variance).log())


def critical_gain(s: Number) -> Tensor:
    """The gain at which `tanh_mean_field(g, s).lambda_max` is 0: input of strength s suppresses chaos below.

    Of the shape of `s`, such as `(*e)`. Costs some tens of milliseconds for each value.

    Example:
        >>> round(critical_gain(0.0).item(), 6)
        1.0

    Source: as `tanh_mean_field`.
    """
    std = _checks.numbers(s, torch.float64)
    if not (torch.isfinite(std) & (std >= 0)).all():
        raise ValueError(f"critical_gain needs s >= 0, got {s}")
    # where lambda_max is 0, g^2 = 1 / E[sech^4], and s^2 = q - g^2 E[tanh^2] grows with q
    q = _root(lambda q: q - _tanh2(q) / _sech(4, q) < std.square(), 1 + std.square())
    return _sech(4, q).rsqrt()


def critical_input(g: Number) -> Tensor:
    """The strength s of input that suppresses chaos: `tanh_mean_field(g, s).lambda_max` is 0, negative above.

    Of the shape of `g`, such as `(*e)`. Costs some tens of milliseconds for each value.

    Args:
        g: gain; without input a network is chaotic from g = 1 on.

    Returns:
        s; 0 where there is no chaos to suppress, g <= 1.

    Example:
        >>> s = critical_input(2.0)
        >>> round(critical_gain(s).item(), 6)
        2.0

    Source: Molgedey, Schuchhardt & Schuster (1992), Suppressing chaos in neural networks by noise, in the
    discrete time of `tanh_mean_field`.
    """
    gain = _checks.numbers(g, torch.float64)
    if not (torch.isfinite(gain) & (gain > 0)).all():
        raise ValueError(f"critical_input needs g > 0, got {g}")
    power = gain.square()
    q = _root(lambda q: power * _sech(4, q) > 1, power.square())
    # round-off may leave a little less than 0 at g = 1
    return torch.where(gain > 1, (q - power * _tanh2(q)).clamp_min(0.0).sqrt(), 0.0)


def gaussian_states(variance: Tensor) -> tuple[Tensor, Tensor]:
    """Values of h ~ N(0, variance) and their weights: `(values * weights).sum()` is an expectation.

    The trapezoidal rule on 20 standard deviations, which converges exponentially for analytic functions; its
    step resolves a function of width 1, such as tanh and its slope, at any variance up to 1e6.

    Cost O(count), of as many values as the largest variance needs, 4e5 at 1e6.

    Example:
        >>> h, weights = gaussian_states(torch.tensor(4.0))
        >>> round((h.square() * weights).sum().item(), 9)
        4.0
    """
    variance = variance.double()
    # a function that is analytic within pi / 2 of the real axis: a grid finer than that is exact
    spread = max(1.0, float(variance.max().sqrt()))
    count = int(400 * min(spread, 1000.0)) + 1
    z = torch.linspace(-10.0, 10.0, count, dtype=torch.float64, device=variance.device)
    weights = torch.exp(-0.5 * z.square())
    return variance.sqrt() * z, weights / weights.sum()


def _root(before: Callable[[Tensor], Tensor], high: Tensor) -> Tensor:
    """Where `before` changes from true to false above 0, by bisection; `high` grows until it is false."""
    while (early := before(high)).any():
        high = torch.where(early, 2 * high, high)
    low = torch.zeros_like(high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        early = before(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return 0.5 * (low + high)


def _tanh2(q: Tensor) -> Tensor:
    """E[tanh^2(sqrt q z)], z ~ N(0, 1)."""
    x, weights = _grid(q)
    # in full where the grid holds all of the bell, so that small values keep their digits
    return torch.where(q < 1, (x.tanh().square() * weights).sum(-1), 1 - _sech(2, q))


def _sech(power: int, q: Tensor) -> Tensor:
    """E[sech^power(sqrt q z)], z ~ N(0, 1)."""
    x, weights = _grid(q)
    return (x.cosh().pow(-power) * weights).sum(-1)


def _grid(q: Tensor) -> tuple[Tensor, Tensor]:
    """Values of x = sqrt q z up to |z| = 10 or |x| = 40, and weights; `(*, points)`.

    The trapezoidal rule converges exponentially: sech is analytic within pi / 2 of the real axis, and the
    grid's step is 1/25 of 1 at most.
    """
    root = q.sqrt().unsqueeze(-1)
    farthest = (40 / root).clamp_max(10.0)
    z = farthest * torch.linspace(-1.0, 1.0, POINTS, dtype=torch.float64, device=q.device)
    step = 2 * farthest / (POINTS - 1)
    return root * z, torch.exp(-0.5 * z.square()) * step / math.sqrt(2 * math.pi)


def log_condition_number(exponents: Float[Tensor, "*e m"], steps: int | Number) -> Float[Tensor, "*f m"]:
    """`log kappa_m(t) = (lambda_1 - lambda_m) t` for every m: the condition number after t factors.

    Cost O(m).

    Args:
        exponents: in any order, nats per step; -inf gives inf.
        steps: t, the number of factors; a tensor broadcasts against `*e`.

    Returns:
        From m = 1, which is 0, upwards.

    Raises:
        ValueError: for NaN.

    Example:
        >>> import torch
        >>> log_condition_number(torch.tensor([-0.1, -0.2, -0.6]), 10.0)
        tensor([0., 1., 5.])

    Source: Gradient Flossing, eq 10.
    """
    t = steps.unsqueeze(-1) if isinstance(steps, Tensor) else steps
    ordered = _checks.known("exponents", exponents).sort(-1, descending=True).values
    return (ordered[..., :1] - ordered) * t
