"""What leaves a check undecided: no situation, chance, and the error of a difference."""

import math

import numpy as np
import pytest

from figures import smoke
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.check import (
    WithinChance,
    at_least,
    at_most,
    beyond_chance,
    beyond_error,
    failing,
    half_width,
    sure,
    sure_median,
    typical,
    where,
)
from lyaptorch.experiments.over_seeds import over_seeds
from lyaptorch.record import Record


@pytest.mark.parametrize(
    ("occurred", "measured", "outcome"),
    [(True, 2.0, HOLDS), (True, 0.5, FAILS), (False, 2.0, UNDECIDED), (np.False_, 0.5, UNDECIDED)],
)
def test_a_check_is_not_decided_where_its_situation_did_not_occur(occurred, measured, outcome):
    assert at_least("key", "so", 1.0, where(occurred, measured)).outcome == outcome


@pytest.mark.parametrize(
    ("beside", "measured", "outcome"),
    [(True, 0.5, HOLDS), (True, 0.9, FAILS), (False, 0.5, UNDECIDED), (False, 0.9, FAILS)],
)
def test_what_is_said_to_fail_and_does_not_decides_alone(beside, measured, outcome):
    assert at_most("key", "so", 0.6, failing(beside, measured, 0.6)).outcome == outcome
    assert at_least("key", "so", -0.6, failing(beside, -measured, -0.6, below=False)).outcome == outcome


def test_a_penalty_that_learns_what_flossing_does_not_is_told():
    controls, accuracy = smoke("gradient-flossing", "controls"), np.full((8, 2, 3), 0.5)
    accuracy[0, 0] = 0.7
    names = [condition.name for condition in controls.conditions()]
    accuracy[names.index("one-step Jacobians"), 0] = 1.0

    def outcomes():
        axes = {"condition": (("condition",), np.array(names)), "delay": (("delay",), np.array([50, 60]))}
        found = {"final_accuracy": (("condition", "delay", "seed"), accuracy)}
        return {check.key: check.outcome for check in controls.claims(Record("x", {}, found, axes))}

    told = outcomes()
    assert told["one-step Jacobians, d 50"] == FAILS
    assert told["flossing before, d 60"] == FAILS
    assert told["one-step Jacobians, d 60"] == told["spectral radius, d 60"] == UNDECIDED
    accuracy[0, 1] = 1.0
    told = outcomes()
    assert told["spectral radius, d 60"] == told["one-step Jacobians, d 60"] == HOLDS


def test_what_chance_often_makes_is_not_decided():
    by_chance = np.linspace(-1, 1, 201)
    # the middle nine tenths are -0.9 to 0.9
    for value, share, decides in ((0.89, 0.1, False), (0.91, 0.1, True), (0.5, 0.6, True)):
        for measured in (value, -value):
            found = beyond_chance(measured, by_chance, share)
            # what decides nothing is shown all the same
            assert found == measured
            assert isinstance(found, WithinChance) != decides
            assert (at_least("key", "it is", -2.0, found).outcome == UNDECIDED) != decides


def test_what_is_within_chance_stays_so_where_it_is_asked_for():
    assert isinstance(where(True, WithinChance(0.5)), WithinChance)
    assert math.isnan(where(False, WithinChance(0.5)))


def test_a_difference_counts_beyond_its_interval():
    # of -0.1, 0 and 0.1 the standard error is 0.1 / sqrt(3), and Student's t of two degrees of freedom 4.303
    scatter, half = np.array([-0.1, 0.0, 0.1]), 4.303 * 0.1 / math.sqrt(3)
    assert half_width(scatter) == pytest.approx(half, rel=1e-3)
    for shift, decides in ((1.01 * half, True), (-1.01 * half, True), (0.99 * half, False)):
        assert beyond_error(scatter + shift) == pytest.approx(shift)
        assert isinstance(beyond_error(scatter + shift), WithinChance) != decides
        assert isinstance(sure(scatter + shift + 0.8, 0.8), WithinChance) != decides
    # it may be 0, but not as much as is claimed
    assert not isinstance(beyond_error(scatter, least=1.01 * half), WithinChance)
    assert isinstance(beyond_error(scatter, least=0.99 * half), WithinChance)
    # two pairs decide nothing, and one has no interval; none has no mean
    for few in ([0.5, 0.51], [0.5]):
        for found in (
            beyond_error(np.array(few)),
            beyond_error(np.array(few), 0.9),
            sure(np.array(few), 0.0),
        ):
            assert isinstance(found, WithinChance)
            assert found == pytest.approx(np.mean(few))
    assert math.isnan(beyond_error(np.array([])))


@pytest.mark.parametrize(("networks", "outcome"), [(1, UNDECIDED), (2, UNDECIDED), (3, HOLDS)])
def test_few_networks_decide_nothing_and_count_in_the_mean_over_seeds(networks, outcome):
    figure = FIGURES["weak-coupling"]["images"](seeds=networks, permuted=(False,), compared=("rotation",))
    dims = ("order", "condition", "lr", "seed")
    power = np.ones((1, 100))
    power[0, 28] = 60.0
    names = ["rotation", "0.5 w0", "1.5 w0"]

    def checks(seed):
        scores = np.array([0.9, 0.6, 0.7])[None, :, None, None] + 0.001 * np.arange(seed, seed + networks)
        variables = {
            "best_accuracy": (dims, scores),
            "iterations_to_minimal": (dims, np.full_like(scores, 10.0)),
            "power": (("order", "bin"), power),
        }
        known = {"condition": (("condition",), names), "permuted": (("order",), [False])}
        return figure.checks(
            Record("x", {}, variables, {**known, "measured_at": (("measurement",), [0.0, 20.0])})
        )

    found = {check.key: check for check in checks(0)}
    assert found["rotation"].measured == pytest.approx(0.2)
    assert found["rotation"].outcome == outcome
    # what no network has a part in
    assert found["frequency"].outcome == HOLDS
    over = {one.checks[0].key: one for one in over_seeds([checks(seed) for seed in range(5)])}
    assert over["rotation"].outcome == HOLDS
    assert over["rotation"].undecided == (5 if networks < 3 else 0)


def test_a_median_counts_where_a_coin_would_not_make_it():
    assert not isinstance(sure_median(np.array([1.0] * 7 + [0.6]), 0.9), WithinChance)
    assert isinstance(sure_median(np.array([1.0] * 6 + [0.6] * 2), 0.9), WithinChance)
    below = sure_median(np.array([0.5] * 8), 0.9)
    assert below == 0.5
    assert not isinstance(below, WithinChance)


def test_what_is_typical_is_that_of_what_is_finite():
    assert typical(np.array([1.0, np.nan, 3.0, np.inf, 5.0])) == 3.0
    assert math.isnan(typical(np.array([np.nan])))
    assert math.isnan(typical(np.array([])))


@pytest.mark.parametrize("paper", ["surrogate-flossing", "weak-coupling"])
def test_every_seed_of_figures_that_are_compared_has_company_at_paper_scale(paper):
    """One number of one seed is an anecdote."""
    seeds = {name: figure().seeds for name, figure in FIGURES[paper].items() if hasattr(figure, "seeds")}
    assert seeds
    assert {name: count for name, count in seeds.items() if count < 5} == {}
