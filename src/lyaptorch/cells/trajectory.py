"""Trajectories: the states of a cell along a sequence of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch._types import Inputs, State, States
from lyaptorch.cells.form import Form, linear, weight_gradients
from lyaptorch.cells.protocol import Cell

ADVICE = "the dynamics overflow; lower the gain or the inputs, or use float64"


def unroll(cell: Cell, inputs: Inputs, h: State, *, plain: bool = False) -> States:
    """The states after each step, `(t, *e, b, n)`, differentiable by backpropagation through time.

    Args:
        cell: what evolves; with a `Form` the whole sequence is one hand-written function.
        inputs: `(t, *e, b, m)`.
        h: the state before the first step, `(*e, b, n)`.
        plain: use plain autograd all the same, for second derivatives.

    Returns:
        The states. Cost O(t b n^2) per network.
    """
    form, leaves = cell.form(), cell.leaves(inputs[0], h)
    if form is not None and not plain and all(any(leaf is w for w in form.weights()) for leaf in leaves):
        states: Tensor = _Unroll.apply(form, tuple(leaves), inputs, h, *leaves)  # type: ignore[no-untyped-call]
        return states
    steps = []
    for x in inputs:
        h = cell.step(x, h)
        steps.append(h)
    return torch.stack(steps)


def settle(cell: Cell, inputs: Inputs, h: State) -> State:
    """The state after all `inputs`, without gradient; `h` itself where there are none.

    Raises:
        FloatingPointError: if the state overflows.
    """
    if len(inputs) == 0:
        return h
    with torch.no_grad():
        h = h.detach()
        for x in inputs:
            h = cell.step(x, h)
    if not torch.isfinite(h).all():
        raise FloatingPointError(
            f"the state is not finite after a transient of {len(inputs)} steps: {ADVICE}"
        )
    return h


class _Unroll(torch.autograd.Function):
    """(inputs, h0, leaves) to all states of h' = f(W g(h) + V x + b), with backpropagation by hand."""

    @staticmethod
    def forward(
        ctx: Any, form: Form, leaves: Sequence[Tensor], inputs: Tensor, h0: Tensor, *_: Tensor
    ) -> Tensor:
        drive = form.drive(inputs)
        states = torch.empty(len(inputs), *h0.shape, dtype=h0.dtype, device=h0.device)
        h = h0
        for s, u in enumerate(drive):
            h = form.step(u, h)
            states[s] = h
        ctx.form, ctx.leaves = form, leaves
        ctx.save_for_backward(inputs, h0, drive, states, *leaves)
        return states

    @staticmethod
    def backward(ctx: Any, states_bar: Tensor) -> tuple[Tensor | None, ...]:
        inputs, h0, drive, states, *_ = ctx.saved_tensors
        form: Form = ctx.form
        with torch.no_grad():
            W = form.weight_hh
            before = torch.cat([h0.unsqueeze(0), states[:-1]])
            values, g1, f1 = before, None, None
            if form.inner is not None:
                values, g1 = form.inner(before), form.inner.slope(before)
            if form.outer is not None:
                f1 = form.outer.slope(linear(values, W) + drive)
            a_bars, h_bar = torch.empty_like(states), torch.zeros_like(h0)
            for s in range(len(states) - 1, -1, -1):
                a_bar = torch.add(h_bar, states_bar[s], out=a_bars[s])
                if f1 is not None:
                    a_bar *= f1[s]
                h_bar = a_bar @ W
                if g1 is not None:
                    h_bar *= g1[s]
            bars = [
                linear(a_bars, form.weight_ih.mT) if ctx.needs_input_grad[2] else None,
                h_bar if ctx.needs_input_grad[3] else None,
                *weight_gradients(form, ctx.leaves, inputs, values, a_bars),
            ]
        if torch.is_grad_enabled():
            bars = once(bars, ctx.saved_tensors, "call unroll(..., plain=True)")
        return None, None, *bars


def once(bars: Sequence[Tensor | None], sources: Sequence[Tensor], advice: str) -> list[Tensor | None]:
    """The gradients `bars`, whose own derivative with respect to `sources` is an error with advice."""
    return [b if b is None else _Once.apply(advice, b, *sources) for b in bars]  # type: ignore[no-untyped-call]


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, advice: str, bar: Tensor, *_: Tensor) -> Tensor:
        ctx.advice = advice
        return bar.clone()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "a whole-sequence function can be differentiated once, and a second derivative was asked for; "
            + ctx.advice
        )
