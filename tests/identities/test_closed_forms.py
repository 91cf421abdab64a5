"""Systems whose exponents are known."""

import math

import pytest
import torch

import lyaptorch as lt
import reference

pytestmark = pytest.mark.usefixtures("double")

KINDS = [lt.RateCell, lt.ElmanCell]


def linear(kind, W, **settings):
    """A linear cell with these weights."""
    cell = kind(1, len(W), activation="linear", **settings)
    with torch.no_grad():
        cell.weight_hh.copy_(W)
    return cell


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1, 2, 50])
@pytest.mark.parametrize("gain", [0.3, 1.0, 1.7])
def test_a_scaled_rotation_stretches_all_directions_alike(kind, t, gain):
    cell = kind(1, 6, weights="orthogonal", gain=gain, activation="linear", ensemble=(2,))
    spec = lt.lyapunov_spectrum(cell, torch.randn(t, 3, 1))
    expected = torch.full((2, 3, 6), math.log(gain))
    torch.testing.assert_close(spec.exponents, expected, rtol=0, atol=1e-13)
    assert (spec.stderr() == torch.inf).all() if t < 4 else (spec.stderr() < 1e-13).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [1, 4])
def test_a_diagonal_map_is_exact_in_its_own_frame_and_unsorted(kind, interval):
    rates = torch.tensor([-0.4, 0.3, -2.0, 0.1])
    spec = lt.lyapunov_spectrum(
        linear(kind, torch.diag(rates.exp())), torch.zeros(10, 1, 1), frame=torch.eye(4), interval=interval
    )
    torch.testing.assert_close(spec.exponents[0], rates, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_a_normal_map_converges_to_the_logs_of_its_eigenvalues_at_rate_one_over_t(kind):
    rates = torch.tensor([0.4, 0.1, -0.3, -1.1])
    U = reference.random_frame(4, 4, seed=2)
    cell = linear(kind, U @ torch.diag(rates.exp()) @ U.mT)
    off = []
    for t in (50, 500):
        spec = lt.lyapunov_spectrum(cell, torch.zeros(t, 1, 1))
        off.append((spec.exponents[0] - rates).abs())
        torch.testing.assert_close(spec.exponents.sum(), rates.sum(), rtol=0, atol=1e-12)
    # the frame turns once and for all: what that cost in nats is divided by t
    torch.testing.assert_close(off[0] * 50, off[1] * 500, rtol=0, atol=1e-6)
    spec = lt.lyapunov_spectrum(cell, torch.zeros(500, 1, 1), tangent_transient=200)
    torch.testing.assert_close(spec.exponents[0], rates, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defective_map_grows_like_its_eigenvalue(kind):
    W = torch.tensor([[0.5, 1.0], [0.0, 0.5]])
    spec = lt.lyapunov_spectrum(linear(kind, W), torch.zeros(2000, 1, 1))
    # a Jordan block adds log t / t
    torch.testing.assert_close(
        spec.exponents[0], torch.full((2,), 0.5).log(), rtol=0, atol=math.log(2000) / 1000
    )
    assert spec.exponents.sum().item() == pytest.approx(2 * math.log(0.5), abs=1e-12)


def test_the_input_of_a_linear_cell_leaves_its_exponents_alone():
    cell = lt.RateCell(2, 5, activation="linear", gain=0.7)
    settings = {"frame": reference.random_frame(5, 5), "h0": torch.randn(1, 5)}
    quiet = lt.lyapunov_spectrum(cell, torch.zeros(20, 1, 2), **settings).exponents
    driven = lt.lyapunov_spectrum(cell, torch.randn(20, 1, 2), **settings).exponents
    torch.testing.assert_close(driven, quiet, rtol=0, atol=0)


def henon(x, h):
    u, v = h.unbind(-1)
    return torch.stack([1 - 1.4 * u * u + v, 0.3 * u], -1)


@pytest.mark.parametrize("interval", [1, 3])
def test_the_henon_map(interval):
    inputs = torch.zeros(600, 32, 1)
    h0 = 0.1 * torch.rand(32, 2)
    spec = lt.lyapunov_spectrum(henon, inputs, h0=h0, transient=100, interval=interval)
    # the volume shrinks by 0.3 at every point
    torch.testing.assert_close(spec.exponents.sum(-1), torch.full((32,), math.log(0.3)), rtol=0, atol=1e-12)
    mean, error = spec.exponents[:, 0].mean(), spec.exponents[:, 0].std() / 32**0.5
    assert mean.item() == pytest.approx(0.4192, abs=4 * error.item() + 1e-4)
    assert error < 0.01
    assert spec.kaplan_yorke().mean().item() == pytest.approx(1.258, abs=0.01)


def test_the_cat_map():
    A = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    spec = lt.lyapunov_spectrum(
        lambda x, h: torch.remainder(h @ A.mT, 1.0),
        torch.zeros(200, 3, 1),
        h0=torch.rand(3, 2),
        tangent_transient=40,
        interval=2,
    )
    golden = math.log((3 + 5**0.5) / 2)
    # the frame turns by e^(-2 golden) a step: after 40 it stands to round-off
    expected = torch.tensor([golden, -golden]).expand(3, 2)
    torch.testing.assert_close(spec.exponents, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(spec.kaplan_yorke(), torch.full((3,), 2.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(spec.entropy(), torch.full((3,), golden), rtol=0, atol=1e-12)


def test_the_logistic_map():
    spec = lt.lyapunov_spectrum(
        lambda x, h: 4 * h * (1 - h), torch.zeros(900, 64, 1), h0=torch.rand(64, 1), transient=100
    )
    mean, error = spec.exponents.mean(), spec.stderr().square().mean().sqrt() / 64**0.5
    # 64 independent estimates
    assert abs(mean - math.log(2)) < 3 * error
    assert error < 0.01


def test_a_torus_rotation_neither_stretches_nor_shrinks():
    spec = lt.lyapunov_spectrum(
        lambda x, h: torch.remainder(h + x, 1.0), torch.rand(50, 2, 3), h0=torch.rand(2, 3)
    )
    torch.testing.assert_close(spec.exponents, torch.zeros(2, 3), rtol=0, atol=1e-14)


def test_the_identity_map():
    h0 = torch.rand(2, 3).requires_grad_()
    spec = lt.lyapunov_spectrum(lambda x, h: h, torch.zeros(5, 2, 1), h0=h0)
    torch.testing.assert_close(spec.exponents, torch.zeros(2, 3), rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(spec.final_state.sum() + spec.exponents.sum(), h0)
    torch.testing.assert_close(gradient, torch.ones(2, 3))
