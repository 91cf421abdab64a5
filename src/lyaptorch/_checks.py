"""Argument checks in one message style: what came, what was expected, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

N = TypeVar("N", float, Tensor, float | Tensor)


def integer(name: str, value: object, low: int, high: int | None = None, *, do: str = "") -> int:
    """Return `value` as an int within `low..high`, or raise."""
    bounds = f"an integer >= {low}" if high is None else f"an integer in {low}..{high}"
    outside = isinstance(value, bool) or not isinstance(value, int)
    if outside or value < low or (high is not None and value > high):  # type: ignore[operator]
        raise ValueError(f"{name} must be {bounds}, got {value!r}{_advice(do)}")
    return value  # type: ignore[return-value]


def positive(name: str, value: N, *, do: str = "") -> N:
    """Return `value` if it, or each of its entries, is a finite number above zero, or raise."""
    numbers = _numbers(name, value)
    if not ((numbers > 0) & (numbers < float("inf"))).all():
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}{_advice(do)}")
    return value


def share(name: str, value: float) -> float:
    """Return `value` if it is in 0..1, or raise."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a share in 0..1, got {value!r}")
    return value


def rate(name: str, value: float | Tensor) -> float | Tensor:
    """Return `value` if it, or each of its entries, is finite and not below zero, or raise."""
    numbers = _numbers(name, value)
    if not (torch.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
    return value


def state_grad(value: str | int) -> int | None:
    """Return every how many steps the state is detached, None for never, or raise."""
    if isinstance(value, str):
        choice("state_grad", value, ("full", "detach"))
        return 1 if value == "detach" else None
    return integer("state_grad", value, 1, do='or pass "full" or "detach"')


def choice(name: str, value: str, known: Iterable[str]) -> str:
    """Return `value` if it is a known name, or raise and name the nearest one."""
    names = sorted(known)
    if value not in names:
        near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown {name} {value!r}{hint} known: {', '.join(names)}")
    return value


def finite(name: str, value: Tensor, *, do: str = "clean the data or lower the gain") -> Tensor:
    """Return `value` if it holds neither NaN nor inf, or raise and say where the first one stands."""
    if not all_finite(value):
        first = tuple(torch.nonzero(~torch.isfinite(value))[0].tolist())
        raise ValueError(
            f"{name} must be finite, got {value[first].item()} at index {first} of shape "
            f"{tuple(value.shape)}{_advice(do)}"
        )
    return value


def can_look() -> bool:
    """Whether numbers can be read back to the host: torch.compile and capturing CUDA graphs cannot."""
    if torch.compiler.is_compiling():
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def all_finite(value: Tensor) -> bool:
    """Whether `value` holds neither NaN nor inf; taken for granted where nobody can look."""
    if not can_look():
        return True
    # what has a finite sum is finite, and is read but once
    return math.isfinite(value.detach().sum()) or bool(torch.isfinite(value).all())


def tensor(name: str, value: object, *, do: str = "call .float() or .double()") -> Tensor:
    """Return `value` if it is a floating tensor, or raise."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}; use torch.as_tensor")
    if not value.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor, got {value.dtype}{_advice(do)}")
    return value


def alike(name: str, value: Tensor, reference_name: str, reference: Tensor) -> Tensor:
    """Return `value` if its dtype and device are those of `reference`, or raise."""
    if value.dtype != reference.dtype:
        raise ValueError(
            f"{name} must have the dtype of {reference_name}, {reference.dtype}, got {value.dtype}; "
            f"convert one of them with .to({reference.dtype})"
        )
    if value.device != reference.device:
        raise ValueError(
            f"{name} must be on the device of {reference_name}, {reference.device}, got {value.device}; "
            f"move one of them with .to()"
        )
    return value


def shape(name: str, value: Tensor, expected: tuple[int, ...], letters: str, *, do: str = "") -> Tensor:
    """Return `value` if it has exactly the shape `expected`, or raise; `letters` names the dimensions."""
    if tuple(value.shape) != expected:
        raise ValueError(
            f"{name} must have shape {letters} = {expected}, got {tuple(value.shape)}{_advice(do)}"
        )
    return value


def per_member(name: str, value: float | Tensor, ensemble: tuple[int, ...]) -> float | Tensor:
    """Return `value` if it is a number or has the ensemble's shape, or raise: none is broadcast."""
    if isinstance(value, Tensor) and value.dim() and tuple(value.shape) != tuple(ensemble):
        raise ValueError(
            f"{name} must be a number or have the ensemble's shape {tuple(ensemble)}, "
            f"got {tuple(value.shape)}; give one value for each member"
        )
    return value


def _numbers(name: str, value: object) -> Tensor:
    """A number as a tensor, or a tensor itself, or raise."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, Real):
        raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
    return torch.tensor(float(value), dtype=torch.float64)


def _advice(do: str) -> str:
    return f"; {do}" if do else ""
