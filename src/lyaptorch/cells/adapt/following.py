"""Cells on weights that a module of torch computes from others: parametrised, normed, pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lyaptorch.cells.gated import GRUCell, LSTMCell
from lyaptorch.cells.protocol import Cell
from lyaptorch.cells.rate import ElmanCell


class Following(Cell):
    """A cell that reads its weights from a module each time anew, so that gradients reach what they are made of.

    What a module does besides in training mode is not done: `spectral_norm` keeps its vectors u and v, whose
    power iteration belongs to the module's own calls.
    """

    alone = True

    def follow(self, module: nn.Module, names: Mapping[str, str]) -> None:
        """From now on read the weights called `names` (keys: here, values: there)."""
        for name in names:
            del self._parameters[name]
        self.source, self._names = module, dict(names)

    def __getattr__(self, name: str) -> Any:
        theirs = self.__dict__.get("_names", {})
        return _weight(self.source, theirs[name]) if name in theirs else super().__getattr__(name)


class FollowingLSTM(Following, LSTMCell):
    """An LSTM."""


class FollowingGRU(Following, GRUCell):
    """A GRU."""


class FollowingElman(Following, ElmanCell):
    """An Elman network."""


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
