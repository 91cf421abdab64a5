import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyaptorch import _checks
from lyaptorch.tangent.qr import METHODS, orthonormalise, qr
from reference import positive_qr, random_frame, relative_error

pytestmark = pytest.mark.usefixtures("double")

EPS = {torch.float64: 2.3e-16, torch.float32: 1.2e-7}
every_method = pytest.mark.parametrize("method", METHODS)


def with_condition(n, k, cond, seed=0):
    """A random matrix with singular values from 1 down to 1 / cond."""
    values = torch.logspace(0, -torch.log10(torch.tensor(float(cond))).item(), k)
    return random_frame(n, k, seed=seed) * values @ random_frame(k, k, seed=seed + 1).mT


def check(A, factors, *, orthogonality=100.0, product=100.0):
    """Q R = A, Q orthonormal, R triangular with a positive diagonal; tolerances in round-offs."""
    Q, R, dead = factors
    k, eps = A.shape[-1], torch.finfo(A.dtype).eps
    assert dead is None
    assert Q.dtype == R.dtype == A.dtype
    assert (R.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(R, R.triu())
    scale = A.abs().amax((-2, -1), keepdim=True)
    assert ((Q.double() @ R.double() - A.double()).abs() / scale).max() <= product * eps
    assert (Q.mT @ Q - torch.eye(k, dtype=A.dtype)).abs().max() <= orthogonality * eps


@every_method
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (6, 1), (4, 7, 5), (2, 3, 6, 6)])
def test_random_matrices(shape, dtype, method):
    A = torch.randn(shape, dtype=dtype)
    # pivots below 1 / 40 of the columns go to a second pass: one pass loses up to 40^2 round-offs
    factors = orthonormalise(A, None, method)
    check(A, factors, orthogonality=2e4 if method == "auto" else 100)
    _, R = positive_qr(A.double())
    torch.testing.assert_close(factors.R.double(), R, rtol=0, atol=2e4 * EPS[dtype])


@every_method
@pytest.mark.parametrize("cond", [1e2, 1e4, 1e6, 1e8, 1e10, 1e12, 1e14])
def test_ill_conditioned_matrices(cond, method):
    A = with_condition(12, 8, cond)
    factors = orthonormalise(A, None, method)
    check(A, factors, orthogonality=2e4)
    _, R = positive_qr(A)
    # LAPACK's own diagonal is off by eps cond, relatively
    diagonals = [F.diagonal().log() for F in (factors.R, R)]
    torch.testing.assert_close(*diagonals, rtol=0, atol=100 * EPS[torch.float64] * cond)


@every_method
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-21, 1e-18, 1e18, 1e21, 1e30])
def test_scales_whose_squares_leave_the_range_of_float32(scale, k, method):
    A = (torch.randn(3, 7, k) * scale).float()
    factors = orthonormalise(A, None, method)
    check(A, factors, orthogonality=2e4)
    assert relative_error(factors.R.double(), positive_qr(A.double())[1]) < 1e-5


@every_method
def test_columns_of_very_different_scales(method):
    A = torch.randn(9, 4) * torch.tensor([1e-100, 1.0, 1e100, 1e-5])
    _, R = positive_qr(A)
    torch.testing.assert_close(orthonormalise(A, None, method).R, R, rtol=1e-12, atol=0)


@every_method
def test_columns_that_shear_exponentially(method):
    """Every pivot is as long as its column is, to a factor of 6; the condition number is 2^29."""
    R = torch.eye(30) - torch.ones(30, 30).triu(1)
    A = random_frame(30, 30) @ R
    factors = orthonormalise(A, None, method)
    check(A, factors, orthogonality=2e4)
    torch.testing.assert_close(factors.R.diagonal(), torch.ones(30), rtol=0, atol=1e-6)


@every_method
@pytest.mark.parametrize("sick", ["ill", "duplicate", "zero"])
def test_one_sick_matrix_leaves_the_healthy_ones_alone(sick, method):
    A = torch.randn(2, 3, 8, 4)
    A[1, 0] = with_condition(8, 4, 1e13)
    if sick != "ill":
        A[1, 0, :, 2] = A[1, 0, :, 1] if sick == "duplicate" else 0.0
    factors = orthonormalise(A, None, method)
    for i, j in itertools.product(range(2), range(3)):
        alone = orthonormalise(A[i, j], None, method)
        torch.testing.assert_close(factors.R[i, j], alone.R, rtol=0, atol=1e-11)
        dies = (i, j) == (1, 0) and sick != "ill"
        died = factors.dead is not None and factors.dead[i, j].any()
        assert bool(died) == dies


class TestDeadColumns:
    """A dead column is out of the frame; what stands after it does not notice that it was ever there."""

    dying = pytest.mark.parametrize(
        "die",
        [
            lambda A: torch.zeros_like(A[:, 0]),
            lambda A: A[:, 0].clone(),
            lambda A: -3 * A[:, 1],
            lambda A: A[:, 0] + A[:, 1],
            lambda A: 1e-200 * A[:, 0],
        ],
        ids=["zero", "duplicate", "multiple", "sum", "tiny"],
    )

    @staticmethod
    def check(A, dead, factors):
        alive = ~dead
        assert torch.equal(factors.dead, dead)
        assert (factors.Q[:, dead] == 0).all()
        assert torch.equal(factors.R[dead], torch.eye(len(dead))[dead].to(A))  # a unit row
        # what a dead column was made of stands above it
        torch.testing.assert_close(
            factors.Q @ torch.where(dead.unsqueeze(-1), 0.0, factors.R), A, rtol=0, atol=1e-13
        )
        _, R = positive_qr(A[:, alive])
        torch.testing.assert_close(factors.R[alive][:, alive], R, rtol=0, atol=1e-13)
        torch.testing.assert_close(factors.Q[:, alive] @ R, A[:, alive], rtol=0, atol=1e-13)

    @every_method
    @dying
    @pytest.mark.parametrize("at", [2, 3, 5])
    def test_one_dies(self, die, at, method):
        A = torch.randn(8, 6)
        A[:, at] = die(A)
        self.check(A, torch.arange(6) == at, orthonormalise(A, None, method))

    @every_method
    def test_the_first_dies(self, method):
        A = torch.randn(8, 4)
        A[:, 0] = 0
        self.check(A, torch.arange(4) == 0, orthonormalise(A, None, method))

    @every_method
    @pytest.mark.parametrize("rank", [0, 1, 3])
    def test_all_beyond_the_rank_die(self, rank, method):
        A = torch.randn(8, rank) @ torch.randn(rank, 5)
        self.check(A, torch.arange(5) >= rank, orthonormalise(A, None, method))

    @every_method
    def test_the_dead_stay_dead_and_more_may_die(self, method):
        A = torch.randn(8, 5)
        before = torch.arange(5) == 1
        A[:, before] = 0
        self.check(A, before, orthonormalise(A, before, method))
        A[:, 3] = 2 * A[:, 0]
        self.check(A, (torch.arange(5) == 1) | (torch.arange(5) == 3), orthonormalise(A, before, method))

    @every_method
    def test_a_column_just_above_the_threshold_lives(self, method):
        A = torch.randn(8, 3)
        A[:, 2] = A[:, 0] + 1e-12 * A[:, 2]
        factors = orthonormalise(A, None, method)
        assert factors.dead is None
        torch.testing.assert_close(factors.R.diagonal(), positive_qr(A)[1].diagonal(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_units_that_are_shut_bury_as_many_columns(dtype, method):
    """Householder's R_ii comes to 1000 eps |a_i| here, as the columns before are ill-conditioned."""
    draws = torch.Generator().manual_seed(0)
    for _ in range(30):
        A, shut = torch.randn(80, 44, generator=draws, dtype=dtype), torch.randperm(80, generator=draws)[43:]
        A[shut] = 0
        dead = orthonormalise(A, None, method).dead
        assert dead is not None
        assert dead.nonzero().tolist() == [[43]]


@every_method
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(6, 1), (6, 3), (2, 6, 3)])
def test_what_is_not_finite_is_refused(bad, shape, method):
    A = torch.randn(shape)
    A[..., 2, 0] = bad
    with pytest.raises(FloatingPointError, match="tangent vectors are not finite"):
        orthonormalise(A, None, method)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 7),
    k=st.integers(1, 7),
    power=st.integers(-290, 290),
    spread=st.integers(0, 290),
    seed=st.integers(0, 2**31),
    method=st.sampled_from(METHODS),
)
def test_no_matrix_that_lapack_can_factor_is_refused(n, k, power, spread, seed, method):
    k = min(n, k)
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, k, generator=generator)
    # columns shear into each other, and each has a scale of its own
    shear = torch.randn(k, k, generator=generator).triu(1) * 10.0 ** (seed % 7)
    scales = 10.0 ** (
        power + (torch.rand(k, generator=generator) - 0.5) * min(spread, 2 * (290 - abs(power)))
    )
    A = (A + A @ shear) * scales
    Q, R, dead = orthonormalise(A, None, method)
    assert torch.isfinite(Q).all()
    assert torch.isfinite(R).all()
    alive = torch.ones(k, dtype=torch.bool) if dead is None else ~dead
    # one pass may lose orthogonality: pivots bound the condition number of two columns, not of a chain
    if method != "auto" or k <= 2:
        assert (Q.mT @ Q - torch.diag(alive.to(Q.dtype))).abs().max() < 1e-11
    # what is alive is reproduced to round-off, column by column
    assert (((Q @ R - A) / A.abs().amax(0))[:, alive]).abs().max() < 1e-13 if alive.any() else True
    assert (R.diagonal() > 0).all()


def leaves(*shape):
    return torch.randn(shape).requires_grad_()


@every_method
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (5, 1), (2, 5, 3)])
def test_the_pullback_is_that_of_lapacks_factors(shape, method):
    A = leaves(*shape)
    Q, R = positive_qr(A)
    a, b = torch.randn_like(Q), torch.randn_like(R)
    (expected,) = torch.autograd.grad((a * Q.sin()).sum() + (b * R.square()).sum(), A)
    Q, R, _ = qr(A, None, method)
    (got,) = torch.autograd.grad((a * Q.sin()).sum() + (b * R.square()).sum(), A)
    assert relative_error(got, expected) < 1e-9
    (only_r,) = torch.autograd.grad(qr(A, None, method).R.diagonal(dim1=-2, dim2=-1).log().sum(), A)
    (expected,) = torch.autograd.grad(positive_qr(A)[1].diagonal(dim1=-2, dim2=-1).log().sum(), A)
    assert relative_error(only_r, expected) < 1e-9


def test_gradcheck_and_gradgradcheck():
    A = leaves(4, 3)
    assert torch.autograd.gradcheck(lambda a: qr(a)[:2], A)
    assert torch.autograd.gradgradcheck(lambda a: qr(a)[:2], A)
    assert torch.autograd.gradcheck(lambda a: qr(a, None, "householder")[:2], leaves(2, 3, 3))


def test_the_pullback_leaves_dead_columns_out():
    """A loss that sees all of Q and R gets from a dead column neither NaN nor a gradient."""
    base, grads = torch.randn(6, 4), []
    for with_dead in (True, False):
        A = base.clone().requires_grad_()
        columns = [A[:, 0], A[:, 1], *([A[:, 0] - A[:, 1]] if with_dead else []), A[:, 2], A[:, 3]]
        Q, R, dead = qr(torch.stack(columns, -1))
        assert (dead is not None) == with_dead
        loss = (Q + 2).log().sum() + R.sin().sum() + R.diagonal().log().sum()
        grads += torch.autograd.grad(loss, A)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=1e-12)


def unseen(monkeypatch, A, method="auto"):
    """As where nobody can look."""
    with monkeypatch.context() as patch:
        patch.setattr(_checks, "can_look", lambda: False)
        return orthonormalise(A, None, method)


def graded(n, k, decades, dtype=torch.float64):
    """Columns whose last ones are nearly those before."""
    Q = random_frame(n, k)
    R = torch.triu(torch.ones(k, k)) * torch.logspace(0, -decades, k).unsqueeze(-1)
    return (Q @ R).to(dtype)


@pytest.mark.parametrize("decades", [0, 1, 3, 5])
@pytest.mark.parametrize("method", ["auto", "cholesky2"])
def test_where_nobody_can_look_the_same_is_decided(decades, method, monkeypatch):
    A = torch.stack([graded(9, 6, d) for d in (0, decades)])
    for found, expected in zip(
        unseen(monkeypatch, A, method)[:2], orthonormalise(A, None, method)[:2], strict=True
    ):
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()


def test_where_nobody_can_look_float64_mends_what_float32_does_not(monkeypatch):
    A = torch.stack([graded(9, 6, d, torch.float32) for d in (0, 5)])
    assert torch.linalg.cholesky_ex(A.mT @ A).info.tolist()[1] > 0
    found, expected = unseen(monkeypatch, A), orthonormalise(A)
    assert found.R.dtype == torch.float32
    unit = torch.eye(6, dtype=torch.float32)
    assert (found.Q.mT @ found.Q - unit).abs().max() < 1e-6
    pivots = [z.R.diagonal(dim1=-2, dim2=-1) for z in (found, expected)]
    # of the last column 2e-5 is left, with the round-off of its length
    torch.testing.assert_close(*pivots, rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nobody_can_look_death_is_no_number(dtype, monkeypatch):
    A = torch.stack([graded(9, 6, 1, dtype), graded(9, 6, 1, dtype), torch.zeros(9, 6, dtype=dtype)])
    A[1, :, 3] = A[1, :, 1]
    found = unseen(monkeypatch, A)
    assert found.R.isnan().any(-1).any(-1).tolist() == [False, True, True]
    assert found.Q.isnan().any(-1).any(-1).tolist() == [False, True, True]
    assert found.dead is None
