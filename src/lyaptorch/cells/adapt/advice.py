"""Advice in errors: what to pass in the place of something that is no step(x, h)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn


def instead_of(function: Callable[..., Any], *, failed: bool = False) -> str | None:
    """Why it is no step, or why its call `failed`, and what is one; None where nothing is known."""
    kind, alone = type(function).__name__, takes_input_alone(function)
    if any(ancestor.__module__.partition(".")[0] == "transformers" for ancestor in type(function).__mro__):
        return (
            f"{kind} is a whole model of transformers, which reads token ids and a whole sequence, not one "
            "step(x, h); pass its recurrent part as a step, with embedded tokens as inputs, or its equal "
            "layers to lt.depth_spectrum(layers, embeddings)"
        )
    modules = function.named_modules() if isinstance(function, nn.Module) else ()
    parts = [(path, part) for path, part in modules if path and isinstance(part, nn.RNNBase)]
    if parts and (alone or not failed):
        path, part = parts[0]
        return (
            f"{kind} must be one step(x, h) with h0 given; if it is a whole network around its torch."
            f'nn.{type(part).__name__}, pass that part, .get_submodule("{path}"), and as inputs what reaches '
            "it, time first"
        )
    if alone:
        return (
            f"a step must take (x, h), got a {kind} that takes one argument; if a module m keeps its state "
            "itself, in m.h say, pass a function, and its first state as h0: "
            "def step(x, h): m.h = h; return m(x)"
        )
    return None


def takes_input_alone(function: Callable[..., Any]) -> bool:
    """Whether it cannot be called with an input and a state."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(None, None)
    except TypeError:
        return True
    return False
