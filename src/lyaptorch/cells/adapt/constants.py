"""What two modules compute with beside parameters and buffers, and where it differs."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STATE = {"training", "_parameters", "_buffers", "_modules", "_flat_weights", "_non_persistent_buffers_set"}
"""Of a module: what is looked at elsewhere."""


def differing(a: Any, b: Any, at: str = "", seen: set[tuple[int, int]] | None = None) -> Iterator[str]:
    """The places at which b holds another constant than a: numbers, texts, functions, plain tensors, hooks.

    Parameters and buffers are left out, as is what is computed from them, and objects of which nothing is
    known. A module's hooks count, in their order.
    """
    seen = set() if seen is None else seen
    if a is b or (id(a), id(b)) in seen:
        return
    # held by both sides for as long as this runs, so that no id is another's
    seen.add((id(a), id(b)))
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):
        yield from _modules(a, b, at, seen)
    elif type(a) is not type(b):
        yield at
    elif isinstance(a, Tensor):
        if not isinstance(a, nn.Parameter) and a.grad_fn is None and not _same(a, b):
            yield at
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield at
        else:
            for i, (one, other) in enumerate(zip(a, b, strict=True)):
                yield from differing(one, other, f"{at}[{i}]", seen)
    elif isinstance(a, Mapping):
        if list(map(str, a)) != list(map(str, b)):
            yield at
        else:
            for key, one, other in zip(a, a.values(), b.values(), strict=True):
                yield from differing(one, other, f"{at}[{key!r}]", seen)
    elif (inside := _inside(a)) is not None:
        if any(True for _ in differing(inside, _inside(b), at, seen)):
            yield at
    elif isinstance(a, types.BuiltinFunctionType | type):
        yield at
    elif hasattr(a, "__dict__"):
        yield from _attributes(vars(a), vars(b), at, seen)
    elif isinstance(a, np.ndarray):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
            yield at
    elif isinstance(a, PLAIN) and repr(a) != repr(b):
        yield at


PLAIN: tuple[type, ...] = (int, float, complex, str, bytes, set, frozenset, np.generic)
PLAIN += (torch.dtype, torch.device, types.CodeType)
"""What tells by its text what it is."""


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return a.is_meta or torch.equal(a, b)


def _inside(function: Any) -> tuple[Any, ...] | None:
    """What a function computes with; None of anything else."""
    if isinstance(function, types.FunctionType):
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        code, defaults = function.__code__, (function.__defaults__, function.__kwdefaults__)
        return code.co_code, code.co_names, code.co_consts, defaults, cells
    if isinstance(function, types.MethodType):
        return function.__func__, function.__self__
    if isinstance(function, functools.partial):
        return function.func, function.args, function.keywords
    return None


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _modules(a: nn.Module, b: nn.Module, at: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    computed = {name.removesuffix(tail) for name in a._parameters for tail in ("_orig", "_v", "_g")}
    hooks = {name for name in vars(a) if name.endswith("_hooks")}
    for name in sorted(hooks):
        yield from differing(
            list(getattr(a, name).values()), list(getattr(b, name).values()), f"{at}{name}", seen
        )
    skip = STATE | computed | {name for name in vars(a) if "_hooks" in name}
    yield from _attributes(vars(a), vars(b), at, seen, skip)
    for name, part in a._modules.items():
        yield from differing(part, b._modules.get(name), f"{at}{name}.", seen)


def _attributes(
    a: dict[str, Any], b: dict[str, Any], at: str, seen: set[tuple[int, int]], skip: set[str] | None = None
) -> Iterator[str]:
    for name in sorted((a.keys() | b.keys()) - (skip or set())):
        if (name in a) != (name in b):
            yield f"{at}{name}"
        else:
            yield from differing(a[name], b[name], f"{at}{name}", seen)
