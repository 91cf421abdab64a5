"""The figures beyond the papers: their own pieces, and their checks on made-up records."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import lyaptorch as lt
from figures import made
from lyaptorch._brief import HOLDS, UNDECIDED
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.beyond.architectures import UnitCell
from lyaptorch.experiments.beyond.chaos import InputSuppressesChaos
from lyaptorch.experiments.beyond.cheaper import CheapFlossing, chosen_flossing
from lyaptorch.experiments.beyond.items import ItemsByDelay, exponents_needed
from lyaptorch.experiments.beyond.reach import HorizonPerCost, MemoryLimit
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase
from lyaptorch.testing import check_cell


def holds(checks):
    return {check.key: check.holds for check in checks}


def smoke(name):
    figure = FIGURES["beyond"][name]
    return figure(**figure.scales["smoke"])


def test_more_exponents_are_chosen_where_the_spectrum_is_flatter():
    flat, steep = torch.linspace(0, -2, 20)[None], torch.linspace(0, -8, 20)[None]
    noise = torch.full((1, 20), 0.1)
    phases = [chosen_flossing(spectrum, noise, 7) for spectrum in (flat, steep)]
    # -8 i / 19 > -3 for i = 0 .. 7
    assert [phase.k for phase in phases] == [20, 8]
    assert [phase.epochs for phase in phases] == [7, 7]
    assert [phase.tangent_transient for phase in phases] == [10, 2]
    assert [phase.interval for phase in phases] == [2, 1]
    # 4 steps would do, but 8 are the fewest
    assert [phase.steps for phase in phases] == [18, 10]


@pytest.mark.parametrize(("fluctuation", "counted"), [(0.22, 20), (0.39, 61), (5.0, 100)])
def test_noisier_exponents_are_counted_for_longer(fluctuation, counted):
    phase = chosen_flossing(torch.zeros(2, 4), torch.full((2, 4), fluctuation), 1)
    assert phase.steps - phase.tangent_transient == counted
    assert phase.k == 4


def unit_cell():
    return UnitCell(2, 5, torch.arange(3), 0).double()


@pytest.mark.usefixtures("double")
def test_the_cell_of_unit_parameters_is_a_leaky_rate_network():
    cell = unit_cell()
    check_cell(cell)
    with torch.no_grad():
        cell.log_gain.normal_(), cell.logit_rate.normal_()
    x, h = torch.randn(3, 4, 2), torch.randn(3, 4, 5)
    a, g = cell.logit_rate.sigmoid()[:, None], cell.log_gain.exp()[:, None]
    drive = (g * h.tanh()) @ cell.weight_hh.mT + x @ cell.weight_ih.mT + cell.bias[:, None]
    torch.testing.assert_close(cell.step(x, h), (1 - a) * h + a * drive, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double")
def test_flossing_moves_only_what_is_open_for_each_member():
    cell, before = unit_cell(), unit_cell()
    cell.gains, cell.rates, cell.weights = (torch.arange(3) == i for i in range(3))
    lt.floss(cell, torch.randn(20, 1, 2), k=3, epochs=2, lr=1e-2, steps=20, show_progress=False)
    for i, names in enumerate((("log_gain",), ("logit_rate",), ("weight_hh", "weight_ih", "bias"))):
        for name, parameter in cell.named_parameters():
            moved = (parameter != getattr(before, name)).flatten(1).any(1)
            assert bool(moved[i]) == (name in names), (i, name)


def test_unit_parameters_alone_move_exponents():
    record = replace(smoke("unit-parameters"), floss_epochs=30).record(False)
    squares = (record["exponents"][..., :6] ** 2).mean((1, 2))
    assert (squares[1:] < 0.99 * squares[0]).all()
    none, gains, times, both, weights = ((record["gain"][i] != 1).any() for i in range(5))
    assert (none, gains, times, both, weights) == (False, True, False, True, False)
    assert np.ptp(record["time_constant"][1]) == 0 < np.ptp(record["time_constant"][2])


def test_theory_of_common_noise_is_that_of_private_noise_where_there_is_none():
    figure = InputSuppressesChaos(
        gains=(0.7, 2.0), strengths=(0.0, 2.0), networks=1, hidden_size=2, steps=300
    )
    theory = figure.record(False)["theory"]
    np.testing.assert_allclose(theory[1, 1, 0], theory[0, 1, 0], atol=1e-6)
    # without chaos the variance dies out and lambda_1 is log g
    np.testing.assert_allclose(theory[:, 0, 0], math.log(0.7), atol=1e-6)
    # the mean of a concave function of the power of the input
    assert (np.abs(theory[1, :, 1] - theory[0, :, 1]) > 0.02).all()


def test_exponents_needed_are_the_fewest_with_nine_tenths_of_the_best_gain():
    accuracy = np.full((2, 1, 4, 3), 0.5)
    accuracy[0, 0, 1:], accuracy[1, 0, 2], accuracy[1, 0, 3] = 1.0, 0.94, 1.0
    k = {"k": (("k",), np.array([0, 1, 5, 10]))}
    record = Record("x", {}, {"final_accuracy": (("items", "delay", "k", "seed"), accuracy)}, k)
    assert exponents_needed(record).tolist() == [[1.0], [10.0]]
    found = holds(ItemsByDelay().checks(record))
    assert found == dict.fromkeys(found, True)
    # items and delays that ask for as many exponents
    alike = np.full((2, 2, 4, 3), 0.5)
    alike[..., 2:, :] = 1.0
    alike[1, 1, 2] = 0.5
    record = Record("x", {}, {"final_accuracy": (("items", "delay", "k", "seed"), alike)}, k)
    assert exponents_needed(record).tolist() == [[5.0, 5.0], [5.0, 10.0]]
    outcomes = {check.key: check.outcome for check in ItemsByDelay().checks(record)}
    assert (outcomes["items"], outcomes["items and delay"]) == (HOLDS, UNDECIDED)


@pytest.mark.parametrize(("last", "kept"), [(0.98, True), (0.8, False)])
def test_the_checks_of_cheap_flossing_compare_what_is_added(last, kept):
    figure = CheapFlossing()
    ways = list(figure.ways())
    accuracy = np.full((len(ways), 1, 2), 1.0)
    accuracy[0], accuracy[-1] = 0.5, last
    cost = np.array([0.0, 4.0, *[3.0] * (len(ways) - 3), 1.0])
    variables = {
        "final_accuracy": (("way", "delay", "seed"), accuracy),
        "flops": (("way",), cost),
        "seconds": (("way",), cost),
    }
    record = Record("x", {}, variables, {"way": (("way",), np.array(ways))})
    found = holds(figure.checks(record))
    assert found.pop("together") is kept
    assert found.pop("cheapest flops") is kept
    assert found.pop("cheapest seconds") is kept
    assert all(found.values())


def test_ways_of_flossing_cost_less_than_the_published_one():
    record = made("beyond", "cheap-flossing")
    flops = dict(zip(record["way"].tolist(), record["flops"].tolist(), strict=True))
    assert flops["none"] == 0
    assert all(
        flops[way] < flops["published"] for way in flops if way not in ("published", "state_grad 5", "detach")
    )


def test_plain_networks_are_read_where_they_have_spent_as_much():
    figure = HorizonPerCost(delays=(10, 20), seeds=3, epochs=100, sizes=(80,))
    curves = np.stack([np.ones((2, 3, 200)), np.broadcast_to(np.linspace(0, 1, 200), (2, 3, 200))])
    curves[0, ..., 100:] = np.nan
    # flossing as much as 50 epochs; then, by time, as much as 20
    costs = np.array([[50.0, 1.0, 40.0, 2.0], [0.0, 1.0, 0.0, 2.0]])
    names = ["n = 80, flossed", "n = 80"]
    record = Record("x", {}, *figure._results(names, curves, costs))
    np.testing.assert_allclose(record["at_equal_flops"][0], 1.0)
    np.testing.assert_allclose(record["at_equal_flops"][1], np.mean(np.arange(130, 150) / 199))
    np.testing.assert_allclose(record["at_equal_seconds"][1], np.mean(np.arange(100, 120) / 199))
    assert all(holds(figure.checks(record)).values())
    # as far as each other
    record = Record("x", {}, *figure._results(names, np.ones_like(curves), costs))
    outcomes = {check.key: check.outcome for check in figure.checks(record) if check.key.endswith("delay")}
    assert set(outcomes.values()) == {UNDECIDED}
    worse = curves[:, ::-1] * [[[[0.8]]], [[[2.0]]]]
    record = Record("x", {}, *figure._results(names, worse, costs))
    assert not any(holds(figure.checks(record)).values())


def test_the_memory_limit_claims_80_percent_up_to_seven_eighths_of_n():
    final = np.repeat(np.array([0.81, 0.79, 0.56])[:, None], 8, 1)
    delays = {"delay": (("delay",), np.array([50, 70, 80]))}
    record = Record("x", {}, {"final_accuracy": (("delay", "seed"), final)}, delays)
    assert list(holds(MemoryLimit().checks(record)).values()) == [True, False, True]


def test_flossing_is_timed():
    figure = smoke("cheap-flossing")
    assert figure.seconds(FlossPhase(1, k=6)) >= 0.0
