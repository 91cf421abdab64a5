"""Whose weights are whose: what belongs to members, and a cell on other weights than its own for one call."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells.activation import Activation
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.products import refuse_stale


def of_members(module: nn.Module, ensemble: tuple[int, ...], at: str = "") -> dict[str, Tensor]:
    """Views `(*e, ...)` of the parameters and buffers that hold one thing for each member, by name.

    A shape tells nothing: `(3, 3)` may be two numbers for each of three members or for each of three units.
    What counts is what a module says:

    - `module.ensemble`, as every cell and readout has it, means that each parameter has these dimensions in
      front, those of the modules in it included, unless they say otherwise; `()` means that all members share
      them. Of the buffers those have them that `module.per_member` names.
    - The parameters of an `Activation` broadcast against states `(*e, b, n)`, so the dimensions before the
      last two are the members', and where there are none all members share them.

    Args:
        module: a cell or a readout.
        ensemble: `*e`; everything belongs to a single network.
        at: what all names begin with.

    Raises:
        ValueError: for what has the dimensions of the ensemble in front while nobody said whether it is one
            for each member.
    """
    found: dict[str, Tensor] = {}
    tied: set[int] = set()
    for name, tensor, said in _declared(module, at):
        if id(tensor) in tied:
            continue
        tied.add(id(tensor))
        view = _view(name, tensor, ensemble, said)
        if view is not None:
            found[name] = view
    return found


def refuse_unowned(
    cell: Cell, leaves: Sequence[Tensor], ensemble: tuple[int, ...], x: Tensor, h: Tensor
) -> None:
    """Raise if something to be trained is no member's own, or not what the step uses.

    Nobody can declare whose the tensors are that a function closes over, so a step is asked: what one member
    becomes must not depend on what lies at another's place, and what it is computed with not on what was
    computed of a leaf before. Cost two steps and O(log(members)) reverse passes.

    Args:
        cell: where the leaves are.
        leaves: what is to be trained.
        ensemble: `*e`.
        x: an input `(*e, b, m)`.
        h: a state `(*e, b, n)`.

    Raises:
        ValueError: names the parameter, or what was computed before.
    """
    refuse_stale(cell.step, x, h)
    if not ensemble:
        return
    own_ids = {id(p) for p in (of_members(cell, ensemble) if cell.ensemble == ensemble else {}).values()}
    names = {id(p): name for name, p in cell.named_parameters()}
    asked = [p for p in leaves if id(p) not in own_ids]
    titles = [f"parameter {names[id(p)]}" if id(p) in names else "a tensor of the step" for p in asked]
    for title, p in zip(titles, asked, strict=True):
        if (id(p) in names and cell.ensemble == ensemble) or tuple(p.shape[: len(ensemble)]) != ensemble:
            raise shared_parameter(title, p, ensemble)
    for title, p, reached in zip(titles, asked, _reached(cell, asked, x, h), strict=True):
        if reached:
            raise shared_parameter(title, p, ensemble)


def shared_parameter(name: str, tensor: Tensor, ensemble: tuple[int, ...]) -> ValueError:
    """What is said of a trained parameter that is no member's own."""
    return ValueError(
        f"{name} must have the leading dimensions {ensemble} of the ensemble, got {tuple(tensor.shape)}: "
        "members that share it are not independent; give each its own, or freeze it by requires_grad_(False)"
    )


def _reached(cell: Cell, asked: Sequence[Tensor], x: Tensor, h: Tensor) -> list[bool]:
    """Whether another member than its own depends on a place of each tensor `(*e, ...)`."""
    ensemble, found = tuple(h.shape[:-2]), [False] * len(asked)
    if not asked:
        return found
    member_ids = torch.arange(torch.Size(ensemble).numel(), device=h.device).reshape(ensemble)
    stream = Stream(DEFAULT_SEED, "ownership")
    like = enumerate((x, h))
    x, h = (stream.normal(z.shape, member_ids=i, dtype=z.dtype, device=z.device) for i, z in like)
    with torch.enable_grad():
        after = cell.step(x, h).square()
    # the loss of a group of members must have no gradient at the places of the others
    for bit in range(member_ids.numel().bit_length()):
        # two members differ in a bit: one of the two groups has the one and not the other
        for group in ((member_ids >> bit) % 2 == 0, (member_ids >> bit) % 2 == 1):
            weight = group[..., None, None].to(after.dtype).expand_as(after)
            bars = torch.autograd.grad(after, asked, weight, True, allow_unused=True, materialize_grads=True)
            found = [was or bool(bar[~group].any()) for was, bar in zip(found, bars, strict=True)]
    return found


def _declared(
    module: nn.Module,
    path: str,
    said: tuple[int, ...] | None = None,
    named: AbstractSet[str] = frozenset(),
) -> Iterator[tuple[str, Tensor, tuple[int, ...] | str | None]]:
    """Each parameter and buffer with the leading dimensions that are declared of it; None where none are."""
    declared = getattr(module, "ensemble", None)
    if declared is not None:
        said, named = tuple(declared), {path + name for name in getattr(module, "per_member", ())}
    for name, tensor in (*module.named_parameters("", False), *module.named_buffers("", False)):
        name = path + name
        if isinstance(module, Activation):
            yield name, tensor, "broadcast"
        else:
            known = isinstance(tensor, nn.Parameter) or said == () or name in named
            yield name, tensor, said if known else None
    for name, part in module.named_children():
        yield from _declared(part, f"{path}{name}.", said, named)


def _view(
    name: str, tensor: Tensor, ensemble: tuple[int, ...], said: tuple[int, ...] | str | None
) -> Tensor | None:
    """The tensor as `(*e, ...)` if it belongs to members, else None."""
    if not ensemble:
        return tensor
    if said == "broadcast":
        front = tuple(tensor.shape[:-2])
        # one number for all members is shared; anything between, such as (3, 1) of (3, 4), belongs to members
        if front == ensemble or not torch.Size(front).numel() > 1:
            return tensor if front == ensemble else None
        return tensor.expand(*ensemble, *tensor.shape[-2:])
    if said == () or tuple(tensor.shape[: len(ensemble)]) != ensemble:
        return None
    if said == ensemble:
        return tensor
    kind, do = "parameter", f"set ensemble = {ensemble} on its module, or () if all members share it"
    if not isinstance(tensor, nn.Parameter):
        kind = "buffer"
        do = "name it in per_member of its module, or set ensemble = () there if all members share it"
    raise ValueError(
        f"it must be said whether the {kind} {name} {tuple(tensor.shape)} holds one thing for each of the "
        f"members {ensemble} or one for all, got a module that does not say so; {do}"
    )


def named(cell: Cell, patterns: tuple[str, ...] | None, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Those of the `leaves` whose names match one of the patterns, or all of them for None.

    Args:
        cell: whose parameters have names.
        patterns: names or globs such as `*weight_hh*`.
        leaves: what can be trained.

    Raises:
        ValueError: for a pattern that matches no parameter, or frozen ones alone; with the names there are.
    """
    if patterns is None:
        return list(leaves)
    titled, trained = cell.titled(), {id(p) for p in leaves}
    chosen: set[int] = set()
    for pattern in patterns:
        found = {name: id(p) for name, p in titled.items() if fnmatchcase(name, pattern)}
        if not found:
            raise _unknown(pattern, titled)
        if not trained & set(found.values()):
            raise ValueError(
                f"parameters must name what can be trained, got {pattern!r}, of which "
                f"{', '.join(found)} has no requires_grad or is not read by the step; set it, or name others"
            )
        chosen |= set(found.values())
    return [p for p in leaves if id(p) in chosen]


def _unknown(pattern: str, titled: dict[str, Tensor]) -> ValueError:
    near = difflib.get_close_matches(pattern, titled, n=1, cutoff=0.4)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    there = f"there are {', '.join(titled)}" if titled else "this network has none with a name"
    return ValueError(f"parameters must match a parameter of the network, got {pattern!r}{hint} {there}")


class Substituted(nn.Module):
    """A method of a cell, as a module that `functional_call` can call."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, name: str, *arguments: Tensor) -> Any:
        """The method."""
        return getattr(self.cell, name)(*arguments)

    def on(self, weights: dict[str, Tensor], name: str, *arguments: Tensor) -> Any:
        """The method on these weights, by their names with "cell." in front, also where they are tied.

        What is not among them stays. torch ties by names, and of a submodule that has two names it would not
        put the old weights back.
        """
        first: dict[int, str] = {}
        places: set[tuple[int, str]] = set()
        every = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for leaf, tensor in [*module._parameters.items(), *module._buffers.items()]:
                place = id(module), leaf
                if tensor is None or place in places:
                    continue
                places.add(place)
                own = f"{path}.{leaf}"
                known = first.setdefault(id(tensor), own)
                if known in weights:
                    every[own] = weights[known]
        return torch.func.functional_call(self, every, (name, *arguments), tie_weights=False)
