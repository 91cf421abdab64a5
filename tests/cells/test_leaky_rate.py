"""Leaky rate networks: the formula, their clock, their leaks, and theory at scale."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.theory import quiescent_spectrum

pytestmark = pytest.mark.usefixtures("double")
LEAKS = {
    "number": lambda: 0.3,
    "units": lambda: torch.linspace(0.1, 1.0, 6),
    "trained": lambda: nn.Parameter(torch.tensor(0.4)),
    "units trained": lambda: nn.Parameter(torch.linspace(0.2, 0.9, 6)),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_a_step_is_the_formula_and_all_engines_agree(kind):
    leak = LEAKS[kind]()
    cell, x, h = lt.LeakyRateCell(2, 6, leak=leak, gain=2.0), torch.randn(20, 1, 2), torch.randn(1, 6)
    plain = h.tanh() @ cell.weight_hh.mT + x[0] @ cell.weight_ih.mT + cell.bias
    torch.testing.assert_close(cell(x[0], h), (1 - leak) * h + leak * plain, rtol=0, atol=1e-14)
    found = []
    for backend in (None, "torch", "autograd"):
        spec = lt.lyapunov_spectrum(cell, x, k=4, backend=backend)
        loss = lt.flossing_loss(spec.growth.exponents())
        found.append((spec.exponents.detach(), *torch.autograd.grad(loss, list(cell.parameters()))))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-12)
    assert ("leak" in dict(cell.named_parameters())) == ("trained" in kind)
    assert "leak=" in repr(cell)


def test_its_time_is_the_leak_unless_there_is_no_common_one():
    x = torch.zeros(60, 1, 1)
    cell = lt.LeakyRateCell(1, 6, leak=0.2, gain=1.5)
    spec, steps = lt.lyapunov_spectrum(cell, x), lt.lyapunov_spectrum(cell, x, dt=1.0)
    assert (spec.dt, steps.dt) == (0.2, 1.0)
    torch.testing.assert_close(0.2 * spec.exponents, steps.exponents)
    assert lt.diagnose(cell, x).measured.clock.dt == 0.2
    # what is minimised is per step
    record = lt.floss(cell, x, k=2, steps=60, tangent_transient=0, epochs=1)
    expected = record["exponents"][0, 0] * 0.2
    assert float(record["floss_loss"][0, 0]) == pytest.approx(float((expected**2).mean()))
    for kind in ("units", "trained", "units trained"):
        assert lt.LeakyRateCell(1, 6, leak=LEAKS[kind]()).time_step == 1.0


def test_without_leak_it_is_a_rate_network():
    x = torch.randn(30, 2, 1)
    leaky, plain = lt.LeakyRateCell(1, 6, leak=1.0, gain=2.0), lt.RateCell(1, 6, gain=2.0)
    both = [lt.lyapunov_spectrum(cell, x).exponents for cell in (leaky, plain)]
    torch.testing.assert_close(*both, rtol=0, atol=1e-13)


def test_leaks_of_members_are_their_own():
    leaks = torch.tensor([0.2, 0.7])
    cell = lt.LeakyRateCell(1, 5, leak=leaks, gain=2.0, ensemble=(2,))
    x = torch.randn(20, 1, 1)
    both = lt.lyapunov_spectrum(cell, x).exponents
    for i in (0, 1):
        alone = lt.LeakyRateCell(1, 5, leak=leaks[i].item(), gain=2.0, member_ids=torch.tensor(i))
        torch.testing.assert_close(both[i], lt.lyapunov_spectrum(alone, x, dt=1.0).exponents)
    model = lt.Model(cell, lt.Readout(5, 1, ensemble=(2,)))
    floss = lt.FlossPhase(2, k=3, steps=9, tangent_transient=2)
    record = lt.train(model, lt.tasks.DelayedCopy(2), (floss, lt.FitPhase(2)), steps=9)
    assert record["loss"].shape[0] == 2


def test_a_trained_leak_is_trained():
    cell = lt.LeakyRateCell(1, 5, leak=nn.Parameter(torch.tensor(0.4)), gain=2.0)
    before = cell.leak.item()
    lt.floss(cell, torch.randn(20, 1, 1), k=3, steps=20, epochs=3, tangent_transient=0)
    assert cell.leak.item() != before


@pytest.mark.slow
def test_a_network_at_rest_comes_to_the_eigenvalues_of_its_weights():
    cell = lt.LeakyRateCell(1, 50, leak=0.2, gain=0.5, bias=False)
    expected = quiescent_spectrum(torch.linalg.eigvals(cell.weight_hh), 0.2)
    errors = []
    for t in (2000, 8000):
        with torch.no_grad():
            spec = lt.lyapunov_spectrum(cell, torch.zeros(t, 1, 1), tangent_transient=t // 4)
        errors.append((spec.exponents[0].sort(descending=True).values - expected).abs().max())
    assert errors[1] < 1e-3
    assert errors[1] < errors[0]


def of_networks(n, count, steps):
    """Means of lambda_1, and of dimension and entropy over n, of random networks at (3, .5)."""
    found = []
    for seed in range(1, count + 1):
        generator = torch.Generator().manual_seed(seed)
        cell = lt.LeakyRateCell(1, n, leak=0.5, gain=3.0, bias=False, generator=generator).float()
        settings = {"transient": 300, "tangent_transient": 200, "interval": 5, "k": n // 8}
        h0 = 2.3 * torch.randn(1, n, generator=generator).float()
        with torch.no_grad():
            spec = lt.lyapunov_spectrum(cell, torch.zeros(steps + 500, 1, 1).float(), h0=h0, **settings)
        found.append([spec.exponents.max(), spec.kaplan_yorke()[0] / n, spec.entropy()[0] / n])
    return torch.tensor(found).mean(0)


@pytest.mark.slow
def test_large_networks_come_to_the_mean_field():
    # simulated at n = 4096 (Clark 2026)
    expected = torch.tensor([0.2145, 0.0897, 0.00459])
    mean = of_networks(1000, 8, 2500)
    print(mean)
    assert (mean[0] - expected[0]).abs() < 0.01
    assert ((mean / expected - 1).abs()[1:] < torch.tensor([0.06, 0.12])).all()
    assert (
        (of_networks(2000, 3, 1500) - expected).abs() < (of_networks(500, 8, 3000) - expected).abs()
    ).all()


@pytest.mark.parametrize(
    ("leak", "message"),
    [
        (0.0, r"leak must be above 0 and at most 1, got 0.0; it is dt / tau"),
        (1.5, r"leak must be above 0 and at most 1, got 1.5"),
        (math.nan, r"leak must be above 0 and at most 1, got nan"),
        (torch.ones(3), r"leak must be a number or have shape \*e = \(\), \(6,\)"),
        (
            nn.Parameter(torch.ones(3)),
            r"a trained leak must have shape .* \(6,\), got \(3,\)",
        ),
    ],
)
def test_bad_leaks(leak, message):
    with pytest.raises(ValueError, match=message):
        lt.LeakyRateCell(1, 6, leak=leak)


def test_a_leak_that_would_change_nothing_is_refused():
    cell = lt.LeakyRateCell(1, 4, leak=0.2)
    with pytest.raises(AttributeError, match=r"leak is fixed when the cell is made, here 0.2, got 0.5; make"):
        cell.leak = 0.5
    assert (cell.leak, cell.time_step) == (0.2, 0.2)
    x, h = torch.zeros(1, 1), torch.ones(1, 4)
    own = lt.LeakyRateCell(1, 4, leak=torch.full((4,), 0.2))
    before = own(x, h)
    torch.testing.assert_close(cell(x, h), before)
    own.leak = torch.full((4,), 0.5)
    torch.testing.assert_close(own(x, h), lt.LeakyRateCell(1, 4, leak=0.5)(x, h))
