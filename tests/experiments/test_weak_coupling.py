"""What the figures of weakly coupled residual networks train, and their checks on made-up records."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from figures import made, smoke
from lyaptorch.cells import ResidualCell
from lyaptorch.experiments.figure import Study
from lyaptorch.experiments.weak_coupling import comparison, heterogeneity, several_tasks
from lyaptorch.experiments.weak_coupling.several_tasks import named
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.training import run as engine


def holds(experiment, record):
    return [check.holds for check in experiment.checks(record)]


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

R = np.array([0.95, 1.0, 1.02])
TASKS = ("mnist", "adding 50", "adding 100")


def learned(scores, curvature, wobble=(0.2, 0.1)):
    """Best scores `(task, decay)` of all networks, curvature `(decay, time)`, and a fall in the middle."""
    curves = np.repeat(np.asarray(scores)[:, None, :, None, None], 2, 1) * np.array([0.0, 1.0, 1.0, 1.0])
    curves[..., 2] -= np.array(wobble)[:, None, None]
    return Record(
        "x",
        {},
        {
            "test_accuracy": (("task", "clip", "decay", "seed", "measurement"), curves),
            "curvature": (("task", "decay", "time"), np.repeat(np.array(curvature)[None], 3, 0)),
        },
        {"name": (("task",), list(TASKS)), "r": (("decay",), R)},
    )


def test_figure_3_wants_each_task_to_have_its_own_best_residual():
    figure = several_tasks.Fig3(tasks=TASKS, decays=tuple(R))
    good = learned([[0.5, 0.6, 0.7], [0.9, 0.8, 0.7], [0.8, 0.9, 0.7]], [[1.0, 2.0], [1.0, 0.5], [1.0, 0.9]])
    assert holds(figure, good) == [True] * 11
    bad = learned(
        [[0.7, 0.6, 0.5], [0.7, 0.8, 0.7], [0.5, 0.7, 0.9]],
        [[1.0, 0.9], [1.0, 0.5], [1.0, 1.1]],
        wobble=(0.1, 0.2),
    )
    # r < 1 and r > 1 are alike on the shorter sum
    assert holds(figure, bad) == [False] * 5 + [True] + [False] * 5


def test_a_network_that_overflowed_is_as_far_behind_as_can_be():
    scores = np.array([[0.0, 0.8, 0.8, 0.8], [0.0, 0.8, np.nan, np.nan], [0.0, 0.8, -3.0, 0.8]])
    record = Record("x", {}, {"test_accuracy": (("member", "measurement"), scores)})
    np.testing.assert_allclose(several_tasks.unsteadiness(record), [0.0, 0.4, 0.2])


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


def spread(best, leading, norms, curvature):
    """Three spreads, one seed, one rate: scores, lambda_1, gradients at both ends, Hessian eigenvalues."""
    given = {
        "best_accuracy": (("order", "condition", "lr", "seed"), np.array(best)[None, :, None, None]),
        "exponents": (("condition", "seed", "rank"), np.array(leading)[:, None, None]),
        "gradient_norm": (("condition", "seed", "time"), np.array(norms)[:, None]),
        "hessian": (("condition", "seed", "index"), np.array(curvature)[:, None, None]),
    }
    return Record("x", {}, given, {"condition": (("condition",), ["0", "0.04", "0.1"])})


def test_figure_5_wants_a_moderate_spread():
    figure = heterogeneity.Fig5()
    good = spread(
        [0.3, 0.5, 0.4], [-0.05, 0.0, 0.05], [[1e-3, 1.0], [1e-2, 1.0], [5.0, 1.0]], [0.1, -1.0, 9.0]
    )
    assert holds(figure, good) == [True] * 5
    bad = spread(
        [0.5, 0.3, 0.4], [-0.05, 0.0, -0.01], [[1e-3, 1.0], [1e-2, 9.0], [5.0, 1e4]], [0.1, 9.0, -1.0]
    )
    # what arrives is measured against what is sent
    assert holds(figure, bad) == [False] * 5


# figure 6


def kinds(table):
    """Best accuracy `(kind, condition)`, one order, two rates, the first of which learns nothing."""
    scores = np.stack([np.zeros_like(table), table], -1)
    return Record(
        "x", {}, {"best_accuracy": (("kind", "order", "condition", "lr", "seed"), scores[:, None, ..., None])}
    )


def test_figure_6_wants_another_side_of_the_edge_for_each_kind():
    figure = heterogeneity.Fig6(decays=(0.95, 1.0, 1.05), multiples=(0.5, 1.0))
    assert (
        holds(figure, kinds(np.array([[0.5, 0.4, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.5, 0.8]]))) == [True] * 5
    )
    assert (
        holds(figure, kinds(np.array([[0.3, 0.4, 0.5, 0.9, 0.3], [0.5, 0.4, 0.3, 0.5, 0.3]]))) == [False] * 5
    )


def test_the_networks_of_figure_6_differ_by_kind_decay_and_angle():
    figure = heterogeneity.Fig6(decays=(0.9, 1.0), multiples=(0.5, 2.0), hidden_size=4, seeds=3)
    study, ids = Study(), torch.arange(3)
    names, w, r, eps = figure.conditions(study, SimpleNamespace(frequency=0.2), ids)
    assert names == ["r = 0.9", "r = 1", "0.5 w0", "2 w0"]
    assert w.shape == (4, 3, 2)
    torch.testing.assert_close(w[:, 0, 0], torch.tensor([0.0, 0.0, 0.1, 0.4]))
    torch.testing.assert_close(r[:, 0, 0], torch.tensor([0.9, 1.0, 1.0, 1.0]))
    assert (eps == figure.coupling).all()
    assert figure.cell(study, (names, w, r, eps), ids.expand(4, 3), "B").kind == "B"
    record = made("weak-coupling", "fig6")
    assert (record["test_accuracy"][0] != record["test_accuracy"][1]).any()


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
    good = table([0.7, 0.9, 0.8, 0.3, 0.8, *rest], [0.4, 0.1, 0.38, 0.35, 0.2, *rest])
    assert holds(figure, good) == [True] * 6
    bad = table([0.7, 0.6, 0.8, 0.9, 0.75, *rest], [0.4, 0.31, 0.28, 0.25, 0.2, *rest])
    assert holds(figure, bad) == [False] * 6


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
