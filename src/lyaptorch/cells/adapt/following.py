"""Cells on weights that a module of torch computes from others: parametrised, normed, pruned."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from lyaptorch.cells.cell import Cell
from lyaptorch.cells.gated import GRUCell, LSTMCell
from lyaptorch.cells.rate import ElmanCell


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
        if first:
            self.source = module
        else:
            self.__dict__["source"] = module

    def __deepcopy__(self, memo: dict[int, Any]) -> Following:
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
        parts = list(parametrised[name].modules())
        modes = [part.training for part in parts]
        parametrised[name].eval()
        try:
            return getattr(module, name)  # type: ignore[no-any-return]
        finally:
            for part, mode in zip(parts, modes, strict=True):
                part.training = mode
    # the older way: hooks that compute it before each call
    for hook in module._forward_pre_hooks.values():
        if getattr(hook, "_tensor_name", None) == name:
            return hook.apply_mask(module)  # type: ignore[no-any-return]
        if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
            spectral = hasattr(hook, "n_power_iterations")
            return hook.compute_weight(module, *((False,) if spectral else ()))  # type: ignore[no-any-return]
    return getattr(module, name)  # type: ignore[no-any-return]
