"""The compiled scan as operators of torch.library, in the manner of `cells.operators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch.cells.flatten import unflatten
from lyaptorch.cells.operators import own_memory, shaped, spread
from lyaptorch.tangent.adjoint import warn_if_exploded
from lyaptorch.tangent.fused import forward

FORM = "Tensor inputs, Tensor h, Tensor frame, Tensor[] tensors, str plan"
SETTINGS = "int[] cuts, bool[] twice, int? cut, str backend"


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
    """As `fused.scan`, of the form that `pack` made into `tensors` and `plan`."""
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
    _tensors, _plan, _cuts, twice, *_ = given
    log_r = h.new_empty(len(twice), *h.shape[:-1], frame.shape[-1])
    Q = h.new_empty(*h.shape, frame.shape[-1])
    return log_r, torch.empty_like(log_r, dtype=torch.bool), h.new_empty(h.shape), Q


@scan_adjoint.register_fake
def _(inputs: Tensor, h: Tensor, frame: Tensor, tensors: Sequence[Tensor], *given: Any) -> list[Tensor]:
    return shaped([h, frame], inputs, tensors, given[-3])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h, frame, tensors, *ctx.settings = inputs
    ctx.save_for_backward(x, h, frame, *tensors)
    ctx.mark_non_differentiable(output[1], output[3])


def _backward(
    ctx: Any, log_r_bar: Tensor, _healthy: Tensor, h_bar: Tensor, _frame: Tensor
) -> tuple[Any, ...]:
    inputs, h, frame, *tensors = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], *ctx.needs_input_grad[3]]
    bars = scan_adjoint(inputs, h, frame, tensors, *ctx.settings, wanted, log_r_bar, h_bar)
    inputs_bar, past, frame_bar, *tensor_bars = spread(bars, 2, wanted)
    return inputs_bar, past, frame_bar, tensor_bars, *[None] * len(ctx.settings)


scan.register_autograd(_backward, setup_context=_setup)
