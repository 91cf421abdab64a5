"""`unroll` and the compiled scan as operators of torch.library, and their registration.

No tape passes from one to the other, because its size is the recurrence's own affair: the way back begins
with the way forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch.cells.form import AnyForm
from lyaptorch.cells.unroll import serving
from lyaptorch.cells.unroll import trace_with as trace_unroll
from lyaptorch.compile.layout import flatten, unflatten
from lyaptorch.tangent.adjoint import warn_if_exploded
from lyaptorch.tangent.engine import SettingsGiven, forward
from lyaptorch.tangent.engine import trace_with as trace_scan

FORM = "Tensor inputs, Tensor h, Tensor frame, Tensor[] tensors, str layout"
SETTINGS = "int[] cuts, bool[] twice, int? cut, str backend"


@torch.library.custom_op(
    "lyaptorch::unroll",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str layout) -> Tensor",
)
def unroll(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str) -> Tensor:
    """The states `(t, *e, b, n)` of the form that `flatten` made `tensors` and `layout`; differentiable."""
    form = unflatten(tensors, layout)
    recurrence = serving(form, h0)
    assert recurrence is not None
    with torch.no_grad():
        return recurrence.forward(form, inputs, h0, keep=False)[0].contiguous()


@torch.library.custom_op(
    "lyaptorch::unroll_adjoint",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str layout, bool[] wanted, Tensor bar) -> Tensor[]",
)
def unroll_adjoint(
    inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str, wanted: Sequence[bool], bar: Tensor
) -> list[Tensor]:
    """Gradients of h0 and of those of (inputs, *tensors) that are wanted, from cotangents of the states."""
    form, inputs = unflatten(tensors, layout, wanted[1:]), inputs.detach().requires_grad_(wanted[0])
    recurrence = serving(form, h0)
    assert recurrence is not None
    with torch.no_grad():
        states, kept = recurrence.forward(form, inputs, h0, keep=True)
        return own_memory(recurrence.adjoint(form, form.trained(), inputs, h0, states, kept, bar))


@unroll.register_fake
def _(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str) -> Tensor:
    return h0.new_empty(inputs.shape[0], *h0.shape)


@unroll_adjoint.register_fake
def _(
    inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str, wanted: Sequence[bool], bar: Tensor
) -> list[Tensor]:
    return shaped([h0], inputs, tensors, wanted)


def _unroll_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, h0, tensors, ctx.layout = inputs
    ctx.save_for_backward(x, h0, *tensors)


def _unroll_backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
    inputs, h0, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2]]
    bars = unroll_adjoint(inputs, h0, tensors, ctx.layout, wanted, bar)
    inputs_bar, h_bar, *tensor_bars = spread(bars, 1, wanted)
    return inputs_bar, h_bar, tensor_bars, None


unroll.register_autograd(_unroll_backward, setup_context=_unroll_setup)


@torch.library.custom_op(
    "lyaptorch::scan", mutates_args=(), schema=f"({FORM}, {SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)"
)
def scan(
    inputs: Tensor,
    h: Tensor,
    frame: Tensor,
    tensors: Sequence[Tensor],
    layout: str,
    cuts: Sequence[int],
    twice: Sequence[bool],
    cut: int | None,
    backend: str,
) -> tuple[Tensor, ...]:
    """As `fused.scan`, of the form that `flatten` made into `tensors` and `layout`."""
    settings = kernels.Settings(tuple(cuts), tuple(twice), cut, backend)
    with torch.no_grad():
        found, _ = forward(unflatten(tensors, layout), inputs, h, frame, settings, keep=False)
    return tuple(z.contiguous() for z in found)


@torch.library.custom_op(
    "lyaptorch::scan_adjoint",
    mutates_args=(),
    schema=f"({FORM}, {SETTINGS}, bool[] wanted, Tensor log_r_bar, Tensor h_bar) -> Tensor[]",
)
def scan_adjoint(
    inputs: Tensor,
    h: Tensor,
    frame: Tensor,
    tensors: Sequence[Tensor],
    layout: str,
    cuts: Sequence[int],
    twice: Sequence[bool],
    cut: int | None,
    backend: str,
    wanted: Sequence[bool],
    log_r_bar: Tensor,
    h_bar: Tensor,
) -> list[Tensor]:
    """Gradients of h, of the frame and of those of (inputs, *tensors) that are wanted."""
    settings = kernels.Settings(tuple(cuts), tuple(twice), cut, backend)
    form, inputs = unflatten(tensors, layout, wanted[1:]), inputs.detach().requires_grad_(wanted[0])
    with torch.no_grad():
        (log_r, healthy, *_), tape = forward(form, inputs, h, frame, settings, keep=True)
        c = torch.where(healthy, log_r_bar, 0.0)
        bars = kernels.scan_adjoint(form, form.trained(), inputs, h, settings, tape, c, log_r, h_bar)
        warn_if_exploded(bars, log_r)
        return own_memory(bars)


@scan.register_fake
def _(inputs: Tensor, h: Tensor, frame: Tensor, *given: Any) -> tuple[Tensor, ...]:
    _tensors, _layout, _cuts, twice, *_ = given
    log_r = h.new_empty(len(twice), *h.shape[:-1], frame.shape[-1])
    Q = h.new_empty(*h.shape, frame.shape[-1])
    return log_r, torch.empty_like(log_r, dtype=torch.bool), h.new_empty(h.shape), Q


@scan_adjoint.register_fake
def _(inputs: Tensor, h: Tensor, frame: Tensor, tensors: Sequence[Tensor], *given: Any) -> list[Tensor]:
    return shaped([h, frame], inputs, tensors, given[-3])


def _scan_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h, frame, tensors, *ctx.settings = inputs
    ctx.save_for_backward(x, h, frame, *tensors)
    ctx.mark_non_differentiable(output[1], output[3])


def _scan_backward(
    ctx: Any, log_r_bar: Tensor, _healthy: Tensor, h_bar: Tensor, _frame: Tensor
) -> tuple[Any, ...]:
    inputs, h, frame, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3]]
    bars = scan_adjoint(inputs, h, frame, tensors, *ctx.settings, wanted, log_r_bar, h_bar)
    inputs_bar, past, frame_bar, *tensor_bars = spread(bars, 2, wanted)
    return inputs_bar, past, frame_bar, tensor_bars, *[None] * len(ctx.settings)


scan.register_autograd(_scan_backward, setup_context=_scan_setup)


def own_memory(bars: Sequence[Tensor | None]) -> list[Tensor]:
    """Those of the gradients that there are, each in memory of its own, as operators must return them."""
    return [z.clone(memory_format=torch.contiguous_format) for z in bars if z is not None]


def shaped(
    always: Sequence[Tensor], inputs: Tensor, tensors: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """What `own_memory` returns, as torch.compile asks for it: shapes only."""
    first, *rest = wanted
    like = [*([inputs] if first else []), *always, *(z for z, w in zip(tensors, rest, strict=True) if w)]
    return [z.new_empty(z.shape) for z in like]


def spread(bars: Sequence[Tensor], always: int, wanted: Sequence[bool]) -> list[Tensor | None]:
    """The same with None for each that was not wanted; those that always come stand second."""
    each, (first, *rest) = iter(bars), wanted
    return [next(each) if w else None for w in (first, *[True] * always, *rest)]


def register() -> None:
    """From now on let torch.compile see these operators wherever a form is unrolled or scanned."""
    trace_unroll(_unrolled)
    trace_scan(_scanned)


def _unrolled(form: AnyForm, inputs: Tensor, h0: Tensor) -> Tensor | None:
    flat = flatten(form)
    return None if flat is None else unroll(inputs, h0, *flat)


def _scanned(
    form: AnyForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: SettingsGiven
) -> tuple[Tensor, ...] | None:
    flat = flatten(form)
    return None if flat is None else scan(inputs, h, frame, *flat, *settings)
