"""Singular values of a long product of triangular matrices, in float64 and without multiplying it out."""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch.tangent.qr import orthonormalise

RANGE = 600.0
"""Nats on either side of 1 within which a product is multiplied out: float64 ends at 708."""
SWEEPS, CONVERGED = 100, 1e-10
"""At most so many sweeps; fewer when no logarithm moved by more than this."""


def graded_log_singular_values(factors: Tensor) -> Tensor:
    """Logarithms of the singular values of R_t .. R_1, `(t, ..., k, k)` upper triangular, to `(..., k)`.

    A sweep factors R_1^T (R_2^T (.. R_t^T)) by QR step by step: the product of the new triangles is the
    transpose of the old one up to a rotation, and closer to diagonal by a factor (sigma_j / sigma_i)^2 off
    the diagonal. No number in it grows or shrinks like the product. One sweep orders the diagonal, and a
    triangle that falls along its diagonal keeps even its smallest singular values when it is multiplied out
    and decomposed. A product that does not fit into float64 is swept until it is diagonal; there values
    closer than 1% settle last, and after `SWEEPS` sweeps may still be mixed by some 1e-3 nats.

    Source: Oliveira & Stewart (2000).
    """
    shape = factors.shape[1:-1]
    factors = _transposed(factors.flatten(1, -3))
    values = _log_diagonal(factors)
    small = values.abs().amax(-1) < RANGE
    values[small] = torch.linalg.svdvals(_multiplied(factors[:, small])).log()
    left, factors = torch.nonzero(~small)[:, 0], factors[:, ~small]
    for _ in range(SWEEPS):
        if len(left) == 0:
            break
        factors = _transposed(factors)
        logs = _log_diagonal(factors)
        moving = (logs - values[left]).abs().amax(-1) > CONVERGED
        values[left] = logs
        left, factors = left[moving], factors[:, moving]
    return values.sort(-1, descending=True).values.reshape(shape)


def _transposed(factors: Tensor) -> Tensor:
    """Triangles whose product has the same singular values: those of (R_t .. R_1)^T."""
    Q = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device).expand_as(factors[0])
    triangles = []
    for R in factors.flip(0):
        Q, S, _ = orthonormalise(R.mT @ Q, method="cholesky2")
        triangles.append(S)
    return torch.stack(triangles)


def _log_diagonal(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1).log().sum(0)


def _multiplied(factors: Tensor) -> Tensor:
    product = factors[0]
    for R in factors[1:]:
        product = R @ product
    return product
