"""A frame pushed along a known trajectory, span by span, and its cotangents pulled back.

The kernels are linear in the frame. They differ in the weights and slopes that they read; all else is alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.kernels.arguments import Scanned, Settings, spread
from lyaptorch.kernels.triton.operands import by_time, sequence
from lyaptorch.kernels.triton.recurrence import Kept

S = TypeVar("S")


@dataclass(frozen=True)
class Tape(Generic[S]):
    """Of a trajectory, its slopes, frames `(e, t + 1, b, k, N)`, and L `(e, s, b, k, k)` of every span."""

    kept: Kept
    slopes: S
    frames: Tensor
    factors: Tensor


class Own(NamedTuple):
    """What only one kind of kernel reads, before the frames, and what it is specialised by."""

    tensors: list[Tensor]
    special: dict[str, Any]


def push(
    kernel: Any, own: Own, kept: Kept, slopes: object, frame: Tensor, settings: Settings, *, keep: bool
) -> Scanned:
    """The scan of a frame `(*e, b, N, k)`; with `keep` its tape holds the slopes and t frames."""
    shape, states, (N, k), spans = kept.shape, kept.states, frame.shape[-2:], len(settings.twice)
    e, b, t = shape.members, shape.b, shape.t
    # of every step and not of every span: the adjoint does not take products again, memory is cheaper here
    frames = states.new_empty(e, t + 1 if keep else 1, b, k, N)
    frames[:, 0] = frame.detach().mT.expand(*shape.ensemble, b, k, N).reshape(e, b, k, N)
    factors = states.new_empty(e, spans, b, k, k)
    dead = states.new_zeros(e, spans + 1, b, k, dtype=torch.uint8)
    status = torch.full((e, b), -1, dtype=torch.int32, device=states.device)
    kernel[(e, b)](
        *own.tensors, frames, factors, states.new_empty(e, b, 2, k, N), dead, status,
        *_cuts_of(settings, states.device), spans, t, b, k, shape.n, eps=torch.finfo(states.dtype).eps,
        KEEP=keep, **own.special,
    )  # fmt: skip
    # rows for columns: A^T = L Q^T, of which L = R^T is kept
    return Scanned(
        by_time(factors.diagonal(dim1=-2, dim2=-1), shape),
        by_time(dead[:, 1:], shape).bool(),
        kept.after[-1].clone(),
        frames[:, -1].reshape(*shape.ensemble, b, k, N).mT,
        *_broken(status, kept, settings),
        Tape(kept, slopes, frames, factors) if keep else None,
    )


def pull(
    kernel: Any, own: Own, tape: Tape[Any], settings: Settings, c: Tensor, log_r: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Cotangents of products with W `(e, t, b, k, n)`, of the slopes `(t, *e, b, n)`, and of the frame."""
    shape, frames = tape.kept.shape, tape.frames
    e, b, t, n, (k, N) = shape.members, shape.b, shape.t, shape.n, frames.shape[-2:]
    bars, work = frames.new_empty(e, t, b, k, n), frames.new_empty(e, b, 2, k, N)
    # X = Q_T diag(c_T), rows for columns
    work[:, :, 0] = frames[:, -1] * sequence(c[-1:], shape)[:, 0].unsqueeze(-1)
    bends = [torch.zeros_like(tape.kept.inner) for _ in range(3)]
    kernel[(e, b)](
        *own.tensors, frames, _inverse_of(tape.factors), sequence(c, shape),
        sequence(spread(log_r).unsqueeze(-1), shape), _cuts_of(settings, frames.device)[0],
        frames.new_empty(e, b, k, k), work, bars, *bends, len(settings.twice), t, b, k, n, **own.special,
    )  # fmt: skip
    frame_bar = work[:, :, len(settings.twice) % 2].reshape(*shape.ensemble, b, k, N).mT
    return bars, [by_time(z, shape) for z in bends], frame_bar


@lru_cache(maxsize=16)
def _cuts_of(settings: Settings, device: torch.device) -> tuple[Tensor, Tensor]:
    """On the device once and for all: a captured graph can copy nothing from the host."""
    cuts, twice = (torch.tensor(z, dtype=torch.int32) for z in (settings.cuts, settings.twice))
    return cuts.to(device), twice.to(device)


def _inverse_of(factors: Tensor) -> Tensor:
    """L^-1 of every span."""
    unit = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    # at once for all spans: inside the kernel a solve would go row by row, a product does not
    inverse: Tensor = torch.linalg.solve_triangular(factors, unit, upper=False)
    return inverse.contiguous()


def _broken(status: Tensor, kept: Kept, settings: Settings) -> tuple[int | None, int | None]:
    """The first span after which the frame is not finite, or the first step after which the state is not.

    Of the two the one that came first; None for never.
    """
    if not _checks.can_look():
        return None, None
    overflow = None
    if not torch.isfinite(kept.states[:, -1]).all():
        overflow = int((~torch.isfinite(kept.states).all(-1).all(-1).all(0)).int().argmax()) - 1
    if (broken := status[status >= 0]).numel() == 0:
        return None, overflow
    first = int(broken.min())
    if overflow is not None and overflow < settings.cuts[first + 1]:
        return None, overflow
    return first, overflow
