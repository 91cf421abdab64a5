"""Flows: the right ODE at the right order, tangent and state together, exponents per unit of time."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.testing import LORENZ_EXPONENTS, LORENZ_SUM, lorenz

pytestmark = pytest.mark.usefixtures("double")

N, M, B = 4, 2, 3
ORDERS = {"rk4": 4, "dopri5": 5}
methods = pytest.mark.parametrize("method", ORDERS)


class Field(nn.Module):
    """dh/dt = (tanh(W h + V x) - h) / tau, one time constant per unit."""

    def __init__(self, n=N, m=M, gain=1.5):
        super().__init__()
        self.weight_hh = nn.Parameter(gain * torch.randn(n, n) / n**0.5)
        self.weight_ih = nn.Parameter(torch.randn(n, m))
        self.tau = nn.Parameter(torch.linspace(0.5, 2.0, n))

    def forward(self, x, h):
        return (torch.tanh(h @ self.weight_hh.mT + x @ self.weight_ih.mT) - h) / self.tau


def exact(field, x, h, Q, time):
    """The state and the solution of dQ/dt = (df/dh) Q after `time`, by torchdiffeq to 1e-12 or so."""
    torchdiffeq = pytest.importorskip("torchdiffeq")

    def both(_, state):
        h, Q = state
        D = torch.func.vmap(torch.func.jacrev(field, argnums=1))(x, h)
        return field(x, h), D @ Q

    times = torch.tensor([0.0, time])
    with torch.no_grad():
        # a step ends at the end: the interpolation between steps is of a lower order
        end = torchdiffeq.odeint(
            both, (h, Q), times, method="dopri8", rtol=1e-13, atol=1e-13, options={"step_t": times[1:]}
        )
    return end[0][1], end[1][1]


def test_state_and_tangent_converge_to_the_solution_together_at_the_order_of_the_method():
    field, x, h, Q = Field(), torch.randn(B, M), torch.randn(B, N), torch.randn(B, N, 2)
    expected = exact(field, x, h, Q, 1.6)
    for method, order in ORDERS.items():
        errors = []
        for steps in (64, 128):
            flow, y, P = lt.Flow(field, dt=1.6 / steps, method=method), h, Q
            with torch.no_grad():
                for _ in range(steps):
                    y, P = flow.pushforward(x, y, P)
            errors.append([(got - want).abs().max() for got, want in zip((y, P), expected, strict=True)])
        for quantity in range(2):
            coarse, fine = (e[quantity].item() for e in errors)
            assert fine < 1e-8
            assert math.log2(coarse / fine) == pytest.approx(order, abs=0.6)


@methods
def test_the_tangent_is_the_exact_derivative_of_the_step(method):
    flow, x, h = lt.Flow(Field(), dt=0.3, method=method), torch.randn(1, M), torch.randn(1, N)
    D = torch.autograd.functional.jacobian(lambda y: flow.step(x, y)[0], h)[:, 0]
    after, pushed = flow.pushforward(x, h, torch.eye(N)[None])
    torch.testing.assert_close(pushed[0], D, rtol=0, atol=1e-14)
    torch.testing.assert_close(after, flow.step(x, h), rtol=0, atol=1e-15)


@pytest.mark.parametrize(("method", "terms"), [("rk4", 5), ("dopri5", 7)])
def test_a_linear_field_gives_the_stability_polynomial(method, terms):
    """Exp(z) to the order of the method; dopri5 has z^6 / 600 besides."""
    z = -0.4
    coefficients = [1 / math.factorial(i) for i in range(5)] + [1 / 120, 1 / 600]
    factor = sum(c * z**i for i, c in enumerate(coefficients[:terms]))
    flow = lt.Flow(lambda x, h: z * h, dt=1.0, method=method)
    assert flow.step(torch.zeros(1, 1), torch.ones(1, 1)).item() == pytest.approx(factor, abs=1e-15)
    spec = lt.lyapunov_spectrum(flow, torch.zeros(3, 1, 1), h0=torch.ones(1, 1))
    assert spec.exponents.item() == pytest.approx(math.log(factor), abs=1e-15)


def test_exponents_are_per_unit_of_time_unless_dt_is_given():
    flow, inputs, h0 = lt.Flow(Field(), dt=0.05), torch.randn(40, B, M), torch.randn(B, N)
    spec = lt.lyapunov_spectrum(flow, inputs, h0=h0)
    assert spec.dt == flow.time_step == 0.05
    torch.testing.assert_close(spec.exponents, spec.growth.log_r.sum(0) / (40 * 0.05), rtol=1e-14, atol=0)
    per_step = lt.lyapunov_spectrum(flow, inputs, h0=h0, dt=1.0)
    torch.testing.assert_close(per_step.exponents, 0.05 * spec.exponents, rtol=1e-13, atol=0)
    covariant = lt.covariant_vectors(flow, inputs, h0=h0)
    assert covariant.dt == 0.05
    torch.testing.assert_close(covariant.exponents, spec.exponents, rtol=1e-12, atol=1e-13)
    assert lt.lyapunov_spectrum(lt.RateCell(M, N), inputs).dt == 1.0


def test_parameters_of_a_module_and_closed_over_tensors_are_found():
    field = Field()
    assert [n for n, _ in lt.Flow(field, dt=0.1).named_parameters()] == [
        f"function.{name}" for name in ("weight_hh", "weight_ih", "tau")
    ]
    rate = torch.tensor(2.0, requires_grad=True)
    flow = lt.Flow(lambda x, h: -rate * h, dt=0.01)
    spec = lt.lyapunov_spectrum(flow, torch.zeros(5, 1, 1), h0=torch.ones(1, 2))
    (gradient,) = torch.autograd.grad(spec.exponents.sum(), rate)
    # d lambda / d rate = -1 for each of two
    assert gradient.item() == pytest.approx(-2.0, abs=1e-6)


def test_a_bad_field_is_refused_in_words(unchecked):
    x, h = torch.zeros(3, 1, 1), torch.ones(1, N)
    for f, got in ((lambda x, h: h[:, :1], r"\(1, 1\) torch.float64"), (lambda x, h: (h, h), "a tuple")):
        with pytest.raises(
            ValueError, match=r"f\(x, h\) must return dh/dt like the state, \(1, 4\).*got " + got
        ):
            lt.lyapunov_spectrum(lt.Flow(f, dt=0.1), x, h0=h)
    with pytest.raises(
        ValueError, match=r"like the state, \(1, 4\) torch.float64, got \(1, 4\) torch.float32"
    ):
        lt.lyapunov_spectrum(lt.Flow(lambda x, h: h.float(), dt=0.1), x, h0=h)
    with pytest.raises(ValueError, match=r"f must be a module or a function f\(x, h\), got int"):
        lt.Flow(3, dt=0.1)
    with pytest.raises(ValueError, match=r"dt must be a finite number above 0, got 0\.0"):
        lt.Flow(lorenz, dt=0.0)
    with pytest.raises(ValueError, match="unknown method 'dopri8', did you mean 'dopri5'"):
        lt.Flow(lorenz, dt=0.1, method="dopri8")
    with pytest.raises(ValueError, match="h0 must be given for a function or module"):
        lt.lyapunov_spectrum(lt.Flow(lorenz, dt=0.1), x)


@pytest.mark.parametrize("settings", [{}, {"interval": 7}, {"transient": 40}, {"backend": "autograd"}])
def test_a_flow_that_blows_up_is_named_with_its_step_and_dt(settings):
    flow, step = lt.Flow(lambda x, h: h * h, dt=0.05), 0
    h = torch.ones(1, 1)
    while torch.isfinite(h).all():
        h, step = flow.step(torch.zeros(1, 1), h), step + 1
    after = f"not finite after step {step} " + ("of the transient" if "transient" in settings else "")
    for compute in (lt.lyapunov_spectrum, lt.covariant_vectors):
        if compute is lt.covariant_vectors and settings.keys() - {"transient"}:
            continue
        message = f"{after}.*blows up with dt=0.05; take a smaller dt"
        with pytest.raises(FloatingPointError, match=message):
            compute(flow, torch.zeros(60, 1, 1), h0=torch.ones(1, 1), **settings)


def test_flossing_moves_time_constants_alone():
    field = Field(4, 1)
    for p in (field.weight_hh, field.weight_ih):
        p.requires_grad_(False)
    before = [p.detach().clone() for p in field.parameters()]
    flow, inputs = lt.Flow(field, dt=0.2), torch.randn(10, 1, 1)
    # targets are in nats per step; recorded are nats per unit of time, 5 times those
    settings = {"steps": 10, "tangent_transient": 2, "frame": "fixed", "target": -0.16}
    record = lt.floss(flow, inputs, h0=torch.zeros(1, 4), k=1, epochs=25, lr=0.05, **settings)
    assert record["floss_loss"][0, 0] > 100 * record["floss_loss"][0, -1]
    assert record["exponents"][0, -1, 0] == pytest.approx(-0.8, abs=0.02)
    moved = [not torch.equal(p, old) for p, old in zip(field.parameters(), before, strict=True)]
    assert moved == [False, False, True]


def lorenz_spectrum(steps, dt):
    h0 = torch.randn(64, 3) + torch.tensor([0.0, 0.0, 25.0])
    inputs = torch.zeros(int(steps + 12 / dt), 64, 1)
    with torch.no_grad():
        return lt.lyapunov_spectrum(
            lt.Flow(lorenz, dt=dt), inputs, h0=h0, transient=int(8 / dt), tangent_transient=int(4 / dt)
        )


def test_lorenz():
    spec = lorenz_spectrum(300, 0.025)
    mean, error = spec.exponents.mean(0), spec.exponents.std(0) / 8
    # 4 standard errors of 64 trajectories, and the error of the method at this dt
    off = (mean - torch.tensor(LORENZ_EXPONENTS)).abs()
    assert (off < 4 * error + torch.tensor([3e-3, 3e-3, 3e-2])).all()
    assert (error < 0.05).all()
    assert spec.exponents.sum(-1).mean().item() == pytest.approx(LORENZ_SUM, abs=0.02)
    assert spec.kaplan_yorke().mean().item() == pytest.approx(2.06, abs=0.02)


@pytest.mark.slow
def test_lorenz_to_the_published_digits():
    spec = lorenz_spectrum(15_000, 0.0125)
    mean = spec.exponents.mean(0)
    print(mean.tolist(), (spec.exponents.std(0) / 8).tolist(), spec.kaplan_yorke().mean().item())
    assert mean[0].item() == pytest.approx(0.906, abs=0.01)
    assert mean[1].item() == pytest.approx(0.0, abs=0.005)
    assert mean[2].item() == pytest.approx(-14.57, abs=0.02)
    assert spec.kaplan_yorke().mean().item() == pytest.approx(2.06, abs=0.02)


@pytest.mark.parametrize(("method", "power"), [("rk4", 4), ("dopri5", 5)])
def test_a_flow_that_is_driven_by_time_keeps_its_order(method, power):
    """dh/dt = cos(w t) - h from rest has a known solution."""
    w, end = 3.0, 2.0

    def error(steps):
        flow = lt.Flow(lambda x, h: torch.cos(w * x) - h, dt=end / steps, method=method, time=True)
        h = torch.zeros(1, 1)
        for s in range(steps):
            h = flow.step(torch.full((1, 1), s * end / steps), h)
        exact = (math.cos(w * end) + w * math.sin(w * end) - math.exp(-end)) / (1 + w * w)
        return abs(h.item() - exact)

    assert math.log2(error(20) / error(40)) == pytest.approx(power, abs=0.5)
    assert error(40) < 1e-5


def test_a_held_input_drives_at_first_order_as_documented():
    errors = []
    for steps in (40, 80):
        flow, h = lt.Flow(lambda x, h: torch.cos(3 * x) - h, dt=2 / steps), torch.zeros(1, 1)
        for s in range(steps):
            h = flow.step(torch.full((1, 1), s * 2 / steps), h)
        errors.append(abs(h.item() - (math.cos(6) + 3 * math.sin(6) - math.exp(-2)) / 10))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)


def test_time_is_the_last_channel_and_the_others_are_held():
    seen = []

    def field(x, h):
        seen.append(x[0].tolist())
        return -h

    lt.Flow(field, dt=0.2, time=True).step(torch.tensor([[7.0, 1.0]]), torch.ones(1, 1))
    assert seen == [[7.0, 1.0], [7.0, 1.1], [7.0, 1.1], [7.0, 1.2]]
    flow = lt.Flow(lambda x, h: -(1 + torch.sin(x)) * h, dt=0.05, time=True)
    times = 0.05 * torch.arange(40.0).reshape(-1, 1, 1)
    spec = lt.lyapunov_spectrum(flow, times, h0=torch.ones(1, 1))
    # the mean of the rate over 0..2, to dt^4
    assert spec.exponents.item() == pytest.approx(-1 - (1 - math.cos(2)) / 2, abs=0.05**4)
    assert spec.reliable.all()
    assert "time=True" in repr(flow)


def test_time_needs_a_channel(unchecked):
    with pytest.raises(
        ValueError, match="with time=True the last input channel is the time, got inputs of no"
    ):
        lt.Flow(lambda x, h: -h, dt=0.1, time=True).step(torch.zeros(1, 0), torch.ones(1, 1))
