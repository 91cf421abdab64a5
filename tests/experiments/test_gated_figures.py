"""Starts of gated networks, how far they reach, and what a diagnosis of them predicts."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from figures import outcomes, told
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.experiments.beyond.gated import COMPARED, FLOSSED, GatedStarts, lowest_of_best
from lyaptorch.experiments.beyond.gated_reach import GatedReach
from lyaptorch.experiments.beyond.prediction import Prediction, gap, predictors, rank_correlation
from lyaptorch.experiments.beyond.starts import PASS, STARTS, Start, floss_some, networks, picked, training
from lyaptorch.experiments.figure import Study
from lyaptorch.record import Record
from lyaptorch.tasks import DelayedCopy

N, COPY, IDS, STUDY = 6, DelayedCopy(10, binary=True), torch.tensor([3, 8]), Study(0, show_progress=False)


def made(kind, *starts):
    return networks(kind, N, starts, COPY, IDS, STUDY)


@pytest.mark.parametrize(
    ("kind", "opened", "passing", "candidate"),
    [("GRU", {1: 1}, {0: 1, 1: -1}, 2), ("LSTM", {0: -1, 1: 1}, {0: 1, 1: -1, 3: 1}, 2)],
)
def test_starts_differ_in_what_they_set_alone(kind, opened, passing, candidate):
    cell = made(kind, Start(), Start(opened=2.0), Start(passing=PASS), Start("orthogonal", 2.0))
    bias, W = (cell.get_parameter(name).detach() for name in ("bias_ih", "weight_hh"))
    gates, hidden = bias.unflatten(-1, (-1, N)), cell.bias_hh.detach().unflatten(-1, (-1, N))
    for j in range(gates.shape[-2]):
        if j in opened:
            log_time = opened[j] * gates[1, :, j]
            assert log_time.min() >= 0
            # 1 to 2 d = 20 steps
            assert 0.5 < log_time.max() <= math.log(19)
        assert (gates[1, :, j] == gates[0, :, j]).all() == (j not in opened)
        assert (gates[2, :, j] == PASS * passing.get(j, 0)).all() == (j in passing)
        assert (hidden[2, :, j] == 0).all() == (j in passing)
    torch.testing.assert_close(W[:3], W[:1].expand(3, -1, -1, -1))
    blocks = W.unflatten(-2, (-1, N))
    own = blocks[3, :, candidate]
    torch.testing.assert_close(own @ own.mT, 4 * torch.eye(N).expand(2, -1, -1))
    others = [j for j in range(blocks.shape[2]) if j != candidate]
    assert torch.equal(blocks[3][:, others], blocks[0][:, others])


def test_without_gates_all_recurrent_weights_are_the_candidate():
    W = made("RNN", Start("orthogonal", 0.5, passing=PASS)).weight_hh.detach()[0]
    torch.testing.assert_close(W @ W.mT, 0.25 * torch.eye(N).expand(2, -1, -1))


def test_mixing_sets_candidate_and_gates_alike_in_all_its_starts():
    cell = made("GRU", Start(mixed=True), Start(), Start(mixed=True, flossed="W"))
    W, bias = cell.weight_hh.detach(), cell.bias_ih.detach()
    assert torch.equal(W[0], W[2])
    assert torch.equal(bias[0], bias[2])
    own = W[0, :, 2 * N :]
    gain = torch.linalg.matrix_norm(own, 2)[..., None, None]
    torch.testing.assert_close(own @ own.mT, gain**2 * torch.eye(N).expand(2, -1, -1))
    assert (bias[0, :, N : 2 * N] == -PASS).all()
    assert not (bias[1, :, N : 2 * N] == -PASS).any()


def test_only_the_weights_are_flossed_that_a_start_names():
    starts = [Start(), Start(flossed="W"), Start(flossed="all", share=1.0)]
    cell = made("GRU", *starts)
    before = picked(cell, ...)
    floss_some(cell, starts, COPY, IDS, STUDY, epochs=1, lr=1e-2)
    moved = {
        name: (p != before.get_parameter(name)).flatten(1).any(1).tolist()
        for name, p in cell.named_parameters()
    }
    assert moved.pop("weight_hh") == [False, True, True]
    assert all(found == [False, False, True] for found in moved.values())
    assert all(p.requires_grad for p in cell.parameters())


def test_training_is_interrupted_for_those_networks_alone_that_ask_for_it():
    starts = [
        Start(flossed="W"),
        Start(flossed="W", during=True),
        Start(flossed="all", share=1.0, during=True),
    ]
    (fit,) = training(starts, made("LSTM", *starts), epochs=900, floss_epochs=60, lr=4e-3)
    assert [trigger.when.epochs for trigger in fit.triggers] == [(300, 600)] * 2
    (w, everything) = (trigger.phase for trigger in fit.triggers)
    assert w.who.tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert everything.who.tolist() == [[False] * 2, [False] * 2, [True] * 2]
    assert (w.k[1].tolist(), everything.k[2].tolist()) == ([N, N], [2 * N, 2 * N])
    assert everything.parameters is None
    assert not training(starts[:1], made("LSTM", *starts[:1]), epochs=9, floss_epochs=1, lr=1e-3)[0].triggers


SHORT = {**GatedStarts.scales["smoke"], "kinds": ("GRU",), "rates": (1e-2,), "epochs": 6}


def test_who_is_not_flossed_during_training_learns_as_before():
    alone, beside = (
        GatedStarts(**{**SHORT, "starts": (FLOSSED, *more)}).raw(False)["accuracy"][0, 0, 0]
        for more in ((), (f"{FLOSSED}, during",))
    )
    assert np.array_equal(beside[0], alone[0])
    assert np.array_equal(beside[1, :, :2], alone[0, :, :2])
    assert not np.array_equal(beside[1, :, 3:], alone[0, :, 3:])


def test_mixing_is_to_reach_delays_half_as_long_again():
    starts = ("mixing", "torch")
    found = GatedReach(**{**SHORT, "starts": starts}).raw(False)
    assert found["lag"].tolist() == [[[6, 4]]]
    for i, (name, delay) in enumerate(zip(starts, (6, 4), strict=True)):
        own = GatedStarts(**{**SHORT, "starts": (name,), "delays": (delay,)}).raw(False)
        for value in ("final_accuracy", "accuracy"):
            assert np.array_equal(found[value][:, :, :, i], own[value][:, :, :, 0])


def test_every_comparison_is_of_starts_that_there_are():
    assert {name for pair in COMPARED for name in pair} <= set(STARTS)


def test_of_rates_that_are_as_good_the_lowest_is_taken():
    accuracy = torch.tensor([[0.97, 0.5], [0.99, 0.7], [0.98, 0.9]]).unsqueeze(-1)
    assert lowest_of_best(accuracy).tolist() == [0, 2]


def final(values, figure, starts):
    """A Record of one kind, one task and these starts; values (delay, start, seed)."""
    along = {"kind": ["GRU"], "delay": list(figure.delays), "task": ["copy"], "start": list(starts)}
    dims = ("kind", "delay", "task", "start", "seed")
    values = np.asarray(values, dtype=float)[None, :, None]
    coordinates = {k: ((k,), np.array(v)) for k, v in along.items()}
    return Record("x", {}, {"final_accuracy": (dims, values)}, coordinates)


@pytest.mark.parametrize(
    ("gates", "mixing", "outcome"),
    [
        ([0.7, 0.6], [0.83, 0.74], HOLDS),
        # by twice as much in one network, by less in the other
        ([0.7, 0.6], [0.94, 0.71], FAILS),
        ([0.5, 0.5], [0.5, 0.52], UNDECIDED),
        ([0.98, 0.97], [1.0, 1.0], UNDECIDED),
    ],
)
def test_mixing_is_compared_network_by_network(gates, mixing, outcome):
    figure = GatedStarts(delays=(30,))
    record = final([[gates, mixing]], figure, ("open gates", "mixing"))
    assert outcomes(figure.checks(record)) == {"GRU copy 30 mixing over gates": outcome}


@pytest.mark.parametrize(
    ("flossed", "sign"), [([0.9, 0.92, 0.91], "+"), ([0.7, 0.72, 0.71], "-"), ([0.9, 0.7, 0.81], "?")]
)
def test_flossing_counts_beyond_its_error(flossed, sign):
    figure = GatedStarts(delays=(30,))
    record = final([[[0.8, 0.8, 0.8], flossed]], figure, ("mixing", FLOSSED))
    assert told(figure.checks(record)) == sign
    # other ways of flossing are compared with half of the recurrent weights' exponents
    others = final(
        [[[0.5, 0.5, 0.5], [0.8, 0.8, 0.8], flossed]], figure, ("mixing", FLOSSED, "mixing, W flossed")
    )
    assert told(figure.checks(others)) == "+" + sign


@pytest.mark.parametrize(
    ("others", "mixing", "sign"),
    [
        # the others learn 20, mixing 1.5 times 20, 30
        ((0.96, 0.9, 0.5), (1.0, 0.94, 0.5), "+"),
        ((0.96, 0.96, 0.5), (1.0, 0.96, 0.5), "+"),
        ((0.96, 0.96, 0.5), (1.0, 0.94, 0.5), "-"),
        # nobody else learns the shortest delay, or they may reach farther than was tried
        ((0.9, 0.9, 0.5), (1.0, 1.0, 1.0), "?"),
        ((0.96, 0.96, 0.96), (1.0, 1.0, 1.0), "?"),
        ((0.96, 0.96, 0.96), (1.0, 1.0, 0.9), "-"),
    ],
)
def test_reach_is_the_longest_delay_that_is_learned(others, mixing, sign):
    figure = GatedReach(delays=(20, 30, 40))
    by_delay = [[[a, a], [0.5, 0.5], [b, b]] for a, b in zip(others, mixing, strict=True)]
    record = final(by_delay, figure, ("open gates", "orthogonal", "mixing"))
    assert told(figure.checks(record)) == sign


def predicted(noise, **given):
    generator = np.random.default_rng(0)
    learned = np.linspace(0.5, 1, 60)
    names = ("lambda1", "surviving", "capacity", "recall")
    own = {name: learned + generator.normal(0, noise, 60) for name in names} | given
    variables = {name: (("start", "seed"), z[:, None]) for name, z in own.items()}
    variables["final_accuracy"] = (("start", "seed"), learned[:, None])
    kinds = {"kind": (("start",), np.array(["GRU"] * 60))}
    return Record("x", {}, variables, kinds)


def test_both_together_are_the_mean_rank():
    record = predicted(0.1, surviving=np.repeat([0.0, 8.0, 32.0], 20))
    found = predictors(record)
    # ties have the mean of their ranks
    ranks = np.repeat([10.5, 30.5, 50.5], 20)
    np.testing.assert_allclose(found["both"], (ranks + stats.rankdata(record["recall"][:, 0])) / 2)
    assert rank_correlation(found["surviving"], np.arange(60.0)) == pytest.approx(
        stats.spearmanr(np.repeat([0, 1, 2], 20), np.arange(60)).statistic
    )
    assert rank_correlation(np.zeros(5), np.arange(5.0)) == 0


def test_a_prediction_is_one_where_both_are_ahead_of_exponents():
    noise = np.random.default_rng(1).normal(size=60)
    ahead = predicted(0.02, lambda1=noise, surviving=np.linspace(0.5, 1, 60) + 0.1 * noise)
    assert gap(ahead)[0] > 0
    assert told(Prediction().checks(ahead), "chance", "both", "gap") == "+++"
    behind = predicted(0.02, recall=noise)
    assert gap(behind)[1] < 0
    assert told(Prediction().checks(behind), "chance", "both", "gap") == "+--"


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_starts_are_many_and_all_different(scale):
    figure = Prediction(**Prediction.scales.get(scale, {}))
    each = {kind: figure.starts(kind) for kind in figure.kinds}
    assert all(len(set(starts)) == len(starts) for starts in each.values())
    assert sum(map(len, each.values())) >= 60
