"""Choice of the engine of a scan: compiled code, torch with the hand-written adjoint, or autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks, kernels
from lyaptorch.cells import AnyForm, Form, LIFForm
from lyaptorch.cells.unroll import ADVICE, once
from lyaptorch.tangent.adjoint import Problem, Scan, warn_if_exploded
from lyaptorch.tangent.dynamics import CellDynamics, Dynamics, Ended, bind
from lyaptorch.tangent.qr import qr
from lyaptorch.tangent.scan import Span, stack_growth, sweep, twice_over

FUSED = ("cpu", "triton")
"""Backends in compiled code."""


BACKENDS = ("torch", *FUSED, "autograd")


def run_scan(
    problem: Problem, backend: str | None, inputs: Tensor, h: Tensor, Q: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(log_r of every span, healthy, final state, final frame) by the backend asked for, or the fastest."""
    cell, form, ends, seen = problem.cell, problem.form, problem.ends, problem.watch
    compiled = fused(problem, h, backend)
    leaves: list[Tensor] = []
    # under no_grad a Function would still see leaves that require a gradient, and keep its tape
    if torch.is_grad_enabled():
        if form is not None and (compiled is not None or isinstance(form, Form)):
            leaves = form.trained()
        else:
            leaves = cell.leaves(inputs[0], h)
        problem = replace(problem, leaves=tuple(leaves))
    over = tuple(span for segment in problem.segments for span in segment)
    found: tuple[Tensor, Tensor, Tensor, Tensor]
    if backend == "autograd":
        plain: Dynamics = CellDynamics(cell, inputs, [])
        plain = plain if ends is None else Ended(plain, ends)
        end = sweep(plain, h, Q, None, over, method=problem.method, factor=qr, cut=problem.cut, watch=seen)
        found = (*stack_growth(end.pivots, end.deaths), end.h, end.Q.detach())
    elif compiled is not None:
        found = fused_scan(problem, compiled, inputs, h, Q)  # type: ignore[assignment]
    elif torch.is_grad_enabled() and any(z.requires_grad for z in (inputs, h, Q, *leaves)):
        found = Scan.apply(problem, inputs, h, Q, *leaves)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            dynamics = bind(cell, form, inputs, [], ends)
            end = sweep(dynamics, h, Q, None, over, method=problem.method, watch=seen)
        found = (*stack_growth(end.pivots, end.deaths), end.h, end.Q)
    return found


def segments(over: tuple[Span, ...], checkpoint: int | None) -> tuple[tuple[Span, ...], ...]:
    """Consecutive spans of about `checkpoint` steps each."""
    if checkpoint is None:
        return (over,)
    groups: dict[int, list[Span]] = {}
    for span in over:
        groups.setdefault(span.start // checkpoint, []).append(span)
    return tuple(tuple(group) for group in groups.values())


SettingsGiven: TypeAlias = tuple[tuple[int, ...], tuple[bool, ...], int | None, str]
"""What `kernels.Settings` is made of, which torch.compile takes as it is."""
Operator: TypeAlias = Callable[[AnyForm, Tensor, Tensor, Tensor, SettingsGiven], tuple[Tensor, ...] | None]
"""What `scan` returns for a form, from inputs, h and frame; None where it cannot serve."""
_traced: list[Operator] = []


def trace_with(operator: Operator) -> None:
    """From now on let torch.compile see `operator` in place of `scan` where it serves."""
    _traced.append(operator)


def fused(problem: Problem, h: Tensor, backend: str | None) -> str | None:
    """The compiled scan to be used, "cpu" or "triton"; None for neither.

    Raises:
        ValueError: if `backend` insists on one and it cannot serve.
    """
    if backend not in (None, *FUSED):
        return None
    name = backend or ("triton" if h.is_cuda else "cpu")
    reason = _refuses(problem, h, name)
    if reason is not None and backend is not None:
        raise ValueError(f'backend "{backend}" cannot serve: {reason}; pass backend="torch" or leave it out')
    return name if reason is None else None


def _refuses(problem: Problem, h: Tensor, name: str) -> str | None:
    if name == "cpu":
        reason = kernels.cpu_refuses(problem.form, h)
    else:
        # of spiking neurons the frame is twice as long as W
        largest = kernels.LARGEST_FRAME // (2 if isinstance(problem.form, LIFForm) else 1)
        reason = kernels.triton_refuses(problem.form, h, largest)
    if reason is not None:
        return reason
    if len(problem.segments) > 1:
        return "it keeps the whole tape, and checkpoint was given"
    if problem.ends is not None:
        return "it takes all trajectories to one end, and lengths were given"
    if problem.method != "auto":
        return f'it knows qr_method "auto", and {problem.method!r} was given'
    return None


def fused_scan(
    problem: Problem, backend: str, inputs: Tensor, h: Tensor, frame: Tensor
) -> tuple[Tensor, ...]:
    """(log_r of every span, healthy, final state, final frame), differentiable."""
    (over,), form = problem.segments, problem.form
    assert form is not None
    cuts, twice = (0, *(span.stop for span in over)), twice_over(over)
    settings = (cuts, twice, problem.cut, backend)
    # eagerly an operator would cost more
    found = _traced[-1](form, inputs, h, frame, settings) if torch.compiler.is_compiling() else None
    if found is None:
        leaves, how = problem.leaves, kernels.Settings(*settings)
        found = FusedScan.apply(form, leaves, how, inputs, h, frame, *leaves)  # type: ignore[no-untyped-call]
    assert found is not None
    return found


class FusedScan(torch.autograd.Function):
    """(inputs, h0, frame, leaves) to (log_r of every span, healthy, final state, final frame)."""

    @staticmethod
    def forward(
        ctx: Any,
        form: AnyForm,
        leaves: Sequence[Tensor],
        settings: kernels.Settings,
        inputs: Tensor,
        h: Tensor,
        frame: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:
        keep = any(ctx.needs_input_grad)
        (log_r, healthy, end, Q), ctx.tape = forward(form, inputs, h, frame, settings, keep=keep)
        ctx.form, ctx.leaves, ctx.settings = form, leaves, settings
        # the leaves are saved for autograd's check that nobody changed them in place
        ctx.save_for_backward(inputs, h, log_r, healthy, *leaves)
        ctx.mark_non_differentiable(healthy, Q)
        ctx.set_materialize_grads(False)
        return log_r, healthy, end, Q

    @staticmethod
    def backward(
        ctx: Any, log_r_bar: Tensor | None, _healthy: None, state_bar: Tensor | None, _frame: None
    ) -> tuple[Tensor | None, ...]:
        inputs, h0, log_r, healthy, *_leaves = ctx.saved_tensors
        with torch.no_grad():
            c = torch.zeros_like(log_r) if log_r_bar is None else torch.where(healthy, log_r_bar, 0.0)
            h_bar = torch.zeros_like(h0) if state_bar is None else state_bar
            bars = kernels.scan_adjoint(
                ctx.form, ctx.leaves, inputs, h0, ctx.settings, ctx.tape, c, log_r, h_bar
            )
            warn_if_exploded(bars, log_r)
        if torch.is_grad_enabled():
            bars = once(bars, ctx.saved_tensors, 'call lyapunov_spectrum(..., backend="autograd")')
        return None, None, None, *bars


def forward(
    form: AnyForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: kernels.Settings, *, keep: bool
) -> tuple[tuple[Tensor, ...], Any]:
    """The results of `scan`, and the tape, if it is to be kept.

    Raises:
        FloatingPointError: if a state or tangent vector overflows; names the step.
    """
    end = kernels.scan_forward(form, inputs, h, frame, settings, keep=keep)
    if end.broken is not None or end.overflow is not None:
        what, step = (
            ("the state is", (end.overflow or 0) + 1)
            if end.broken is None
            else ("the tangent vectors are", settings.cuts[end.broken + 1])
        )
        raise FloatingPointError(f"{what} not finite after step {step} (the transient not counted): {ADVICE}")
    # the unit pivot of a dead column would read as growth 0
    log_r = torch.where(end.dead, -torch.inf, end.pivots.log())
    if not _checks.can_look():
        # what cannot be said is left in the numbers
        log_r = torch.where(torch.isfinite(end.h).all(-1, keepdim=True), log_r, torch.nan)
    return (log_r, ~end.dead, end.h, end.Q), end.tape
