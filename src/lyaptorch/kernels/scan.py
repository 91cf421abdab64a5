"""The fused scan of a form and its log-R adjoint, on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch.cells.form import AnyForm, LIFForm
from lyaptorch.kernels.arguments import KernelArguments
from lyaptorch.kernels.dispatch import Scanned, Settings
from lyaptorch.kernels.footprint import check_memory, scan_need
from lyaptorch.kernels.library import ScanArgs, call, fill, members_of, reuse_buffer, tape_size

LARGEST_FRAME = 128
"""Units of the largest network that Triton scans: beyond, its kernels take minutes to compile."""


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
    (*e, b, _), k, s, t = h.shape, frame.shape[-1], len(settings.twice), len(inputs)
    if settings.backend == "triton":
        check_memory(scan_need(form, t, s, k, gradient=keep), members_of(e), b, h.device)
        scanned: Scanned = _triton(form).scan_forward(form, inputs, h, frame, settings, keep=keep)
        return scanned
    handed, frame = KernelArguments(form, inputs, h), frame.expand(*h.shape, k).detach().contiguous()
    pivots, dead = h.new_empty(s, *e, b, k), h.new_empty(s, *e, b, k, dtype=torch.uint8)
    after, Q = h.new_empty(h.shape), torch.empty_like(frame)
    status = torch.full((*e, b, 2), -1, dtype=torch.int64, device="cpu")
    cuts = torch.tensor(settings.cuts, device="cpu")
    twice = torch.tensor(settings.twice, dtype=torch.uint8, device="cpu")
    args, tape = ScanArgs(form=handed.args, k=k, spans=s, keep=int(keep)), None
    fill(args, cuts=cuts, twice=twice, frame=frame)
    fill(args, pivots=pivots, dead=dead, h=after, Q=Q, status=status)
    if keep:
        tape = reuse_buffer((tape_size("scan", args, h.dtype),), torch.uint8)
        fill(args.form, tape=tape)
    call("scan_forward", args, h.dtype)
    return Scanned(pivots, dead.bool(), after, Q, *_first(status, t), tape)


def _triton(form: AnyForm) -> Any:
    """The module that scans such a form in Triton, imported when it is needed."""
    from lyaptorch.kernels.triton import lif_scan, scan

    return lif_scan if isinstance(form, LIFForm) else scan


def _first(status: Tensor, t: int) -> tuple[int | None, int | None]:
    """The smallest number in each of two columns that is not negative."""
    if (status < 0).all():
        return None, None
    broken, overflow = torch.where(status < 0, t, status).flatten(0, -2).amin(0).tolist()
    return None if broken == t else broken, None if overflow == t else overflow


def scan_adjoint(
    form: AnyForm,
    leaves: Sequence[Tensor],
    inputs: Tensor,
    h0: Tensor,
    settings: Settings,
    tape: Any,
    c: Tensor,
    log_r: Tensor,
    h_bar: Tensor,
) -> list[Tensor | None]:
    """Gradients of inputs (None where not wanted), h0, frame and leaves.

    They come from `c`, those of log R_ii `(s, *e, b, k)`, and `h_bar`, that of the final state, by the
    recursion of `tangent.adjoint`. Cost about 1.5 times the forward scan's.
    """
    if settings.backend == "triton":
        found: list[Tensor | None] = _triton(form).scan_adjoint(
            form, leaves, inputs, h0, settings, tape, c, log_r, h_bar
        )
        return found
    k, s, handed = c.shape[-1], len(settings.twice), KernelArguments(form, inputs, h0)
    handed.gradients(leaves)
    c, log_r, h_bar = c.contiguous(), log_r.contiguous(), h_bar.clone(memory_format=torch.contiguous_format)
    frame_bar, cuts = h0.new_empty(*h0.shape, k), torch.tensor(settings.cuts, device="cpu")
    args = ScanArgs(form=handed.args, k=k, spans=s, keep=1, cut=settings.cut or 0)
    fill(args, cuts=cuts, c=c, log_r=log_r, frame_bar=frame_bar)
    fill(args.form, h_bar=h_bar, tape=tape)
    call("scan_adjoint", args, h0.dtype)
    inputs_bar, *bars = handed.found(leaves)
    return [inputs_bar, h_bar, frame_bar, *bars]
