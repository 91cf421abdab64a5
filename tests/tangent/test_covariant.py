"""Covariant vectors: covariance, closed forms, what is dead, and what can be read off them."""

import math

import pytest
import torch

import lyaptorch as lt
from cases import CASES, N, setup
from lyaptorch.testing import cat, henon
from lyaptorch.testing import linear as linear_map
from reference import random_frame

pytestmark = pytest.mark.usefixtures("double")


def covariance(cell, inputs, h, vectors):
    """1 - |cos(D v_s, v_{s+1})| with dense Jacobians."""
    worst = 0.0
    for s, x in enumerate(inputs):
        D = torch.autograd.functional.jacobian(lambda y, x=x: cell.step(x, y)[0], h)[:, 0]
        pushed = torch.nn.functional.normalize(D @ vectors[s, 0], dim=0)
        worst = max(worst, (1 - (pushed * vectors[s + 1, 0]).sum(0).abs()).max().item())
        h = cell.step(x, h)
    return worst


def test_henon():
    inputs, h0 = torch.zeros(500, 4, 1), 0.1 * torch.rand(4, 2)
    clv = lt.covariant_vectors(
        henon, inputs, h0=h0, transient=100, tangent_transient=60, backward_transient=40
    )
    assert clv.vectors.shape == (301, 4, 2, 2)
    assert clv.covariance_error.shape == (300, 4, 2)
    assert clv.covariance_error.max() < 1e-12
    assert clv.converged.all()
    spec = lt.lyapunov_spectrum(henon, inputs[:460], h0=h0, transient=100, tangent_transient=60)
    torch.testing.assert_close(clv.exponents, spec.exponents, rtol=0, atol=1e-13)
    # along the vectors perturbations grow at the exponents, up to angles gained or lost at the ends
    torch.testing.assert_close(clv.growth.log_r.mean(0), clv.exponents, rtol=0, atol=10 / 300)
    torch.testing.assert_close(clv.growth.log_r[..., 0], clv.orthogonal_growth.log_r[..., 0])


@pytest.mark.parametrize("n", [20, 80])
def test_a_driven_tanh_network(n):
    cell, inputs = lt.RateCell(1, n, gain=1.5), torch.randn(130, 1, 1)
    clv = lt.covariant_vectors(cell, inputs, transient=20, tangent_transient=40, backward_transient=40)
    assert clv.covariance_error.max() < 1e-8
    lengths = torch.linalg.vector_norm(clv.vectors, dim=-2)
    # frames orthonormal to round-off, not to the 40^2 round-offs of a single Cholesky pass
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-14)
    h = lt.lyapunov_spectrum(cell, inputs[:60], k=1).final_state.detach()
    assert covariance(cell, inputs[60:80], h, clv.vectors[:21]) < 1e-8


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("rate-tanh", "elman-tanh", "flow-rk4")], ids=str
)
def test_ensembles_have_the_vectors_of_their_members(case):
    grid = setup(case, (2, 3), t=12)
    clv = lt.covariant_vectors(grid.cell, grid.inputs, h0=grid.h0, k=3)
    assert clv.vectors.shape == (13, 2, 3, 2, N, 3)
    alone = setup(case, t=12, members=4)
    one = lt.covariant_vectors(alone.cell, alone.inputs, h0=alone.h0, k=3)
    torch.testing.assert_close(clv.vectors[:, 1, 1], one.vectors, rtol=0, atol=1e-10)
    torch.testing.assert_close(clv.growth.log_r[:, 1, 1], one.growth.log_r, rtol=0, atol=1e-10)


def test_a_constant_map_has_its_eigenvectors():
    """Not orthogonal: the frame's columns are other vectors."""
    rates, V = torch.tensor([0.3, -0.1, -0.8]), torch.randn(3, 3)
    V = V / V.norm(dim=0)
    A = V @ torch.diag(rates.exp()) @ torch.linalg.inv(V)
    clv = lt.covariant_vectors(
        lambda x, h: h @ A.mT,
        torch.zeros(220, 1, 1),
        h0=torch.zeros(1, 3),
        tangent_transient=100,
        backward_transient=100,
    )
    cosines = (clv.vectors * V).sum(-2).abs()
    torch.testing.assert_close(cosines, torch.ones(21, 1, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(clv.local(), rates.expand(20, 1, 3), rtol=0, atol=1e-12)
    angles = (V.mT @ V).abs().clamp_max(1.0).arccos()
    torch.testing.assert_close(clv.angles()[7, 0], angles, rtol=0, atol=1e-6)


def test_a_normal_map_has_right_angles():
    clv = lt.covariant_vectors(
        linear_map([0.4, 0.0, -0.6]),
        torch.zeros(150, 1, 1),
        h0=torch.zeros(1, 3),
        tangent_transient=70,
        backward_transient=70,
    )
    off = clv.angles() - (math.pi / 2) * (1 - torch.eye(3))
    assert off.abs().max() < 1e-7


def test_where_the_backward_recursion_has_converged():
    """The cat map's vectors meet at exp(-(lambda_1 - lambda_2) s) from the end, 1.92 nats a step."""
    clv = lt.covariant_vectors(cat, torch.zeros(60, 1, 1), h0=torch.rand(1, 2), tangent_transient=20)
    assert clv.converged[..., 0].all()
    second = clv.backward_error[:, 0, 1]
    assert second[-1] > 0.05
    rate = (second[-6] / second[-2]).log() / 4
    assert rate.item() == pytest.approx(-2 * math.log((3 + 5**0.5) / 2), abs=0.05)
    assert torch.equal(clv.converged[:, 0, 1], second < 1e-6)
    assert clv.converged[:20, 0, 1].all()
    # covariance holds all the same
    assert clv.covariance_error.max() < 1e-12


def test_the_backward_transient_is_only_cut_off():
    cell, inputs = lt.RateCell(1, 6, gain=1.5), torch.randn(40, 2, 1)
    whole = lt.covariant_vectors(cell, inputs, tangent_transient=5)
    part = lt.covariant_vectors(cell, inputs, tangent_transient=5, backward_transient=10)
    assert torch.equal(whole.vectors[:26], part.vectors)
    assert torch.equal(whole.growth.log_r[:25], part.growth.log_r)
    assert torch.equal(whole.orthogonal_growth.log_r[:25], part.orthogonal_growth.log_r)
    assert torch.equal(whole.backward_error[:26], part.backward_error)
    assert torch.equal(whole.covariance_error[:25], part.covariance_error)


def test_dead_columns_are_zero_and_the_living_do_not_notice():
    """One channel is shut from the start, another from step 10 on: a column dies at once, one later."""
    A, gate = torch.eye(5) + 0.3 * torch.randn(5, 5), torch.ones(16, 1, 5)
    gate[:, :, 4], gate[10:, :, 3] = 0.0, 0.0
    clv = lt.covariant_vectors(lambda x, h: (h * x) @ A.mT, gate, h0=torch.ones(1, 5))
    assert clv.orthogonal_growth.healthy.sum(-1)[:, 0].tolist() == [4] * 10 + [3] * 6
    alive = clv.growth.healthy[-1, 0]
    assert alive.sum() == 3
    assert (clv.vectors[..., ~alive] == 0).all()
    assert (clv.exponents[0, ~alive] == -torch.inf).all()
    assert (clv.growth.log_r[..., ~alive] == -torch.inf).all()
    assert not clv.converged[..., ~alive].any()
    torch.testing.assert_close(
        torch.linalg.vector_norm(clv.vectors[..., alive], dim=-2), torch.ones(17, 1, 3), rtol=0, atol=1e-12
    )
    assert clv.covariance_error.max() < 1e-12
    assert torch.isfinite(clv.growth.log_r[..., alive]).all()
    angles = clv.angles()[:, 0][:, ~alive][:, :, alive]
    torch.testing.assert_close(angles, torch.full_like(angles, math.pi / 2))


def test_local_and_finite_time_exponents_average_to_each_other():
    cell = lt.RateCell(1, 6, gain=1.5)
    clv = lt.covariant_vectors(cell, torch.randn(31, 2, 1), k=3, dt=0.5)
    assert clv.local().shape == (31, 2, 3)
    torch.testing.assert_close(clv.local(), clv.growth.log_r / 0.5, rtol=1e-14, atol=0)
    windows = clv.finite_time(10)
    assert windows.shape == (3, 2, 3)
    torch.testing.assert_close(windows[0], clv.local()[1:11].mean(0), rtol=1e-13, atol=0)


def test_overlap_with_a_loss_gradient():
    cell, inputs = lt.RateCell(1, 6, gain=1.5), torch.randn(30, 2, 1)
    clv = lt.covariant_vectors(cell, inputs, k=3, backward_transient=10)
    v = clv.vectors
    torch.testing.assert_close(clv.overlap(-3.0 * v[..., 1])[..., 1], torch.ones(21, 2), rtol=0, atol=1e-13)
    across = torch.randn(21, 2, 6)
    across = across - (across * v[..., 0]).sum(-1, keepdim=True) * v[..., 0]
    assert clv.overlap(across)[..., 0].max() < 1e-12
    assert (clv.overlap(torch.zeros(21, 2, 6)) == 0).all()
    h0 = torch.zeros(2, 6, requires_grad=True)
    h = h0
    for x in inputs:
        h = cell(x, h)
    (gradient,) = torch.autograd.grad(h.square().sum(), h0)
    overlap = clv.overlap(gradient.unsqueeze(0))
    assert overlap.shape == (1, 2, 3)
    cosine = torch.nn.functional.cosine_similarity(gradient, v[0, ..., 0], dim=-1)
    torch.testing.assert_close(overlap[0, :, 0], cosine.abs(), rtol=1e-12, atol=0)


def test_it_takes_frame_and_generator_like_the_spectrum():
    cell, inputs = lt.RateCell(1, 6, gain=1.5), torch.randn(30, 2, 1)
    frame = random_frame(6, 2)
    for settings in ({"frame": frame}, {"k": 3}):
        clv = lt.covariant_vectors(cell, inputs, **{"k": 2} | settings)
        spec = lt.lyapunov_spectrum(cell, inputs, **{"k": 2} | settings)
        torch.testing.assert_close(clv.exponents, spec.exponents.detach(), rtol=0, atol=1e-13)
    seeded = [
        compute(cell, inputs, k=2, generator=torch.Generator().manual_seed(3)).exponents
        for compute in (lt.covariant_vectors, lt.lyapunov_spectrum)
    ]
    torch.testing.assert_close(*(z.detach() for z in seeded), rtol=0, atol=1e-13)
    assert not clv.vectors.requires_grad


def test_it_draws():
    pytest.importorskip("matplotlib")
    cell = lt.RateCell(1, 6, gain=1.5, ensemble=(2,))
    for k in (1, 4):
        figure = lt.covariant_vectors(cell, torch.randn(20, 1, 1), k=k).plot()
        assert len(figure.axes) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 7}, r"k must be an integer in 1\.\.6, got 7"),
        ({"backward_transient": -1}, r"backward_transient must be an integer >= 0, got -1"),
        (
            {"tangent_transient": 10, "backward_transient": 20},
            r"transient \+ tangent_transient \+ backward_transient \+ at least 1 counted step, got t=30 for "
            r"0 \+ 10 \+ 20 \+ 1",
        ),
        ({"dt": -1.0}, r"dt must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_refused_in_words(unchecked, settings, message):
    with pytest.raises(ValueError, match=message):
        lt.covariant_vectors(lt.RateCell(1, 6), torch.zeros(30, 1, 1), **settings)


@pytest.mark.parametrize("shape", [(2, 6), (32, 2, 6), (3, 2, 5), (0, 2, 6)])
def test_a_gradient_of_another_shape_is_refused_in_words(unchecked, shape):
    clv = lt.covariant_vectors(lt.RateCell(1, 6), torch.zeros(30, 2, 1))
    with pytest.raises(ValueError, match=r"gradient must have shape \(s, \*e, b, n\).*s in 1\.\.31"):
        clv.overlap(torch.ones(shape))
    with pytest.raises(ValueError, match=r"gradient must be finite, got nan"):
        clv.overlap(torch.full((1, 2, 6), torch.nan))
