"""torch.nn.RNN, LSTM, GRU and their cells, as cells of this library on the module's own parameters."""

from __future__ import annotations

from torch import nn

from lyaptorch.cells.adapt.following import Following, FollowingElman, FollowingGRU, FollowingLSTM
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.gated import GRUCell, LSTMCell
from lyaptorch.cells.rate import ElmanCell
from lyaptorch.cells.seeds import forget
from lyaptorch.cells.stacked import Stacked

PLAIN = (LSTMCell, GRUCell, ElmanCell)
FOLLOWING = (FollowingLSTM, FollowingGRU, FollowingElman)


def from_torch(module: nn.RNNBase | nn.RNNCellBase) -> Cell:
    """One cell, or `Stacked` for several layers.

    Raises:
        ValueError: for two directions, a projection, or dropout between layers in training mode.
    """
    if isinstance(module, nn.RNNCellBase):
        return _layer(module, module.input_size, "")
    _check(module)
    n = module.hidden_size
    layers = [_layer(module, n if i else module.input_size, f"_l{i}") for i in range(module.num_layers)]
    cell = layers[0] if len(layers) == 1 else Stacked(layers)
    cell.batch_first = module.batch_first
    return cell


def _layer(module: nn.RNNBase | nn.RNNCellBase, m: int, tail: str) -> Cell:
    names = {
        name: name + tail
        for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
    }
    own = all(name in module._parameters for name in names.values())
    n, bias, kinds = module.hidden_size, bool(module.bias), PLAIN if own else FOLLOWING
    cell = Cell(0, 0)
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        cell = kinds[0](m, n, bias=bias)
    elif isinstance(module, nn.GRU | nn.GRUCell):
        cell = kinds[1](m, n, bias=bias)
    else:
        cell = kinds[2](m, n, activation=str(module.nonlinearity), bias=bias)
    forget(cell)
    if isinstance(cell, Following):
        cell.follow(module, names, first=tail in ("", "_l0"))
        return cell
    for name, theirs in names.items():
        setattr(cell, name, getattr(module, theirs))
    return cell


def _check(module: nn.RNNBase) -> None:
    kind = f"torch.nn.{type(module).__name__}"
    if module.bidirectional:
        raise ValueError(
            f"as_cell takes a {kind} with one direction, got bidirectional=True: half of it runs from the "
            "future to the past and has no state to step; load each direction's weights into a network with "
            "one direction, and measure the second on reversed inputs"
        )
    if module.proj_size:
        raise ValueError(
            f"as_cell takes a {kind} without projection, got proj_size={module.proj_size}; write its step as "
            "a function step(x, (h, c)) with the projection in it, and pass that"
        )
    if module.dropout and module.training and module.num_layers > 1:
        raise ValueError(
            f"as_cell takes a {kind} without dropout in training mode, got dropout={module.dropout}: a "
            "random step has no exponents of its own; call .eval(), or set its dropout to 0"
        )
