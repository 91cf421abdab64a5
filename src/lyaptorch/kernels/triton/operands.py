"""A form as the Triton kernels read it: every tensor expanded over the members, activations as numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import triton
from torch import Tensor

from lyaptorch.cells.activation import Activation
from lyaptorch.cells.form import AnyForm, Form, LIFForm, linear
from lyaptorch.cells.surrogates import Surrogate
from lyaptorch.kernels.arguments import KINDS, matrix_shape, numbers

RESIDENT = 128
"""Units up to which one matrix of float32 stays on the chip, half of them for two or for float64: 256 kB of
registers and 227 kB of shared memory hold no 256 x 256 of them beside what works on it."""
PRECISIONS = ("tf32x3", "ieee", "tf32")
"""Of products in float32: three on the tensor cores (to 2^-21), none there, or one (to 2^-11)."""


@dataclass(frozen=True)
class Shape:
    """Sizes: the ensemble `*e`, its members, steps, trajectories, units of W and the tiles that hold them."""

    ensemble: tuple[int, ...]
    members: int
    t: int
    b: int
    n: int

    @property
    def tile(self) -> int:
        """Units, padded to a power of two that the tensor cores take."""
        return padded(self.n)

    def launch(self, dtype: torch.dtype, matrices: int = 1) -> dict[str, Any]:
        """What kernels that work with that many n x n matrices are launched with."""
        return {
            "RESIDENT": self.tile * matrices * dtype.itemsize // 4 <= RESIDENT,
            "PRECISION": precision(dtype),
            # the least rows that tensor cores take: more programs are better than larger ones, a network has
            # few
            "B": 16,
            "N": self.tile,
            "num_warps": 4 if self.tile <= 32 else 8 if self.tile <= 128 else 16,
        }

    @property
    def grid(self) -> tuple[int, int]:
        """One program for each member and 16 of its trajectories."""
        return self.members, triton.cdiv(self.b, 16)


def shape_of(form: AnyForm, inputs: Tensor, h: Tensor) -> Shape:
    """The sizes of a form run on inputs `(t, *e, b, m)` from h `(*e, b, N)`."""
    (*e, b, _), n = h.shape, form.weight_hh.shape[-1]
    return Shape(tuple(e), prod(e), len(inputs), b, n)


def padded(n: int) -> int:
    """The power of two from 16 on that holds n."""
    return max(16, int(triton.next_power_of_2(n)))


def precision(dtype: torch.dtype) -> str:
    """Of products: that of the environment variable LYAPTORCH_PRECISION, or to about float32's round-off.

    Raises:
        ValueError: for an unknown name.
    """
    name = os.environ.get("LYAPTORCH_PRECISION", PRECISIONS[0])
    if name not in PRECISIONS:
        raise ValueError(f"LYAPTORCH_PRECISION must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return name if dtype == torch.float32 else "ieee"


def is_nonlinear(f: Activation | None) -> bool:
    """Whether an activation is not the identity."""
    return numbers(f)[:2] != (0, 0)


def sharpness(f: Activation | None, like: Tensor, shape: Shape) -> Tensor:
    """g of each unit `(e, n)`; any tensor where there is none."""
    if not isinstance(f, Surrogate):
        return like
    return rowwise(f.arguments[0].to(like.dtype).expand(*shape.ensemble, 1, shape.n).squeeze(-2))


def rowwise(z: Tensor) -> Tensor:
    """Detached and contiguous."""
    return z.detach().contiguous()


def drive_of(form: AnyForm, inputs: Tensor, shape: Shape) -> Tensor:
    """V x + sum b `(e, t, b, n)`, in memory of its own."""
    drive = linear(inputs.detach(), form.weight_ih.detach())
    for bias in form.biases:
        drive = drive + bias.detach().unsqueeze(-2)
    return sequence(drive.expand(shape.t, *shape.ensemble, shape.b, shape.n), shape)


def sequence(z: Tensor, shape: Shape) -> Tensor:
    """`(t, *e, b, N)` to `(e, t, b, N)`, contiguous; no copy where it lies so already."""
    e = len(shape.ensemble)
    return z.detach().movedim(0, e).reshape(shape.members, *z.shape[:1], *z.shape[-2:]).contiguous()


def by_time(z: Tensor, shape: Shape) -> Tensor:
    """`(e, t, b, N)` to `(t, *e, b, N)`, without a copy."""
    return z.reshape(*shape.ensemble, *z.shape[1:]).movedim(len(shape.ensemble), 0)


def residual_operands(form: Form, h: Tensor, shape: Shape) -> tuple[list[Tensor], int, dict[str, Any]]:
    """Of a form W, A, c and sharpnesses, the size of A, and what the kernels are specialised by."""
    residual, phi = form.residual, None if form.residual is None else form.residual.activation
    W = rowwise(form.weight_hh.expand(*shape.ensemble, shape.n, shape.n))
    A = W
    if residual is not None:
        A = rowwise(residual.matrix.expand(*shape.ensemble, *matrix_shape(residual, shape.n)))
    c = W if form.coupling is None else rowwise(form.coupling.expand(*shape.ensemble, shape.n))
    functions = (form.inner, form.outer, phi)
    special = {
        **dict(zip(("G", "F", "PHI"), map(numbers, functions), strict=True)),
        "KIND": 0 if residual is None else KINDS[residual.kind],
        "COUPLED": form.coupling is not None,
        **shape.launch(h.dtype, 1 + (residual is not None and residual.kind == "dense")),
    }
    return [W, A, c, *(sharpness(f, W, shape) for f in functions)], A.numel() // shape.members, special


def neurons(form: LIFForm, h: Tensor, shape: Shape) -> tuple[list[Tensor], dict[str, Any]]:
    """Of neurons W, alpha, beta, threshold and sharpness, and what the kernels are specialised by."""
    rows = (form.alpha, form.beta, form.threshold)
    W = rowwise(form.weight_hh.expand(*shape.ensemble, shape.n, shape.n))
    special = {
        "F": numbers(form.spike),
        "SUBTRACT": form.reset == "subtract",
        "SIMULTANEOUS": form.order == "simultaneous",
        **shape.launch(h.dtype),
    }
    own = [W, *(rowwise(z.expand(*shape.ensemble, shape.n)) for z in rows)]
    return [*own, sharpness(form.spike, W, shape)], special
