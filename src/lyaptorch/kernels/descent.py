"""A step of an optimiser in compiled code, all tensors of all members at once."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import c_int64, c_uint8, c_void_p
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

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.parameters, *(slot for own in self.slots for slot in own), self.lr, self.taken]


class Descent:
    """Steps that move the same tensors, which `serves` has looked at."""

    def __init__(self, moving: Moving) -> None:
        parameters, slots, lr, taken = moving
        self._moving, self._tensors = moving, moving.tensors()
        self._places = _places(self._tensors)
        members = lr.numel()
        self._args = DescentArgs(tensors=len(parameters), members=members)
        fill(self._args, lr=lr, count=taken)
        self._fine = (c_uint8 * max(members, 1))(1)
        self._args.fine = ctypes.addressof(self._fine)
        self._arrays: dict[str, ctypes.Array[Any]] = {
            "sizes": (c_int64 * len(parameters))(*[p.numel() // max(members, 1) for p in parameters]),
            "parameters": _pointers(_places(parameters)),
            "first": _pointers(_places([own[0] for own in slots])),
            "second": _pointers(_places([own[-1] for own in slots])),
            "gradients": _pointers([0] * len(parameters)),
        }
        for name, array in self._arrays.items():
            setattr(self._args, name, ctypes.addressof(array))

    def moves(self, moving: Moving) -> bool:
        """Whether kernels are there, and it is these tensors that it moves, where they were."""
        return missing("cpu") is None and _places(moving.tensors()) == self._places

    def step(
        self,
        gradients: Sequence[Tensor],
        rule: str,
        constants: tuple[float, float, float],
        limit: Number,
        together: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Take a step, unless a gradient of a member is not finite.

        Args:
            gradients: each as its parameter.
            rule: a name in `RULES`.
            constants: beta1, beta2 and epsilon of Adam; the first is the momentum of others.
            limit: the longest gradient, a number or `*e`; infinity for none.
            together: whether the limit is of all tensors together, or of each.

        Returns:
            Whose gradients are not all finite, bool `*e`, or None where all are; and the length of each
            before it was clipped, `(tensors, *e)`. Cost: gradients are read twice, all else is read and
            written once.
        """
        lr, args, dtype = self._moving.lr, self._args, self._moving.lr.dtype
        # these live until the call is over
        gradients = [
            g if g.dtype == dtype and g.is_contiguous() else g.to(dtype).contiguous() for g in gradients
        ]
        each = limit.to(torch.float64).expand(lr.shape).contiguous() if isinstance(limit, Tensor) else None
        lengths = lr.new_empty(len(gradients), *lr.shape)
        self._arrays["gradients"][:] = _places(gradients)
        args.rule, args.together = RULES[rule], int(together)
        args.beta1, args.beta2, args.epsilon = constants
        args.limit = math.inf if isinstance(limit, Tensor) else limit
        fill(args, lengths=lengths, limits=each)
        call("descend", args, dtype)
        torch.autograd.graph.increment_version(self._tensors)
        fine = bytes(self._fine)
        if all(fine):
            return None, lengths
        return torch.tensor([not one for one in fine], device=lr.device).view(lr.shape), lengths


def serves(moving: Moving) -> bool:
    """Whether they are dense tensors of the host, all float32 or all float64, and kernels are there."""
    *tensors, lr, _ = moving.tensors()
    if missing("cpu") is not None or lr.dtype not in (torch.float32, torch.float64):
        return False
    if any(z.device.type != "cpu" or not z.is_contiguous() for z in moving.tensors()):
        return False
    return all(z.dtype == lr.dtype for z in tensors)


def _places(tensors: Sequence[Tensor]) -> list[int]:
    return [z.data_ptr() for z in tensors]


def _pointers(places: Sequence[int]) -> ctypes.Array[Any]:
    return (c_void_p * len(places))(*places)
