"""QR with a positive diagonal: fast where the columns are well conditioned, right where they are not.

Three ways, tried in this order: Cholesky of the Gram matrix in one pass, in two passes, and Householder.
One pass loses orthogonality like cond^2 * eps, but the loss telescopes out of a product of R factors.
Columns die in `_gram_schmidt` alone, by the rule of `_round_off`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks

ONE_PASS = 40.0
"""Largest |a_i| / R_ii at which a single Cholesky pass is trusted."""
CROOKED = 0.01
"""What the last column's overlaps with all may sum up to beside 1."""
DEAD = 16
"""A column is dead when R_ii <= DEAD * eps * |a_i|."""
DOUBTFUL = 128
"""Householder's R_ii of a dead column may be that many times too large: it errs like the condition number."""
METHODS = ("auto", "cholesky2", "householder")


class Factors(NamedTuple):
    """A = Q R; a dead column has a zero column in Q and a unit row in R.

    Above the one, the column of R holds what the column of A was made of, so that with a zero row in place
    of the unit one A = Q R to round-off, in dead columns, too.
    """

    Q: Tensor
    R: Tensor
    dead: Tensor | None


def orthonormalise(A: Tensor, dead: Tensor | None = None, method: str = "auto") -> Factors:
    """Factor A `(*, n, k)` into orthonormal Q and upper triangular R with R_ii > 0. Cost O(n k^2).

    A column is dead when it depends on those before it to round-off, R_ii <= 16 eps |a_i|. It is taken
    out of the frame: later columns are not orthogonalised against a direction that means nothing.

    Args:
        A: the columns.
        dead: `(*, k)`, columns that died before (theirs in A are zero), or None for none.
        method: "auto", "cholesky2" (always two passes) or "householder".

    Raises:
        FloatingPointError: if A holds NaN or inf.
    """
    if method == "householder":
        return _any_rank(A, dead)
    # Q^T Q - 1 is cond(A)^2 eps, here at most 40^2 eps. In a chain it does not matter: with Q = A R^-1 the
    # next R' is the factor of (D A R^-1), so that R' R is the factor of D A, however far Q is from orthogonal
    R, norms, info = _cholesky(A, dead)
    Q = torch.linalg.solve_triangular(R, A, upper=True, left=False)
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    # |a_i| <= 40 R_ii bounds how each column leans on those before it, one by one; `_crooked` bounds the sum.
    # A failed factorisation leaves its pivot below zero or NaN, and info says so, too. Where a squared length
    # overflowed, inf - inf is NaN; where it underflowed, the margin is missed
    margin = ONE_PASS * torch.finfo(A.dtype).tiny ** 0.5
    straight = (norms - diagonal * ONE_PASS <= -margin).all() & (info == 0).all() & (method == "auto")
    # a dead last column is zero and overlaps with nothing, so that it would ask for a second pass for ever
    if dead is None:
        straight &= (_crooked(Q) < CROOKED).all()
    if _checks.can_look() and straight:
        return Factors(Q, R, dead)
    second, again, info_again = _cholesky(Q, dead)
    Q_again = torch.linalg.solve_triangular(second, Q, upper=True, left=False)
    # A = Q R and Q = Q' S give A = Q' (S R); as the transpose of R^T S^T it lies in memory as R does
    mended = Factors(Q_again, (R.mT @ second.mT).mT, dead)
    # Cholesky finds R_ii^2 as a difference of numbers as large as |a_i|^2: below (1000 eps)^(1/2) |a_i| fewer
    # than three digits of it are left, and Q of the first pass means nothing
    well = (diagonal >= norms * (1e3 * torch.finfo(A.dtype).eps) ** 0.5).all(-1) & (info == 0)
    # the second pass takes little from columns that the first left nearly straight
    well &= (second.diagonal(dim1=-2, dim2=-1) >= 0.5 * again).all(-1) & (info_again == 0)
    if not _checks.can_look():
        return _unseen(A, Factors(Q, R, dead), straight, mended, well)
    return mended if well.all() else _replace(mended, ~well, A)


def _unseen(A: Tensor, once: Factors, straight: Tensor, twice: Factors, well: Tensor) -> Factors:
    """Of what one pass gave and two the right one, where nobody can look which it is.

    What two passes do not mend in float32 two in float64 do; of what they do not either, such as a column
    that died, NaN is left.
    """
    if A.dtype == torch.float64:
        rest = [torch.full_like(z, torch.nan) for z in twice[:2]]
    else:
        finer = orthonormalise(A.double(), None, "cholesky2")
        pivots = finer.R.diagonal(dim1=-2, dim2=-1)
        lengths = torch.linalg.vector_norm(A, dim=-2)
        # not the negation of `_round_off`: a pivot that is NaN is no living one
        alive = (pivots > DEAD * torch.finfo(A.dtype).eps * lengths).all(-1)[..., None, None]
        rest = [torch.where(alive, z, torch.nan).to(A.dtype) for z in finer[:2]]
    well = well[..., None, None]
    # laid out in memory as ever, because products round differently in another layout
    Q, R = (
        torch.empty_like(one).copy_(torch.where(straight, one, torch.where(well, two, other)))
        for one, two, other in zip(once[:2], twice[:2], rest, strict=True)
    )
    return Factors(Q, R, None)


def _cholesky(A: Tensor, dead: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """R of A^T A = R^T R, the lengths of A's columns (1 where dead), and LAPACK's info."""
    G = A.mT @ A
    if dead is not None:
        # the column of what died is zero: a pivot of 1 lets the factorisation, and every division by R, go on
        G = G + torch.diag_embed(dead.to(G.dtype))
    R, info = torch.linalg.cholesky_ex(G, upper=True)
    return R, G.diagonal(dim1=-2, dim2=-1).sqrt(), info


def _crooked(Q: Tensor) -> Tensor:
    """How far |Q^T q|^2 is from 1 for the last column q, the worst of a frame: what pivots alone do not tell.

    Columns that shear a little each can together be as ill-conditioned as one likes.
    """
    # Q = A R^-1, and the last column of R^-1 sums over all columns: what R_11 .. R_kk conceal adds up there
    # (with R_ij = -1/2 above a unit diagonal |a_i| / R_ii is at most (1 + k / 4)^(1/2), and cond(R) like
    # (3/2)^k). Of an orthonormal Q the sum over i of (q_i . q_k)^2 is 1. O(n k); all overlaps would be one
    # more Gram matrix
    overlap: Tensor = (Q.mT @ Q[..., -1:]).square().sum((-2, -1))
    return (overlap - 1).abs()


def _replace(factors: Factors, failed: Tensor, A: Tensor) -> Factors:
    """Factor only the failed matrices again, by the way that always works."""
    batch, n, k = A.shape[:-2], *A.shape[-2:]
    dead = torch.zeros_like(A[..., 0, :], dtype=torch.bool) if factors.dead is None else factors.dead.clone()
    Q, R, dead = factors.Q.reshape(-1, n, k), factors.R.reshape(-1, k, k), dead.reshape(-1, k)
    failed = failed.reshape(-1)
    again = _any_rank(A.reshape(-1, n, k)[failed], dead[failed])
    Q[failed], R[failed] = again.Q, again.R
    if again.dead is not None:
        dead[failed] = again.dead
    return Factors(
        Q.reshape(*batch, n, k), R.reshape(*batch, k, k), dead.reshape(*batch, k) if dead.any() else None
    )


def _any_rank(A: Tensor, dead: Tensor | None) -> Factors:
    """Householder; where a column may die Gram-Schmidt decides, and leaves it out from the first step on."""
    if not torch.isfinite(A).all():
        raise FloatingPointError("the tangent vectors are not finite")
    if dead is None:
        dead = torch.zeros_like(A[..., 0, :], dtype=torch.bool)
    # every column at unit scale: squared lengths neither overflow nor vanish
    scale = A.abs().amax(-2, keepdim=True).clamp_min(torch.finfo(A.dtype).tiny)
    A = A / scale
    # dead columns go last, so that no live column is orthogonalised against them
    order = torch.argsort(dead.to(torch.int8), dim=-1, stable=True)
    back = torch.argsort(order, dim=-1)
    Q, R = torch.linalg.qr(torch.gather(A, -1, order.unsqueeze(-2).expand_as(A)))
    # LAPACK leaves the signs open; Q S and S R with S = diag(+-1) is the same product
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(A.dtype)
    Q, R = Q * signs.unsqueeze(-2), R * signs.unsqueeze(-1)
    Q = torch.gather(Q, -1, back.unsqueeze(-2).expand_as(Q))
    R = torch.gather(R, -1, back.unsqueeze(-2).expand_as(R))
    R = torch.gather(R, -2, back.unsqueeze(-1).expand_as(R))
    norms = torch.linalg.vector_norm(A, dim=-2)
    # Householder only asks who may be dead: it takes every column against those before it, dead ones too
    doubtful = (_round_off(R.diagonal(dim1=-2, dim2=-1), norms, DOUBTFUL) & ~dead).reshape(-1, A.shape[-1])
    if doubtful.any():
        Q, R, dead = _gram_schmidt(A, dead, R, int(doubtful.any(0).to(torch.int8).argmax()))
    R = torch.where(dead.unsqueeze(-1), torch.diag_embed(dead.to(R.dtype)), R * scale)
    return Factors(torch.where(dead.unsqueeze(-2), 0.0, Q), R, dead if dead.any() else None)


def surely_sound(R: Tensor) -> bool:
    """Whether no column of any of Householder's R `(*, k, k)` is `in_doubt`, asked in fewer operations."""
    # all of R is longer than any of its columns, and these are at least as long as what is on the diagonal
    limits, left = torch.finfo(R.dtype), R.diagonal(dim1=-2, dim2=-1).abs().amin(-1)
    bound = (DOUBTFUL * DEAD * limits.eps * torch.linalg.vector_norm(R, dim=(-2, -1))).clamp_min(
        limits.tiny**0.5 / limits.eps
    )
    return bool((left > bound).all())


def in_doubt(R: Tensor) -> Tensor:
    """Whether columns may be dead, by Householder's R `(*, k, k)` alone; also where it is not finite."""
    # an orthonormal Q leaves a column as long as its column of R
    lengths = torch.linalg.vector_norm(R, dim=-2)
    # below, squares have lost digits
    least = torch.finfo(R.dtype).tiny ** 0.5 / torch.finfo(R.dtype).eps
    left = R.diagonal(dim1=-2, dim2=-1).abs()
    # NaN is in doubt, too
    sound: Tensor = (left > DOUBTFUL * DEAD * torch.finfo(R.dtype).eps * lengths) & (lengths > least)
    return ~sound


def _gram_schmidt(A: Tensor, dead: Tensor, R: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classical Gram-Schmidt, each column orthogonalised twice, dead columns left out. Cost O(n k^2).

    The columns before `first` are beyond doubt, and Householder's R serves for them.
    """
    k, dead = A.shape[-1], dead.clone()
    Q, left = torch.zeros_like(A), dead[..., :first]
    before = R[..., :first, :first] + torch.diag_embed(left.to(R.dtype))
    # not Householder's Q, which errs by eps cond even where all columns are exactly zero: in A R^-1 they are.
    # What A R^-1 lacks in orthogonality, eps cond, too, one pass of Cholesky mends
    straight = torch.linalg.solve_triangular(before, A[..., :first], upper=True, left=False)
    S, lengths, info = _cholesky(straight, left)
    R = torch.zeros_like(R)
    sound = ((lengths - 1).abs() < CROOKED) & (S.diagonal(dim1=-2, dim2=-1) > 0.9)
    if sound.all() and not info.any():
        Q[..., :first] = torch.linalg.solve_triangular(S, straight, upper=True, left=False)
        R[..., :first, :first] = S @ before
    else:
        first = 0
    for i in range(first, k):
        a = A[..., i : i + 1]
        v, before = a, Q[..., :i]
        # twice is enough: the second time takes out what round-off of the first left along those before
        for _ in range(2):
            r = before.mT @ v
            v = v - before @ r
            R[..., :i, i : i + 1] += r
        length = torch.linalg.vector_norm(v, dim=(-2, -1))
        # here a column is declared dead, and for ever: `dead` comes in again with the next frame. No more is
        # left than round-off of what was taken out, so that the direction of the rest is chance; it is left
        # out of Q, or every later column would be taken against it, and lose a part that is not there
        dead[..., i] |= _round_off(length, torch.linalg.vector_norm(a, dim=(-2, -1)))
        alive = ~dead[..., i, None, None]
        Q[..., i : i + 1] = torch.where(alive, v / length[..., None, None], 0.0)
        R[..., i, i] = length
    return Q, R, dead


def _round_off(left: Tensor, lengths: Tensor, times: int = 1) -> Tensor:
    """Whether what is left of columns of these lengths is no more than round-off: the death rule."""
    # projecting a column out twice errs by some eps of its length; 16 of them leave room for sums of n
    # numbers
    return left <= times * DEAD * torch.finfo(lengths.dtype).eps * lengths


def qr(A: Tensor, dead: Tensor | None = None, method: str = "auto") -> Factors:
    """`orthonormalise`, differentiable (twice, too) with respect to A by the analytic pullback.

    `A_bar = [Q_bar + Q copyltu(M)] R^{-T}` with `M = R R_bar^T - Q_bar^T Q`; dead columns take no part.

    Example:
        >>> Q, R, dead = qr(torch.tensor([[3.0, 1.0], [4.0, 2.0]]))
        >>> R.diagonal()
        tensor([5.0000, 0.4000])

    Source: Gradient Flossing, eq 8 (its left side is the adjoint of the input).
    """
    return Factors(*_QR.apply(A, dead, method))  # type: ignore[no-untyped-call]


class _QR(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Tensor, dead: Tensor | None, method: str) -> Factors:
        factors = orthonormalise(A, dead, method)
        ctx.dead = factors.dead
        ctx.save_for_backward(factors.Q, factors.R)
        if factors.dead is not None:
            ctx.mark_non_differentiable(factors.dead)
        return factors

    @staticmethod
    def backward(ctx: Any, Q_bar: Tensor, R_bar: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
        Q, R = ctx.saved_tensors
        if ctx.dead is not None:
            off = ctx.dead.unsqueeze(-1) | ctx.dead.unsqueeze(-2)
            Q_bar, R_bar = torch.where(ctx.dead.unsqueeze(-2), 0.0, Q_bar), torch.where(off, 0.0, R_bar)
        # with C = Q^T dA R^-1 and L its strictly lower triangle, dA = dQ R + Q dR splits into
        #     dQ = Q (L - L^T) + (1 - Q Q^T) dA R^-1,   dR R^-1 = C - L + L^T,
        # because Q^T dQ is antisymmetric and dR R^-1 upper triangular. In <Q_bar, dQ> + <R_bar, dR> an entry
        # of C below the diagonal has the factor Q^T Q_bar + M, one above R_bar R^T = M^T + Q^T Q_bar:
        # together Q^T Q_bar + copyltu(M), the lower triangle of M and its mirror image
        M = R @ R_bar.mT - Q_bar.mT @ Q
        lower = torch.tril(M)
        Y = Q_bar + Q @ (lower + torch.tril(M, -1).mT)
        return torch.linalg.solve_triangular(R.mT, Y, upper=False, left=False), None, None
