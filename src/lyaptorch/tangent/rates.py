"""Rates that `.numpy()` and matplotlib take although they are differentiable.

The parameters of a torch module require a gradient by default, so its exponents do, too, and torch refuses to
make arrays of such tensors. Who measures wants the numbers, who trains wants the gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Rates(Tensor):
    """A tensor whose array is that of its numbers. What is computed from it is a plain tensor.

    Saved, copied and printed it is a plain tensor, too; only its rows are of its kind.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The numbers, without their gradient."""
        return self.detach().numpy(force=force)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Rates:
        return super().__getitem__(index).as_subclass(Rates)

    def __iter__(self) -> Iterator[Rates]:
        return (row.as_subclass(Rates) for row in self.unbind())

    def __deepcopy__(self, memo: dict[Any, Any]) -> Tensor:
        return copy.deepcopy(_plain(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(_plain(self))

    def __format__(self, spec: str) -> str:
        return format(_plain(self), spec)


def rates(value: Tensor) -> Tensor:
    """The same, readable as an array where it carries a gradient."""
    return value.as_subclass(Rates) if value.requires_grad else value


def _plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)
