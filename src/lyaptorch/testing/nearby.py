"""lambda_1 without a Jacobian: how fast two nearby trajectories part."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch._types import Inputs
from lyaptorch.cells import Network, as_cell, fit, settle


@torch.no_grad()
def divergence_rate(
    cell: Network,
    inputs: Inputs,
    *,
    h0: Any = None,
    transient: int = 0,
    tangent_transient: int = 0,
    distance: float | None = None,
    dt: float | None = None,
) -> Float[Tensor, "*e b"]:
    """lambda_1 from the distance of two trajectories with the same inputs, set back at every step.

    With `h~ = h + distance * u`, |u| = 1, `lambda_1 = mean log(|step(h~) - step(h)| / distance)`, and the
    difference gives the next u. It reads nothing but the step, and is an oracle for `lyapunov_spectrum`; not
    for steps with a surrogate slope, whose tangent is not that of the step.

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`; t = transient + tangent_transient + counted.
        h0: initial state; zeros when missing.
        transient: first steps, of one trajectory.
        tangent_transient: next steps, of both, not counted.
        distance: between the trajectories, in units of 1 + |h|; the square root of eps when missing.
        dt: time per step; the cell's own when missing.

    Returns:
        `(*e, b)`, nats per step (per unit of time with `dt`), good to about `distance`; -inf where they meet.

    Raises:
        ValueError: for inputs that hold no counted step, and as `lyapunov_spectrum` does.
        FloatingPointError: if the state overflows.

    Example:
        >>> step = lambda x, h: 2 * h.remainder(0.5)
        >>> rate = divergence_rate(step, torch.zeros(20, 1, 1), h0=torch.full((1, 1), 0.3))
        >>> round(rate.item(), 3)
        0.693

    Source: Gradient Flossing, eq 22; Benettin, Galgani and Strelcyn (1976).
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    _checks.integer("transient", transient, 0, len(inputs) - 1)
    _checks.integer("tangent_transient", tangent_transient, 0, len(inputs) - transient - 1)
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    eps = torch.finfo(h.dtype).eps ** 0.5 if distance is None else _checks.positive("distance", distance)
    h, inputs = settle(cell, inputs[:transient], h), inputs[transient:]
    u = Stream(DEFAULT_SEED, "nearby").normal(tuple(h.shape), member_ids=0, dtype=h.dtype, device=h.device)
    u = u / _length(u)
    total = torch.zeros_like(h[..., 0])
    for s, x in enumerate(inputs):
        apart = eps * (1 + _length(h))
        after = cell.step(x, h)
        v = cell.step(x, h + apart * u) - after
        length = _length(v)
        if s >= tangent_transient:
            total += (length / apart).log().squeeze(-1)
        u, h = torch.where(length > 0, v / torch.where(length > 0, length, 1.0), u), after
    if not torch.isfinite(h).all():
        raise FloatingPointError(f"the state is not finite after {len(inputs)} steps: {cell.advice}")
    return total / ((len(inputs) - tangent_transient) * dt)


def _length(u: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    return length
