"""Ensembles of initial weights, each member from its own counter-based stream."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Number

Weights: TypeAlias = Callable[[int, Stream, Tensor], Tensor]
"""`(n, stream, members (*e)) -> (*e, n, n)`."""


def per_matrix(number: Number, like: Tensor) -> Tensor:
    """A hyperparameter of shape `()` or `*e`, shaped to scale `(*e, n, n)`."""
    value = torch.as_tensor(number, dtype=like.dtype, device=like.device)
    return value[..., None, None]


def gaussian(gain: Number = 1.0) -> Weights:
    """Independent N(0, g^2 / n) entries (Gradient Flossing, eq 9)."""

    def draw(n: int, stream: Stream, members: Tensor) -> Tensor:
        W = stream.normal((n, n), members=members)
        return W * per_matrix(gain, W) / math.sqrt(n)

    return draw


def shifted_mean(gain: Number = 1.0, mean: Number = -1.0) -> Weights:
    """Independent N(mean / n, g^2 / n) entries; `mean` is the expected sum of a row.

    A negative mean keeps networks of rectified units from running away (Gradient Flossing, appendix B).
    """

    def draw(n: int, stream: Stream, members: Tensor) -> Tensor:
        W = gaussian(gain)(n, stream, members)
        return W + per_matrix(mean, W) / n

    return draw


def uniform(gain: Number = 1.0) -> Weights:
    """Independent U(-g/sqrt n, g/sqrt n) entries, torch's default at g = 1."""

    def draw(n: int, stream: Stream, members: Tensor) -> Tensor:
        W = 2 * stream.uniform((n, n), members=members) - 1
        return W * per_matrix(gain, W) / math.sqrt(n)

    return draw


def orthogonal(gain: Number = 1.0) -> Weights:
    """G times a Haar-random orthogonal matrix."""

    def draw(n: int, stream: Stream, members: Tensor) -> Tensor:
        Q = random_frame(n, n, stream, members)
        return Q * per_matrix(gain, Q)

    return draw


def identity(gain: Number = 1.0) -> Weights:
    """G times the identity."""

    def draw(n: int, stream: Stream, members: Tensor) -> Tensor:
        W = torch.eye(n, device=members.device).expand(*members.shape, n, n)
        return W * per_matrix(gain, W)

    return draw


WEIGHTS: dict[str, Callable[[Number], Weights]] = {
    "gaussian": gaussian,
    "uniform": uniform,
    "orthogonal": orthogonal,
    "identity": identity,
    "shifted_mean": shifted_mean,
}


def weights(spec: str | Weights, gain: Number) -> Weights:
    """The weight ensemble called `spec` at this gain, or `spec` itself.

    Raises:
        ValueError: for an unknown name (the nearest one is named), or a gain that a callable ignores.
    """
    if callable(spec):
        if not (isinstance(gain, float | int) and gain == 1.0):
            raise ValueError(f"gain={gain!r} has no effect on weights given as a function; build it in there")
        return spec
    return WEIGHTS[_checks.choice("weights", spec, WEIGHTS)](gain)


def random_frame(
    n: int,
    k: int,
    stream: Stream,
    members: Tensor,
    epoch: int | Tensor = 0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Haar-random orthonormal columns `(*e, n, k)`; the first columns do not depend on k."""
    # drawn column by column, so that they nest
    A = stream.normal((k, n), members=members, epoch=epoch, dtype=torch.float64, device=members.device).mT
    Q, R = torch.linalg.qr(A)
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    frame: Tensor = Q * signs.unsqueeze(-2)
    return frame.to(dtype or torch.get_default_dtype())
