"""Trajectories: the states of a cell along a sequence of inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Inputs, LastStates, State
from lyaptorch.cells.cell import ADVICE as ADVICE
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import AnyForm, Bars, Form, Ran, linear, time_in_batch, weight_gradients
from lyaptorch.cells.gate_form import GateForm, differentiable

SETTLE_STEPS = 256
Operator: TypeAlias = Callable[[AnyForm, Tensor, Tensor], Tensor | None]
"""The states of a form after each step, from inputs and h0; None where it cannot serve."""


class Recurrence(Protocol):
    """A faster way to run a form over a whole sequence, and back."""

    def serves(self, form: AnyForm | GateForm, h: Tensor) -> bool:
        """Whether it can run `form` on states like `h` and give the gradients of all that is trained."""

    def forward(
        self, form: Any, inputs: Tensor, h0: Tensor, *, keep: bool, first: int = 0
    ) -> tuple[Tensor, Any]:
        """The states after step `first` and later, and what the adjoint needs besides (when `keep`)."""

    def adjoint(self, ran: Ran, states_bar: Tensor) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted), h0 and leaves.

        The states are those that `forward` gave, with cotangents `states_bar`.
        """


def use(recurrence: Recurrence) -> None:
    """From now on let `unroll` use `recurrence` wherever it serves.

    Cells know nothing of kernels: `lyaptorch/__init__.py` brings the two together.
    """
    _recurrences.insert(0, recurrence)


def trace_with(operator: Operator) -> None:
    """From now on let torch.compile see `operator` in place of `unroll` where it serves."""
    _traced.append(operator)


def unroll(cell: Cell, inputs: Inputs, h: State, *, first: int = 0, plain: bool = False) -> LastStates:
    """The states after each step, `(t, *e, b, n)`, differentiable by backpropagation through time.

    Args:
        cell: what evolves; with a `Form` the whole sequence is one hand-written function.
        inputs: `(t, *e, b, m)`.
        h: the state before the first step, `(*e, b, n)`.
        first: leave out the states after the first steps, as many as this; a loss of the last state alone
            costs less with `first=len(inputs) - 1`, because the other cotangents, zeros, are not written.
        plain: use plain autograd all the same, for second derivatives.

    Returns:
        The states `(t - first, *e, b, n)`. Cost O(t b n^2) per network.

    Raises:
        ValueError: if `first` is not a step.

    Example:
        >>> import lyaptorch as lt
        >>> unroll(lt.ElmanCell(2, 5), torch.zeros(7, 1, 2), torch.zeros(1, 5), first=6).shape
        torch.Size([1, 1, 5])
    """
    _checks.unpacked("inputs", inputs)
    first = _checks.integer("first", first, 0, len(inputs) - 1) if first else 0
    # computed once: what the weights were computed from gets its gradient by autograd
    form: AnyForm | GateForm | None = cell.form()
    if not plain and (served := _served(cell, form, inputs, h)) is not None:
        form, recurrence, inputs = served
        # eagerly an operator would cost more
        compiling = torch.compiler.is_compiling()
        every = None if isinstance(form, GateForm) or not compiling else _traced[-1](form, inputs, h)
        if every is not None:
            return every[first:]
        leaves = form.trained()
        states: Tensor = _Unroll.apply(recurrence, form, leaves, first, inputs, h, *leaves)  # type: ignore[no-untyped-call]
        return states
    steps = []
    for x in inputs:
        h = form.step(form.drive(x), h) if isinstance(form, Form) else cell.step(x, h)
        steps.append(h)
    return torch.stack(steps[first:])


def settle(cell: Cell, inputs: Inputs, h: State) -> State:
    """The state after all `inputs`, without gradient; `h` itself where there are none.

    Cost O(t b n^2) per network; memory of 256 steps.

    Raises:
        FloatingPointError: if the state overflows.

    Example:
        >>> import lyaptorch as lt
        >>> settle(lt.RateCell(1, 5, gain=0.5), torch.zeros(200, 1, 1), torch.ones(1, 5)).shape
        torch.Size([1, 5])
    """
    _checks.unpacked("inputs", inputs)
    if len(inputs) == 0:
        return h
    start = h
    with torch.no_grad():
        h = h.detach()
        served = _served(cell, cell.form(), inputs, h)
        # in plain torch a form takes no fewer operations than the step itself, which keeps no trajectory
        if served is None or served[1] is _plain:
            h = cell.last(inputs, h)
        else:
            form, recurrence, own = served
            # in pieces, because only the last state is kept
            for piece in torch.split(own, SETTLE_STEPS):
                h = recurrence.forward(form, piece, h, keep=False)[0][-1]
    if not _checks.all_finite(h):
        raise FloatingPointError(
            f"the state is not finite after step {_overflow(cell, inputs, start)} of the transient: "
            f"{cell.advice}"
        )
    return h


@torch.no_grad()
def _overflow(cell: Cell, inputs: Tensor, h: Tensor) -> int:
    """The number of steps after which the state is not finite, by taking them again."""
    for s, x in enumerate(inputs):
        h = cell.step(x, h)
        if not torch.isfinite(h).all():
            return s + 1
    return len(inputs)


def gates_of(cell: Cell) -> GateForm | None:
    """What a network with gates computes; None of others, and where its steps are to be seen one by one."""
    # forward mode, and what torch.func and torch.compile make of a function
    derived = torch.autograd.forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack()
    return None if torch.compiler.is_compiling() or derived else cell.gate_form()


def _served(
    cell: Cell, form: AnyForm | GateForm | None, inputs: Tensor, h: Tensor
) -> tuple[AnyForm | GateForm, Recurrence, Tensor] | None:
    """A form, what runs it, and inputs of every member and trajectory; None where steps broadcast them."""
    form = gates_of(cell) if form is None else form
    if form is None or inputs.dim() < 3 or (recurrence := serving(form, h)) is None:
        return None
    m, shape, given = form.weight_ih.shape[-1], h.shape[:-1], inputs.shape[1:-1]
    if (inputs.dtype, inputs.device, inputs.shape[-1]) != (h.dtype, h.device, m):
        return None
    # as each step broadcasts them: from the right
    wider = len(shape) - len(given)
    if wider < 0 or any(size not in (1, own) for size, own in zip(given, shape[wider:], strict=True)):
        return None
    if given != shape:
        # a view, whose gradient is summed over whoever shares it
        inputs = inputs.reshape(len(inputs), *[1] * wider, *given, m).expand(len(inputs), *shape, m)
    return form, recurrence, inputs


class _Unroll(torch.autograd.Function):
    """(inputs, h0, leaves) to the states of a form, with backpropagation by hand."""

    @staticmethod
    def forward(
        ctx: Any,
        recurrence: Recurrence,
        form: AnyForm | GateForm,
        leaves: Sequence[Tensor],
        first: int,
        inputs: Tensor,
        h0: Tensor,
        *_: Tensor,
    ) -> Tensor:
        keep = any(ctx.needs_input_grad)
        states, ctx.kept = recurrence.forward(form, inputs, h0, keep=keep, first=first)
        ctx.form, ctx.leaves, ctx.recurrence = form, leaves, recurrence
        ctx.save_for_backward(inputs, h0, states, *leaves)
        return states

    @staticmethod
    def backward(ctx: Any, states_bar: Tensor) -> tuple[Tensor | None, ...]:
        inputs, h0, states, *leaves = ctx.saved_tensors
        if torch.is_grad_enabled() and isinstance(ctx.form, GateForm):
            first = len(inputs) - len(states)
            sources = [inputs, h0, *leaves]
            again = differentiable(
                ctx.form, ctx.leaves, sources, lambda form, own: form.states(*own[:2])[first:], states_bar
            )
            return None, None, None, None, *again
        with torch.no_grad():
            ran = Ran(ctx.form, ctx.leaves, inputs, h0, states, ctx.kept)
            bars = ctx.recurrence.adjoint(ran, states_bar)
        if torch.is_grad_enabled():
            bars = once(bars, ctx.saved_tensors, "call unroll(..., plain=True)")
        return None, None, None, None, *bars


class _Plain:
    """h' = P(h) + c f(W g(h) + drive) in plain torch, on any device, where only weights are trained."""

    def serves(self, form: AnyForm | GateForm, h: Tensor) -> bool:
        # an activation's parameters, and what constants are computed from, have no adjoint here
        trained, weights = form.trained(), form.weights()
        own = isinstance(form, Form) and form.weight_hh.shape[:-2] == h.shape[:-2]
        return own and all(any(z is w for w in weights) for z in trained)

    def forward(
        self, form: Form, inputs: Tensor, h0: Tensor, *, keep: bool, first: int = 0
    ) -> tuple[Tensor, Any]:
        drive = form.drive(inputs)
        states = torch.empty(len(drive), *h0.shape, dtype=h0.dtype, device=h0.device)
        h = h0
        for s, u in enumerate(drive):
            h = form.step(u, h)
            states[s] = h
        return states[first:], (drive, states) if keep else None

    def adjoint(self, ran: Ran, states_bar: Tensor) -> list[Tensor | None]:
        (form, leaves, inputs, h0, counted, (drive, states)), residual = ran, ran.form.residual
        W, coupling, first = form.weight_hh, form.coupling, len(inputs) - len(counted)
        # With o = out_bar the cotangent of h', p = A h and a as in `Form`, transposed step by step:
        #   a_bar = f'(a) c o,  h_bar = g'(h) W^T a_bar + A^T phi'(p) o,
        # and summed over all steps, afterwards, in one product each:
        #   W_bar = a_bar g(h)^T,  A_bar = phi'(p) o h^T,  c_bar = f(a) o,  b_bar = a_bar,  V_bar = a_bar x^T.
        # Plain autograd of `Form.step` takes 1.1 to 1.6 times as long on a CPU (300 steps, 64 states of 80).
        before = torch.cat([h0.unsqueeze(0), states[:-1]])
        values, g1, f1, p1 = before, None, None, None
        # all slopes are known beforehand: only the recursion in h_bar is a loop
        if form.inner is not None:
            values, g1 = form.inner(before), form.inner.slope(before)
        if form.outer is not None or coupling is not None:
            a = linear(values, W) + drive
        if form.outer is not None:
            f1 = form.outer.slope(a)
        if residual is not None and residual.activation is not None:
            p1 = residual.activation.slope(residual.product(before))
        h_bars, a_bars, h_bar = torch.empty_like(states), torch.empty_like(states), torch.zeros_like(h0)
        for s in range(len(states) - 1, -1, -1):
            out_bar = torch.add(h_bar, states_bar[s - first] if s >= first else 0, out=h_bars[s])
            a_bar = form.coupled(out_bar)
            # steps before `first` have no cotangent of their own, only what comes back from later ones
            a_bars[s] = a_bar if f1 is None else a_bar * f1[s]
            h_bar = a_bars[s] @ W
            if g1 is not None:
                h_bar *= g1[s]
            if residual is not None:
                h_bar += residual.transposed().product(out_bar if p1 is None else out_bar * p1[s])
        matrix_bar = coupling_bar = None
        if residual is not None:
            p_bars = h_bars if p1 is None else h_bars * p1
            matrix_bar = residual.gradient(time_in_batch(p_bars), time_in_batch(before))
        if coupling is not None:
            coupling_bar = (h_bars * (a if form.outer is None else form.outer(a))).sum((0, -2))
        W_bar = time_in_batch(a_bars).mT @ time_in_batch(values)
        inputs_bar = linear(a_bars, form.weight_ih.mT) if inputs.requires_grad else None
        bars = Bars(a_bars, h_bar, W_bar, matrix_bar, coupling_bar)
        return [inputs_bar, h_bar, *weight_gradients(form, leaves, inputs, bars)]


_plain: Recurrence = _Plain()
_recurrences = [_plain]
_traced: list[Operator] = []


def serving(form: AnyForm | GateForm, h: Tensor) -> Recurrence | None:
    """The recurrence that runs `form` on states like `h`, if one can."""
    return next((r for r in _recurrences if r.serves(form, h)), None)


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
