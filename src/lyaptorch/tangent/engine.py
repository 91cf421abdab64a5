"""The engine of a scan: which one is taken, why not each other one, and the scan by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks, kernels
from lyaptorch._caller import measures
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._types import Inputs
from lyaptorch.cells import AnyForm, Cell, Network, as_cell
from lyaptorch.cells.unroll import ADVICE
from lyaptorch.tangent.adjoint import Engine, Scan, TorchEngine
from lyaptorch.tangent.dynamics import Ends, bind
from lyaptorch.tangent.qr import METHODS, qr
from lyaptorch.tangent.scan import Layout, Outcome, Problem, Span, spans, stack_growth, sweep
from lyaptorch.tangent.start import fit_padded

ENGINES = ("cpu", "triton", "torch", "autograd")
"""All of them, by the names that `backend` has for them."""


@measures
def engines(
    cell: Network,
    inputs: Inputs | PackedSequence | Padded,
    *,
    h0: Any = None,
    lengths: Lengths = None,
    checkpoint: int | None = None,
    qr_method: str = "auto",
) -> dict[str, str]:
    """Of each engine of `lyapunov_spectrum` what it would do with these arguments, and why not more.

    The reason is that with which an explicit `backend` is refused. Nothing is scanned.

    Costs a probe of the step, if it is not ours.

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`.
        h0: initial state.
        lengths: steps of each trajectory.
        checkpoint: it counts where it is less than the number of steps.
        qr_method: "auto", "cholesky2" or "householder".

    Returns:
        For "cpu", "triton", "torch" and "autograd" either "chosen" (`backend=None` takes it), "serves"
        (`backend` may ask for it), or the reason why it cannot serve.

    Raises:
        ValueError: as `lyapunov_spectrum` does.

    Example:
        >>> import lyaptorch as lt
        >>> found = lt.tangent.engines(torch.nn.GRU(2, 8), torch.zeros(20, 1, 2))
        >>> found["torch"], found["autograd"]
        ('chosen', 'serves')
    """
    _checks.choice("qr_method", qr_method, METHODS)
    cell = as_cell(cell)
    inputs, h, after = fit_padded(cell, padded(inputs, lengths), h0)
    ends = None if after is None else Ends(after, h, None)
    over = segments(spans(0, len(inputs), 1), checkpoint)
    problem = Problem(cell, cell.form(), over, None, qr_method, ends=ends)
    taken = choose(problem, h, None)
    return {name: "chosen" if name == taken else refusal(problem, h, name) or "serves" for name in ENGINES}


def choose(problem: Problem, h: Tensor, backend: str | None) -> str:
    """The engine asked for, or the fastest that is taken by itself where h lies.

    Raises:
        ValueError: if `backend` insists on one that cannot serve; says why.
    """
    name = kernels.preferred(h) if backend is None else backend
    reason = refusal(problem, h, name)
    if reason is not None and backend is not None:
        raise ValueError(f'backend "{backend}" cannot serve: {reason}; pass backend="torch" or leave it out')
    return name if reason is None else "torch"


def refusal(problem: Problem, h: Tensor, name: str) -> str | None:
    """Why an engine cannot serve a problem with states like h; None if it can, as torch always does."""
    if name in ("torch", "autograd"):
        return None
    if (reason := kernels.refusal(name, problem.form, h, frame=True)) is not None:
        return reason
    if len(problem.segments) > 1:
        return "it keeps the whole tape, and checkpoint was given"
    if problem.ends is not None:
        return "it takes all trajectories to one end, and lengths were given"
    if problem.method != "auto":
        return f'it knows qr_method "auto", and {problem.method!r} was given'
    return None


def run_scan(problem: Problem, backend: str | None, inputs: Tensor, h: Tensor, Q: Tensor) -> Outcome:
    """The scan by the engine asked for, or by the fastest; differentiable.

    Raises:
        ValueError: if `backend` insists on an engine that cannot serve.
        FloatingPointError: if a state or tangent vector overflows; names the step.
    """
    name = choose(problem, h, backend)
    if name == "autograd":
        return _by_autograd(problem, inputs, h, Q)
    engine: Engine = TorchEngine(problem)
    if name != "torch":
        assert problem.form is not None
        assert problem.layout is not None
        settings = kernels.Settings(problem.layout.cuts, problem.layout.twice, problem.cut, name)
        # eagerly an operator would cost more
        if torch.compiler.is_compiling():
            found = _traced[-1](problem.form, inputs, h, Q, settings)
            if found is not None:
                return Outcome(*found)
        engine = FusedEngine(problem.form, settings)
    # under no_grad a Function would still see leaves that require a gradient, and keep its tape
    if torch.is_grad_enabled():
        leaves = engine.leaves(inputs[0], h)
        if any(z.requires_grad for z in (inputs, h, Q, *leaves)):
            return Outcome(*Scan.apply(engine, leaves, inputs, h, Q, *leaves))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return engine.forward(inputs, h, Q, keep=False)[0]


def problem_of(
    cell: Cell,
    h: Tensor,
    laid: Layout,
    after: Tensor | None,
    *,
    watch: Any = None,
    cut: int | None = None,
    checkpoint: int | None = None,
    qr_method: str = "auto",
) -> Problem:
    """That of a cell at a state h, whose trajectories end after `after` steps, if not all together."""
    # where trajectories end apart the cut is `Ended`'s: a sweep would cut what is over, too
    ends = None if after is None else Ends(after, h.detach(), cut)
    if ends is not None:
        # a single pass of Cholesky leaves an error for the next factor to cancel: here none may follow
        cut, qr_method = None, "cholesky2" if qr_method == "auto" else qr_method
    return Problem(cell, cell.form(), segments(laid.over, checkpoint), cut, qr_method, watch, ends, laid)


def _by_autograd(problem: Problem, inputs: Tensor, h: Tensor, Q: Tensor) -> Outcome:
    """Plain autograd through every step and every QR."""
    end = sweep(
        # not of the form, whose pullback autograd does not need
        bind(problem.cell, None, inputs, [], problem.ends),
        h,
        Q,
        None,
        problem.over,
        method=problem.method,
        factor=qr,
        cut=problem.cut,
        watch=problem.watch,
    )
    return Outcome(*stack_growth(end.pivots, end.deaths), end.h, end.Q.detach())


def segments(over: tuple[Span, ...], checkpoint: int | None) -> tuple[tuple[Span, ...], ...]:
    """Consecutive spans of about `checkpoint` steps each."""
    if checkpoint is None:
        return (over,)
    steps = _checks.integer("checkpoint", checkpoint, 1)
    return tuple(tuple(group) for _, group in itertools.groupby(over, lambda span: span.start // steps))


Operator: TypeAlias = Callable[[AnyForm, Tensor, Tensor, Tensor, kernels.Settings], tuple[Tensor, ...] | None]
"""What `FusedEngine` finds for a form, from inputs, h and frame; None where it cannot serve."""
_traced: list[Operator] = []


def trace_with(operator: Operator) -> None:
    """From now on let torch.compile see `operator` in place of `FusedEngine` where it serves."""
    _traced.append(operator)


@dataclass(frozen=True)
class FusedEngine:
    """A form in compiled code, on a CPU or a GPU, as the settings say."""

    form: AnyForm
    settings: kernels.Settings

    def leaves(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        """Those of the form, which may be computed ones."""
        return self.form.trained()

    def forward(self, inputs: Tensor, h: Tensor, frame: Tensor, *, keep: bool) -> tuple[Outcome, Any]:
        """What the scan finds, and the kernels' tape, if it is to be kept.

        Raises:
            FloatingPointError: if a state or tangent vector overflows; names the step.
        """
        end = kernels.scan_forward(self.form, inputs, h, frame, self.settings, keep=keep)
        if end.broken is not None or end.overflow is not None:
            what, step = "the state is", (end.overflow or 0) + 1
            if end.broken is not None:
                what, step = "the tangent vectors are", self.settings.cuts[end.broken + 1]
            raise FloatingPointError(
                f"{what} not finite after step {step} (the transient not counted): {ADVICE}"
            )
        # the unit pivot of a dead column would read as growth 0
        log_r = torch.where(end.dead, -torch.inf, end.pivots.log())
        if not _checks.can_look():
            # what cannot be said is left in the numbers
            log_r = torch.where(torch.isfinite(end.h).all(-1, keepdim=True), log_r, torch.nan)
        return Outcome(log_r, ~end.dead, end.h, end.Q, end.longest), end.tape

    def adjoint(
        self, leaves: Sequence[Tensor], saved: kernels.Saved, c: Tensor, h_bar: Tensor
    ) -> list[Tensor | None]:
        """As `Engine` says, by the kernels."""
        return kernels.scan_adjoint(self.form, leaves, self.settings, saved, c, h_bar)
