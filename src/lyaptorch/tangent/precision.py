"""Tangent vectors are carried in the precision of the weights, whatever torch.autocast says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

N = TypeVar("N")
X = TypeVar("X")
R = TypeVar("R")
P = ParamSpec("P")


def full_precision(
    function: Callable[Concatenate[N, X, P], R],
) -> Callable[Concatenate[N, X, P], R]:
    """A function of a network and its inputs, without autocast: products in bfloat16 leave 3 digits."""

    @functools.wraps(function)
    def run(network: N, inputs: X, *args: P.args, **kwargs: P.kwargs) -> R:
        data = getattr(inputs, "data", inputs)
        device = data.device.type if isinstance(data, Tensor) else "cpu"
        with torch.autocast(device, enabled=False):
            return function(network, inputs, *args, **kwargs)

    return cast(Callable[Concatenate[N, X, P], R], run)
