"""Steps that write into the state they are given, run as if they returned a new one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WRITES = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}
"""Ways to write into a tensor, beside methods that end in an underscore."""
KEPT = {"requires_grad_", "__set__"}


class Functional(TorchFunctionMode):
    """What is written into some tensors goes into copies, which all later operations see in their place.

    Neither the tensors nor what autograd has saved of them changes, so that derivatives of both modes, and
    second ones, are those of the step.

    Args:
        tensors: those of the state; what is written into a slice of one, too, but not into a slice of that.
        wide: leave out casts to float32, by which a step in float64 would lose digits.
    """

    def __init__(self, tensors: Iterable[Tensor], *, wide: bool = False) -> None:
        super().__init__()
        # held, so that no id is another tensor's meanwhile
        self._held = list(tensors)
        self._place = {id(z): i for i, z in enumerate(self._held)}
        self._now: dict[int, Tensor] = {}
        self._slices: dict[int, tuple[int, Any]] = {}
        self._wide = wide

    def now(self, value: Any) -> Any:
        """What a tensor has become, also within tuples and lists."""
        if type(value) in (tuple, list):
            return type(value)(map(self.now, value))
        return self._now.get(self._place.get(id(value), -1), value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in KEPT:
            return func(*args, **kwargs)
        writes = name in WRITES or (name.endswith("_") and not name.endswith("__"))
        whose = id(args[0]) if args else -1
        if self._now:
            args, kwargs = self.now(args), {key: self.now(z) for key, z in kwargs.items()}
        if self._wide:
            func, args, kwargs = _wider(func, name, args, kwargs)
        if not writes or (whose not in self._place and whose not in self._slices):
            result = func(*args, **kwargs)
            if name == "__getitem__" and whose in self._place:
                self._slices[id(result)] = self._place[whose], args[1]
                self._held.append(result)
            return result
        # a copy, because an operation may have saved what it reads for its backward pass
        written = args[0].clone()
        func(written, *args[1:], **kwargs)
        self._held.append(written)
        if whose in self._place:
            self._becomes(self._place[whose], written)
        else:
            place, index = self._slices[id(written)] = self._slices[whose]
            whole = self._now.get(place, self._held[place]).clone()
            whole[index] = written
            self._held.append(whole)
            self._becomes(place, whole)
        return written

    def _becomes(self, place: int, written: Tensor) -> None:
        self._now[place], self._place[id(written)] = written, place


def _wider(func: Any, name: str, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """The same with float64 where float32 is asked for."""
    if name == "float":
        return Tensor.double, args, kwargs
    if name in ("to", "type"):
        args = tuple(torch.float64 if z is torch.float32 else z for z in args)
    if kwargs.get("dtype") is torch.float32:
        kwargs = {**kwargs, "dtype": torch.float64}
    return func, args, kwargs
