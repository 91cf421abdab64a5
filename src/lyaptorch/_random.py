"""Counter-based random streams: a member draws the same numbers alone and in any ensemble.

A number is a pure function of (seed, stream, member, epoch, index) in int64 tensor operations: nothing has to
be stored, and a resume, a captured graph or another device sees the same bits. The idea is that of Salmon et
al. (2011), Parallel random numbers: as easy as 1, 2, 3; the mixing function is splitmix64 of Steele, Lea &
Flood (2014), Fast splittable pseudorandom number generators, with Stafford's constants (variant 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyaptorch import _checks

Shape: TypeAlias = tuple[int, ...]
Ids: TypeAlias = int | Int[Tensor, "..."]
Device: TypeAlias = torch.device | str | None
Dtype: TypeAlias = torch.dtype | None

DEFAULT_SEED = 20142011
"""What `seed_from(None)` returns: without a generator, every run draws the same numbers."""

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_DIGITS = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def seed_from(generator: torch.Generator | None) -> int:
    """Draw a 63-bit seed from `generator`, a new one at each call; return `DEFAULT_SEED` for None."""
    if generator is None:
        return DEFAULT_SEED
    if not isinstance(generator, torch.Generator):
        got = type(generator).__name__
        raise ValueError(
            f"generator must be a torch.Generator or None, got {got}; use torch.Generator().manual_seed(seed)"
        )
    return int(torch.empty((), dtype=torch.int64, device=generator.device).random_(generator=generator))


def ids_of(ensemble: Shape, member_ids: Ids | None = None, device: Device = None) -> Tensor:
    """Return the ids of the networks in an int64 tensor of shape `ensemble`: 0, 1, ... unless given."""
    if member_ids is None:
        return torch.arange(math.prod(ensemble), device=device).view(ensemble)
    ids = torch.as_tensor(_counter("member_ids", member_ids), device=device)
    return _checks.shape("member_ids", ids, tuple(ensemble), "*e", do="give one id per network")


def bits(seed: int, stream: str, member: Ids, epoch: Ids, index: Ids) -> Int[Tensor, "..."]:
    """Draw 64 random bits for each element of the broadcast of `member`, `epoch` and `index`.

    With F the finaliser of splitmix64, M(z) = F(z + gamma) its step and all arithmetic modulo 2^64,
    key <- M(key + part) over seed, the bytes of the name, member and epoch in turn; then
    bits = F(F(key + index) + key). F(key + index) alone would make all streams pieces of one sequence.

    Raises:
        ValueError: seed is outside 0..2^64-1, or another part is neither an int nor an int64 tensor.
    """
    own: int | Tensor = key(seed, stream)
    for part in (_counter("member", member), _counter("epoch", epoch)):
        own = _mix(own + part)
    index = _counter("index", index)
    if not isinstance(index, Tensor):
        device = own.device if isinstance(own, Tensor) else "cpu"
        index = torch.full((), index, dtype=torch.int64, device=device)
    return _finalise_(_finalise_(index + own).add_(own))


class Drawing(NamedTuple):
    """What is drawn: numbers of a kind, as the methods of `Stream` say.

    Attributes:
        kind: "bits", "uniform", "bernoulli" or "midpoints", from which normal numbers are made.
        seed: of the stream.
        name: likewise.
        shape: for each member.
        before: how many dimensions of the shape come before those of the members.
        member: ids `*e`.
        epoch: one for all, or `*e`.
        dtype: floating; of bits and midpoints without meaning.
        device: where.
    """

    kind: str
    seed: int
    name: str
    shape: Shape
    before: int
    member: Ids
    epoch: Ids
    dtype: torch.dtype
    device: torch.device


_drawers: list[Callable[[Drawing], Tensor | None]] = []


def draw_with(drawer: Callable[[Drawing], Tensor | None]) -> None:
    """From now on ask `drawer` first, who gives the same numbers faster, or None where it cannot.

    `lyaptorch/__init__.py` brings the two together.
    """
    _drawers.append(drawer)


@dataclass(frozen=True)
class Stream:
    """Random numbers under one name, addressed by member, epoch and position.

    `members` are the ids of the networks, an int64 tensor of shape `*e` or one int; a draw has shape
    `(*e, *shape)`, its positions count in row-major order within `shape`; with `before` so many dimensions of
    the shape come before the members', as time does. `epoch` is an int or an int64
    tensor, 0-d or of shape `*e`. A draw lives on `device`, else where `members` or `epoch` live. Tensors are
    never read back to the host. All draws agree between devices, normal ones to float64 round-off.

    Example:
        >>> weights = Stream(seed=7, name="weight_hh")
        >>> ensemble = weights.normal((4, 4), member_ids=torch.arange(6).view(2, 3))
        >>> alone = weights.normal((4, 4), member_ids=5)
        >>> ensemble.shape, torch.equal(ensemble[1, 2], alone)
        (torch.Size([2, 3, 4, 4]), True)
    """

    seed: int
    name: str

    def bits(
        self, shape: Shape, *, member_ids: Ids, epoch: Ids = 0, device: Device = None
    ) -> Int[Tensor, "..."]:
        """Draw 64 random bits per element, as int64."""
        return self._drawn("bits", shape, member_ids, epoch, None, device)

    def uniform(
        self,
        shape: Shape,
        *,
        member_ids: Ids,
        epoch: Ids = 0,
        dtype: Dtype = None,
        device: Device = None,
        before: int = 0,
    ) -> Float[Tensor, "..."]:
        """Draw from [0, 1); a shorter dtype holds the same numbers, truncated."""
        return self._drawn("uniform", shape, member_ids, epoch, dtype, device, before)

    def normal(
        self,
        shape: Shape,
        *,
        member_ids: Ids,
        epoch: Ids = 0,
        dtype: Dtype = None,
        device: Device = None,
        before: int = 0,
    ) -> Float[Tensor, "..."]:
        """Draw from the standard normal by its inverse distribution in float64, then round to `dtype`."""
        middle = self._drawn("midpoints", shape, member_ids, epoch, dtype, device, before)
        # ndtri works element by element; a vectorised erfinv or Box-Muller may round its tail differently
        z: Tensor = torch.special.ndtri(middle)
        return z.to(_floating(dtype))

    def bernoulli(
        self,
        shape: Shape,
        *,
        member_ids: Ids,
        epoch: Ids = 0,
        dtype: Dtype = None,
        device: Device = None,
        before: int = 0,
    ) -> Tensor:
        """Toss fair coins: 0 or 1 in any `dtype`."""
        return self._drawn("bernoulli", shape, member_ids, epoch, dtype, device, before)

    def _drawn(
        self,
        kind: str,
        shape: Shape,
        member_ids: Ids,
        epoch: Ids,
        dtype: Dtype,
        device: Device,
        before: int = 0,
    ) -> Tensor:
        if device is None:
            device = next((part.device for part in (member_ids, epoch) if isinstance(part, Tensor)), "cpu")
        ensemble = tuple(member_ids.shape) if isinstance(member_ids, Tensor) else ()
        if isinstance(epoch, Tensor) and epoch.ndim:
            _checks.shape("epoch", epoch, ensemble, "*e", do="give one epoch, or one per member")
        member_ids, epoch = _counter("member", member_ids), _counter("epoch", epoch)
        dtype, device = dtype or torch.get_default_dtype(), torch.device(device)
        d = Drawing(kind, self.seed, self.name, shape, before, member_ids, epoch, dtype, device)
        # what compiles sees operators alone
        for drawer in () if torch.compiler.is_compiling() else _drawers:
            if (found := drawer(d)) is not None:
                return found
        index = torch.arange(math.prod(shape), device=device)
        drawn = bits(self.seed, self.name, _column(member_ids, device), _column(epoch, device), index)
        drawn = _OF_BITS[kind](drawn.view((*ensemble, *shape)), dtype)
        # the first dimensions of the shape go to the front
        at = range(len(ensemble), len(ensemble) + before)
        return drawn.movedim(tuple(at), tuple(range(before))) if before else drawn

    def permutation(
        self, n: int, *, member_ids: Ids, epoch: Ids = 0, device: Device = None
    ) -> Int[Tensor, "... n"]:
        """Shuffle 0..n-1 for each member, in O(n log n)."""
        return self.bits((n,), member_ids=member_ids, epoch=epoch, device=device).argsort(dim=-1, stable=True)


def _counter(name: str, value: Ids) -> Ids:
    if not isinstance(value, Tensor):
        return _checks.integer(name, value, -(1 << 63), (1 << 63) - 1, do="use an int or an int64 tensor")
    if value.dtype != torch.int64:
        raise ValueError(f"{name} must be an int or an int64 tensor, got {value.dtype}; call .long()")
    return value


def key(seed: int, stream: str) -> int:
    """What the name of a stream and a seed are in all its numbers."""
    _checks.integer("seed", seed, 0, _WORD, do="take it from seed_from(generator)")
    mixed = _mix(seed)
    # 256 is no byte, so no name is the beginning of another
    for part in (*stream.encode(), 256):
        mixed = _mix(mixed + part)
    return int(mixed)


def _column(part: Ids, device: Device) -> Ids:
    return part.to(device).unsqueeze(-1) if isinstance(part, Tensor) else part


def _floating(dtype: Dtype) -> torch.dtype:
    dtype = dtype or torch.get_default_dtype()
    _checks.choice("dtype of a draw", str(dtype), map(str, _DIGITS))
    return dtype


def _mix(z: int | Tensor) -> int | Tensor:
    """Take one step of splitmix64 from the state `z`."""
    if isinstance(z, Tensor):
        return _finalise_(z + _GAMMA)
    # The same in host integers, so that a key of integers launches no kernels; the result is an int64 too
    z = (z + _GAMMA) & _WORD
    for shift, factor in _ROUNDS:
        z = (z ^ z >> shift) * factor & _WORD
    z ^= z >> 31
    return z - (z >> 63 << 64)


def _finalise_(z: Tensor) -> Tensor:
    """Scramble `z` in place."""
    for shift, factor in _ROUNDS:
        z ^= _shifted(z, shift)
        z *= factor
    z ^= _shifted(z, 31)
    return z


def _shifted(z: Tensor, shift: int) -> Tensor:
    # The shift of an int64 drags the sign along: the mask makes it the logical shift that the mixer needs
    return (z >> shift).bitwise_and_(_WORD >> shift)


def _uniform(drawn: Tensor, dtype: torch.dtype) -> Tensor:
    # No more bits than the mantissa holds: a longer number could round up to 1
    digits = _DIGITS[_floating(dtype)]
    return _shifted(drawn, 64 - digits).to(dtype).mul_(2.0**-digits)


_OF_BITS: dict[str, Callable[[Tensor, torch.dtype], Tensor]] = {
    "bits": lambda drawn, _: drawn,
    "uniform": _uniform,
    "bernoulli": lambda drawn, dtype: (drawn < 0).to(dtype),
    # 52 bits: their midpoints (j + 1/2) 2^-52 are exact and symmetric; of 53 bits the last would round to 1
    "midpoints": lambda drawn, _: _shifted(drawn, 12).double().add_(0.5).mul_(2.0**-52),
}
"""What is made of 64 bits, by kind."""
