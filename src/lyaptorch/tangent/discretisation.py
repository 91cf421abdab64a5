"""Error of a flow's time step: its steps against the same ones taken in pieces, at some moments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells import Cell
from lyaptorch.cells.flow import finer, flows
from lyaptorch.tangent.scan import Span

MOST, SMALL = 64, 1 << 15
"""So many moments are looked at, as long as their states and frames hold no more numbers than this."""
FEWEST, RARELY = 2, 200
"""Of large systems one moment of so many steps, but not fewer than these."""
PIECES = (1, 2, 4)
SLOWEST = 0.9
"""Ratio of successive differences from which on they do not fall: the steps are too long to tell anything."""
NOISE = 100
"""Differences below so many eps are round-off."""
OF_EXPONENT, OF_SPEED = 0.05, 0.005
"""Parts of an exponent, and of the speed at which tangent vectors move, that an error may reach."""


@dataclass
class Moments:
    """The states and frames from which some steps of a scan leave; `sweep` calls it at every span."""

    starts: frozenset[int]
    kept: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, s: int, h: Tensor, Q: Tensor) -> None:
        """Keep what step s leaves from, if it is one of the moments."""
        if s in self.starts:
            self.kept.append((s, h.detach(), Q.detach()))


class Discretisation(NamedTuple):
    """Of every exponent `(*e, b, k)`: its error by the step size, and whether that is small beside it."""

    discretisation: Tensor
    resolved: Tensor


def moments(cell: Cell, over: Sequence[Span], Q: Tensor, after: Tensor | None = None) -> Moments | None:
    """The moments to look at in a scan over `over` that starts at a frame Q; None without a flow.

    With `after`, the steps of each trajectory, there are some before each end.
    """
    if not flows(cell):
        return None
    starts = [span.start for span in over if span.counted]
    count = max(FEWEST, len(starts) // RARELY, min(MOST, SMALL // Q.numel()))
    count = min(count, len(starts))
    # one in each of equal stretches; at no fixed distance, which a period could share
    where = [(i + i * 0.618034 % 1) / count for i in range(count)]
    chosen = {starts[int(w * len(starts))] for w in where}
    end, shortest = starts[-1], starts[-1] if after is None else max(1, int(after.min()))
    while end > shortest:
        end = max(end // 2, shortest)
        own = [start for start in starts if start < end]
        chosen.update(own[int(w * len(own))] for w in where if own)
    return Moments(frozenset(chosen))


@torch.no_grad()
def discretisation(
    cell: Cell, inputs: Tensor, seen: Moments, rates: Tensor, dt: float, after: Tensor | None = None
) -> Discretisation:
    """How far exponents `rates (*e, b, k)`, per unit of time dt, are off by the length of the steps.

    At each moment log R_ii of one step is compared with those of the same step in 2 and in 4 pieces. With
    the mean |differences| d_1 and d_2 of a method that converges, the rest is a geometric series of ratio
    r = d_2 / d_1, and the error d_1 / (1 - r); where they do not fall, it is inf. Local errors are taken to
    add up, which bounds them where they cancel. Cost: 7 steps of all moments at once.

    With `after`, the steps of each trajectory `(b,)` or `(*e, b)`, the moments after its end do not count.
    """
    logs = []
    x = torch.cat([inputs[s] for s, _, _ in seen.kept], -2)
    h, Q = torch.cat([h for _, h, _ in seen.kept], -2), torch.cat([Q for _, _, Q in seen.kept], -3)
    for pieces in PIECES:
        with finer(cell, pieces):
            _, A = cell.pushforward(x, h, Q)
        if pieces == PIECES[-1]:
            speed = torch.linalg.vector_norm(A - Q, dim=-2)
        R = torch.linalg.qr(A).R
        logs.append(R.diagonal(dim1=-2, dim2=-1).abs().log())
    shares = _shares([s for s, _, _ in seen.kept], rates, after)
    seen.kept.clear()
    differences = [(a - b).abs() for a, b in itertools.pairwise(logs)]
    first, second, speed = (_mean(z, shares) for z in (*differences, speed))
    ratio = second / first.clamp_min(torch.finfo(first.dtype).tiny)
    noise = NOISE * torch.finfo(first.dtype).eps
    series = torch.where(ratio < SLOWEST, first / (1 - ratio), torch.inf)
    error = torch.where(second <= noise, first + second, series) / dt
    # a direction that died has no logarithm
    dead = torch.isinf(rates)
    error = torch.where(torch.isnan(error) & ~dead, torch.inf, error).masked_fill(dead, 0.0)
    speed = speed.nan_to_num(0.0).amax(-1, keepdim=True) / dt
    return Discretisation(error, error <= OF_EXPONENT * rates.abs() + OF_SPEED * speed)


def _shares(steps: Sequence[int], rates: Tensor, after: Tensor | None) -> Tensor:
    """The part of its run for which each moment stands, `(*e, moments, b, 1)`; 0 after a trajectory's end.

    Moments stand for the steps up to the next one; where all have all steps, for equal stretches.
    """
    if after is None:
        return rates.new_full((len(steps), 1, 1), 1 / len(steps))
    starts = torch.tensor(steps, device=rates.device).unsqueeze(-1)
    last = after.amax(-1, keepdim=True).unsqueeze(-2).clamp_min(steps[-1] + 1)
    stops = torch.cat([starts[1:].expand(*last.shape[:-2], -1, 1), last], -2)
    spans = (stops.minimum(after.unsqueeze(-2)) - starts).clamp_min(0).to(rates.dtype)
    # NaN where there is none
    return (spans / spans.sum(-2, keepdim=True)).unsqueeze(-1)


def _mean(values: Tensor, shares: Tensor) -> Tensor:
    """Over moments, which lie side by side in the batch `(*e, moments * b, k)`."""
    values = torch.unflatten(values, -2, (shares.shape[-3], -1))
    return torch.where(shares == 0, 0.0, values * shares).sum(-3)
