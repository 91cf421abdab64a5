"""Leaky integrate-and-fire neurons over a whole sequence, and back; the state is (U, I).

With S = f(U - theta): I' = alpha I + W S + drive, v = beta U + (1 - beta) (I' or I), U' = v (1 - S) or
v - theta S. To derivatives dU' = keep dv - bite dS, as the reset's convention has it.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.activations import apply, slope
from lyaptorch.kernels.triton.form_kernels import IDENTITY
from lyaptorch.kernels.triton.products import matrix, product, streamed, vector


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
    alpha, beta, theta = (
        vector(alpha + e * n, j, n),
        vector(beta + e * n, j, n),
        vector(threshold + e * n, j, n),
    )
    g = vector(sharp + e * n, j, n)
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
    alpha, beta, theta = (
        vector(alpha + e * n, j, n),
        vector(beta + e * n, j, n),
        vector(threshold + e * n, j, n),
    )
    g = vector(sharp + e * n, j, n)
    last = t - 1
    states += (e * (t + 1) + last) * b * 2 * n
    states_bar += (e * t + last) * b * 2 * n
    spikes, a_bars, h_bar = (
        spikes + (e * t + last) * b * n,
        a_bars + (e * t + last) * b * n,
        h_bar + e * b * 2 * n,
    )
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
