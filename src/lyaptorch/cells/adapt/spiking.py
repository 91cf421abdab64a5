"""Networks with layers of snntorch, norse or spikingjelly: recognised, and run as which cells."""

from __future__ import annotations

from typing import Any

from torch import nn

from lyaptorch.cells.adapt.norse_cell import NORSE, NorseCell
from lyaptorch.cells.adapt.spiking_layers import CONTAINERS, JELLY, SNNTORCH, JellyLayer, SnntorchLayer
from lyaptorch.cells.adapt.stateful import HeldCell
from lyaptorch.cells.cell import Cell


def spiking(network: nn.Module) -> Cell | None:
    """The cell of a network with layers of snntorch, norse or spikingjelly; None for any other."""
    library = {type(m).__module__.partition(".")[0] for m in network.modules()}
    if "norse" in library:
        return _norse(network)
    if "spikingjelly" in library and (layers := _jelly(network)):
        return HeldCell(network, layers)
    if "snntorch" in library:
        return HeldCell(network, _snntorch(network))
    return None


def _snntorch(network: nn.Module) -> list[SnntorchLayer]:
    layers = []
    for module in network.modules():
        if type(module).__module__.startswith("snntorch._neurons") and hasattr(module, "mem"):
            if type(module).__name__ not in SNNTORCH:
                raise ValueError(
                    f"as_cell knows the snntorch layers {', '.join(SNNTORCH)}, got {type(module).__name__}; "
                    "write step(x, h) around it"
                )
            if module is not network and not module.init_hidden:
                raise ValueError(
                    f"a {type(module).__name__} inside a network must hold its state, got init_hidden=False; "
                    "make it with init_hidden=True, and let forward(x) be one step"
                )
            layers.append(SnntorchLayer(module))
    return layers


def _jelly(network: nn.Module) -> list[JellyLayer]:
    layers: list[JellyLayer] = []
    owner: dict[int, Any] = {}
    for module in network.modules():
        name = type(module).__name__
        if not hasattr(module, "_memories"):
            continue
        if getattr(module, "step_mode", "s") != "s":
            raise ValueError(
                f'the spikingjelly layer {name} must take single steps, got step_mode="m"; set it to "s"'
            )
        if name in CONTAINERS:
            inside = module.sub_module
            last = inside[-1] if isinstance(inside, nn.Sequential) else inside
            owner[id(last)] = module
        elif name in JELLY:
            layers.append(JellyLayer(module, owner.pop(id(module), None)))
        else:
            raise ValueError(
                f"as_cell knows the spikingjelly nodes {', '.join(JELLY)} and the recurrent containers, got "
                f"{name}; write step(x, h) around it"
            )
    if owner:
        raise ValueError(
            "a recurrent container of spikingjelly must end in a node, got something else at its end"
        )
    return layers


def _norse(network: nn.Module) -> NorseCell:
    if type(network).__name__ not in NORSE:
        raise ValueError(
            f"as_cell knows the recurrent layers {', '.join(NORSE)} of norse, got a {type(network).__name__} "
            "with norse inside; pass the recurrent layer itself, or write step(x, h)"
        )
    return NorseCell(network)
