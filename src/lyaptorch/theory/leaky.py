"""Theory of leaky rate networks: their mean field, and their exponents at rest."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.theory.mean_field import tanh_mean_field

TERMS = 500
"""Odd Hermite polynomials in which tanh is expanded."""
ACCURACY, FORGOTTEN = 1e-11, 1e-9
"""Changes of the covariance, and what may be left of it at the longest lag, over the variance."""
ROUNDS, PATIENCE = 3000, 4
"""Iterations, and those between two extrapolations."""
LONGEST = 1 << 15
HALVINGS = 50


class LeakyMeanField(NamedTuple):
    """What the theory predicts, as float64 tensors.

    Attributes:
        variance: Delta(0), of the states over units and time.
        covariance: `(lags,)`, Delta(tau) of a unit's states tau steps apart, tau = 0, 1, ..., until it is 0.
        lambda_max: the largest exponent, nats per unit of time; a step takes `leak`.

    Example:
        >>> import lyaptorch as lt
        >>> field = lt.theory.leaky_mean_field(0.5, 0.1)
        >>> round(field.variance.item(), 6), bool(field.lambda_max < 0)
        (0.0, True)
    """

    variance: Tensor
    covariance: Float[Tensor, " lags"]
    lambda_max: Tensor


def leaky_mean_field(g: float, leak: float = 1.0) -> LeakyMeanField:
    """A leaky network h' = (1 - leak) h + leak W tanh(h), W ~ N(0, g^2 / n), n to infinity, without input.

    With a = 1 - leak, C(tau) = E[tanh h_s tanh h_{s+tau}] and S(tau) = E[tanh'(h_s) tanh'(h_{s+tau})],

        (1 + a^2) Delta(tau) - a (Delta(tau - 1) + Delta(tau + 1)) = leak^2 g^2 C(tau),

    and lambda_max = log(z) / leak, where the largest eigenvalue of the tridiagonal matrix over lags with
    leak^2 g^2 S(tau) on its diagonal and a z beside it is z^2 + a^2. At leak 1 it is `tanh_mean_field(g)`.

    Args:
        g: gain > 0. Up to 1 the network is at rest, with lambda_max = log(1 - leak + leak g) / leak.
        leak: share of the state that is replaced at each step, above 0 and up to 1.

    Returns:
        `LeakyMeanField`. Cost: about a second, more for g just above 1, where covariances are long.

    Raises:
        ValueError: for a gain that is not above 0, a leak outside (0, 1], or a gain so close to 1 that the
            covariance is not found.

    Example:
        >>> field = leaky_mean_field(3.0, 0.5)
        >>> round(field.lambda_max.item(), 4)
        0.2161

    Source: Sompolinsky, Crisanti & Sommers (1988), Chaos in random neural networks, with time in steps.
    """
    g, leak = float(_checks.positive("g", g)), _leak(leak)
    if g <= 1:
        none = torch.zeros(1, dtype=torch.float64, device="cpu")
        return LeakyMeanField(none[0], none, none[0] + math.log(1 - leak + leak * g) / leak)
    covariance = _covariance(g, leak)
    return LeakyMeanField(covariance[0], covariance, covariance.new_tensor(_lambda_max(g, leak, covariance)))


def quiescent_spectrum(
    eigenvalues: Float[Tensor, "*e n"] | Complex[Tensor, "*e n"], leak: float = 1.0
) -> Float[Tensor, "*e n"]:
    """Exponents of a leaky network at rest, h = 0 with slopes of 1: `log|1 - leak + leak mu_i| / leak`.

    Cost O(n log n).

    Args:
        eigenvalues: mu_i of W, such as `torch.linalg.eigvals(cell.weight_hh)`; both of a complex pair.
        leak: share of the state that is replaced at each step, above 0 and up to 1.

    Returns:
        Descending, float64, nats per unit of time; a step takes `leak`. -inf where a direction is lost.

    Raises:
        ValueError: for a leak outside (0, 1], or eigenvalues that are not finite.

    Example:
        >>> quiescent_spectrum(torch.tensor([0.5, -1.0]), 0.5)
        tensor([-0.5754,    -inf], dtype=torch.float64)

    Source: the eigenvalues of D = (1 - leak) 1 + leak W.
    """
    mu, leak = eigenvalues.detach().to(torch.complex128), _leak(leak)
    _checks.finite("eigenvalues", torch.view_as_real(mu), do="look at the weights")
    rates: Tensor = (1 - leak + leak * mu).abs().log() / leak
    return rates.sort(-1, descending=True).values


def _leak(leak: float) -> float:
    if not 0 < leak <= 1:
        raise ValueError(f"leak must be above 0 and at most 1, got {leak}; 1 keeps nothing of the state")
    return float(leak)


def _covariance(g: float, leak: float) -> Tensor:
    """Delta(0), Delta(1), ... by iteration over frequencies, where the left side is a product."""
    a, lags = 1 - leak, int(64 / leak / min(1.0, g - 1))
    # the variance depends on the leak but little; without leak all this is the answer
    tau = torch.arange(lags + 1, dtype=torch.float64, device="cpu")
    delta = tanh_mean_field(g).variance * (torch.exp(-leak * tau) if a else a**tau)
    while lags <= LONGEST:
        waves = torch.arange(lags + 1, dtype=torch.float64, device="cpu") * (math.pi / lags)
        # |e^(iw) - a|^2 = 1 + a^2 - 2 a cos w
        response = (leak * g) ** 2 / (1 + a * a - 2 * a * waves.cos())
        delta = _fixed_point(response, delta, g)
        if delta[lags // 2 :].abs().max() < FORGOTTEN * delta[0]:
            return delta
        delta, lags = torch.cat([delta, delta.new_zeros(lags)]), 2 * lags
    raise _too_close(g)


def _fixed_point(response: Tensor, delta: Tensor, g: float) -> Tensor:
    """Delta with Delta = response * C(Delta) in frequencies."""
    last, wait = torch.zeros_like(delta), PATIENCE
    for _ in range(ROUNDS):
        q = delta[0]
        rho, c = delta / q, _squares(q)
        # of C(0), and it alone, the terms that are left out would count
        C = torch.cat([(_spread(q) * _grid()[1]).sum().reshape(1), rho[1:] * _series(c, rho[1:].square())])
        # even and periodic in tau: its spectrum is real
        waves = torch.fft.rfft(torch.cat([C, C[1:-1].flip(0)])).real
        after: Tensor = torch.fft.irfft(waves * response)[: len(delta)]
        change = after - delta
        if change.abs().max() < ACCURACY * q:
            return after
        delta, wait = after, wait - 1
        # one mode falls slowest, by a ratio at each step: the rest of its geometric series at once
        ratio = float(change @ last / (last @ last).clamp_min(1e-300))
        if wait <= 0 and 0 < ratio < 1:
            far = after + change * (ratio / (1 - ratio))
            if far[0] > 0 and (far.abs() <= far[0]).all():
                delta, wait = far, PATIENCE
        last = change
    raise _too_close(g)


def _lambda_max(g: float, leak: float, covariance: Tensor) -> float:
    a, q = 1 - leak, covariance[0]
    rho, c = covariance / q, _squares(q)
    # Price: E[f' f'] is the derivative of E[f f'] by the covariance, term by term n c_n rho^(n-1) / q
    order = 2 * torch.arange(len(c), dtype=torch.float64, device="cpu") + 1
    slopes = _series(order * c, rho[1:].square()) / q
    x, weights = q.sqrt() * _grid()[0], _grid()[1]
    first = (x.cosh().pow(-4) * weights).sum().reshape(1)
    diagonal: list[float] = ((leak * g) ** 2 * torch.cat([first, slopes])).tolist()

    def positive(z: float) -> bool:
        """Whether z^2 + a^2 is above all eigenvalues: the pivots of the difference are positive."""
        edge = z * z + a * a
        pivot = edge - diagonal[-1]
        for tau in range(len(diagonal) - 2, -1, -1):
            if pivot <= 0:
                return False
            # of even vectors: the lags tau and -tau are one, so that lag 0 has both neighbours in lag 1
            pivot = edge - diagonal[tau] - (a * z) ** 2 * (1 if tau else 2) / pivot
        return pivot > 0

    low, high = a, a + leak * g
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if positive(middle) else (middle, high)
    return math.log(0.5 * (low + high)) / leak


def _series(c: Tensor, squares: Tensor) -> Tensor:
    """c_0 + c_1 r + c_2 r^2 + ... at r = `squares`."""
    y = torch.zeros_like(squares)
    for value in reversed(c.tolist()):
        y = y * squares + value
    return y


def _squares(q: Tensor) -> Tensor:
    """c_1, c_3, ...: E[tanh h tanh h'] = sum c_n rho^n for h, h' of variance q and correlation rho."""
    c = (_hermite() @ torch.tanh(q.sqrt() * _grid()[0])).square()
    return c[: max(2, int((c > 1e-17 * c.sum()).sum()))]


def _spread(q: Tensor) -> Tensor:
    return torch.tanh(q.sqrt() * _grid()[0]).square()


@lru_cache(maxsize=1)
def _grid() -> tuple[Tensor, Tensor]:
    """z and the weights of the trapezoidal rule for N(0, 1)."""
    z = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64, device="cpu")
    weights = torch.exp(-0.5 * z.square())
    return z, weights / weights.sum()


@lru_cache(maxsize=1)
def _hermite() -> Tensor:
    """Weighted orthonormal Hermite polynomials of odd degree, `(TERMS, points)`."""
    z, weights = _grid()
    before, now, odd = torch.zeros_like(z), torch.ones_like(z), []
    for n in range(2 * TERMS):
        before, now = now, (z * now - math.sqrt(n) * before) / math.sqrt(n + 1)
        if n % 2 == 0:
            odd.append(now * weights)
    return torch.stack(odd)


def _too_close(g: float) -> ValueError:
    return ValueError(f"g must be 1 or less, or well above it, got {g}; there covariances last too long")
