"""A form over a whole sequence, and back: one program for each network and tile of its trajectories.

Sequences are `(e, t, b, n)` in memory, contiguous. A program holds W, and a dense A, on the chip for all t
steps where RESIDENT; else it reads them at every step, from the cache.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.arithmetic import DENSE, apply, bypass, matrix, product, slope, streamed, vector

IDENTITY = tl.constexpr((0, 0, 1.0, 0.0))


@triton.jit
@no_type_check
def forward(
    W, A, coupling, g_sharp, f_sharp, phi_sharp, drive, states, t, b, n, a_size,
    G: tl.constexpr, F: tl.constexpr, PHI: tl.constexpr, KIND: tl.constexpr, COUPLED: tl.constexpr,
    KEEP: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr, B: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """States `(e, t + 1, b, n)` after the first, from the drive, in whose place a is left where KEEP."""
    e, r = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)[:, None]
    j = tl.arange(0, N)
    inside, at = (r < b) & (j < n)[None, :], r * n + j[None, :]
    W, A, coupling = W + e * n * n, A + e * a_size, coupling + e * n
    g_sharp, f_sharp, phi_sharp = g_sharp + e * n, f_sharp + e * n, phi_sharp + e * n
    drive, before = drive + e * t * b * n, states + e * (t + 1) * b * n
    h = tl.load(before + at, mask=inside, other=0.0)
    none = tl.zeros_like(h)
    # on the chip once, for t steps: read at each step they would be most of the traffic
    if RESIDENT:
        w = matrix(W, j, j, n, True)
        if KIND == DENSE:
            dense = matrix(A, j, j, n, True)
    for _ in range(t):
        a = tl.load(drive + at, mask=inside, other=0.0)
        if RESIDENT:
            a = product(apply(h, vector(g_sharp, j, n), G), w, a, PRECISION)
        else:
            a = streamed(before + r * n, r < b, W, g_sharp, a, j, n, G, True, PRECISION)
        out = apply(a, vector(f_sharp, j, n), F)
        if COUPLED:
            out *= vector(coupling, j, n)
        if KIND:
            if KIND != DENSE:
                p = bypass(h, A, j, n, KIND, False)
            elif RESIDENT:
                p = product(h, dense, none, PRECISION)
            else:
                p = streamed(before + r * n, r < b, A, g_sharp, none, j, n, IDENTITY, True, PRECISION)
            out += apply(p, vector(phi_sharp, j, n), PHI)
        h = out
        if KEEP:
            tl.store(drive + at, a, mask=inside)
        drive += b * n
        before += b * n
        tl.store(before + at, h, mask=inside)
        # the next step reads states of all threads from memory
        if not RESIDENT:
            tl.debug_barrier()


@triton.jit
@no_type_check
def backward(
    W, A, coupling, g_sharp, f_sharp, phi_sharp, states, a, p, states_bar, outs, a_bars, p_bars, values,
    h_bar, t, b, n, a_size, cut,
    G: tl.constexpr, F: tl.constexpr, PHI: tl.constexpr, KIND: tl.constexpr, COUPLED: tl.constexpr,
    OUTS: tl.constexpr, P_BARS: tl.constexpr,
    RESIDENT: tl.constexpr, PRECISION: tl.constexpr, B: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Cotangents of h' (where OUTS), a, p = A h (where P_BARS) and the first state; the values g(h).

    `a` is read where f is not the identity, `p` where phi is not; `values` are written where g is not.
    The cotangent of the state before a step that is a multiple of `cut` is dropped.
    """
    e, r = tl.program_id(0).to(tl.int64), tl.program_id(1) * B + tl.arange(0, B)[:, None]
    j = tl.arange(0, N)
    inside, at = (r < b) & (j < n)[None, :], r * n + j[None, :]
    W, A, coupling = W + e * n * n, A + e * a_size, coupling + e * n
    g_sharp, f_sharp, phi_sharp = g_sharp + e * n, f_sharp + e * n, phi_sharp + e * n
    last = t - 1
    states += (e * (t + 1) + last) * b * n
    end = (e * t + last) * b * n
    a, p, states_bar, outs = a + end, p + end, states_bar + end, outs + end
    a_bars, p_bars, values = a_bars + end, p_bars + end, values + end
    bar = tl.load(h_bar + e * b * n + at, mask=inside, other=0.0)
    none = tl.zeros_like(bar)
    if RESIDENT:
        w = matrix(W, j, j, n, False)
        if KIND == DENSE:
            dense = matrix(A, j, j, n, False)
    for back in range(t):
        bar += tl.load(states_bar + at, mask=inside, other=0.0)
        a_bar, p_bar = bar, bar
        if OUTS:
            tl.store(outs + at, bar, mask=inside)
        if COUPLED:
            a_bar *= vector(coupling, j, n)
        # neither a value nor a bump of its own: the identity, whose slope is not worth a load
        if F[0] + F[1] > 0:
            a_bar *= slope(tl.load(a + at, mask=inside, other=0.0), vector(f_sharp, j, n), F)
        tl.store(a_bars + at, a_bar, mask=inside)
        if KIND:
            if PHI[0] + PHI[1] > 0:
                p_bar *= slope(tl.load(p + at, mask=inside, other=0.0), vector(phi_sharp, j, n), PHI)
            if P_BARS:
                tl.store(p_bars + at, p_bar, mask=inside)
        if RESIDENT:
            bar = product(a_bar, w, none, PRECISION)
        else:
            tl.debug_barrier()
            bar = streamed(a_bars + r * n, r < b, W, g_sharp, none, j, n, IDENTITY, False, PRECISION)
        if G[0] + G[1] > 0:
            h = tl.load(states + at, mask=inside, other=0.0)
            bar *= slope(h, vector(g_sharp, j, n), G)
            tl.store(values + at, apply(h, vector(g_sharp, j, n), G), mask=inside)
        if KIND:
            if KIND != DENSE:
                bar += bypass(p_bar, A, j, n, KIND, True)
            elif RESIDENT:
                bar = product(p_bar, dense, bar, PRECISION)
            else:
                bar = streamed(p_bars + r * n, r < b, A, g_sharp, bar, j, n, IDENTITY, False, PRECISION)
        # the modulus of 0 is not defined, and both sides are evaluated
        if (cut > 0) & ((last - back) % tl.maximum(cut, 1) == 0):
            bar = none
        states -= b * n
        a -= b * n
        p -= b * n
        states_bar -= b * n
        outs -= b * n
        a_bars -= b * n
        p_bars -= b * n
        values -= b * n
    tl.store(h_bar + e * b * n + at, bar, mask=inside)
