"""Exponents of a weakly coupled residual network, predicted from its matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyaptorch._caller import measures
from lyaptorch._types import Inputs, PerMember
from lyaptorch.cells import ResidualCell, fit, settle, unroll
from lyaptorch.cells.form import Residual, linear

NORMAL = 1e-5
"""|A A^T - A^T A| relative to |A|^2 up to which A counts as normal: some round-offs of float32."""


class ResidualExponents(NamedTuple):
    """Predictions of all n exponents, sorted, in nats per step, float64.

    Attributes:
        residual: log |eig A|.
        weights: log |eig(A + eps W)|.
        slopes: log |eig| of the Jacobian at time-averaged slopes; None without inputs.
        normal: whether A is normal. If not, the others are off by up to eps times `condition`.
        condition: condition number of A's eigenvectors; 1 for a normal A.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 6, residual=lt.residuals.decay(0.9), coupling=0.01)
        >>> lt.analysis.residual_exponents(cell).residual.exp().round(decimals=3)
        tensor([0.9000, 0.9000, 0.9000, 0.9000, 0.9000, 0.9000], dtype=torch.float64)
    """

    residual: Float[Tensor, "*e n"]
    weights: Float[Tensor, "*e n"]
    slopes: Float[Tensor, "*e n"] | None
    normal: Bool[Tensor, " *e"]
    condition: PerMember


@measures
@torch.no_grad()
def residual_exponents(
    cell: ResidualCell, inputs: Inputs | None = None, *, h0: Tensor | None = None, transient: int = 0
) -> ResidualExponents:
    """Three predictions of the exponents of a `ResidualCell`, from coarse to fine.

    With no input and no bias a "linear" cell at rest has exactly `log |eig(A + eps W)|`. Driven, its
    exponents are within O(eps) of `log |eig A|` if A is normal (for A = r I at most about 0.58 eps / r), and
    closer to the eigenvalues of `A + eps <phi'(a)> W`, slopes averaged over time and trajectories (to about
    5e-4 at eps = 0.03). Of kinds "A" and "B" the averaged Jacobians are `<phi'(A h)> A + eps <phi'(a)> W` and
    `<phi'(a)> (A + eps W)`; `log |eig A|` holds for them only while the state stays near zero and
    max |eig A| < 1: measure the exponents, too.

    Args:
        cell: the network.
        inputs: `(t, *e, b, m)` to average slopes over; none are averaged when missing.
        h0: initial state `(*e, b, n)`; zeros when missing.
        transient: first steps that are left out of the average.

    Returns:
        The predictions. Cost O(n^3), of A alone O(n), and O(t b n^2) for the slopes.

    Raises:
        ValueError: for inputs that do not fit the cell, or none behind the transient.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 50, residual=lt.residuals.decay(0.95), coupling=0.03)
        >>> found = residual_exponents(cell, torch.zeros(100, 1, 1))
        >>> bool((found.residual - found.slopes).abs().max() < 0.03)
        True

    Source: Fading memory as inductive bias in residual recurrent networks, eq 13.
    """
    A = cell.bypass
    eigenvalues, normal, condition = _eigen(A)
    W = cell.eps.unsqueeze(-1) * cell.weight_hh
    dense = A.dense()
    slopes = None
    if inputs is not None:
        inner, outer = _mean_slopes(cell, inputs, h0, transient)
        slopes = _log_moduli(inner.unsqueeze(-1) * dense + outer.unsqueeze(-1) * W)
    return ResidualExponents(
        eigenvalues.abs().log().sort(-1, descending=True).values,
        _log_moduli(dense + W),
        slopes,
        normal,
        condition,
    )


def _log_moduli(matrix: Tensor) -> Tensor:
    moduli: Tensor = torch.linalg.eigvals(matrix.double()).abs()
    return moduli.log().sort(-1, descending=True).values


def _eigen(A: Residual) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of A `(*e, n)`, whether it is normal, and the condition number of its eigenvectors."""
    M = A.matrix.double()
    if A.kind == "diagonal":
        one = torch.ones_like(M[..., 0])
        return M, one.bool(), one
    values, vectors = torch.linalg.eig(M)
    # Bauer & Fike: eigenvalues of A + eps W lie within eps |W| cond(V) of those of A, V the eigenvectors, and
    # cond(V) = 1 if and only if A can be had with orthogonal ones, that is, if A A^T = A^T A
    off = torch.linalg.matrix_norm(M @ M.mT - M.mT @ M)
    normal = off <= NORMAL * torch.linalg.matrix_norm(M).square()
    condition = torch.linalg.cond(vectors)
    if A.kind == "blocks":
        # the eigenvectors of all blocks are block diagonal: their singular values are those of the blocks
        singular = torch.linalg.svdvals(vectors)
        values, normal = values.flatten(-2), normal.all(-1)
        condition = singular[..., 0].amax(-1) / singular[..., -1].amin(-1)
    return values, normal, torch.where(normal, 1.0, condition)


def _mean_slopes(
    cell: ResidualCell, inputs: Tensor, h0: Tensor | None, transient: int
) -> tuple[Tensor, Tensor]:
    """Time-averaged slopes `(*e, n)` at what A and at what W deliver."""
    inputs, h = fit(cell, inputs, h0)
    if not 0 <= transient < len(inputs):
        raise ValueError(f"transient must be in 0..{len(inputs) - 1}, got {transient}; pass more inputs")
    h, inputs = settle(cell, inputs[:transient], h), inputs[transient:]
    # the Jacobian of step s is taken at the state before it
    before = torch.cat([h.unsqueeze(0), unroll(cell, inputs, h)[:-1]])
    form = cell.form()
    outer = cell.activation.slope(linear(before, form.weight_hh) + form.drive(inputs)).mean((0, -2))
    # kind "A": D = <phi'(A h)> A + eps <phi'(a)> W; "B": <phi'(a)> (A + eps W); "linear": A + eps <phi'(a)> W
    if cell.kind == "A":
        return cell.activation.slope(cell.bypass.product(before)).mean((0, -2)), outer
    return (outer if cell.kind == "B" else torch.ones_like(outer)), outer
