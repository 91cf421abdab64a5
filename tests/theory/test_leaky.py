"""Mean field and rest of leaky networks: against the formula of other pages, and against networks."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch.theory import leaky_mean_field, quiescent_spectrum, tanh_mean_field

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("g", [1.5, 3.0, 20.0])
def test_without_leak_it_is_the_mean_field_of_discrete_time(g):
    field, plain = leaky_mean_field(g, 1.0), tanh_mean_field(g)
    assert field.lambda_max.item() == pytest.approx(plain.lambda_max.item(), abs=1e-7)
    assert field.variance.item() == pytest.approx(plain.variance.item(), rel=1e-7)
    assert field.covariance[1:].abs().max() == 0


@pytest.mark.parametrize(("leak", "expected"), [(0.5, 0.2161), (0.2, 0.2273)])
def test_known_values(leak, expected):
    field = leaky_mean_field(3.0, leak)
    assert field.lambda_max.item() == pytest.approx(expected, abs=1e-4)
    assert field.variance == field.covariance[0]
    assert field.covariance[-1].abs() < 1e-9 * field.variance


def test_the_covariance_solves_its_equation():
    g, leak = 2.0, 0.4
    delta, a = leaky_mean_field(g, leak).covariance, 0.6
    z = torch.linspace(-9, 9, 301)
    weights = torch.exp(-0.5 * z.square())
    weights = weights / weights.sum()
    for tau in (1, 3, 8):
        # h' = sqrt(q) (rho z + sqrt(1 - rho^2) z') by a plain double sum
        rho, q = delta[tau] / delta[0], delta[0]
        other = torch.tanh(q.sqrt() * (rho * z[:, None] + (1 - rho**2).sqrt() * z))
        C = (weights[:, None] * weights * torch.tanh(q.sqrt() * z)[:, None] * other).sum()
        left = (1 + a * a) * delta[tau] - a * (delta[tau - 1] + delta[tau + 1])
        assert left.item() == pytest.approx((leak**2 * g**2 * C).item(), abs=1e-9)


def test_at_rest():
    field = leaky_mean_field(0.5, 0.3)
    assert field.variance == 0
    assert field.lambda_max.item() == pytest.approx(math.log(0.85) / 0.3)
    # at the edge both branches meet
    assert leaky_mean_field(1.0, 0.3).lambda_max.item() == 0


def test_the_spectrum_at_rest_counts_every_eigenvalue():
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    got = quiescent_spectrum(torch.linalg.eigvals(turn), 0.2)
    pair = 0.5 * math.log(0.8**2 + 0.2**2) / 0.2
    torch.testing.assert_close(got, torch.tensor([math.log(0.9) / 0.2, pair, pair]))
    assert quiescent_spectrum(torch.tensor([-1.0]), 0.5).item() == -math.inf
    edge = quiescent_spectrum(torch.tensor([0.7]), 0.3)
    assert edge.item() == pytest.approx(leaky_mean_field(0.7, 0.3).lambda_max.item())


def test_a_network_comes_to_its_spectrum_at_rest():
    cell = lt.LeakyRateCell(1, 8, leak=0.2, gain=0.5, bias=False)
    with torch.no_grad():
        spec = lt.lyapunov_spectrum(cell, torch.zeros(4000, 1, 1), tangent_transient=400)
    expected = quiescent_spectrum(torch.linalg.eigvals(cell.weight_hh), 0.2)
    torch.testing.assert_close(spec.exponents[0].sort(descending=True).values, expected, rtol=0, atol=3e-3)
    assert spec.exponents.sum().item() == pytest.approx(expected.sum().item(), abs=1e-6)


def shares(exponents):
    """lambda_1, and dimension and entropy over n, of exponents `(b, n)`."""
    ordered = exponents.sort(-1, descending=True).values
    total = ordered.cumsum(-1)
    j = (total >= 0).sum(-1, keepdim=True)
    dimension = j + total.gather(-1, j - 1) / ordered.gather(-1, j).abs()
    n = ordered.shape[-1]
    return ordered[:, 0], dimension[:, 0] / n, ordered.clamp_min(0).sum(-1) / n


def test_the_triangle_law_is_wrong_for_tanh_as_its_warning_says():
    field = tanh_mean_field(3.0)
    h, weights = lt.theory.gaussian_states(field.variance)
    free = lt.theory.free_probability_spectrum(1000, torch.cosh(h) ** -2, gain=3.0, weights=weights)
    law = lt.theory.triangle_law(1000, field.lambda_max.item())
    assert shares(law[None])[1].item() == pytest.approx(0.82, abs=0.005)
    assert shares(free[None])[1].item() == pytest.approx(0.287, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leaky_mean_field(0.0, 0.5), r"g must be a finite number above 0, got 0.0"),
        (lambda: leaky_mean_field(2.0, 0.0), r"leak must be above 0 and at most 1, got 0.0"),
        (lambda: leaky_mean_field(2.0, 1.5), r"leak must be above 0 and at most 1, got 1.5"),
        (lambda: leaky_mean_field(1.0001, 0.5), r"g must be 1 or less, or well above it, got 1.0001"),
        (lambda: quiescent_spectrum(torch.ones(2), 2.0), r"leak must be above 0 and at most 1, got 2.0"),
        (lambda: quiescent_spectrum(torch.tensor([math.nan])), r"eigenvalues must be finite"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
