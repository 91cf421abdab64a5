"""Settings and results of a scan, alike for all kernels: it goes from span to span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Settings:
    """How to scan.

    Attributes:
        cuts: the steps between which the spans lie, s + 1 of them from 0 to t.
        twice: for each span whether it must be orthonormalised to round-off.
        cut: the state's cotangent stops at every multiple of it; None for never.
        backend: "cpu" or "triton".
    """

    cuts: tuple[int, ...]
    twice: tuple[bool, ...]
    cut: int | None = None
    backend: str = "cpu"


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
    tape: Any
