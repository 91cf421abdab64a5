"""One part of a state: its shape, its dtype, and how its numbers lie side by side with others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch._caller import HALF


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor, or one whole number, of a state.

    Attributes:
        trailing: its shape behind `(*e, b)`; all of it where it is `shared`.
        dtype: in which the step gets it: that of h0, but float32 for half precision.
        shared: whether it is one for all trajectories, without `(*e, b)`.
        number: whether it is a Python integer.
        steady: whether it is floating and has no tangent all the same.
    """

    trailing: tuple[int, ...]
    dtype: torch.dtype
    shared: bool = False
    number: bool = False
    steady: bool = False

    @property
    def travels(self) -> bool:
        """Whether it belongs to the state of the step and not to its tangent space."""
        return self.steady or not has_tangents(self.dtype)

    @property
    def size(self) -> int:
        """How many real numbers it takes."""
        return math.prod(self.trailing) * (2 if self.dtype.is_complex else 1)


def part_of(z: Any, front: Sequence[int], steady: bool) -> Part:
    """What a part is whose first dimensions are `front`."""
    if not isinstance(z, Tensor):
        return Part((), torch.int64, shared=True, number=True)
    dtype = torch.float32 if z.dtype in HALF else z.dtype
    if has_tangents(dtype) or tuple(z.shape[: len(front)]) == tuple(front):
        return Part(tuple(z.shape[len(front) :]), dtype, steady=steady and has_tangents(dtype))
    return Part(tuple(z.shape), dtype, shared=True)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which a part is packed."""
    return torch.float32 if dtype in HALF or dtype == torch.complex32 else dtype.to_real()


def has_tangents(dtype: torch.dtype) -> bool:
    """Whether numbers of a dtype can be moved a little."""
    return dtype.is_floating_point or dtype.is_complex


def floating(z: Any) -> bool:
    """Whether it is a tensor of such."""
    return isinstance(z, Tensor) and has_tangents(z.dtype)


def widened(z: Any) -> Any:
    """Half precision as float32, all else as it is."""
    return z.float() if isinstance(z, Tensor) and z.dtype in HALF else z


def flat(z: Tensor, lead: int) -> Tensor:
    """`(*e, b, ...)` to real `(*e, b, size)`."""
    z = torch.view_as_real(z.resolve_conj()) if z.is_complex() else z
    return z.reshape(*z.shape[:lead], -1)


def restored(part: Part, z: Tensor) -> Any:
    """A part of `(*e, b, size)` numbers in its own shape and dtype."""
    lead = z.shape[:-1]
    if part.shared:
        z, lead = z.reshape(-1, part.size)[0], torch.Size()
    if part.travels:
        z = z.detach().reshape((*lead, *part.trailing))
        z = z if part.steady else z.round().to(part.dtype)
        return int(z) if part.number else z
    if part.dtype.is_complex:
        return torch.view_as_complex(z.reshape(*lead, *part.trailing, 2).contiguous())
    return z.reshape((*lead, *part.trailing))
