"""The flossing loss: squared distance of Lyapunov exponents from a target."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Exponents, Number

REDUCTIONS = ("mean", "sum", "none")


def flossing_loss(
    exponents: Exponents, target: Number = 0.0, reduction: str = "mean", k: int | Tensor | None = None
) -> Float[Tensor, "..."]:
    """(lambda_i - target)^2, reduced over i, averaged over trajectories and summed over members.

    Dead columns (-inf) carry no value and no gradient; "mean" divides by the number of the others.
    Trajectories without a living column are left out.

    Args:
        exponents: `(*e, b, k)` of `lyapunov_spectrum`.
        target: a number, or a tensor of shape `*e`.
        reduction: "mean" or "sum" over the exponents, or "none": the mean, one value for each member.
        k: how many leading exponents count, a number or a tensor of shape `*e`; all when missing.

    Returns:
        A scalar, or `(*e,)` for "none". Units: (nats per step)^2.

    Raises:
        ValueError: for an unknown reduction, a target or k whose shape is not `*e`, or a k out of range.

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
    distance = exponents - _per_member("target", target, ensemble, exponents)
    # the mask goes in before the square: -inf squared has no gradient that zero could mend
    squares = torch.where(counts, distance, 0.0).square().sum(-1)
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
