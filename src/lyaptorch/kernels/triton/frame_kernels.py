"""A frame along a known trajectory, and back: one program for each network and trajectory.

One step is Y' = Y diag(g') W^T diag(f') + Y A^T diag(phi'), for a frame of k rows y; the slopes of all steps
are given, the coupling within f'. They, and all that is made for each step, are `(e, t, b, ...)` in memory.
Between two orthonormalisations rows do not mix: a block of them goes through all steps of a span at once.
Its factors are read in pieces, from the cache.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.arithmetic import DENSE, PIECE, bypass, product, vector
from lyaptorch.kernels.triton.orthonormal import orthonormalise

SPREAD = tl.constexpr(2.3)
"""Nats by which summed log R_ii may differ between columns before X is projected again.

In a span an error above the diagonal of Q^T X grows at most by the exp of its spread.
"""


@triton.jit
@no_type_check
def multiply(
    left, by_row, by_column, right, on_row, on_column, scale, total, i, j, rows, inner, columns,
    SCALED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """left diag(scale) right + total, both in memory with the strides given; columns j of rows i."""
    # in pieces, because whole factors do not fit on the chip beside the rows
    for start in range(0, inner, PIECE):
        m = start + tl.arange(0, PIECE)
        there = (i < rows)[:, None] & (m < inner)[None, :]
        L = tl.load(left + i[:, None] * by_row + m[None, :] * by_column, mask=there, other=0.0)
        there = (m < inner)[:, None] & (j < columns)[None, :]
        R = tl.load(right + m[:, None] * on_row + j[None, :] * on_column, mask=there, other=0.0)
        if SCALED:
            L *= vector(scale, m, inner)
        total = product(L, R, total, PRECISION)
    return total


@triton.jit
@no_type_check
def forward(
    W, A, g1, f1, p1, frames, L, pushed, dead, status, cuts, twice, spans, t, b, k, n, a_size, eps,
    G: tl.constexpr, F: tl.constexpr, PHI: tl.constexpr, KIND: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Frames `(e, t + 1, b, k, n)` after the first (without KEEP one alone), L and dead rows of every span.

    `pushed (e, b, 2, k, n)` is scratch; `dead (e, spans + 1, b, k)` begins with those dead before; `status
    (e, b)` becomes the first span after which the frame is not finite.
    """
    e, r, j = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, N)
    W, A = W + e * n * n, A + e * a_size
    slopes, stride = (e * t * b + r) * n, b * k * n if KEEP else 0
    frames += ((e * (t + 1) if KEEP else e) * b + r) * k * n
    pushed += (e * b + r) * 2 * k * n
    L, status = L + (e * spans * b + r) * k * k, status + e * b + r
    dead += (e * (spans + 1) * b + r) * k
    none = tl.zeros((K, N), W.dtype.element_ty)
    for span in range(spans):
        start, stop = tl.load(cuts + span), tl.load(cuts + span + 1)
        # rows do not mix within a span: a block of K goes through all its steps before the next begins
        for first in range(0, k, K):
            i, Y = first + tl.arange(0, K), frames
            inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * n + j[None, :]
            for s in range(start, stop):
                this = slopes + s * b * n
                P = multiply(Y, n, 1, W, 1, n, g1 + this, none, i, j, k, n, n, G, PRECISION)
                if F:
                    P *= vector(f1 + this, j, n)
                if KIND:
                    if KIND == DENSE:
                        past = multiply(Y, n, 1, A, 1, n, g1, none, i, j, k, n, n, False, PRECISION)
                    else:
                        past = bypass(tl.load(Y + at, mask=inside, other=0.0), A, j, n, KIND, False)
                    P += past * vector(p1 + this, j, n) if PHI else past
                # two places by turns: the other is still read
                Y = pushed + (stop - 1 - s) % 2 * k * n
                tl.store(Y + at, P, mask=inside)
                if KEEP and s + 1 < stop:
                    tl.store(frames + (s + 1 - start) * stride + at, P, mask=inside)
                # the next product reads rows that other threads have written
                tl.debug_barrier()
        frames += (stop - start) * stride
        # here rows do mix
        again = tl.load(twice + span)
        wild = orthonormalise(pushed, frames, L, dead, dead + b * k, k, n, again, eps, PRECISION, N)
        if (wild > 0) & (tl.load(status) < 0):
            tl.store(status, span)
        L += b * k * k
        dead += b * k
        tl.debug_barrier()


@triton.jit
@no_type_check
def backward(
    W, A, g1, f1, p1, past_bars, frames, inverse, c, spread, cuts, square, work, bars, g_bend, f_bend, p_bend,
    spans, t, b, k, n, a_size,
    G: tl.constexpr, F: tl.constexpr, PHI: tl.constexpr, KIND: tl.constexpr, PAST: tl.constexpr,
    PRECISION: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """From c `(e, spans, b, k)`, the cotangents of log R_ii, and X after the last span: X before the first.

    X is read from `work[:, :, 0]` of `(e, b, 2, k, n)` and left in the last of its two places that is
    written, by turns. `bars (e, t, b, k, n)` are the cotangents of Y diag(g') W^T, `past_bars` of Y A^T
    (where PAST), `*_bend (e, t, b, n)`, zero before, those of the slopes. `inverse` holds L^-1, `spread
    (e, spans, b)` the largest difference of log R_ii; `square (e, b, k, k)` is scratch.
    """
    e, r, j, own = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, N), tl.arange(0, K)
    W, A = W + e * n * n, A + e * a_size
    slopes, rows = (e * t * b + r) * n, (e * t * b + r) * k * n
    frames += (e * (t + 1) * b + r) * k * n
    work, square, spans_at = work + (e * b + r) * 2 * k * n, square + (e * b + r) * k * k, e * spans * b + r
    none, total = tl.zeros((K, N), W.dtype.element_ty), tl.zeros((), W.dtype.element_ty)
    for back in range(spans):
        span = spans - 1 - back
        here = spans_at + span * b
        start, stop = tl.load(cuts + span), tl.load(cuts + span + 1)
        X, after = work + back % 2 * k * n, frames + stop * b * k * n
        if back > 0:
            total += tl.load(spread + here + b)
        if total > SPREAD:
            project(X, after, square, k, n, PRECISION, K, N)
            total *= 0
        for first in range(0, k, K):
            i = first + own
            inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * n + j[None, :]
            # Z = X R^-T of rows: with L = R^T, L^-T X; L^-1 is read with its strides exchanged
            Z = multiply(inverse + here * k * k, 1, k, X, n, 1, X, none, i, j, k, k, n, False, PRECISION)
            for step in range(start, stop):
                s = stop - 1 - (step - start)
                now, row = slopes + s * b * n, rows + s * b * k * n
                this = now + j
                before = frames + s * b * k * n
                Y = tl.load(before + at, mask=inside, other=0.0)
                Z_past = Z
                if F:
                    # Y' = f' M with M = (g' Y) W^T: f' sees sum_k Z M, and M sees f' Z
                    M = multiply(before, n, 1, W, 1, n, g1 + now, none, i, j, k, n, n, G, PRECISION)
                    add(f_bend + this, Z * M, j, n)
                    Z *= vector(f1 + now, j, n)
                tl.store(bars + row + at, Z, mask=inside)
                if KIND:
                    if PHI:
                        if KIND == DENSE:
                            M = multiply(before, n, 1, A, 1, n, g1, none, i, j, k, n, n, False, PRECISION)
                        else:
                            M = bypass(Y, A, j, n, KIND, False)
                        add(p_bend + this, Z_past * M, j, n)
                        Z_past *= vector(p1 + now, j, n)
                    if PAST:
                        tl.store(past_bars + row + at, Z_past, mask=inside)
                tl.debug_barrier()
                Z = multiply(bars + row, n, 1, W, n, 1, g1, none, i, j, k, n, n, False, PRECISION)
                if G:
                    add(g_bend + this, Z * Y, j, n)
                    Z *= vector(g1 + now, j, n)
                if KIND:
                    if KIND == DENSE:
                        Z = multiply(past_bars + row, n, 1, A, n, 1, g1, Z, i, j, k, n, n, False, PRECISION)
                    else:
                        Z += bypass(Z_past, A, j, n, KIND, True)
            if span > 0:
                change = tl.load(c + (here - b) * k + i, mask=i < k, other=0.0)
                change -= tl.load(c + here * k + i, mask=i < k, other=0.0)
                Z += tl.load(frames + start * b * k * n + at, mask=inside, other=0.0) * change[:, None]
            tl.store(work + (back + 1) % 2 * k * n + at, Z, mask=inside)
        tl.debug_barrier()


@triton.jit
@no_type_check
def project(X, Q, square, k, n, PRECISION: tl.constexpr, K: tl.constexpr, N: tl.constexpr):
    """Take out of X, in place, the strictly upper triangle of Q^T X, which is zero but for round-off."""
    j, own = tl.arange(0, N), tl.arange(0, K)
    for first in range(0, k, K):
        i = first + own
        for start in range(0, k, K):
            m = start + own
            grown = multiply(
                X, n, 1, Q, 1, n, X, tl.zeros((K, K), X.dtype.element_ty), i, m, k, n, k, False, PRECISION
            )
            # frames are rows here: strictly below the diagonal of X Q^T lies what lies above that of Q^T X
            grown = tl.where(i[:, None] > m[None, :], -grown, 0.0)
            tl.store(square + i[:, None] * k + m[None, :], grown, mask=(i < k)[:, None] & (m < k)[None, :])
    tl.debug_barrier()
    for first in range(0, k, K):
        i = first + own
        inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * n + j[None, :]
        clean = tl.load(X + at, mask=inside, other=0.0)
        clean = multiply(square, k, 1, Q, n, 1, X, clean, i, j, k, k, n, False, PRECISION)
        tl.store(X + at, clean, mask=inside)
    tl.debug_barrier()


@triton.jit
@no_type_check
def add(total, rows, j, n):
    """Add the sum of rows to a vector in memory; every thread has the same of its entries each time."""
    tl.store(total, tl.load(total, mask=j < n, other=0.0) + tl.sum(rows, 0), mask=j < n)
