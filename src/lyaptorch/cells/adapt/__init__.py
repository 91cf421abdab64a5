"""`as_cell`: other people's networks as cells, with their parameters shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import nn

from lyaptorch.cells.adapt.function import FunctionCell, unwrap
from lyaptorch.cells.adapt.huggingface import huggingface
from lyaptorch.cells.adapt.modules import ModuleEnsemble, owned
from lyaptorch.cells.adapt.spiking_libraries import spiking
from lyaptorch.cells.adapt.torch_rnn import copied, from_torch, plain
from lyaptorch.cells.cell import Cell

__all__ = ["FunctionCell", "ModuleEnsemble", "Network", "as_cell", "copied", "owned", "unwrap"]


Network: TypeAlias = Cell | nn.Module | Callable[..., Any] | Sequence[nn.Module]
"""What `as_cell` takes."""


def as_cell(
    obj: Network,
    *,
    state: Any = None,
    output: bool | None = None,
) -> Cell:
    """A cell from a recurrent network of torch, a module or function `step(x, state)`, or a list of modules.

    Parameters are shared, not copied: flossing the cell flosses the network. Time comes first and one step
    is taken at a time, whatever `batch_first` says.

    - torch.nn.RNN, LSTM, GRU and their cells become cells of this library. The state of several layers is
      concatenated from layer 1, an LSTM's as (h, c) in each; a readout sees the last layer's h. As h0 pass
      that tensor, `(h, c)` for one layer, or a list of the layers' states: of torch's h `list(h)`, of its
      (h, c) `list(zip(h, c))`. Where a class derived from one of the cells has another `forward`, or hooks
      change what it returns, it counts as a module of your own.
    - A module or function may have as its state a tensor `(*e, b, ...)` of any trailing shape, or any
      structure of such: tuples, lists, dicts, dataclasses, objects with tensors in their fields (caches). It
      is packed into one real tensor `(*e, b, n)`: so come `final_state` and frames, and `cell.unpack` puts
      them back into that structure, `cell.unpack(frame.mT)` tangent vectors. A complex part counts real and
      imaginary, half precision is computed in float32, and what is not floating (positions, flags) travels
      with the state, at its end, and has no tangent. Pass h0 in the structure of the step: it fixes
      structure and shapes; or packed (then with `state=`). A step may write into the state it gets.
    - Input comes first. Where both have one size, only the names of its arguments can tell that a step takes
      (state, input): (h, x), (prev, u), (s, obs) and their like are refused, names such as (a, b) are not.
      So is (t, y), the slope of an ODE: that is a `Flow`.
    - A step may return its state, or a pair (output, state). Shapes tell which, but for two tensors
      like the state: there `output` must.
    - Weights that torch's modules compute (parametrisations, `weight_norm`, `spectral_norm`, pruning) are
      computed anew wherever they are read, as in eval mode; flossing moves what they are computed from.
    - Networks with layers of snntorch, norse (one recurrent LIF or LSNN layer) or spikingjelly, whose
      forward(x) is ONE step and whose layers hold their states, are taken whole. Spikes that follow from
      potentials are no part of the state; h0 is their rest when missing.
    - Recurrent models of transformers 5 whose state has a fixed size (Mamba, Mamba-2, FalconMamba, RWKV,
      xLSTM, RecurrentGemma without attention) are taken whole: embedded tokens or token ids in, their cache
      as the state, one part for each layer. Places of convolutions are nilpotent, and their exponents -inf.
    - What `torch.compile` or `DistributedDataParallel` made of a module counts as that module.
    - A list of modules of one type and equal shapes is an ensemble of shape `(len(list),)`.

    Costs nothing until the cell is used; a step that is not ours is then probed once.

    Args:
        obj: the network.
        state: of a module or function: an example of its state, needed where h0 will come packed.
        output: of a module or function: whether it returns (output, state); None lets the shapes decide.

    Raises:
        ValueError: for anything else, for two directions, projections, dropout in training mode, and for
            modules that differ.

    Example:
        >>> import torch
        >>> lstm = torch.nn.LSTM(1, 16, num_layers=2)
        >>> cell = as_cell(lstm)
        >>> cell.state_size, cell.layers[1].weight_hh is lstm.weight_hh_l1
        (64, True)
        >>> gru = torch.nn.GRUCell(1, 16)
        >>> as_cell([gru, torch.nn.GRUCell(1, 16)]).ensemble
        (2,)
        >>> step = as_cell(lambda x, s: {"a": 0.9 * s["a"] + x, "b": s["a"]}, state={
        ...     "a": torch.zeros(1, 3), "b": torch.zeros(1, 3)})
        >>> step(torch.zeros(1, 3), torch.ones(1, 6))
        tensor([[0.9000, 0.9000, 0.9000, 1.0000, 1.0000, 1.0000]])
    """
    obj = unwrap(obj)
    if isinstance(obj, list | tuple | nn.ModuleList):
        return ModuleEnsemble([as_cell(module, state=state, output=output) for module in obj])
    foreign = callable(obj) and not isinstance(obj, Cell | nn.RNNBase | nn.RNNCellBase)
    if not foreign and (state is not None or output is not None):
        raise ValueError(
            f"state= and output= are for modules and functions of your own, got them for a "
            f"{type(obj).__name__}; leave them out"
        )
    if isinstance(obj, Cell):
        return obj
    if isinstance(obj, nn.RNNBase | nn.RNNCellBase):
        cell = from_torch(obj)
        if plain(obj):
            return _titled(cell, obj)
        if isinstance(obj, nn.RNNBase):
            kind = next(base.__name__ for base in nn.RNNBase.__subclasses__() if isinstance(obj, base))
            raise ValueError(
                f"as_cell takes a torch.nn.{kind} whose call gives what torch's gives, got a "
                f"{type(obj).__name__} with another forward, or with hooks that change it; pass its step as "
                f"a function step(x, h), or, where it recurs as torch's, a torch.nn.{kind} with its weights"
            )
    if isinstance(obj, nn.Module) and state is None:
        whole = huggingface(obj) or spiking(obj)
        if whole is not None:
            return _titled(whole, obj)
    if callable(obj):
        return _titled(FunctionCell(obj, state, output), obj)
    raise ValueError(
        f"as_cell takes a cell, a module, a function step(x, h), or a list of modules, "
        f"got {type(obj).__name__}"
    )


def _titled(cell: Cell, owner: Any) -> Cell:
    """The cell, told how the module that it was made of calls its parameters."""
    if isinstance(owner, nn.Module):
        theirs = {id(p): name for name, p in owner.named_parameters()}
        cell.titles = {name: theirs[id(p)] for name, p in cell.named_parameters() if id(p) in theirs}
    return cell
