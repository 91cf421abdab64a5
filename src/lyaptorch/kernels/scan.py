"""The fused scan of a Form and its log-R adjoint, on tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lyaptorch.cells.form import Form
from lyaptorch.kernels.dispatch import activation_id
from lyaptorch.kernels.library import ScanArgs, call, fill, members_of, padded
from lyaptorch.kernels.tape import Tape, blank_tape


@dataclass(frozen=True)
class Settings:
    """How to scan.

    Attributes:
        cuts: the steps between which the spans lie, s + 1 of them from 0 to t.
        twice: for each span whether it must be orthonormalised to round-off.
        cut: the state's cotangent stops at every multiple of it; None for never.
    """

    cuts: tuple[int, ...]
    twice: tuple[bool, ...]
    cut: int | None = None


class Scanned(NamedTuple):
    """Diagonals of R and dead columns `(s, *e, b, k)`, final state and frame, what overflowed, the tape.

    `broken` is the first span after which tangent vectors are not finite, `overflow` the first step of
    those after which a final state that is not finite was not; None where all is well.
    """

    pivots: Tensor
    dead: Tensor
    h: Tensor
    Q: Tensor
    broken: int | None
    overflow: int | None
    tape: Tape | None


class Cotangents(NamedTuple):
    """Gradients of W `(*e, n, n)`, of a = W g(h) + drive `(t, *e, b, n)`, of h0 and of the frame."""

    W: Tensor
    a: Tensor
    h: Tensor
    frame: Tensor


def scan_forward(
    form: Form, drive: Tensor, h: Tensor, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """Scan h' = f(W g(h) + drive) and its frame. Cost O(t n^2 k + s n k^2) per trajectory.

    Args:
        form: what evolves; the drive is used in place of its V x + b.
        drive: `(t, *e, b, n)`.
        h: `(*e, b, n)`.
        frame: orthonormal `(*e, b, n, k)`.
        settings: spans and passes.
        keep: whether to write the tape that `scan_adjoint` reads.
    """
    (*e, b, n), k, s, t = h.shape, frame.shape[-1], len(settings.twice), len(drive)
    drive, frame = drive.expand(t, *h.shape), frame.expand(*h.shape, k)
    W, drive, h, frame = (z.detach().contiguous() for z in (form.weight_hh, drive, h, frame))
    items, wide, high = members_of(e) * b, padded(n), padded(k)
    pivots, dead = h.new_empty(s, *e, b, k), h.new_empty(s, *e, b, k, dtype=torch.uint8)
    after, Q = torch.empty_like(h), torch.empty_like(frame)
    status = torch.full((items, 2), -1, dtype=torch.int64)
    tape = None
    if keep:
        tape = blank_tape(
            h.dtype,
            (items, t, 5, wide),
            (items, s + 1, k, wide),
            (items, s, high, high),
            (items, s, high, 16),
        )
    args = _arguments(form, h, k, settings)
    cuts, twice = torch.tensor(settings.cuts), torch.tensor(settings.twice, dtype=torch.uint8)
    fill(args, cuts=cuts, twice=twice, W=W, drive=drive, h0=h, frame=frame, keep=int(keep))
    fill(args, pivots=pivots, dead=dead, h=after, Q=Q, status=status, **(tape.fields() if tape else {}))
    call("scan_forward", args, h.dtype)
    broken, overflow = (torch.where(z < 0, t, z).min().item() for z in status.unbind(1))
    return Scanned(
        pivots,
        dead.bool(),
        after,
        Q,
        None if broken == t else int(broken),
        None if overflow == t else int(overflow),
        tape,
    )


def scan_adjoint(
    form: Form, settings: Settings, tape: Tape, c: Tensor, log_r: Tensor, h_bar: Tensor
) -> Cotangents:
    """Gradients from `c`, those of log R_ii `(s, *e, b, k)`, and `h_bar`, that of the final state.

    The recursion of `tangent.adjoint`. Cost about 1.5 times the forward scan's.
    """
    (*e, b, n), k, t = h_bar.shape, c.shape[-1], settings.cuts[-1]
    W, c, log_r, h_bar = (
        form.weight_hh.detach().contiguous(),
        c.contiguous(),
        log_r.contiguous(),
        h_bar.clone(memory_format=torch.contiguous_format),
    )
    W_items, W_bar = h_bar.new_empty(members_of(e) * b, n, padded(n)), h_bar.new_empty(*e, n, n)
    a_bars, frame_bar = h_bar.new_empty(t, *e, b, n), h_bar.new_empty(*e, b, n, k)
    args = _arguments(form, h_bar, k, settings)
    cuts = torch.tensor(settings.cuts)
    fill(args, cuts=cuts, W=W, keep=1, c=c, log_r=log_r, h_bar=h_bar, cut=settings.cut or 0)
    fill(args, W_items=W_items, W_bar=W_bar, a_bars=a_bars, frame_bar=frame_bar, **tape.fields())
    call("scan_adjoint", args, h_bar.dtype)
    return Cotangents(W_bar, a_bars, h_bar, frame_bar)


def _arguments(form: Form, h: Tensor, k: int, settings: Settings) -> ScanArgs:
    (*e, b, n), args = h.shape, ScanArgs()
    fill(args, n=n, k=k, members=members_of(e), batch=b, steps=settings.cuts[-1], spans=len(settings.twice))
    fill(args, inner=activation_id(form.inner), outer=activation_id(form.outer))
    return args
