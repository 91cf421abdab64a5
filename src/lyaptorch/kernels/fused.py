"""Whole sequences in fused kernels, on tensors: the recurrence of a form, its scan, and their adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm, LIFForm, Ran
from lyaptorch.cells.gate_form import GateForm
from lyaptorch.kernels.arguments import KernelArguments, Saved, Scanned, Settings
from lyaptorch.kernels.dispatch import preferred, refusal
from lyaptorch.kernels.footprint import check_memory, scan_need, unroll_need
from lyaptorch.kernels.library import ScanArgs, UnrollArgs, call, fill, reuse_buffer, tape_size


@dataclass(frozen=True)
class FusedRecurrence:
    """A form over a whole sequence, and back, as `cells.unroll` asks for it.

    Attributes:
        backend: "cpu" or "triton"; each is taken by itself where it is at home.
    """

    backend: str

    def serves(self, form: AnyForm | GateForm, h: Tensor) -> bool:
        """Whether h lies where the backend is at home, and it can run `form` there."""
        return preferred(h) == self.backend and refusal(self.backend, form, h) is None

    def forward(
        self, form: Any, inputs: Tensor, h0: Tensor, *, keep: bool, first: int = 0
    ) -> tuple[Tensor, Any]:
        """The states `(t - first, *e, b, n)`, and what the adjoint reads. Cost O(t b n^2) per network."""
        if self.backend == "triton":
            from lyaptorch.kernels.triton.recurrence import unroll_forward

            *e, b, _ = h0.shape
            check_memory(unroll_need(form, len(inputs), gradient=keep), prod(e), b, h0.device)
            kept = unroll_forward(form, inputs, h0, keep=keep)
            return kept.after[first:], kept if keep else None
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

    def adjoint(self, ran: Ran, states_bar: Tensor) -> list[Tensor | None]:
        """Gradients of inputs (None where not wanted), h0 and leaves."""
        form, leaves, inputs, h0, states, kept = ran
        first = len(inputs) - len(states)
        if self.backend == "triton":
            from lyaptorch.kernels.triton.recurrence import unroll_adjoint

            if first:
                states_bar = torch.cat([states_bar.new_zeros(first, *h0.shape), states_bar])
            return unroll_adjoint(form, leaves, inputs, h0, kept, states_bar)
        handed, states_bar, (every, tape) = KernelArguments(form, inputs, h0), states_bar.contiguous(), kept
        h_bar = torch.empty_like(h0, memory_format=torch.contiguous_format)
        handed.gradients(leaves)
        args = UnrollArgs(form=handed.args, keep=1, first=first)
        fill(args, states=every, states_bar=states_bar)
        fill(args.form, h_bar=h_bar, tape=tape)
        call("unroll_adjoint", args, h0.dtype)
        inputs_bar, *bars = handed.found(leaves)
        return [inputs_bar, h_bar, *bars]


def scan_forward(
    form: AnyForm, inputs: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """Scan a form and its frame. Cost O(t n^2 k + s n k^2) per trajectory.

    Args:
        form: what evolves.
        inputs: `(t, *e, b, m)`.
        h: `(*e, b, n)`.
        frame: orthonormal `(*e, b, n, k)`.
        settings: spans and passes.
        keep: whether to write the tape that `scan_adjoint` reads.
    """
    (*e, b, _), k, s = h.shape, frame.shape[-1], len(settings.twice)
    if settings.backend == "triton":
        check_memory(scan_need(form, len(inputs), s, k, gradient=keep), prod(e), b, h.device)
        scanned: Scanned = _triton(form).scan_forward(form, inputs, h, frame, settings, keep=keep)
        return scanned
    handed, frame = KernelArguments(form, inputs, h), frame.expand(*h.shape, k).detach().contiguous()
    pivots, dead = h.new_empty(s, *e, b, k), h.new_empty(s, *e, b, k, dtype=torch.bool)
    longest, after, Q = h.new_empty(s, *e, b), h.new_empty(h.shape), torch.empty_like(frame)
    # found by threads that cannot raise: looked at when all are done
    status = h.new_empty(*e, b, 2, dtype=torch.int64)
    cuts, twice = _on_host(settings.cuts, torch.int64), _on_host(settings.twice, torch.uint8)
    args, tape = ScanArgs(form=handed.args, k=k, spans=s, keep=int(keep)), None
    fill(args, cuts=cuts, twice=twice, frame=frame, pivots=pivots, dead=dead, longest=longest)
    fill(args, h=after, Q=Q, status=status)
    if keep:
        tape = reuse_buffer((tape_size("scan", args, h.dtype),), torch.uint8)
        fill(args.form, tape=tape)
    call("scan_forward", args, h.dtype)
    return Scanned(pivots, dead, after, Q, *_first(status), None if tape is None else (handed, tape), longest)


@lru_cache(maxsize=64)
def _on_host(values: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=dtype, device="cpu")


def _triton(form: AnyForm) -> Any:
    """The module that scans such a form in Triton, imported when it is needed."""
    from lyaptorch.kernels.triton import form_scan, lif_scan

    return lif_scan if isinstance(form, LIFForm) else form_scan


def _first(status: Tensor) -> tuple[int | None, int | None]:
    """The smallest number in each of two columns that is not negative."""
    numbers = status.flatten().tolist()
    columns = ([number for number in numbers[i::2] if number >= 0] for i in (0, 1))
    broken, overflow = (min(column, default=None) for column in columns)
    return broken, overflow


def scan_adjoint(
    form: AnyForm, leaves: Sequence[Tensor], settings: Settings, saved: Saved, c: Tensor, h_bar: Tensor
) -> list[Tensor | None]:
    """Gradients of inputs (None where not wanted), h0, frame and leaves.

    They come from `c`, those of log R_ii `(s, *e, b, k)`, and `h_bar`, that of the final state, by the
    recursion of `tangent.adjoint`. Cost about 1.5 times the forward scan's.
    """
    if settings.backend == "triton":
        found: list[Tensor | None] = _triton(form).scan_adjoint(form, leaves, settings, saved, c, h_bar)
        return found
    k, s, h0, (handed, tape) = c.shape[-1], len(c), saved.h0, saved.tape
    handed.gradients(leaves)
    c, log_r = c.contiguous(), saved.log_r.contiguous()
    h_bar = h_bar.clone(memory_format=torch.contiguous_format)
    frame_bar, cuts = h0.new_empty(*h0.shape, k), _on_host(settings.cuts, torch.int64)
    args = ScanArgs(form=handed.args, k=k, spans=s, keep=1, cut=settings.cut or 0)
    fill(args, cuts=cuts, c=c, log_r=log_r, frame_bar=frame_bar)
    fill(args.form, h_bar=h_bar, tape=tape)
    call("scan_adjoint", args, h0.dtype)
    inputs_bar, *bars = handed.found(leaves)
    return [inputs_bar, h_bar, frame_bar, *bars]
