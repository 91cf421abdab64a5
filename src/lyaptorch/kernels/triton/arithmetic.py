"""Activations of this library, element by element, inside a kernel.

Each is numbered as for the compiled kernels: F = (value, bump, scale, area), where the slope of a surrogate
with the sharpness g is s(scale g x), times area g where that is not zero, s a bump of height 1.
"""

from typing import no_type_check

import triton
import triton.language as tl

SMALL = tl.constexpr(0.02)
"""Below it tanh is its Taylor series: there (1 - e) / (1 + e) has lost digits."""


@triton.jit
@no_type_check
def apply(x, g, F: tl.constexpr):
    """f(x)."""
    if F[0] == 0:
        return x
    if F[0] == 1:
        return tanh(x)
    if F[0] == 2:
        return tl.where(x > 0, x, 0.0)
    if F[0] == 3:
        return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)
    if F[0] == 4:
        return tl.where(x < 0, -1.0, 1.0).to(x.dtype)
    return tl.where(x > 0, 1.0, 0.0).to(x.dtype)


@triton.jit
@no_type_check
def slope(x, g, F: tl.constexpr):
    """f'(x), of a surrogate the slope that stands in its place."""
    if F[1] == 0:
        if F[0] == 0:
            return x * 0 + 1
        if F[0] == 1:
            return sech2(x)
        return tl.where(x > 0, 1.0, 0.0).to(x.dtype)
    height = flushed(bump(F[2] * g * x, F[1]))
    return height * (F[3] * g) if F[3] != 0 else height


@triton.jit
@no_type_check
def bump(y, S: tl.constexpr):
    """s(y)."""
    if S == 1:
        return sech2(y)
    if S == 2:
        wide = 1 + tl.abs(y)
        return 1 / wide / wide
    if S == 3:
        return 1 / (1 + y * y)
    if S == 4:
        return tl.maximum(1 - tl.abs(y), 0.0)
    return tl.exp(-y * y)


@triton.jit
@no_type_check
def tanh(x):
    """To round-off for every x."""
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    z = x * x
    near = x * (1 - z * (1.0 / 3 - z * (2.0 / 15 - z * (17.0 / 315 - z * (62.0 / 2835)))))
    return tl.where(tl.abs(x) < SMALL, near, tl.where(x < 0, -far, far))


@triton.jit
@no_type_check
def sech2(x):
    """sech(x)^2 to full relative precision."""
    # squared last, so that nothing underflows before the result does
    e = tl.exp(-tl.abs(x))
    sech = 2 * e / (1 + e * e)
    return flushed(sech * sech)


@triton.jit
@no_type_check
def flushed(y):
    """y >= 0, and 0 where it is below the least normal number."""
    return tl.where(y < (2.0**-1022 if y.dtype == tl.float64 else 2.0**-126), 0.0, y)


DIAGONAL, BLOCKS, DENSE = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
"""Kinds of a residual's matrix, as for the compiled kernels."""
PIECE = tl.constexpr(32)
"""Rows of a matrix that are read at once where it does not stay on the chip.

Of 128 columns in float32 they are 16 kB, of 1024 as much as 128 kB, of 227 kB of shared memory.
"""


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
