"""Long products of Jacobians: their singular values, by sweeps over triangular factors or with many bits."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from lyaptorch.tangent.qr import orthonormalise

RANGE = 600.0
"""Nats on either side of 1 within which a product is multiplied out: float64 ends at 708."""
FAR = 40.0
"""Nats below the least value at which what does not count is put."""
SWEEPS, CONVERGED = 100, 1e-10
"""At most so many sweeps; fewer when no logarithm moved by more than this."""


def graded_log_singular_values(factors: Tensor, healthy: Tensor | None = None) -> Tensor:
    """Logarithms of the singular values of R_t .. R_1, `(t, ..., k, k)` upper triangular, to `(..., k)`.

    A sweep factors R_1^T (R_2^T (.. R_t^T)) by QR step by step: the product of the new triangles is the
    transpose of the old one up to a rotation, and closer to diagonal by a factor (sigma_j / sigma_i)^2 off
    the diagonal. No number in it grows or shrinks like the product. One sweep orders the diagonal, and a
    triangle that falls along its diagonal keeps even its smallest singular values when it is multiplied out
    and decomposed. A product that does not fit into float64 is swept until it is diagonal; there values
    closer than 1% settle last, and after `SWEEPS` sweeps may still be mixed by some 1e-3 nats.

    Args:
        factors: as `orthonormalise` gives them.
        healthy: `(t, ..., k)`, which columns were alive after each factor; all when missing. The product has
            as many singular values as columns are alive at the end, and -inf for each other one.

    Source: Oliveira & Stewart (2000).
    """
    t, shape, k = len(factors), factors.shape[1:-1], factors.shape[-1]
    factors, dead = factors.flatten(1, -3), None
    if healthy is not None and not healthy.all():
        healthy = healthy.reshape(t, -1, k)
        # what died hands nothing on: its row is zero from then on; what it handed on before stays
        factors, dead = torch.where(healthy.unsqueeze(-1), factors, 0.0), ~healthy[-1]
    # whatever order the frame's columns came in, after one sweep the diagonal falls
    factors = _transposed(factors, dead)
    if dead is not None:
        # in its place stands a value far below the others, which is cut off afterwards
        least = torch.where(dead, torch.inf, _log_diagonal(factors)).amin(-1, keepdim=True)
        filler = ((least.nan_to_num(posinf=0.0) - FAR) / t).exp()
        factors = torch.where(torch.diag_embed(dead), filler.unsqueeze(-1), factors)
    values = _swept(factors).sort(-1, descending=True).values
    if dead is not None:
        rank = torch.arange(k, device=values.device)
        values = torch.where(rank < (~dead).sum(-1, keepdim=True), values, -torch.inf)
    return values.reshape(shape)


def _swept(factors: Tensor) -> Tensor:
    """Those of triangles `(t, N, k, k)` after one sweep."""
    values = _log_diagonal(factors)
    # no diagonal entry leaves e^-600 .. e^600: the product fits into float64
    small = values.abs().amax(-1) < RANGE
    values[small] = torch.linalg.svdvals(reduce(lambda P, R: R @ P, factors[:, small])).log()
    left, factors = torch.nonzero(~small)[:, 0], factors[:, ~small]
    for _ in range(SWEEPS):
        if len(left) == 0:
            break
        factors = _transposed(factors)
        logs = _log_diagonal(factors)
        moving = (logs - values[left]).abs().amax(-1) > CONVERGED
        values[left] = logs
        left, factors = left[moving], factors[:, moving]
    return values


def _transposed(factors: Tensor, dead: Tensor | None = None) -> Tensor:
    """Triangles whose product has the same singular values: those of (R_t .. R_1)^T."""
    k = factors.shape[-1]
    Q = torch.eye(k, dtype=factors.dtype, device=factors.device).expand_as(factors[0])
    Q = Q if dead is None else torch.where(dead.unsqueeze(-2), 0.0, Q)
    triangles = []
    # (R_t .. R_1)^T = R_1^T .. R_t^T from the right: R_t^T 1 = Q_1 S_1, R_{t-1}^T Q_1 = Q_2 S_2, ..., so it
    # is Q_t S_t .. S_1: the S_i are the new triangles, in the order in which they act
    for R in factors.flip(0):
        Q, S, _ = orthonormalise(R.mT @ Q, dead, method="cholesky2")
        triangles.append(S)
    return torch.stack(triangles)


def _log_diagonal(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1).log().sum(0)


Rows = list[list[float]]
NOTHING = 32
"""Bits below the last one at which a value is none."""


def precise_log_singular_values(
    jacobians: Tensor, frame: Tensor, times: Tensor, bits: int
) -> tuple[Tensor, str]:
    """Logarithms of the singular values of D_{t-1} .. D_0 Q, multiplied out with `bits` bits.

    Args:
        jacobians: `(t, *e, b, n, n)`.
        frame: Q `(n, k)`.
        times: `(s,)`, ascending.
        bits: of every number; rounding leaves nothing below sigma_1 2^-bits.

    Returns:
        `(s, *e, b, k)` float64, descending, -inf where nothing is left; and the library that did it.
    """
    work, arithmetic = _by_mpmath, "mpmath"
    with contextlib.suppress(ImportError):
        importlib.import_module("flint")
        work, arithmetic = _by_flint, "python-flint"
    t, n, k = len(jacobians), frame.shape[0], frame.shape[1]
    single = jacobians.double().cpu().reshape(t, -1, n, n)
    Q, wanted = frame.double().tolist(), set(times.tolist())
    found = [work(single[:, i].tolist(), Q, wanted, bits) for i in range(single.shape[1])]
    values = torch.tensor(found, dtype=torch.float64, device="cpu").movedim(0, 1)
    values = values.sort(-1, descending=True).values
    # rounding leaves sigma_1 2^-bits beside what is 0; a factor 2^-32 below that there is nothing
    nothing = values < values[..., :1] - (bits + NOTHING) * math.log(2)
    values = torch.where(nothing, -torch.inf, values)
    shape = (len(times), *jacobians.shape[1:-2], k)
    return values.reshape(shape).to(jacobians.device), arithmetic


def _by_flint(jacobians: Sequence[Rows], frame: Rows, times: set[int], bits: int) -> list[list[float]]:
    import flint

    with flint.ctx.workprec(bits):
        factors = map(flint.arb_mat, [frame, *jacobians])
        # midpoints: what rounding to `bits` bits leaves, without the bounds of its error
        products = accumulate(factors, lambda T, D: (D * T).mid())
        return [_logs_by_flint(flint, T, bits) for t, T in enumerate(products) if t in times]


def _logs_by_flint(flint: Any, T: Any, bits: int) -> list[float]:
    """From the eigenvalues of T^T T."""
    # they are sigma^2, spread twice as far as sigma, and need twice the bits
    with flint.ctx.workprec(2 * bits + 64):
        squares = [value.real.mid() for value in (T.transpose() * T).eig(algorithm="approx")]
        return [float(square.log()) / 2 if square > 0 else -torch.inf for square in squares]


def _by_mpmath(jacobians: Sequence[Rows], frame: Rows, times: set[int], bits: int) -> list[list[float]]:
    import mpmath

    with mpmath.workprec(bits):
        factors = map(mpmath.matrix, [frame, *jacobians])
        products = accumulate(factors, lambda T, D: D * T)
        found = [mpmath.svd_r(T, compute_uv=False) for t, T in enumerate(products) if t in times]
        return [[float(mpmath.log(s)) if s > 0 else -torch.inf for s in singular] for singular in found]
