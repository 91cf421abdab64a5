"""Networks with layers of snntorch, norse or spikingjelly as cells; each imported only when met.

A spike that follows from the membrane potential is no state: it is computed again from it. Where a library
resets in the step in which it fires, the potential BEFORE the reset is the state, from which spike and reset
follow; the exponents are those of the library's own variables, without the ones at -inf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lyaptorch.cells.cell import Cell

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

Place: TypeAlias = tuple[Any, str]
"""A module, and an attribute of it."""


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

    def places(self) -> list[Place]:
        return [(self.module, name) for name in {*self.names, *(("spk",) if self.recurrent else ())}]


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
        self.listen()
        if self.container is not None:
            self.container.reset()

    def put(self, values: Sequence[Tensor]) -> None:
        node, (v,) = self.node, values
        # what the node's own call does after charging: spike, then reset
        spike = node.surrogate_function(v - node.v_threshold)
        used = spike.detach() if node.detach_reset else spike
        if node.v_reset is None:
            node.v = node.apply_soft_reset(v, used, node.v_threshold)
        else:
            node.v = node.apply_hard_reset(v, used, node.v_reset)
        if self.container is not None:
            self.container.y = spike
        self.listen()

    def listen(self) -> None:
        self.node.surrogate_function = _Overhear(self.node.surrogate_function)

    def get(self) -> list[Tensor]:
        return [self.node.surrogate_function.heard + self.node.v_threshold]

    def places(self) -> list[Place]:
        own = [(self.node, "v"), (self.node, "surrogate_function")]
        return own if self.container is None else [*own, (self.container, "y")]


class _Overhear(nn.Module):
    """A function that remembers its last argument."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        self.heard = x
        return self.function(x)


Layer: TypeAlias = SnntorchLayer | JellyLayer
"""`put` sets its state and `get` tells it; `places` are all that they overwrite."""


class HeldCell(Cell):
    """A network whose layers hold their states: the state is all of theirs, in the order of its modules."""

    def __init__(self, network: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__(0, 0)
        self.network, self._layers = network, list(layers)
        self.unproven = self.reverse_mode = True
        self._shapes: list[torch.Size] = []

    def rest(self, x: Tensor) -> Tensor:
        """The packed state at rest, after one dry run that finds all sizes."""
        with self._borrowed(), torch.no_grad():
            for layer in self._layers:
                layer.rest()
            self.network(x)
            values = [z for layer in self._layers for z in layer.get()]
            self._shapes = [z.shape[1:] for z in values]
            self._check_state(x, values)
        return torch.zeros(len(x), sum(map(math.prod, self._shapes)), dtype=x.dtype, device=x.device)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """The network's own step, its states before and after packed into one tensor."""
        # a packed h0 may come before anybody asked for the state at rest
        if not self._shapes:
            self.rest(x)
        with self._borrowed():
            self._put(h)
            self.network(x)
            return torch.cat([z.flatten(1) for layer in self._layers for z in layer.get()], -1)

    def _put(self, h: Tensor) -> None:
        pieces = iter(torch.split(h, [math.prod(shape) for shape in self._shapes], -1))
        values = [next(pieces).reshape(len(h), *shape) for shape in self._shapes]
        for layer in self._layers:
            layer.put(values[: len(layer.names)])
            del values[: len(layer.names)]

    def _check_state(self, x: Tensor, values: Sequence[Tensor]) -> None:
        """A network that forgets its state in every call has no recurrent dynamics to measure."""
        # `values` came from rest: from 0.1 everywhere another state must follow
        self._put(torch.cat([torch.full_like(z, 0.1).flatten(1) for z in values], -1))
        self.network(x)
        after = [z for layer in self._layers for z in layer.get()]
        if all(torch.equal(z, y) for z, y in zip(values, after, strict=True)):
            raise ValueError(
                "one call of the network must go on from the state that its layers hold, got the same state "
                "after it from two different ones; as_cell takes networks whose forward(x) is ONE step, with "
                "the loop over time and the reset of the states outside it"
            )

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        held = [(*place, getattr(*place)) for layer in self._layers for place in layer.places()]
        try:
            yield
        finally:
            for place in held:
                setattr(*place)


def spiking(network: nn.Module) -> Cell | None:
    """The cell of a network with layers of snntorch, norse or spikingjelly; None for any other."""
    library = {type(m).__module__.partition(".")[0] for m in network.modules()}
    if "norse" in library:
        return NorseCell(network)
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
            owner[id(inside[-1] if isinstance(inside, nn.Sequential) else inside)] = module
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


NORSE = ("LIFRecurrent", "LIFRecurrentCell", "LSNNRecurrent", "LSNNRecurrentCell")


class NorseCell(Cell):
    """A recurrent layer of norse, LIF or LSNN: state (v, i) or (v, i, b), v and b before spike and reset."""

    def __init__(self, module: Any) -> None:
        if type(module).__name__ not in NORSE:
            raise ValueError(
                f"as_cell knows the recurrent layers {', '.join(NORSE)} of norse, got a "
                f"{type(module).__name__} with norse inside; pass the recurrent layer itself, or write "
                "step(x, h)"
            )
        super().__init__(int(module.input_size), 0)
        self.network = module
        self.adapts = type(module).__name__.startswith("LSNN")
        self.state_size = (3 if self.adapts else 2) * int(module.hidden_size)
        self.reverse_mode = True

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        """norse's own step, from spike and reset on until the next ones."""
        module, p = self.network, self.network.p
        u, i, *adaptation = torch.tensor_split(h, 3 if self.adapts else 2, -1)
        fire = import_module("norse.torch.functional.threshold").threshold
        z = fire(u - (adaptation[0] if self.adapts else p.v_th), p.method, p.alpha)
        spike = z.detach()
        v = (1 - spike) * u + spike * p.v_reset
        weights = module.input_weights, module.recurrent_weights
        if not self.adapts:
            state = import_module("norse.torch.functional.lif").LIFState(z, v, i)
            # out of reach, so that nothing fires and nothing is reset
            _, after = module.activation(x, state, *weights, p._replace(v_th=1e30), module.dt)
            return torch.cat([after.v, after.i], -1)
        b = adaptation[0] + spike * p.beta
        full = import_module("norse.torch.functional.lsnn").LSNNState(z, v, i, b)
        fired, after = module.activation(x, full, *weights, p, module.dt)
        # norse's charging without its spike: dv = dt / tau (v_leak - v + i), from the current before the step
        decayed = v + module.dt * p.tau_mem_inv * ((p.v_leak - v) + i)
        return torch.cat([decayed, after.i, after.b - fired.detach() * p.beta], -1)
