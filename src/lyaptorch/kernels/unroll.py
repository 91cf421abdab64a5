"""The fused recurrence of a Form and backpropagation through it, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch.cells.form import Bars, Form
from lyaptorch.kernels.dispatch import activation_id, cpu_refuses
from lyaptorch.kernels.library import UnrollArgs, call, fill, members_of, padded


class FusedRecurrence:
    """h' = f(W g(h) + drive) over a whole sequence, as `cells.trajectory` asks for it."""

    def serves(self, form: Form, h: Tensor) -> bool:
        """Whether the kernels can run `form` on states like `h`."""
        return cpu_refuses(form, h) is None

    def forward(self, form: Form, drive: Tensor, h0: Tensor, *, keep: bool) -> tuple[Tensor, Tensor | None]:
        """The states `(t, *e, b, n)` and, for the adjoint, the slopes of f. Cost O(t b n^2) per network."""
        drive = drive.expand(len(drive), *h0.shape)
        W, drive, h0 = (z.detach().contiguous() for z in (form.weight_hh, drive, h0))
        states = torch.empty_like(drive)
        slopes = None
        if keep and activation_id(form.outer):
            slopes = drive.new_empty(*drive.shape[:-1], padded(drive.shape[-1]))
        args = _arguments(form, drive)
        fill(args, W=W, drive=drive, h0=h0, states=states, slopes=slopes)
        call("unroll_forward", args, drive.dtype)
        return states, slopes

    def adjoint(
        self, form: Form, h0: Tensor, states: Tensor, slopes: Tensor | None, states_bar: Tensor
    ) -> Bars:
        """The gradients."""
        W, h0, states, states_bar = (
            z.detach().contiguous() for z in (form.weight_hh, h0, states, states_bar)
        )
        a_bars, h_bar = torch.empty_like(states), torch.empty_like(h0)
        W_bar = torch.empty_like(W)
        args = _arguments(form, states)
        fill(args, W=W, h0=h0, states=states, slopes=slopes, states_bar=states_bar)
        fill(args, a_bars=a_bars, h_bar=h_bar, W_bar=W_bar)
        call("unroll_adjoint", args, states.dtype)
        return Bars(a_bars, h_bar, W_bar)


def _arguments(form: Form, like: Tensor) -> UnrollArgs:
    (t, *e, b, n), args = like.shape, UnrollArgs()
    fill(args, n=n, steps=t, members=members_of(e), batch=b)
    fill(args, inner=activation_id(form.inner), outer=activation_id(form.outer))
    return args
