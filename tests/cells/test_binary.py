"""Binary networks and adaptive surrogate flossing of them."""

import copy
import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import OneHotXOR


def test_the_step_and_the_surrogate_jacobian_are_those_of_the_paper(double):
    cell = lt.BinaryCell(2, 5, sharpness=1.7)
    x, h = torch.randn(1, 2), torch.randn(1, 5)
    after, D = cell.pushforward(x, h, torch.eye(5)[None])
    W, V, b = cell.weight_hh, cell.weight_ih, cell.bias
    torch.testing.assert_close(after[0], W @ h[0].sign() + V @ x[0] + b, rtol=0, atol=1e-14)
    torch.testing.assert_close(D[0], W / torch.cosh(1.7 * h[0]) ** 2, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("upper", "at_zero"), [(False, 0.0), (True, 1.0)])
def test_the_sign_of_zero(upper, at_zero):
    cell = lt.BinaryCell(1, 3, upper=upper, bias=False)
    h = torch.zeros(1, 3)
    torch.testing.assert_close(cell(torch.zeros(1, 1), h), at_zero * cell.weight_hh.sum(-1)[None])


def test_a_sharpness_for_all_or_for_each_member():
    assert lt.BinaryCell(1, 3, ensemble=(2, 4)).activation.sharpness.shape == (2, 4, 1, 1)
    g = nn.Parameter(torch.ones(2, 1, 1))
    assert lt.BinaryCell(1, 3, ensemble=(2,), sharpness=g).activation.sharpness is g
    with pytest.raises(ValueError, match=r"sharpness must be a finite number above 0"):
        lt.BinaryCell(1, 3, sharpness=0.0)


@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_one_network_trains_a_sharpness_of_its_own_and_is_copied(shape):
    g = nn.Parameter(torch.ones(shape))
    task = OneHotXOR(2)
    model = lt.Model(lt.BinaryCell(1, 8, sharpness=g), lt.Readout(8, 2), loss=task.loss)
    assert model.cell.activation.sharpness is g
    copied = copy.deepcopy(model)
    floss = lt.FlossPhase(2, k=2, steps=12, tangent_transient=2)
    lt.train(model, task, (floss,), batch=4, steps=12, show_progress=False)
    assert (g != 1).all()
    assert torch.equal(copied.cell.activation.sharpness, torch.ones(shape))


@pytest.mark.parametrize("backend", ["torch", None])
def test_a_sharp_float32_network_loses_exponents_but_nothing_is_nan(backend):
    cell = lt.BinaryCell(1, 80, sharpness=10.0)
    inputs = torch.randint(2, (200, 2, 1)).float()
    spectrum = lt.lyapunov_spectrum(cell, inputs, k=80, backend=backend)
    dead = spectrum.exponents == -math.inf
    assert dead.any()
    assert not dead[:, 0].any()
    assert not spectrum.exponents.isnan().any()
    loss = lt.flossing_loss(spectrum.exponents)
    gradients = torch.autograd.grad(loss, list(cell.parameters()))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


def trained(sharpness, schedule, **settings):
    task = OneHotXOR(2)
    cell = lt.BinaryCell(1, 8, sharpness=sharpness, ensemble=(2,))
    model = lt.Model(cell, lt.Readout(8, 2, ensemble=(2,)), loss=task.loss)
    record = lt.train(model, task, schedule, batch=4, steps=12, **settings)
    return model, record


def test_adaptive_flossing_raises_the_sharpness_of_those_that_fire():
    floss = lt.FlossPhase(2, k=2, steps=12, tangent_transient=2)
    threshold = torch.tensor([1e-9, 1e9])
    late = lt.schedules.Trigger(
        lt.schedules.When(lt.schedules.gradient_norm > threshold, after=2),
        floss,
        lt.schedules.Scale("cell.activation.sharpness", 1.1),
    )
    model, record = trained(1.0, (floss, lt.FitPhase(5, triggers=(late,), check_every=2)))
    # after 2 and 4 epochs
    expected = torch.tensor([1.1**2, 1.0])
    torch.testing.assert_close(model.cell.activation.sharpness.flatten(), expected)
    assert (torch.as_tensor(record["floss_flops"]) > 0).all()


def test_flossing_trains_the_sharpness_and_the_task_does_not():
    g = nn.Parameter(torch.ones(2, 1, 1))
    trained(g, (lt.FitPhase(3),))
    assert torch.equal(g, torch.ones(2, 1, 1))
    trained(g, (lt.FlossPhase(3, k=2, steps=12, tangent_transient=2),))
    assert (g != 1).all()


def test_the_adaptive_schedule_keeps_the_exponent_within_bounds_when_asked():
    """Above them flossing and a sharper surrogate, below them flossing alone, within them nothing."""
    floss = lt.FlossPhase(3, k=4)
    _, fit = adaptive(9, floss, episode_epochs=2, at=(5,), after=4, highest=-0.1, lowest=-0.3, factor=1.05)
    assert fit.triggers[0].when == lt.schedules.At(5)
    above, below = fit.triggers[1:]
    leading = torch.tensor([-0.4, -0.2, 0.0])
    held = [trigger.when.conditions[0].holds(leading).tolist() for trigger in (above, below)]
    assert held == [[False, False, True], [True, False, False]]
    assert {trigger.when.after for trigger in (above, below)} == {4}
    assert above.action == lt.schedules.Scale("cell.activation.sharpness", 1.05, optional=True)
    assert below.action is None
    assert {trigger.phase.epochs for trigger in fit.triggers} == {2}
    assert len(adaptive(9, floss, lowest=-1e9)[1].triggers) == 3


def test_the_bounds_of_the_adaptive_schedule_are_the_papers_by_default():
    """Lambda_1 > 0.2 or |dL/dW| > 1, after the last of five episodes; each time a tenth sharper."""
    floss = lt.FlossPhase(3, k=4)
    sharper = lt.schedules.Scale("cell.activation.sharpness", 1.1, optional=True)
    late = lt.schedules.When((lt.schedules.lambda1 > 0.2, lt.schedules.gradient_norm > 1.0), after=501)
    triggers = (
        lt.schedules.Trigger(lt.schedules.At(100, 200, 300, 400, 500), floss),
        lt.schedules.Trigger(late, floss, sharper),
    )
    assert adaptive(9, floss) == (floss, lt.FitPhase(9, triggers=triggers, check_every=10))


def test_the_adaptive_schedule_has_shorter_episodes_and_checks_when_asked():
    floss = lt.FlossPhase(500, k=4)
    plain, asked = adaptive(2000, floss), adaptive(2000, floss, episode_epochs=30, check_every=50)
    assert plain == lt.schedules.SCHEDULES["adaptive"](2000, floss)
    assert [phase.epochs for phase in asked] == [500, 2000]
    assert {trigger.phase.epochs for trigger in asked[1].triggers} == {30}
    assert {trigger.phase.k for trigger in asked[1].triggers} == {4}
    assert (asked[1].check_every, plain[1].check_every) == (50, 10)
    assert {trigger.phase.epochs for trigger in plain[1].triggers} == {500}
