"""Stacks of cells: layers in time as one cell (Stacked), and depth as time (Depth)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._types import Frame, Input, State
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.initial import distinguish


class Stacked(Cell):
    """Layers as one cell: the state concatenates theirs from layer 1, an LSTM's as (h, c).

    At each step layer l + 1 takes as input what can be read of layer l AFTER its step, as in torch.nn.RNN.
    The Jacobian is block lower triangular, so at any t the exponents' sum is that of the layers' sums. A
    readout sees the last layer.

    Without a generator all cells have one seed. In a stack the layers above the first are then drawn anew,
    in place, each from a seed of its place, unless their weights were changed since they were made.

    Args:
        layers: cells; the input of each is as large as the output of the one below.

    Raises:
        ValueError: for no layers, or sizes or ensembles that do not fit.

    Example:
        >>> from lyaptorch.cells import LSTMCell
        >>> cell = Stacked([LSTMCell(1, 8), LSTMCell(8, 4)])
        >>> cell.state_size, cell.output_size
        (24, 4)
    """

    layered = True

    def __init__(self, layers: Sequence[Cell]) -> None:
        if not layers or not all(layer.state_size for layer in layers):
            raise ValueError(
                f"Stacked takes at least one cell of known size, got {[type(z).__name__ for z in layers]}; a "
                "function or module of unknown size cannot be a layer"
            )
        for below, above in itertools.pairwise(layers):
            if above.input_size != below.output_size or above.ensemble != below.ensemble:
                raise ValueError(
                    f"a layer must take the {below.output_size} outputs of the one below and share its "
                    f"ensemble {below.ensemble}, got {above.input_size} inputs and {above.ensemble}"
                )
        distinguish(layers)
        self._sizes = [layer.state_size for layer in layers]
        super().__init__(layers[0].input_size, sum(self._sizes), layers[0].ensemble)
        self.layers: Any = nn.ModuleList(layers)
        self.alone = any(layer.alone for layer in layers)
        # what the last layer shows, counted from the beginning of all of the state
        last = range(self.state_size)[-self._sizes[-1] :][layers[-1].readable]
        self.readable, self.unproven = slice(last.start, last.stop), any(layer.unproven for layer in layers)

    def parts(self) -> dict[str, slice]:
        """The slice of each layer."""
        ends = list(itertools.accumulate(self._sizes))
        spans = zip(ends, self._sizes, strict=True)
        return {f"layer {i}": slice(end - size, end) for i, (end, size) in enumerate(spans, 1)}

    def gate_values(self, x: Input, h: State) -> dict[str, Tensor]:
        """Those of all layers, each named after its layer."""
        values: dict[str, Tensor] = {}
        for i, (layer, own) in enumerate(zip(self.layers, self._split(h), strict=True), 1):
            found = layer.gate_values(x, own)
            values |= {f"layer {i} {name}": value for name, value in found.items()}
            x = layer.step(x, own)[..., layer.readable]
        return values

    def step(self, x: Input, h: State) -> State:
        """The next states of all layers."""
        after = []
        for layer, own in zip(self.layers, self._split(h), strict=True):
            after.append(layer.step(x, own))
            x = after[-1][..., layer.readable]
        return torch.cat(after, -1)

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next states and D Q, layer by layer."""
        if self.unfused or self.reverse_mode:
            return super().pushforward(x, h, Q)
        after: list[Tensor] = []
        pushed: list[Tensor] = []
        X: Tensor | None = None
        for layer, own, columns in zip(self.layers, self._split(h), self._split(Q, -2), strict=True):
            # x of a layer is the new state of the one below, so its tangent is what became of that layer's
            # columns: the blocks below the diagonal of D are never formed
            if X is None:
                y, Y = layer.pushforward(x, own, columns)
            else:
                y, Y = layer.pushforward_with_input(x, own, X, columns)
            after.append(y)
            pushed.append(Y)
            x, X = y[..., layer.readable], Y[..., layer.readable, :]
        return torch.cat(after, -1), torch.cat(pushed, -2)

    def pack(self, state: Any) -> Tensor:
        """A list of the layers' states as one tensor; torch's `(h, c)` is `list(zip(h, c))`."""
        if isinstance(state, Tensor):
            return state
        if not isinstance(state, list | tuple) or len(state) != len(self.layers):
            raise ValueError(
                f"the state must be one tensor or a list of {len(self.layers)} layers' states, got a "
                f"{type(state).__name__}; of torch's (h, c) pass list(zip(h, c))"
            )
        return torch.cat([layer.pack(own) for layer, own in zip(self.layers, state, strict=True)], -1)

    def unpack(self, h: Tensor) -> list[Any]:
        """The layers' states."""
        return [layer.unpack(own) for layer, own in zip(self.layers, self._split(h), strict=True)]

    def _split(self, z: Tensor, dim: int = -1) -> tuple[Tensor, ...]:
        return torch.split(z, self._sizes, dim)


Block = Callable[[Tensor], Tensor]
"""A layer: what it returns has the shape of what it gets."""


class Depth(Cell):
    """h' = block_i(h), where the input i is the number of the block.

    Its trajectories are examples, its steps the blocks, and its state all that passes from one block to the
    next, as one row. So whatever works on cells works on deep networks: a spectrum (`depth_spectrum` is the
    short way), covariant vectors, flossing.

    Args:
        blocks: modules or functions, `(b, *shape) -> (b, *shape)`, such as the blocks of a residual network
            or the layers of a transformer.
        shape: of one example between two blocks.

    Raises:
        ValueError: if there is no block, or one is not callable.

    Example:
        >>> import lyaptorch as lt
        >>> x = torch.randn(4, 16)
        >>> blocks = [torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh()) for _ in range(6)]
        >>> cell = Depth(blocks, (16,))
        >>> record = lt.floss(cell, cell.numbers(x), h0=x, k=4, steps=6, tangent_transient=0, epochs=2)
        >>> record["exponents"].shape
        (1, 2, 4)
    """

    def __init__(self, blocks: Sequence[Block] | nn.Module, shape: Sequence[int]) -> None:
        listed: list[Any] = (
            list(blocks) if isinstance(blocks, Sequence | nn.ModuleList | nn.Sequential) else []
        )
        if not listed or not all(callable(block) for block in listed):
            raise ValueError(
                f"blocks must be a list of at least one module or function, got {blocks!r:.80}; pass "
                "model.layers, or whatever holds the blocks of equal width"
            )
        super().__init__(1, math.prod(shape))
        self.shape = tuple(shape)
        # functions beside modules; the modules are registered
        self._blocks: tuple[Block, ...] = tuple(listed)
        self.registered: Any = nn.ModuleList(block for block in listed if isinstance(block, nn.Module))

    def __len__(self) -> int:
        return len(self._blocks)

    def numbers(self, x: Tensor) -> Tensor:
        """The numbers of all blocks `(t, b, 1)`, to be the inputs, for examples x `(b, ...)`."""
        numbers = torch.arange(len(self), dtype=x.dtype, device=x.device)
        return numbers[:, None, None].expand(-1, len(x), 1)

    def step(self, x: Input, h: State) -> State:
        """Through the block whose number is x."""
        # a copy, because a block may begin with an inplace=True
        return self._blocks[int(x.reshape(-1)[0])](self.unpack(h.clone())).flatten(1)

    def pack(self, state: Any) -> Tensor:
        """Examples `(b, *shape)` as rows."""
        if isinstance(state, Tensor) and tuple(state.shape[1:]) == self.shape:
            return state.flatten(1)
        return super().pack(state)

    def unpack(self, h: Tensor) -> Tensor:
        """Rows as examples."""
        return h.reshape(-1, *self.shape)

    def leaves(self, x: Tensor, h: Tensor) -> list[Tensor]:
        """The tensors with `requires_grad` that any block depends on."""
        numbers = (torch.full_like(x, i) for i in range(len(self)))
        found = {id(leaf): leaf for number in numbers for leaf in super(Depth, self).leaves(number, h)}
        return list(found.values())
