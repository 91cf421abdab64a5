"""Systems whose exponents are known, as steps `(x, h) -> h'`; inputs are ignored where none belong."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells import RateCell

CAT_EXPONENT = math.log((3 + math.sqrt(5)) / 2)
"""The cat map's exponents are plus and minus this, at every point."""
LOGISTIC_EXPONENT = math.log(2)
"""The exponent of the logistic map at r = 4."""
HENON_SUM = math.log(0.3)
"""The sum of the Henon map's two exponents, log |det D| at every point; lambda_1 is about 0.4192."""


def henon(x: Tensor, h: Tensor) -> Tensor:
    """h' = (1 - 1.4 u^2 + v, 0.3 u) for h = (u, v); Henon (1976)."""
    u, v = h.unbind(-1)
    return torch.stack([1 - 1.4 * u.square() + v, 0.3 * u], -1)


def logistic(x: Tensor, h: Tensor) -> Tensor:
    """h' = 4 h (1 - h)."""
    return 4 * h * (1 - h)


def cat(x: Tensor, h: Tensor) -> Tensor:
    """h' = (2 u + v, u + v) modulo 1: Arnold's cat map, uniformly hyperbolic."""
    u, v = h.unbind(-1)
    return torch.stack([2 * u + v, u + v], -1).remainder(1.0)


def xor_network(delay: int) -> tuple[RateCell, Tensor, Tensor]:
    """A network made by hand that solves `TemporalXOR(delay)`: cell, readout weight `(1, n)` and bias.

    A delay line of rectified units carries the bits; two more carry their difference and its negative,
    whose rectified sum is |x_{t-d/2} - x_{t-d}|. All its exponents are -inf: the line is nilpotent.

    Example:
        >>> cell, weight, bias = xor_network(4)
        >>> cell.state_size
        8

    Source: Gradient Flossing, eq 21.
    """
    _checks.integer("delay", delay, 2)
    if delay % 2:
        raise ValueError(f"delay must be even, got {delay}; the shorter lag is half of it")
    n = delay + 4
    plus, minus = delay, delay + 1
    cell = RateCell(1, n, activation="relu", bias=False)
    W, V = torch.zeros(n, n), torch.zeros(n, 1)
    V[0] = 1.0
    for unit in range(1, delay):
        W[unit, unit - 1] = 1.0
    for lag, sign in ((delay // 2, 1.0), (delay, -1.0)):
        # unit i holds x_{t-i} after step t, and is read one step later; one more step rectifies
        source = lag - 2
        if source < 0:
            V[plus], V[minus] = sign, -sign
        else:
            W[plus, source], W[minus, source] = sign, -sign
    W[delay + 2, plus] = W[delay + 3, minus] = 1.0
    with torch.no_grad():
        cell.weight_hh.copy_(W)
        cell.weight_ih.copy_(V)
    weight = torch.zeros(1, n)
    weight[0, delay + 2 :] = 1.0
    return cell, weight, torch.tensor([-0.5])
