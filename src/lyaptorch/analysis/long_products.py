"""Products of Jacobians and their singular values in arithmetic of any precision."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Rows = list[list[float]]
NOTHING = 32
"""Bits below the last one at which a value is none."""


def precise_log_singular_values(
    jacobians: Tensor, frame: Tensor, times: Tensor, bits: int
) -> tuple[Tensor, str]:
    """Logarithms of the singular values of D_{t-1} .. D_0 Q, multiplied out with `bits` bits.

    Args:
        jacobians: `(t, *e, b, n, n)`.
        frame: Q `(n, m)`.
        times: `(s,)`, ascending.
        bits: of every number; rounding leaves nothing below sigma_1 2^-bits.

    Returns:
        `(s, *e, b, m)` float64, descending, -inf where nothing is left; and the library that did it.
    """
    work: Callable[..., list[list[float]]] = _by_mpmath
    arithmetic = "mpmath"
    with contextlib.suppress(ImportError):
        importlib.import_module("flint")
        work, arithmetic = _by_flint, "python-flint"
    t, n, m = len(jacobians), frame.shape[0], frame.shape[1]
    single = jacobians.double().cpu().reshape(t, -1, n, n)
    Q, wanted = frame.double().tolist(), set(times.tolist())
    found = [work(single[:, i].tolist(), Q, wanted, bits) for i in range(single.shape[1])]
    values = torch.tensor(found, dtype=torch.float64, device="cpu").movedim(0, 1)
    nothing = values < values[..., :1] - (bits + NOTHING) * math.log(2)
    values = torch.where(nothing, -torch.inf, values)
    shape = (len(times), *jacobians.shape[1:-2], m)
    return values.reshape(shape).to(jacobians.device), arithmetic


def _by_flint(jacobians: Sequence[Rows], frame: Rows, times: set[int], bits: int) -> list[list[float]]:
    import flint

    values = []
    with flint.ctx.workprec(bits):
        T = flint.arb_mat(frame)
        for t, D in enumerate(jacobians, 1):
            # midpoints: what rounding to `bits` bits leaves, without the bounds of its error
            T = (flint.arb_mat(D) * T).mid()
            if t in times:
                values.append(_logs_by_flint(flint, T, bits))
    return values


def _logs_by_flint(flint: Any, T: Any, bits: int) -> list[float]:
    """From the eigenvalues of T^T T, which need twice the bits."""
    with flint.ctx.workprec(2 * bits + 64):
        squares = [value.real.mid() for value in (T.transpose() * T).eig(algorithm="approx")]
        logs = [float(square.log()) / 2 if square > 0 else -torch.inf for square in squares]
    return sorted(logs, reverse=True)


def _by_mpmath(jacobians: Sequence[Rows], frame: Rows, times: set[int], bits: int) -> list[list[float]]:
    import mpmath

    values = []
    with mpmath.workprec(bits):
        T = mpmath.matrix(frame)
        for t, D in enumerate(jacobians, 1):
            T = mpmath.matrix(D) * T
            if t in times:
                singular = mpmath.svd_r(T, compute_uv=False)
                logs = [float(mpmath.log(s)) if s > 0 else -torch.inf for s in singular]
                values.append(sorted(logs, reverse=True))
    return values
