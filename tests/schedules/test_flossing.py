import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from lyaptorch import FitPhase, FlossPhase, flossing_loss

pytestmark = pytest.mark.usefixtures("double")
INF = math.inf
ENSEMBLES = [(), (3,), (2, 3)]


def plain(exponents, target=0.0, reduction="mean", k=100):
    """Member by member, trajectory by trajectory, in Python's own numbers: `(*e,)`."""
    ensemble = exponents.shape[:-2]
    rows = exponents.reshape(-1, *exponents.shape[-2:]).tolist()
    ks = torch.as_tensor(k).expand(ensemble).flatten().tolist()
    most = exponents.shape[-1]
    targets = torch.as_tensor(target).expand(*ensemble, most).reshape(-1, most).tolist()
    members = []
    for member, aim, count in zip(rows, targets, ks, strict=True):
        pairs = [list(zip(row, aim, strict=True))[:count] for row in member]
        squares = [[(x - a) ** 2 for x, a in row if x != -INF] for row in pairs]
        # a trajectory of which nothing lives is left out
        parts = [sum(s) / (1 if reduction == "sum" else len(s)) for s in squares if s]
        members.append(sum(parts) / max(len(parts), 1))
    return torch.tensor(members).reshape(ensemble)


def drawn(ensemble, b=4, k=5):
    """Exponents of which some columns died."""
    exponents = torch.randn(*ensemble, b, k)
    exponents[..., 1, 3:] = -INF
    exponents[..., 2, :] = -INF
    return exponents


def test_the_value_by_hand():
    exponents = torch.tensor([[0.5, -0.5, 1.0], [0.0, 0.0, 3.0]])
    torch.testing.assert_close(flossing_loss(exponents), torch.tensor((1.5 / 3 + 9 / 3) / 2))
    torch.testing.assert_close(flossing_loss(exponents, reduction="sum"), torch.tensor((1.5 + 9) / 2))
    torch.testing.assert_close(flossing_loss(exponents, 1.0), torch.tensor((2.5 / 3 + 6 / 3) / 2))
    torch.testing.assert_close(flossing_loss(exponents, k=2), torch.tensor(0.5 / 2 / 2))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("b", [1, 4])
def test_members_are_summed_and_trajectories_averaged(ensemble, b):
    exponents = torch.randn(*ensemble, b, 5)
    for reduction in ("mean", "sum"):
        loss = flossing_loss(exponents, 0.3, reduction)
        assert loss.shape == ()
        torch.testing.assert_close(loss, plain(exponents, 0.3, reduction).sum())
    members = flossing_loss(exponents, 0.3, "none")
    assert members.shape == ensemble
    torch.testing.assert_close(members, plain(exponents, 0.3))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_members_loss_and_gradient_are_those_it_has_alone(ensemble):
    exponents = drawn(ensemble).requires_grad_()
    (together,) = torch.autograd.grad(flossing_loss(exponents, -0.2), exponents)
    for index in map(tuple, torch.ones(ensemble).nonzero().tolist()):
        alone = exponents[index].detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(flossing_loss(alone, -0.2), alone)
        assert torch.equal(gradient, together[index])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_dead_columns_carry_neither_value_nor_gradient_and_are_not_counted(ensemble, reduction):
    exponents = drawn(ensemble).requires_grad_()
    loss = flossing_loss(exponents, 0.1, reduction)
    expected = plain(exponents.detach(), 0.1, reduction)
    torch.testing.assert_close(loss, expected if reduction == "none" else expected.sum())
    (gradient,) = torch.autograd.grad(loss.sum(), exponents)
    dead = exponents == -INF
    assert (gradient[dead] == 0).all()
    assert (gradient[~dead] != 0).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_all_dead_is_zero_with_zero_gradient(reduction):
    exponents = torch.full((2, 3, 4), -INF, requires_grad=True)
    loss = flossing_loss(exponents, 0.5, reduction)
    assert (loss == 0).all()
    loss.sum().backward()
    assert (exponents.grad == 0).all()


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_target_and_a_k_for_each_member(ensemble):
    exponents, target = drawn(ensemble), torch.randn(*ensemble, 1)
    k = torch.randint(1, 6, ensemble)
    for reduction in ("mean", "sum"):
        loss = flossing_loss(exponents, target, reduction, k)
        torch.testing.assert_close(loss, plain(exponents, target, reduction, k).sum())
    torch.testing.assert_close(flossing_loss(exponents, target, "none", k), plain(exponents, target, k=k))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("own", [False, True])
def test_a_target_for_each_exponent(ensemble, own):
    exponents = drawn(ensemble)
    target = torch.randn(*(ensemble if own else ()), 5).sort(-1, descending=True).values
    for reduction in ("mean", "sum", "none"):
        loss = flossing_loss(exponents, target, reduction, 4)
        expected = plain(exponents, target, "mean" if reduction == "none" else reduction, 4)
        torch.testing.assert_close(loss, expected if reduction == "none" else expected.sum())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            torch.tensor([0.0, -1.0, -0.5]),
            r"must not increase, .* larger entry at index 2 than at 1",
        ),
        (torch.zeros(4), r"with k = 3 and \*e = \(2,\), got \(4,\)"),
        (torch.zeros(3, 1), r"with k = 3 and \*e = \(2,\), got \(3, 1\)"),
        (torch.zeros(2), r"got \(2,\); pass target.unsqueeze\(-1\), or a spectrum as"),
        (torch.tensor([0.0, -0.1, torch.nan]), r"target must be finite, got nan"),
    ],
)
def test_bad_targets(target, message):
    with pytest.raises(ValueError, match=message):
        flossing_loss(torch.zeros(2, 1, 3), target)


def test_a_phase_flosses_as_many_exponents_as_its_target_has():
    assert FlossPhase(1, target=torch.tensor([0.0, -0.5])).k == 2
    assert FlossPhase(1, target=torch.tensor([0.0, -0.5]), k=1).k == 1
    assert FlossPhase(1, target=torch.zeros(3, 1)).k is None


def test_k_masks_it_equals_leaving_the_others_out():
    exponents = torch.randn(3, 2, 5, requires_grad=True)
    for reduction in ("mean", "sum"):
        first = flossing_loss(exponents[..., :2], 0.4, reduction)
        assert torch.equal(flossing_loss(exponents, 0.4, reduction, k=2), first)
    (gradient,) = torch.autograd.grad(flossing_loss(exponents, k=torch.tensor([1, 5, 3])), exponents)
    counts = torch.arange(5) < torch.tensor([1, 5, 3])[:, None, None]
    assert torch.equal(gradient != 0, counts.expand(3, 2, 5))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_gradcheck(ensemble, reduction):
    exponents = torch.randn(*ensemble, 2, 3, requires_grad=True)
    target, k = torch.randn(*ensemble, 1), torch.randint(1, 4, ensemble)
    assert torch.autograd.gradcheck(lambda e: flossing_loss(e, target, reduction, k), exponents)


def test_the_loss_keeps_the_dtype():
    exponents = torch.randn(2, 3, dtype=torch.float32)
    assert flossing_loss(exponents, torch.tensor(0.1, dtype=torch.float64)).dtype == torch.float32


def test_an_unknown_reduction_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown reduction 'meen', did you mean 'mean'\? known: mean"):
        flossing_loss(torch.zeros(1, 2), reduction="meen")


def test_a_k_of_another_shape_than_the_ensemble():
    for shape in ((2,), (3,), (3, 1), (2, 3, 1)):
        message = r"k must be a number or have the ensemble's shape \(2, 3\), got"
        with pytest.raises(ValueError, match=message):
            flossing_loss(torch.zeros(2, 3, 4, 5), k=torch.ones(shape))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_exponents_without_trajectories_are_refused(shape):
    with pytest.raises(TypeError, match="exponents"):
        flossing_loss(torch.zeros(shape))


WRONG = [
    ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
    ({"epochs": 1.5}, "epochs must be an integer >= 0, got 1.5"),
    ({"epochs": True}, "epochs must be an integer >= 0, got True"),
    ({"steps": 0}, "steps must be an integer >= 1, got 0"),
    ({"interval": 0}, "interval must be an integer >= 1, got 0"),
    ({"batch": 0}, "batch must be an integer >= 1, got 0"),
    (
        {"tangent_transient": 55},
        r"tangent_transient must be an integer in 0\.\.54, got 55; steps includes the transient",
    ),
    ({"tangent_transient": -1}, r"tangent_transient must be an integer in 0\.\.54, got -1"),
    ({"steps": 16}, r"tangent_transient must be an integer in 0\.\.15, got 16"),
    ({"reduction": "none"}, "unknown reduction 'none'"),
    ({"reduction": "summ"}, r"unknown reduction 'summ', did you mean 'sum'\?"),
    ({"frame": "redraw"}, r"unknown frame 'redraw', did you mean 'redrawn'\?"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("given", "message"), WRONG)
def test_a_phase_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        FlossPhase(**{"epochs": 3, **given})
    if "epochs" in given:
        with pytest.raises(ValueError, match=message):
            FitPhase(**given)


def test_a_phase_is_the_published_one_unless_told_and_does_not_change():
    phase = FlossPhase(500)
    published = {"steps": 55, "tangent_transient": 16, "lr": 1e-3, "clip": None, "reduction": "mean"}
    assert {name: getattr(phase, name) for name in published} == published
    assert (phase.batch, phase.target, phase.state_grad) == (1, 0.0, "full")
    # the published interval is 1, and the exponents do not depend on it
    assert phase.interval == "auto"
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        phase.steps = 3
    with pytest.raises(TypeError, match="step_count"):
        FlossPhase(500, step_count=3)
