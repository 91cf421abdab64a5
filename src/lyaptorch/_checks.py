"""Argument checks in one message style: what came, what was expected, what to do."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch._caller import HALF

N = TypeVar("N", float, Tensor, float | Tensor)


def integer(name: str, value: object, low: int, high: int | None = None, *, do: str = "") -> int:
    """Return `value`, an integer of any library, as an int within `low..high`, or raise."""
    bounds = f"an integer >= {low}" if high is None else f"an integer in {low}..{high}"
    whole = _whole(value)
    if whole is None or whole < low or (high is not None and whole > high):
        raise ValueError(f"{name} must be {bounds}, got {value!r}{_advice(do)}")
    return whole


def seed(value: object) -> int:
    """Return `value` if it is one that every generator takes, or raise."""
    return integer("seed", value, 0, 2**63 - 1)


def threads(value: object) -> int:
    """Return `value`, or raise: where so many threads cannot be started, OpenMP ends the process."""
    return integer("threads", value, 1, 1024)


def _whole(value: Any) -> int | None:
    """An integer, such as numpy's, as an int; None for truth values and all else."""
    # truth values are integers to Python, and a tensor of one number is to torch: mostly a slip
    if isinstance(value, bool) or (isinstance(value, Tensor) and (value.dim() or value.dtype == torch.bool)):
        return None
    try:
        return operator.index(value)
    except (TypeError, RuntimeError):
        return None


def positive(name: str, value: N, *, do: str = "") -> N:
    """Return `value` if it, or each of its entries, is a finite number above zero, or raise."""
    if not _all(name, value, lambda z: (z > 0) & (z < math.inf)):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}{_advice(do)}")
    return value


def share(name: str, value: N) -> N:
    """Return `value` if it, or each of its entries, is in 0..1, or raise."""
    if not _all(name, value, lambda z: (z >= 0) & (z <= 1)):
        raise ValueError(f"{name} must be a share in 0..1, got {value!r}")
    return value


def rate(name: str, value: float | Tensor) -> float | Tensor:
    """Return `value` if it, or each of its entries, is finite and not below zero, or raise."""
    if not _all(name, value, lambda z: (z >= 0) & (z < math.inf)):
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
        # below .4 words look alike to nobody, and "did you mean" would puzzle
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


def known(name: str, value: Tensor) -> Tensor:
    """Return `value`, which may be infinite, if it holds no NaN, or raise."""
    if can_look() and not value.is_meta and bool(value.isnan().any()):
        raise ValueError(f"{name} must not be NaN, got {int(value.isnan().sum())} NaN of {value.numel()}")
    return value


def can_look() -> bool:
    """Whether numbers can be read back to the host: torch.compile and capturing CUDA graphs cannot."""
    if torch.compiler.is_compiling():
        return False
    # nothing is captured before CUDA is initialised, which is quicker to ask than whether there is any
    return not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())  # type: ignore[no-untyped-call]


def all_finite(value: Tensor) -> bool:
    """Whether `value` holds neither NaN nor inf; taken for granted where nobody can look."""
    if value.is_meta or not can_look():
        return True
    value = torch.view_as_real(value.detach().resolve_conj()) if value.is_complex() else value.detach()
    # what has a finite sum is finite, and is read but once
    return math.isfinite(value.sum()) or bool(torch.isfinite(value).all())


def weight(name: str, value: Tensor) -> Tensor:
    """Return `value`, a parameter or buffer, if it holds numbers that can be computed with, or raise."""
    if value.is_meta and can_look():
        raise ValueError(
            f"{name} must hold numbers, got a meta tensor, which has none; call .to_empty(device=...) and "
            "load the weights"
        )
    if value.dtype in HALF:
        raise ValueError(
            f"{name} must have the dtype of the other weights, float32 or float64, got {value.dtype}; call "
            ".float() on the network"
        )
    # torch.compile, which cannot ask, traces no inference mode
    if not torch.compiler.is_compiling() and value.is_inference() and torch.is_grad_enabled():
        raise ValueError(
            f"{name} must be made outside of torch.inference_mode as the other weights are, got a tensor "
            "made inside, which no gradient reaches; make it outside, or measure under torch.no_grad()"
        )
    return finite(name, value)


def draws(task: object) -> None:
    """Refuse what is no task."""
    if not hasattr(task, "draw"):
        raise ValueError(
            f"task must be an object whose draw gives a Batch, got a {type(task).__name__}; take one of "
            "lt.tasks, or write a class"
        )


def unpacked(name: str, value: object, *, do: str = "") -> None:
    """Refuse a PackedSequence where sequences of different lengths are not served."""
    if isinstance(value, PackedSequence):
        do = do or "take its sequences one by one, as torch.nn.utils.rnn.unpack_sequence gives them"
        raise ValueError(f"{name} must be a torch.Tensor here, got a PackedSequence; {do}")


def tensor(name: str, value: object, *, do: str = "call .float() or .double()") -> Tensor:
    """Return `value` if it is a floating tensor, or raise."""
    unpacked(name, value)
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}; use torch.as_tensor")
    if value.is_nested:
        raise ValueError(
            f"{name} must be one dense tensor, got a nested tensor; pad it with torch.nested.to_padded_tensor"
        )
    if value.layout != torch.strided:
        raise ValueError(f"{name} must be one dense tensor, got {value.layout}; call .to_dense()")
    if value.is_meta and can_look():
        raise ValueError(
            f"{name} must hold numbers, got a meta tensor, which has none; make it where the network is"
        )
    if value.is_complex():
        raise ValueError(
            f"{name} must be real, got {value.dtype}; pass real and imaginary parts side by side, "
            "torch.view_as_real(z).flatten(-2), and let the step put them together"
        )
    if value.dtype in HALF:
        raise ValueError(
            f"{name} must be float32 or float64, got {value.dtype}, whose digits are too few for exponents; "
            "call .float() on it, and on what the step closes over"
        )
    if not value.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor, got {value.dtype}{_advice(do)}")
    return value


def inputs(value: object) -> Tensor:
    """Return `value` if it is a floating tensor, or raise; token ids are told what to do."""
    return tensor("inputs", value, do="embed token ids first; of other integers pass .float()")


def alike(name: str, value: Tensor, reference_name: str, reference: Tensor) -> Tensor:
    """Return `value` if its dtype and device are those of `reference`, or raise."""
    for need, of_value, wanted, do in (
        ("have the dtype", value.dtype, reference.dtype, f"convert one of them with .to({reference.dtype})"),
        ("be on the device", value.device, reference.device, "move one of them with .to()"),
    ):
        if of_value != wanted:
            raise ValueError(f"{name} must {need} of {reference_name}, {wanted}, got {of_value}; {do}")
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


def numbers(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A number as a tensor in memory of the host, whatever the default device; a tensor where it is."""
    return torch.as_tensor(value, dtype=dtype, device=value.device if isinstance(value, Tensor) else "cpu")


def _all(name: str, value: object, fine: Callable[[Any], Any]) -> bool:
    """Whether a number, or each entry of a tensor, is fine; raise for all else."""
    if isinstance(value, Tensor):
        return value.is_meta or bool(fine(value).all())
    if not isinstance(value, Real):
        raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
    # without a tensor, which a recorded epoch could not read back
    return bool(fine(float(value)))


def _advice(do: str) -> str:
    return f"; {do}" if do else ""
