"""A step of an optimiser in compiled code, all tensors of all members at once."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch._types import Number
from lyaptorch.kernels.dispatch import missing
from lyaptorch.kernels.library import DescentArgs, call, fill

RULES = {"adam": 0, "momentum": 1, "nesterov": 2}


class Moving(NamedTuple):
    """What a step reads and changes.

    Attributes:
        parameters: each `(*e, ...)`.
        slots: the moments of each.
        lr: learning rates `*e`.
        taken: steps before `*e`, int64.
    """

    parameters: Sequence[Tensor]
    slots: Sequence[Sequence[Tensor]]
    lr: Tensor
    taken: Tensor


def moves(moving: Moving) -> bool:
    """Whether `descend` can take a step: of dense float32 or float64 tensors of the host, not compiled."""
    lr, tensors = moving.lr, (*moving.parameters, *(slot for slots in moving.slots for slot in slots))
    if lr.dtype not in (torch.float32, torch.float64) or lr.device.type != "cpu":
        return False
    if torch.compiler.is_compiling() or missing("cpu") is not None:
        return False
    return all(z.dtype == lr.dtype and z.device == lr.device and z.is_contiguous() for z in tensors)


def descend(
    moving: Moving,
    gradients: Sequence[Tensor],
    rule: str,
    constants: tuple[float, float, float],
    limit: Number,
    together: bool,
) -> tuple[Tensor, Tensor]:
    """Take a step, unless a gradient of a member is not finite.

    Args:
        moving: what moves; `moves` says whether it can.
        gradients: each as its parameter.
        rule: a name in `RULES`.
        constants: beta1, beta2 and epsilon of Adam; the first is the momentum of others.
        limit: the longest gradient, a number or `*e`; infinity for none.
        together: whether the limit is of all tensors together, or of each.

    Returns:
        Whose gradients are all finite, bool `*e`, and the length of each before it was clipped,
        `(tensors, *e)`. Cost: gradients are read twice, all else is read and written once.
    """
    parameters, slots, lr, taken = moving
    gradients = [g.to(lr.dtype).contiguous() for g in gradients]
    lengths = lr.new_empty(len(parameters), *lr.shape)
    fine = torch.empty(lr.shape, dtype=torch.bool, device=lr.device)
    each = limit.to(torch.float64).expand(lr.shape).contiguous() if isinstance(limit, Tensor) else None
    args = DescentArgs(tensors=len(parameters), members=lr.numel(), rule=RULES[rule], together=int(together))
    args.beta1, args.beta2, args.epsilon = constants
    args.limit = limit if each is None else math.inf
    fill(args, lr=lr, count=taken, lengths=lengths, fine=fine, limits=each)
    # these arrays, and the tensors above, live until the call is over
    arrays: dict[str, ctypes.Array[Any]] = {
        "sizes": (c_int64 * len(parameters))(*[p.numel() // max(lr.numel(), 1) for p in parameters]),
        "parameters": _places(parameters),
        "gradients": _places(gradients),
        "first": _places([own[0] for own in slots]),
        "second": _places([own[-1] for own in slots]),
    }
    for name, array in arrays.items():
        setattr(args, name, ctypes.addressof(array))
    call("descend", args, lr.dtype)
    torch.autograd.graph.increment_version([*parameters, *(slot for own in slots for slot in own), taken])
    return fine, lengths


def _places(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*[z.data_ptr() for z in tensors])
