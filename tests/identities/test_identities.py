"""What holds exactly, for every cell in `cases.py`, at any number of steps."""

import math

import pytest
import torch

import lyaptorch as lt
import reference
from cases import ALONE, CASES, GRID, ROW, M, N, across, every, setup

DTYPES = [torch.float64, torch.float32]
EITHER = {ALONE: DTYPES[:1], GRID: DTYPES[1:]}
"""What holds for every case is asked in float64 alone and in float32 of an ensemble."""


def close(got, expected, log_r=None, times=1.0):
    """Equal but for round-off; with `log_r`, round-off as large as the columns' growth makes it.

    In one interval the direction that grows most hides the others: log R_ii has an error of about
    eps exp(max_j log R_jj - log R_ii). Some hundred operations, whose results the steps that follow stretch
    by up to five: how much of that is met depends on the processor, whose vectors round tanh and sums unlike.
    """
    tolerance = 500 * times * torch.finfo(expected.dtype).eps * torch.ones(())
    if log_r is not None:
        hidden = (log_r.detach().amax(-1, keepdim=True) - log_r.detach()).nan_to_num(posinf=0.0)
        tolerance = tolerance * hidden.flatten(0, -2).amax(0).exp()
        tolerance = tolerance if got.shape[-1:] == log_r.shape[-1:] else tolerance.max()
    off = (got - expected).abs() / (1 + expected.abs())
    bad = ~((got == expected) | (off <= tolerance))
    assert not bad.any(), (
        f"off by {off[bad].max():.2g}, tolerance {tolerance.tolist()}, in {bad.sum()} entries"
    )


def stretched(log_r):
    """By how much the steps from some step on to the last stretch a perturbation, at most; at least 1."""
    return log_r.detach()[..., 0].flip(0).cumsum(0).amax().clamp_min(0.0).exp()


def run(s, **settings):
    return lt.lyapunov_spectrum(s.cell, s.inputs, h0=s.h0, **settings)


def frame(k, dtype=torch.float64):
    return reference.random_frame(N, k, dtype)


class Scaled(lt.Cell):
    """A cell on the same trajectory, whose Jacobian is c times larger."""

    def __init__(self, cell, c, ensemble):
        super().__init__(M, N, ensemble)
        self.cell, self.c = cell, c

    @property
    def multiplicity(self):
        return self.cell.multiplicity

    def step(self, x, h):
        return self.cell.step(x, h)

    def pushforward(self, x, h, Q):
        after, pushed = self.cell.pushforward(x, h, Q)
        return after, self.c * pushed


@across("interval", {ALONE: (1, 3), ROW: (3,), GRID: (1,)})
def test_the_growth_is_that_of_a_product_of_dense_jacobians(case, ensemble, interval):
    s = setup(case, ensemble)
    settings = {"transient": 1, "tangent_transient": 2, "interval": interval}
    expected = reference.scan(*s, frame(case.rank), **settings)
    spec = run(s, k=case.rank, frame=frame(case.rank), **settings)
    close(spec.growth.log_r, expected.log_r, expected.log_r)
    close(spec.running(), expected.running(), expected.log_r)
    close(spec.final_state, expected.final_state)
    assert torch.equal(spec.growth.steps, expected.steps)
    assert spec.exponents.shape == (*ensemble, 2, case.rank)


@across("dtype", EITHER)
def test_all_exponents_sum_to_the_mean_log_volume(case, ensemble, dtype):
    s = setup(case, ensemble, dtype)
    D = torch.stack(reference.scan(*s, frame(1, dtype)).jacobians)
    logdet = torch.linalg.slogdet(D.double()).logabsdet
    # round-off leaves a little volume where the rank is deficient
    singular = (torch.linalg.matrix_rank(D) < N).any(0)
    expected = torch.where(singular, -torch.inf, logdet.mean(0)).to(dtype)
    assert singular.any() == (case.rank < N)
    spec = run(s)
    close(spec.exponents.sum(-1), expected, spec.growth.log_r)


@across("dtype", EITHER)
def test_scaling_the_jacobian_shifts_every_exponent_by_the_log(case, ensemble, dtype):
    s = setup(case, ensemble, dtype)
    base = run(s, k=case.rank)
    for c in (0.01, 3.0):
        scaled = run(s._replace(cell=Scaled(s.cell, c, ensemble)), k=case.rank)
        close(scaled.exponents, base.exponents + math.log(c), base.growth.log_r)


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_scaling_the_weights_of_a_linear_cell_shifts_every_exponent_by_the_log(kind, double):
    small, large = (kind(M, N, activation="linear", gain=g) for g in (0.5, 0.5 * math.e))
    exponents = [lt.lyapunov_spectrum(cell, torch.randn(30, 1, M)).exponents for cell in (small, large)]
    close(exponents[1], exponents[0] + 1.0)


@across("dtype", EITHER)
def test_the_first_exponents_do_not_know_how_many_follow(case, ensemble, dtype):
    s = setup(case, ensemble, dtype)
    wide = run(s, frame=frame(N, dtype)).growth.log_r
    drawn = run(s).growth.log_r
    for k in range(1, case.rank + 1):
        close(run(s, k=k, frame=frame(N, dtype)[:, :k]).growth.log_r, wide[..., :k], wide[..., :k])
    # and each column is drawn for itself
    close(run(s, k=1).growth.log_r, drawn[..., :1], drawn[..., :1])


@across("dtype", EITHER)
def test_the_interval_and_the_way_to_orthonormalise_change_nothing(case, ensemble, dtype):
    s = setup(case, ensemble, dtype, t=22)
    settings = {"transient": 2, "tangent_transient": 3, "k": min(case.rank, 3)}
    base = run(s, **settings)
    ways = (
        (1, "cholesky2"),
        (1, "householder"),
        (5, "cholesky2"),
        (7, "auto"),
        (100, "householder"),
    )
    for interval, method in ways:
        spec = run(s, interval=interval, qr_method=method, **settings)
        assert spec.growth.steps.sum() == 17
        assert len(spec.growth.steps) == math.ceil(17 / interval)
        close(spec.exponents[..., :1], base.exponents[..., :1])
        # the backends add up in different orders: round-off is as large as the whole state makes it
        # of a small frame states are taken without tangents, which rounds otherwise: what later steps stretch
        largest = 1 + base.final_state.abs().amax(-1, keepdim=True)
        close(spec.final_state / largest, base.final_state / largest, times=stretched(base.growth.log_r))
        # of round-off alone: what the steps of a flow cost does not depend on the interval
        if spec.growth.reliable().all() and base.growth.reliable().all():
            close(spec.exponents, base.exponents, torch.cat([spec.growth.log_r, base.growth.log_r]))
        else:
            assert interval > 1


@every()
def test_a_transient_is_what_slicing_by_hand_gives(case, ensemble):
    s = setup(case, ensemble, t=12)
    h = s.h0
    for x in s.inputs[:3]:
        h = s.cell(x, h)
    spec = run(s, k=case.rank, transient=3, frame=frame(case.rank))
    close(
        spec.growth.log_r,
        run(s._replace(inputs=s.inputs[3:], h0=h), k=case.rank, frame=frame(case.rank)).growth.log_r,
        spec.growth.log_r,
    )
    first = run(s._replace(inputs=s.inputs[:7]), k=case.rank, transient=3, frame=frame(case.rank))
    rest = s._replace(inputs=s.inputs[7:], h0=first.final_state)
    later = run(s, k=case.rank, transient=3, tangent_transient=4, frame=frame(case.rank))
    close(later.exponents, run(rest, k=case.rank, frame=first.final_frame).exponents, later.growth.log_r)
    close(later.final_state, spec.final_state)
    # where counting begins the frame is orthonormalised twice; elsewhere once, to 40^2 round-offs, which
    # the next interval makes good
    close(later.growth.log_r, spec.growth.log_r[4:], spec.growth.log_r, times=16.0)


@every()
def test_the_final_frame_is_orthonormal_and_spans_the_pushed_frame(case, ensemble):
    s = setup(case, ensemble)
    k = case.rank
    Q = run(s, k=k, frame=frame(k), interval=3).final_frame
    # one Cholesky pass, taken while pivots differ by less than 40, leaves some 40^2 round-offs
    eye = torch.eye(k, dtype=Q.dtype).expand(*ensemble, 2, k, k)
    torch.testing.assert_close(Q.mT @ Q, eye, rtol=0, atol=1e-11)
    pushed = frame(k).expand(*s.h0.shape, k)
    for D in reference.scan(*s, frame(k)).jacobians:
        pushed = D @ pushed
    torch.testing.assert_close(Q @ (Q.mT @ pushed), pushed, rtol=0, atol=1e-11 * pushed.abs().max())


@every()
def test_dt_is_the_unit_of_time(case, ensemble):
    s = setup(case, ensemble)
    base, fast = run(s, k=1), run(s, k=1, dt=2e-3)
    close(fast.exponents, base.exponents / 2e-3)
    close(fast.running(), base.running() / 2e-3)
    close(fast.stderr(), base.stderr() / 2e-3)
    close(fast.entropy(), base.entropy() / 2e-3)
    close(fast.growth.log_r, base.growth.log_r)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [c for c in CASES if c.ensembles], ids=lambda c: c.name)
def test_a_member_is_the_same_network_alone(case, dtype):
    grid = run(setup(case, (2, 3), dtype), k=case.rank)
    for i in range(6):
        alone = run(setup(case, (), dtype, members=i), k=case.rank)
        close(grid.growth.log_r[:, i // 3, i % 3], alone.growth.log_r, alone.growth.log_r)
        close(grid.final_state[i // 3, i % 3], alone.final_state)


@every(ensembles=False)
def test_a_trajectory_is_the_same_alone_or_in_a_batch(case, ensemble):
    s = setup(case, t=10, b=5)
    together = run(s, k=case.rank)
    for j in range(5):
        one = run(s._replace(inputs=s.inputs[:, [j]], h0=s.h0[[j]]), k=case.rank)
        close(together.growth.log_r[:, [j]], one.growth.log_r, one.growth.log_r)


@pytest.mark.parametrize("n", [4, 12])
def test_rate_and_elman_are_conjugate(double, n):
    rate = lt.RateCell(M, n, gain=2.0)
    elman = lt.ElmanCell(M, n, bias=True)
    with torch.no_grad():
        elman.weight_hh.copy_(rate.weight_hh)
        elman.weight_ih.copy_(rate.weight_ih)
        elman.bias_ih.copy_(rate.bias)
        elman.bias_hh.zero_()
    h0, inputs = 0.3 * torch.randn(1, n), 0.3 * torch.randn(1000, 1, M)
    for t in (10, 1000):
        one = lt.lyapunov_spectrum(rate, inputs[:t], h0=h0)
        other = lt.lyapunov_spectrum(elman, inputs[:t], h0=torch.tanh(h0))
        close(torch.tanh(one.final_state), other.final_state)
        # the change of variables y = tanh h has the volume prod phi'(h): gained at the end, lost at the start
        volume = [torch.cosh(h).log().sum(-1) * -2 for h in (h0, one.final_state)]
        gained = one.exponents.sum(-1) + (volume[1] - volume[0]) / t
        close(other.exponents.sum(-1), gained, one.growth.log_r)
    # a direction gains or loses at most the largest stretch of the change of variables, and each frame
    # takes some steps (nats) to turn to the leading direction
    stretch = 2 * torch.cosh(torch.stack([h0, one.final_state]).abs().max()).log()
    off = (one.exponents - other.exponents)[0, 0].abs()
    assert 0 < off < (2 * stretch + 2 * math.log(n)) / 1000
