"""Layers of snntorch and spikingjelly: which of their variables are the state. Neither is imported here.

A spike that follows from the membrane potential is no state: it is computed again from it. Where a library
resets in the step in which it fires, the potential BEFORE the reset is the state, from which spike and reset
follow; the exponents are those of the library's own variables, without the ones at -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SNNTORCH = {
    "Leaky": ("mem",),
    "Lapicque": ("mem",),
    "RLeaky": ("mem",),
    "Synaptic": ("syn", "mem"),
    "RSynaptic": ("syn", "mem"),
    "Alpha": ("syn_exc", "syn_inh", "mem"),
}
"""The variables that are the state of each layer; a spike is computed again from `mem`."""

JELLY = ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode")
"""Nodes whose potential after a step is the one before, reset by the spike."""

CONTAINERS = ("ElementWiseRecurrentContainer", "LinearRecurrentContainer")


class SnntorchLayer:
    """A layer of snntorch, which resets in the NEXT step: its spikes follow from its potentials."""

    def __init__(self, module: Any) -> None:
        self.module, self.names = module, SNNTORCH[type(module).__name__]
        self.recurrent = hasattr(module, "spk")
        if self.recurrent and not module.reset_delay and type(module).__name__ == "RSynaptic":
            raise ValueError(
                "RSynaptic with reset_delay=False does not run in snntorch itself; leave it True"
            )
        # a reset without delay hides from the potential whether there was a spike
        if self.recurrent and not module.reset_delay:
            self.names = ("spk", *self.names)

    def rest(self) -> None:
        self.put([torch.zeros(0)] * len(self.names))

    def put(self, values: Sequence[Tensor]) -> None:
        module = self.module
        for name, value in zip(self.names, values, strict=True):
            setattr(module, name, value)
        if self.recurrent and "spk" not in self.names:
            mem = module.mem
            inhibited = module.inhibition and mem.numel()
            module.spk = module.fire_inhibition(len(mem), mem) if inhibited else module.fire(mem)

    def get(self) -> list[Tensor]:
        return [getattr(self.module, name) for name in self.names]

    def held(self) -> dict[str, Any]:
        names = {*self.names, *(("spk",) if self.recurrent else ())}
        return {name: getattr(self.module, name) for name in names}

    def restore(self, held: dict[str, Any]) -> None:
        for name, value in held.items():
            setattr(self.module, name, value)


class JellyLayer:
    """A node of spikingjelly with the recurrent container around it, if any.

    The node's spike function is called with the potential before the reset, less the threshold: it is
    overheard there.
    """

    names = ("v",)

    def __init__(self, node: Any, container: Any = None) -> None:
        self.node, self.container = node, container

    def rest(self) -> None:
        self.node.reset()
        if self.container is not None:
            self.container.reset()

    def put(self, values: Sequence[Tensor]) -> None:
        node, (v,) = self.node, values
        spike = node.surrogate_function(v - node.v_threshold)
        used = spike.detach() if node.detach_reset else spike
        if node.v_reset is None:
            node.v = node.apply_soft_reset(v, used, node.v_threshold)
        else:
            node.v = node.apply_hard_reset(v, used, node.v_reset)
        if self.container is not None:
            self.container.y = spike

    def get(self) -> list[Tensor]:
        return [self.node.surrogate_function.heard + self.node.v_threshold]

    def held(self) -> dict[str, Any]:
        held = {"v": self.node.v, "function": self.node.surrogate_function}
        if self.container is not None:
            held["y"] = self.container.y
        self.node.surrogate_function = _Overhear(self.node.surrogate_function)
        return held

    def restore(self, held: dict[str, Any]) -> None:
        self.node.v, self.node.surrogate_function = held["v"], held["function"]
        if self.container is not None:
            self.container.y = held["y"]


class _Overhear(nn.Module):
    """A function that remembers its last argument."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        self.heard = x
        return self.function(x)
