"""`unroll` as operators of torch.library: what torch.compile sees in place of code it cannot trace.

No tape passes from one to the other, because its size is the recurrence's own affair: the way back begins
with the way forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch.cells.flatten import unflatten
from lyaptorch.cells.unroll import serving


@torch.library.custom_op(
    "lyaptorch::unroll",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str plan) -> Tensor",
)
def unroll(inputs: Tensor, h0: Tensor, tensors: Sequence[Tensor], layout: str) -> Tensor:
    """The states `(t, *e, b, n)` of the form that `pack` made into `tensors` and `plan`; differentiable."""
    form = unflatten(tensors, layout)
    recurrence = serving(form, h0)
    assert recurrence is not None
    with torch.no_grad():
        return recurrence.forward(form, inputs, h0, keep=False)[0].contiguous()


@torch.library.custom_op(
    "lyaptorch::unroll_adjoint",
    mutates_args=(),
    schema="(Tensor inputs, Tensor h0, Tensor[] tensors, str plan, bool[] wanted, Tensor bar) -> Tensor[]",
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


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, h0, tensors, ctx.layout = inputs
    ctx.save_for_backward(x, h0, *tensors)


def _backward(ctx: Any, bar: Tensor) -> tuple[Any, ...]:
    inputs, h0, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[2]]
    bars = unroll_adjoint(inputs, h0, tensors, ctx.layout, wanted, bar)
    inputs_bar, h_bar, *tensor_bars = spread(bars, 1, wanted)
    return inputs_bar, h_bar, tensor_bars, None


unroll.register_autograd(_backward, setup_context=_setup)


def own_memory(bars: Sequence[Tensor | None]) -> list[Tensor]:
    """Those of the gradients that there are, each in memory of its own, as operators must return them."""
    return [z.clone(memory_format=torch.contiguous_format) for z in bars if z is not None]


def shaped(
    always: Sequence[Tensor], inputs: Tensor, tensors: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """What `apart` returns, as torch.compile asks for it: shapes only."""
    first, *rest = wanted
    like = [*([inputs] if first else []), *always, *(z for z, w in zip(tensors, rest, strict=True) if w)]
    return [z.new_empty(z.shape) for z in like]


def spread(bars: Sequence[Tensor], always: int, wanted: Sequence[bool]) -> list[Tensor | None]:
    """The same with None for each that was not wanted; those that always come stand second."""
    each, (first, *rest) = iter(bars), wanted
    return [next(each) if w else None for w in (first, *[True] * always, *rest)]
