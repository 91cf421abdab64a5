"""Fluctuation-driven initial weights of spiking networks: potentials of a given mean and spread."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream, ids_of, seed_from


class Spiking(Protocol):
    """What is read of a spiking cell, whose `weight_ih` and `weight_hh` are set."""

    dt: float
    threshold: Tensor
    ensemble: tuple[int, ...]

    def decays(self) -> tuple[Tensor, Tensor]:
        """alpha and beta, `(*e, 1, n)`."""


C = TypeVar("C", bound=Spiking)


@torch.no_grad()
def fluctuation_driven(
    cell: C,
    *,
    input_rate: float,
    rate: float = 10.0,
    mean: float = 0.0,
    std: float = 1.0,
    recurrent: float = 0.5,
    member_ids: int | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> C:
    """Draw the weights of a spiking cell so that fluctuations make it fire; in place.

    Where the m inputs are spikes at `input_rate` and the n neurons fire at `rate`, independently, the
    potential without threshold and reset has over time the mean `mean` and the standard deviation `std`, on
    average over neurons; `recurrent` is the share of the neurons in both. A spike of weight w adds w K_j to
    the potential j steps later. With p the probability of a spike in a step, A = sum K = 1 / (1 - alpha) and
    B = sum K^2 = (1 - beta)^2 (1 + alpha beta) / ((1 - alpha^2)(1 - beta^2)(1 - alpha beta)), the
    contribution of N sources with weights N(mu, sigma^2) has

        mean = N p A mu,    variance = N p (1 - p) B (mu^2 + sigma^2).

    Cost O(n^2 + n m).

    Args:
        cell: whose `weight_ih` and `weight_hh` are set.
        input_rate: of each input, in Hz.
        rate: at which the neurons are expected to fire, in Hz.
        mean: of the potential, in units of the threshold.
        std: of the potential, in units of the threshold: (threshold - mean) / std is the paper's xi.
        recurrent: share of the neurons in mean and variance, from 0 to 1; the inputs have the rest.
        member_ids: ids of shape `*e`.
        generator: seeds the weights; None is a fixed seed.

    Returns:
        The cell.

    Raises:
        ValueError: for a rate that leaves no spikes or one in every step, a share outside 0..1, or a mean so
            large that weights which reach it alone vary more than `std`.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.weights.fluctuation_driven(lt.LIFCell(50, 100), input_rate=20.0)
        >>> cell.weight_ih.std() > cell.weight_hh.std()
        tensor(True)

    Source: Rossbroich, Gygax & Zenke (2022), Fluctuation-driven initialization for spiking neural network
    training, here for the exact sums of discrete time; Surrogate Gradient Flossing, appendix D.
    """
    ids, seed = ids_of(cell.ensemble, member_ids, cell.threshold.device), seed_from(generator)
    _checks.share("recurrent", recurrent)
    _checks.positive("std", std)
    alpha, beta = (decay.squeeze(-2) for decay in cell.decays())
    # A spike w gives I the course w alpha^j and U that of w K_j, K_j = (1 - beta) sum_i alpha^i beta^(j - i)
    # = (1 - beta) (alpha^(j + 1) - beta^(j + 1)) / (alpha - beta). Sums of K and K^2 are geometric series:
    # A = (1 - beta) / ((1 - alpha) (1 - beta)), and B as above.
    A = 1 / (1 - alpha)
    B = (1 - beta).square() * (1 + alpha * beta) * A / (1 + alpha) / (1 - beta.square()) / (1 - alpha * beta)
    sources = (
        ("weight_ih", "input_rate", input_rate, 1 - recurrent),
        ("weight_hh", "rate", rate, recurrent),
    )
    for name, rate_name, hertz, share in sources:
        p, weight = hertz * cell.dt, getattr(cell, name)
        if not 0.0 < p < 1.0:
            raise ValueError(
                f"{rate_name} must be between 0 and {1 / cell.dt:g} Hz, one spike in each step, got {hertz}"
            )
        count = weight.shape[-1]
        # mean and variance solved for mu and sigma^2; a spike train of coin tosses has the variance p (1 - p)
        mu = share * mean * cell.threshold / (count * p * A)
        variance = share * (std * cell.threshold).square() / (count * p * (1 - p) * B) - mu.square()
        if (variance < 0).any():
            least = std * float((mu.square() / (variance + mu.square())).max().sqrt())
            raise ValueError(
                f"std must be at least {least:.3g} for a mean of {mean} at these rates, got {std}; "
                "raise it, or lower the mean"
            )
        stream = Stream(seed, f"fluctuation_{name}")
        drawn = stream.normal(tuple(weight.shape[-2:]), member_ids=ids, dtype=weight.dtype)
        weight.copy_(mu.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * drawn)
    return cell
