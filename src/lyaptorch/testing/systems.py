"""Systems whose exponents are known, as steps `(x, h) -> h'` or fields dh/dt = f(x, h); no inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells import random_frame

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CAT_EXPONENT = math.log((3 + math.sqrt(5)) / 2)
"""The cat map's exponents are plus and minus this, at every point."""
LOGISTIC_EXPONENT = math.log(2)
"""The exponent of the logistic map at r = 4."""
HENON_SUM = math.log(0.3)
"""The sum of the Henon map's two exponents, log |det D| at every point; lambda_1 is about 0.4192."""

LORENZ_EXPONENTS = (0.9056, 0.0, -14.5723)
"""The exponents of Lorenz-63 per unit of time (Sprott, 2003, Chaos and Time-Series Analysis)."""
LORENZ_SUM = -(10 + 1 + 8 / 3)
"""The sum of its exponents, the divergence of the field at every point."""


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


def lorenz(x: Tensor, h: Tensor) -> Tensor:
    """The field dh/dt of Lorenz (1963) at 10, 28, 8/3; `lt.Flow(lorenz, dt=0.01)` is the cell."""
    u, v, w = h.unbind(-1)
    return torch.stack([10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w], -1)


def linear(rates: Sequence[float]) -> Step:
    """h' = U diag(exp(rates)) U^T h with a random orthogonal U: the exponents are the rates.

    Example:
        >>> linear([0.1, -0.2])(torch.zeros(1, 1), torch.zeros(1, 2))
        tensor([[0., 0.]])
    """
    scales = torch.tensor(rates, dtype=torch.float64, device="cpu").exp()
    shared_id = torch.zeros((), dtype=torch.int64, device="cpu")
    U = random_frame(len(rates), len(rates), Stream(DEFAULT_SEED, "linear"), shared_id, dtype=torch.float64)
    A = U @ torch.diag(scales) @ U.mT
    return lambda x, h: h @ A.to(h)


def uncoupled(peaks: Sequence[float]) -> tuple[Step, list[float]]:
    """Uncoupled chaotic units, and the exponent of each: tent maps on 0..1 with their peaks at p.

    h' = h / p below p and (1 - h) / (1 - p) above; the invariant density is flat, so the exponent is
    -p log p - (1 - p) log(1 - p).

    Example:
        >>> step, exponents = uncoupled([0.3, 0.45])
        >>> [round(rate, 4) for rate in exponents]
        [0.6109, 0.6881]
    """
    p = torch.tensor(peaks, dtype=torch.float64, device="cpu")
    exponents = -(p * p.log() + (1 - p) * (1 - p).log())

    def step(x: Tensor, h: Tensor) -> Tensor:
        q = p.to(h)
        return torch.where(h < q, h / q, (1 - h) / (1 - q))

    return step, exponents.tolist()
