"""A list of modules as an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lyaptorch._types import Frame, Input, State
from lyaptorch.cells.adapt.constants import differing
from lyaptorch.cells.cell import Cell, FormCell
from lyaptorch.cells.form import Form
from lyaptorch.cells.ownership import Substituted


class Parallel(Cell):
    """Networks of one build side by side, their weights stacked along a first dimension.

    One of them serves as the template. torch.func.vmap runs a cell of this library on all weights at once; a
    step written elsewhere is taken with one network's weights after the other's, because vmap fails on much
    that is found in them, torch's own LSTMCell for one.
    """

    def __init__(self, template: Cell, size: int) -> None:
        super().__init__(template.input_size, template.state_size, (size,))
        self.readable, self.unproven = template.readable, template.unproven
        # in a tuple, so that its parameters are not registered
        self._template = (Substituted(template),)

    def weights(self) -> dict[str, Tensor]:
        """Every parameter and buffer by its name in one network, `(size, ...)`."""
        raise NotImplementedError

    def step(self, x: Input, h: State) -> State:
        """The next states."""
        after: Tensor = self._each("step", x, h)
        return after

    def pushforward(self, x: Input, h: State, Q: Frame) -> tuple[State, Frame]:
        """The next states and D Q, by hand where the networks have it by hand."""
        if type(self._template[0].cell).pushforward is Cell.pushforward:
            return super().pushforward(x, h, Q)
        moved: tuple[Tensor, Tensor] = self._each("pushforward", x, h, Q)
        return moved

    def form(self) -> Form | None:
        """The steps as data, where they have that shape."""
        call = self._template[0]
        if call.cell.alone or not isinstance(call.cell, FormCell) or not _stackable(call.cell.form()):
            return None
        form: Form = call.on(self.weights(), "form")
        return form

    def guard(self, copies: bool) -> bool:
        """The same of the networks."""
        return self._template[0].cell.guard(copies)

    def meet(self, state: Any, front: tuple[int, ...]) -> None:
        """The same of the networks, whose states lie side by side."""
        template = self._template[0].cell
        template.meet(state, front if len(front) > 1 else (*self.ensemble, *front))
        self.travelling = template.travelling

    def parts(self) -> dict[str, slice]:
        """The parts of a state, as the networks name them."""
        return self._template[0].cell.parts()

    def pack(self, state: Any) -> Tensor:
        """A state `(size, b, n)` as the networks pack theirs."""
        return self._template[0].cell.pack(state)

    def unpack(self, h: Tensor) -> Any:
        """The parts of a state, as the networks know it."""
        return self._template[0].cell.unpack(h)

    def _each(self, name: str, x: Tensor, *others: Tensor) -> Any:
        call, size, weights = self._template[0], self.ensemble[0], self.weights()
        # inputs may come once for all members
        arguments = (x.expand(size, *x.shape[-2:]), *others)

        def one(w: dict[str, Tensor], *z: Tensor) -> Any:
            return call.on(w, name, *z)

        if not call.cell.alone:
            return torch.func.vmap(one)(weights, *arguments)
        # slices of the stacked weights, in the graph: gradients reach every network
        members = range(size)
        rows = [one({k: w[i] for k, w in weights.items()}, *(z[i] for z in arguments)) for i in members]
        return (
            tuple(map(torch.stack, zip(*rows, strict=True))) if name == "pushforward" else torch.stack(rows)
        )


class ModuleEnsemble(Parallel):
    """A list of networks as an ensemble on their own parameters, which are stacked anew in every step.

    Args:
        networks: cells of one type with equal shapes.

    Raises:
        ValueError: if they differ in more than the values of parameters and buffers, or one is a function or
            an ensemble itself.
    """

    def __init__(self, networks: Sequence[Cell]) -> None:
        if not networks or any(network.ensemble for network in networks):
            raise ValueError(
                f"an ensemble needs at least one network, and none that is an ensemble itself, got "
                f"{[network.ensemble for network in networks]}; a cell of this library takes ensemble=(2, 3)"
            )
        first, *others = [_build(network) for network in networks]
        for i, other in enumerate(others, 1):
            names = sorted(first.keys() | other.keys())
            differ = [name for name in names if first.get(name) != other.get(name)]
            if differ:
                raise ValueError(
                    f"the modules of an ensemble must have one type and equal shapes, got a module {i} that "
                    f"differs from module 0 in {', '.join(differ)}; measure them one by one"
                )
        # parameters and buffers are stacked; all else is taken from the first one
        for i, network in enumerate(networks[1:], 1):
            if constants := sorted({*differing(_inner(networks[0]), _inner(network))}):
                raise ValueError(
                    f"the modules of an ensemble may differ in parameters and buffers alone, got a module "
                    f"{i} with another {', '.join(constants[:5])} than module 0; make of numbers buffers "
                    "(register_buffer), or measure them one by one"
                )
        super().__init__(networks[0], len(networks))
        self.networks = nn.ModuleList(networks)

    def titled(self) -> dict[str, Tensor]:
        """Those of the first network, whose names all have."""
        return self.networks[0].titled()  # type: ignore[operator, no-any-return]

    def weights(self) -> dict[str, Tensor]:
        """The networks' own, stacked in the graph, so that gradients arrive there."""
        rows = [_weights(network) for network in self.networks]
        return {f"cell.{name}": torch.stack([row[name] for row in rows]) for name in rows[0]}


class _Owned(Parallel):
    """The same with stacked parameters of its own, which an optimiser can move member by member."""

    def __init__(self, networks: ModuleEnsemble) -> None:
        super().__init__(networks._template[0].cell, networks.ensemble[0])
        rows = [_weights(network) for network in networks.networks]
        self._names: dict[str, str] = {}
        self._frozen: dict[str, str] = {}
        for i, (name, stacked) in enumerate(networks.weights().items()):
            trained = [row[name.removeprefix("cell.")].requires_grad for row in rows]
            # of the same name as in one network, for what asks for it
            own = name.removeprefix("cell.")
            own = own if own.isidentifier() and not hasattr(self, own) else f"stacked_{i}"
            self.register_parameter(own, nn.Parameter(stacked.detach().clone(), any(trained)))
            self._names[name] = own
            if any(trained) and not all(trained):
                self.register_buffer(f"frozen_{i}", ~torch.tensor(trained, device=stacked.device))
                self.per_member, self._frozen[name] = (*self.per_member, f"frozen_{i}"), f"frozen_{i}"

    def titled(self) -> dict[str, Tensor]:
        """Its parameters as one of the networks calls its own."""
        names = {at: name.removeprefix("cell.") for name, at in self._names.items()}
        titles = self._template[0].cell.titles
        return {titles.get(names[at], names[at]): p for at, p in self.named_parameters()}

    def weights(self) -> dict[str, Tensor]:
        """Its own; those of a network in which they are frozen pass no gradient on."""
        own: dict[str, Tensor] = {name: getattr(self, at) for name, at in self._names.items()}
        for name, at in self._frozen.items():
            frozen, stacked = getattr(self, at), own[name]
            frozen = frozen.reshape(-1, *[1] * (stacked.dim() - 1))
            own[name] = torch.where(frozen, stacked.detach(), stacked)
        return own


@contextmanager
def owned(cell: Cell) -> Iterator[Cell]:
    """The cell with parameters `(*e, ...)`; what those of a list of modules learned is written back."""
    if not isinstance(cell, ModuleEnsemble):
        yield cell
        return
    _refuse_shared(cell)
    stacked = _Owned(cell)
    try:
        yield stacked
    finally:
        with torch.no_grad():
            weights = stacked.weights()
            for i, network in enumerate(cell.networks):
                for name, own in _weights(network).items():
                    own.copy_(weights[f"cell.{name}"][i].reshape(own.shape))


def _stackable(form: Form) -> bool:
    """Whether a form of stacked weights says of each network what its own says.

    What an activation holds broadcasts against states, and a coupling of one number against units.
    """
    one = form.coupling is not None and form.coupling.shape[-1:] == (1,)
    return not one and not any(f.arguments for f in form.activations())


def _refuse_shared(cell: ModuleEnsemble) -> None:
    """Networks that are trained side by side have weights of their own, or end as none was measured."""
    places: dict[tuple[int, int], list[tuple[int, str, Tensor]]] = {}
    for i, network in enumerate(cell.networks):
        for name, w in _weights(network).items():
            if w.numel() and not w.is_meta:
                place = w.untyped_storage().data_ptr(), int(w.storage_offset())
                places.setdefault(place, []).append((i, name, w))
    shared = [
        [f"{name} of module {i}" for i, name, _ in there]
        for there in places.values()
        # what is frozen everywhere stays as it is
        if len({i for i, *_ in there}) > 1
        and any(w.requires_grad or not isinstance(w, nn.Parameter) for *_, w in there)
    ]
    if shared:
        raise ValueError(
            "modules that are trained as an ensemble must have parameters and buffers of their own, got "
            f"{'; '.join(' = '.join(names) for names in shared)}; give each module a copy, such as "
            "copy.deepcopy(module), or train what is shared in one module of your own"
        )


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _inner(network: Cell) -> Any:
    return getattr(network, "function", network)


def _build(network: Cell) -> dict[str, Any]:
    """What must be equal in all networks of an ensemble."""
    inner = _inner(network)
    if not isinstance(inner, nn.Module):
        raise ValueError(
            f"an ensemble needs modules, whose parameters can be stacked, got a {type(inner).__name__}; a "
            "function may compute all members itself: its h0 is (*e, b, n)"
        )
    shapes = {name: (tuple(w.shape), w.dtype, w.device) for name, w in _weights(network).items()}
    # a module with a parametrised weight has a class of its own
    return {"type": type_before_parametrizations(inner), "structure": repr(inner), **shapes}
