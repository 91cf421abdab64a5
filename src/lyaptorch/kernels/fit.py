"""Loss, accuracy and gradients of a training step in one fused call, on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm
from lyaptorch.cells.gate_form import GateForm
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
        targets: `(t, *e, b, o)` in the state's dtype; of classes the numbers, o = 1.
        counts: bool, of which trajectory which step counts; broadcasts to `(t, *e, b)`.
        first: no step before counts.
        loss: one of `LOSSES`.
        weight: of the readout, `(*e, o, n)`, or `(*e, o, N)` where the state is read.
        bias: likewise `(*e, o)`.
        decays: of leaky neurons that read spikes, (alpha, beta) of `LeakyReadout`; None: the state is read.
    """

    inputs: Tensor
    targets: Tensor
    counts: Tensor
    first: int
    loss: str
    weight: Tensor
    bias: Tensor
    decays: tuple[float, float] | None = None


class Fitting:
    """A training step without its states leaving the caches, as often as it is asked for.

    Args:
        form: what evolves.
        lesson: what it sees and should answer.
        h0: `(*e, b, N)`.
        leaves: tensors of the form whose gradients are wanted.
        keep: whether there is to be any gradient.
    """

    def __init__(
        self, form: AnyForm | GateForm, lesson: Lesson, h0: Tensor, leaves: Sequence[Tensor], *, keep: bool
    ) -> None:
        (*e, b, _), o = h0.shape, lesson.weight.shape[-2]
        self._h0, self._leaves, self._source = h0, leaves, (lesson.weight, lesson.bias)
        self._args = args = FitArgs(outputs=o, loss=LOSSES.index(lesson.loss))
        args.leaky = int(lesson.decays is not None)
        args.alpha, args.beta = lesson.decays or (0.0, 0.0)
        args.unroll.keep, args.unroll.first = int(keep), lesson.first
        self._handed = handed = KernelArguments(form, lesson.inputs, h0)
        # from here on the arguments are those within
        args.unroll.form = handed.args
        handed.args = args.unroll.form
        self._readout = [z.detach().contiguous() for z in self._source]
        self._sums = torch.empty(prod(e) * -(-b // CHUNK), SUMS, dtype=torch.float64, device="cpu")
        fill(args, R=self._readout[0], offset=self._readout[1], sums=self._sums)
        self._bars: list[Tensor] = []
        if keep:
            handed.gradients(leaves)
            self._bars = [
                torch.empty_like(z, memory_format=torch.contiguous_format) for z in (h0, *self._readout)
            ]
            fill(args, R_bar=self._bars[1], offset_bar=self._bars[2])
            fill(handed.args, h_bar=self._bars[0])
        self._tape = reuse_buffer((tape_size("fit", args, h0.dtype),), torch.uint8)
        fill(handed.args, tape=self._tape)
        self._squared = lesson.loss in ("mean_squared_error", "root_mean_square")
        self._loss, self._accuracy = h0.new_empty(e), h0.new_empty(e)
        fill(args, loss_of=self._loss, right_of=self._accuracy)
        self._answers(lesson.targets, lesson.counts)

    def _answers(self, targets: Tensor, counts: Tensor) -> None:
        e, args = self._handed.e, self._args
        if len(e) > 1:
            targets, counts = targets.flatten(1, -3), counts.expand(-1, *e, -1).flatten(1, -2)
        self._asked = targets, counts
        args.target_step, args.target_member, args.target_row, args.target_column = _strides(targets, 4)
        args.count_step, args.count_member, args.count_row = _strides(counts, 3)
        first: int = args.unroll.first
        args.targets = targets.data_ptr() + first * args.target_step * targets.itemsize
        args.counts = counts.data_ptr() + first * args.count_step

    def see(
        self, form: AnyForm | GateForm, inputs: Tensor, targets: Tensor, counts: Tensor, first: int
    ) -> None:
        """Take other inputs and answers, of the shapes of those before, and what became of the weights.

        `form` has the tensors of the one before, but for decays of neurons.
        """
        self._args.unroll.first = first
        self._handed.hear(inputs)
        self._handed.renew(form)
        self._answers(targets, counts)

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss and accuracy `(*e)`, the same tensors each time. Cost O(t b n^2) per network."""
        call("fit", self._args, self._h0.dtype)
        if self._squared:
            # a perfect answer to constant targets is 0 / 0
            self._accuracy.masked_fill_(self._accuracy.isnan() & ~self._loss.isnan(), -torch.inf)
        return self._loss, self._accuracy

    def gradients(self) -> list[Tensor | None]:
        """Those of each member's own loss by h0, the readout's weight and bias, and the leaves.

        Each None where it was not asked for.
        """
        return [*self._bars, *self._handed.found(self._leaves)[1:]] if self._bars else []

    @property
    def steady(self) -> bool:
        """Whether each step leaves all gradients where they were, and reads the readout where it is."""
        own = {z.data_ptr() for z in (*self._bars, *self._handed.bars())}
        moved = [z.data_ptr() for z in self._readout] != [z.data_ptr() for z in self._source]
        known = all(p.dtype == self._h0.dtype for f in self._handed.form.activations() for p in f.arguments)
        return known and not moved and all(g is not None and g.data_ptr() in own for g in self.gradients())


def _strides(z: Tensor, dims: int) -> list[int]:
    """From one step, member, trajectory and number to the next: in the place of copies of what is shared."""
    strides = [0 if size == 1 else stride for size, stride in zip(z.shape, z.stride(), strict=True)]
    # a single network has no dimension of members
    return strides if len(strides) == dims else [strides[0], 0, *strides[1:]]
