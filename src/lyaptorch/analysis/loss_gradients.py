"""Gradients of a loss: how far back they reach, and how many directions of the weights they move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch._types import Inputs, State, States
from lyaptorch.cells import Network, as_cell, fit, settle
from lyaptorch.tangent import covariant_vectors

RANKS = ("participation", "entropy", "threshold")


@measures
def gradient_norms(
    cell: Network,
    inputs: Inputs,
    loss: Callable[[States], Tensor],
    *,
    h0: Any = None,
) -> Float[Tensor, "steps *e b"]:
    """|dL/dh_s| of every state, from the initial one to the last: `[0]` is |dL/dh0|.

    `dL/dh_s` holds all that the state s does to the loss, through the later states too. Read backwards it
    says how the error fades or explodes per step back in time; where the loss sees the last state alone,
    its logarithm falls by about lambda_1 per step.

    Args:
        cell: a cell, or anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`.
        loss: from states `(t, *e, b, n)`, those after each step, to a tensor of any shape, which is summed.
        h0: initial state `(*e, b, n)`; zeros when missing.

    Returns:
        `(t + 1, *e, b)`. Cost: one backpropagation through time in plain autograd.

    Raises:
        ValueError: for wrong shapes, or a loss that does not depend on the states.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 8, gain=0.5)
        >>> norms = gradient_norms(cell, torch.zeros(20, 3, 1), lambda states: states[-1].square())
        >>> norms.shape, bool((norms[0] < 1e-3 * norms[-1]).all())
        (torch.Size([21, 3]), True)

    Source: Gradient Flossing, eq 18 and Fig 8; Weakly Coupled Residual Recurrent Networks, Fig 2d.
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    with torch.enable_grad():
        states = [h.detach().requires_grad_()]
        for x in inputs:
            states.append(cell.step(x, states[-1]))
        total = _total(loss, torch.stack(states[1:]))
        gradients = torch.autograd.grad(total, states, materialize_grads=True)
    return torch.stack([_norm(g) for g in gradients])


def _total(loss: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """The sum of a loss, which has a gradient and is a number."""
    value = loss(states)
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise ValueError(
            f"loss must depend on the states it is given, got a {type(value).__name__} without gradient; do "
            "not detach them, nor call .item()"
        )
    return _checks.finite("loss", value.sum(), do="look at what it makes of the states")


def _norm(g: Tensor) -> Tensor:
    """Norms of gradients, whose squares would overflow, or vanish, at half the way."""
    # |g| = m |g / m| with m = max |g_i|
    largest = g.abs().amax(-1, keepdim=True)
    scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
    norm: Tensor = torch.linalg.vector_norm(g / scale, dim=-1) * scale.squeeze(-1)
    return norm


@measures
def gradient_overlap(
    cell: Network,
    inputs: Inputs,
    loss: Callable[[State], Tensor],
    *,
    at: int,
    k: int = 1,
    h0: Any = None,
) -> Float[Tensor, "*e b k"]:
    """|cos| of the angle between dL/dh at one state and the first k covariant Lyapunov vectors there.

    Args:
        cell: a cell, or anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`. The first `at` steps let the frame find the vectors; the others bring all
            but the first vector, which is done by then, back from the end.
        loss: from the state after `at` steps, `(*e, b, n)`, to a tensor of any shape, which is summed.
        at: steps before that state, 1..t-1.
        k: how many vectors.
        h0: initial state `(*e, b, n)`; zeros when missing.

    Returns:
        0..1; 0 where the gradient is. A random direction has about sqrt(2 / (pi n)). Cost: that of
        `covariant_vectors` and one gradient.

    Raises:
        ValueError: for arguments out of range, or a loss that does not depend on the state.

    Example:
        >>> import lyaptorch as lt
        >>> cell, x = lt.RateCell(1, 8).double(), torch.randn(60, 1, 1, dtype=torch.float64)
        >>> found = gradient_overlap(cell, x, lambda h: lt.cells.unroll(cell, x[30:], h)[-1], at=30)
        >>> found.shape
        torch.Size([1, 1])

    Source: Gradient Flossing, appendix D.
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    _checks.integer("at", at, 1, len(inputs) - 1, do="steps must be left on both sides")
    with torch.enable_grad():
        state = settle(cell, inputs[:at], h).detach().requires_grad_()
        total = _total(loss, state)
        (gradient,) = torch.autograd.grad(total, state)
    # one step is counted: the `at` before it turn the frame into the fastest directions, all that follow
    # bring the vectors within it back from the end
    left = len(inputs) - at - 1
    vectors = covariant_vectors(
        cell, inputs.detach(), k=k, h0=h.detach(), tangent_transient=at, backward_transient=left
    )
    return vectors.overlap(gradient.unsqueeze(0))[0]


def gradient_singular_values(loss: Tensor, weight: Tensor) -> Float[Tensor, "*e r"]:
    """Singular values of dL/dW, descending: the size of each direction that one step would change.

    Cost of the gradient, and O(n m min(n, m)) per network.

    Args:
        loss: of any shape; it is summed, so that independent networks stay independent.
        weight: W `(*e, n, m)` on which the loss depends.

    Raises:
        ValueError: for a loss that does not depend on the weight.

    Example:
        >>> W = torch.eye(2, requires_grad=True)
        >>> gradient_singular_values((W * torch.tensor([[3.0, 0.0], [0.0, 4.0]])).sum(), W)
        tensor([4., 3.])

    Source: Gradient Flossing, eq 19 and Fig 10.
    """
    (gradient,) = (
        torch.autograd.grad(loss.sum(), weight, allow_unused=True)
        if loss.requires_grad and weight.requires_grad
        else (None,)
    )
    if gradient is None:
        raise ValueError(
            "loss must depend on the weight, got one whose graph does not reach it; compute it where "
            "gradients are enabled, from a weight with requires_grad"
        )
    values: Tensor = torch.linalg.svdvals(gradient)
    return values


def effective_rank(
    singular_values: Float[Tensor, "*e r"], kind: str = "participation", threshold: float = 0.01
) -> Float[Tensor, "*e"]:
    """How many directions carry a matrix: r for r equal singular values, 1 for one, 0 for none.

    Cost O(r).

    Args:
        singular_values: s >= 0, in any order.
        kind: "participation", (sum s^2)^2 / sum s^4; "entropy", exp of the entropy of s / sum s; "threshold",
            how many exceed `threshold` times the largest.
        threshold: of that kind.

    Raises:
        ValueError: for an unknown kind, or values that are negative, NaN or inf.

    Example:
        >>> s = torch.tensor([1.0, 1.0, 0.001])
        >>> [round(effective_rank(s, kind).item(), 2) for kind in ("participation", "entropy", "threshold")]
        [2.0, 2.01, 2.0]

    Source: entropy: Roy & Vetterli (2007), The effective rank.
    """
    _checks.choice("kind", kind, RANKS)
    if bool((_checks.finite("singular_values", singular_values) < 0).any()):
        raise ValueError(
            f"singular_values must be at least 0, got {singular_values.min().item()}; of eigenvalues pass "
            "their .abs()"
        )
    largest = singular_values.amax(-1, keepdim=True)
    # every matrix at unit scale: squares neither overflow nor vanish
    s = torch.where(largest > 0, singular_values / largest, 0.0)
    if kind == "threshold":
        return (s > threshold).to(s.dtype).sum(-1)
    if kind == "entropy":
        p = s / s.sum(-1, keepdim=True).clamp_min(1.0)
        return torch.where(largest[..., 0] > 0, torch.special.entr(p).sum(-1).exp(), 0.0)
    squares = s.square()
    return squares.sum(-1).square() / squares.square().sum(-1).clamp_min(1.0)
