"""The flossing loss, and penalties on single steps, which are controls and do not replace flossing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Exponents, Number
from lyaptorch.cells import Cell, Form, unroll
from lyaptorch.cells.form import time_in_batch

REDUCTIONS = ("mean", "sum", "none")


def flossing_loss(
    exponents: Exponents, target: Number = 0.0, reduction: str = "mean", k: int | Tensor | None = None
) -> Float[Tensor, "..."]:
    """(lambda_i - target)^2, reduced over i, averaged over trajectories and summed over members.

    Dead columns (-inf) carry no value and no gradient; "mean" divides by the number of the others.
    Trajectories without a living column are left out.

    Cost O(b k) per network.

    Args:
        exponents: `(*e, b, k)` of `lyapunov_spectrum`.
        target: a number, one for each exponent `(k,)`, one for each member `(*e, 1)`, or both, `(*e, k)`. It
            goes with the columns of the frame, and so must not increase.
        reduction: "mean" or "sum" over the exponents, or "none": the mean, one value for each member.
        k: how many leading exponents count, a number or a tensor of shape `*e`; all when missing.

    Returns:
        A scalar, or `(*e,)` for "none". Units: (nats per step)^2.

    Raises:
        ValueError: for an unknown reduction, a target of another shape or one that increases, a k whose shape
            is not `*e`, or a k out of range.

    Example:
        >>> flossing_loss(torch.tensor([[0.5, -0.5, -torch.inf]]))
        tensor(0.2500)

    Source: Gradient Flossing, eq 4 (which says sum; all published code takes the mean).
    """
    _checks.choice("reduction", reduction, REDUCTIONS)
    who = member_losses(exponents, target, "mean" if reduction == "none" else reduction, k)
    return who if reduction == "none" else who.sum()


def member_losses(
    exponents: Exponents, target: Number, reduction: str, k: int | Tensor | None
) -> Float[Tensor, " *e"]:
    """`flossing_loss` of each member, `(*e,)`, with "mean" or "sum" over the exponents."""
    ensemble = tuple(exponents.shape[:-2])
    counts = exponents != -torch.inf
    if k is not None:
        if _checks.can_look():
            low, high = (int(value) for value in _checks.numbers(k).aminmax())
            if not 1 <= low <= high <= exponents.shape[-1]:
                raise ValueError(
                    f"k must be in 1..{exponents.shape[-1]}, the exponents that are there, got {k}"
                )
        rank = torch.arange(exponents.shape[-1], device=exponents.device)
        counts = counts & (rank < _per_member("k", k, ensemble, exponents))
    distance = exponents - _target(target, ensemble, exponents)
    # the mask goes in before the square: -inf squared has no gradient that zero could mend
    squares = torch.where(counts, distance, 0.0).square().sum(-1)
    # "mean" divides by the living columns of each trajectory, so that a dead one lowers no rate of learning
    if reduction != "sum":
        squares = squares / counts.sum(-1).clamp_min(1)
    # trajectories of which nothing counts are left out
    return squares.sum(-1) / counts.any(-1).sum(-1).clamp_min(1)


def _per_member(
    name: str, value: int | Number, ensemble: tuple[int, ...], like: Tensor
) -> int | float | Tensor:
    """A number, or an `*e` tensor shaped against `(*e, b, k)`."""
    value = _checks.per_member(name, value, ensemble)
    return value.to(like)[..., None, None] if isinstance(value, Tensor) else value


def _target(target: Number, ensemble: tuple[int, ...], like: Tensor) -> float | Tensor:
    """What each of the exponents `(*e, b, k)` is to reach, shaped against them."""
    if not isinstance(target, Tensor) or not target.dim():
        return target
    target = check_target(target, ensemble, like.shape[-1]).to(like)
    return target if target.dim() == 1 else target.unsqueeze(-2)


def check_target(target: Number, ensemble: tuple[int, ...], k: int | None = None) -> Tensor:
    """A target of one of the shapes `()`, `(k,)`, `(*e, 1)`, `(*e, k)`, or raise; k where it is known."""
    target = _checks.numbers(target)
    shape, last = tuple(target.shape), target.shape[-1] if target.dim() else 1
    # of as many members as exponents one number each could be meant for either
    unclear = bool(ensemble) and shape == ensemble
    if shape[:-1] not in ((), ensemble) or (k is not None and last not in (1, k)) or unclear:
        size, members = "k" if k is None else f"k = {k}", f"*e = {ensemble}"
        raise ValueError(
            f"target must be a number, a spectrum (k,), or one for each member, (*e, 1) or (*e, k), with "
            f"{size} and {members}, got {shape}"
            + ("; pass target.unsqueeze(-1), or a spectrum as target.expand(*e, k)" if unclear else "")
        )
    if _checks.can_look() and last > 1 and (steps := target.diff(dim=-1) > 0).any():
        at = int(steps.reshape(-1, last - 1).any(0).int().argmax())
        raise ValueError(
            "target must not increase, because it goes with the columns of the frame, of which the first "
            f"grows fastest, got a larger entry at index {at + 1} than at {at}; sort it in descending order"
        )
    return _checks.finite("target", target, do="exponents are pushed to numbers")


Penalty: TypeAlias = Callable[[Cell, Tensor, Tensor, int | Tensor], Tensor]
"""`(cell, inputs (t, *e, b, m), h0 (*e, b, n), k) -> (*e)`, k a number or `*e`."""


def spectral_radius(cell: Cell, inputs: Tensor, h0: Tensor, k: int | Tensor) -> Tensor:
    """(max |eig W| - 1)^2 of the recurrent weights.

    Raises:
        ValueError: for a cell without a Form, which has no recurrent weights to speak of.
    """
    # differentiable but where the largest eigenvalue is not simple, which has measure 0
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
    # D of all steps at once: time was folded into the batch
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
    # sum_ij W_ij^2 / n estimates n var W, the g^2 of W_ij ~ N(0, g^2 / n), without taking off a mean
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
