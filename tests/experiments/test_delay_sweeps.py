"""Figures that train over delays: who is flossed when, and their checks on made-up records."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from figures import made
from lyaptorch.experiments.gradient_flossing.controls import Controls
from lyaptorch.experiments.gradient_flossing.delays import longest
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition, Setting
from lyaptorch.experiments.gradient_flossing.trained_exponents import power_law
from lyaptorch.schedules import FitPhase, FlossPhase

SETTING = Setting(**SMOKE)


def who(phase):
    return phase.who[:, 0, 0].tolist()


def test_networks_that_are_treated_alike_share_their_phases():
    conditions = (
        Condition("none"),
        Condition("before", before=True),
        Condition("during", before=True, episodes=(5, 9)),
        Condition("radius", before=True, penalty="spectral_radius"),
        Condition("few", before=True, episodes=(5, 9), k=3),
        Condition("joint", flossing_weight=0.1),
    )
    first, second, fit, joint = SETTING.schedule(conditions)
    assert [type(phase) for phase in (first, second, fit, joint)] == [FlossPhase] * 2 + [FitPhase] * 2
    assert (first.penalty, who(first)) == ("exponents", [False, True, True, False, True, False])
    assert (second.penalty, who(second)) == ("spectral_radius", [False, False, False, True, False, False])
    assert first.k[:, 1, 1].tolist() == [12, 12, 12, 12, 3, 12]
    assert (fit.flossing_weight, who(fit)) == (0.0, [True] * 5 + [False])
    assert (joint.flossing_weight, who(joint)) == (0.1, [False] * 5 + [True])
    for phase in (fit, joint):
        (trigger,) = phase.triggers
        assert trigger.when.epochs == (5, 9)
        assert who(trigger.phase) == [False, False, True, False, True, False]
        assert phase.flossing.k is first.k
    (plain,) = SETTING.schedule((Condition("none"),))
    assert plain.triggers == ()
    assert SETTING.schedule(conditions[:2])[0].k == 12


def test_a_setting_makes_the_networks_it_names():
    conditions = (Condition("none"), Condition("hot", gain=1.2))
    model, task, ids = replace(SETTING, weights="orthogonal", activation="linear").networks(conditions)
    W = model.cell.weight_hh
    identity = torch.eye(16).expand(2, 2, 16, 16)
    torch.testing.assert_close(W[0] @ W[0].mT, identity)
    torch.testing.assert_close(W[1] @ W[1].mT, 1.44 * identity)
    assert (ids == torch.arange(2)).all()
    assert task.delay[0].tolist() == [[2, 2], [4, 4]]
    assert model.cell.activation.slope(torch.ones(2)).tolist() == [1, 1]
    spatial, _, _ = replace(SETTING, task="spatial_xor").networks(conditions)
    assert spatial.cell.input_size == 3
    copy = replace(SETTING, task="delayed_copy", analogue=True).networks(conditions)
    assert copy[0].loss_name == "mean_squared_error"


def test_a_condition_trains_to_the_same_numbers_beside_any_others():
    before = made("gradient-flossing", "fig4c")["accuracy"][1, 1]
    control = Controls(**{**SMOKE, "delays": (4,)}).record(False)["accuracy"][0, 0]
    np.testing.assert_allclose(control, before, atol=1e-6)


def test_delays_count_as_solved_up_to_the_first_that_is_not():
    scores = np.array([[0.9, 0.2, 0.9], [0.9, 0.9, 0.2], [0.1, 0.9, 0.9], [0.5, 0.5, 0.5]])
    assert longest(np.array([10, 20, 30]), scores, 0.5).tolist() == [10, 20, 0, 30]


def test_a_power_law_is_recovered_with_its_error():
    delays = np.array([10, 20, 40, 80])
    power, error, factor = power_law(delays, -3.0 * delays**-0.7)
    assert (power, factor) == pytest.approx((0.7, 3.0))
    assert error < 1e-6
    noisy = -3.0 * delays**-0.7 * np.exp([0.1, -0.1, 0.1, -0.1])
    assert 0.01 < power_law(delays, noisy)[1] < 0.2
    assert all(map(math.isnan, power_law(delays[:2], noisy[:2])))
    assert all(map(math.isnan, power_law(np.full(4, 10), noisy)))
