"""Any function or module `step(x, state)` as a cell, with a state of one tensor or of several; `unwrap`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lyaptorch.cells.cell import Cell, graph_leaves


class FunctionCell(Cell):
    """A step written elsewhere; sizes are taken from the first state it meets.

    A state of several tensors is packed into one for all computations, and unpacked for the step. Its
    parameters, and tensors that the function closes over, are found by walking the autograd graph.

    Args:
        function: `step(x, state)`.
        state: an example of the state, where h0 will come packed; else the first h0 is the example.
        output: whether the step returns (output, state); None lets the shapes decide.

    Attributes:
        structure: how the state is packed; None while it is one tensor.
    """

    alone = True

    def __init__(self, function: Callable[..., Any], state: Any = None, output: bool | None = None) -> None:
        super().__init__(0, 0)
        self.function, self.output = function, output
        self.structure: Structure | None = None
        if state is not None:
            self.pack(state)

    def rest(self, x: Tensor) -> Tensor:
        """Unknown: a state tells its size by being given."""
        if self.structure is None and (advice := instead_of(self.function)) is not None:
            raise ValueError(advice)
        return super().rest(x)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """The function's answer, packed."""
        state = self.unpack(h)
        after = self._state(self.function(x, state), state)
        return after if self.structure is None else self.structure.pack(after)

    def pack(self, state: Any) -> Tensor:
        """The state as one tensor; the first one that has parts tells how."""
        if isinstance(state, Tensor):
            return state
        if self.structure is None:
            self.structure = Structure.of(state)
        return self.structure.pack(state)

    def unpack(self, h: Tensor) -> Any:
        """A packed state as the step knows it."""
        return h if self.structure is None else self.structure.unpack(h)

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """Every leaf with `requires_grad` in the graph of one step."""
        return graph_leaves(self, x, h)

    def _state(self, returned: Any, given: Any) -> Any:
        """The state in what the step returned."""
        pair = isinstance(returned, tuple | list) and len(returned) == 2
        if self.output and not pair:
            raise StateError(
                f"with output=True step(x, h) must return (output, state), got {describe(returned)}"
            )
        if self.output is False or not pair:
            return returned
        # a pair is (output, state) where the second alone looks like the state that was given
        if self.output or (alike(returned[1], given) and not alike(returned[0], given)):
            return returned[1]
        if alike(returned[1], given):
            raise StateError(
                f"step(x, h) must return one tensor like the state, {describe(given)}, got a tuple of two "
                "such; return the state alone, or pass as_cell(step, output=True) if they are (output, state)"
            )
        return returned


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


def unwrap(network: Any) -> Any:
    """The network inside what `torch.compile` or `DistributedDataParallel` made of it, on its parameters."""
    while isinstance(network, DistributedDataParallel) or hasattr(network, "_orig_mod"):
        network = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
    return network


class StateError(ValueError):
    """A state that is not as it should be; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Structure:
    """How a tuple, list, dict or dataclass of tensors `(*e, b, n_i)` lies in one tensor `(*e, b, n)`.

    Attributes:
        kind: its type.
        sizes: each part's n_i by its name, in the order in which they are concatenated.
    """

    kind: type[Any]
    sizes: dict[Any, int]

    @staticmethod
    def of(state: Any) -> Structure:
        """The structure of a state.

        Raises:
            StateError: if it is not a flat tuple, list, dict or dataclass of tensors.
        """
        sizes = {name: _size(part) for name, part in (parts(state) or {}).items()}
        if not sizes or None in sizes.values():
            raise StateError(
                "a state must be a tensor, or a tuple, list, dict or dataclass of tensors (*e, b, n_i), got "
                f"{describe(state)}; flatten nested parts, and keep what is no tensor out of it"
            )
        return Structure(type(state), {name: size for name, size in sizes.items() if size is not None})

    def pack(self, state: Any) -> Tensor:
        """The parts, concatenated along the last dimension.

        Raises:
            StateError: if their names or sizes are others, or they differ in dtype, device or leading
                dimensions.
        """
        named = parts(state) or {}
        if {name: _size(part) for name, part in named.items()} != self.sizes:
            raise StateError(
                f"the state must remain a {self.kind.__name__} of parts with the last dimensions "
                f"{self.sizes}, got {describe(state)}; a step returns a state like the one that it was given"
            )
        # a dict may come in another order
        tensors = [named[name] for name in self.sizes]
        if len({(part.dtype, part.device) for part in tensors}) > 1:
            raise StateError(
                f"the parts of a state must have one dtype and device, got {describe(state)}; convert them "
                "with .to(), and keep counters out of the state"
            )
        if len({part.shape[:-1] for part in tensors}) > 1:
            raise StateError(
                f"the parts of a state must have shapes (*e, b, n_i) with the same *e and b, got "
                f"{describe(state)}"
            )
        return torch.cat(tensors, -1)

    def unpack(self, h: Tensor) -> Any:
        """The parts of `h (*e, b, n)`: a dict for any mapping, else the type that they came in."""
        split = dict(zip(self.sizes, torch.split(h, list(self.sizes.values()), -1), strict=True))
        if issubclass(self.kind, Mapping):
            return split
        if dataclasses.is_dataclass(self.kind):
            return self.kind(**split)
        return self.kind(*split.values()) if hasattr(self.kind, "_fields") else self.kind(split.values())


def parts(state: Any) -> dict[Any, Any] | None:
    """The parts of a state by name; None if it has no parts."""
    if isinstance(state, Mapping):
        return dict(state)
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    if isinstance(state, tuple | list):
        return dict(zip(getattr(state, "_fields", map(str, range(len(state)))), state, strict=True))
    return None


def alike(state: Any, other: Any) -> bool:
    """Whether two states have the same parts, of the same shapes."""
    if isinstance(state, Tensor) or isinstance(other, Tensor):
        return isinstance(state, Tensor) and isinstance(other, Tensor) and state.shape == other.shape
    one, two = parts(state), parts(other)
    if one is None or two is None or one.keys() != two.keys():
        return False
    return all(isinstance(one[name], Tensor) and alike(one[name], two[name]) for name in one)


def _size(part: Any) -> int | None:
    return part.shape[-1] if isinstance(part, Tensor) and part.dim() else None


def describe(state: Any) -> str:
    """A state in words: its parts, their shapes and dtypes."""
    if isinstance(state, Tensor):
        return f"{tuple(state.shape)} {state.dtype}"
    named = parts(state)
    if named is None:
        return f"a {type(state).__name__}"
    return f"a {type(state).__name__} of " + ", ".join(f"{k}: {describe(part)}" for k, part in named.items())
