"""The fused recurrence of a form and backpropagation through it, on tensors, for each kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm
from lyaptorch.kernels.arguments import KernelArguments
from lyaptorch.kernels.dispatch import cpu_refuses, triton_refuses
from lyaptorch.kernels.footprint import check_memory, unroll_need
from lyaptorch.kernels.library import UnrollArgs, call, fill, members_of, reuse_buffer, tape_size

LARGEST = 1024
"""Units of the largest network that Triton unrolls: a row of it must fit the registers."""


class FusedRecurrence:
    """A form over a whole sequence, as `cells.trajectory` asks for it."""

    def serves(self, form: AnyForm, h: Tensor) -> bool:
        """Whether the kernels can run `form` on states like `h`."""
        return cpu_refuses(form, h) is None

    def forward(
        self, form: AnyForm, inputs: Tensor, h0: Tensor, *, keep: bool, first: int = 0
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The states `(t - first, *e, b, n)`, and all states and the tape, which the adjoint reads.

        Cost O(t b n^2) per network.
        """
        handed, states = KernelArguments(form, inputs, h0), reuse_buffer((len(inputs), *h0.shape), h0.dtype)
        args, tape = UnrollArgs(form=handed.args, keep=int(keep)), None
        fill(args, states=states)
        if keep:
            tape = reuse_buffer((tape_size("unroll", args, h0.dtype),), torch.uint8)
            fill(args.form, tape=tape)
        call("unroll_forward", args, h0.dtype)
        if tape is None:
            # what is not asked for is not kept alive
            return states[first:].clone() if first else states, None
        return states[first:], (states.detach(), tape)

    def adjoint(
        self,
        form: AnyForm,
        leaves: Sequence[Tensor],
        inputs: Tensor,
        h0: Tensor,
        states: Tensor,
        kept: tuple[Tensor, Tensor],
        states_bar: Tensor,
    ) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted), h0 and leaves."""
        handed, h_bar = (
            KernelArguments(form, inputs, h0),
            torch.empty_like(h0, memory_format=torch.contiguous_format),
        )
        handed.gradients(leaves)
        states_bar, (every, tape) = states_bar.contiguous(), kept
        args = UnrollArgs(form=handed.args, keep=1, first=len(inputs) - len(states))
        fill(args, states=every, states_bar=states_bar)
        fill(args.form, h_bar=h_bar, tape=tape)
        call("unroll_adjoint", args, h0.dtype)
        inputs_bar, *bars = handed.found(leaves)
        return [inputs_bar, h_bar, *bars]


class TritonRecurrence:
    """The same on a GPU; only there is it taken by itself."""

    def serves(self, form: AnyForm, h: Tensor) -> bool:
        """Whether h lies on a GPU and the kernels can run `form` there."""
        return h.is_cuda and triton_refuses(form, h, LARGEST) is None

    def forward(
        self, form: AnyForm, inputs: Tensor, h0: Tensor, *, keep: bool, first: int = 0
    ) -> tuple[Tensor, Any]:
        """The states `(t - first, *e, b, n)` and what the adjoint reads."""
        from lyaptorch.kernels.triton.unroll import unroll_forward

        *e, b, _ = h0.shape
        check_memory(unroll_need(form, len(inputs), gradient=keep), members_of(e), b, h0.device)
        kept = unroll_forward(form, inputs, h0, keep=keep)
        return kept.after[first:], kept if keep else None

    def adjoint(
        self,
        form: AnyForm,
        leaves: Sequence[Tensor],
        inputs: Tensor,
        h0: Tensor,
        states: Tensor,
        kept: Any,
        states_bar: Tensor,
    ) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted), h0 and leaves."""
        from lyaptorch.kernels.triton.unroll import unroll_adjoint

        if len(states) < len(inputs):
            nothing = states_bar.new_zeros(len(inputs) - len(states), *h0.shape)
            states_bar = torch.cat([nothing, states_bar])
        return unroll_adjoint(form, leaves, inputs, h0, kept, states_bar)
