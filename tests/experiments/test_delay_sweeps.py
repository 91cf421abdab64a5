"""Figures that train over delays: who is flossed when, and their checks on made-up records."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from figures import holds, made, record
from lyaptorch.experiments.gradient_flossing.counts import Controls, Fig5, Fig7, LinearNetworks
from lyaptorch.experiments.gradient_flossing.delays import Fig3c, Fig4d, Fig14d, longest
from lyaptorch.experiments.gradient_flossing.directions import Fig12
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition, Setting
from lyaptorch.experiments.gradient_flossing.trained_exponents import Fig13, power_law
from lyaptorch.schedules import FitPhase, FlossPhase

SETTING = Setting(**SMOKE)


def who(phase):
    return phase.who[:, 0, 0].tolist()


def final(table, seeds=2, **variables):
    """A record of mean accuracies `(condition, delay)`."""
    return {"final_accuracy": np.repeat(np.asarray(table, dtype=float)[..., None], seeds, -1), **variables}


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


def test_the_checks_of_figure_3():
    for table, expected in (
        ([[0.9, 0.1, 0.1], [0.9, 0.8, 0.1]], [True, True]),
        ([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]], [True, False]),
        ([[0.1, 0.1, 0.1], [0.9, 0.8, 0.1]], [True, True]),
        ([[0.1, 0.1, 0.1], [0.1, 0.8, 0.8]], [False, False]),
    ):
        made = record(final(table), {"delay": [10, 20, 40]})
        assert holds(Fig3c().checks(made)) == expected


def test_the_checks_of_figures_4d_and_14():
    """The ordering is asked for at 40 and 60 each, not of their mean, and not at 20 or 70."""
    names = {"condition": ["none", "before", "before and during"], "delay": [20, 40, 60, 70]}
    for table, expected in (
        ([[0.5, 0.5, 0.5, 1], [0.5, 0.6, 0.6, 0], [0.5, 0.7, 0.7, 0]], [True] * 4),
        ([[0.5, 0.5, 0.5, 0], [1.0, 0.9, 0.5, 1], [1.0, 1.0, 0.6, 1]], [True, False, True, True]),
        ([[0.5, 0.5, 0.5, 0], [0.5, 0.9, 0.6, 0], [0.5, 0.7, 0.9, 0]], [True, True, False, True]),
        # both solve d = 40, so that only 60 tells them apart
        ([[0.5, 0.5, 0.5, 0], [0.5, 1.0, 0.6, 0], [0.5, 0.99, 0.9, 0]], [True, True, True]),
        ([[0.5, 0.5, 0.5, 0], [0.5, 1.0, 0.6, 0], [0.5, 0.97, 0.9, 0]], [True, True, False, True]),
        ([[1.0, 1.0, 1.0, 1]] * 3, [False] * 4),
    ):
        for figure in (Fig4d(), Fig14d()):
            assert holds(figure.checks(record(final(table), names))) == expected
    easy = {"condition": names["condition"], "delay": [10, 20]}
    table = [[0.5, 0.5], [0.6, 0.6], [0.7, 0.7]]
    assert holds(Fig4d().checks(record(final(table), easy))) == [True] * 4
    assert Fig14d().weights == "orthogonal"


def test_the_checks_of_figures_5_and_7():
    figure = Fig5(delays=(20, 40), ks=(1, 16, 75))
    for table, expected in (
        ([[0.6, 0.5], [0.95, 0.7], [1.0, 1.0]], [True, True, True]),
        ([[0.6, 0.5], [0.8, 0.95], [1.0, 1.0]], [False, True, True]),
        ([[0.6, 0.7], [0.8, 0.7], [1.0, 0.75]], [False, False]),
        ([[0.6, 0.5], [0.8, 0.5], [1.0, 0.5]], [True, False]),
    ):
        assert holds(figure.checks(record(final(table), {"delay": [20, 40]}))) == expected
    assert [c.k for c in figure.conditions()] == [1, 16, 75]
    both = Fig7(delays=(20, 40, 50), ks=(1, 75))
    assert [c.episodes for c in both.conditions()] == [(500,), (500,), (), ()]
    for last, expected in (([0.8, 0.97], [True, True]), ([0.99, 0.99], [False, False])):
        table = [[0.6, 0.5, 0.5], [1.0, 1.0, 1.0], [0.6, 0.5, 0.5], [1.0, *last]]
        assert holds(both.checks(record(final(table), {"delay": [20, 40, 50]})))[-2:] == expected


def test_the_checks_of_figure_12():
    figure = Fig12(delays=(4,), seeds=1, epochs=100, episodes=(20, 30), period=20)
    flat = np.full(100, 0.5)
    early = np.where(np.arange(100) < 40, 0.5, 1.0)
    dips = np.where(np.arange(100) % 20 < 5, 0.5, 0.9)
    for throughout, expected in (
        (dips, [True, True, True]),
        (early, [True, False, False]),
        (flat, [False, False, True]),
    ):
        accuracy = np.stack([flat, early, throughout])[:, None, None]
        found = figure.checks(record({"accuracy": accuracy}))
        assert holds(found) == expected
    # at 40, 60 and 80; those up to 30 are early
    assert figure.checks(record({"accuracy": np.stack([flat, early, dips])[:, None, None]}))[0].measured == 3


def test_a_power_law_is_recovered_with_its_error():
    delays = np.array([10, 20, 40, 80])
    power, error = power_law(delays, -3.0 * delays**-0.7)
    assert power == pytest.approx(0.7)
    assert error < 1e-6
    noisy = -3.0 * delays**-0.7 * np.exp([0.1, -0.1, 0.1, -0.1])
    assert 0.01 < power_law(delays, noisy)[1] < 0.2
    assert all(map(math.isnan, power_law(delays[:2], noisy[:2])))
    assert all(map(math.isnan, power_law(np.full(4, 10), noisy)))


def test_the_checks_of_figure_13():
    delays = np.array([10, 20, 40])
    accuracy = np.array([[[1.0, 0.5], [1.0, 0.5], [1.0, 0.5]]])
    law = -(delays**-0.5)

    def found(unsolved, solved=law):
        exponents = np.stack([solved, unsolved], -1)[None, ..., None] * np.array([1.0, 2.0])
        made = {"final_accuracy": accuracy, "exponents": exponents}
        return holds(Fig13(indices=(1, 2)).checks(record(made, {"delay": delays})))

    assert found(law - 0.1) == [True] * 7
    assert found(law + 0.1 * (delays != 20)) == [True] + [False, True, False] * 2
    assert found(law - 0.1, np.array([-0.1, -0.5, -0.1]))[0] is False


def test_the_checks_of_appendix_e():
    names = {"condition": ["none", "before"]}
    for copy, xor, expected in (
        ([[0.5, 0.1], [0.5, 0.9]], [[0.0, 0.0], [-3.0, 0.05]], [True, True, True]),
        ([[0.5, 0.1], [0.5, 0.1]], [[0.2, 0.0], [0.0, 0.2]], [False, False, False]),
    ):
        made = record(final([copy, xor]), names)
        assert holds(LinearNetworks().checks(made)) == expected


def test_the_checks_of_the_controls():
    conditions = Controls().conditions()
    assert {c.penalty for c in conditions} == {
        "exponents",
        "spectral_radius",
        "one_step_jacobians",
        "mean_field_slope",
    }
    names = {"condition": [c.name for c in conditions], "delay": [40]}
    for means, expected in (
        ([1.0] + [0.5] * 6 + [0.9], [True] * 7),
        ([0.8] + [0.7] * 6 + [0.5], [False] * 7),
    ):
        assert holds(Controls().checks(record(final(np.array(means)[:, None]), names))) == expected
