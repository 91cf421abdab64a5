"""Mean-field theory: limits, the fixed point itself, an independent integration, and a simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

import lyaptorch as lt
from lyaptorch.theory import (
    binary_mean_field,
    critical_gain,
    critical_input,
    gaussian_states,
    tanh_mean_field,
)

PAIRS = [(1.001, 0.0), (1.1, 0.0), (2.0, 0.0), (10.0, 0.0), (0.5, 0.3), (1.0, 1e-3), (1.0, 1.0), (3.0, 0.5)]
PAIRS += [(10.0, 2.0), (0.9, 5.0), (0.01, 20.0)]


def mean(f, q):
    """E f(sqrt q z) by adaptive quadrature, which knows nothing of the library's grid."""
    width = min(1.0, 1 / math.sqrt(q)) if q else 1.0
    edges = [0.0, width, 4 * width, 12 * width, 40.0]

    def integrand(z):
        return f(math.sqrt(q) * z) * math.exp(-z * z / 2)

    total = sum(
        quad(integrand, a, b, epsabs=1e-14, epsrel=1e-13, limit=200)[0] for a, b in itertools.pairwise(edges)
    )
    return 2 * total / math.sqrt(2 * math.pi)


def tanh2(x):
    return math.tanh(x) ** 2


def sech4(x):
    return (1 - math.tanh(x) ** 2) ** 2


@pytest.mark.parametrize(("g", "s"), PAIRS)
def test_against_an_independent_integration(g, s):
    field = tanh_mean_field(g, s)
    residual = field.variance.item() - g**2 * mean(tanh2, field.variance.item()) - s**2
    assert abs(residual) < 1e-10 * max(1.0, field.variance.item())
    variance = brentq(lambda q: g**2 * mean(tanh2, q) / q + s**2 / q - 1, 1e-9, g**2 + s**2 + 1, xtol=1e-14)
    assert field.variance.item() == pytest.approx(variance, rel=1e-8, abs=1e-8)
    lambda_max = 0.5 * math.log(g**2 * mean(sech4, variance))
    assert field.lambda_max.item() == pytest.approx(lambda_max, rel=0, abs=1e-8)


def test_without_input_nothing_lives_below_gain_one():
    g = torch.cat([torch.logspace(-8, 0, 50, dtype=torch.float64), torch.tensor([1.0])])
    field = tanh_mean_field(g)
    assert (field.variance == 0).all()
    torch.testing.assert_close(field.lambda_max, g.log(), rtol=1e-15, atol=1e-15)
    assert tanh_mean_field(1.0) == (0.0, 0.0)


def test_near_the_transition_variance_and_exponent_grow_as_they_should():
    """E tanh^2 = q - 2 q^2 + 17/3 q^3 and E sech^4 = 1 - 2 q + 7 q^2: q = e, lambda = 2/3 e^2, e = g - 1."""
    for e in (1e-3, 1e-4):
        field = tanh_mean_field(1 + e)
        q = field.variance.item()
        assert 1 / (1 + e) ** 2 == pytest.approx(1 - 2 * q + 17 / 3 * q**2, abs=50 * e**3)
        assert q == pytest.approx(e, rel=3 * e)
        assert field.lambda_max.item() == pytest.approx(2 / 3 * q**2, rel=50 * e)


def test_large_gain_and_strong_input():
    """Almost all units are saturated: E tanh^2 = 1 - sqrt(2 / (pi q)), E sech^4 = 4/3 / sqrt(2 pi q)."""
    for g, s in ((100.0, 0.0), (1.0, 100.0), (1000.0, 0.0)):
        field = tanh_mean_field(g, s)
        q = field.variance.item()
        assert q == pytest.approx(g**2 * (1 - math.sqrt(2 / (math.pi * q))) + s**2, rel=1e-5)
        expected = 0.5 * math.log(g**2 * 4 / 3 / math.sqrt(2 * math.pi * q))
        assert field.lambda_max.item() == pytest.approx(expected, abs=1e-3)


def test_gains_and_inputs_broadcast_and_none_depends_on_another():
    g, s = torch.tensor([0.5, 1.5, 10.0])[:, None], torch.tensor([0.0, 1.0])
    field = tanh_mean_field(g, s)
    assert field.variance.shape == field.lambda_max.shape == (3, 2)
    assert field.variance.dtype == torch.float64
    for i in range(3):
        for j in range(2):
            alone = tanh_mean_field(g[i, 0].item(), s[j].item())
            # the grid is as fine as the largest variance needs
            torch.testing.assert_close(field.variance[i, j], alone.variance, rtol=1e-13, atol=0)
            torch.testing.assert_close(field.lambda_max[i, j], alone.lambda_max, rtol=1e-12, atol=1e-14)
    rising = tanh_mean_field(torch.linspace(0.1, 5, 60), 0.3)
    assert (rising.variance.diff() > 0).all()
    assert (rising.lambda_max.diff() > 0).all()


@pytest.mark.parametrize(("g", "s"), [(0.6, 0.5), (0.8, 1.0), (2.0, 1.0), (4.0, 0.0)])
def test_against_a_simulation(g, s):
    """A network of 400 units, each with noise of its own.

    Without activity the exponent is that of one matrix, whose spectral radius exceeds g by a few per cent.
    """
    units, steps = 400, 500
    g_ = torch.Generator().manual_seed(1)
    cell = lt.RateCell(units, units, gain=g, bias=False, generator=g_)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(units))
    inputs = s * torch.randn(steps, 1, units, generator=g_)
    h0 = torch.randn(1, units, generator=g_)
    found = lt.lyapunov_spectrum(cell, inputs, k=1, h0=h0, transient=50, tangent_transient=50)
    field = tanh_mean_field(g, s)
    assert found.exponents.item() == pytest.approx(field.lambda_max.item(), abs=0.02)
    states = lt.Model(cell, torch.nn.Identity(), h0=h0).states(inputs).detach()[100:]
    assert states.square().mean().item() == pytest.approx(field.variance.item(), rel=0.05, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("g", "s"), [(3.0, 0.0), (2.0, 1.0), (1.0, 1.0)])
def test_against_simulations_of_a_thousand_units(g, s):
    """The mean over four networks; without input one network of 1000 units scatters by about 0.01."""
    units, networks, steps = 1000, 4, 600
    g_ = torch.Generator().manual_seed(2)
    cell = lt.RateCell(units, units, gain=g, bias=False, ensemble=(networks,), generator=g_)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(units))
    h0 = torch.randn(networks, 1, units, generator=g_)
    inputs = s * torch.randn(steps, networks, 1, units, generator=g_)
    found = lt.lyapunov_spectrum(cell, inputs, k=1, h0=h0, transient=100, tangent_transient=50)
    expected = tanh_mean_field(g, s).lambda_max.item()
    assert found.exponents.mean().item() == pytest.approx(expected, abs=0.012)


def test_the_input_that_suppresses_chaos_undoes_the_critical_gain():
    g = torch.tensor([[1.05, 1.5, 2.0], [3.0, 10.0, 30.0]])
    s = critical_input(g)
    assert s.shape == g.shape
    assert tanh_mean_field(g, s).lambda_max.abs().max() < 1e-9
    torch.testing.assert_close(critical_gain(s), g.double(), rtol=1e-8, atol=0)
    assert (s.flatten().diff() > 0).all()
    assert (critical_input(torch.tensor([0.2, 1.0])) == 0).all()
    with pytest.raises(ValueError, match="critical_input needs g > 0, got -1"):
        critical_input(-1.0)


@pytest.mark.parametrize(("g", "power"), [(0.1, 0.0), (0.5, 0.3), (1.0, 0.0), (5.0, 2.0), (100.0, 0.0)])
def test_binary_networks_against_an_independent_integration(g, power):
    field = binary_mean_field(g, power)
    assert field.variance.item() == pytest.approx(1 + power, rel=1e-15)
    expected = 0.5 * math.log(mean(sech4, g**2 * (1 + power)))
    assert field.lambda_max.item() == pytest.approx(expected, abs=1e-9)


def test_binary_networks_at_large_sharpness():
    """E sech^4(a z) = 4/3 / (a sqrt(2 pi)) (1 - O(1/a^2)): saturated units pass nothing on."""
    for g in (1e3, 1e5):
        expected = 0.5 * math.log(4 / 3 / (g * math.sqrt(2 * math.pi)))
        assert binary_mean_field(g).lambda_max.item() == pytest.approx(expected, abs=1e-6)


def test_binary_networks_against_a_simulation():
    """h' = W sign(h) + V x with the surrogate slope; the input current changes in time: logs are averaged."""
    units, steps, g = 400, 300, 1.5
    g_ = torch.Generator().manual_seed(1)
    step = lt.Activation(torch.sign, lambda x: 1 / torch.cosh(g * x) ** 2, surrogate=True, name="sign")
    cell = lt.RateCell(1, units, activation=step, bias=False, generator=g_)
    inputs = 0.7 * torch.randn(steps, 1, 1, generator=g_)
    h0 = torch.randn(1, units, generator=g_)
    found = lt.lyapunov_spectrum(cell, inputs, k=1, h0=h0, transient=20, tangent_transient=20)
    current = inputs[40:, 0] @ cell.weight_ih.detach().mT
    expected = binary_mean_field(g, current.double().square().mean(-1)).lambda_max.mean().item()
    assert found.exponents.item() == pytest.approx(expected, abs=0.03)
    apart = binary_mean_field(g, current.double().square().mean().item()).lambda_max.item()
    assert abs(apart - expected) > 0.01


@pytest.mark.parametrize(("g", "power"), [(0.0, 0.0), (-1.0, 0.0), (1.0, -0.1), (math.nan, 0.0)])
def test_arguments_that_are_no_binary_network(g, power):
    with pytest.raises(ValueError, match=r"binary_mean_field needs g > 0 and input_power >= 0, got g="):
        binary_mean_field(g, power)


def test_weights_of_gaussian_states_give_expectations():
    for variance in (0.01, 1.0, 50.0):
        h, weights = gaussian_states(torch.tensor(variance, dtype=torch.float64))
        assert (h**2 * weights).sum().item() == pytest.approx(variance, rel=1e-12)
        assert (h**4 * weights).sum().item() == pytest.approx(3 * variance**2, rel=1e-12)
        expected = mean(tanh2, variance)
        assert (h.tanh() ** 2 * weights).sum().item() == pytest.approx(expected, rel=1e-6)


def test_the_critical_gain_is_where_the_exponent_is_zero():
    s = torch.tensor([[0.0, 0.01, 0.3], [1.0, 3.0, 10.0]])
    g = critical_gain(s)
    assert g.shape == s.shape
    assert tanh_mean_field(g, s).lambda_max.abs().max() < 1e-10
    assert (g.flatten().diff() > 0).all()
    assert critical_gain(0.0).item() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(critical_gain(1.0).item(), g[1, 0].item(), rtol=1e-10)
    below, above = tanh_mean_field(0.99 * g[1], s[1]), tanh_mean_field(1.01 * g[1], s[1])
    assert (below.lambda_max < 0).all()
    assert (above.lambda_max > 0).all()


@pytest.mark.parametrize(
    ("g", "s"),
    [
        (0.0, 0.0),
        (-1.0, 0.0),
        (1.0, -0.1),
        (math.nan, 0.0),
        (1.0, math.nan),
        (math.inf, 0.0),
        (1.0, math.inf),
    ],
)
def test_arguments_that_are_no_network(g, s):
    with pytest.raises(ValueError, match=r"tanh_mean_field needs g > 0 and s >= 0, got g="):
        tanh_mean_field(g, s)
    with pytest.raises(ValueError, match=r"tanh_mean_field needs g > 0 and s >= 0, got g="):
        tanh_mean_field(torch.tensor([1.0, g]), torch.tensor([0.0, s]))


@pytest.mark.parametrize("s", [-1.0, math.nan, math.inf])
def test_an_input_that_has_no_critical_gain(s):
    with pytest.raises(ValueError, match=r"critical_gain needs s >= 0, got"):
        critical_gain(s)
