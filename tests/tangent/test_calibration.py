"""Standard errors mean what they say: one covers the truth in 68.3% of all cases, two in 95.4%."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch.tangent.growth import Growth
from lyaptorch.testing import henon

pytestmark = pytest.mark.usefixtures("double")

HENON = 0.41922
"""lambda_1 of the Henon map (Sprott, 2003)."""
WAIT = {"transient": 100, "tangent_transient": 100}


def coverage(spec, truth):
    return ((spec.exponents - truth).abs() < spec.stderr()).double().mean(0)


def covers(spec, truth):
    """61 to 76%: 68% and 3.2 standard deviations of 400 coins; one of 35 such shares errs in 5% of runs."""
    share = coverage(spec, truth)
    print([round(100 * s, 1) for s in share.tolist()], "%")
    return ((share > 0.61) & (share < 0.757)).all()


def run_henon(steps):
    h0 = 0.1 * torch.rand(400, 2)
    return lt.lyapunov_spectrum(henon, torch.zeros(steps + 200, 400, 1), h0=h0, **WAIT)


def run_network(cell, steps, k):
    with torch.no_grad():
        return lt.lyapunov_spectrum(cell, torch.randn(steps + 200, 400, 1), k=k, **WAIT)


def test_henon():
    spec = run_henon(600)
    assert covers(spec, torch.tensor([HENON, torch.tensor(0.3).log() - HENON]))
    assert spec.kaplan_yorke().mean().item() == pytest.approx(1.258, abs=0.005)


@pytest.mark.parametrize("gain", [1.0, 4.0], ids=["stable", "chaotic"])
def test_a_driven_tanh_network(gain):
    cell = lt.RateCell(1, 10, gain=gain, generator=torch.Generator().manual_seed(2))
    truth = run_network(cell, 3000, 2).exponents.mean(0)
    assert covers(run_network(cell, 500, 2), truth)


def autoregression(correlation, steps, draws):
    """Growth (steps, draws, 1) that is worth 0, from a stationary autoregression of order 1."""
    rows = [torch.randn(draws) / (1 - correlation**2) ** 0.5]
    for _ in range(steps - 1):
        rows.append(correlation * rows[-1] + torch.randn(draws))
    return torch.stack(rows).unsqueeze(-1)


def covered(log_r):
    """Per cent of the draws whose truth, 0, lies within one and within two standard errors."""
    steps = torch.ones(len(log_r), dtype=torch.int64)
    error = Growth(log_r, steps, torch.ones_like(log_r, dtype=torch.bool)).stderr()
    off = log_r.mean(0).abs()
    found = [100 * (off <= times * error).double().mean().item() for times in (1, 2)]
    print([round(share, 1) for share in found], "%")
    return found


SHORT = [(0.0, 8, 8, 8), (0.0, 39, 3, 3), (0.0, 400, 3, 3), (0.9, 400, 3, 3)]
"""Correlation, intervals, and points by which the coverage of one and two errors may be off."""
MORE = [(-0.9, 400, 3, 3), (-0.5, 39, 3, 3), (0.5, 39, 4, 4), (0.5, 400, 3, 3), (0.0, 3000, 3, 3)]


def check_coverage(correlation, steps, off_one, off_two, draws):
    one, two = covered(autoregression(correlation, steps, draws))
    assert abs(one - 68.3) < off_one
    assert abs(two - 95.4) < off_two


@pytest.mark.parametrize(("correlation", "steps", "off_one", "off_two"), SHORT)
def test_coverage(correlation, steps, off_one, off_two):
    # of 6000 draws a share is known to 0.6 and 0.3 points
    check_coverage(correlation, steps, off_one, off_two, 6000)


def test_coverage_of_growth_that_is_worth_two_numbers():
    """39 intervals of correlation 0.9: mostly nothing is said, and what is said is true."""
    log_r = autoregression(0.9, 39, 6000)
    assert covered(log_r)[1] > 88
    steps = torch.ones(39, dtype=torch.int64)
    error = Growth(log_r, steps, torch.ones_like(log_r, dtype=torch.bool)).stderr()
    assert (error == torch.inf).double().mean() > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "steps", "off_one", "off_two"), [*SHORT, *MORE])
def test_coverage_of_many(correlation, steps, off_one, off_two):
    check_coverage(correlation, steps, off_one, off_two, 40_000)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [400, 1000, 3000])
def test_henon_at_every_length(steps):
    assert covers(run_henon(steps), torch.tensor([HENON, torch.tensor(0.3).log() - HENON]))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [400, 1000, 3000])
@pytest.mark.parametrize("gain", [1.0, 2.0, 4.0])
def test_networks_at_every_length(gain, steps):
    cell = lt.RateCell(1, 20, gain=gain, generator=torch.Generator().manual_seed(2))
    truth = run_network(cell, 10_000, 3).exponents.mean(0)
    assert covers(run_network(cell, steps, 3), truth)
