"""A long orbit in pieces: the state goes ahead, and pieces of its orbit carry their frames side by side."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells import Cell, settle, unroll
from lyaptorch.tangent.adjoint import TorchEngine
from lyaptorch.tangent.engine import run_scan
from lyaptorch.tangent.error_bars import OF_EXPONENT, OF_SPEED, Moments, moments
from lyaptorch.tangent.growth import ROUND_OFF, Growth, in_spans
from lyaptorch.tangent.replay import Replay
from lyaptorch.tangent.scan import Layout, Outcome, Problem, Span, layout_of, spans

HEAD = 16
"""One part in so many of the counted steps is scanned alone: all pieces start from the frame at its end."""
LEAST = 16
"""Intervals of the shortest piece in which a frame has room to align."""
CHUNKS = 8
"""The warm-up grows by this part of a piece."""
LONGEST = 0.25
"""Part of a piece to which the warm-up may grow."""
BATCHES = 16
"""Of steps, from whose sums the standard error is taken."""
KEPT = 1 << 22
"""Numbers of the states that are kept at a time, where one in a piece is needed."""


class Pieces(NamedTuple):
    """What a scan in pieces finds.

    `outcome` is that of the spans `laid`: all but the uncounted ones that were left out. `warm_up` is for how
    many steps a piece goes on into the next, `seams (*e, b, k)` what may be left of the new start of all
    pieces, in nats of the whole growth, and `seen` are the moments of a flow.
    """

    outcome: Outcome
    laid: Layout
    warm_up: int
    seams: Tensor
    seen: Moments | None

    def taken(self, segments: int, growth: Growth, dt: float) -> dict[str, Any]:
        """What a `Spectrum` says of it; a warning where pieces are too short for what they should tell."""
        seams = self.seams / (growth.steps.sum() * dt)
        rates = growth.exponents(dt).masked_fill(~growth.healthy[-1], 0.0).abs()
        small = OF_EXPONENT * rates + OF_SPEED * rates.amax(-1, keepdim=True)
        large = seams > small.clamp_min(_noise(growth) / (growth.steps.sum() * dt))
        if large.any() and (large & (seams > 2 * growth.stderr(dt))).any():
            warnings.warn(
                f"segments={segments}: after {self.warm_up} steps the frames of successive pieces still "
                f"differ, which may change exponents by {float(seams.max()):.2g}; it is in their error bars; "
                "pass fewer segments, or more inputs",
                stacklevel=4,
            )
        return {"segments": segments, "warm_up": self.warm_up, "seams": seams}


def scan_in_pieces(
    problem: Problem,
    backend: str | None,
    inputs: Tensor,
    h: Tensor,
    Q: Tensor,
    *,
    interval: int,
    segments: int,
) -> Pieces | None:
    """What `run_scan` finds, from `segments` pieces of the orbit, scanned as if they were trajectories.

    The first sixteenth of the counted steps is scanned alone. Then the state goes on alone to the end, and
    from where it passes, pieces of equal length start with the frame that the first part has left. Each goes
    on into the next one, where what it finds takes the place of what that found: until the two agree, or for
    a quarter of a piece. They agree where what they may yet differ by is less than the standard error.

    None where only a scan in one go can tell: of what overflows, at which step; and, with a warning, where a
    direction dies in the new start of a piece, but lives in the piece before.

    Cost: the state's, a sixteenth of the scan, and at most 1.25 times the rest of it in one batch.

    Raises:
        ValueError: where a gradient is asked for, or pieces would be too short.
    """
    _refuse_gradient(problem, inputs, h, Q)
    uncounted = next(span.start for span in problem.over if span.counted)
    first, start, length = _plan(len(inputs), uncounted, interval, segments)
    opening, each = spans(uncounted - first, start - first, interval), spans(0, length, interval)
    starts = range(start, len(inputs), length)
    laid = layout_of(_all_spans(opening, first, each, starts), Q.device)
    seen = moments(problem.cell, laid.over, Q)
    scanner = _Scanner(problem, backend, interval, seen)
    try:
        with torch.no_grad():
            h = settle(problem.cell, inputs[:first], h)
            head = scanner.scan(inputs[first:start], h, Q, opening, [first])
            # trajectories (segments * b), those of one piece side by side
            h = torch.cat([head.h, *_ahead(problem.cell, inputs[start:-length], head.h, length)], -2)
            x = torch.unflatten(inputs[start:], 0, (segments, length)).movedim(0, -3).flatten(-3, -2)
            own = scanner.scan(x, h, torch.cat([head.Q] * segments, -3), each, starts)
            error = _tolerance(in_spans(laid, *_joined(head, own, segments)))
            found, warm_up, left = scanner.go_on(x, h, own, inputs.shape[-2], error)
    except FloatingPointError:
        return None
    if found is None:
        warnings.warn(
            f"segments={segments}: a tangent vector died of the new start of a piece, so the orbit is "
            "scanned in one go; pass fewer segments, a lower k, or float64",
            stacklevel=4,
        )
        return None
    log_r, healthy = _joined(head, found, segments)
    growth = in_spans(laid, log_r, healthy)
    mixed = _mixed(growth.exponents(), start - first + warm_up, Q.shape[-2]) * growth.steps.sum()
    return Pieces(Outcome(log_r, healthy, found.h, found.Q), laid, warm_up, torch.hypot(left, mixed), seen)


def _refuse_gradient(problem: Problem, inputs: Tensor, h: Tensor, Q: Tensor) -> None:
    if not torch.is_grad_enabled():
        return
    leaves = TorchEngine(problem).leaves(inputs[0], h)
    if any(z.requires_grad for z in (inputs, h, Q, *leaves)):
        raise ValueError(
            "segments must be 1 where a gradient is asked for: pieces side by side have none, and in grad "
            "mode the network, inputs, h0 or the frame require one; call it under torch.no_grad()"
        )


def _plan(t: int, uncounted: int, interval: int, segments: int) -> tuple[int, int, int]:
    """The step where the frame starts, that where the pieces start, and the steps of each piece."""
    counted = t - uncounted
    # a frame that is not counted for long needs no longer to align than those of the pieces will have had
    alone = max(1, counted // HEAD)
    rest = t - max(alone, uncounted)
    length = rest // (segments * interval) * interval
    if length < LEAST * interval:
        raise ValueError(
            f"segments must be in 1..{max(1, rest // (LEAST * interval))} for {counted} counted steps, got "
            f"{segments}: in pieces below {LEAST} intervals no frame aligns; pass fewer, or more inputs"
        )
    return max(0, uncounted - alone), t - segments * length, length


def _ahead(cell: Cell, inputs: Tensor, h: Tensor, length: int) -> list[Tensor]:
    """The states every `length` steps."""
    states: list[Tensor] = []
    if cell.form() is not None:
        for block in torch.split(inputs, length * max(1, KEPT // (length * h.numel()))):
            states += unroll(cell, block, states[-1] if states else h)[length - 1 :: length]
    elif type(cell).last is not Cell.last:
        for block in torch.split(inputs, length):
            states.append(cell.last(block, states[-1] if states else h))
    else:
        step = Replay(lambda x, h, _: (cell.step(x, h), h), len(inputs))
        for s, x in enumerate(inputs):
            h, _ = step(x, h, h)
            if (s + 1) % length == 0:
                states.append(h)
    return states


@lru_cache(maxsize=16)
def _all_spans(
    opening: tuple[Span, ...], first: int, each: tuple[Span, ...], starts: range
) -> tuple[Span, ...]:
    """Those of the head, which begins at step `first`, and of pieces that begin at `starts`."""
    head = [Span(first + a, first + z, counted) for a, z, counted in opening]
    return tuple(head + [Span(at + a, at + z, True) for at in starts for a, z, _ in each])


@dataclass(frozen=True)
class _Scanner:
    """How pieces are scanned: as the whole would be."""

    problem: Problem
    backend: str | None
    interval: int
    seen: Moments | None

    def scan(
        self, x: Tensor, h: Tensor, Q: Tensor, over: tuple[Span, ...], starts: Sequence[int] = ()
    ) -> Outcome:
        """Scan pieces that start at the steps `starts`, where moments are looked at."""
        watch = None if self.seen is None or not starts else _at_steps(self.seen, starts)
        problem = replace(
            self.problem, segments=(over,), cut=None, watch=watch, layout=layout_of(over, x.device)
        )
        return run_scan(problem, self.backend, x, h, Q)

    def go_on(
        self, x: Tensor, h: Tensor, own: Outcome, b: int, tolerance: Tensor
    ) -> tuple[Outcome | None, int, Tensor]:
        """Pieces x of b trajectories each, from states h, go on into the next ones, which have found `own`.

        What all have found then; for how many steps; and what may be left, in nats of the whole growth.
        None where what a piece has found died of its start.
        """
        intervals, log_r, healthy = len(own.log_r), own.log_r.clone(), own.healthy.clone()
        before, x, h, Q = own.log_r[..., b:, :], x[..., b:, :], h[..., b:, :], own.Q[..., :-b, :, :]
        most = int(intervals * LONGEST)
        for done in range(0, most, step := intervals // CHUNKS):
            upto = min(done + step, most)
            steps = slice(done * self.interval, upto * self.interval)
            went = self.scan(x[steps], h, Q, spans(0, steps.stop - steps.start, self.interval))
            h, Q = went.h, went.Q
            log_r[done:upto, ..., b:, :], healthy[done:upto, ..., b:, :] = went.log_r, went.healthy
            # of what is dead here or there nothing can be said
            difference = (log_r[:upto, ..., b:, :] - before[:upto]).nan_to_num(0.0, 0.0, 0.0)
            left = _left(torch.unflatten(difference, -2, (-1, b)), intervals)
            if ((left / tolerance).square().mean(-1) <= 1).all():
                break
        died_of_start = went.healthy[-1] & ~own.healthy[upto - 1, ..., b:, :]
        found = Outcome(log_r, healthy, own.h[..., -b:, :], own.Q[..., -b:, :, :])
        return None if died_of_start.any() else found, upto * self.interval, left


def _at_steps(seen: Moments, starts: Sequence[int]) -> Callable[[int, Tensor, Tensor], None]:
    """What `sweep` tells of pieces that start at these steps, told as of the whole."""

    def tell(s: int, h: Tensor, Q: Tensor) -> None:
        b = h.shape[-2] // len(starts)
        for i, start in enumerate(starts):
            if start + s in seen.starts:
                own = slice(i * b, (i + 1) * b)
                seen(start + s, h[..., own, :], Q[..., own, :, :])

    return tell


def _joined(head: Outcome, found: Outcome, segments: int) -> tuple[Tensor, Tensor]:
    """log R and who lives, of the head and of what the pieces found, in the order of time."""
    log_r, healthy = (
        torch.cat([a, torch.unflatten(z, -2, (segments, -1)).movedim(-3, 0).flatten(0, 1)])
        for a, z in ((head.log_r, found.log_r), (head.healthy, found.healthy))
    )
    if healthy.all():
        return log_r, healthy
    # death is for ever, although the next piece started alive
    healthy = healthy.int().cummin(0).values.bool()
    return torch.where(healthy, log_r, -torch.inf), healthy


def _tolerance(growth: Growth) -> Tensor:
    """What may be left in the sum of log R_ii `(*e, b, k)`: about its standard error."""
    # from sums of batches: that of `Growth`, which knows its own uncertainty, costs as much as a small scan
    width = len(growth.log_r) // BATCHES
    batches = torch.unflatten(growth.log_r[-BATCHES * width :], 0, (BATCHES, width)).sum(1)
    error = batches.std(0) * BATCHES**0.5
    return torch.where(growth.healthy[-1], error, torch.inf).clamp_min(_noise(growth))


def _noise(growth: Growth) -> float:
    """Round-off of the sum of log R_ii."""
    return ROUND_OFF * torch.finfo(growth.log_r.dtype).eps * len(growth.log_r)


def _left(difference: Tensor, intervals: int) -> Tensor:
    """What may be left `(*e, b, k)` of `difference (w, *e, pieces, b, k)`, of pieces of so many intervals.

    Of the later half of w, over all pieces: its sum, and as much again at random.
    """
    w = len(difference)
    half = difference[w // 2 :].sum(0)
    total = torch.hypot(half.sum(-3), half.square().sum(-3).sqrt())
    # of a single gap g what is left falls as exp(-g w); of gaps of all sizes as 1 / w, and then each doubling
    # of w has as much of it as the last one, up to the end of the piece
    return total * math.log2(1 + intervals / w)


def _mixed(rates: Tensor, steps: int, n: int) -> Tensor:
    """What neighbours `(*e, b, k)` may yet have of each other's rate after so many steps, per step.

    Two directions whose rates are g apart mix by exp(-g steps), in all pieces alike: there is no difference.
    """
    gap = (rates[..., :-1] - rates[..., 1:]).abs()
    part = (gap * torch.exp(-gap * steps)).nan_to_num(0.0)
    none, k = torch.zeros_like(rates[..., :1]), rates.shape[-1]
    # below the last direction is another one, as near as that above, if there is any
    above, below = torch.cat([none, part], -1), torch.cat([part, part[..., -1:] if 1 < k < n else none], -1)
    return above + below
