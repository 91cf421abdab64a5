"""Every figure at smoke scale: its Record, its picture and its checks."""

import io
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from figures import TIMED, every_figure, made, smoke
from lyaptorch._brief import HOLDS
from lyaptorch.experiments import FIGURES, SCALES, Check
from lyaptorch.experiments.check import REASONS, at_least, at_most, near
from lyaptorch.experiments.figure import Figure as Declared
from lyaptorch.experiments.gradient_flossing.delays import Fig4c
from lyaptorch.experiments.gradient_flossing.episodes import Fig8
from lyaptorch.experiments.gradient_flossing.exponents import Fig1b, Fig1c, Fig1d
from lyaptorch.experiments.gradient_flossing.noise_driven import Fig6
from lyaptorch.record import Record
from lyaptorch.training import run as engine


@pytest.fixture
def record(paper, figure):
    return made(paper, figure)


@every_figure
def test_a_record_says_what_made_it_and_comes_back_whole(paper, figure, record, tmp_path):
    assert record.kind == f"{paper} {figure}"
    assert record.config == Record("x", asdict(smoke(paper, figure)), {}).config
    assert Record.load(record.save(tmp_path / "figure")) == record
    for name, variable in record.variables.items():
        assert np.isfinite(variable.values).any(), name


@every_figure
def test_the_picture_is_drawn_from_the_loaded_record(paper, figure, record, tmp_path):
    picture = Record.load(record.save(tmp_path / "figure")).plot()
    assert type(picture) is Figure
    picture.savefig(buffer := io.BytesIO(), format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    lines = [line for axes in picture.axes for line in axes.lines]
    assert sum(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in lines) >= 3


@every_figure
def test_checks_are_data_that_agree_with_themselves(paper, figure, record, tmp_path):
    experiment = smoke(paper, figure)
    found = experiment.checks(record)
    assert str(found) == str(experiment.checks(Record.load(record.save(tmp_path / "figure"))))
    assert len({c.sentence for c in found}) == len(found)
    assert isinstance(experiment, Declared)
    assert all(c.key for c in found)
    assert len({c.key for c in found}) == len(found)
    for check in found:
        assert [type(value) for value in asdict(check).values()] == [str] * 2 + [float] * 3 + [str] * 4
        assert check.sentence
        assert check.tolerance >= 0
        distance = abs(check.measured - check.expected)
        # what does not hold is far from what is expected, or not a number
        assert not math.isnan(distance) if check.holds else not distance <= check.tolerance


def test_every_reason_is_of_a_figure():
    assert all(figures.keys() <= FIGURES[paper].keys() for paper, figures in REASONS.items())


@pytest.mark.parametrize(("paper", "figure"), [("beyond", figure) for figure in REASONS["beyond"]])
def test_every_reason_is_of_a_check(paper, figure, record):
    assert REASONS[paper][figure].keys() <= {check.key for check in smoke(paper, figure).checks(record)}


@every_figure
def test_equal_runs_give_equal_records(paper, figure, record):
    if figure in TIMED:
        pytest.skip("its Record holds measured times")
    assert smoke(paper, figure).record(False) == record


@pytest.mark.parametrize("figure", ["fig1b", "fig4c", "fig8"])
def test_the_seed_matters(figure):
    experiment = smoke("gradient-flossing", figure)
    assert experiment.seed == 0
    records = [made("gradient-flossing", figure), replace(experiment, seed=1).record(False)]
    name = "after" if figure == "fig1b" else "accuracy"
    assert (records[0][name] != records[1][name]).any()


@every_figure
def test_scales_and_costs_are_complete(paper, figure):
    chosen = FIGURES[paper][figure]
    assert chosen.figure == figure
    assert chosen.shows
    assert set(chosen.cost) == set(SCALES)
    assert set(chosen.scales) == {"smoke", "small"}
    for fields in chosen.scales.values():
        assert chosen(**fields) != chosen()


def test_the_figure_that_the_docs_add_is_made_drawn_and_checked():
    page = (Path(__file__).parents[2] / "docs/extending.md").read_text(encoding="utf-8")
    (cell,) = (
        cell for cell in re.findall(r"```{code-cell}\n(.*?)```", page, re.DOTALL) if "@declare" in cell
    )
    made = {"torch": torch}
    exec(cell, made)
    record = made["record"]
    assert record.kind == "beyond quiet"
    assert type(made["Quiet"].draw(record)) is Figure
    assert [check.outcome for check in made["figure"].checks(record)] == [HOLDS]
    # log g of a network that has fallen asleep, where the spectrum of W g has radius g
    assert abs(record["exponents"][0, 0] - math.log(0.5)) < 0.1


@pytest.mark.parametrize("figure", ["fig4c", "fig8"])
def test_a_figure_that_was_stopped_resumes_to_the_same_record(figure, monkeypatch, tmp_path):
    experiment, step, left = smoke("gradient-flossing", figure), engine.Run.step, iter(range(13))
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)

    def counted(self):
        next(left)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "step", counted)
        with pytest.raises(StopIteration):
            experiment.record(False, tmp_path / "a")
    assert experiment.record(False, tmp_path / "a") == made("gradient-flossing", figure)


def test_the_conditions_of_figure_4c_differ_by_flossing_alone():
    record = made("gradient-flossing", "fig4c")
    share, accuracy = record["floss_share"], record["accuracy"]
    assert (share[0] == 0).all()
    # an episode before, and one more during
    np.testing.assert_allclose(share[2] / (1 - share[2]), 2 * share[1] / (1 - share[1]))
    np.testing.assert_array_equal(accuracy[1, ..., :5], accuracy[2, ..., :5])
    assert (accuracy[1] != accuracy[2]).any()
    assert (accuracy[0] != accuracy[1]).any()


def test_a_claim_holds_on_the_right_side_of_its_bound():
    for make, side, right, wrong in (
        (near, "within", (0.9, 1.0, 1.1), (0.89, 1.11)),
        (at_least, "at least", (0.9, 5.0), (0.89, -5.0)),
        (at_most, "at most", (1.1, -5.0), (1.11, 5.0)),
    ):
        for measured in right:
            check = make("key", "so", 1.0, measured, 0.1 + 1e-12)
            assert check == Check("key", "so", 1.0, measured, 0.1 + 1e-12, side)
            assert check.holds
        assert not any(make("key", "so", 1.0, measured, 0.1).holds for measured in (*wrong, math.nan))


def given(figure, **variables):
    return Record(f"gradient-flossing {figure.figure}", {}, variables)


def test_the_checks_of_figure_1_on_made_up_records():
    target = (("group",), np.array([-1.0, 0.25]))
    for first, second, expected in ((-1.04, 0.1, [True, True]), (-0.9, 0.2, [False, False])):
        after = np.full((2, 3, 4), -9.0)
        after[0, :, 0], after[1, :, 0] = first, second
        record = given(Fig1b, target=target, after=(("group", "network", "rank"), after))
        assert [c.holds for c in Fig1b().checks(record)] == expected
    k = (("group",), np.array([1, 2]))
    for factor, expected in ((0.09, True), (0.11, False)):
        exponents = np.ones((2, 3, 30, 4))
        exponents[:, :, 20:] = factor
        # the third exponent is nobody's business
        exponents[:, :, :, 2:] = 7.0
        record = given(Fig1c, k=k, exponents=(("group", "network", "floss_epoch", "index"), exponents))
        assert [c.holds for c in Fig1c().checks(record)] == [expected] * 2
    after = np.full((2, 3, 4), -3.0)
    after[0, :, :1], after[1, :, :2] = 0.05, -0.05
    record = given(Fig1d, k=k, after=(("group", "network", "rank"), after))
    assert all(c.holds for c in Fig1d().checks(record))
    after[:, :, 1] = -0.5
    record = given(Fig1d, k=k, after=(("group", "network", "rank"), after))
    assert [c.holds for c in Fig1d().checks(record) if c.sentence.startswith("k = 2")].count(False) >= 1


def test_the_checks_of_figure_4c_on_made_up_records():
    """The order at each delay that is not easy, nor out of reach: a gain at one does not pay for another."""
    table = np.array([[0.5, 0.5, 0.5], [0.9, 0.7, 0.5], [1.0, 0.95, 0.9]])
    coordinates = {
        "delay": (("delay",), np.array([40, 60, 70])),
        "condition": (("condition",), np.array(["none", "before", "before and during"])),
    }

    def found():
        final = (("condition", "delay", "seed"), np.repeat(table[..., None], 3, -1))
        return Fig4c().checks(Record("gradient-flossing fig4c", {}, {"final_accuracy": final}, coordinates))

    checks = found()
    assert [c.measured for c in checks[:4]] == pytest.approx([0.4, 0.2, 0.1, 0.25])
    assert [(c.expected, c.measured) for c in checks[4:]] == [(0.5, 0.5), (1.0, 0.9), (1.0, 1.0), (0.8, 0.9)]
    assert all(c.holds for c in checks)
    assert len({c.sentence for c in checks}) == 8
    table[2, 1] = 0.7
    assert [c.holds for c in found()[:4]] == [True, True, True, False]


def test_the_checks_of_figure_6_on_made_up_records():
    """The median network decides; one that falls silent, and one that had nowhere to fall, do not."""
    for factor, last, expected in ((0.09, 0.04, [True] * 5), (0.11, 0.06, [False] * 5)):
        start = np.array([-1.0, -1.0, -1.0, 1e-3, -np.inf])
        during = np.repeat(start[None, :, None], 30, -1).repeat(2, 0)
        during[:, :4, 20:] = factor
        during[1, 3, :20] = 1e-3
        before, after = during[:, :, 0], during[:, :, -1].copy()
        before[0, 3], after[1, 3] = -1e-3, last
        variables = {name: (("unit", "network"), z) for name, z in (("before", before), ("after", after))}
        variables["lambda_1"] = (("unit", "network", "floss_epoch"), during)
        units = {"unit": (("unit",), np.array(["LSTM", "ReLU"]))}
        record = Record("gradient-flossing fig6", {}, variables, units)
        found = Fig6().checks(record)
        assert [c.holds for c in found] == expected
        assert found[-1].sentence.startswith("ReLU: of 1 networks with lambda_1 > 0")


def curve(*parts):
    return np.concatenate([np.full(length, value) for value, length in parts])


def test_the_checks_of_figure_8_count_networks_that_learn_and_rises_before():
    flat, learns = curve((0.5, 40)), curve((0.5, 20), (1.0, 20))
    early, late = [1.0, 20.0, 1.0, 1.0], [1.0, 1.0, 1.0, 20.0]

    def shares(accuracy, norms):
        variables = {
            "accuracy": (("delay", "seed", "epoch"), np.array([accuracy])),
            "gradient_norm": (("delay", "seed", "measurement"), np.array([norms])),
            "unflossed_norm": (("delay", "seed"), np.ones((1, len(norms)))),
            "measured_at": (("measurement",), np.array([0, 10, 20, 30])),
        }
        found = Fig8(epochs=40).checks(Record("gradient-flossing fig8", {}, variables))
        return [c.measured for c in found], [c.holds for c in found]

    assert shares([learns, flat], [early, late]) == ([0.5, 1.0], [True, True])
    assert shares([learns, learns, flat], [early, late, early])[0] == [pytest.approx(2 / 3), 0.5]
    assert shares([learns, flat, flat], [late, early, early]) == ([pytest.approx(1 / 3), 0.0], [False, False])
    assert shares([flat], [early])[1] == [False, False]
