"""Any function or module `step(x, state)` as a cell, with a state of one tensor or of several; `unwrap`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lyaptorch.cells.adapt.functional import Functional
from lyaptorch.cells.adapt.parts import has_tangents
from lyaptorch.cells.adapt.skeleton import StateError, alike, describe, take_apart
from lyaptorch.cells.adapt.structure import Structure, leading
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.products import graph_leaves

SWAPPED = (
    "step must take (input, state) in this order, got (state, input): wrap it as lambda x, h: step(h, x)"
)
LAYERED = (
    "torch's own has the layers in front: of one layer pass h[0], of an LSTM (h[0], c[0]); of several "
    "list(h), of an LSTM list(zip(h, c))"
)
STATE_NAMES = {
    *("h", "hx", "h0", "h_t", "ht", "h_prev", "prev_h", "prev", "previous", "last", "carry", "memory", "mem"),
    *("state", "states", "prev_state", "state_prev", "hidden", "hidden_state", "hid"),
}
INPUT_NAMES = {
    *("input", "inputs", "input_", "inp", "x_t", "xt", "obs", "observation", "drive", "stimulus", "token"),
}
"""Names that mean nothing else; x and u are not among them, which in control theory are state and input."""


class FunctionCell(Cell):
    """A step written elsewhere; sizes are taken from the first state it meets.

    A state that is not one real tensor `(*e, b, n)` is packed into one for all computations, and unpacked
    for the step, which may write into what it gets. Its parameters, and tensors that the function closes
    over, are found by walking the autograd graph.

    Args:
        function: `step(x, state)`.
        state: an example of the state, where h0 will come packed; else the first h0 is the example.
        output: whether the step returns (output, state); None lets the shapes decide.

    Attributes:
        structure: how the state is packed; None while it is one tensor.
        writes: whether the step gets copies, because it may write into what it gets; until a probe has seen
            that it does not.

    Example:
        >>> import torch, lyaptorch as lt
        >>> cell = lt.cells.FunctionCell(lambda x, h: torch.tanh(2 * h + x))
        >>> lt.lyapunov_spectrum(cell, torch.zeros(20, 1, 3), h0=torch.ones(1, 3), k=2).exponents.shape
        torch.Size([1, 2])
    """

    alone = True

    def __init__(self, function: Callable[..., Any], state: Any = None, output: bool | None = None) -> None:
        super().__init__(0, 0)
        self.function, self.output, self._example = function, output, state
        self.structure: Structure | None = None
        self.writes = True
        if state is not None and not isinstance(state, Tensor):
            Structure.of(state, 1)

    def rest(self, x: Tensor) -> Tensor:
        """Unknown: a state tells its size by being given."""
        if self.structure is None and (advice := instead_of(self.function)) is not None:
            raise ValueError(advice)
        return super().rest(x)

    def parts(self) -> dict[str, slice]:
        """The parts of a state that has several, but for those that only travel with it."""
        found = {} if self.structure is None else self.structure.slices()
        return found if len(found) > 1 else {}

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """The function's answer, packed."""
        if self.writes:
            x, h = x.clone(), h.clone()
        state = self.unpack(h)
        if self.structure is None and not self.writes:
            after: Tensor = self._state(self.function(x, state), state)
            return after
        tensors = [z for z in take_apart(state)[1].values() if isinstance(z, Tensor)]
        writing = Functional([*tensors, x] if self.writes else tensors)
        with writing:
            written = self._state(self.function(x, state), state)
        if self.structure is None:
            return writing.now(written)  # type: ignore[no-any-return]
        return self.structure.pack(written, writing.now)

    def guard(self, copies: bool) -> bool:
        """Hand copies to the step, or do not."""
        self.writes = copies
        return True

    def meet(self, state: Any, front: tuple[int, ...]) -> None:
        """Learn the structure from the first state, for inputs `(t, *front, m)`."""
        self._learn(state, front)

    def pack(self, state: Any) -> Tensor:
        """The state as one tensor; the first one that has parts tells how."""
        self._learn(state, None)
        if isinstance(state, Tensor) and (self.structure is None or self.structure.is_packed(state)):
            return state
        assert self.structure is not None
        return self.structure.pack(state)

    def unpack(self, h: Tensor) -> Any:
        """A packed state as the step knows it; also tangent vectors `(*e, b, k, n)`, Q.mT of a frame."""
        if self.structure is None and self._example is not None:
            self._learn(h, None)
        return h if self.structure is None else self.structure.unpack(h)

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """Every leaf with `requires_grad` in the graph of one step."""
        return graph_leaves(self.step, x, h)

    def _learn(self, state: Any, front: tuple[int, ...] | None) -> None:
        if self.structure is not None:
            return
        example = self._example
        packed = isinstance(state, Tensor) and example is not None
        if packed and isinstance(example, Tensor) and example.dim() == state.dim():
            packed = False
        if packed:
            self.structure = _exemplary(example, state)
        elif (lead := leading(state, front)) is not None:
            self.structure = Structure.of(state, lead)
        if self.structure is not None:
            self.travelling = self.structure.travelling

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
        # a state whose shapes are no longer those, which is told where it is packed
        if type(returned[1]) is type(given) and alike(returned[1], given, shapes=False):
            return returned[1] if not alike(returned, given, shapes=False) else returned
        return returned


def _exemplary(example: Any, packed: Tensor) -> Structure:
    """The structure of an example, of which a packed state `(*e, b, n)` is; it may lack dimensions of e."""
    parts = [z for z in take_apart(example)[1].values() if isinstance(z, Tensor) and has_tangents(z.dtype)]
    fewest = min((z.dim() for z in parts), default=1)
    leads = range(max(1, min(packed.dim(), fewest) - 1), 0, -1)
    fitting = (own for lead in leads if (own := Structure.of(example, lead)).size == packed.shape[-1])
    return next(fitting, Structure.of(example, leads[0]))


def instead_of(function: Callable[..., Any], *, failed: bool = False) -> str | None:
    """Why it is no step, or why its call `failed`, and what is one; None where nothing is known."""
    kind, alone = type(function).__name__, takes_input_alone(function)
    if isinstance(function, torch.jit.ScriptModule) and not hasattr(function, "forward"):
        return (
            f"a step must take (x, h), got what torch.jit.script made of a {function.original_name}; pass "
            "that module as it was before"
        )
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


def misread(function: Callable[..., Any], *, timed: bool = False) -> str | None:
    """Why the names of its arguments are not those of (x, h); `timed` where x is the time."""
    try:
        signature = inspect.signature(_called(function))
    except (TypeError, ValueError):
        return None
    first, second, *_ = (*map(str.lower, signature.parameters), "", "")
    if first in ("t", "time") and second and not timed:
        return (
            f"a step must take (x, h), got ({first}, {second}), as slopes of an ODE do: pass lt.Flow(f, "
            "dt=..., time=True), and as inputs (t, b, 1) the time at which each step begins; or rename its "
            "arguments if they are input and state"
        )
    if (first in STATE_NAMES and second not in STATE_NAMES | {""}) or (
        second in INPUT_NAMES and first not in {*INPUT_NAMES, "x", "u"}
    ):
        return f"{SWAPPED}, or rename its arguments {first}, {second} if that is their order"
    return None


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    """What runs when it is called; a scripted module may have no forward in Python."""
    return getattr(function, "forward", function) if isinstance(function, nn.Module) else function


def takes_input_alone(function: Callable[..., Any]) -> bool:
    """Whether it cannot be called with an input and a state."""
    try:
        signature = inspect.signature(_called(function))
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
