"""Standard errors mean what they say: of 400 one-sigma intervals about two thirds cover the truth."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch.testing import henon

pytestmark = pytest.mark.usefixtures("double")

HENON = 0.41922
"""lambda_1 of the Henon map (Sprott, 2003)."""
WAIT = {"transient": 100, "tangent_transient": 100}


def coverage(spec, truth):
    return ((spec.exponents - truth).abs() < spec.stderr()).double().mean(0)


def covers(spec, truth):
    """62 to 74%: 68% and 2.5 standard deviations of 400 coins."""
    share = coverage(spec, truth)
    print([round(100 * s, 1) for s in share.tolist()], "%")
    return ((share > 0.62) & (share < 0.74)).all()


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
