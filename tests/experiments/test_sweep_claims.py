"""Checks of the figures over delays, sizes and single networks hold, fail, and are left undecided."""

import math
from itertools import pairwise

import numpy as np
import pytest

from figures import outcomes, record, told
from lyaptorch._brief import FAILS
from lyaptorch.experiments.gradient_flossing.comparisons import exceeds, further, rise, sooner
from lyaptorch.experiments.gradient_flossing.conditioning import Fig2a, Fig2b, Fig2c
from lyaptorch.experiments.gradient_flossing.controls import Controls, fallen
from lyaptorch.experiments.gradient_flossing.cost import Table1
from lyaptorch.experiments.gradient_flossing.counts import Fig5, Fig7, LinearNetworks
from lyaptorch.experiments.gradient_flossing.delays import Fig3c, Fig4c, Fig4d, Fig14d
from lyaptorch.experiments.gradient_flossing.exponents import Fig1b, Fig1c
from lyaptorch.experiments.gradient_flossing.frames import MODES, Frames
from lyaptorch.experiments.gradient_flossing.noise_driven import Fig6
from lyaptorch.experiments.gradient_flossing.schematic import Fig1a
from lyaptorch.experiments.gradient_flossing.sizes import AppendixF
from lyaptorch.experiments.gradient_flossing.spectra import Fig1d, dimensions_left, selected
from lyaptorch.experiments.gradient_flossing.trained_exponents import Fig13, stratified

FLOSS = 20
NAMES = ["none", "before", "before and during"]


def learner(epoch, length=200, level=1.0):
    """Accuracy of a network that learns at an epoch, or never."""
    curve = np.full(length, 0.5)
    if epoch is not None:
        curve[epoch:] = level
    return curve


def sweep(table, delays, learns=((50,), (20,), (20,)), names=NAMES, scatter=0.0):
    """Mean accuracies `(condition, delay)` of three seeds, and when a network of each condition learns."""
    means = np.asarray(table, dtype=float)
    curves = np.stack([np.stack([learner(e) for e in epochs]) for epochs in learns])[:, None]
    made = {"final_accuracy": np.repeat(means[..., None], 3, -1) + np.asarray(scatter), "accuracy": curves}
    return record(made, {"delay": delays, "condition": names}, {"floss_epochs": FLOSS})


def test_the_rate_of_gradients_is_lambda_1():
    figure = Fig1a(networks=3, horizon=30, gains=(0.5, 1.0, 4.0))
    back, wiggle = np.arange(31), np.array([0.01, -0.01, 0.0])[:, None]
    rates = np.array([-1.0, -0.1, 0.4])

    def made(rates, measured):
        exponents = np.asarray(measured)[:, None] * np.ones(3)
        logs = (np.asarray(rates)[:, None, None] + wiggle) * back
        return figure.claims(record({"log_norm": logs, "lambda_1": exponents}, {"gain": figure.gains}))

    assert told(made(rates, rates)) == "+++++"
    assert told(made(rates + 0.2, rates)) == "---++"
    assert told(made(-rates, -rates)) == "+++??"
    assert told(made([0.1, 0.0, -0.1], [-1.0, -0.1, 0.4]), "vanishes", "explodes") == "--"


def spectra(before, after):
    """Two groups of three networks."""
    return {"before": np.asarray(before, dtype=float), "after": np.asarray(after, dtype=float)}


def test_the_checks_of_figure_1():
    """A network that is at its target before flossing says nothing of flossing."""
    rows = np.full((2, 3, 4), -9.0)

    def reached(before, first, second):
        old, new = rows.copy(), rows.copy()
        old[..., 0], new[0, :, 0], new[1, :, 0] = before, first, second
        return told(Fig1b().claims(record({"target": [-1.0, 0.25], **spectra(old, new)})))

    assert reached(-3.0, [-1.0, -1.04, 5.0], -0.01) == "++"
    assert reached(-3.0, -0.9, 0.01) == "--"
    assert reached(-1.0, -1.0, 0.01) == "?-"
    # what flossing has not moved is not kept from becoming positive by it
    assert reached(-3.0, -1.0, -0.5) == "+?"
    for factor, expected in ((0.09, "++"), (0.11, "--")):
        # the third exponent is nobody's business
        old, new = (np.array([z, z, 7.0, 7.0]) * np.ones((2, 3, 1)) for z in (1.0, factor))
        assert told(Fig1c().claims(record({"k": [1, 2], **spectra(old, new)}))) == expected

    def flossed(before, after, vary=1.0):
        old, new = np.full((2, 3, 4), before), np.full((2, 3, 4), -3.0)
        new[0, :, :1], new[1, :, :2] = after, after
        new[..., 2:] += vary * np.array([-1.0, 0.0, 1.0])[:, None]
        new[..., :2] += 0.01 * np.array([-1.0, 0.0, 1.0])[:, None]
        found = Fig1d().claims(record({"k": [1, 2], **spectra(old, new)}))
        return told(found, *(f"k {k} {what}" for k in (1, 2) for what in ("flossed", "number", "vary")))

    assert flossed(-1.0, 0.05) == "++++++"
    assert flossed(-1.0, 0.15) == "-++-++"
    assert flossed(-0.05, 0.05) == "??+??+"
    assert flossed(-1.0, 0.05, vary=0.01) == "++-++-"


def test_no_other_exponents_come_to_0():
    before, after = np.full((3, 8), -3.0), np.full((3, 8), -3.0)
    for many, expected in ((2, "++"), (4, "++"), (5, "+-")):
        after[:, :many] = 0.05
        assert told(selected(2, before, after, "here")) == expected


def test_few_exponents_leave_few_dimensions():
    """Over 60 steps ln(1e7) / 60 = 0.27 nats per step are within reach of the first."""
    before, after = np.tile([-1.0, -1.1, -1.2, -2.0], (1, 2, 1)), np.tile([0.0, -1.1, -1.2, -2.0], (1, 2, 1))
    (found,) = dimensions_left(record({"k": [1], "before": before, "after": after}))
    assert (found.measured, found.kind, found.holds) == (1.0 - 3.0, "question", False)


def test_the_checks_of_figure_2a():
    time, gap = np.array([10, 20, 30, 40]), np.array([[4.0, 4.4, 4.2], [0.4, 0.6, 0.5]])

    def found(faster=0.0, off=0.0, few=100.0, lower=1.0, late=0.0):
        wiggle = np.array([0.02, -0.02, 0.0])
        log_kappa = (gap + wiggle + faster)[..., None] * time
        log_kappa[1] *= lower
        log_kappa[1, :, -1] += late
        exponents = np.stack([0 * gap, -gap * np.array([[1.0], [lower]])], -1)
        made = {
            "log_kappa": log_kappa,
            "log_kappa_enough_bits": log_kappa[:, 0] + off,
            "log_kappa_paper_bits": np.full((2, 4), few),
            "exponents": exponents,
            "bits": [650, 180],
        }
        return told(Fig2a(networks=3).claims(record(made, {"time": time, "group": ["random", "flossed"]})))

    assert found() == "++++++++"
    assert found(faster=0.1) == "-++-++++"
    assert found(off=0.01) == "+-++-+++"
    assert found(few=256 * math.log(2) + 16) == "++-++-++"
    assert found(lower=6.0)[-2] == "-"
    assert found(late=60.0)[-1] == "-"
    assert found(lower=20.0)[-1] == "?"


def test_usable_dimensions_are_measured_and_foretold():
    figure = Fig2b(hidden_size=4)
    along = {"kappa": [10.0, 1e4], "group": ["random", "flossed"]}

    def found(measured, said, *keys):
        return told(figure.claims(record({"usable": said, "usable_measured": measured}, along)), *keys)

    usable = np.array([[[1, 2], [1, 4]], [[2, 4], [2, 4]]])
    keys = ("kappa 1e+01", "kappa 1e+04")
    foretold = [f"{group} foretold {kappa}" for group in along["group"] for kappa in ("1e+01", "1e+04")]
    assert found(usable, usable, *keys) == "++"
    assert found(usable[::-1], usable[::-1], *keys) == "-?"
    assert found(usable + 3, usable + 3, *keys) == "??"
    # where all four arrive nothing is foretold
    assert found(usable, usable, *foretold) == "+++?"
    assert found(usable, usable - 3, *foretold) == "----"
    given = record({"usable": usable, "usable_measured": usable}, along)
    kinds = {c.key: c.kind for c in figure.claims(given)}
    assert [kinds[key] for key in foretold] == ["question", "claim"] * 2


def test_the_checks_of_figure_2c():
    gap = np.array([[2.0, 2.2, 2.4], [4.0, 4.2, 4.4]])
    for rate, expected in ((gap, "++++"), (gap[:, ::-1], "-+-+"), (1.2 * gap, "+-+-")):
        assert told(Fig2c().claims(record({"gap": gap, "rate": rate}, {"size": [8, 16]}))) == expected


def test_the_checks_of_figure_3():
    """Of delays that twins never solve there is no ratio; the longest that was tried may be no longest."""
    for table, expected in (
        ([[0.9, 0.1, 0.1], [0.9, 0.8, 0.1]], "++"),
        ([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1]], "--"),
        ([[0.1, 0.1, 0.1], [0.9, 0.8, 0.1]], "+?"),
        ([[0.1, 0.1, 0.1], [0.1, 0.8, 0.8]], "??"),
        ([[0.9, 0.1, 0.1], [0.1, 0.8, 0.8]], "--"),
        ([[0.9, 0.9, 0.1], [0.9, 0.8, 0.8]], "+?"),
        ([[0.9, 0.9, 0.9], [0.9, 0.8, 0.8]], "??"),
        ([[0.9, 0.9, 0.9], [0.9, 0.8, 0.1]], "--"),
    ):
        made = sweep(table, [10, 30, 40], ((50,), (20,)), NAMES[:2])
        assert told(Fig3c().claims(made), "longest delay", "longest delay, ratio") == expected


def test_the_ordering_of_figures_4_and_14():
    """It is asked for at 40 and 60 each, not of their mean, and not at 20."""
    keys = [f"{more} over {less}, d {d}" for less, more in pairwise(NAMES) for d in (40, 60)]
    delays, early = [20, 40, 60, 70], ((50,), (20,), (20,))
    for table, learns, expected in (
        ([[0.5, 0.5, 0.5, 1], [0.5, 0.7, 0.7, 0], [0.5, 0.8, 0.8, 0]], early, "++++"),
        ([[0.5, 0.5, 0.5, 0], [1.0, 0.9, 0.5, 1], [1.0, 1.0, 0.7, 1]], early, "+?++"),
        ([[0.5, 0.5, 0.5, 0], [0.5, 0.9, 0.7, 0], [0.5, 0.7, 0.9, 0]], early, "++-+"),
        ([[0.5, 0.9, 0.5, 0], [0.5, 0.7, 0.5, 0], [0.5, 0.7, 0.5, 0]], early, "-?-?"),
        # both solve d = 40, so that only 60 tells them apart
        ([[0.5, 0.5, 0.5, 0], [0.5, 1.0, 0.7, 0], [0.5, 0.99, 0.9, 0]], early, "++?+"),
        # a twin that never learns anything is none
        ([[0.5, 0.5, 0.5, 0], [0.5, 0.9, 0.7, 0], [0.5, 1.0, 0.9, 0]], ((None,), (20,), (20,)), "??++"),
        ([[1.0, 1.0, 1.0, 1]] * 3, early, "????"),
    ):
        for figure in (Fig4d(), Fig14d()):
            assert told(figure.claims(sweep(table, delays, learns)), *keys) == expected
    assert Fig14d().weights == "orthogonal"


def test_the_longest_delay_of_each_network_decides_about_the_horizon():
    delays = np.array([10, 20, 30])

    def found(upper, lower):
        (check,) = further("b", "a", delays, np.array(upper).T, np.array(lower).T, "here")
        return check.measured, told([check])

    far, near = [1.0, 1.0, 0.5], [1.0, 0.5, 0.5]
    # one delay that is solved beyond another that is not is no reach
    assert found([far, far, far], [near, near, [1.0, 0.5, 1.0]]) == (10.0, "+")
    assert found([near] * 3, [far] * 3) == (-10.0, "-")
    assert found([far, near, near], [near] * 3)[1] == "?"
    assert found([far, far], [near, near])[1] == "?"
    assert found([far, far, [np.nan] * 3], [near] * 3)[1] == "?"


def test_figure_4c_against_an_independent_run_and_the_paper():
    table = np.array([[0.5, 0.5, 0.5], [0.9, 0.7, 0.5], [1.0, 0.95, 0.9]])
    keys = ("none, d 40", "before, d 40", "before and during, d 40", "before and during, d 70")
    assert told(Fig4c().claims(sweep(table, [40, 60, 70])), *keys) == "++++"
    table[:, 0] -= 0.2
    table[2, 2] = 0.79
    assert told(Fig4c().claims(sweep(table, [40, 60, 70])), *keys) == "----"
    fails = ("none fails", "before fails")
    assert told(Fig4c().claims(sweep(table, [40, 60, 70])), *fails) == "++"
    table[1, 2] = 0.9
    assert told(Fig4c().claims(sweep(table, [40, 60, 70])), *fails) == "+-"
    table[1:, 2] = 0.5
    assert told(Fig4c().claims(sweep(table, [40, 60, 70])), *fails) == "??"
    # one of three networks that stays at chance leaves the mean unknown
    made = sweep([[0.5], [0.5], [0.9]], [70], scatter=[-0.4, 0.1, 0.1])
    assert told(Fig4c().claims(made), keys[-1]) == "?"


def test_where_both_learn_one_is_sooner():
    key = "before sooner than none"
    for learns, expected in (
        (((50, 55, 50), (20, 20, 20)), "+"),
        (((20, 20, 20), (50, 55, 50)), "-"),
        (((None, None, None), (50, 50, 50)), "?"),
        # two pairs, and pairs that disagree
        (((50, 50, None), (20, 20, 20)), "?"),
        (((50, 25, 50), (20, 50, 50)), "?"),
    ):
        made = sweep([[1.0], [1.0]], [10], learns, NAMES[:2])
        assert told(sooner("before", "none", made, "here"), key) == expected
    # with the flossing that was paid before it is not
    made = sweep([[1.0], [1.0]], [10], ((50,) * 3, (40,) * 3), NAMES[:2])
    assert told(sooner("before", "none", made, "here"), key, "before sooner, all") == "+-"


def test_more_exponents_for_longer_delays():
    figure, keys = Fig5(delays=(20, 40), ks=(1, 16, 75)), ("least k at d 40", "least k grows")
    more = [f"before and during, {key}" for key in (*keys, "d 40, k 1", "d 40, gain")]
    for table, expected in (
        ([[0.6, 0.5], [0.95, 0.7], [1.0, 1.0]], "++++"),
        ([[0.6, 0.5], [0.8, 0.95], [1.0, 1.0]], "--++"),
        ([[0.6, 0.5], [1.0, 1.0], [1.0, 1.0]], "+-++"),
        ([[0.6, 0.7], [0.8, 0.7], [1.0, 0.75]], "??--"),
        ([[0.6, 0.5], [0.8, 0.5], [1.0, 0.5]], "????"),
    ):
        assert told(figure.claims(sweep(table, [20, 40], ((20,),) * 3)), *more) == expected
    assert [c.k for c in figure.conditions()] == [1, 16, 75]


def test_flossing_before_training_does_not_replace_that_during_it():
    both, delays = Fig7(delays=(20, 40, 50), ks=(1, 75)), [20, 40, 50]
    keys = [f"k = 75, before and during over before, d {d}" for d in (40, 50)]
    horizon = "k = 75, before and during further than before"
    assert [c.episodes for c in both.conditions()] == [(500,), (500,), (), ()]
    for during, before, expected in (
        ([1.0, 1.0], [0.8, 0.7], "+++"),
        ([1.0, 1.0], [0.99, 0.99], "??-"),
        ([0.8, 0.8], [0.9, 0.9], "--?"),
        ([0.5, 0.5], [0.5, 0.5], "???"),
    ):
        table = [[0.6, 0.5, 0.5], [1.0, *during], [0.6, 0.5, 0.5], [1.0, *before]]
        made = sweep(table, delays, ((20,),) * 4, ["a", "b", "c", "d"])
        assert told(both.claims(made), *keys, "before, hardest") == expected
        reach = [min(len([x for x in z if x >= 0.9]), 2) for z in (during, before)]
        further = "?" if reach[0] == reach[1] else "+-"[reach[0] < reach[1]]
        assert told(both.claims(made), horizon) == further


def test_the_checks_of_figure_6():
    """The median network decides; one that falls silent, and one that had nowhere to fall, do not."""
    units = {"unit": ["LSTM", "ReLU"]}

    def found(factor, last, start=1e-3):
        start = np.array([-1.0, -1.0, -1.0, start, -np.inf])
        during = np.repeat(start[None, :, None], 30, -1).repeat(2, 0)
        during[:, :4, 20:] = factor
        during[1, 3, :20] = start[3]
        before, after = during[:, :, 0], during[:, :, -1].copy()
        before[0, 3], after[1, 3] = -1e-3, last
        made = record({"lambda_1": during, "before": before, "after": after}, units)
        return told(Fig6().claims(made))

    assert found(0.09, 0.04) == "+++++"
    assert found(0.11, 0.06) == "-----"
    assert found(0.09, 0.04, start=-1e-3) == "++++?"


def test_the_checks_of_figure_13():
    delays, figure = np.array([10, 20, 40]), Fig13(indices=(1, 2), seeds=6)
    accuracy, law = np.array([[[1.0] * 3 + [0.5] * 3] * 3]), -(np.array([10, 20, 40]) ** -0.5)
    keys, wiggle = [f"lambda_{i} above" for i in (1, 2)], 1e-3 * np.array([-1.0, 0.0, 1.0] * 2)

    def found(unsolved, *keys, solved=law, accuracy=accuracy, name="before"):
        exponents = np.stack([solved] * 3 + [unsolved] * 3, -1)[None] + wiggle
        made = {"final_accuracy": accuracy, "exponents": exponents[..., None] * np.array([1.0, 2.0])}
        return told(figure.claims(record(made, {"delay": delays, "condition": [name]})), *keys)

    assert found(law - 0.1, *keys) == "++"
    assert found(law + 0.1, *keys) == "--"
    # above at one delay, below at another
    assert found(law + 0.1 * np.array([1, 0, -1]), *keys) == "??"
    assert found(law - 0.1, *keys, accuracy=np.ones((1, 3, 6))) == "??"
    # a single one of a kind decides nothing, nor does one that is neither at chance nor solves it
    assert found(law - 0.1, *keys, accuracy=np.array([[[1.0] * 5 + [0.5]] * 3])) == "??"
    assert found(law - 0.1, *keys, accuracy=np.array([[[1.0] * 3 + [0.8] * 3] * 3])) == "??"
    assert found(law - 0.1, "power law", "power law, exponential") == "++"
    assert found(law - 0.1, "power law, exponential", solved=-np.exp(-delays / 10)) == "-"
    assert found(law - 0.1, "power law", solved=np.array([-0.1, -0.5, -0.1])) == "-"
    assert found(law - 0.1, "power law", accuracy=0 * accuracy) == "?"
    # the paper's law is of networks that were flossed
    assert found(law - 0.1, "power law", name="none") == "?"
    for gap, expected in ((-0.1, "+"), (0.1, "?"), (0.0, "?")):
        assert found(law + gap, "lambda_1, alike") == expected
    # solved under one condition, not under another: that is no comparison of equals
    apart = np.array([[[1.0] * 6], [[0.5] * 6]])
    made = {"final_accuracy": apart, "exponents": np.zeros((2, 1, 6, 2))}
    given = record(made, {"delay": [10], "condition": NAMES[:2]})
    assert told(figure.claims(given), "lambda_1, alike") == "?"


def test_permutations_stay_within_rows():
    values = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    # by chance the largest of three is one of three, and of two rows both are in one of nine
    solved = np.array([[False, False, True]] * 2)
    assert stratified(values, solved, ~solved, 0) == pytest.approx(1 / 9, abs=0.02)
    # a row that is far above the other is no reason
    solved = np.array([[False, True, False], [False, True, False]])
    assert stratified(values, solved, ~solved, 0) == pytest.approx(6 / 9, abs=0.02)
    assert math.isnan(stratified(values, solved, np.zeros_like(solved), 0))


def test_the_checks_of_appendix_e():
    for copy, xor, expected in (
        ([[0.5, 0.1], [0.5, 0.9]], [[0.0, 0.0], [-3.0, 0.05]], "+++"),
        ([[0.5, 0.2], [0.5, 0.2]], [[0.2, 0.0], [0.0, 0.2]], "---"),
        ([[-1.0, 0.0], [0.05, 0.0]], [[0.0, 0.0], [0.0, 0.0]], "?++"),
        # one that runs away explains nothing, and not less
        ([[-1e3, 0.5], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]], "-++"),
    ):
        final = np.repeat(np.array([copy, xor])[..., None], 3, -1)
        made = record({"final_accuracy": final}, {"condition": NAMES[:2]})
        assert told(LinearNetworks().claims(made)) == expected


def test_the_checks_of_the_controls():
    """Where flossing gains nothing, or nobody knows whether it does, a control does not do less."""
    conditions = Controls().conditions()
    penalties = {"exponents", "spectral_radius", "one_step_jacobians", "mean_field_slope"}
    assert {c.penalty for c in conditions} == penalties
    names = {"condition": [c.name for c in conditions], "delay": [40]}
    for means, expected in (
        ([0.8] + [0.5] * 6 + [0.9], "+" * 6),
        ([0.8, 0.5] + [0.7] * 5 + [0.5], "+" + "-" * 5),
        ([0.5] + [0.5] * 6 + [0.5], "-" + "?" * 5),
        ([0.4] + [0.5] * 6 + [0.5], "-" + "?" * 5),
    ):
        final = np.repeat(np.array(means)[:, None, None], 4, -1)
        assert told(Controls().claims(record({"final_accuracy": final}, names))) == expected
    # one network of four that learns
    final[0, 0] = [1.0, 0.5, 0.5, 0.5]
    assert told(Controls().claims(record({"final_accuracy": final}, names))) == "?" * 6


def test_whether_a_penalty_fell_is_told():
    """Beyond chance over networks, of conditions that are flossed before training."""
    names = {"condition": [c.name for c in Controls().conditions()], "delay": [40]}
    penalty = np.ones((8, 1, 4, 2))
    penalty[0, ..., 1], penalty[2, ..., 1] = 0.1, 1.5
    penalty[3, 0, :, 1] = [0.5, 1.5, 0.7, 1.3]
    made = record({"final_accuracy": np.full((8, 1, 4), 0.5), "penalty": penalty}, names)
    # before, spectral radius, one-step Jacobians, slope
    assert told(list(Controls().claims(made))[6:]) == "+-??"


def test_a_penalty_is_the_mean_of_the_first_and_the_last_tenth_of_its_steps():
    losses = np.arange(40.0).reshape(2, 20)
    np.testing.assert_allclose(fallen(losses), [[0.5, 18.5], [20.5, 38.5]])
    np.testing.assert_allclose(fallen(losses[:, :3]), [[0.0, 2.0], [20.0, 22.0]])


def test_the_smallest_network_that_solves_a_delay():
    figure = AppendixF(sizes=(20, 40), seeds=2, epochs=200)

    def found(learns, flops=(1.0, 4.0)):
        curves = np.array([[[learner(e)] * 2 for e in size] for size in learns])[:, :, None]
        share = np.array([0.0, 0.1])[None, :, None, None] * np.ones((2, 2, 1, 2))
        made = {"accuracy": curves, "final_accuracy": curves[..., -1], "floss_share": share}
        config = {"epochs": 200}
        return told(figure.claims(record({**made, "epoch_flops": flops}, None, config)))

    assert found([[None, 50], [100, 20]]) == "+++"
    assert found([[20, None], [20, 150]]) == "---"
    assert found([[None, 50], [None, 50]]) == "??+"
    assert found([[None, None], [None, None]]) == "???"


def test_the_checks_of_table_1():
    names = {"part": ["RNN", "QR", "flossing", "again"], "doubled": ["n", "b", "interval", "interval"]}

    def found(flossing=0.5, steps=(1.0, 3.0), **more):
        made = {"power": [1.8, 1.5, -0.2, 0.1], "theory": [2.0, 1.0, 0.0, 0.0], "step_seconds": steps}
        made |= {"flossing_epoch": flossing, "task_epoch": 1.0}
        return Table1(**more).claims(record(made, names))

    assert told(found()) == "+-+-++"
    assert told(found(flossing=1.0, steps=(3.0, 1.0)))[-2:] == "--"
    assert outcomes(found(task_epochs=1000))["share"] == FAILS
    assert [c.measured for c in found()][-2:] == pytest.approx([250 / 10_250, 0.75])


def test_the_checks_of_the_frames():
    """The scatter over frames is compared with the error of a measurement."""
    exponents = np.zeros((3, 1, 4, 2))
    exponents[1, 0, :, 0] = [0.3, -0.3, 0.3, -0.3]
    final = np.array([[[1.0, 1.0, 0.5, 0.5]], [[1.0] * 4], [[0.5, 0.5, 0.5, 1.0]]])
    made = {"exponents": exponents, "final_accuracy": final}
    for error, expected in ((0.1, "++-++-"), (0.5, "+++++-"), (np.inf, "?+?+?-")):
        given = record({**made, "error": np.full((3, 1, 4, 2), error)}, {"mode": list(MODES)})
        assert told(Frames().claims(given)) == expected


def test_conditions_are_compared_where_there_is_something_to_compare():
    delays = np.array([10, 20, 30])
    high, low = (np.repeat(np.array(z)[:, None], 4, 1) for z in ([1.0, 0.7, 0.5], [0.99, 0.8, 0.5]))
    assert told(exceeds("b", "a", delays, high, low)) == "?-?"
    assert told(exceeds("b", "a", delays[:1], low[1:2], high[1:2])) == "+"
    assert told(exceeds("b", "a", delays[:1], low[1:2], high[1:2], False)) == "?"
    # a single network that learns decides nothing
    one = np.array([[1.0, 0.5, 0.5, 0.5]])
    assert told(exceeds("b", "a", delays[:1], one, high[2:])) == "?"


def test_a_rise_begins_after_what_follows_on_an_episode():
    at = np.arange(0, 400, 10)
    steady = 10.0 ** (at / 100)[None]
    # three measurements each: 300..320 before, 380..400 after, or 250..270 where an episode is at 200
    assert rise(steady, at, np.array([390.0]), (), 100) == pytest.approx(0.8)
    assert rise(steady, at, np.array([390.0]), (200,), 1000) == pytest.approx(1.2)
    assert np.isnan(rise(steady, at, np.array([390.0]), (330,), 1000))
    # of every second measurement, as in thinned parts, two each: 300, 320 and 360, 380; of fewer nothing
    assert rise(steady[:, ::2], at[::2], np.array([390.0]), (), 100) == pytest.approx(0.6)
    assert np.isnan(rise(steady[:, ::2], at[::2], np.array([390.0]), (), 60))
    assert np.isnan(rise(steady, at, np.array([np.nan]), (), 1000))
