"""Singular values of a long product of triangular matrices, in float64 and without multiplying it out."""

from __future__ import annotations

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
    return values


def _transposed(factors: Tensor, dead: Tensor | None = None) -> Tensor:
    """Triangles whose product has the same singular values: those of (R_t .. R_1)^T."""
    k = factors.shape[-1]
    Q = torch.eye(k, dtype=factors.dtype, device=factors.device).expand_as(factors[0])
    Q = Q if dead is None else torch.where(dead.unsqueeze(-2), 0.0, Q)
    triangles = []
    for R in factors.flip(0):
        Q, S, _ = orthonormalise(R.mT @ Q, dead, method="cholesky2")
        triangles.append(S)
    return torch.stack(triangles)


def _log_diagonal(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1).log().sum(0)


def _multiplied(factors: Tensor) -> Tensor:
    product = factors[0]
    for R in factors[1:]:
        product = R @ product
    return product
