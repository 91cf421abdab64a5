"""`interval="auto"` and `transient="auto"`: what is chosen, and that it is good enough."""

import math
import warnings

import pytest
import torch

import lyaptorch as lt
from cases import CASES, setup
from lyaptorch.tangent.automatic import LONGEST, _condition, allowed_interval, drift, late_drift
from lyaptorch.tangent.engine import problem_of, run_scan
from lyaptorch.tangent.growth import Growth
from lyaptorch.tangent.scan import layout
from lyaptorch.testing import henon

pytestmark = pytest.mark.usefixtures("double")


def diagonal(rates, dtype=torch.float64, t=800, **settings):
    """The spectrum of a diagonal map in its own frame: products are as ill-conditioned as the rates say."""
    scales = torch.tensor(rates, dtype=dtype).exp()
    n = len(rates)
    return lt.lyapunov_spectrum(
        lambda x, h: scales * h,
        torch.zeros(t, 1, 1, dtype=dtype),
        h0=torch.ones(1, n, dtype=dtype) * 1e-3,
        frame=torch.eye(n, dtype=dtype),
        interval="auto",
        **settings,
    )


@pytest.mark.parametrize(
    ("rates", "dtype", "interval"),
    [
        # eps^(-1/4): 9.01 nats in float64, 3.99 in float32
        ([0.0, -0.7, -1.5], torch.float64, 6),
        ([0.0, -0.7, -1.5], torch.float32, 2),
        ([0.0, -20.0], torch.float64, 1),
        ([0.0, -1e-3], torch.float32, 16),
        ([-0.1], torch.float32, 16),
    ],
)
def test_the_interval_follows_from_a_rough_spectrum(rates, dtype, interval):
    spec = diagonal(rates, dtype)
    assert spec.interval == interval
    assert spec.growth.steps[0] == interval
    torch.testing.assert_close(spec.exponents[0], torch.tensor(rates, dtype=dtype), rtol=1e-5, atol=1e-6)
    assert spec.reliable.all()


def test_enough_intervals_remain_for_an_error_bar():
    assert diagonal([0.0, -0.1], t=100).interval == 100 // 16
    assert diagonal([0.0, -0.1], t=100, tangent_transient=60).interval == 40 // 16
    assert diagonal([0.0, -0.1], t=5).interval == 1


@pytest.mark.parametrize(("shear", "interval"), [(100.0, 16), (1000.0, 8), (3000.0, 2), (1e4, 1)])
def test_the_interval_is_halved_until_the_products_are_well_conditioned(shear, interval):
    """A shear has equal exponents, but its products over L steps have a condition number of L * shear."""
    A = torch.tensor([[1.0, shear], [0.0, 1.0]])
    spec = lt.lyapunov_spectrum(
        lambda x, h: h @ A.mT,
        torch.zeros(400, 1, 1),
        h0=torch.zeros(1, 2),
        frame=torch.eye(2),
        interval="auto",
    )
    assert spec.interval == interval
    torch.testing.assert_close(spec.exponents, torch.zeros(1, 2), rtol=0, atol=1e-12)


def test_the_condition_is_that_of_the_products_in_their_order():
    factors = [torch.randn(2, 4, 4).triu(1) + torch.eye(4) * (0.2 + torch.rand(4)) for _ in range(6)]
    expected = 0.0
    for first in (0, 3):
        product = factors[first + 2] @ factors[first + 1] @ factors[first]
        ratios = product.norm(dim=-2).amax(-1) / product.diagonal(dim1=-2, dim2=-1).amin(-1)
        expected = max(expected, ratios.max().item())
    alive = torch.ones(2, 4, dtype=torch.bool)
    assert _condition(factors, alive, 3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in ("rate-relu", "flow-rk4")], ids=str)
def test_exponents_and_gradients_do_not_depend_on_the_choice(case):
    s = setup(case, (3,), t=120)
    found = []
    for interval in (1, "auto"):
        spec = lt.lyapunov_spectrum(s.cell, s.inputs, h0=s.h0, k=case.rank, interval=interval, transient=60)
        leaves = s.cell.leaves(s.inputs[0], s.h0)
        found.append((spec, torch.autograd.grad(lt.flossing_loss(spec.exponents), leaves)))
    (single, gradients), (auto, others) = found
    assert auto.interval > 1
    torch.testing.assert_close(auto.exponents, single.exponents, rtol=0, atol=1e-10)
    for g, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, g, rtol=1e-7, atol=1e-9)


def test_dead_columns_do_not_choose():
    cell = lt.RateCell(1, 5, activation="linear", gain=0.9, weights="orthogonal")
    with torch.no_grad():
        cell.weight_hh[:, 4] = 0.0
    spec = lt.lyapunov_spectrum(cell, torch.zeros(400, 1, 1), interval="auto")
    assert spec.growth.healthy[-1].sum() == 4
    assert spec.interval > 1


def test_what_a_dead_column_had_handed_on_is_no_part_of_the_condition():
    """Column 1 dies in the second step; column 2, which had 1e6 of it, has none left."""

    def step(x, h):
        return 0.9 * torch.cat([h[..., :1], x * (h[..., 1:2] + 1e6 * h[..., 2:]), h[..., 2:]], -1)

    x = torch.zeros(400, 1, 1)
    x[0] = 1.0
    spec = lt.lyapunov_spectrum(step, x, h0=torch.ones(1, 3), frame=torch.eye(3), interval="auto")
    quiet = lt.lyapunov_spectrum(step, 0 * x, h0=torch.ones(1, 3), frame=torch.eye(3), interval="auto")
    assert spec.growth.healthy[-1, 0].tolist() == quiet.growth.healthy[-1, 0].tolist() == [True, False, True]
    assert spec.interval == quiet.interval


def noise(t, *shape):
    return torch.randn(t, *shape, generator=torch.Generator().manual_seed(4))


class TestDrift:
    def test_a_decay_is_dropped_and_what_is_left_is_unbiased(self):
        s = torch.arange(600.0).reshape(-1, 1, 1)
        log_r = 0.2 * noise(600, 4, 2) - 0.4 + 2.0 * torch.exp(-s / 20)
        drop = drift(log_r)
        assert 30 < drop < 150
        assert log_r.mean().item() == pytest.approx(-0.4 + 2 * 20 / 600, abs=0.02)
        assert log_r[drop:].mean().item() == pytest.approx(-0.4, abs=0.02)

    def test_what_is_stationary_is_kept(self):
        assert drift(0.2 * noise(600, 4, 8) - 0.4) <= 30
        assert drift(torch.full((50, 1, 2), -0.3)) == 0
        assert drift(torch.full((1, 1, 1), -0.3)) == 0
        assert drift(torch.full((50, 1, 2), -torch.inf)) == 0

    def test_a_decay_without_noise_ends_where_it_is_a_thousandth(self):
        s = torch.arange(400.0).reshape(-1, 1, 1)
        drop = drift(-0.5 * (1 + torch.exp(-s / 10)).expand(-1, 1, 3))
        assert 10 * math.log(1e2) < drop < 10 * math.log(1e4)

    def test_the_slowest_member_decides(self):
        s = torch.arange(600.0).reshape(-1, 1, 1, 1)
        tau = torch.tensor([2.0, 30.0, 5.0]).reshape(1, 3, 1, 1)
        log_r = 0.1 * noise(600, 3, 4, 2) + torch.exp(-s / tau)
        assert drift(log_r) == drift(log_r[:, 1]) > 2 * drift(log_r[:, 2])


def relaxing(x, h):
    """U relaxes over 33 steps and sets how fast v shrinks: log det D = log .97 + log .5 (1 + u)."""
    u, v = h.unbind(-1)
    return torch.stack([0.97 * u, 0.5 * (1 + u) * v + x[..., 0]], -1)


def test_the_transient_is_found_and_reported():
    inputs, h0 = noise(600, 3, 1), torch.ones(3, 2)
    expected = math.log(0.97) + math.log(0.5)
    plain = lt.lyapunov_spectrum(relaxing, inputs, h0=h0)
    assert plain.transient == 0
    assert plain.exponents.sum(-1).mean().item() > expected + 0.02
    auto = lt.lyapunov_spectrum(relaxing, inputs, h0=h0, transient="auto")
    assert 100 < auto.transient < 300
    assert auto.growth.log_r.shape[0] == 600 - auto.transient
    assert auto.exponents.sum(-1).mean().item() == pytest.approx(expected, abs=2e-3)
    same = lt.lyapunov_spectrum(relaxing, inputs, h0=h0, transient=auto.transient)
    assert torch.equal(auto.growth.log_r, same.growth.log_r)
    covariant = lt.covariant_vectors(relaxing, inputs, h0=h0, transient="auto", backward_transient=10)
    assert len(covariant.vectors) == 601 - 10 - auto.transient


def test_both_at_once_on_henon():
    inputs, h0 = torch.zeros(1500, 8, 1), 0.1 * torch.rand(8, 2)
    spec = lt.lyapunov_spectrum(henon, inputs, h0=h0, transient="auto", interval="auto")
    assert spec.transient < 500
    assert 1 < spec.interval <= 16
    assert spec.exponents.mean(0)[0].item() == pytest.approx(0.4192, abs=0.01)


def test_growth_that_never_settles_is_said():
    ramp = torch.linspace(0.5, 2.0, 400).reshape(-1, 1, 1)
    with pytest.warns(
        UserWarning, match=r"the growth still drifts after half of the 400 steps; pass more inputs"
    ):
        spec = lt.lyapunov_spectrum(lambda x, h: h * x, ramp, h0=torch.zeros(1, 2), transient="auto")
    assert 180 <= spec.transient <= 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lt.lyapunov_spectrum(lambda x, h: 0.5 * h, ramp, h0=torch.zeros(1, 2), transient="auto")


def test_other_words_are_refused(unchecked):
    cell, inputs = lt.RateCell(1, 4), torch.zeros(20, 1, 1)
    with pytest.raises(ValueError, match=r"interval must be an integer >= 1, got 'atuo'; or pass \"auto\""):
        lt.lyapunov_spectrum(cell, inputs, interval="atuo")
    with pytest.raises(ValueError, match=r"transient must be an integer >= 0, got 'atuo'; or pass \"auto\""):
        lt.lyapunov_spectrum(cell, inputs, transient="atuo")
    with pytest.raises(ValueError, match=r"inputs must hold tangent_transient \+ at least 1 counted step"):
        lt.lyapunov_spectrum(cell, inputs, transient="auto", tangent_transient=20)


def test_transient_chaos_is_seen_in_the_whole_growth():
    """Lorenz at rho = 22.5 is chaotic for some time, and then comes to rest."""

    def field(x, h):
        u, v, w = h.unbind(-1)
        return torch.stack([10 * (v - u), u * (22.5 - w) - v, u * v - 8 / 3 * w], -1)

    flow, x, h0 = lt.Flow(field, dt=0.01), torch.zeros(4000, 1, 1), torch.tensor([[3.0, -5.0, 11.0]])
    with pytest.warns(
        UserWarning, match=r'transient="auto" dropped \d steps, but the growth drifts over the next'
    ):
        spec = lt.lyapunov_spectrum(flow, x, h0=h0, k=1, transient="auto")
    # at the fixed point the leading eigenvalues have real part -0.07
    assert spec.exponents.item() > 0.2
    assert spec.stderr().item() > 0.15
    assert (spec.exponents.item() + 0.07) < 3 * spec.stderr().item()


def test_a_stationary_growth_is_not_called_drifting():
    steps = torch.ones(4000, dtype=torch.int64)
    alive = torch.ones(4000, 1, 2, dtype=torch.bool)
    for seed in range(5):
        noise = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(seed))
        assert late_drift(Growth(0.2 * noise - 0.4, steps, alive), 0) is None
    late = torch.where(torch.arange(4000).reshape(-1, 1, 1) < 1200, 0.3, 0.0)
    with pytest.warns(
        UserWarning, match=r"dropped 7 steps, but the growth drifts over the next 1\d\d\d of 4000"
    ):
        moved = late_drift(Growth(0.2 * noise - 0.4 + late, steps, alive), 7)
    # 1200 of 4000 steps at 0.3 more
    torch.testing.assert_close(moved, torch.full((1, 2), 0.09), rtol=0, atol=0.02)


def grown(*rates, s=12, dtype=torch.float64):
    """log R `(s, 1, k)` of columns that grow at these rates."""
    return torch.tensor(rates, dtype=dtype).expand(s, 1, len(rates))


@pytest.mark.parametrize(
    ("rates", "dtype", "interval"),
    [
        # eps^(-1/3): 12.01 nats in float64, 5.31 in float32
        ([0.0, -1.5, -5.9], torch.float64, 2),
        ([0.0, -1.5, -6.1], torch.float64, 1),
        ([0.0, -1.5], torch.float32, 3),
        ([0.0, -20.0], torch.float64, 1),
        # a dead column has no part in it
        ([0.0, -1.5, -torch.inf], torch.float32, 3),
        # squares of what shrinks by 30 nats underflow in float32, though nothing shears: 21.8 are allowed
        ([-12.0, -12.0], torch.float32, 1),
        ([-10.0, -10.0], torch.float32, 2),
        ([-10.0, -10.0], torch.float64, 8),
        ([0.0, -1e-3], torch.float32, 8),
        ([-torch.inf, -torch.inf], torch.float32, 8),
    ],
)
def test_the_next_interval_follows_from_the_growth(rates, dtype, interval):
    allowed = allowed_interval(grown(*rates, dtype=dtype), None, range(13))
    assert allowed.shape == ()
    assert allowed == interval


def test_the_next_interval_is_that_of_the_worst_trajectory_and_stretch_of_each_member():
    log_r = grown(0.0, -1.0, s=12)[:, None].repeat(1, 2, 2, 1)
    # one step of nine nats beside one of a single nat: no two spans together may have more than twelve
    log_r[5, 1, 1, 1] = -9.0
    assert allowed_interval(log_r, None, range(13)).tolist() == [8, 4]
    log_r[6, 1, 1, 1] = -9.0
    assert allowed_interval(log_r, None, range(13)).tolist() == [8, 1]


def test_the_next_interval_counts_in_spans_and_has_an_end():
    assert allowed_interval(grown(0.0, -3.0, s=4), None, range(0, 50, 10)) == 40
    assert allowed_interval(grown(0.0, -3.0, s=4), None, range(0, 200, 40)) == 40
    # longer than allowed: back to the share that is
    assert allowed_interval(grown(0.0, -24.1, s=4), None, range(0, 50, 10)) == 4
    assert LONGEST == 64


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_columns_that_shear_are_told_by_their_length(backend):
    """Equal exponents, all R_ii = 1, and columns as long as the shear."""
    shear = torch.tensor([[1.0, 1e5], [0.0, 1.0]])
    cell = lt.RateCell(1, 2, activation="linear")
    with torch.no_grad():
        cell.weight_hh.copy_(shear)
        cell.weight_ih.zero_()
    laid = layout(0, 12, 1, torch.device("cpu"))
    inputs, h, frame = torch.zeros(12, 1, 1), torch.zeros(1, 2), torch.eye(2)[None]
    found = run_scan(problem_of(cell, h, laid, None), backend, inputs, h, frame)
    torch.testing.assert_close(found.log_r, torch.zeros(12, 1, 2), rtol=0, atol=1e-10)
    assert allowed_interval(found.log_r, None, laid.cuts) == 8
    torch.testing.assert_close(found.longest, torch.full((12, 1), 1e5), rtol=1e-9, atol=0)
    assert allowed_interval(found.log_r, found.longest, laid.cuts) == 1
