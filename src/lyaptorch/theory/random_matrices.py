"""Whole spectra of large random networks, from products of random matrices."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks

HALVINGS = 60


def gaussian_product(n: int, std: float = 1.0) -> Float[Tensor, " n"]:
    """Exponents of a product of independent `(n, n)` matrices with entries N(0, std^2): exact at every n.

    `lambda_i = 1/2 [log(2 std^2) + digamma((n - i + 1) / 2)]`, descending, float64.

    Cost O(n).

    Example:
        >>> round(gaussian_product(1).item(), 6)  # E log|z|
        -0.635181

    Source: Newman (1986), The distribution of Lyapunov exponents: exact results for random matrices.
    """
    _checks.integer("n", n, 1)
    _checks.positive("std", std)
    # R_ii^2 of the i-th QR step is std^2 times a chi-square of n - i + 1 degrees, whatever came before:
    # E log chi^2_k = log 2 + digamma(k / 2), and the exponent is half of E log R_ii^2
    left = torch.arange(n, 0, -1, dtype=torch.float64, device="cpu")
    exponents: Tensor = 0.5 * (math.log(2 * std**2) + torch.special.digamma(0.5 * left))
    return exponents


def triangle_law(n: int, lambda_max: float = 0.0, active: float = 1.0) -> Float[Tensor, " n"]:
    """`lambda_i = lambda_max + 1/2 log(1 - x_i / active)`, x_i = (i - 1/2) / n, and -inf from x = active on.

    The limit of `gaussian_product` for large n, moved to a given first exponent. With the share of units
    outside saturation as `active` this is the law of the surrogate paper; that the others have -inf is an
    artefact of taking slopes for 0 or 1: see `free_probability_spectrum`.

    Cost O(n).

    Warning:
        Of networks whose slopes differ, such as those of tanh, it gets sums over the spectrum badly wrong: at
        g = 3 a Kaplan-Yorke dimension of .82 n, where simulations have .287 n, `free_probability_spectrum`
        with `gaussian_states` to 1%.

    Args:
        n: number of exponents.
        lambda_max: the first exponent as x goes to 0, for example of `tanh_mean_field`.
        active: share p of units that pass perturbations on, 0 < p <= 1.

    Raises:
        ValueError: for an n below 1 or an active share outside (0, 1].

    Example:
        >>> triangle_law(2, active=0.5)
        tensor([-0.3466,    -inf], dtype=torch.float64)

    Source: Isopi & Newman (1992), The triangle law for Lyapunov exponents of large random matrices;
    Surrogate Gradient Flossing, eq 6.
    """
    x = _middles(n)
    if not 0 < active <= 1:
        raise ValueError(f"active must be a share above 0 and at most 1, got {active}")
    # digamma(k / 2) -> log(k / 2): 1/2 log(std^2 (n - i + 1)), less its value at i = 1, is 1/2 log(1 - x)
    return lambda_max + 0.5 * (1 - x / active).clamp_min(0.0).log()


def free_probability_spectrum(
    n: int,
    slopes: Float[Tensor, "*steps count"],
    *,
    gain: float = 1.0,
    weights: Float[Tensor, " count"] | None = None,
) -> Float[Tensor, " n"]:
    """The exponents of W diag(phi'(h)), W ~ N(0, gain^2 / n), for a given distribution of slopes phi'(h).

    With `X = gain^2 phi'(h)^2`, exponent x = (i - 1/2) / n is `1/2 log(x / w)` where
    `E[w X / (1 + w X)] = x`: the S-transform of a product of free matrices. Equal slopes give the triangle
    law. Large n, W independent of h, and of itself from step to step.

    Cost O(n count) per step, 60 times, for the roots.

    Args:
        n: number of exponents.
        slopes: phi'(h), sampled; of either sign. Leading dimensions are steps whose distributions differ:
            the exponents are averaged over them.
        gain: of W.
        weights: of the samples; equal when missing. With `gaussian_states` of mean-field theory no sampling
            is needed.

    Returns:
        Descending, float64; -inf where more than 1 - x of the slopes are exactly 0.

    Raises:
        ValueError: for an n below 1, a gain that is not above 0, slopes that are not finite, or weights that
            are negative or all 0.

    Example:
        >>> import lyaptorch as lt
        >>> field = lt.theory.tanh_mean_field(1.0, 1.0)
        >>> h, weights = lt.theory.gaussian_states(field.variance)
        >>> spectrum = free_probability_spectrum(400, torch.cosh(h) ** -2, weights=weights)
        >>> bool(spectrum[0] - field.lambda_max < 0.01)
        True

    Source: the law of products of free matrices, Nica & Speicher (1997), On the multiplication of free
    N-tuples; Engelken, Wolf & Abbott (2023), Lyapunov spectra of chaotic recurrent neural networks.
    """
    x = _middles(n).to(slopes.device)
    _checks.positive("gain", gain)
    X = (gain * _checks.finite("slopes", slopes.detach().double(), do="drop them")).square()
    X = X.reshape(-1, X.shape[-1])
    shares = torch.ones_like(X[0]) if weights is None else weights.detach().double()
    if not (shares >= 0).all() or not shares.sum() > 0:
        raise ValueError("weights must not be negative, nor all 0; they are shares of the samples")
    shares = (shares / shares.sum()).expand_as(X)
    return torch.stack([_one_step(x, *pair) for pair in zip(X, shares, strict=True)]).mean(0)


def _one_step(x: Tensor, X: Tensor, shares: Tensor) -> Tensor:
    """1/2 log(x / w) for samples X `(count,)`, by bisection for log w."""
    inside = X > 0
    X, shares = X[inside], shares[inside]
    if len(X) == 0:
        return torch.full_like(x, -torch.inf)
    possible = x < shares.sum()
    # w X / (1 + w X) lies between its values at the smallest and at the largest X
    # w X / (1 + w X) is the logistic function of log w + log X: bisection is in log w
    odds = (x / (shares.sum() - x).clamp_min(1e-300)).log()
    low, high = odds - X.max().log(), odds - X.min().log()
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = (torch.sigmoid(middle.unsqueeze(-1) + X.log()) * shares).sum(-1) > x
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(possible, 0.5 * (x.log() - 0.5 * (low + high)), -torch.inf)


def _middles(n: int) -> Tensor:
    return (torch.arange(_checks.integer("n", n, 1), dtype=torch.float64, device="cpu") + 0.5) / n
