import pytest
import torch

import lyaptorch as lt
import reference
from cases import M, N
from lyaptorch.cells import FunctionCell
from lyaptorch.tangent import Growth, mean_over_trajectories
from reference import random_frame

pytestmark = pytest.mark.usefixtures("double")


def growth(rows, steps=None, healthy=None):
    """A Growth of one trajectory from a list of intervals."""
    log_r = torch.tensor(rows).unsqueeze(1)
    steps = torch.ones(len(rows), dtype=torch.int64) if steps is None else torch.tensor(steps)
    return Growth(log_r, steps, log_r > -torch.inf if healthy is None else healthy)


def gradients(loss, cell):
    wanted = list(cell.parameters())
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


class TestGrowth:
    def test_exponents_divide_once_by_all_steps(self):
        g = growth([[2.0, -1.0], [1.0, -4.0]], steps=[3, 1])
        torch.testing.assert_close(g.exponents(), torch.tensor([[0.75, -1.25]]))
        torch.testing.assert_close(g.exponents(dt=0.5), torch.tensor([[1.5, -2.5]]))
        torch.testing.assert_close(
            g.running(), torch.tensor([[[2 / 3, -1 / 3]], [[0.75, -1.25]]]), rtol=1e-15, atol=0
        )

    def test_the_last_running_estimate_is_the_exponent(self):
        spec = lt.lyapunov_spectrum(lt.RateCell(M, N), torch.randn(23, 3, M), interval=4, dt=0.1)
        assert spec.running().shape == (6, 3, N)
        torch.testing.assert_close(spec.running()[-1], spec.exponents, rtol=1e-14, atol=0)

    def test_local_and_finite_time_exponents(self):
        g = growth([[9.0], [2.0], [1.0], [4.0], [0.5]], steps=[2, 2, 2, 2, 1])
        local = torch.tensor([4.5, 1.0, 0.5, 2.0, 0.5])
        torch.testing.assert_close(g.local()[:, 0, 0], local)
        torch.testing.assert_close(g.local(dt=0.1)[:, 0, 0], 10 * local)
        # the first interval fills no window; the last window has 3 steps
        windows = torch.tensor([0.75, 1.5])
        torch.testing.assert_close(g.finite_time(2)[:, 0, 0], windows)
        torch.testing.assert_close(g.finite_time(2, dt=0.1)[:, 0, 0], 10 * windows)
        torch.testing.assert_close(g.finite_time(5)[0], g.exponents())
        torch.testing.assert_close(g.finite_time(1), g.local())

    def test_finite_time_exponents_of_a_spectrum(self):
        spec = lt.lyapunov_spectrum(lt.RateCell(M, N), torch.randn(24, 3, M), interval=2, dt=0.1)
        assert spec.local().shape == (12, 3, N)
        assert spec.finite_time(4).shape == (3, 3, N)
        torch.testing.assert_close(spec.finite_time(4).mean(0), spec.exponents, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(spec.local().mean(0), spec.exponents, rtol=1e-12, atol=1e-13)
        for window in (0, 13):
            with pytest.raises(
                ValueError, match=rf"window must be an integer in 1\.\.12, got {window}; there"
            ):
                spec.finite_time(window)

    def test_an_error_bar_covers_the_spread_of_independent_trajectories(self):
        cell = lt.RateCell(M, 8, gain=1.5)
        spec = lt.lyapunov_spectrum(cell, torch.randn(440, 64, M), k=3, transient=20, tangent_transient=20)
        ratio = spec.stderr().square().mean(0).sqrt() / spec.exponents.detach().std(0)
        assert ((ratio > 0.5) & (ratio < 2)).all()

    def test_error_bars_see_autocorrelation(self):
        """Intervals in equal pairs: half as many independent numbers, an error sqrt 2 larger."""
        x = torch.randn(5000, 1, 64)
        plain, paired = (
            Growth(y, torch.ones(len(y), dtype=torch.int64), torch.ones_like(y, dtype=torch.bool))
            for y in (torch.cat([x, torch.randn(5000, 1, 64)]), x.repeat_interleave(2, 0))
        )
        errors = [g.stderr().square().mean().sqrt().item() for g in (plain, paired)]
        # each error is known to 16%: their mean square over 64 columns to 4%
        assert errors[0] == pytest.approx(0.01, rel=0.1)
        assert errors[1] == pytest.approx(0.01 * 2**0.5, rel=0.1)

    def test_an_error_bar_by_hand(self):
        """A series whose correlations at lags 1 and 2 are 0 exactly."""
        g = growth([[1.0], [0.0], [0.0], [-1.0], [0.0], [0.0], [0.0], [0.0]])
        m, total = 8, 1 / 8
        density = 0.25 * m / (m - 2) / (1 - total) ** 2
        one = (1 + 2 * (1 + total) / (1 - total)) / m
        student = 1 + one * (0.5 + one * (0.25 + one * 0.0625))
        expected = (density / m) ** 0.5 * student
        torch.testing.assert_close(g.stderr()[0, 0].item(), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(g.stderr(0.5)[0, 0].item(), 2 * expected, rtol=1e-12, atol=0)

    def test_growth_that_is_worth_less_than_four_numbers_has_no_error_bar(self):
        slow = torch.linspace(0, 1, 50).reshape(-1, 1).tolist()
        assert growth(slow).stderr()[0, 0] == torch.inf
        assert growth([[0.3]] * 50).stderr()[0, 0] < 1e-15

    def test_synchronised_trajectories_are_one_sample_and_independent_ones_are_many(self):
        y = torch.randn(200, 16, 3)
        steps, alive = torch.ones(200, dtype=torch.int64), torch.ones(200, 16, 3, dtype=torch.bool)
        same = Growth(y[:, :1].expand(-1, 16, -1), steps, alive)
        torch.testing.assert_close(same.stderr_of_mean(), same.stderr()[0])
        own = Growth(y, steps, alive).stderr().square().mean().sqrt()
        many = Growth(y, steps, alive).stderr_of_mean().square().mean().sqrt()
        # three columns, each error known to 14%
        torch.testing.assert_close(many * 4, own, rtol=0.25, atol=0)
        alive[-1, 1:, 2] = False
        one = Growth(y, steps, alive).stderr_of_mean()
        torch.testing.assert_close(one[2], Growth(y, steps, alive).stderr()[0, 2])
        alive[-1, :, 1] = False
        assert Growth(y, steps, alive).stderr_of_mean()[1] == torch.inf

    def test_the_mean_over_trajectories_leaves_out_the_dead(self):
        values = torch.tensor([[0.5, -torch.inf], [-torch.inf, -torch.inf], [0.1, -torch.inf]])
        values.requires_grad_()
        mean = mean_over_trajectories(values)
        torch.testing.assert_close(mean, torch.tensor([0.3, -torch.inf]))
        mean[0].backward()
        torch.testing.assert_close(values.grad, torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.5, 0.0]]))

    def test_the_longest_interval_decides_what_round_off_leaves(self):
        """31 nats in float64: lambda_2 lies 1 nat a step below, which 40 steps lose and 1 does not."""
        for steps, kept in (([1, 40], False), ([40, 1], False), ([1, 20], True)):
            log_r = torch.tensor([[0.0, -1.0]]) * torch.tensor(steps).reshape(-1, 1)
            assert growth(log_r.tolist(), steps=steps).reliable().tolist() == [[True, kept]]

    def test_where_nothing_can_be_said_the_error_is_infinite(self):
        assert (growth([[1.0], [2.0], [3.0]]).stderr() == torch.inf).all()
        dying = growth([[1.0, 0.0], [1.2, 0.0]] * 2 + [[1.1, -torch.inf], [0.9, -torch.inf]] * 2)
        error = dying.stderr()[0]
        assert torch.isfinite(error[0])
        assert error[1] == torch.inf

    @pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 11.0), (torch.float64, 31.0)])
    def test_what_is_too_far_below_the_first_is_not_reliable(self, dtype, limit):
        for steps in (1, 5):
            rates = torch.tensor(
                [-1.0, 0.5, 0.5 - (limit - 0.5) / steps, 0.5 - (limit + 0.5) / steps], dtype=dtype
            )
            log_r = (rates * steps).expand(6, 2, 4)
            g = Growth(log_r, torch.full((6,), steps), torch.ones(6, 2, 4, dtype=torch.bool))
            assert g.reliable().tolist() == [[True, True, True, False]] * 2
        g.healthy[-1, 0, 0] = False
        assert g.reliable()[:, 0].tolist() == [False, True]

    @pytest.mark.parametrize(
        ("rates", "dimension", "entropy"),
        [
            ([0.5, 0.1, -0.2, -1.0], 3 + 0.4 / 1.0, 0.6),
            ([-1.0, 0.1, 0.5, -0.2], 3 + 0.4 / 1.0, 0.6),
            ([0.4192, -1.6232], 1 + 0.4192 / 1.6232, 0.4192),
            ([0.906, 0.0, -14.57], 2 + 0.906 / 14.57, 0.906),
            ([-0.1, -0.2], 0.0, 0.0),
            ([0.3, 0.2], 2.0, 0.5),
            ([0.5, -0.25], 2.0, 0.5),
            ([0.5, -torch.inf, -torch.inf], 1.0, 0.5),
            ([-torch.inf, -torch.inf], 0.0, 0.0),
        ],
    )
    def test_dimension_and_entropy_of_known_spectra(self, rates, dimension, entropy):
        g = growth([rates] * 3)
        assert g.kaplan_yorke().item() == pytest.approx(dimension, abs=1e-12)
        assert g.entropy().item() == pytest.approx(entropy, abs=1e-12)
        assert g.entropy(dt=0.1).item() == pytest.approx(10 * entropy, abs=1e-11)


class TestRankDeficiency:
    """Weights of rank 3: the fourth column dies in the first step."""

    frame = random_frame(6, 5)

    def cell(self):
        cell = lt.RateCell(M, 6, activation="relu")
        with torch.no_grad():
            left, right = torch.rand(6, 3), torch.rand(3, 6)
            cell.weight_hh.copy_(0.4 * left @ right / 3)
            cell.bias.fill_(2.0)
        return cell

    def run(self, cell, k, **settings):
        inputs = 0.1 * torch.randn(12, 2, M, generator=torch.Generator().manual_seed(0))
        frame = self.frame[:, :k]
        return lt.lyapunov_spectrum(cell, inputs, k=k, frame=frame, h0=torch.ones(2, 6), **settings)

    @pytest.mark.parametrize("interval", [1, 3])
    @pytest.mark.parametrize("backend", [None, "autograd"])
    def test_the_dead_are_masked_and_the_living_do_not_notice(self, backend, interval):
        cell, settings = self.cell(), {"backend": backend, "interval": interval}
        grads = {}
        for k in (3, 4, 5):
            spec = self.run(cell, k, **settings)
            alive = torch.arange(k) < 3
            assert torch.equal(spec.exponents == -torch.inf, ~alive.expand(2, k))
            assert torch.equal(spec.growth.healthy, alive.expand(12 // interval, 2, k))
            assert torch.equal(spec.reliable, alive.expand(2, k))
            assert not torch.isnan(spec.running()).any()
            loss = spec.exponents[spec.growth.healthy[-1]].square().sum()
            assert torch.isfinite(loss)
            grads[k] = [loss, spec.exponents[:, :3], *gradients(loss, cell)]
        for k in (4, 5):
            for got, expected in zip(grads[k], grads[3], strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)

    def test_a_loss_over_all_columns_gets_no_nan_from_the_dead(self):
        cell = self.cell()
        spec = self.run(cell, 5)
        kept = torch.where(spec.growth.healthy[-1], spec.exponents, 0.0)
        for g in gradients(kept.sum(), cell):
            assert torch.isfinite(g).all()

    @pytest.mark.parametrize("settings", [{}, {"backend": "autograd"}, {"checkpoint": 3}])
    def test_a_column_that_dies_on_the_way_has_a_past(self, settings):
        """Its growth before counts, with a gradient; it is -inf ever after; the others do not notice."""
        W = (torch.eye(4) + 0.1 * torch.randn(4, 4)).requires_grad_()
        inputs = 1 + 0.2 * torch.rand(10, 1, 4)
        frame, cut = torch.linalg.qr(torch.randn(4, 4))[0], inputs.clone()
        cut[6:, :, 3] = 0.0
        loss = {}
        for name, x in (("dying", cut), ("living", inputs[:6]), ("three", cut)):
            k = 3 if name == "three" else 4
            spec = lt.lyapunov_spectrum(
                lambda x, h: (h * x) @ W.mT, x, h0=torch.ones(1, 4), k=k, frame=frame[:, :k], **settings
            )
            if name == "dying":
                expected = torch.ones(10, 1, 4, dtype=torch.bool)
                expected[6:, :, 3] = False
                assert torch.equal(spec.growth.healthy, expected)
                assert torch.equal(spec.exponents == -torch.inf, torch.arange(4).expand(1, 4) == 3)
            loss[name] = spec.growth.log_r
        past = loss["dying"][:6, :, 3].sum(), loss["living"][:, :, 3].sum()
        rest = loss["dying"][..., :3].square().sum(), loss["three"].square().sum()
        for got, wanted in (past, rest):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
            grads = [torch.autograd.grad(y, W, retain_graph=True)[0] for y in (got, wanted)]
            torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-11)
        # the gradient of -inf is that of its past
        (total,) = torch.autograd.grad(loss["dying"][..., 3].sum(), W, retain_graph=True)
        torch.testing.assert_close(total, torch.autograd.grad(past[1], W)[0], rtol=1e-9, atol=1e-11)

    def test_a_column_between_the_living_dies_alone(self):
        cell = lt.RateCell(1, 4, activation="linear", bias=False)
        with torch.no_grad():
            cell.weight_hh.copy_(torch.diag(torch.tensor([0.5, 0.0, 2.0, 0.3])))
        spec = lt.lyapunov_spectrum(cell, torch.zeros(9, 1, 1), frame=torch.eye(4))
        expected = torch.tensor([[0.5, 0.0, 2.0, 0.3]]).log()
        torch.testing.assert_close(spec.exponents, expected, rtol=1e-14, atol=0)
        loss = spec.exponents[spec.reliable].sum()
        (gradient,) = torch.autograd.grad(loss, cell.weight_hh)
        torch.testing.assert_close(
            gradient.diagonal(), torch.tensor([2.0, 0.0, 0.5, 1 / 0.3]), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("ensemble", [(), (2,), (2, 3)])
@pytest.mark.parametrize("b", [1, 4])
def test_shapes_keep_every_dimension(ensemble, b):
    cell = lt.RateCell(M, N, ensemble=ensemble)
    spec = lt.lyapunov_spectrum(cell, torch.randn(9, b, M), k=3, interval=2, transient=1)
    assert spec.exponents.shape == spec.stderr().shape == spec.reliable.shape == (*ensemble, b, 3)
    assert (
        spec.running().shape == spec.growth.log_r.shape == spec.growth.healthy.shape == (4, *ensemble, b, 3)
    )
    assert spec.kaplan_yorke().shape == spec.entropy().shape == (*ensemble, b)
    assert spec.final_state.shape == (*ensemble, b, N)
    assert spec.final_frame.shape == (*ensemble, b, N, 3)
    assert lt.lyapunov_spectrum(cell, torch.randn(9, b, M)).exponents.shape == (*ensemble, b, N)


def test_the_final_state_is_that_of_rolling_by_hand():
    cell, inputs = lt.RateCell(M, N), torch.randn(9, 2, M)
    h = torch.zeros(2, N)
    for x in inputs:
        h = cell(x, h)
    spec = lt.lyapunov_spectrum(cell, inputs, k=1, transient=3, tangent_transient=2)
    torch.testing.assert_close(spec.final_state, h, rtol=0, atol=1e-14)


@pytest.mark.skipif(not lt.kernels.available()["cpu"].available, reason="needs the compiled kernels")
def test_under_no_grad_no_tape_is_kept(monkeypatch):
    """A Function sees that weights require a gradient even where none is recorded."""
    kept, scan = [], lt.kernels.scan_forward
    monkeypatch.setattr(lt.kernels, "scan_forward", lambda *a, keep: kept.append(keep) or scan(*a, keep=keep))
    cell, inputs = lt.RateCell(M, N), torch.randn(5, 1, M)
    lt.lyapunov_spectrum(cell, inputs)
    with torch.no_grad():
        lt.lyapunov_spectrum(cell, inputs)
    assert kept == [True, False]


def test_the_frame_is_random_reproducible_and_seeded():
    cell, inputs = lt.RateCell(M, N), torch.randn(5, 1, M)

    def run(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return lt.lyapunov_spectrum(cell, inputs, k=2, generator=generator).exponents

    state = torch.get_rng_state()
    assert torch.equal(run(None), run(None))
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_frame_per_trajectory():
    cell, inputs = lt.RateCell(M, N), torch.randn(6, 2, M)
    frames = torch.stack([random_frame(N, 2, seed=s) for s in (1, 2)])
    spec = lt.lyapunov_spectrum(cell, inputs, k=2, frame=frames)
    for j in range(2):
        one = lt.lyapunov_spectrum(cell, inputs[:, [j]], k=2, frame=frames[j])
        torch.testing.assert_close(spec.exponents[[j]], one.exponents, rtol=0, atol=1e-13)


def test_float32_agrees_with_float64():
    cell, inputs, frame = lt.RateCell(1, 40), 0.3 * torch.randn(200, 1, 1), random_frame(40, 40)
    exact = lt.lyapunov_spectrum(cell, inputs, frame=frame)
    grads = [torch.autograd.grad(exact.exponents[0, :20].square().sum(), cell.weight_hh)[0]]
    single = lt.lyapunov_spectrum(cell.float(), inputs.float(), frame=frame.float())
    assert single.exponents.dtype == torch.float32
    # exponents spread over some 5 nats a step: round-off e^5 eps
    torch.testing.assert_close(single.exponents.double(), exact.exponents, rtol=0, atol=1e-4)
    grads += torch.autograd.grad(single.exponents[0, :20].square().sum(), cell.weight_hh)
    assert reference.relative_error(grads[1].double(), grads[0]) < 1e-3


def test_a_function_cell_made_beforehand_is_used_as_it_is():
    cell = FunctionCell(lambda x, h: torch.tanh(h))
    spec = lt.lyapunov_spectrum(cell, torch.zeros(3, 1, 1), h0=torch.ones(1, 2))
    assert not cell.unproven
    assert spec.exponents.shape == (1, 2)
