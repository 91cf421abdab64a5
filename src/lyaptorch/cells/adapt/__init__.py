"""`as_cell`: other people's networks as cells, with their parameters shared."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lyaptorch.cells.adapt.function import FunctionCell
from lyaptorch.cells.adapt.spiking import spiking
from lyaptorch.cells.adapt.torch_rnn import elman
from lyaptorch.cells.protocol import Cell

__all__ = ["FunctionCell", "as_cell"]


def as_cell(obj: Cell | nn.Module | Callable[[Tensor, Tensor], Tensor]) -> Cell:
    """A cell from a cell, a `torch.nn.RNNCell`, a one-layer `torch.nn.RNN`, or any `step(x, h)`.

    Parameters are shared, not copied: flossing the cell flosses the network. The state of a function or
    module is one tensor `(*e, b, n)`, and its size comes from the `h0` that is passed later.

    Raises:
        ValueError: for anything else, and for a `torch.nn.RNN` with several layers or two directions.

    Example:
        >>> import torch
        >>> rnn = torch.nn.RNN(1, 16)
        >>> as_cell(rnn).weight_hh is rnn.weight_hh_l0
        True
    """
    if isinstance(obj, Cell):
        return obj
    if isinstance(obj, nn.RNN | nn.RNNCell):
        return elman(obj)
    if isinstance(obj, nn.RNNBase | nn.LSTMCell):
        raise ValueError(
            f"as_cell takes torch.nn.RNN, RNNCell, or a step whose state is one tensor, got a "
            f"{type(obj).__name__}; write step(x, h) with its states packed into one tensor"
        )
    if isinstance(obj, nn.Module) and (cell := spiking(obj)) is not None:
        return cell
    if callable(obj):
        return FunctionCell(obj)
    raise ValueError(f"as_cell takes a cell, a module or a function step(x, h), got {type(obj).__name__}")
