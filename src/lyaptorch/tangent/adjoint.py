"""The log-R adjoint: the gradient of any loss that sees only log R_ii, over a whole sequence.

With c_s the loss gradient with respect to log diag R_s, start from X = Q_T diag(c_T) and go backwards:

    Z = X R_{s+1}^{-T};   D_bar += Z Q_s^T;   X = D_s^T Z + Q_s diag(c_s - c_{s+1})

D_s is never formed: one backward step is the vjp of `pushforward` with the cotangents (h_bar, Z), which
also carries the gradient through the trajectory. Inside an interval of several steps the products D..D Q
are computed again. The strictly upper triangle of Q^T X is exactly zero, but round-off grows there, so it
is projected out whenever the columns' growth has spread by more than `SPREAD` nats.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells import Form
from lyaptorch.cells.unroll import once
from lyaptorch.kernels import Saved, spread
from lyaptorch.tangent.dynamics import Dynamics, bind
from lyaptorch.tangent.growth import LOST
from lyaptorch.tangent.scan import Outcome, Problem, Span, Tape, stack_growth
from lyaptorch.tangent.small import sweep

SPREAD = 2.3
"""Nats by which summed log R_ii may differ between columns before X is projected again."""


class Engine(Protocol):
    """What scans without a graph and pulls cotangents back; `Scan` makes one function of both."""

    def leaves(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        """The tensors with `requires_grad` that a scan depends on beside inputs, state and frame."""

    def forward(self, inputs: Tensor, h: Tensor, frame: Tensor, *, keep: bool) -> tuple[Outcome, Any]:
        """What the scan finds, and the tape, if it is to be kept."""

    def adjoint(
        self, leaves: Sequence[Tensor], saved: Saved, c: Tensor, h_bar: Tensor
    ) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted), h0, frame and leaves.

        They come from `c`, those of log R_ii `(s, *e, b, k)`, and `h_bar`, that of the final state.
        """


class Scan(torch.autograd.Function):
    """(inputs, h0, frame, leaves) to (log_r of every span, healthy, final state, final frame)."""

    @staticmethod
    def forward(ctx: Any, engine: Engine, leaves: Sequence[Tensor], *given: Tensor) -> Outcome:
        inputs, h, frame, *_ = given
        found, ctx.tape = engine.forward(inputs, h, frame, keep=True)
        ctx.engine, ctx.leaves = engine, leaves
        # the leaves are saved for autograd's check that nobody changed them in place
        ctx.save_for_backward(inputs, h, found.log_r, found.healthy, found.Q, *leaves)
        fixed = (found.healthy, found.Q, found.longest)
        ctx.mark_non_differentiable(*(z for z in fixed if z is not None))
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    def backward(
        ctx: Any, log_r_bar: Tensor | None, _healthy: None, h_bar: Tensor | None, *_fixed: None
    ) -> tuple[Tensor | None, ...]:
        inputs, h0, log_r, healthy, Q, *_ = ctx.saved_tensors
        saved = Saved(inputs, h0, log_r, healthy, Q, ctx.tape)
        bars = pull_back(ctx.engine, ctx.leaves, saved, log_r_bar, h_bar)
        if torch.is_grad_enabled():
            bars = once(bars, ctx.saved_tensors, 'call lyapunov_spectrum(..., backend="autograd")')
        return None, None, *bars


@torch.no_grad()
def pull_back(
    engine: Engine, leaves: Sequence[Tensor], saved: Saved, log_r_bar: Tensor | None, h_bar: Tensor | None
) -> list[Tensor | None]:
    """Gradients of inputs (None where not wanted), h0, frame and leaves, None being a cotangent of zero."""
    log_r, h0 = saved.log_r, saved.h0
    with torch.autocast(h0.device.type, enabled=False):
        # of a dead column log R is the constant -inf: whatever came for it goes nowhere
        c = torch.zeros_like(log_r) if log_r_bar is None else torch.where(saved.healthy, log_r_bar, 0.0)
        bars = engine.adjoint(leaves, saved, c, torch.zeros_like(h0) if h_bar is None else h_bar)
        warn_if_exploded(bars, log_r)
    return bars


@dataclass(frozen=True)
class TorchEngine:
    """Any cell, on any device: a tape of states, frames and triangles, and the log-R adjoint by hand."""

    problem: Problem

    def leaves(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        """Those of the form, which may be computed ones, or of the cell."""
        form = self.problem.form
        return form.trained() if isinstance(form, Form) else self.problem.cell.leaves(x, h)

    def forward(self, inputs: Tensor, h: Tensor, frame: Tensor, *, keep: bool) -> tuple[Outcome, Any]:
        """What the scan finds; and where each segment starts from, or the tape of a single one."""
        problem, state, Q = self.problem, h, frame
        dead: Tensor | None = None
        dynamics = bind(problem.cell, problem.form, inputs, (), problem.ends)
        pivots: list[Tensor] = []
        deaths: list[Tensor | None] = []
        starts, tape = [], Tape() if keep and len(problem.segments) == 1 else None
        for segment in problem.segments if keep else (problem.over,):
            starts.append((state, Q, dead))
            end = sweep(
                dynamics, state, Q, dead, segment, method=problem.method, tape=tape, watch=problem.watch
            )
            state, Q, dead = end.h, end.Q, end.dead
            pivots += end.pivots
            deaths += end.deaths
        log_r, healthy = stack_growth(pivots, deaths)
        return Outcome(log_r, healthy, state, Q, _longest(tape, healthy)), (starts, tape)

    def adjoint(
        self, leaves: Sequence[Tensor], saved: Saved, c: Tensor, h_bar: Tensor
    ) -> list[Tensor | None]:
        """The sweep back, segment by segment; what has no tape is scanned once more."""
        problem, Q, (starts, kept) = self.problem, saved.Q, saved.tape
        dynamics = bind(problem.cell, problem.form, saved.inputs, leaves, problem.ends)
        sweep_back = _SweepBack(dynamics, problem.cut, c, saved.log_r)
        # A = Q R pulls back as A_bar = (Q_bar + Q copyltu(M)) R^-T with M = R R_bar^T - Q_bar^T Q. After
        # the last span Q_bar = 0 and R_bar = diag(c / R_ii), so that M is upper with the diagonal c:
        # copyltu(M) = diag(c)
        X = Q * c[-1].unsqueeze(-2)
        for segment, (state, frame, dead) in zip(reversed(problem.segments), reversed(starts), strict=True):
            tape = kept or Tape()
            if kept is None:
                sweep(dynamics, state, frame, dead, segment, method=problem.method, tape=tape)
            X, h_bar = sweep_back.segment(segment, tape, Q, X, h_bar)
            Q = tape.frames[0]
        inputs_bar, leaf_bars = dynamics.bars
        return [inputs_bar, h_bar, X, *leaf_bars]


def _longest(tape: Tape | None, healthy: Tensor) -> Tensor | None:
    """The length `(s, *e, b)` of the longest living column of each span before it was orthonormalised."""
    if tape is None:
        return None
    # of A = Q R a column of R is as long as that of A
    lengths: Tensor = torch.linalg.vector_norm(torch.stack(tape.factors).detach(), dim=-2)
    longest: Tensor = lengths.masked_fill(~healthy, 0.0).amax(-1)
    return longest


class _SweepBack:
    """The backward sweep: takes (X, h_bar) from the end of the sequence to its start."""

    def __init__(self, dynamics: Dynamics, cut: int | None, c: Tensor, log_r: Tensor) -> None:
        self.dynamics, self.cut, self.c = dynamics, cut, c
        self.index = len(c)
        # whether c changes after a span, and X is projected: where nobody can look, on the device
        self.changes = _known((c[1:] != c[:-1]).flatten(1).any(1))
        self.project = _projections(log_r)

    def segment(
        self, segment: tuple[Span, ...], tape: Tape, after: Tensor, X: Tensor, h_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Through the spans of a segment at whose end the frame is `after`."""
        self.dynamics.begin(segment[0].start, tape.states)
        for span, Q, R in zip(reversed(segment), reversed(tape.frames), reversed(tape.factors), strict=True):
            self.index -= 1
            project = self.project[self.index]
            if project is not False:
                # with Q T, T upper triangular, the next factor is R T and all later ones stay: the loss
                # changes by <Q_bar, Q dT> = sum_i c_i dT_ii, so that triu(Q^T X) = diag(c) exactly. Round-off
                # E above it becomes Q_s^T D^T (Q E) R^-T = R^T E R^-T: entry ij grows by R_ii / R_jj, i < j,
                # in every span
                clean = X - after @ torch.triu(after.mT @ X, 1)
                X = clean if project is True else torch.where(project, clean, X)
            # Z of Z R^T = X stands for X from here: R^T is lower triangular and stands on the right
            X = torch.linalg.solve_triangular(R.mT, X, upper=False, left=False)
            products = [Q]
            # Q_s, D Q_s, D D Q_s, ...: not on the tape, which would be as long as the steps, not the spans
            for s in range(span.start, span.stop - 1):
                products.append(self.dynamics.product(s, products[-1]))
            for s in range(span.stop - 1, span.start - 1, -1):
                h_bar, X = self.dynamics.pullback(s, products.pop(), h_bar, X)
                # the step left from h.detach(): X goes on to the step before, h_bar does not
                if self.cut and s % self.cut == 0:
                    h_bar = torch.zeros_like(h_bar)
            # now X is D^T Z, Q_bar of the span before, and by the same invariance triu(Q^T Q_bar) =
            # diag(c_{s+1}): its copyltu(M) is diag(c_s - c_{s+1})
            if self.index > 0 and self.changes[self.index - 1] is not False:
                X = X + Q * (self.c[self.index - 1] - self.c[self.index]).unsqueeze(-2)
            after = Q
        self.dynamics.finish()
        return X, h_bar


def _projections(log_r: Tensor) -> list[Any]:
    """At the end of which spans X is projected; spreads of single spans add up to a bound."""
    spreads = _known(spread(log_r).flatten(1).amax(1))
    project: list[Any] = [False] * len(spreads)
    total: Any = 0.0
    for s in range(len(spreads) - 1, 0, -1):
        # back through span s an error above the diagonal grows at most by exp(spreads[s]); X is projected at
        # the end of span s - 1 once these bounds, since the last time, multiply to more than exp(SPREAD)
        total = total + spreads[s]
        project[s - 1] = total > SPREAD
        # a bool, or a tensor of one
        total = total * (project[s - 1] == 0)
    return project


def _known(values: Tensor) -> list[Any]:
    """Values on the host; where nobody can look, as tensors."""
    return list(values.tolist() if _checks.can_look() else values.unbind())


def warn_if_exploded(bars: Sequence[Tensor | None], log_r: Tensor) -> None:
    """Warn of gradients that are not finite, and say why and what can be done."""
    if all(bar is None or _checks.all_finite(bar) for bar in bars):
        return
    warnings.warn(f"the gradient of the exponents is not finite: {_why(log_r)}", stacklevel=2)


def _why(log_r: Tensor) -> str:
    """The cause of a gradient that is not finite, as far as the growth `(s, *e, b, k)` tells."""
    leading = log_r.mean(0).amax().item()
    if leading > 0:
        return (
            f"through the trajectory of a chaotic network (growth {leading:+.3f} nats per interval) it grows "
            'like exp(lambda_1 t); use fewer steps, state_grad="detach", or state_grad= a truncation length'
        )
    living = torch.where(torch.isfinite(log_r), log_r, torch.inf).flatten(1, -2).amin((0, 1))
    top = torch.where(torch.isfinite(log_r), log_r, -torch.inf).amax()
    # cotangents are divided by R_ii, and are lost where columns lie so far apart
    lost = (living < 0.5 * math.log(torch.finfo(log_r.dtype).tiny)) | (top - living > LOST[log_r.dtype])
    lost &= torch.isfinite(living)
    if lost.any():
        columns = ", ".join(str(i + 1) for i in lost.nonzero()[:, 0].tolist()[:8])
        name = str(log_r.dtype).removeprefix("torch.")
        finer = "" if log_r.dtype == torch.float64 else "use float64, "
        return (
            f"no chaos, but strong contraction: columns {columns} of the frame (from 1) shrink to "
            f"exp({living[lost].min().item():.3g}) in one interval, where {name} has only round-off left; "
            f"{finer}a smaller k, or interval=1"
        )
    return (
        "neither chaos nor round-off explains it: a second derivative of the step is not finite at some "
        "state (sqrt or a division at 0), or the gradient of the loss was not"
    )
