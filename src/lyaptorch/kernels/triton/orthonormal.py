"""Orthonormal rows inside a kernel: by panels of 16, and one by one where some may be dead.

A frame is kept as k rows of n numbers, in memory. With A = L Q the factor is L = R^T, lower triangular.
"""

from typing import no_type_check

import triton
import triton.language as tl

from lyaptorch.kernels.triton.arithmetic import product

PANEL = tl.constexpr(16)
ONE_PASS = tl.constexpr(40.0)
"""Largest |a_i| / R_ii at which a single pass is trusted, as in `tangent.qr`."""
DEAD = tl.constexpr(16.0)
DOUBTFUL = tl.constexpr(2048.0)
"""In eps |a_i|: R_ii at which a row is dead, and below which rows are taken one by one to find out."""


@triton.jit
@no_type_check
def orthonormalise(
    A, Q, L, dead_before, dead, k, n, twice, eps, PRECISION: tl.constexpr, N: tl.constexpr
):  # fmt: skip
    """Factor the k rows of A; write Q, L and the dead rows. Needs a barrier before they are read.

    A second pass is made where the first was not good enough, or where `twice` asks for it. Returns how many
    numbers in A are not finite.
    """
    wild, doubtful = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
    # panels of 16 rows, which the chip's matrix units multiply at once, each against all before it
    for first in range(0, k, PANEL):
        broken, unsure = panel(A, Q, L, dead_before, dead, first, k, n, twice, eps, PRECISION, N)
        wild += broken
        doubtful += unsure
        tl.debug_barrier()
    # one row that may be dead spoils all behind it: its direction is chance, and they were taken against it
    if doubtful > 0:
        one_by_one(A, Q, L, dead_before, dead, k, n, eps, N)
    return wild


@triton.jit
@no_type_check
def panel(A, Q, L, dead_before, dead, first, k, n, twice, eps, PRECISION: tl.constexpr, N: tl.constexpr):
    """Rows `first`, `first + 1`, ... against those before and each other; how many are wild, and doubtful."""
    i, j, own = first + tl.arange(0, PANEL), tl.arange(0, N), tl.arange(0, PANEL)
    inside, at = (i < k)[:, None] & (j < n)[None, :], i[:, None] * n + j[None, :]
    V = tl.load(A + at, mask=inside, other=0.0)
    gone = tl.load(dead_before + i, mask=i < k, other=1) != 0
    wild = tl.sum(tl.sum(tl.where(V - V == 0, 0, 1), 1), 0)
    # every row at unit scale: squared lengths neither overflow nor vanish
    top = tl.max(tl.abs(V), 1)
    top = tl.where(top > 0, top, 1.0).to(V.dtype)
    V = V / top[:, None]
    norm = tl.sqrt(tl.sum(V * V, 1))
    diagonal = i[:, None] == i[None, :]
    scale, none = tl.where(gone, 1.0, top).to(V.dtype)[:, None], tl.zeros((PANEL, PANEL), V.dtype)
    T, length = tl.where(diagonal, 1.0, 0.0).to(V.dtype), norm
    # a second turn as in tangent.qr, of the panel alone: V = T Q', and T is multiplied by what the turn adds
    turn = tl.full((), 1, tl.int32)
    while turn > 0:
        for before in range(0, first, PANEL):
            past = tl.load(Q + (before + own)[:, None] * n + j[None, :], mask=(j < n)[None, :], other=0.0)
            along = product(V, tl.trans(past), none, PRECISION)
            V -= product(along, past, tl.zeros((PANEL, N), V.dtype), PRECISION)
            entry = L + i[:, None] * k + (before + own)[None, :]
            # A = along_1 Q + T_1 V_1, V_1 = along_2 Q + T_2 V_2: of Q along_1 + T_1 along_2, of V_2 T_1 T_2
            sofar = tl.load(entry, mask=(i < k)[:, None] & (turn > 1), other=0.0)
            tl.store(entry, sofar + scale * product(T, along, none, PRECISION), mask=(i < k)[:, None])
        V, more = straighten(V, gone, own)
        T = product(T, more, none, PRECISION)
        length = tl.sum(tl.where(diagonal, T, 0.0), 1)
        # a single turn is trusted while no length shrank more than fortyfold
        poor = tl.max(tl.where(gone | (norm <= length * ONE_PASS), 0, 1), 0)
        turn = tl.where((turn == 1) & ((poor > 0) | (twice > 0)), 2, 0)
    tl.store(Q + at, V, mask=inside)
    tl.store(L + i[:, None] * k + i[None, :], T * scale, mask=(i < k)[:, None] & (i < k)[None, :])
    tl.store(dead + i, gone.to(tl.uint8), mask=i < k)
    return wild, tl.sum(tl.where(gone | (length > norm * eps * DOUBTFUL), 0, 1), 0)


@triton.jit
@no_type_check
def straighten(V, gone, i):
    """Gram-Schmidt within a panel: V = T Q, T lower triangular; rows that are gone get a unit of T."""
    T = tl.zeros((PANEL, PANEL), V.dtype)
    for step in range(PANEL):
        here = i == step
        q = tl.sum(tl.where(here[:, None], V, 0.0), 0)
        r = tl.sum(V * q[None, :], 1)
        length = tl.sqrt(tl.sum(tl.where(here, r, 0.0), 0))
        over = tl.where(length > 0, 1 / tl.where(length > 0, length, 1.0), 0.0).to(V.dtype)
        q *= over
        # modified Gram-Schmidt: rows after this one lose their part along it at once
        r = tl.where(i > step, r * over, 0.0)
        V = tl.where(here[:, None], q[None, :], V - r[:, None] * q[None, :])
        r = tl.where(here, tl.where(gone, 1.0, length), r).to(V.dtype)
        T = tl.where(here[None, :], r[:, None], T)
    return V, T


@triton.jit
@no_type_check
def one_by_one(A, Q, L, dead_before, dead, k, n, eps, N: tl.constexpr):
    """Every row twice against all living ones before it; those of which only round-off is left die."""
    j, own = tl.arange(0, N), tl.arange(0, PANEL)
    for i in range(k):
        a = tl.load(A + i * n + j, mask=j < n, other=0.0)
        top = tl.max(tl.abs(a), 0)
        top = tl.where(top > 0, top, 1.0).to(a.dtype)
        v = a / top
        norm, doomed = tl.sqrt(tl.sum(v * v, 0)), tl.load(dead_before + i) != 0
        for turn in range(2):
            for first in range(0, i, PANEL):
                rows = first + own
                known = (rows < i)[:, None] & (j < n)[None, :]
                past = tl.load(Q + rows[:, None] * n + j[None, :], mask=known, other=0.0)
                along = tl.sum(past * v[None, :], 1)
                v -= tl.sum(past * along[:, None], 0)
                sofar = tl.load(L + i * k + rows, mask=(rows < i) & (turn > 0), other=0.0)
                tl.store(L + i * k + rows, sofar + along * top, mask=rows < i)
        length = tl.sqrt(tl.sum(v * v, 0))
        # here a row is declared dead, as in `_gram_schmidt` of tangent.qr: no more is left than round-off
        dies = doomed | (length <= norm * eps * DEAD)
        q = tl.where(dies, 0.0, v / tl.where(dies, 1.0, length)).to(a.dtype)
        if dies:
            for first in range(0, i, PANEL):
                tl.store(L + i * k + first + own, tl.zeros((PANEL,), a.dtype), mask=first + own < i)
        tl.store(Q + i * n + j, q, mask=j < n)
        tl.store(L + i * k + i, tl.where(dies, 1.0, length * top))
        tl.store(dead + i, dies.to(tl.uint8))
        tl.debug_barrier()
