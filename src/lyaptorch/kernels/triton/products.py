"""Products of rows with matrices inside a kernel, held on the chip or read in pieces."""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.activations import apply

DIAGONAL, BLOCKS, DENSE = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
"""Kinds of a residual's matrix, as for the compiled kernels."""
PIECE = tl.constexpr(32)
"""Rows of a matrix that are read at once where it does not stay on the chip."""


@triton.jit
@no_type_check
def vector(v, j, n):
    """Entries j of a vector, as a row; 0 outside."""
    return tl.load(v + j, mask=j < n, other=0.0)[None, :]


@triton.jit
@no_type_check
def matrix(M, rows, columns, n, TRANSPOSED: tl.constexpr):
    """A part of an n x n matrix, or of its transpose, as a tile; 0 outside."""
    i, j = rows[:, None], columns[None, :]
    at = j * n + i if TRANSPOSED else i * n + j
    return tl.load(M + at, mask=(i < n) & (j < n), other=0.0)


@triton.jit
@no_type_check
def product(Y, M, total, PRECISION: tl.constexpr):
    """Y M + total, for tiles on the chip."""
    return tl.dot(Y, M, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
@no_type_check
def streamed(
    Y, inside, M, sharpness, total, columns, n,
    F: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """f(Y) M + total, or with M^T, where Y points to rows `(B, 1)` in memory and M is read as it is used."""
    for start in range(0, n, PIECE):
        k = start + tl.arange(0, PIECE)
        y = tl.load(Y + k[None, :], mask=inside & (k[None, :] < n), other=0.0)
        y = apply(y, vector(sharpness, k, n), F)
        total = product(y, matrix(M, k, columns, n, TRANSPOSED), total, PRECISION)
    return total


@triton.jit
@no_type_check
def bypass(Y, A, j, n, KIND: tl.constexpr, TRANSPOSED: tl.constexpr):
    """A y, or A^T y, for rows y of Y with all columns j, where A is diagonal or has 2x2 blocks."""
    if KIND == DIAGONAL:
        return vector(A, j, n) * Y
    # own: at [0, 0] and [1, 1] of a block; other: beside them
    own = tl.load(A + j // 2 * 4 + j % 2 * 3, mask=j < n, other=0.0)
    beside = 2 - j % 2 if TRANSPOSED else 1 + j % 2
    other = tl.load(A + j // 2 * 4 + beside, mask=j < n, other=0.0)
    even, odd = tl.split(tl.reshape(Y, (Y.shape[0], Y.shape[1] // 2, 2)))
    swapped = tl.reshape(tl.join(odd, even), (Y.shape[0], Y.shape[1]))
    return own[None, :] * Y + other[None, :] * swapped
