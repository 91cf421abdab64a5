"""Penalties that look at single steps only: controls, which do not replace flossing.

Each is a function of the cell along a trajectory, one value for each member, differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lyaptorch.cells import Cell, Form, unroll
from lyaptorch.cells.form import time_in_batch

Penalty: TypeAlias = Callable[[Cell, Tensor, Tensor, int | Tensor], Tensor]
"""`(cell, inputs (t, *e, b, m), h0 (*e, b, n), k) -> (*e)`, k a number or `*e`."""


def spectral_radius(cell: Cell, inputs: Tensor, h0: Tensor, k: int | Tensor) -> Tensor:
    """(max |eig W| - 1)^2 of the recurrent weights.

    Raises:
        ValueError: for a cell without a Form, which has no recurrent weights to speak of.
    """
    radius: Tensor = torch.linalg.eigvals(_form(cell).weight_hh).abs().amax(-1)
    return (radius - 1).square()


def one_step_jacobians(cell: Cell, inputs: Tensor, h0: Tensor, k: int | Tensor) -> Tensor:
    """Mean of log^2 sigma_i over the first k singular values of every one-step Jacobian.

    Cost O(t b n^3).
    """
    x, h = _steps(cell, inputs, h0)
    n = h.shape[-1]
    eye = torch.eye(n, dtype=h.dtype, device=h.device).expand(*h.shape, n)
    _, D = cell.pushforward(x, h, eye)
    values: Tensor = torch.linalg.svdvals(D)
    counts = torch.arange(n, device=h.device) < torch.as_tensor(k, device=h.device)[..., None, None]
    # 1 has the logarithm 0, and a gradient even where what it stands for is 0
    squares = torch.where(counts, values, 1.0).log().square()
    return squares.sum(-1).mean(-1) / counts.sum((-2, -1))


def mean_field_slope(cell: Cell, inputs: Tensor, h0: Tensor, k: int | Tensor) -> Tensor:
    """(g^2 <phi'^2> - 1)^2, g^2 = n var W: what mean-field theory sets to zero at the edge of chaos.

    Raises:
        ValueError: for a cell without a Form.
    """
    form = _form(cell)
    x, h = _steps(cell, inputs, h0)
    slopes = torch.ones_like(h)
    if form.inner is not None:
        slopes = slopes * form.inner.slope(h)
    if form.outer is not None:
        u = h if form.inner is None else form.inner(h)
        slopes = slopes * form.outer.slope(u @ form.weight_hh.mT + form.drive(x))
    gain = form.weight_hh.square().sum((-2, -1)) / h.shape[-1]
    return (gain * slopes.square().mean((-2, -1)) - 1).square()


PENALTIES: dict[str, Penalty] = {
    "spectral_radius": spectral_radius,
    "one_step_jacobians": one_step_jacobians,
    "mean_field_slope": mean_field_slope,
}


def _form(cell: Cell) -> Form:
    form = cell.form()
    if not isinstance(form, Form) or form.residual is not None or form.coupling is not None:
        raise ValueError(
            "this penalty needs a cell with recurrent weights and no residual connection, got "
            f"{type(cell).__name__}"
        )
    return form


def _steps(cell: Cell, inputs: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """Input and state of every step, time folded into the batch."""
    before = torch.cat([h0.unsqueeze(0), unroll(cell, inputs, h0)[:-1]])
    return time_in_batch(inputs), time_in_batch(before)
