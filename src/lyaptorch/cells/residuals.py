"""Residual maps: recipes for the matrix A by which a state passes to the next, beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import aside
from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch._types import Number
from lyaptorch.cells.form import Residual
from lyaptorch.cells.matrices import random_frame

__all__ = ["Recipe", "decay", "informed", "matrix", "orthogonal", "rotation", "spread"]


@dataclass(frozen=True)
class Recipe:
    """How to make a residual matrix A for n units of each member; `p @ q` has the product of both.

    A stays "diagonal" or 2x2 "blocks" as long as its factors are.

    Attributes:
        name: how the recipe is shown.
        make: `(n, member_ids (*e))` to a `Residual` whose matrix has the dimensions `*e`.

    Example:
        >>> residual = (rotation(0.2) @ decay(0.99))(6, torch.arange(3))
        >>> residual.kind, residual.matrix.shape
        ('blocks', torch.Size([3, 3, 2, 2]))
    """

    name: str
    make: Callable[[int, Tensor], Residual]

    def __call__(self, n: int, member_ids: Tensor) -> Residual:
        """A for n units of members with these ids."""
        return self.make(n, member_ids)

    def __matmul__(self, other: Recipe) -> Recipe:
        return Recipe(
            f"{self.name} @ {other.name}",
            lambda n, member_ids: _product(self.make(n, member_ids), other.make(n, member_ids)),
        )

    def __repr__(self) -> str:
        return self.name


def decay(r: Number) -> Recipe:
    """A = diag(r): exponents log |r| as the coupling goes to zero; r = 1 is the identity.

    Cost O(n); a step O(n).

    Args:
        r: a number, or a tensor `*e`, `(n,)` or `(*e, n)`.

    Example:
        >>> import lyaptorch as lt
        >>> decay(0.5)(2, torch.zeros((), dtype=torch.int64)).dense()
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.1 and eq 17.
    """
    return Recipe(f"decay({_shown(r)})", lambda n, ids: Residual(spread("r", r, n, ids), "diagonal"))


def rotation(w: Number) -> Recipe:
    """A turns pairs of units (0, 1), (2, 3), ... by the angles w; all its exponents are zero.

    Cost O(n); a step O(n).

    Args:
        w: radians per step; a number, or a tensor `*e`, `(n/2,)` or `(*e, n/2)`.

    Raises:
        ValueError: when made for an odd number of units.

    Example:
        >>> import math, lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 4, residual=rotation(math.pi / 2), coupling=0.0)
        >>> cell(torch.zeros(1, 1), torch.tensor([[1.0, 0.0, 0.0, 0.0]])).abs().argmax().item()
        1

    Source: Fading memory as inductive bias in residual recurrent networks, eq 16.
    """

    def make(n: int, member_ids: Tensor) -> Residual:
        if n % 2:
            raise ValueError(
                f"a rotation turns pairs of units, so their number must be even, got {n}; take {n + 1}"
            )
        angles = spread("w", w, n // 2, member_ids)
        # eigenvalues e^(i w) and e^(-i w) of each block, on the unit circle
        c, s = angles.cos(), angles.sin()
        return Residual(torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2), "blocks")

    return Recipe(f"rotation({_shown(w)})", make)


def orthogonal(n: int, *, generator: torch.Generator | None = None) -> Recipe:
    """A is a Haar-random orthogonal matrix, another one for each member; all its exponents are zero.

    Cost O(n^3) per network; a step O(n^2).

    Args:
        n: number of units.
        generator: seeds the matrices; None is a fixed seed.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 6, residual=orthogonal(6), coupling=0.0)
        >>> lt.lyapunov_spectrum(cell, torch.zeros(20, 1, 1), k=6).exponents.abs().max().item() < 1e-5
        True

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.2.
    """
    stream = Stream(seed_from(generator), "residual")

    def make(size: int, member_ids: Tensor) -> Residual:
        _made_for(n, size, "orthogonal")
        return Residual(random_frame(n, n, stream, member_ids), "dense")

    return Recipe(f"orthogonal({n})", make)


def matrix(A: Tensor) -> Recipe:
    """Any A, `(n, n)` for all members or `(*e, n, n)`; stored as "diagonal" or "blocks" if it is no more.

    A step costs O(n^2), or O(n) where it is diagonal or in 2x2 blocks.

    Example:
        >>> import lyaptorch as lt
        >>> shear = matrix(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        >>> cell = lt.ResidualCell(1, 2, residual=shear, coupling=0.0)
        >>> cell(torch.zeros(1, 1), torch.ones(1, 2)).tolist()
        [[2.0, 1.0]]
    """
    if _checks.tensor("A", A).dim() < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A must have shape (n, n) or (*e, n, n), got {tuple(A.shape)}; it maps states")
    _checks.finite("A", A)
    n = A.shape[-1]

    def make(size: int, member_ids: Tensor) -> Residual:
        _made_for(n, size, "matrix")
        if A.dim() > 2:
            _checks.shape("A", A, (*member_ids.shape, n, n), "(*e, n, n)")
        dense = A.to(torch.get_default_dtype()).expand(*member_ids.shape, n, n)
        slim = Residual(dense.diagonal(dim1=-2, dim2=-1), "diagonal")
        if torch.equal(slim.dense(), dense):
            return slim
        # whether nothing is lost is asked of the numbers, so that a product of recipes may come as a matrix
        if n % 2 == 0:
            # [.., i, a, j, b] is A[2 i + a, 2 j + b]; its blocks are those with i = j
            pairs = torch.unflatten(torch.unflatten(dense, -1, (-1, 2)), -3, (-1, 2))
            slim = Residual(pairs.diagonal(dim1=-4, dim2=-2).movedim(-1, -3), "blocks")
            if torch.equal(slim.dense(), dense):
                return slim
        return Residual(dense, "dense")

    return Recipe(f"matrix({n} x {n})", make)


class HasFrequency(Protocol):
    """What `analysis.characteristic_frequency` says of data."""

    @property
    def frequency(self) -> float:
        """Radians per step."""


class Informed(NamedTuple):
    """Heterogeneous angles, decays and couplings; `residual` is the recipe of the first two.

    Attributes:
        angles: `(*e, n/2)`, radians per step.
        decays: `(*e, n)`.
        couplings: `(*e, n)`.
    """

    angles: Tensor
    decays: Tensor
    couplings: Tensor

    @property
    def residual(self) -> Recipe:
        """Rotations times decays."""
        return rotation(self.angles) @ decay(self.decays)


def informed(
    spectrum: HasFrequency,
    n: int,
    *,
    decays: tuple[float, float] = (0.98, 1.0),
    couplings: tuple[float, float] = (0.01, 0.2),
    ensemble: tuple[int, ...] = (),
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Informed:
    """Heterogeneity informed by the data: with w0 their characteristic frequency, angles are U(0, 2 w0).

    Cost O(n).

    Args:
        spectrum: of the data, from `analysis.characteristic_frequency`.
        n: units, an even number.
        decays: range from which each unit's decay is drawn.
        couplings: range from which each unit's coupling is drawn.
        ensemble: leading dimensions `*e`.
        member_ids: ids of shape `*e`; equal ids get equal numbers.
        generator: seeds the draws; None is a fixed seed.

    Raises:
        ValueError: for an odd n, or a range that is not increasing.

    Example:
        >>> from lyaptorch import ResidualCell, analysis
        >>> waves = torch.sin(0.2 * torch.arange(200.0))[:, None]
        >>> found = informed(analysis.characteristic_frequency(waves), 10)
        >>> cell = ResidualCell(1, 10, residual=found.residual, coupling=found.couplings)
        >>> bool(found.angles.max() < 0.4)
        True

    Source: Fading memory as inductive bias in residual recurrent networks, section 4.3.
    """
    if _checks.integer("n", n, 2) % 2:
        raise ValueError(f"n must be even, because rotations turn pairs of units, got {n}; take {n + 1}")
    for name, (low, high) in (("decays", decays), ("couplings", couplings)):
        if not low <= high:
            raise ValueError(f"{name} must be a range (low, high), got {(low, high)}; swap them")
    ids, seed = ids_of(ensemble, member_ids, "cpu"), seed_from(generator)

    def draw(name: str, size: int, low: float, high: float) -> Tensor:
        return low + (high - low) * Stream(seed, name).uniform((size,), member_ids=ids)

    return Informed(
        draw("angles", n // 2, 0.0, 2 * spectrum.frequency),
        draw("decays", n, *decays),
        draw("couplings", n, *couplings),
    )


def spread(name: str, value: Number, size: int, member_ids: Tensor) -> Tensor:
    """A number, one for each member `*e`, for each unit `(size,)`, or for both, as `(*e, size)`.

    Cost O(size) per member.

    Raises:
        ValueError: for another shape, or one that could mean members as well as units.

    Example:
        >>> spread("r", torch.tensor([0.5, 1.0]), 3, torch.arange(2))
        tensor([[0.5000, 0.5000, 0.5000],
                [1.0000, 1.0000, 1.0000]])
    """
    number = torch.as_tensor(value, dtype=torch.get_default_dtype(), device=member_ids.device)
    ensemble, shape = tuple(member_ids.shape), tuple(number.shape)
    full = (*ensemble, size)
    if shape not in ((), ensemble, (size,), full):
        raise ValueError(
            f"{name} must be a number or have shape *e = {ensemble}, ({size},) or (*e, {size}) = {full}, "
            f"got {shape}"
        )
    # as many members as units: either reading would run, and one of them silently be wrong
    if shape == ensemble == (size,):
        raise ValueError(
            f"{name} of shape {shape} may be one for each of {size} members or one for each of {size} units; "
            f"give it the shape {full}"
        )
    return _checks.finite(name, number if shape != ensemble else number.unsqueeze(-1)).expand(full)


def _made_for(n: int, size: int, what: str) -> None:
    if n != size:
        raise ValueError(f"{what} was made for {n} units, and the cell has {size}; the two must be equal")


def _product(p: Residual, q: Residual) -> Residual:
    if p.kind == q.kind == "diagonal":
        return Residual(p.matrix * q.matrix, "diagonal")
    # decays are the blocks diag(r_0, r_1): they commute with a rotation only if the two are equal
    with aside((p.matrix,), grad=False, evaluate=False):
        if "dense" in (p.kind, q.kind):
            return Residual(p.dense() @ q.dense(), "dense")
        return Residual(_blocks(p) @ _blocks(q), "blocks")


def _blocks(p: Residual) -> Tensor:
    return p.matrix if p.kind == "blocks" else torch.diag_embed(torch.unflatten(p.matrix, -1, (-1, 2)))


def _shown(value: Number) -> str:
    return f"{value:.4g}" if not isinstance(value, Tensor) or value.dim() == 0 else f"{tuple(value.shape)}"
