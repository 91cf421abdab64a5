"""The loss of a model whose cell, readout and loss one fused call can take, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch import kernels
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import AnyForm, LIFForm, linear
from lyaptorch.cells.gate_form import GateForm, differentiable
from lyaptorch.cells.leaky_readout import LeakyReadout
from lyaptorch.cells.readout import Readout
from lyaptorch.cells.unroll import gates_of, once, serving
from lyaptorch.kernels.dispatch import missing
from lyaptorch.kernels.fit import LOSSES, Fitting, Lesson
from lyaptorch.tasks.batch import Batch
from lyaptorch.training.optim import expand

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fused_loss(
    cell: Cell,
    readout: nn.Module,
    loss: str,
    batch: Batch,
    inputs: Tensor,
    h0: Tensor,
    judge: Callable[[Batch, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor] | None:
    """Loss and accuracy `(*e)` of a batch in one call; None where the general path has to do it.

    Args:
        cell: with a `Form` that the CPU kernels can run.
        readout: an affine one of all of the state, or leaky neurons that read spikes.
        loss: by its name in `Model`.
        batch: what counts.
        inputs: of the batch, as `cells.fit` gives them.
        h0: likewise, `(*e, b, N)`.
        judge: loss and accuracy from outputs by autograd, where second derivatives are asked for.
    """
    form = served(cell, loss)
    if form is None or inputs.requires_grad:
        return None
    lesson = lesson_of(cell, form, readout, loss, batch, inputs, h0)
    if lesson is None:
        return None
    leaves = form.trained()

    def again(form: GateForm, own: Sequence[Tensor]) -> Tensor:
        h0, weight, bias = own[:3]
        states = form.states(lesson.inputs, h0)[batch.first :, ..., cell.readable]
        return judge(batch, linear(states, weight) + bias.unsqueeze(-2))[0]

    result: tuple[Tensor, Tensor] = _Fit.apply(  # type: ignore[no-untyped-call]
        form, lesson, leaves, again, h0, lesson.weight, lesson.bias, *leaves
    )
    return result


def served(cell: Cell, loss: str) -> AnyForm | GateForm | None:
    """What the cell computes, where the kernels may know both it and the loss."""
    if torch.compiler.is_compiling() or loss not in LOSSES or missing("cpu") is not None:
        return None
    return cell.form() or gates_of(cell)


def lesson_of(
    cell: Cell,
    form: AnyForm | GateForm,
    readout: nn.Module,
    loss: str,
    batch: Batch,
    inputs: Tensor,
    h0: Tensor,
) -> Lesson | None:
    """What the kernels are asked, or None where they cannot answer; arguments are those of `fused_loss`."""
    recurrence = serving(form, h0)
    if not isinstance(recurrence, kernels.FusedRecurrence) or recurrence.backend != "cpu" or hooked(readout):
        return None
    # a subclass or a parametrised one does what it wants
    spikes = isinstance(form, LIFForm)
    if type(readout) is LeakyReadout and spikes and readout.reads(cell):
        alpha, beta = readout.decays
        decays = (alpha, beta)
    elif type(readout) is Readout and (cell.readable == slice(None) or isinstance(form, GateForm)):
        decays = None
    else:
        return None
    weight, bias = readout.weight, readout.bias
    (*e, b, size), o = h0.shape, weight.shape[-2]
    n = form.weight_hh.shape[-1] if decays or isinstance(form, GateForm) else size
    if tuple(weight.shape) != (*e, o, n) or tuple(bias.shape) != (*e, o):
        return None
    if any((z.dtype, z.device) != (h0.dtype, h0.device) for z in (weight, bias)):
        return None
    answers = answers_of(batch, loss, (len(inputs), *e, b), o, h0.dtype)
    return None if answers is None else Lesson(inputs, *answers, loss, weight, bias, decays)


def hooked(readout: nn.Module) -> bool:
    """Whether calling it does more than its `forward`."""
    return any(getattr(readout, hooks) for hooks in HOOKS)


def answers_of(
    batch: Batch, loss: str, shape: tuple[int, ...], o: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, int] | None:
    """Targets, counts and first of a `Lesson`, or None where there is none of this shape `(t, *e, b)`."""
    targets, counts = batch.targets, batch.counts
    classes = loss == "cross_entropy"
    if classes and o > 1 and targets.shape[-1] == o:
        targets = targets.argmax(-1, keepdim=True)
    if targets.shape != (*shape, 1 if classes else o) or targets.requires_grad or batch.first >= shape[0]:
        return None
    if counts.dim() != len(shape) or any(c not in (1, s) for c, s in zip(counts.shape, shape, strict=True)):
        return None
    if classes:
        # the kernel would look for an output of that number; the general path says which is wrong
        asked = targets[batch.first :].long()
        if not ((asked >= 0) & (asked < o) & (asked == targets[batch.first :])).all():
            return None
        targets = targets.trunc()
    return targets.to(dtype), counts, batch.first


class _Fit(torch.autograd.Function):
    """(h0, R, o, leaves) to loss and accuracy; the gradients of each member's loss are made with it."""

    @staticmethod
    def forward(
        ctx: Any,
        form: AnyForm | GateForm,
        lesson: Lesson,
        leaves: Sequence[Tensor],
        again: Callable[[GateForm, Sequence[Tensor]], Tensor],
        h0: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        fitting = Fitting(form, lesson, h0, leaves, keep=any(ctx.needs_input_grad))
        loss, accuracy = fitting.step()
        ctx.bars, ctx.form, ctx.leaves, ctx.again = fitting.gradients(), form, leaves, again
        ctx.save_for_backward(h0, *tensors)
        ctx.mark_non_differentiable(accuracy)
        return loss, accuracy

    @staticmethod
    def backward(ctx: Any, loss_bar: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and isinstance(ctx.form, GateForm):
            found = differentiable(ctx.form, ctx.leaves, ctx.saved_tensors, ctx.again, loss_bar)
            return None, None, None, None, *found
        bars: list[Tensor | None] = []
        for bar, wanted in zip(ctx.bars, ctx.needs_input_grad[4:], strict=True):
            bars.append(bar * expand(loss_bar, bar) if wanted and bar is not None else None)
        if torch.is_grad_enabled():
            bars = once(bars, ctx.saved_tensors, "take the loss of unroll(..., plain=True)")
        return None, None, None, None, *bars
