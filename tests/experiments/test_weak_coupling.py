"""What the figures of weakly coupled residual networks train, and their checks on made-up records."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from figures import made, smoke
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.cells import ResidualCell
from lyaptorch.experiments.figure import Study
from lyaptorch.experiments.weak_coupling import (
    adding_table,
    comparison,
    heterogeneity,
    informed,
    nonlinear,
    rotations,
)
from lyaptorch.experiments.weak_coupling.edge import Fig3, unsteadiness
from lyaptorch.experiments.weak_coupling.several_tasks import named
from lyaptorch.experiments.weak_coupling.trained import network, steps_to
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import SGD
from lyaptorch.training import run as engine


def holds(experiment, record):
    return [check.holds for check in experiment.claims(record)]


def outcomes(experiment, record):
    return {check.key: check.outcome for check in experiment.claims(record)}


def test_minimal_performance_is_reached_first_or_at_the_end():
    at = np.array([0.0, 10.0, 20.0, 30.0])
    accuracy = np.array([[0.1, 0.6, 0.2, 0.7], [0.1, 0.2, np.nan, np.nan]])
    assert steps_to(accuracy, at, 0.5).tolist() == [10.0, 30.0]
    assert steps_to(1 - accuracy, at, 0.35, falls=True).tolist() == [30.0, 30.0]


# figure 2


def responses(middle, leading):
    """Contributions of ten steps, all of one step for each r, and leading Hessian eigenvalues."""
    exact = np.log([0.95, 1.0, 1.05])
    shares = np.zeros((3, 10))
    shares[range(3), middle] = 1.0
    variables = {
        "before": (("decay", "rank"), exact[:, None]),
        "after": (("decay", "rank"), exact[:, None]),
        "gradient_norm": (("decay", "time"), np.exp(exact[:, None] * np.arange(10)[::-1])),
        "hessian": (("decay", "index"), np.array(leading)[:, None]),
        "contributions": (("decay", "step"), shares),
    }
    return Record("x", {}, variables, {"r": (("decay",), np.array([0.95, 1.0, 1.05]))})


def test_figure_2_wants_curvature_of_earlier_steps_where_r_is_larger():
    figure = smoke("weak-coupling", "fig2")
    assert set(outcomes(figure, responses([8, 5, 2], [1.0, 2.0, 4.0])).values()) == {HOLDS}
    found = outcomes(figure, responses([5, 8, 2], [1.0, 2.0, 1.0]))
    keys = ("contributions 1", "contributions 1.05", "curvature")
    assert [found[key] for key in keys] == [FAILS, HOLDS, FAILS]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("mnist", lambda: SequentialImages("mnist")),
        ("permuted mnist", lambda: SequentialImages("mnist", permuted=True)),
        ("adding 100", lambda: Adding(100)),
    ],
)
def test_a_task_by_its_name(name, task):
    assert named(name) == task()


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"unknown images 'mnits', did you mean 'mnist'"):
        named("permuted mnits")


# figure 1


def test_figure_1_finds_what_is_not_as_drawn():
    figure, record = smoke("weak-coupling", "fig1"), made("weak-coupling", "fig1")
    assert holds(figure, record) == [True] * 5
    ordered, permuted = record["pixels"]
    np.testing.assert_array_equal(ordered, record["image"].flatten())
    assert (ordered != permuted).any()
    changes = {
        "pixels": lambda z: z + np.array([[0.0], [0.1]]),
        "sum": lambda z: z + 0.1,
        "eigenvalues": lambda z: 1.1 * z,
    }
    wrong = {name: (v.dims, changes.get(name, lambda z: z)(v.values)) for name, v in record.variables.items()}
    assert holds(figure, Record("x", {}, wrong)) == [False] * 5


# figure 3

R = np.array([0.95, 0.98, 1.0, 1.02, 1.05])
TASKS = ("mnist", "adding 50", "adding 100")


AT = np.array([0.0, 10.0, 20.0, 30.0])


def curve(best, first):
    """A score that is there from its measurement `first` on."""
    return np.where(np.arange(4) >= first, best, 0.0)


def edge(images, sums, curvature, *, wobble=(0.2, 0.1), over=(0, 0), first=(2, 1, 1, 1, 1), tilt=0.1):
    """Best accuracy of images and RMS of sums over r, the steps to them, and curvature `(decay, time)`."""
    accuracy = np.stack([np.stack([curve(b, f) for b, f in zip(row, first, strict=True)]) for row in images])
    loss = np.stack(
        [np.stack([0.7 - curve(0.7 - b, f) for b, f in zip(row, first, strict=True)]) for row in sums]
    )
    explained = np.clip(1 - (loss / 0.4) ** 2, 0, 1)
    scores, losses = np.concatenate([accuracy, explained]), np.concatenate([np.ones_like(accuracy), loss])
    scores, losses = (np.repeat(z[:, None, :, None], 2, 1).copy() for z in (scores, losses))
    # not clipped they are the less steady, the larger r
    scores[..., 3] -= np.array(wobble)[:, None, None]
    scores[:, 0, :, :, 3] -= tilt * R[:, None]
    unstable = np.full(scores.shape[:-1], -1.0)
    for clip, count in enumerate(over):
        unstable[:count, clip, -1] = 5.0
    dims = ("task", "clip", "decay", "seed")
    variables = {
        "test_accuracy": ((*dims, "measurement"), scores),
        "test_loss": ((*dims, "measurement"), losses),
        "unstable_at": (dims, unstable),
        "curvature": (("task", "decay", "time"), np.repeat(np.array(curvature)[None], len(scores), 0)),
        "measured_at": (("task", "measurement"), np.repeat(AT[None], len(scores), 0)),
    }
    return Record("x", {}, variables, {"name": (("task",), list(TASKS)), "r": (("decay",), R)})


def test_figure_3_wants_each_task_to_have_its_own_best_residual():
    figure = Fig3(tasks=TASKS, decays=tuple(R))
    up, down = [1.0, 2.0], [1.0, 0.5]
    good = edge(
        [[0.3, 0.69, 0.6, 0.7, 0.6]],
        [[0.25, 0.05, 0.1, 0.2, 0.28], [0.28, 0.12, 0.1, 0.25, 0.29]],
        [up, up, down, down, down],
        over=(2, 0),
    )
    # of the second sum r = 1 is best, of the first one r = 0.98
    found = outcomes(figure, good)
    expected = dict.fromkeys(found, HOLDS)
    assert found == expected
    bad = edge(
        [[0.7, 0.6, 0.5, 0.4, 0.6]],
        [[0.2, 0.25, 0.1, 0.05, 0.1], [0.2, 0.05, 0.2, 0.2, 0.04]],
        [down, down, up, up, up],
        wobble=(0.1, 0.2),
        over=(1, 1),
        first=(1, 2, 2, 1, 1),
        tilt=-0.05,
    )
    found = outcomes(figure, bad)
    assert {key: outcome for key, outcome in found.items() if outcome != FAILS} == {
        # the best of the longer sum is the largest r that was tried
        "length": UNDECIDED,
        "adding 50 edge": HOLDS,
    }


def test_figure_3_decides_nothing_where_nobody_learns():
    figure = Fig3(tasks=TASKS, decays=tuple(R))
    none = edge([[0.1] * 5], [[0.4] * 5, [0.4] * 5], [[1.0, 2.0]] * 5)
    assert set(outcomes(figure, none).values()) == {UNDECIDED}


def test_a_network_that_overflowed_is_as_far_behind_as_can_be():
    scores = np.array([[0.0, 0.8, 0.8, 0.8], [0.0, 0.8, np.nan, np.nan], [0.0, 0.8, -3.0, 0.8]])
    record = Record("x", {}, {"test_accuracy": (("member", "measurement"), scores)})
    np.testing.assert_allclose(unsteadiness(record), [0.0, 0.4, 0.2])


def test_what_is_clipped_in_figure_3_and_what_is_measured_at_the_end():
    figure = replace(smoke("weak-coupling", "fig3"), tasks=("adding 8", "adding 12"), clip=1e-6)
    record = figure.record(False)
    # limits differ, networks do not: before training scores are the same to the bit
    start = record["test_loss"][..., 0]
    np.testing.assert_array_equal(start[:, 0], start[:, 1])
    plain, clipped = np.moveaxis(record["test_loss"][..., -1], 1, 0)
    assert (plain != clipped).all()
    assert (plain != start[:, 0]).all()
    np.testing.assert_array_equal(record["measured_at"], [[0, 2, 4]] * 2)
    np.testing.assert_array_equal(record["curved_at"], [[0, 4]] * 2)


@pytest.mark.parametrize("figure", ["fig3", "table2"])
def test_a_figure_of_many_runs_that_was_stopped_resumes_to_the_same_record(figure, monkeypatch, tmp_path):
    experiment = replace(smoke("weak-coupling", figure), tasks=("adding 8",), seeds=1)
    whole, step, left = experiment.record(False), engine.Run.step, iter(range(4))
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)

    def counted(self):
        next(left)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "step", counted)
        with pytest.raises(StopIteration):
            experiment.record(False, tmp_path / "a")
    kept = len(list(tmp_path.iterdir()))
    assert experiment.record(False, tmp_path / "a") == whole
    # a checkpoint for each run, all named like the first
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) > kept
    assert all(name.startswith("a-adding-8-") for name in names)


# figure 5


def spread(
    best, leading, norms, curvature, until=(30.0, 10.0, 30.0), *, scatter=(0, 0.001, 0.002), drops=None
):
    """Three spreads, three seeds, one rate: scores, lambda_1, gradients at both ends, Hessian eigenvalues."""
    scores = np.array(best)[None, :, None, None].repeat(3, -1)
    scores[0, 1] += scatter
    # behind the best so far in the last test
    behind = np.array([0.0, 0.01, 0.2] if drops is None else drops)[None, :, None, None]
    given = {
        "test_accuracy": (
            ("order", "condition", "lr", "seed", "measurement"),
            np.stack([*[scores] * 3, scores - behind], -1),
        ),
        "best_accuracy": (("order", "condition", "lr", "seed"), scores),
        "iterations_to_minimal": (
            ("order", "condition", "lr", "seed"),
            np.broadcast_to(np.array(until)[None, :, None, None], scores.shape),
        ),
        "exponents": (("condition", "seed", "rank"), np.array(leading)[:, None, None].repeat(3, 1)),
        "gradient_norm": (("condition", "seed", "time"), np.array(norms)[:, None].repeat(3, 1)),
        "hessian": (("condition", "seed", "index"), np.array(curvature)[:, None].repeat(3, 1)),
    }
    names = {"condition": (("condition",), ["0", "0.04", "0.1"]), "measured_at": (("measurement",), AT)}
    return Record("x", {}, given, names)


RISING = (
    [-0.05, 0.0, 0.05],
    [[1e-3, 1.0], [1e-2, 1.0], [5.0, 1.0]],
    [[0.1, 1e-9], [-1.0, 1e-3], [9.0, -3.0]],
)


def test_figure_5_wants_a_moderate_spread():
    figure = heterogeneity.Fig5()
    assert set(outcomes(figure, spread([0.3, 0.5, 0.4], *RISING)).values()) == {HOLDS}
    falling = (
        [-0.05, 0.0, -0.01],
        [[1e-3, 1.0], [1e-2, 9.0], [5.0, 1e4]],
        [[0.1, 1e-9], [9.0, 1e-3], [12.0, 1e-4]],
    )
    # what arrives is measured against what is sent
    bad = spread([0.5, 0.3, 0.4], *falling, until=(10.0, 20.0, 30.0), drops=[0.0, 0.2, 0.1])
    assert set(outcomes(figure, bad).values()) == {FAILS}


def test_figure_5_decides_nothing_at_chance_or_within_its_scatter():
    figure, keys = heterogeneity.Fig5(), ("moderate", "strongest", "efficiency")
    chance = outcomes(figure, spread([0.11, 0.15, 0.1], *RISING, until=(-1.0, -1.0, -1.0)))
    assert [chance[key] for key in keys] == [UNDECIDED] * 3
    # a spread with which nobody learns is as steady as can be
    lost = outcomes(figure, spread([0.3, 0.5, 0.12], *RISING, drops=[0.0, 0.2, 0.0]))
    assert (lost["strongest"], lost["unsteady"]) == (HOLDS, UNDECIDED)
    # seed by seed, which start alike
    scattered = spread([0.5, 0.5, 0.5], *RISING, scatter=(0.1, -0.1, 0.05))
    found = outcomes(figure, scattered)
    assert (found["moderate"], found["strongest"]) == (UNDECIDED, UNDECIDED)


# figure 6


def kinds(table):
    """Best accuracy `(kind, condition)` of three networks; the first of two rates learns nothing."""
    scores = np.stack([np.zeros_like(table), table], -1)[:, None, ..., None].repeat(3, -1)
    # who is better is so sooner, too
    until = np.where(scores >= 0.5, 20.0 * (1.5 - scores), -1.0)
    given = {"best_accuracy": scores, "iterations_to_minimal": until}
    names = [*(f"r = {r:g}" for r in SIX.decays), *(f"{m:g} w0" for m in SIX.multiples), "heterogeneous"]
    return Record(
        "x",
        {},
        {key: (("kind", "order", "condition", "lr", "seed"), z) for key, z in given.items()},
        {"condition": (("condition",), names), "measured_at": (("measurement",), AT)},
    )


SIX = nonlinear.Fig6(decays=(0.95, 0.98, 1.02, 1.05), multiples=(0.5, 1.0, 1.5))


def test_figure_6_wants_another_side_of_the_edge_for_each_kind():
    good = [[0.3, 0.6, 0.5, 0.2, 0.6, 0.7, 0.6, 0.7], [0.2, 0.5, 0.6, 0.3, 0.4, 0.9, 0.4, 0.9]]
    assert set(outcomes(SIX, kinds(np.array(good))).values()) == {HOLDS}
    bad = [[0.3, 0.5, 0.6, 0.7, 0.9, 0.5, 0.6, 0.7], [0.7, 0.6, 0.5, 0.3, 0.7, 0.6, 0.6, 0.6]]
    assert set(outcomes(SIX, kinds(np.array(bad))).values()) == {FAILS}
    none = np.full((2, 8), 0.2)
    assert set(outcomes(SIX, kinds(none)).values()) == {UNDECIDED}


def test_the_networks_of_figure_6_differ_by_kind_decay_and_angle():
    figure = nonlinear.Fig6(decays=(0.9, 1.0), multiples=(0.5, 2.0), hidden_size=4, seeds=3)
    study, ids = Study(), torch.arange(3)
    names, w, r, eps = figure.conditions(study, SimpleNamespace(frequency=0.2), ids)
    assert names == ["r = 0.9", "r = 1", "0.5 w0", "2 w0", "heterogeneous"]
    assert w.shape == (5, 3, 2)
    torch.testing.assert_close(w[:4, 0, 0], torch.tensor([0.0, 0.0, 0.1, 0.4]))
    torch.testing.assert_close(r[:4, 0, 0], torch.tensor([0.9, 1.0, 1.0, 1.0]))
    assert (eps[:4] == figure.coupling).all()
    # each unit and network its own
    assert w[4].unique().numel() == w[4].numel()
    assert ((r[4] >= 0.98) & (r[4] < 1)).all()
    assert figure.cell(study, (names, w, r, eps), ids.expand(5, 3), "B").kind == "B"
    record = made("weak-coupling", "fig6")
    assert (record["test_accuracy"][0] != record["test_accuracy"][1]).any()


# figure 4, images, coupling, sizes


def turned(best, permuted, phase=(0.5, 0.2, 0.9, 0.2, 0.9, 0.2, 0.9), until=None):
    """Best accuracy over the angles 0 to 3 w0 in steps of a half, and how much is in phase."""
    names = ["0 w0", "0.5 w0", "1 w0", "1.5 w0", "2 w0", "2.5 w0", "3 w0"]
    scores = np.array([best, permuted])[:, :, None, None].repeat(3, -1)
    until = np.full(7, -1.0) if until is None else np.array(until)
    power = np.ones((2, 100))
    power[0, 28] = 60.0
    dims = ("order", "condition", "lr", "seed")
    variables = {
        "best_accuracy": (dims, scores),
        "iterations_to_minimal": (dims, np.broadcast_to(until[None, :, None, None], scores.shape)),
        "in_phase": (("condition", "seed"), np.repeat(np.array(phase)[:, None], 3, 1)),
        "power": (("order", "bin"), power),
    }
    known = {"condition": (("condition",), names), "permuted": (("order",), [False, True])}
    return Record("x", {}, variables, {**known, "measured_at": (("measurement",), AT)})


def test_figure_4_wants_the_frequency_of_the_data_and_its_harmonics():
    figure, flat = rotations.Fig4(), [0.3, 0.45, 0.5, 0.45, 0.5, 0.45, 0.5]
    sharp, soon = [0.3, 0.6, 0.9, 0.6, 0.8, 0.6, 0.8], [-1, 20.0, 10.0, 30.0, 20.0, 20.0, 20.0]
    found = outcomes(figure, turned(sharp, flat, until=soon))
    assert found == dict.fromkeys(found, HOLDS)
    assert len(found) == 11
    blunt, late = [0.85, 0.9, 0.8, 0.9, 0.6, 0.9, 0.6], [-1, 10.0, 30.0, 10.0, 20.0, 20.0, 20.0]
    bad = outcomes(figure, turned(blunt, blunt, phase=[0.6, 0.9, 0.5, 0.6, 0.4, 0.6, 0.4], until=late))
    failed = {"no rotation", "rotation", "efficiency", "harmonics", "permuted angle"}
    failed |= {"phase", "phase harmonics", "phase at rest"}
    assert {key for key, outcome in bad.items() if outcome == FAILS} == failed
    out = outcomes(figure, turned(sharp, flat, phase=(0.5, 0.8, 0.2, 0.3, 0.9, 0.2, 0.9), until=soon))
    assert (out["phase"], out["phase harmonics"]) == (FAILS, HOLDS)
    tied = outcomes(figure, turned(sharp, flat, until=[-1, *[10.0] * 6]))
    assert tied["efficiency"] == UNDECIDED
    chance = outcomes(figure, turned([0.1] * 7, [0.1] * 7))
    undecided = {"no rotation", "rotation", "efficiency", "harmonics", "permuted angle"}
    assert {key for key, outcome in chance.items() if outcome == UNDECIDED} == undecided


def test_what_is_in_phase_is_the_sum_over_the_steps_of_the_gradient():
    """Against weights of its own for every step, by autograd."""
    figure = smoke("weak-coupling", "fig4")
    study, ids = Study(0, False, None), torch.zeros(2, 1, dtype=torch.int64)
    conditions = figure.conditions(study, SimpleNamespace(frequency=0.3), torch.arange(1))
    cell = figure.cell(study, conditions, ids).double()
    task = SequentialImages("mnist")
    model = network(study, cell, task, ids).double()
    batch = task.draw(Draw(0, task.length, 3, member_ids=ids, dtype=torch.float64))
    found = rotations.in_phase(cell, model, batch)
    V = cell.weight_ih.detach()
    each = [V.unsqueeze(-3).repeat(1, 1, 3, 1, 1).requires_grad_() for _ in batch.inputs]
    h, states = torch.zeros(2, 1, 3, 4, dtype=torch.float64), []
    for own, x in zip(each, batch.inputs, strict=True):
        # V x of these weights in the place of that of the cell's
        more = ((own - V.unsqueeze(-3)) @ x.unsqueeze(-1)).squeeze(-1)
        h = cell.form().step(cell.form().drive(x) + more, h)
        states.append(h)
    g = torch.stack(torch.autograd.grad(model.score(batch, torch.stack(states))[0].sum(), each)).flatten(-2)
    expected = (g.sum(0).norm(dim=-1) / g.norm(dim=-1).sum(0)).mean(-1)
    torch.testing.assert_close(found, expected)
    assert ((found > 0) & (found < 1)).all()


def test_of_one_order_of_pixels_no_panel_is_empty():
    record = made("weak-coupling", "fig4")
    variables = {
        name: (dims, values[:1] if dims[0] == "order" else values)
        for name, (dims, values, *_) in record.variables.items()
    }
    along = {name: (dims, values) for name, (dims, values, *_) in record.coordinates.items()}
    one = Record(record.kind, record.config, variables, {**along, "permuted": (("order",), [False])})
    for panels, shown in ((5, record), (3, one)):
        drawn = rotations.Fig4.draw(shown)
        assert [axes.has_data() for axes in drawn.axes] == [True] * panels


def informed_by_data(best, permuted, orthonormal, until=(-1.0, 10.0, 10.0, 20.0, 20.0)):
    names = ["identity", "rotation", "heterogeneous", "0.5 w0", "1.5 w0", "random orthonormal"]
    scores = np.array([[*best, orthonormal], [*permuted, orthonormal]])[:, :, None, None].repeat(3, -1)
    until = (*until, -1.0)
    power = np.ones((2, 100))
    power[0, 28] = 60.0
    dims = ("order", "condition", "lr", "seed")
    variables = {
        "best_accuracy": (dims, scores),
        "iterations_to_minimal": (dims, np.broadcast_to(np.array(until)[None, :, None, None], scores.shape)),
        "power": (("order", "bin"), power),
    }
    known = {"condition": (("condition",), names), "permuted": (("order",), [False, True])}
    return Record("x", {}, variables, {**known, "measured_at": (("measurement",), AT)})


def test_images_want_informed_heterogeneity_to_be_as_good_as_the_best():
    figure = informed.Images()
    soon = (-1.0, 10.0, 5.0, 20.0, 20.0)
    good = informed_by_data([0.2, 0.9, 0.895, 0.7, 0.6], [0.3, 0.5, 0.6, 0.5, 0.5], 0.85, soon)
    found = outcomes(figure, good)
    assert found == dict.fromkeys(found, HOLDS)
    late = (-1.0, 20.0, 20.0, 10.0, 20.0)
    bad = informed_by_data([0.2, 0.6, 0.5, 0.9, 0.6], [0.3, 0.5, 0.4, 0.5, 0.5], 0.85, late)
    failed = {"heterogeneity", "rotation", "efficiency", "orthonormal", "permuted heterogeneity"}
    failed.add("permuted efficiency")
    assert {key for key, outcome in outcomes(figure, bad).items() if outcome == FAILS} == failed
    chance = outcomes(figure, informed_by_data([0.1] * 5, [0.1] * 5, 0.1, (-1.0,) * 5))
    assert {key for key, outcome in chance.items() if outcome == UNDECIDED} == failed


def test_a_part_whose_networks_all_overflow_has_the_shape_of_the_others():
    rates, few = (1e38, 1e-3), {"iterations": 7, "measure_every": 2, "compared": ("identity",)}
    lost, kept = (
        replace(smoke("weak-coupling", "images"), learning_rates=(lr,), **few).raw(False) for lr in rates
    )
    assert (lost["unstable_at"] >= 0).all()
    assert (kept["unstable_at"] < 0).all()
    for name in ("test_accuracy", "measured_at"):
        assert lost[name].shape == kept[name].shape
    assert lost["measured_at"].tolist() == kept["measured_at"].tolist() == [0, 2, 4, 6]
    assert np.isnan(lost["test_accuracy"][..., -1]).all()


def test_one_of_the_residuals_is_a_random_orthonormal_matrix():
    figure = informed.Images(hidden_size=6, seeds=2)
    study, ids = Study(3), torch.arange(2).expand(6, 2)
    conditions = figure.conditions(study, SimpleNamespace(frequency=0.3), torch.arange(2))
    found = figure.residual(study, conditions, ids)(6, ids)
    A = found.dense()
    assert found.kind == "dense"
    torch.testing.assert_close(A[5] @ A[5].mT, torch.eye(6).expand(2, 6, 6), atol=1e-5, rtol=0)
    # of each network another one, which mixes more than pairs
    assert (A[5, 0] != A[5, 1]).all()
    assert A[5, :, 0, 2:].abs().min() > 0
    # the others are as they are without it, in blocks
    fewer = replace(figure, compared=figure.compared[:-1])
    conditions = fewer.conditions(study, SimpleNamespace(frequency=0.3), torch.arange(2))
    blocks = fewer.residual(study, conditions, ids[:5])(6, ids[:5])
    assert blocks.kind == "blocks"
    assert torch.equal(blocks.dense(), A[:5])
    assert torch.equal(A[0], torch.eye(6).expand(2, 6, 6))


@pytest.mark.parametrize(
    ("doubled", "quadrupled", "expected"),
    [(0.5, 0.5, HOLDS), (0.5, 0.15, FAILS), (0.11, 0.12, UNDECIDED)],
)
def test_eps_acts_like_the_rate(doubled, quadrupled, expected):
    curves = np.full((1, 2, 2, 3, 4), 0.1)
    curves[0, 1, 0], curves[0, 0, 1] = doubled, quadrupled
    until = np.full((1, 2, 2, 3), 20.0)
    until[0, 1, 0] = 10.0
    variables = {
        "test_accuracy": (("order", "condition", "lr", "seed", "measurement"), curves),
        "iterations_to_minimal": (("order", "condition", "lr", "seed"), until),
    }
    found = outcomes(
        rotations.Coupling(), Record("x", {}, variables, {"measured_at": (("measurement",), AT)})
    )
    # the weakest never leaves chance, and so is steady
    steady = dict.fromkeys(("stability", "stability rate"), UNDECIDED)
    assert found == {"efficiency": HOLDS, "rate": expected, **steady}
    turned_round = {**variables, "iterations_to_minimal": (variables["iterations_to_minimal"][0], 30 - until)}
    record = Record("x", {}, turned_round, {"measured_at": (("measurement",), AT)})
    assert outcomes(rotations.Coupling(), record)["efficiency"] == FAILS
    never = {**variables, "iterations_to_minimal": (variables["iterations_to_minimal"][0], 0 * until - 1)}
    record = Record("x", {}, never, {"measured_at": (("measurement",), AT)})
    assert outcomes(rotations.Coupling(), record)["efficiency"] == UNDECIDED


def test_too_large_an_eps_is_unsteady_and_so_is_too_large_a_rate():
    curves = np.full((1, 3, 2, 3, 4), 0.6)
    # of three networks each a little otherwise
    curves[0, -1, 0, :, -1], curves[0, 0, -1, :, -1] = [0.1, 0.2, 0.15], [0.3, 0.35, 0.4]
    variables = {
        "test_accuracy": (("order", "condition", "lr", "seed", "measurement"), curves),
        "iterations_to_minimal": (("order", "condition", "lr", "seed"), np.full((1, 3, 2, 3), 20.0)),
    }
    along = {"measured_at": (("measurement",), AT)}
    found = outcomes(rotations.Coupling(), Record("x", {}, variables, along))
    # all take as many steps
    assert found["efficiency"] == UNDECIDED
    assert (found["stability"], found["stability rate"]) == (HOLDS, HOLDS)
    # the other way round
    curves[0, -1, 0, :, -1] = curves[0, 0, -1, :, -1] = 0.6
    curves[0, 0, 0, :, -1] = [0.3, 0.35, 0.4]
    found = outcomes(rotations.Coupling(), Record("x", {}, variables, along))
    assert (found["stability"], found["stability rate"]) == (FAILS, FAILS)


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ([[0.9, 0.5], [0.7, 0.6]], HOLDS),
        ([[0.9, 0.5], [0.6, 0.7]], FAILS),
        ([[0.9, 0.5], [0.2, 0.1]], UNDECIDED),
    ],
)
def test_at_every_size_the_frequency_of_the_data_is_better(best, expected):
    scores = np.array(best)[:, None, :, None, None].repeat(3, -1)
    given = {"best_accuracy": (("size", "order", "condition", "lr", "seed"), scores)}
    record = Record("x", {}, given, {"condition": (("condition",), ["1 w0", "0.5 w0"])})
    assert outcomes(informed.SizesAndBatches(), record) == {"sizes": expected}


# table 1


def errors(homogeneous, heterogeneous, elman, first=(2, 1, 3)):
    best = np.array([homogeneous, heterogeneous, elman])
    curves = np.where(np.arange(4) >= np.array(first)[:, None, None], best[..., None], 0.5)
    variables = {
        "best_loss": (("network", "seed"), best),
        "test_loss": (("network", "seed", "measurement"), curves),
    }
    return Record("x", {}, variables, {"measured_at": (("measurement",), AT)})


def test_table_1_wants_heterogeneous_residuals_to_add_as_well_and_as_soon():
    figure, keys = adding_table.Table1(), ["residual", "heterogeneous", "efficiency", "Elman"]
    for record, expected in (
        (errors([0.1, 0.1], [0.11, 0.1], [0.4, 0.37]), [HOLDS] * 4),
        (errors([0.1, 0.1], [0.2, 0.2], [0.4, 0.1], first=(1, 2, 3)), [HOLDS, FAILS, FAILS, FAILS]),
        (errors([0.4, 0.4], [0.4, 0.4], [0.4, 0.4]), [FAILS] + [UNDECIDED] * 3),
        # an Elman network that adds refutes the paper, whatever the others do
        (errors([0.4, 0.4], [0.4, 0.4], [0.1, 0.1]), [FAILS, UNDECIDED, UNDECIDED, FAILS]),
    ):
        assert outcomes(figure, record) == dict(zip(keys, expected, strict=True))


def test_sums_are_learned_by_gradient_descent_with_momentum(monkeypatch):
    seen = []

    def train(self, model, task, schedule, **settings):
        seen.append(settings["optimizer"])
        raise StopIteration

    monkeypatch.setattr(Study, "train", train)
    for figure in (
        smoke("weak-coupling", "table1"),
        replace(smoke("weak-coupling", "fig3"), tasks=("adding 8",)),
    ):
        with pytest.raises(StopIteration):
            figure.run(Study(show_progress=False))
    assert seen == [SGD(momentum=0.9)] * 2


# table 2


def table(accuracy, loss):
    dims = ("task", "network", "lr", "seed")
    values = {"best_accuracy": [accuracy] * 2, "best_loss": [loss] * 2}
    names = list(comparison.NETWORKS)
    # the other rate is worse
    variables = {
        name: (dims, np.stack([np.array(z), np.array(z) + (-0.5 if "acc" in name else 0.5)], -1)[..., None])
        for name, z in values.items()
    }
    coordinates = {"name": (("task",), ["mnist", "adding 8"]), "network_name": (("network",), names)}
    return Record("x", {}, variables, coordinates)


def test_table_2_wants_the_ordering_of_the_paper():
    figure = smoke("weak-coupling", "table2")
    order = list(comparison.NETWORKS)
    assert order[:5] == ["homogeneous", "heterogeneous", "linear", "Elman", "LSTM"]
    rest = [0.5] * 3
    good = table([0.85, 0.9, 0.8, 0.3, 0.8, *rest], [0.4, 0.1, 0.38, 0.35, 0.2, *rest])
    assert holds(figure, good) == [True] * 6
    chance = table([0.7, 0.9, 0.1, 0.11, 0.1, *rest], [0.4, 0.35, 0.38, 0.35, 0.2, *rest])
    undecided = ["mnist linear", "mnist Elman", "mnist LSTM", "adding 8 linear", "adding 8 Elman"]
    found = outcomes(figure, chance)
    assert [key for key, outcome in found.items() if outcome == UNDECIDED] == undecided
    # the better of two kinds is no match for one
    better = table([0.7, 0.9, 0.6, 0.3, 0.85, *rest], [0.4, 0.1, 0.38, 0.35, 0.2, *rest])
    assert outcomes(figure, better)["mnist LSTM"] == FAILS
    bad = table([0.7, 0.6, 0.8, 0.9, 0.75, *rest], [0.4, 0.29, 0.28, 0.25, 0.2, *rest])
    assert holds(figure, bad) == [False, False, False, True, False, False]
    # which networks are said to fail is known of the longest sums alone
    kinds = {check.key: check.kind for check in figure.checks(good)}
    assert {key for key, kind in kinds.items() if kind == "question"} == {
        "mnist LSTM",
        "adding 8 linear",
        "adding 8 Elman",
    }


def test_a_network_of_table_2_that_overflowed_is_the_worst():
    record = Record(
        "x",
        {},
        {"best_loss": (("task", "network", "lr", "seed"), np.array([[[[0.2, np.nan]], [[0.4, 0.6]]]]))},
        {"network_name": (("network",), ["a", "b"])},
    )
    assert comparison.scores(record, "best_loss", 0) == {"a": math.inf, "b": 0.5}


@pytest.mark.parametrize(("name", "make"), comparison.NETWORKS.items())
def test_the_networks_of_table_2(name, make):
    figure, ids = comparison.Table2(hidden_size=8), torch.arange(2).expand(3, 2)
    cell = make(figure, 1, 0.2, Study().ensemble(ids))
    assert cell.ensemble == (3, 2)
    if isinstance(cell, ResidualCell):
        assert cell.activation.name == ("linear" if name == "linear" else "tanh")
        eigenvalues = torch.linalg.eigvals(cell.bypass.dense())
        close = 1e-6 if name != "heterogeneous" else 0.011
        torch.testing.assert_close(eigenvalues.abs(), torch.ones(3, 2, 8), rtol=0, atol=close)
        turned = eigenvalues.angle().abs()
        assert (turned.max() > 0.25) == (name == "heterogeneous")
        # on sums there is no frequency
        assert (
            torch.linalg.eigvals(make(figure, 2, 0.0, Study().ensemble(ids)).bypass.dense()).imag == 0
        ).all()
    if name == "Elman":
        assert torch.equal(cell.weight_hh, torch.eye(8).expand(3, 2, 8, 8))


def test_the_parameters_that_table_2_counts():
    """By hand, n = 8 and one channel of eight modes, with two inputs; without the readout."""
    n, m, figure = 8, 2, replace(smoke("weak-coupling", "table2"), tasks=("adding 8",), seeds=2)
    residual, gated = n * n + n * m + n, 4 * (n * n + n * m + 2 * n)
    elman, s4d, cornn = residual + n, 1 + 2 * 8 + m, 2 * n * n + n * m + n
    expected = [residual, residual, residual, elman, gated, gated, s4d, cornn]
    assert figure.record(False)["parameters"].tolist() == [expected]
