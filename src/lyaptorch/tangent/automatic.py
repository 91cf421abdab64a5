"""`interval="auto"` and `transient="auto"`: what a scan says about how to do the next, or the real, one."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells import Cell
from lyaptorch.kernels import spread
from lyaptorch.tangent.dynamics import bind
from lyaptorch.tangent.growth import Growth
from lyaptorch.tangent.scan import Tape, spans, stack_growth, sweep

AUTO = "auto"
ROUGH = 64
"""Steps of a rough scan; the transient's grows from twice as many."""
FEWEST = 16
"""Intervals that must remain, so that the error bars mean something."""
LONGEST, MULTIPLES = 64, (2, 3, 4, 6, 8)
"""The longest interval that is taken in flossing, and what it may be multiplied by at once."""
FLAT = 1e-3
"""Growth that changes by less than this part of itself does not drift."""


@torch.no_grad()
def choose_interval(cell: Cell, inputs: Tensor, h: Tensor, Q: Tensor, counted: int) -> int:
    """How many steps to leave between reorthonormalisations.

    Two strategies in turn. A rough spectrum, from a short scan that reorthonormalises at every step, gives
    the longest interval for which `exp((lambda_1 - lambda_k) interval)` stays below eps^(-1/4), 54 in
    float32 and 8192 in float64. Then the interval is halved until, over every interval of the rough scan,
    the longest column of the product of Jacobians times the frame is not longer than that times the least
    R_ii. The relative error of R_ii is then about eps^(3/4).

    Source: Gradient Flossing, appendix J and eq 28.
    """
    steps = min(ROUGH, len(inputs))
    tape = Tape()
    end = sweep(bind(cell, cell.form(), inputs[:steps], []), h, Q, None, spans(0, steps, 1), tape=tape)
    log_r, healthy = stack_growth(end.pivots, end.deaths)
    alive = healthy[-1]
    # what died hands nothing on to the columns behind it
    factors = [torch.where(h.unsqueeze(-1), R, 0.0) for R, h in zip(tape.factors, healthy, strict=True)]
    # a product of `interval` Jacobians has cond exp(gap interval), and R_kk the relative error eps cond; both
    # strategies stop at cond = eps^(-1/4), where eps^(3/4) is left
    gap = spread(log_r.mean(0)).max().item()
    limit = torch.finfo(h.dtype).eps ** -0.25
    interval = max(1, min(steps // 4, counted // FEWEST, int(math.log(limit) / max(gap, 1e-9))))
    while interval > 1 and _condition(factors, alive, interval) > limit:
        interval //= 2
    return interval


@torch.no_grad()
def allowed_interval(log_r: Tensor, longest: Tensor | None, cuts: Sequence[int] | Tensor) -> Tensor:
    """How many steps the growth in a scan allows each member between reorthonormalisations, `(*e)`.

    The condition of a span's product is at least the longest column over the least R_ii, and that of several
    spans together at most the product of theirs. It stays below eps^(-1/3), wherever they begin, so that R_ii
    keeps two thirds of its digits; and squares of what columns grow or shrink to can be represented.

    Args:
        log_r: `(s, *e, b, k)`.
        longest: `(s, *e, b)`, the length of the longest column before each orthonormalisation, where it is
            known: columns that shear are longer than any R_ii tells.
        cuts: the steps between which the s spans lie; or those of each member `(*e, s + 1)`, of which some
            spans may be empty.
    """
    limits = torch.finfo(log_r.dtype)
    bottom = torch.where(log_r == -torch.inf, torch.inf, log_r).amin(-1)
    top = log_r.amax(-1) if longest is None else torch.maximum(longest.log(), log_r.amax(-1))
    # shares of what is bearable
    spreads = (top - bottom) / (-math.log(limits.eps) / 3)
    sizes = torch.maximum(top.abs(), bottom.abs()) / (-0.25 * math.log(limits.tiny))
    share = torch.maximum(spreads, sizes).nan_to_num(torch.inf, torch.inf)
    # without a living column nothing can be lost
    share = torch.where(bottom == torch.inf, 0.0, share)
    now: int | Tensor = 1
    taken: int | Tensor = len(share)
    if isinstance(cuts, Tensor):
        lengths = cuts.diff(dim=-1)
        now, taken = lengths.amax(-1), (lengths > 0).sum(-1)
    else:
        now = max(stop - start for start, stop in itertools.pairwise(cuts))
    allowed = (now / share.amax((0, -1)).clamp_min(1.0)).clamp_min(1.0).long()
    total = torch.cat([torch.zeros_like(share[:1]), share.cumsum(0)])
    for count in MULTIPLES:
        if count > len(share):
            break
        fits = (total[count:] - total[:-count]).amax((0, -1)) <= 1
        fits &= (count * now <= LONGEST) & (count <= taken)
        allowed = torch.where(fits, count * now, allowed)
    return allowed


def _condition(factors: list[Tensor], alive: Tensor, interval: int) -> float:
    """The largest ratio of a column's length to a pivot over all products of `interval` factors."""
    worst = 1.0
    for s in range(0, len(factors) - interval + 1, interval):
        product = factors[s]
        for R in factors[s + 1 : s + interval]:
            product = R @ product
        lengths = torch.linalg.vector_norm(product, dim=-2)
        pivots = product.diagonal(dim1=-2, dim2=-1)
        ratio = torch.where(alive, lengths, 0.0).amax(-1) / torch.where(alive, pivots, torch.inf).amin(-1)
        worst = max(worst, ratio.max().item())
    return worst


@torch.no_grad()
def choose_transient(cell: Cell, inputs: Tensor, h: Tensor, Q: Tensor) -> int:
    """How many steps pass until the growth of the tangent vectors is like that of the rest.

    A rough scan is made longer, twofold each time, until what it says to drop is less than a quarter of it.
    At most half of the inputs are dropped; a warning says when they still drift there. All members get
    the longest transient of any of them.

    Source: Gradient Flossing, appendix J, says that a transient is to be disregarded, and to adapt on short
    runs; where to cut is the rule of White (1997), An effective truncation heuristic for bias reduction in
    simulation output.
    """
    dynamics, dead, done, length = bind(cell, cell.form(), inputs, []), None, 0, 2 * ROUGH
    growth, drop, each = [], 0, spans(0, len(inputs), 1)
    while done < len(inputs):
        more = min(length, len(inputs) - done)
        end = sweep(dynamics, h, Q, dead, each[done : done + more])
        h, Q, dead, done, length = end.h, end.Q, end.dead, done + more, done + more
        growth.append(stack_growth(end.pivots, end.deaths)[0])
        drop = drift(torch.cat(growth))
        if 4 * drop <= done:
            return drop
    if drop >= 0.45 * done:
        warnings.warn(
            f'transient="auto": the growth still drifts after half of the {done} steps; pass more inputs, or '
            "the transient as a number",
            stacklevel=4,
        )
    return drop


def drift(log_r: Tensor) -> int:
    """The number of steps to drop from `log_r (t, *e, b, k)`: the most that any member needs.

    With y_s the growth of the volume that the first j columns span, it minimises over d <= t / 2 the squared
    standard error of what is left, `sum_{s >= d} (y_s - mean)^2 / (t - d)^2`, summed over trajectories and
    multiplied over j: what shows in the volume can be lost in the noise of single columns.
    """
    t = len(log_r)
    y = torch.where(torch.isfinite(log_r[-1]), log_r, 0.0).double().cumsum(-1)
    flat = (FLAT * y[-1:].abs()).square()
    left = torch.arange(t, 0, -1, dtype=y.dtype, device=y.device).reshape(-1, *[1] * (y.dim() - 1))
    # about the mean of the later half, or the difference of squares below would cancel
    y = y - y[t // 2 :].mean(0)
    # sums from s to the end, of which sum (y - mean)^2 = sum y^2 - (sum y)^2 / left
    total, squares = (z.flip(0).cumsum(0).flip(0) for z in (y, y.square()))
    error = ((squares - total.square() / left).clamp_min(0.0) + left * flat) / left.square()
    score = error.sum(-2).clamp_min(torch.finfo(y.dtype).tiny).log().sum(-1)
    return int(score[: t // 2 + 1].argmin(0).max())


@torch.no_grad()
def late_drift(growth: Growth, transient: int, dt: float = 1.0) -> Tensor | None:
    """What a drift of the whole growth, which a rough scan did not see, may change in each exponent.

    The rule of `drift` is asked again with all of the growth. Where it would drop more than an eighth, and
    that moves some mean beyond the error of what is left, a warning says so, and the distances of the means
    `(*e, b, k)`, per unit of time dt, are returned; else None. Transient chaos, say, may end after thousands
    of steps.
    """
    log_r, s = growth.log_r, len(growth.log_r)
    if s < 4 * ROUGH or not _checks.can_look():
        return None
    drop = drift(log_r)
    if 8 * drop <= s:
        return None
    rest = Growth(log_r[drop:], growth.steps[drop:], growth.healthy[drop:])
    moved = (growth.exponents() - rest.exponents()).abs().nan_to_num(0.0)
    if not (moved > torch.maximum(rest.stderr(), FLAT * rest.exponents().abs())).any():
        return None
    steps = int(growth.steps[:drop].sum())
    warnings.warn(
        f'transient="auto" dropped {transient} steps, but the growth drifts over the next {steps} of '
        f"{int(growth.steps.sum())}; the error bars have that in them; pass transient={transient + steps} or "
        "more, and more inputs",
        stacklevel=4,
    )
    return moved / dt
