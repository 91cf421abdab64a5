import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch import residuals
from lyaptorch.analysis import residual_exponents

pytestmark = pytest.mark.usefixtures("double")
N = 8
NOBODY = torch.tensor(0)


def noise(t, *e, seed=0, std=1.0):
    x = std * torch.randn(t, *[1] * len(e), 1, 1, generator=torch.Generator().manual_seed(seed))
    return x.expand(t, *e, 1, 1)


def measured(cell, inputs, *, transient=200, tangent_transient=300):
    with torch.no_grad():
        spectrum = lt.lyapunov_spectrum(
            cell, inputs, transient=transient, tangent_transient=tangent_transient
        )
    return spectrum.exponents[..., 0, :].sort(-1, descending=True).values


RECIPES = {
    "diagonal": residuals.decay(torch.linspace(0.6, 1.0, N)),
    "blocks": residuals.rotation(torch.tensor([0.3, 0.7, 1.1, 1.5]))
    @ residuals.decay(torch.linspace(0.7, 1.0, N // 2).repeat_interleave(2)),
    "dense": residuals.orthogonal(N) @ residuals.decay(torch.linspace(0.6, 1.0, N)),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["linear", "A"])
def test_at_rest_the_exponents_are_those_of_the_matrix(recipe, kind):
    cell = lt.ResidualCell(1, N, residual=RECIPES[recipe], coupling=0.1, kind=kind, bias=False)
    found = residual_exponents(cell, torch.zeros(5, 1, 1))
    assert found.slopes is not None
    torch.testing.assert_close(found.slopes, found.weights, rtol=0, atol=1e-12)
    got = measured(cell, torch.zeros(2500, 1, 1))
    # what a finite product keeps of the angle within pairs of complex eigenvalues
    torch.testing.assert_close(got, found.weights, rtol=0, atol=2e-3)
    assert got.sum().item() == pytest.approx(found.weights.sum().item(), abs=1e-12)


def test_without_coupling_they_are_those_of_the_residual():
    for recipe in RECIPES.values():
        found = residual_exponents(lt.ResidualCell(1, N, residual=recipe, coupling=0.0))
        expected = torch.linalg.eigvals(recipe(N, NOBODY).dense()).abs().log().sort(descending=True).values
        torch.testing.assert_close(found.residual, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.weights, expected, rtol=0, atol=1e-12)
        assert found.slopes is None


def test_driven_they_deviate_in_proportion_to_the_coupling():
    r, eps = 0.95, torch.tensor([0.005, 0.01, 0.02, 0.04])
    same = torch.zeros(4, dtype=torch.int64)
    cell = lt.ResidualCell(1, 20, residual=residuals.decay(r), coupling=eps, ensemble=(4,), member_ids=same)
    inputs = noise(2000, 4)
    got, found = measured(cell, inputs), residual_exponents(cell, inputs, transient=200)
    torch.testing.assert_close(found.residual, torch.full((4, 20), math.log(r)), rtol=0, atol=1e-12)
    deviation = (got - found.residual).abs().amax(-1)
    ratio = deviation / eps
    assert ratio.max() < 1.25 * ratio.min()
    assert ratio.max() < 0.6 / r
    # the averaged slope is an order of magnitude closer
    assert (got - found.slopes)[eps <= 0.03].abs().max() < 1.5e-3


def test_of_kinds_a_and_b_only_a_subcritical_residual_keeps_its_exponents():
    r, seeds = torch.tensor([0.95, 1.0, 1.05]), torch.zeros(3, dtype=torch.int64)
    leading = {}
    for kind in ("linear", "A", "B"):
        cell = lt.ResidualCell(
            1,
            20,
            residual=residuals.decay(r),
            coupling=0.03,
            kind=kind,
            bias=False,
            ensemble=(3,),
            member_ids=seeds,
        )
        leading[kind] = measured(cell, noise(800, 3))[:, 0]
    # 0.6 eps, as above
    torch.testing.assert_close(leading["linear"], r.log(), rtol=0, atol=0.018)
    for kind in ("A", "B"):
        assert abs(leading[kind][0] - math.log(0.95)) < 0.018
        # log 1.05 = +0.049: saturation turns it negative
        assert -0.1 < leading[kind][2] < 0


def test_a_non_normal_residual_is_flagged():
    A = torch.tensor([[0.9, 5.0], [0.0, 0.8]])
    found = residual_exponents(lt.ResidualCell(1, 2, residual=residuals.matrix(A), coupling=0.0))
    assert not found.normal
    vectors = torch.linalg.eig(A).eigenvectors
    assert found.condition.item() == pytest.approx(torch.linalg.cond(vectors).item(), rel=1e-10)
    assert found.condition > 50
    torch.testing.assert_close(found.residual.exp(), torch.tensor([0.9, 0.8]), rtol=0, atol=1e-12)


def test_blocks_are_judged_together():
    A = torch.block_diag(torch.tensor([[0.9, 5.0], [0.0, 0.8]]), torch.eye(2))
    dense = lt.ResidualCell(1, 4, residual=residuals.matrix(A @ torch.eye(4)))
    assert dense.structure == "blocks"
    found = residual_exponents(dense)
    assert not found.normal
    assert found.condition.item() == pytest.approx(torch.linalg.cond(torch.linalg.eig(A)[1]).item(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotations_decays_and_orthogonal_matrices_are_normal(dtype):
    recipes = [residuals.rotation(0.3), residuals.decay(torch.rand(N)), residuals.orthogonal(N)]
    for recipe in [*recipes, recipes[0] @ residuals.decay(0.9)]:
        found = residual_exponents(lt.ResidualCell(1, N, residual=recipe, ensemble=(2,)).to(dtype))
        assert found.normal.all()
        assert found.condition.tolist() == [1, 1]


def test_a_transient_must_leave_something():
    with pytest.raises(ValueError, match=r"transient must be in 0\.\.4, got 5; pass more inputs"):
        residual_exponents(lt.ResidualCell(1, 4), torch.zeros(5, 1, 1), transient=5)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_of_saturated_kinds_the_averaged_slopes_still_tell_the_mean(kind):
    cell = lt.ResidualCell(1, N, residual=residuals.decay(1.0), coupling=0.1, kind=kind)
    inputs = noise(1500)
    got, found = measured(cell, inputs), residual_exponents(cell, inputs, transient=200)
    assert got.mean() < -0.04
    # the slopes fluctuate: the logarithm of their mean is not the mean of their logarithms
    assert abs(found.slopes.mean() - got.mean()) < 0.25 * abs(got.mean())
    assert abs(found.residual.mean() - got.mean()) > 0.04
