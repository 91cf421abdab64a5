"""Loss, accuracy and gradients of a training step in one fused call, on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm
from lyaptorch.kernels.arguments import KernelArguments
from lyaptorch.kernels.library import FitArgs, call, fill, reuse_buffer, tape_size

LOSSES = ("binary_cross_entropy", "cross_entropy", "mean_squared_error", "root_mean_square")
"""By the kernels' numbers."""
CHUNK, SUMS = 16, 5
"""Trajectories that one unit of work takes, and how many sums it leaves."""


@dataclass(frozen=True)
class Lesson:
    """What a form is asked and how its answers are judged.

    Attributes:
        inputs: `(t, *e, b, m)`.
        targets: `(s, *e, b, o)` of the last s steps, in the state's dtype; of classes the numbers, o = 1.
        counts: bool `(s, *e, b)`, of which trajectory which step counts.
        loss: one of `LOSSES`.
        weight: of the affine readout, `(*e, o, n)`.
        bias: likewise `(*e, o)`.
        decays: of leaky neurons that read spikes, (alpha, beta) of `LeakyReadout`; None: the state is read.
    """

    inputs: Tensor
    targets: Tensor
    counts: Tensor
    loss: str
    weight: Tensor
    bias: Tensor
    decays: tuple[float, float] | None = None


@dataclass(frozen=True)
class Lived:
    """What a lesson gave: loss and accuracy `(*e)`, and gradients, each None where it was not asked for.

    Those are of each member's own loss: of h0, the readout's weight and bias, and the form's leaves.
    """

    loss: Tensor
    accuracy: Tensor
    gradients: list[Tensor | None]


def fit(form: AnyForm, lesson: Lesson, h0: Tensor, leaves: Sequence[Tensor], *, keep: bool) -> Lived:
    """A training step without its states leaving the caches. Cost O(t b n^2) per network.

    Args:
        form: what evolves.
        lesson: what it sees and should answer.
        h0: `(*e, b, N)`.
        leaves: tensors of the form whose gradients are wanted.
        keep: whether there is to be any gradient.
    """
    (*e, b, _), o, t = h0.shape, lesson.weight.shape[-2], len(lesson.inputs)
    handed = KernelArguments(form, lesson.inputs, h0)
    args = FitArgs(outputs=o, loss=LOSSES.index(lesson.loss), leaky=int(lesson.decays is not None))
    args.alpha, args.beta = lesson.decays or (0.0, 0.0)
    readout = {"R": lesson.weight.detach().contiguous(), "offset": lesson.bias.detach().contiguous()}
    # strides in the place of copies: what is drawn is often a view, and masks are the same for many
    targets, counts = _members(lesson.targets, -3, e), _members(lesson.counts, -2, e)
    args.target_step, args.target_member, args.target_row, args.target_column = targets.stride()
    args.count_step, args.count_member, args.count_row = counts.stride()
    args.targets, args.counts = targets.data_ptr(), counts.data_ptr()
    units = prod(e) * -(-b // CHUNK)
    sums = torch.empty(units, SUMS, dtype=torch.float64, device="cpu")
    loss, accuracy = h0.new_empty(e), h0.new_empty(e)
    fill(args, **readout, sums=sums, loss_of=loss, right_of=accuracy)
    bars: list[Tensor] = []
    if keep:
        handed.gradients(leaves)
        bars = [torch.empty_like(z, memory_format=torch.contiguous_format) for z in (h0, *readout.values())]
        fill(args, R_bar=bars[1], offset_bar=bars[2])
        fill(handed.args, h_bar=bars[0])
    args.unroll.form, args.unroll.keep, args.unroll.first = handed.args, int(keep), t - len(lesson.targets)
    tape = reuse_buffer((tape_size("fit", args, h0.dtype),), torch.uint8)
    fill(args.unroll.form, tape=tape)
    call("fit", args, h0.dtype)
    return Lived(loss, accuracy, [*bars, *handed.found(leaves)[1:]] if keep else [])


def _members(z: Tensor, last: int, ensemble: list[int]) -> Tensor:
    """With one dimension for all members, second."""
    return z.flatten(1, last) if ensemble else z.unsqueeze(1)
