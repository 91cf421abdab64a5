"""What the length of a flow's steps costs is measured, and `reliable` and the error bars know it."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells.flow import finer
from lyaptorch.testing import henon, lorenz

pytestmark = pytest.mark.usefixtures("double")


def decay(rate, method="rk4", dt=0.01, t=16, h0=1.0):
    flow = lt.Flow(lambda x, h: -rate * h, dt=dt, method=method)
    return lt.lyapunov_spectrum(flow, torch.zeros(t, 1, 1), h0=torch.full((1, 1), h0))


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("rate", [200.0, 250.0, 300.0, 1000.0])
def test_a_decay_faster_than_the_step_is_not_reliable(method, rate):
    spec = decay(rate, method, h0=0.0 if rate == 1000 else 1.0)
    assert not spec.reliable.any()
    off = abs(spec.exponents.item() + rate)
    assert off > 0.1 * rate
    # the right value lies within the error bar, but for a part that the series leaves
    assert spec.stderr().item() > 0.95 * off


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("z", [0.2, 0.5, 1.0, 1.5])
def test_the_estimate_is_the_error(method, z):
    spec = decay(z / 0.01, method)
    off = abs(spec.exponents.item() + z / 0.01)
    # 10%: higher powers of the step than the first that counts
    assert spec.discretisation.item() == pytest.approx(off, rel=0.1)
    assert spec.reliable.all() == (off < 0.05 * 100 * z)
    # without fluctuations it is all of the error bar
    assert spec.stderr().item() == pytest.approx(spec.discretisation.item(), rel=1e-6)


def test_units_follow_dt():
    flow, x, h = lt.Flow(lambda x, h: -100 * h, dt=0.01), torch.zeros(16, 1, 1), torch.ones(1, 1)
    per_time, per_step = (lt.lyapunov_spectrum(flow, x, h0=h, dt=dt) for dt in (None, 1.0))
    torch.testing.assert_close(per_step.discretisation, 0.01 * per_time.discretisation)
    assert per_step.reliable.equal(per_time.reliable)


def relaxation(x, h):
    """FitzHugh-Nagumo with a fast variable of time constant 0.05."""
    v, w = h.unbind(-1)
    return torch.stack([(v - v**3 / 3 - w + 0.5) / 0.05, v + 0.7 - 0.8 * w], -1)


def test_jumps_of_a_relaxation_oscillator_that_the_step_misses_are_seen():
    found = []
    for dt in (0.06, 0.01):
        spec = lt.lyapunov_spectrum(
            lt.Flow(relaxation, dt=dt),
            torch.zeros(int(24 / dt), 1, 1),
            h0=torch.zeros(1, 2),
            transient=int(4 / dt),
        )
        found.append(spec)
    coarse, fine = found
    assert not coarse.reliable[0, 1]
    assert coarse.stderr()[0, 1] > 5
    assert fine.reliable.all()
    assert fine.discretisation.max() < 0.05
    assert fine.exponents[0, 1].item() == pytest.approx(-22, abs=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [0.01, 0.025])
def test_lorenz_at_usual_steps_is_as_reliable_as_ever(dtype, dt):
    h0 = torch.tensor([[1.0, 2.0, 20.0]], dtype=dtype)
    spec = lt.lyapunov_spectrum(lt.Flow(lorenz, dt=dt), torch.zeros(300, 1, 1, dtype=dtype), h0=h0)
    assert spec.reliable.all()
    assert spec.discretisation.max() < 0.01
    plain = spec.growth.stderr(spec.dt)
    assert (spec.stderr() <= 1.001 * plain).all()


@pytest.mark.parametrize(("dt", "resolved"), [(0.01, True), (0.5, True), (2.0, False)])
def test_a_centre_without_growth_is_judged_by_its_speed(dt, resolved):
    flow = lt.Flow(lambda x, h: torch.stack([h[..., 1], -h[..., 0]], -1), dt=dt)
    spec = lt.lyapunov_spectrum(flow, torch.zeros(40, 1, 1), h0=torch.ones(1, 2))
    assert spec.reliable.all() == resolved
    assert (spec.discretisation > 0.9 * spec.exponents.abs()).all()


def test_maps_are_not_judged():
    spec = lt.lyapunov_spectrum(henon, torch.zeros(20, 1, 1), h0=torch.zeros(1, 2))
    assert spec.discretisation is None
    assert spec.resolved is None


class Loop(nn.Module):
    """A flow inside another step."""

    def __init__(self, rate):
        super().__init__()
        self.flow = lt.Flow(lambda x, h: -rate * h, dt=0.01)

    def forward(self, x, h):
        return self.flow(x, h)


@pytest.mark.parametrize(("rate", "resolved"), [(50.0, True), (250.0, False)])
@pytest.mark.parametrize("settings", [{}, {"interval": 3}, {"backend": "autograd"}, {"checkpoint": 4}])
def test_a_flow_within_another_step_is_judged_on_every_way(settings, rate, resolved):
    spec = lt.lyapunov_spectrum(Loop(rate), torch.zeros(16, 2, 1), h0=torch.ones(2, 3), k=2, **settings)
    assert spec.discretisation.shape == (2, 2)
    assert spec.reliable.all() == resolved


def test_covariant_vectors_carry_it():
    flow, x, h = lt.Flow(lambda x, h: -250 * h, dt=0.01), torch.zeros(30, 1, 1), torch.ones(1, 2)
    covariant = lt.covariant_vectors(flow, x, h0=h)
    assert (covariant.discretisation > 190).all()
    assert lt.covariant_vectors(henon, x, h0=0 * h).discretisation is None


def test_a_diagnosis_names_the_step_and_not_round_off():
    flow = lt.Flow(lambda x, h: -250 * h + x, dt=0.01)
    found = lt.diagnose(flow, torch.randn(300, 1, 2), h0=torch.zeros(1, 2))
    assert "2 are off by the length of the flow's steps, which a smaller dt mends" in str(found)
    assert "0 are lost to it" in str(found)


def test_a_dead_direction_is_not_called_coarse():
    flow = lt.Flow(lambda x, h: -h / 0.5, dt=0.5, method="rk4")
    project = lambda x, h: flow.step(x, h) * torch.tensor([1.0, 0.0])  # noqa: E731

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x, h):
            return project(x, h)

    spec = lt.lyapunov_spectrum(Projected(), torch.zeros(16, 1, 1), h0=torch.ones(1, 2), frame=torch.eye(2))
    assert spec.exponents[0, 1] == -math.inf
    assert spec.resolved[0, 1]
    assert not spec.reliable[0, 1]


def test_finer_steps_are_those_of_a_smaller_dt_and_do_not_stay():
    flow, half = (lt.Flow(lorenz, dt=dt) for dt in (0.02, 0.01))
    x, h = torch.zeros(1, 1), torch.tensor([[1.0, 2.0, 20.0]])
    with finer(flow, 2):
        assert flow.step(x, h).equal(half.step(x, half.step(x, h)))
    with pytest.raises(RuntimeError, match="on purpose"), finer(flow, 4):
        raise RuntimeError("on purpose")
    assert flow.pieces == 1


def test_the_error_of_a_trajectory_that_ends_is_that_which_it_has_alone():
    """Fast at first and slow later, so that what comes after the end would make it small."""
    flow = lt.Flow(lambda x, h: -50 * h**3 - h, dt=0.01)
    x, h = torch.zeros(400, 2, 1), torch.ones(2, 1)
    both = lt.lyapunov_spectrum(flow, x, h0=h, lengths=[20, 400])
    alone = lt.lyapunov_spectrum(flow, x[:20, :1], h0=h[:1])
    torch.testing.assert_close(both.discretisation[0], alone.discretisation[0], rtol=0.1, atol=0.0)
    fine = lt.Flow(lambda x, h: -50 * h**3 - h, dt=0.0005)
    exact = lt.lyapunov_spectrum(fine, x[:, :1].double(), h0=h[:1].double()).exponents
    assert (both.exponents[0] - exact[0]).abs() < 1.5 * both.discretisation[0]


def test_the_error_of_the_step_does_not_shrink_with_the_number_of_trajectories():
    flow = lt.Flow(lambda x, h: -250 * h, dt=0.01)
    for b in (1, 10):
        spec = lt.lyapunov_spectrum(flow, torch.zeros(100, b, 1), h0=torch.ones(b, 1))
        torch.testing.assert_close(spec.stderr_of_mean(), spec.discretisation.mean(-2))
        found = lt.diagnose(flow, torch.zeros(100, b, 1), h0=torch.ones(b, 1))
        assert found.measured.error > 200
        assert "too coarse to be sure" in str(found)
        torch.testing.assert_close(
            found.measured.spectrum.variables()[0]["error_of_mean"][1], found.measured.error
        )
