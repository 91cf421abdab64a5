"""Structure: how a state of any shape, tuples, dicts and caches included, lies in one real tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lyaptorch._caller import HALF
from lyaptorch.cells.adapt.parts import (
    Part,
    flat,
    floating,
    has_tangents,
    part_of,
    real_dtype,
    restored,
    widened,
)
from lyaptorch.cells.adapt.skeleton import (
    Slot,
    StateError,
    describe,
    fill,
    fixed,
    kind_of,
    listed,
    take_apart,
)


@dataclasses.dataclass(frozen=True)
class Structure:
    """How the parts of a state lie in one tensor `(*e, b, n)`: in their order, those that travel at the end.

    Attributes:
        skeleton: the state with a `Slot` in the place of each part.
        parts: what they are, by name, in the order in which they are concatenated.
        dtype: of the packed state.
        still: integers that are settings and no parts.
    """

    skeleton: Any
    parts: dict[str, Part]
    dtype: torch.dtype
    still: dict[str, Any] = dataclasses.field(default_factory=dict)

    @staticmethod
    def of(
        state: Any,
        lead: int,
        *,
        steady: Callable[[str], bool] = lambda name: False,
        still: Mapping[str, Any] | None = None,
    ) -> Structure:
        """The structure of a state whose first `lead` dimensions are `(*e, b)`.

        Args:
            state: in its own structure.
            lead: how many.
            steady: which floating parts, by name, have no tangent.
            still: integers that never change.

        Raises:
            StateError: if it has no floating tensor, or its parts differ in dtype or device or in these
                dimensions.
        """
        skeleton, given = take_apart(state)
        tensors = [z for z in given.values() if isinstance(z, Tensor) and has_tangents(z.dtype)]
        if not tensors:
            raise StateError(
                f"a state must have a floating tensor (*e, b, ...), got {describe(state)}; whole numbers and "
                "flags travel with it, but have no tangent space of their own"
            )
        _refuse_mixed(state, given)
        front = tensors[0].shape[:lead]
        if any(z.shape[:lead] != front or z.dim() < lead for z in tensors):
            raise StateError(
                "the floating parts of a state must have shapes (*e, b, ...) with the same *e and b, got "
                f"{describe(state)}; repeat what all trajectories share along the batch, or keep it out of "
                "the state"
            )
        still = dict(still or {})
        found = {n: part_of(z, front, steady(n)) for n, z in given.items() if n not in still}
        order = sorted(found, key=lambda name: found[name].travels)
        dtype = real_dtype(tensors[0].dtype)
        return Structure(skeleton, {name: found[name] for name in order}, dtype, still)

    def cast(self, dtype: torch.dtype) -> Structure:
        """The same with floating parts in another precision."""
        if dtype == self.dtype:
            return self
        parts = {
            name: dataclasses.replace(part, dtype=dtype.to_complex() if part.dtype.is_complex else dtype)
            if has_tangents(part.dtype)
            else part
            for name, part in self.parts.items()
        }
        return Structure(self.skeleton, parts, dtype, self.still)

    @property
    def size(self) -> int:
        """n."""
        return sum(part.size for part in self.parts.values())

    @property
    def travelling(self) -> int:
        """How many numbers at the end have no tangent."""
        return sum(part.size for part in self.parts.values() if part.travels)

    def slices(self) -> dict[str, slice]:
        """Where each part that has tangents lies."""
        found, start = {}, 0
        for name, part in self.parts.items():
            if not part.travels:
                found[name] = slice(start, start + part.size)
            start += part.size
        return found

    def is_packed(self, state: Tensor) -> bool:
        """Whether one tensor is all parts side by side, and not the only part in a shape of its own."""
        if not isinstance(self.skeleton, Slot):
            return True
        (part,) = self.parts.values()
        own = state.is_complex() or state.dtype in HALF
        r = len(part.trailing)
        return not (own or (not part.dtype.is_complex and tuple(state.shape[-r:]) == part.trailing))

    def pack(self, state: Any, now: Callable[[Any], Any] | None = None) -> Tensor:
        """All parts in one tensor `(*e, b, n)`.

        Args:
            state: in its own structure.
            now: what each part has become in a step, which may have written into it; None outside of one.

        Raises:
            StateError: if they are not what they were: other names, shapes, dtypes or devices, or numbers
                that the dtype of the state cannot hold.
        """
        skeleton, given = take_apart(state)
        given = {name: z if now is None else now(z) for name, z in given.items() if name not in self.still}
        self._compare(skeleton, given, state)
        # a step gets float32 in place of half precision, and does not come back from it
        change = widened if now is None else _same
        wide = {name: change(given[name]) for name, part in self.parts.items() if not part.travels}
        first, z = next(iter(wide.items()))
        lead = z.shape[: z.dim() - len(self.parts[first].trailing)]
        for name, z in wide.items():
            self._check(name, z, tuple(lead))
        if len({z.device for z in wide.values()}) > 1:
            _refuse_mixed(state, given)
        rows = [flat(z, len(lead)) for z in wide.values()]
        for name, part in self.parts.items():
            if part.travels:
                rows.append(self._encoded(name, given[name], lead, rows[0]))
        return rows[0] if len(rows) == 1 else torch.cat(rows, -1)

    def unpack(self, h: Tensor) -> Any:
        """The state in its own structure, of `h (*e, b, n)`; whole numbers are those of the first row."""
        pieces = torch.split(h, [part.size for part in self.parts.values()], -1)
        values = {name: restored(part, z) for (name, part), z in zip(self.parts.items(), pieces, strict=True)}
        return fill(self.skeleton, {**values, **self.still})

    def _compare(self, skeleton: Any, given: Mapping[str, Any], state: Any) -> None:
        """Names, and what is no tensor, stay as they were."""
        come, gone = [n for n in given if n not in self.parts], [n for n in self.parts if n not in given]
        if come or gone:
            told = [f"{verb} {listed(names)}" for verb, names in (("new", come), ("gone", gone)) if names]
            raise StateError(
                f"the state must remain {self._described()}, got {describe(state)} ({'; '.join(told)}); a "
                "step returns a state like the one that it was given"
            )
        for place, before, after in fixed(self.skeleton, skeleton):
            raise StateError(
                f"what is no tensor in a state must stay as it is, got {place} {before!r} before a step and "
                f"{after!r} after it; make it a tensor or an integer, which travel with the state"
            )

    def _check(self, name: str, z: Tensor, lead: tuple[int, ...]) -> None:
        part, title = self.parts[name], f"part {name} of the state" if name else "the state"
        if z.dtype.is_complex != part.dtype.is_complex:
            kinds = ("complex", "real") if part.dtype.is_complex else ("real", "complex")
            raise StateError(
                f"{title} must remain {kinds[0]}, {part.dtype} as in h0, got {kinds[1]} numbers, {z.dtype}, "
                f"from the step; make h0 {kinds[1]} if that is meant, or take .real of the result"
            )
        if z.dtype != part.dtype:
            raise StateError(
                f"{title} must come back in {part.dtype}, in which it is computed, got {z.dtype}; leave "
                "casts out of the step, and convert what it closes over"
            )
        shape = (*lead, *part.trailing)
        if tuple(z.shape) != shape:
            grew = z.dim() == len(shape) and z.numel() > math.prod(shape)
            do = (
                "a cache that grows with every step holds the whole past, and no number of exponents "
                "describes it: give it a fixed length, or keep it out of the state"
                if grew
                else "a step returns a state like the one that it was given"
            )
            raise StateError(f"{title} must keep its shape {shape}, got {tuple(z.shape)}; {do}")

    def _encoded(self, name: str, value: Any, lead: Sequence[int], like: Tensor) -> Tensor:
        """A part that travels, as numbers of the state's dtype `(*e, b, size)`."""
        part = self.parts[name]
        z = widened(value) if isinstance(value, Tensor) else torch.tensor(value, device=like.device)
        shape = part.trailing if part.shared else (*lead, *part.trailing)
        if z.dtype != part.dtype or tuple(z.shape) != tuple(shape):
            raise StateError(
                f"part {name} of the state must remain {tuple(shape)} {part.dtype}, got {describe(value)}; a "
                "step returns a state like the one that it was given"
            )
        if z.device != like.device:
            raise StateError(
                f"part {name} of the state must be on the device of the others, {like.device}, got "
                f"{z.device}; move it with .to()"
            )
        numbers = z.detach().to(self.dtype)
        if not part.steady and not torch.equal(numbers.to(z.dtype), z):
            raise StateError(
                f"part {name} of the state must hold whole numbers that {self.dtype} holds exactly, up to "
                f"2^{24 if self.dtype == torch.float32 else 53}, got up to {z.abs().max().item()}; use "
                "float64, or keep it out of the state"
            )
        if part.shared:
            return numbers.reshape(*[1] * len(lead), -1).expand(*lead, part.size)
        return flat(numbers, len(lead))

    def _described(self) -> str:
        if isinstance(self.skeleton, Slot):
            return "one tensor"
        named = (f"{name}: (..., {str(part.trailing)[1:]}" for name, part in self.parts.items())
        return f"a {kind_of(self.skeleton)} of {listed(list(named))}"


def leading(state: Any, front: tuple[int, ...] | None) -> int | None:
    """How many dimensions of the parts of a state are `(*e, b)`, where inputs have these in `front`.

    None for one real tensor `(*e, b, n)`, which is packed as it is.

    Raises:
        StateError: if they cannot be, or if there are two ways to read them.
    """
    alone = isinstance(state, Tensor)
    shapes = [tuple(z.shape) for z in take_apart(state)[1].values() if floating(z)]
    plain = alone and bool(shapes) and not state.is_complex() and state.dtype not in HALF
    if alone and (not shapes or len(shapes[0]) <= len(front or (1,))):
        return None
    if front is None or not shapes:
        return None if plain else state.dim() - 1 if alone else 1
    fits = all(shape[: len(front)] == front for shape in shapes)
    # a function may compute an ensemble of its own: (*e, b, n_i) in each part, on inputs (t, b, m)
    own = len(front) == 1 and len({s[:-1] for s in shapes}) == 1 and len(shapes[0]) > 2
    own = own and shapes[0][-2] == front[-1]
    if fits and own and front[0] > 1:
        raise StateError(
            f"the state must tell trajectories from an ensemble, got {describe(state)}, which inputs (t, "
            f"{front[0]}, m) fit in two ways; pass inputs (t, *e, b, m) with the ensemble {shapes[0][:-2]}, "
            f"or, if there is none, another number of trajectories than {front[0]}"
        )
    if own:
        return None if plain else len(shapes[0]) - 1
    if fits:
        return None if plain and len(shapes[0]) == len(front) + 1 else len(front)
    if alone:
        return None
    raise StateError(
        f"the floating parts of a state must have shapes (*e, b, ...) with {front} in front, as inputs have, "
        f"got {describe(state)}; there is one state for each trajectory"
    )


def _refuse_mixed(state: Any, given: Mapping[str, Any]) -> None:
    tensors = {name: z for name, z in given.items() if isinstance(z, Tensor)}
    places = {str(z.device): name for name, z in reversed(tensors.items())}
    if len(places) > 1:
        told = ", ".join(f"{name or 'the state'} on {place}" for place, name in sorted(places.items()))
        raise StateError(
            f"the parts of a state must be on one device, got {told} of {describe(state)}; move them with "
            ".to()"
        )
    dtypes = {
        str(real_dtype(z.dtype)): name for name, z in reversed(tensors.items()) if has_tangents(z.dtype)
    }
    if len(dtypes) > 1:
        raise StateError(
            "the parts of a state must have one dtype and device, those in half precision beside float32, "
            f"got {describe(state)}; convert them with .to()"
        )


def _same(z: Any) -> Any:
    return z
