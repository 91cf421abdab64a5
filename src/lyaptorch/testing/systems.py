"""Systems whose exponents are known, as steps `(x, h) -> h'`; inputs are ignored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
