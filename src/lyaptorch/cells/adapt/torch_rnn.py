"""Recurrent modules of torch as cells, also on weights that are computed from others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lyaptorch._caller import aside, untouched
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.gates import GRUCell
from lyaptorch.cells.initial import forget, undrawn
from lyaptorch.cells.lstm import LSTMCell
from lyaptorch.cells.rate import ElmanCell
from lyaptorch.cells.stacked import Stacked


class Following(Cell):
    """A cell that reads its weights from a module each time anew: gradients reach what they are made of.

    What a module does besides in training mode is not done: `spectral_norm` keeps its vectors u and v, whose
    power iteration belongs to the module's own calls.
    """

    alone = True

    def follow(self, module: nn.Module, names: Mapping[str, str], *, first: bool) -> None:
        """From now on read the weights called `names` (keys: here, values: there).

        Of several layers of one module the `first` has its parameters, so that each has one name.
        """
        for name in names:
            del self._parameters[name]
        self._names = dict(names)
        # put past nn.Module it is no submodule of the later layers: its parameters are listed once
        if first:
            self.source = module
        else:
            self.__dict__["source"] = module

    def __deepcopy__(self, memo: dict[int, Any]) -> Following:
        # a weight that is computed is no leaf, and torch refuses to copy it; its copy is computed anew
        memo |= _computed(self.source)
        copied: Following = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __getattr__(self, name: str) -> Any:
        theirs = self.__dict__.get("_names", {})
        return _weight(self.source, theirs[name]) if name in theirs else super().__getattr__(name)


class FollowingLSTM(Following, LSTMCell):
    """An LSTM."""


class FollowingGRU(Following, GRUCell):
    """A GRU."""


class FollowingElman(Following, ElmanCell):
    """An Elman network."""


def from_torch(module: nn.RNNBase | nn.RNNCellBase) -> Cell:
    """One cell, or `Stacked` for several layers.

    Raises:
        ValueError: for two directions, a projection, or dropout between layers in training mode.
    """
    if isinstance(module, nn.RNNCellBase):
        return directed(module, module.input_size, "")
    _check(module)
    n = module.hidden_size
    layers = [directed(module, n if i else module.input_size, f"_l{i}") for i in range(module.num_layers)]
    cell = layers[0] if len(layers) == 1 else Stacked(layers)
    cell.batch_first = module.batch_first
    return cell


def directed(module: nn.RNNBase | nn.RNNCellBase, m: int, tail: str) -> Cell:
    """One layer in one direction, of m inputs, whose parameters' names end with `tail`."""
    names = {
        name: name + tail
        for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
    }
    own = all(name in module._parameters for name in names.values())
    n, bias = module.hidden_size, bool(module.bias)
    cell: Cell
    with undrawn():
        if isinstance(module, nn.LSTM | nn.LSTMCell):
            cell = (LSTMCell if own else FollowingLSTM)(m, n, bias=bias)
        elif isinstance(module, nn.GRU | nn.GRUCell):
            cell = (GRUCell if own else FollowingGRU)(m, n, bias=bias)
        else:
            cell = (ElmanCell if own else FollowingElman)(
                m, n, activation=str(module.nonlinearity), bias=bias
            )
    # its weights are replaced in a moment: a stack must not draw them anew
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


def plain(module: nn.RNNBase | nn.RNNCellBase) -> bool:
    """Whether a call of the module gives what torch's class computes.

    Hooks that compute weights are followed; others, and another forward, are tried out on one step of noise.
    """
    theirs: Any = next(kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn."))
    before = [h for h in module._forward_pre_hooks.values() if not hasattr(h, "compute_weight")]
    before = [h for h in before if not hasattr(h, "apply_mask")]
    own = type(module).forward is theirs.forward and "forward" not in vars(module)
    if own and not before and not module._forward_hooks:
        return True
    weight = next(module.parameters())
    if weight.is_meta:
        return own
    mode = aside((module,), grad=False, evaluate=True)
    with mode, torch.no_grad(), untouched(module, weight.device):
        try:
            return _as_called(module, from_torch(module), weight)
        except Exception:  # another signature, for one
            return False


def _as_called(module: nn.RNNBase | nn.RNNCellBase, cell: Cell, weight: Tensor) -> bool:
    """Whether the module and its cell agree on one step, in state and output."""
    stream = Stream(DEFAULT_SEED, "called")
    x, h = (
        stream.normal((2, size), member_ids=i, dtype=weight.dtype, device=weight.device)
        for i, size in enumerate((cell.input_size, cell.state_size))
    )
    after = cell.step(x, h)
    if isinstance(module, nn.RNNCellBase):
        halves = h.chunk(2, -1)
        found = module(x, halves if isinstance(module, nn.LSTMCell) else h)
        return torch.allclose(torch.cat(found, -1) if isinstance(found, tuple) else found, after)
    # torch has (layers, b, units) of h, and of c; here each layer has its own behind the last one's
    layers = h.reshape(2, module.num_layers, -1).transpose(0, 1).contiguous()
    lstm, at = isinstance(module, nn.LSTM), 1 if module.batch_first else 0
    given = tuple(z.contiguous() for z in layers.chunk(2, -1)) if lstm else layers
    output, found = module(x.unsqueeze(at), given)
    rows = (torch.cat(found, -1) if lstm else found).transpose(0, 1).flatten(1)
    return torch.allclose(rows, after) and torch.allclose(output.squeeze(at), after[..., cell.readable])


T = TypeVar("T")


def copied(network: T) -> T:
    """A deep copy; also of modules that keep weights they have computed, which torch does not copy."""
    return copy.deepcopy(network, _computed(network) if isinstance(network, nn.Module) else {})


def _computed(network: nn.Module) -> dict[int, Any]:
    """Copies of all tensors in a module that were computed from others, by the ids of these."""
    modules = network.modules()
    kept = [z for module in modules for z in [*vars(module).values(), *getattr(module, "_flat_weights", ())]]
    return {id(z): z.detach().clone() for z in kept if isinstance(z, Tensor) and not z.is_leaf}


def _weight(module: Any, name: str) -> Tensor:
    """A weight as the module's next call would have it, but for iterations of training mode."""
    parametrised = getattr(module, "parametrizations", {})
    if name in parametrised:
        training = [part for part in parametrised[name].modules() if part.training]
        parametrised[name].eval()
        try:
            return getattr(module, name)  # type: ignore[no-any-return]
        finally:
            for part in training:
                part.training = True
    # the older way: hooks that compute it before each call
    for hook in module._forward_pre_hooks.values():
        if getattr(hook, "_tensor_name", None) == name:
            return hook.apply_mask(module)  # type: ignore[no-any-return]
        if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
            spectral = hasattr(hook, "n_power_iterations")
            return hook.compute_weight(module, *((False,) if spectral else ()))  # type: ignore[no-any-return]
    return getattr(module, name)  # type: ignore[no-any-return]
