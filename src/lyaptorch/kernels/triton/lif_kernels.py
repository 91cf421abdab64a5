"""Leaky integrate-and-fire neurons over a whole sequence, and back; the state is (U, I).

With S = f(U - theta): I' = alpha I + W S + drive, v = beta U + (1 - beta) (I' or I), U' = v (1 - S) or
v - theta S. To derivatives dU' = keep dv - bite dS, as the reset's convention has it.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.arithmetic import apply, matrix, product, slope, streamed, vector
from lyaptorch.kernels.triton.form_kernels import IDENTITY
from lyaptorch.kernels.triton.frame_kernels import SPREAD, add, multiply, project
from lyaptorch.kernels.triton.orthonormal import orthonormalise


@triton.jit
@no_type_check
def forward(
    W, alpha, beta, threshold, sharp, drive, spikes, states, t, b, n,
    F: tl.constexpr, SUBTRACT: tl.constexpr, SIMULTANEOUS: tl.constexpr,
    RESIDENT: tl.constexpr, PRECISION: tl.constexpr, B: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """States `(e, t + 1, b, 2 n)` after the first, from the drive `(e, t, b, n)`; the spikes of all steps."""
    e, r = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)[:, None]
    j = tl.arange(0, N)
    inside, at, half = (r < b) & (j < n)[None, :], r * n + j[None, :], r * 2 * n + j[None, :]
    W += e * n * n
    alpha, beta = vector(alpha + e * n, j, n), vector(beta + e * n, j, n)
    theta, g = vector(threshold + e * n, j, n), vector(sharp + e * n, j, n)
    drive, spikes, states = drive + e * t * b * n, spikes + e * t * b * n, states + e * (t + 1) * b * 2 * n
    U = tl.load(states + half, mask=inside, other=0.0)
    I = tl.load(states + half + n, mask=inside, other=0.0)  # noqa: E741
    if RESIDENT:
        w = matrix(W, j, j, n, True)
    for _ in range(t):
        S = apply(U - theta, g, F)
        tl.store(spikes + at, S, mask=inside)
        a = tl.load(drive + at, mask=inside, other=0.0)
        if RESIDENT:
            a = product(S, w, a, PRECISION)
        else:
            tl.debug_barrier()
            a = streamed(spikes + r * n, r < b, W, sharp, a, j, n, IDENTITY, True, PRECISION)
        current = alpha * I + a
        v = beta * U + (1 - beta) * (I if SIMULTANEOUS else current)
        U = v - theta * S if SUBTRACT else v * (1 - S)
        I = current  # noqa: E741
        drive += b * n
        spikes += b * n
        states += b * 2 * n
        tl.store(states + half, U, mask=inside)
        tl.store(states + half + n, I, mask=inside)


@triton.jit
@no_type_check
def backward(
    W, alpha, beta, threshold, sharp, states, spikes, states_bar, a_bars, h_bar, t, b, n, cut,
    F: tl.constexpr, SUBTRACT: tl.constexpr, SIMULTANEOUS: tl.constexpr, GRAD: tl.constexpr,
    RESIDENT: tl.constexpr, PRECISION: tl.constexpr, B: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Cotangents of W S + drive `(e, t, b, n)` and of the first state; GRAD 0 detach, 1 full, 2 ignore.

    The cotangent of the state before a step that is a multiple of `cut` is dropped.
    """
    e, r = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)[:, None]
    j = tl.arange(0, N)
    inside, at, half = (r < b) & (j < n)[None, :], r * n + j[None, :], r * 2 * n + j[None, :]
    W += e * n * n
    alpha, beta = vector(alpha + e * n, j, n), vector(beta + e * n, j, n)
    theta, g = vector(threshold + e * n, j, n), vector(sharp + e * n, j, n)
    last = t - 1
    end = (e * t + last) * b * n
    states, states_bar = states + (e * (t + 1) + last) * b * 2 * n, states_bar + 2 * end
    spikes, a_bars, h_bar = spikes + end, a_bars + end, h_bar + e * b * 2 * n
    U_bar = tl.load(h_bar + half, mask=inside, other=0.0)
    I_bar = tl.load(h_bar + half + n, mask=inside, other=0.0)
    none = tl.zeros_like(U_bar)
    if RESIDENT:
        w = matrix(W, j, j, n, False)
    for back in range(t):
        U_bar += tl.load(states_bar + half, mask=inside, other=0.0)
        I_bar += tl.load(states_bar + half + n, mask=inside, other=0.0)
        U = tl.load(states + half, mask=inside, other=0.0)
        S = tl.load(spikes + at, mask=inside, other=0.0)
        # dU' = keep dv - bite dS: keep is 1 where the reset subtracts or is ignored, bite 0 but for GRAD full
        keep = none + 1 if SUBTRACT or GRAD == 2 else 1 - S
        v_bar, S_bar = keep * U_bar, none
        if GRAD == 1:
            if SUBTRACT:
                S_bar = -theta * U_bar
            else:
                from_I = states if SIMULTANEOUS else states + b * 2 * n
                S_bar = -(beta * U + (1 - beta) * tl.load(from_I + half + n, mask=inside, other=0.0)) * U_bar
        # I' is seen by itself and, in sequence, by v = beta U + (1 - beta) I'
        a_bar = I_bar if SIMULTANEOUS else I_bar + (1 - beta) * v_bar
        tl.store(a_bars + at, a_bar, mask=inside)
        if RESIDENT:
            S_bar = product(a_bar, w, S_bar, PRECISION)
        else:
            tl.debug_barrier()
            S_bar = streamed(a_bars + r * n, r < b, W, sharp, S_bar, j, n, IDENTITY, False, PRECISION)
        # U is seen by v and, through the surrogate, by S
        U_bar = beta * v_bar + slope(U - theta, g, F) * S_bar
        I_bar = alpha * a_bar + (1 - beta) * v_bar if SIMULTANEOUS else alpha * a_bar
        if (cut > 0) & ((last - back) % tl.maximum(cut, 1) == 0):
            U_bar, I_bar = none, none
        states -= b * 2 * n
        states_bar -= b * 2 * n
        spikes -= b * n
        a_bars -= b * n
    tl.store(h_bar + half, U_bar, mask=inside)
    tl.store(h_bar + half + n, I_bar, mask=inside)


@triton.jit
@no_type_check
def forward_frame(
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
def backward_frame(
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
