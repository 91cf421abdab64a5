"""Flows whose exponents are known from elsewhere: reference systems for measurements and for models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells import Flow
from lyaptorch.testing.systems import Step, lorenz


@dataclass(frozen=True)
class System:
    """A flow dh/dt = f(h), and what is known of its attractor.

    Attributes:
        field: f, as `lt.Flow` takes it, `(x, h) -> dh/dt`; it has no input.
        point: a state near the attractor, in its basin.
        dt: a step at which the fourth-order method is far more exact than the exponents are known.
        exponents: the first ones, in descending order, per unit of time.
        errors: their standard errors; 0 where the exponent is exact, NaN where none is known.
        divergence: the sum of all exponents, the mean divergence of f; NaN where it is not known.
        entropy: the sum of the positive ones; NaN where it is not known.
        dimension: the Kaplan-Yorke dimension; likewise.
        source: where the numbers are from.

    Example:
        >>> import lyaptorch as lt, lyaptorch.testing
        >>> system = lt.testing.SYSTEMS["roessler"]
        >>> none = torch.zeros(500, 2, 0, dtype=torch.float64)
        >>> spec = lt.lyapunov_spectrum(system.flow(), none, h0=system.start(2), transient=100)
        >>> spec.exponents.shape
        torch.Size([2, 3])
    """

    field: Step
    point: tuple[float, ...]
    dt: float
    exponents: tuple[float, ...]
    errors: tuple[float, ...]
    divergence: float = math.nan
    entropy: float = math.nan
    dimension: float = math.nan
    source: str = "fourth-order steps and QR along 48 orbits, by a program of its own"

    def flow(self) -> Flow:
        """The cell of steps of length `dt`; exponents come per unit of time."""
        return Flow(self.field, dt=self.dt)

    def start(self, trajectories: int = 1) -> Float[Tensor, "b n"]:
        """That many states near `point`, each at its own small distance, float64.

        Raises:
            ValueError: for less than one.
        """
        b = _checks.integer("trajectories", trajectories, 1)
        point = torch.tensor(self.point, dtype=torch.float64, device="cpu")
        ids = torch.arange(b, device="cpu")
        noise = Stream(DEFAULT_SEED, "start").normal((len(point),), member_ids=ids, dtype=torch.float64)
        return point + 0.01 * (1 + point.abs()) * noise


def roessler(x: Tensor, h: Tensor) -> Tensor:
    """Roessler (1976) at .2, .2, 5.7."""
    u, v, w = h.unbind(-1)
    return torch.stack([-v - w, u + 0.2 * v, 0.2 + w * (u - 5.7)], -1)


def sprott_b(x: Tensor, h: Tensor) -> Tensor:
    """Case B of Sprott (1994)."""
    u, v, w = h.unbind(-1)
    return torch.stack([v * w, u - v, 1 - u * v], -1)


def rucklidge(x: Tensor, h: Tensor) -> Tensor:
    """Rucklidge (1992) at 2, 6.7."""
    u, v, w = h.unbind(-1)
    return torch.stack([-2 * u + 6.7 * v - v * w, u, v * v - w], -1)


def thomas(x: Tensor, h: Tensor) -> Tensor:
    """Thomas (1999) at .18: each unit is driven by the sine of the next."""
    return torch.sin(h.roll(-1, -1)) - 0.18 * h


def chen(x: Tensor, h: Tensor) -> Tensor:
    """Chen and Ueta (1999) at 35, 3, 28."""
    u, v, w = h.unbind(-1)
    return torch.stack([35 * (v - u), -7 * u - u * w + 28 * v, u * v - 3 * w], -1)


def arneodo(x: Tensor, h: Tensor) -> Tensor:
    """Arneodo, Coullet and Tresser (1981), with a cubic term."""
    u, v, w = h.unbind(-1)
    return torch.stack([v, w, 5.5 * u - 4.5 * v - w - u**3], -1)


def linz_sprott(x: Tensor, h: Tensor) -> Tensor:
    """Linz and Sprott (1999): a jerk with an absolute value."""
    u, v, w = h.unbind(-1)
    return torch.stack([v, w, 1 - 0.6 * w - v - u.abs()], -1)


def lorenz96(x: Tensor, h: Tensor) -> Tensor:
    """Lorenz (1996) with forcing 8, of any size; the numbers are those of 40."""
    return (h.roll(-1, -1) - h.roll(2, -1)) * h.roll(1, -1) - h + 8


def beer(x: Tensor, h: Tensor) -> Tensor:
    """Three units of Beer (1995): tau_i h_i' = -h_i + sum_j w_ij sigma(h_j + theta_j)."""
    w = h.new_tensor([[5.422, -0.018, 2.75], [-0.24, 4.59, 1.21], [0.535, -2.25, 3.885]])
    theta, tau = h.new_tensor([-4.108, -2.787, -1.114]), h.new_tensor([1.0, 2.5, 1.0])
    return (torch.sigmoid(h + theta) @ w.mT - h) / tau


UNKNOWN = math.nan


def _chaotic(
    field: Step, point: tuple[float, ...], dt: float, first: float, error: float, third: float, total: float
) -> System:
    """A flow in three dimensions."""
    # the third is the rest of the sum
    return System(field, point, dt, (first, 0.0, third), (error, 0.0, error), total)


SYSTEMS = {
    "lorenz": _chaotic(lorenz, (-3.2, -4.2, 18.0), 0.01, 0.9046, 0.0013, -14.571, -(11 + 8 / 3)),
    "roessler": _chaotic(roessler, (-9.0, 0.0, 0.0), 0.04, 0.0710, 0.0005, -5.389, UNKNOWN),
    "sprott b": _chaotic(sprott_b, (0.05, 0.05, 0.05), 0.05, 0.2095, 0.0008, -1.2096, -1.0),
    "rucklidge": _chaotic(rucklidge, (1.0, 0.0, 4.5), 0.03, 0.1919, 0.0006, -3.1922, -3.0),
    "thomas": _chaotic(thomas, (0.1, 0.0, 0.0), 0.1, 0.0343, 0.0005, -0.5743, -0.54),
    "chen": _chaotic(chen, (-10.0, 0.0, 37.0), 0.002, 2.030, 0.010, -12.029, -10.0),
    "arneodo": _chaotic(arneodo, (0.2, 0.2, -0.75), 0.04, 0.204, 0.002, -1.203, -1.0),
    "linz-sprott": _chaotic(linz_sprott, (0.0, 0.0, 0.0), 0.05, 0.0362, UNKNOWN, -0.6362, -0.6),
    "lorenz-96": System(
        *(lorenz96, (8.0,) * 39 + (8.5,), 0.02, (1.70,), (0.03,)),
        divergence=-40.0,
        entropy=10.1,
        dimension=26.98,
    ),
    "beer": System(beer, (5.8, 3.2, 0.7), 0.1, (0.010, 0.0), (0.002, 0.0), source="Beer (1995)"),
}
"""Reference systems by name."""
