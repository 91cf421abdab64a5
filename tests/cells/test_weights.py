import pytest
import torch

import lyaptorch as lt
from cases import M, N
from lyaptorch._random import Stream, ids_of
from lyaptorch.cells.matrices import (
    WEIGHTS,
    by_cholesky,
    by_householder,
    dale,
    low_rank,
    random_frame,
    weights,
)

pytestmark = pytest.mark.usefixtures("double")

STREAM = Stream(9, "weight_hh")
IDS = ids_of((40,))
COUNT = 40 * 50 * 50


def draw(name, gain=1.0, n=50, ids=IDS):
    return weights(name, gain)(n, STREAM, ids)


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_gaussian_weights_have_variance_gain_squared_over_n(gain):
    W = draw("gaussian", gain)
    # five standard errors of a variance, and of a mean, from COUNT draws
    assert W.var() == pytest.approx(gain**2 / 50, rel=5 * (2 / COUNT) ** 0.5)
    assert abs(W.mean()) < 5 * gain / 50**0.5 / COUNT**0.5
    assert (W / gain * 50**0.5).pow(4).mean() == pytest.approx(3.0, abs=5 * (96 / COUNT) ** 0.5)


def test_uniform_weights_fill_their_bounds():
    W = draw("uniform", 1.5)
    bound = 1.5 / 50**0.5
    assert W.abs().max() <= bound
    assert W.max() > 0.999 * bound  # of 1e5 draws
    assert W.min() < -0.999 * bound
    assert W.var() == pytest.approx(bound**2 / 3, rel=5 * (0.8 / COUNT) ** 0.5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_orthogonal_weights_are_orthogonal(dtype, tolerance):
    torch.set_default_dtype(dtype)
    W = draw("orthogonal", 1.3)
    assert W.dtype == dtype
    torch.testing.assert_close(W @ W.mT / 1.3**2, torch.eye(50).expand_as(W), rtol=0, atol=tolerance)
    # Haar: the trace has mean 0 and variance 1, and both orientations occur
    traces = W.diagonal(dim1=-2, dim2=-1).sum(-1) / 1.3
    assert abs(traces.mean()) < 5 / 40**0.5
    assert 0.5 < traces.std() < 1.6
    assert set(torch.linalg.det(W / 1.3).sign().tolist()) == {-1.0, 1.0}


def test_identity_and_shifted_mean():
    assert torch.equal(draw("identity", 0.7)[3], 0.7 * torch.eye(50))
    W = draw("shifted_mean", 1.2)
    # a row sums to -1 with standard deviation g
    assert W.sum(-1).mean() == pytest.approx(-1.0, abs=5 * 1.2 / (40 * 50) ** 0.5)
    torch.testing.assert_close(W - draw("gaussian", 1.2), torch.full_like(W, -1 / 50), rtol=0, atol=1e-15)


def test_dale_and_balanced_weights_keep_their_signs_and_their_variance():
    for name in ("dale", "balanced"):
        W = draw(name, 1.5)
        assert (W[..., :40] >= 0).all()
        assert (W[..., 40:] <= 0).all()
    W = draw("dale", 1.5)
    # a row: squares sum to g^2 and entries to 0, with a standard deviation below g
    assert W.square().sum(-1).mean() == pytest.approx(1.5**2, rel=0.03)
    assert abs(W.sum(-1).mean()) < 5 * 1.5 / (40 * 50) ** 0.5
    torch.testing.assert_close(draw("balanced").sum(-1), torch.zeros(40, 50), rtol=0, atol=1e-14)
    torch.testing.assert_close(draw("balanced")[..., :40], draw("dale")[..., :40], rtol=0, atol=0)


def test_low_rank_weights_have_their_eigenvalues_and_their_disc():
    W = low_rank(1.5, 2)(50, STREAM, IDS)
    values = torch.linalg.eigvals(W).abs().sort(-1, descending=True).values
    torch.testing.assert_close(values[..., :2], torch.full_like(values[..., :2], 1.5), rtol=0, atol=1e-9)
    assert values[..., 2:].max() < 1e-6
    noisy = low_rank(1.5, 2, 0.5)(50, STREAM, IDS) - W
    assert noisy.square().sum((-2, -1)).mean().item() == pytest.approx(0.25 * 50, rel=0.05)
    # of another stream than the directions
    assert (noisy * W).sum((-2, -1)).mean().abs() < 1
    with pytest.raises(ValueError, match=r"rank must be an integer in 1..4, got 5; there are 4 neurons"):
        low_rank(1.0, 5)(4, STREAM, IDS)


def test_dale_needs_both_kinds_of_neurons():
    with pytest.raises(ValueError, match=r"got 2 excitatory of 2; change the share 0.8"):
        draw("dale", n=2)
    with pytest.raises(ValueError, match=r"excitatory must be a share in 0..1, got 1.2"):
        dale(1.0, 1.2)(5, STREAM, IDS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_gain_per_member_scales_each_member(name):
    gains = torch.tensor([0.5, 1.0, 2.0])
    W = draw(name, gains, n=4, ids=ids_of((3,)))
    for i, gain in enumerate(gains.tolist()):
        torch.testing.assert_close(W[i], draw(name, gain, n=4, ids=torch.tensor(i)), rtol=0, atol=0)


def test_members_differ():
    W = draw("gaussian")
    assert len({tuple(w.flatten()[:3].tolist()) for w in W}) == 40
    correlation = torch.corrcoef(W.flatten(1)) - torch.eye(40)
    assert correlation.abs().max() < 6 / 50  # six standard errors for pairs of 2500 draws


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_member_alone_has_the_same_bits_as_in_any_ensemble(kind, name, dtype):
    torch.set_default_dtype(dtype)
    settings = {"weights": name, "gain": 1.1}
    flat = kind(M, N, ensemble=(6,), **settings)
    grid = kind(M, N, ensemble=(2, 3), **settings)
    mixed = kind(M, N, ensemble=(2,), member_ids=torch.tensor([4, 1]), **settings)
    for i in range(6):
        alone = kind(M, N, member_ids=i, **settings)
        for p, q, r in zip(alone.parameters(), flat.parameters(), grid.parameters(), strict=True):
            assert p.dtype == dtype
            assert torch.equal(p, q[i])
            assert torch.equal(p, r[i // 3, i % 3])
    for p, q in zip(mixed.parameters(), flat.parameters(), strict=True):
        assert torch.equal(p, q[[4, 1]])
    first = kind(M, N, **settings)
    assert all(torch.equal(p, q[0]) for p, q in zip(first.parameters(), flat.parameters(), strict=True))


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_the_generator_seeds_and_torchs_global_stream_is_left_alone(kind):
    def made(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return torch.cat([p.flatten() for p in kind(M, N, generator=generator).parameters()])

    state = torch.get_rng_state()
    assert torch.equal(made(1), made(1))
    assert torch.equal(made(None), made(None))
    assert not torch.equal(made(1), made(2))
    assert not torch.equal(made(1), made(None))
    assert torch.equal(torch.get_rng_state(), state)


def test_one_generator_gives_two_cells_different_weights():
    generator = torch.Generator().manual_seed(1)
    first, second = (lt.RateCell(M, N, generator=generator) for _ in range(2))
    assert not torch.equal(first.weight_hh, second.weight_hh)


def test_the_published_setting_is_the_default_of_a_rate_cell():
    cell = lt.RateCell(2, 50, gain=1.5, ensemble=(40,))
    assert cell.weight_hh.var().item() == pytest.approx(1.5**2 / 50, rel=5 * (2 / COUNT) ** 0.5)
    assert cell.weight_ih.var().item() == pytest.approx(1.0, rel=5 * (2 / 4000) ** 0.5)
    assert 0 <= cell.bias.min() < 0.001 < 0.099 < cell.bias.max() < 0.1
    assert lt.RateCell(2, 5, bias=False).bias is None


def test_torchs_setting_is_the_default_of_an_elman_cell():
    for p in lt.ElmanCell(2, 50, ensemble=(40,)).parameters():
        assert 0.99 / 50**0.5 < p.abs().max() <= 1 / 50**0.5
        assert p.var().item() == pytest.approx(1 / 150, rel=5 * (0.8 / p.numel()) ** 0.5)


def test_weights_as_a_function():
    cell = lt.RateCell(M, N, weights=lambda n, stream, members: 2 * torch.eye(n).expand(*members.shape, n, n))
    assert torch.equal(cell.weight_hh, 2 * torch.eye(N))
    with pytest.raises(
        ValueError, match=r"gain=2.0 has no effect on weights given as a function; build it in"
    ):
        lt.RateCell(M, N, gain=2.0, weights=lambda n, stream, members: torch.eye(n))


class TestFrame:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
    def test_columns_are_orthonormal(self, dtype, tolerance):
        Q = random_frame(20, 7, STREAM, ids_of((3,)), dtype=dtype)
        assert Q.dtype == dtype
        torch.testing.assert_close(
            Q.mT @ Q, torch.eye(7, dtype=dtype).expand(3, 7, 7), rtol=0, atol=tolerance
        )

    def test_the_first_columns_do_not_depend_on_k(self):
        wide = random_frame(20, 20, STREAM, ids_of((3,)))
        for k in (1, 6, 19):
            narrow = random_frame(20, k, STREAM, ids_of((3,)))
            torch.testing.assert_close(narrow, wide[..., :k], rtol=0, atol=1e-14)

    def test_members_and_epochs_have_their_own(self):
        Q = random_frame(8, 2, STREAM, ids_of((3,)))
        torch.testing.assert_close(random_frame(8, 2, STREAM, torch.tensor(2)), Q[2], rtol=0, atol=1e-15)
        assert not torch.allclose(Q[0], Q[1])
        assert not torch.allclose(random_frame(8, 2, STREAM, ids_of((3,)), epoch=1), Q)


@pytest.mark.parametrize("k", [1, 3, 60])
def test_frames_drawn_on_a_gpu_are_those_of_the_host(k):
    A = torch.randn(20, 60, k, dtype=torch.float64)
    Q = by_cholesky(A)
    torch.testing.assert_close(by_cholesky(A[0]), Q[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(Q, by_householder(A), rtol=0, atol=1e-9)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(k, dtype=Q.dtype).expand(20, k, k), rtol=0, atol=1e-13)
