"""torch.nn.RNN and RNNCell as Elman cells."""

from __future__ import annotations

from torch import nn

from lyaptorch.cells.rate import ElmanCell


def elman(module: nn.RNN | nn.RNNCell) -> ElmanCell:
    """An `ElmanCell` on the module's own parameters.

    Raises:
        ValueError: for several layers or two directions.
    """
    tail = ""
    if isinstance(module, nn.RNN):
        tail = "_l0"
        if module.num_layers > 1 or module.bidirectional:
            raise ValueError(
                "as_cell takes a torch.nn.RNN with one layer and one direction, got "
                f"num_layers={module.num_layers}, bidirectional={module.bidirectional}; wrap its layers in "
                "one step(x, h) with the states concatenated"
            )
    cell = ElmanCell(module.input_size, module.hidden_size, activation=module.nonlinearity, bias=module.bias)
    for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ())):
        setattr(cell, name, getattr(module, name + tail))
    return cell
