"""Results at a prompt, in a few lines, and outcomes of checks, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

SHOWN = 4
"""Exponents in a line."""
ROWS = 3
"""Lines of a list."""


def brief(result: Any) -> str:
    """A dataclass in one line: tensors by type and shape, all else as it is, cut where it is long."""
    parts = (f"{field.name}={_short(getattr(result, field.name))}" for field in fields(result))
    return f"{type(result).__name__}({', '.join(parts)})"


def leading(values: Tensor, errors: Tensor, rate: str) -> list[str]:
    """Of exponents `(*e, b, k)`, a line for each of the first members: the first few, with standard errors.

    Means over the trajectories in which they are alive; the errors are those of one trajectory.
    """
    values, errors = (v.detach().double().cpu().reshape(-1, *v.shape[-2:]) for v in (values, errors))
    lines = []
    for member, error in zip(values[:ROWS], errors[:ROWS], strict=True):
        alive = torch.isfinite(member)
        # 0 / 0 where all have died: the NaN is -inf two lines on
        mean, spread = (torch.where(alive, z, 0.0).sum(0) / alive.sum(0) for z in (member, error))
        mean = torch.where(alive.any(0), mean, -torch.inf)
        told = [_pair(m, s) for m, s in zip(mean[:SHOWN].tolist(), spread[:SHOWN].tolist(), strict=True)]
        lines.append(", ".join([*told, "..."] if len(mean) > SHOWN else told) + f" {rate}")
    return lines if len(values) <= ROWS else [*lines, f"... {len(values) - ROWS} more"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 step, 2 steps."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def trajectories(shape: tuple[int, ...]) -> str:
    """Of `(*e, b)`, in words."""
    of = counted(shape[-1], "trajectory", "trajectories")
    return of if len(shape) == 1 else f"ensemble {tuple(shape[:-1])} of {of}"


def _pair(mean: float, error: float) -> str:
    # an error that is inf or NaN says that nothing can be said
    return f"{mean:+.4g}" + (f" ± {error:.1g}" if 0 <= error < float("inf") and mean > -float("inf") else "")


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_short(item)}' for key, item in value.items())}}}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decided"
"""It does, it does not, or the situation of which it speaks did not occur."""


def tally(outcomes: Iterable[str]) -> str:
    """In words: "17 hold, 2 do not, 1 not decided"; what none did is left out."""
    count = Counter(outcomes)
    held, failed, undecided = (count[outcome] for outcome in (HOLDS, FAILS, UNDECIDED))
    words = [f"{held} hold{'s' * (held == 1)}"]
    words += [f"{failed} do{'es' * (failed == 1)} not"] if failed else []
    words += [f"{undecided} not decided"] if undecided else []
    return ", ".join(words)
