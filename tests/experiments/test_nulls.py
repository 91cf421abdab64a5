"""What leaves a check undecided: no situation, chance, and the error of a difference."""

import math

import numpy as np
import pytest

from figures import smoke
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.check import (
    at_least,
    at_most,
    beyond_chance,
    beyond_error,
    failing,
    typical,
    where,
)
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
    controls, accuracy = smoke("gradient-flossing", "controls"), np.full((8, 2, 2), 0.5)
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
    assert math.isnan(beyond_chance(0.89, by_chance))
    assert math.isnan(beyond_chance(-0.89, by_chance))
    assert (beyond_chance(0.91, by_chance), beyond_chance(-0.91, by_chance)) == (0.91, -0.91)
    assert beyond_chance(0.5, by_chance, share=0.6) == 0.5


def test_a_difference_counts_beyond_two_standard_errors():
    # of 0.4, 0.5 and 0.6 the standard error is 0.1 / sqrt(3) = 0.0577
    scatter = np.array([-0.1, 0.0, 0.1])
    assert beyond_error(scatter + 0.12) == pytest.approx(0.12)
    assert beyond_error(scatter - 0.12) == pytest.approx(-0.12)
    assert math.isnan(beyond_error(scatter + 0.11))
    # of one pair no error is known
    assert math.isnan(beyond_error(np.array([0.5])))


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
