"""Choice of the engine of a scan: compiled code, torch with the hand-written adjoint, or autograd."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lyaptorch.cells import Form
from lyaptorch.tangent.adjoint import Problem, Scan
from lyaptorch.tangent.dynamics import CellDynamics, Dynamics, bind
from lyaptorch.tangent.ended import Ended
from lyaptorch.tangent.fused import FUSED, fused
from lyaptorch.tangent.fused import scan as fused_scan
from lyaptorch.tangent.qr import qr
from lyaptorch.tangent.scan import Span, stack_growth, sweep

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
