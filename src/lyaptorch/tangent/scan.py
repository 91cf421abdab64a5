"""The scan: carry a state and a frame along a trajectory, reorthonormalising every few steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells import AnyForm, Cell
from lyaptorch.tangent.dynamics import Dynamics, Ends
from lyaptorch.tangent.qr import Factors, orthonormalise


class Span(NamedTuple):
    """Steps start .. stop - 1, with one reorthonormalisation at the end."""

    start: int
    stop: int
    counted: bool


@lru_cache(maxsize=16)
def spans(tangent_transient: int, steps: int, interval: int) -> tuple[Span, ...]:
    """Cut `steps` steps into intervals; the uncounted ones end exactly where counting begins."""
    cuts = [*range(0, tangent_transient, interval), *range(tangent_transient, steps, interval), steps]
    return tuple(Span(a, b, a >= tangent_transient) for a, b in itertools.pairwise(cuts))


def twice_over(over: Sequence[Span]) -> tuple[bool, ...]:
    """After which spans the frame must be orthonormal to round-off.

    Errors of a single Cholesky pass cancel in the next factor; not where none follows, or none is counted.
    """
    # Q R of one pass is exact, Q^T Q = 1 is not: R_{s+1} R_s is right, R_s alone and Q alone are off by up to
    # 40^2 eps. So the last factor, and the last before counting begins, are made in two passes
    after = [*(span.counted for span in over[1:]), None]
    return tuple(span.counted != following for span, following in zip(over, after, strict=True))


class Layout(NamedTuple):
    """Spans, and what every scan over them asks.

    Attributes:
        over: the spans.
        cuts: the steps between which they lie.
        twice: as `twice_over`.
        uncounted: how many of them, the first ones, are not counted.
        steps: `(s,)`, steps of each of the others.
        stops: the step at which each of all spans ends.
    """

    over: tuple[Span, ...]
    cuts: tuple[int, ...]
    twice: tuple[bool, ...]
    uncounted: int
    steps: Tensor
    stops: Tensor


@lru_cache(maxsize=64)
def layout(tangent_transient: int, steps: int, interval: int, device: torch.device) -> Layout:
    """That of `spans`."""
    return layout_of(spans(tangent_transient, steps, interval), device)


@lru_cache(maxsize=16)
def layout_of(over: tuple[Span, ...], device: torch.device) -> Layout:
    """That of any spans, on the device once and for all: a captured graph copies nothing from the host."""
    first = sum(not span.counted for span in over)
    counted = torch.tensor([s.stop - s.start for s in over[first:]], device=device)
    cuts = (over[0].start, *(span.stop for span in over))
    return Layout(over, cuts, twice_over(over), first, counted, torch.tensor(cuts[1:], device=device))


@dataclass(frozen=True)
class Problem:
    """What is scanned and how.

    Attributes:
        cell: what evolves.
        form: the same as data, computed once, where it has that shape.
        segments: the spans, cut into the pieces that are recomputed one at a time (one piece: none is).
        cut: detach the state every `cut` steps; None for never.
        method: how to orthonormalise.
        watch: told where the spans start from, as `sweep` says.
        ends: where trajectories end, if not all together; then `cut` is theirs.
        layout: of all spans, where it is known.
    """

    cell: Cell
    form: AnyForm | None
    segments: tuple[tuple[Span, ...], ...]
    cut: int | None
    method: str
    watch: Callable[[int, Tensor, Tensor], None] | None = None
    ends: Ends | None = None
    layout: Layout | None = None

    @property
    def over(self) -> tuple[Span, ...]:
        """All spans."""
        return self.layout.over if self.layout else tuple(itertools.chain.from_iterable(self.segments))


class Outcome(NamedTuple):
    """What a scan finds: log R_ii of every span `(s, *e, b, k)`, who lives, the final state and frame.

    `longest (s, *e, b)` is the length of the longest living column before each orthonormalisation, or None.
    """

    log_r: Tensor
    healthy: Tensor
    h: Tensor
    Q: Tensor
    longest: Tensor | None = None


@dataclass
class Tape:
    """What the forward sweep leaves for the backward one: a state per step, a frame and an R per span."""

    states: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    factors: list[Tensor] = field(default_factory=list)


class Sweep(NamedTuple):
    """The end of a sweep: state, frame and dead columns; per span the diagonal of R and the dead columns."""

    h: Tensor
    Q: Tensor
    dead: Tensor | None
    pivots: list[Tensor]
    deaths: list[Tensor | None]


def sweep(
    dynamics: Dynamics,
    h: Tensor,
    Q: Tensor,
    dead: Tensor | None,
    over: Sequence[Span],
    *,
    method: str = "auto",
    factor: Callable[..., Factors] = orthonormalise,
    cut: int | None = None,
    tape: Tape | None = None,
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Sweep:
    """Scan forwards over the spans `over`. Cost O(t n^2 k + s n k^2) per trajectory of a dense cell.

    Args:
        dynamics: the cell, bound to its inputs.
        h: state `(*e, b, n)` before the first span.
        Q: frame `(*e, b, n, k)`.
        dead: `(*e, b, k)` columns already dead, or None.
        over: the spans.
        method: how to orthonormalise.
        factor: `orthonormalise`, or `qr` for plain autograd.
        cut: detach the state every `cut` steps (plain autograd only).
        tape: filled with what the adjoint needs, when given.
        watch: called with the first step, the state and the frame of every span.

    Raises:
        FloatingPointError: if a state or tangent vector overflows; names the step.
    """
    pivots: list[Tensor] = []
    deaths: list[Tensor | None] = []
    start, twice = (h, Q), twice_over(over)
    for i, span in enumerate(over):
        if tape is not None:
            tape.frames.append(Q)
        if watch is not None:
            watch(span.start, h, Q)
        for s in range(span.start, span.stop):
            # Q keeps its history: only the trajectory is cut
            if cut and s % cut == 0:
                h = h.detach()
            if tape is not None:
                tape.states.append(h)
            h, Q = dynamics.pushforward(s, h, Q)
        try:
            Q, R, dead = factor(Q, dead, "cholesky2" if twice[i] and method == "auto" else method)
        except FloatingPointError as error:
            # NaN tangent vectors may come of a state that overflowed before them: then that is named
            _raise_if_overflown(dynamics, h, *start, over)
            raise FloatingPointError(
                f"{error} after step {span.stop} (the transient not counted): {dynamics.advice}"
            ) from error
        if tape is not None:
            tape.factors.append(R)
        # all that exponents and adjoint see of R: det of the first i columns is the product of R_11 .. R_ii
        pivots.append(R.diagonal(dim1=-2, dim2=-1))
        deaths.append(dead)
    if not _checks.can_look():
        # what cannot be said is left in the numbers
        pivots[-1] = torch.where(torch.isfinite(h).all(-1, keepdim=True), pivots[-1], torch.nan)
    _raise_if_overflown(dynamics, h, *start, over)
    return Sweep(h, Q, dead, pivots, deaths)


def stack_growth(pivots: Sequence[Tensor], deaths: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """`log R_ii (s, *e, b, k)`, -inf where dead, and the mask of the living."""
    diagonal = torch.stack(list(pivots))
    # death is for ever (`qr` takes the dead columns of the span before): who lives at the end lived all along
    if deaths[-1] is None:
        return diagonal.log(), torch.ones_like(diagonal, dtype=torch.bool)
    none = torch.zeros_like(deaths[-1])
    dead = torch.stack([none if d is None else d for d in deaths])
    return torch.where(dead, -torch.inf, diagonal.log()), ~dead


@torch.no_grad()
def _raise_if_overflown(dynamics: Dynamics, end: Tensor, h: Tensor, Q: Tensor, over: Sequence[Span]) -> None:
    """Name the step after which the state is not finite, if it ends so, by taking the steps again."""
    if not _checks.can_look() or torch.isfinite(end).all():
        return
    for s in range(over[0].start, over[-1].stop):
        h, _ = dynamics.pushforward(s, h, Q[..., :1])
        if not torch.isfinite(h).all():
            break
    raise FloatingPointError(
        f"the state is not finite after step {s + 1} (the transient not counted): {dynamics.advice}"
    )
