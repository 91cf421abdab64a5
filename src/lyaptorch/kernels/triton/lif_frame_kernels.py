"""A frame along a known trajectory of spiking neurons, and back, as `frame_kernels` has it for forms.

A row of a frame is (u, i), 2 n numbers. With the spikes' slopes S' and a, d given, a step is

    i' = alpha i + (S' u) W^T,   u' = a u + d (i' or i)

All that is made for each step is `(e, t, b, ...)` in memory.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.frame_kernels import SPREAD, add, multiply, project
from lyaptorch.kernels.triton.orthonormal import orthonormalise
from lyaptorch.kernels.triton.products import vector


@triton.jit
@no_type_check
def forward(
    W, alpha, slopes, a, d, frames, L, pushed, dead, status, cuts, twice, spans, t, b, k, n, eps,
    SIMULTANEOUS: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Frames `(e, t + 1, b, k, 2 n)`, L, dead rows and status as of `frame_kernels.forward`."""
    e, r, j, wide = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, N), 2 * n
    W, alpha = W + e * n * n, vector(alpha + e * n, j, n)
    steps, stride = (e * t * b + r) * n, b * k * wide if KEEP else 0
    frames += ((e * (t + 1) if KEEP else e) * b + r) * k * wide
    pushed += (e * b + r) * 2 * k * wide
    L, status = L + (e * spans * b + r) * k * k, status + e * b + r
    dead += (e * (spans + 1) * b + r) * k
    none = tl.zeros((K, N), W.dtype.element_ty)
    for span in range(spans):
        start, stop = tl.load(cuts + span), tl.load(cuts + span + 1)
        for first in range(0, k, K):
            i, Y = first + tl.arange(0, K), frames
            inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * wide + j[None, :]
            for s in range(start, stop):
                this = steps + s * b * n
                u = tl.load(Y + at, mask=inside, other=0.0)
                past = tl.load(Y + n + at, mask=inside, other=0.0)
                current = multiply(Y, wide, 1, W, 1, n, slopes + this, none, i, j, k, n, n, True, PRECISION)
                current += alpha * past
                u = vector(a + this, j, n) * u + vector(d + this, j, n) * (past if SIMULTANEOUS else current)
                # two places by turns: the other is still read
                Y = pushed + (stop - 1 - s) % 2 * k * wide
                tl.store(Y + at, u, mask=inside)
                tl.store(Y + n + at, current, mask=inside)
                if KEEP and s + 1 < stop:
                    after = frames + (s + 1 - start) * stride
                    tl.store(after + at, u, mask=inside)
                    tl.store(after + n + at, current, mask=inside)
                tl.debug_barrier()
        frames += (stop - start) * stride
        again = tl.load(twice + span)
        wild = orthonormalise(pushed, frames, L, dead, dead + b * k, k, wide, again, eps, PRECISION, WIDE)
        if (wild > 0) & (tl.load(status) < 0):
            tl.store(status, span)
        L += b * k * k
        dead += b * k
        tl.debug_barrier()


@triton.jit
@no_type_check
def backward(
    W, alpha, slopes, a, d, frames, inverse, c, spread, cuts, square, work, bars, slope_bars, a_bars, d_bars,
    spans, t, b, k, n,
    SIMULTANEOUS: tl.constexpr, PRECISION: tl.constexpr,
    K: tl.constexpr, N: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """As `frame_kernels.backward`; `bars (e, t, b, k, n)` are the cotangents of (S' u) W^T."""
    e, r, j, own = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, N), tl.arange(0, K)
    wide, spans_at = 2 * n, tl.program_id(0).to(tl.int64) * spans * b + r
    W, alpha = W + e * n * n, vector(alpha + e * n, j, n)
    steps, rows = (e * t * b + r) * n, (e * t * b + r) * k * n
    frames += (e * (t + 1) * b + r) * k * wide
    work, square = work + (e * b + r) * 2 * k * wide, square + (e * b + r) * k * k
    none, total = tl.zeros((K, N), W.dtype.element_ty), tl.zeros((), W.dtype.element_ty)
    for back in range(spans):
        span = spans - 1 - back
        here = spans_at + span * b
        start, stop = tl.load(cuts + span), tl.load(cuts + span + 1)
        X, after = work + back % 2 * k * wide, frames + stop * b * k * wide
        if back > 0:
            total += tl.load(spread + here + b)
        if total > SPREAD:
            project(X, after, square, k, wide, PRECISION, K, WIDE)
            total *= 0
        for first in range(0, k, K):
            i, L = first + own, inverse + here * k * k
            inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * wide + j[None, :]
            u_bar = multiply(L, 1, k, X, wide, 1, X, none, i, j, k, k, n, False, PRECISION)
            i_bar = multiply(L, 1, k, X + n, wide, 1, X, none, i, j, k, k, n, False, PRECISION)
            for step in range(start, stop):
                s = stop - 1 - (step - start)
                this, row, before = steps + s * b * n, rows + s * b * k * n, frames + s * b * k * wide
                u = tl.load(before + at, mask=inside, other=0.0)
                seen = tl.load(before + n + at, mask=inside, other=0.0)
                # u' = a u + d seen, seen = i' (or i): by a u_bar u, by d u_bar seen, by seen d u_bar
                through = vector(d + this, j, n) * u_bar
                if not SIMULTANEOUS:
                    seen *= alpha
                    seen = multiply(
                        before, wide, 1, W, 1, n, slopes + this, seen, i, j, k, n, n, True, PRECISION
                    )
                    i_bar += through
                add(a_bars + this + j, u_bar * u, j, n)
                add(d_bars + this + j, u_bar * seen, j, n)
                tl.store(bars + row + i[:, None] * n + j[None, :], i_bar, mask=inside)
                tl.debug_barrier()
                S_bar = multiply(bars + row, n, 1, W, n, 1, slopes, none, i, j, k, n, n, False, PRECISION)
                # i' = alpha i + (S' u) W^T: by S' S_bar u, by u S' S_bar
                add(slope_bars + this + j, S_bar * u, j, n)
                u_bar = vector(a + this, j, n) * u_bar + vector(slopes + this, j, n) * S_bar
                i_bar *= alpha
                if SIMULTANEOUS:
                    i_bar += through
            if span > 0:
                # X = D^T Z + Q diag(c_s - c_{s+1})
                change = tl.load(c + (here - b) * k + i, mask=i < k, other=0.0)
                change -= tl.load(c + here * k + i, mask=i < k, other=0.0)
                Q = frames + start * b * k * wide
                u_bar += tl.load(Q + at, mask=inside, other=0.0) * change[:, None]
                i_bar += tl.load(Q + n + at, mask=inside, other=0.0) * change[:, None]
            left = work + (back + 1) % 2 * k * wide
            tl.store(left + at, u_bar, mask=inside)
            tl.store(left + n + at, i_bar, mask=inside)
        tl.debug_barrier()
