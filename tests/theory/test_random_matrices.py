"""Whole spectra: closed forms, limits, independent integration, and simulations."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

import lyaptorch as lt
from lyaptorch.cells.activation import sech2
from lyaptorch.theory import (
    free_probability_spectrum,
    gaussian_product,
    gaussian_states,
    tanh_mean_field,
    triangle_law,
)
from reference import positive_qr

pytestmark = pytest.mark.usefixtures("double")


def own_noise(n, steps, std, seed=1):
    """A network in which every unit has an input of its own, and these inputs."""
    g = torch.Generator().manual_seed(seed)
    cell = lt.RateCell(n, n, bias=False, generator=g)
    with torch.no_grad():
        cell.weight_ih.copy_(std * torch.eye(n))
    return cell, torch.randn(steps, 1, n, generator=g)


def test_one_number_and_two():
    """E log|z| = -(gamma + log 2) / 2; the sum of exponents is E log|det|."""
    assert gaussian_product(1).item() == pytest.approx(-(np.euler_gamma + math.log(2)) / 2, rel=1e-14)
    assert gaussian_product(1, 3.0).item() == pytest.approx(
        math.log(3) - (np.euler_gamma + math.log(2)) / 2, rel=1e-14
    )
    # a chi with two degrees of freedom: E log = (log 2 - gamma) / 2
    assert gaussian_product(2)[0].item() == pytest.approx((math.log(2) - np.euler_gamma) / 2, rel=1e-14)


@pytest.mark.parametrize("n", [3, 8])
def test_products_of_gaussian_matrices_are_within_four_standard_errors(n):
    """Independent matrices, carried along by QR; growth is independent from step to step."""
    g, steps, std = torch.Generator().manual_seed(3), 4000, 0.7
    Q, growth = torch.eye(n), []
    for A in std * torch.randn(steps, n, n, generator=g):
        Q, R = positive_qr(A @ Q)
        growth.append(R.diagonal().log())
    growth = torch.stack(growth)
    error = growth.std(0) / steps**0.5
    assert ((growth.mean(0) - gaussian_product(n, std)).abs() < 4 * error).all()
    assert (error < 0.02).all()


def test_the_triangle_law_is_the_limit_of_gaussian_products():
    for n in (100, 2000):
        far = (gaussian_product(n, n**-0.5) - triangle_law(n)).abs()
        # digamma(x) = log x - 1/(2x): what is left is less than 1/4 over the rank from below
        assert (far < 0.3 / torch.arange(n, 0, -1)).all()
    assert triangle_law(2000)[0].item() == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(triangle_law(10, -0.3), triangle_law(10) - 0.3, rtol=1e-15)


def test_what_is_not_active_has_nothing():
    found = triangle_law(10, 0.2, 0.5)
    assert torch.isfinite(found[:5]).all()
    assert (found[5:] == -torch.inf).all()
    np.testing.assert_allclose(found[:5], triangle_law(5, 0.2), rtol=1e-14)


def test_equal_slopes_give_the_triangle_law():
    for slope, gain in ((1.0, 1.0), (0.3, 2.0), (-0.3, 2.0)):
        found = free_probability_spectrum(50, torch.full((7,), slope), gain=gain)
        np.testing.assert_allclose(found, triangle_law(50, math.log(abs(gain * slope))), atol=1e-13)


def test_slopes_of_zero_and_one_cut_the_spectrum_off():
    """A share p of slopes 1, the others 0: W keeps pn columns, whose law is the triangle of size p."""
    found = free_probability_spectrum(40, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert (found[16:] == -torch.inf).all()
    np.testing.assert_allclose(found[:16], triangle_law(40, 0.5 * math.log(0.4), 0.4)[:16], atol=1e-12)
    assert (free_probability_spectrum(4, torch.zeros(3)) == -torch.inf).all()


def test_against_an_independent_integration():
    q, g = 1.7, 1.3

    def mean(w):
        def integrand(z):
            X = g**2 * (1 - math.tanh(math.sqrt(q) * z) ** 2) ** 2
            return w * X / (1 + w * X) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        edges = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0)
        return 2 * sum(quad(integrand, a, b, epsrel=1e-12)[0] for a, b in itertools.pairwise(edges))

    h, weights = gaussian_states(torch.tensor(q))
    found = free_probability_spectrum(10, sech2(h), gain=g, weights=weights)
    for i in (0, 4, 9):
        x = (i + 0.5) / 10
        w = math.exp(brentq(lambda u, x=x: mean(math.exp(u)) - x, -20, 60, xtol=1e-13))
        assert found[i].item() == pytest.approx(0.5 * math.log(x / w), abs=1e-7)


def test_the_first_exponent_is_that_of_mean_field_theory():
    """X small: 1/2 log(x / w) goes to 1/2 log E[X]."""
    field = tanh_mean_field(1.4, 0.5)
    h, weights = gaussian_states(field.variance)
    found = free_probability_spectrum(4000, sech2(h), gain=1.4, weights=weights)
    assert found[0].item() == pytest.approx(field.lambda_max.item(), abs=2e-4)
    assert (found.diff() < 0).all()


def test_steps_are_averaged_and_samples_weighted():
    slopes = torch.rand(2, 3, 6, generator=torch.Generator().manual_seed(0))
    together = free_probability_spectrum(9, slopes)
    alone = [free_probability_spectrum(9, row) for row in slopes.flatten(0, 1)]
    torch.testing.assert_close(together, torch.stack(alone).mean(0), rtol=1e-12, atol=0)
    twice = free_probability_spectrum(9, torch.tensor([0.2, 0.2, 0.9]))
    weighted = free_probability_spectrum(9, torch.tensor([0.2, 0.9]), weights=torch.tensor([4.0, 2.0]))
    torch.testing.assert_close(twice, weighted, rtol=1e-12, atol=0)


def deviation(n, steps):
    """Root mean square of simulation minus theory over the upper 90% of a spectrum, g = s = 1."""
    cell, x = own_noise(n, steps + 100, 1.0)
    with torch.no_grad():
        found = lt.lyapunov_spectrum(cell, x, transient=50, tangent_transient=50).exponents[0]
    h, weights = gaussian_states(tanh_mean_field(1.0, 1.0).variance)
    law = free_probability_spectrum(n, sech2(h), weights=weights)
    upper = int(0.9 * n)
    ordered = found.sort(descending=True).values
    return (ordered - law)[:upper].square().mean().sqrt().item()


def test_the_law_of_a_driven_network():
    assert deviation(80, 200) < 0.04


@pytest.mark.slow
def test_the_law_of_a_large_driven_network():
    assert deviation(400, 200) < 0.02


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_product(0), "n must be an integer >= 1, got 0"),
        (lambda: gaussian_product(3, 0.0), "std must be a finite number above 0, got 0"),
        (lambda: triangle_law(3, 0.0, 1.2), "active must be a share above 0 and at most 1, got 1.2"),
        (lambda: triangle_law(3, 0.0, 0.0), "active must be a share above 0 and at most 1, got 0"),
        (
            lambda: free_probability_spectrum(3, torch.ones(2), gain=-1.0),
            "gain must be a finite number above",
        ),
        (
            lambda: free_probability_spectrum(3, torch.tensor([1.0, math.nan])),
            "slopes must be finite, got nan at index",
        ),
        (
            lambda: free_probability_spectrum(3, torch.ones(2), weights=torch.tensor([1.0, -1.0])),
            "weights must not be negative",
        ),
        (
            lambda: free_probability_spectrum(3, torch.ones(2), weights=torch.zeros(2)),
            "weights must not be negative",
        ),
    ],
)
def test_what_is_no_distribution_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
