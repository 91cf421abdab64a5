"""What a spectrum says about the condition number of the long-term Jacobian."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lyaptorch._types import Number


def log_condition_number(exponents: Float[Tensor, "*e m"], steps: int | Number) -> Float[Tensor, "*f m"]:
    """`log kappa_m(t) = (lambda_1 - lambda_m) t` for every m: the condition number after t factors.

    Args:
        exponents: descending, nats per step; -inf gives inf.
        steps: t, the number of factors; a tensor broadcasts against `*e`.

    Example:
        >>> import torch
        >>> log_condition_number(torch.tensor([-0.1, -0.2, -0.6]), 10.0)
        tensor([0., 1., 5.])

    Source: Gradient Flossing, eq 10.
    """
    t = steps.unsqueeze(-1) if isinstance(steps, Tensor) else steps
    return (exponents[..., :1] - exponents) * t
