"""Initial weights: ensembles of matrices by name, and starts that are written into a network in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lyaptorch._random import Stream, ids_of, seed_from
from lyaptorch.cells.fluctuation import fluctuation_driven
from lyaptorch.cells.form import Residual
from lyaptorch.cells.matrices import (
    WEIGHTS,
    Weights,
    balanced,
    dale,
    fan_in,
    gaussian,
    identity,
    low_rank,
    mixing,
    orthogonal,
    shifted_mean,
    uniform,
    weights,
)
from lyaptorch.cells.mixing import Mixing, mixing_

__all__ = [
    "WEIGHTS",
    "Mixing",
    "Weights",
    "balanced",
    "dale",
    "fluctuation_driven",
    "gaussian",
    "identity",
    "low_rank",
    "mixing",
    "mixing_",
    "orthogonal",
    "shifted_mean",
    "uniform",
    "weakly_coupled_",
    "weights",
]


@torch.no_grad()
def weakly_coupled_(
    network: nn.Module,
    residual: Callable[[int, Tensor], Residual],
    coupling: float = 0.03,
    *,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Initialise an Elman network in place as a weakly coupled residual network of kind B.

    W = A + eps U(-1/sqrt n, 1/sqrt n), V = eps U(-1/sqrt m, 1/sqrt m), and so the bias. Cost O(n^2).

    Args:
        network: an `ElmanCell`, a `torch.nn.RNNCell`, or a `torch.nn.RNN` with one layer and direction.
        residual: how to make A, from `lyaptorch.residuals`.
        coupling: eps.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Raises:
        ValueError: for any other network, or a residual that does not fit it.

    Example:
        >>> from lyaptorch import residuals
        >>> rnn = torch.nn.RNN(1, 100)
        >>> weakly_coupled_(rnn, residuals.rotation(0.2))
        >>> torch.linalg.eigvals(rnn.weight_hh_l0).abs().round(decimals=1).unique()
        tensor([1.], grad_fn=<Unique2Backward0>)

    Source: Fading memory as inductive bias in residual recurrent networks, eq 19.
    """
    tail = "_l0" if isinstance(network, nn.RNNBase) else ""
    found = {name.removesuffix(tail): p for name, p in network.named_parameters()}
    known = {"weight_hh", "weight_ih", "bias_hh", "bias_ih"}
    W, V = found.get("weight_hh"), found.get("weight_ih")
    if W is None or V is None or not found.keys() <= known or W.shape[-1] != W.shape[-2]:
        raise ValueError(
            "network must be an ElmanCell, a torch.nn.RNNCell or a torch.nn.RNN with one layer and "
            f"direction, got {type(network).__name__} with {', '.join(found) or 'no parameters'}"
        )
    (n, m), seed = V.shape[-2:], seed_from(generator)
    ids = ids_of(tuple(W.shape[:-2]), member_ids, W.device)
    # phi(A h + eps (U h + V x + b)) is phi(W h + ...) with W = A + eps U: an Elman network
    A = residual(n, ids).dense().to(W)
    W.copy_(A + coupling * fan_in((n, n), n, Stream(seed, "weight_hh"), ids))
    V.copy_(coupling * fan_in((n, m), m, Stream(seed, "weight_ih"), ids))
    if "bias_ih" in found:
        found["bias_ih"].copy_(coupling * fan_in((n,), m, Stream(seed, "bias"), ids))
        found["bias_hh"].zero_()
