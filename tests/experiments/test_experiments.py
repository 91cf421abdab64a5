"""Every figure at smoke scale: its Record, its picture and its checks."""

import io
import math
import re
import warnings
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from figures import NAMES, TIMED, every_figure, made, smoke
from lyaptorch._brief import HOLDS, UNDECIDED
from lyaptorch.experiments import FIGURES, SCALES, Check
from lyaptorch.experiments.check import REASONS, at_least, at_most, near
from lyaptorch.experiments.figure import Figure as Declared
from lyaptorch.record import Record
from lyaptorch.training import run as engine

UNTIMED = [name for name in NAMES if name[1] not in TIMED]


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
    assert isinstance(picture, Figure)
    # that it can be drawn is asked, not how finely
    picture.savefig(buffer := io.BytesIO(), format="png", dpi=20)
    assert buffer.getvalue().startswith(b"\x89PNG")
    lines = [line for axes in picture.axes for line in axes.lines]
    assert sum(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in lines) >= 3


def test_equal_records_give_equal_files_in_print_quality(tmp_path):
    record = made("gradient-flossing", "fig1b")
    for end in (".png", ".pdf"):
        files = [record.save(tmp_path / f"{name}{end}").read_bytes() for name in "ab"]
        assert files[0] == files[1]
    width = record.plot().get_figwidth()
    # of a PNG the width stands at byte 16
    assert int.from_bytes((tmp_path / "a.png").read_bytes()[16:20], "big") == round(200 * width)


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
        types = [str] * 2 + [float] * 3 + [str] * 4 + [bool, str]
        assert [type(value) for value in asdict(check).values()] == types
        assert check.sentence
        assert check.tolerance >= 0
        distance = abs(check.measured - check.expected)
        # what does not hold is far from what is expected, or not a number, or within chance
        short = not distance <= check.tolerance or not check.told
        assert check.told and not math.isnan(distance) if check.holds else short


def test_every_reason_is_of_a_figure():
    assert all(figures.keys() <= FIGURES[paper].keys() for paper, figures in REASONS.items())


@pytest.mark.parametrize(("paper", "figure"), [("beyond", figure) for figure in REASONS["beyond"]])
def test_every_reason_is_of_a_check(paper, figure, record):
    own = smoke(paper, figure)
    small = FIGURES[paper][figure](**FIGURES[paper][figure].scales["small"])
    keys = {check.key for check in own.checks(record)}
    # at small scale it is of other delays and kinds: each word of these in its place
    for field in fields(own):
        labels, others = getattr(own, field.name), getattr(small, field.name)
        if isinstance(labels, tuple):
            for label, other in product(labels, others):
                words = [key.split(" ") for key in keys]
                keys |= {" ".join(str(other) if w == str(label) else w for w in key) for key in words}
    assert REASONS[paper][figure].keys() <= keys


SOURCES = {
    "gradient-flossing": r"Gradient Flossing, (figure|section|appendix|abstract)|an independent run",
}
PLACE = r"(.*Gradient Flossing|Dubinin & Effenberger 2024), (figure|section|appendix|table|equation)"


@every_figure
def test_a_check_says_where_its_claim_is_made_or_why_it_is_none(paper, figure, record):
    found = smoke(paper, figure).checks(record)
    assert found
    for check in found:
        assert check.source
        # timings of table 1 are those of another paper
        if (paper, figure) != ("surrogate-flossing", "table1"):
            assert bool(check.because) == (check.kind != "claim"), check.key
        if check.kind == "claim":
            assert re.match(SOURCES.get(paper, PLACE), check.source), check.key


@every_figure
def test_a_record_of_nothing_decides_nothing(paper, figure, record):
    """Every check is there, and none is taken for held or failed, where no number was measured."""
    if (paper, figure) == ("weak-coupling", "fig1"):
        pytest.skip("identities of what is drawn, of which something is always there")
    # what is counted is an integer, or a number of epochs
    counts = {"usable", "usable_measured"} if paper == "gradient-flossing" else set()
    kept = set() if paper == "gradient-flossing" else {"unstable_at"}
    empty = {}
    for name, (dims, values, _) in record.variables.items():
        lost = name not in kept and (values.dtype.kind == "f" or name in counts)
        empty[name] = (dims, np.full(values.shape, np.nan) if lost else values)
    along = {name: (dims, values) for name, (dims, values, _) in record.coordinates.items()}
    experiment = smoke(paper, figure)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        if paper != "gradient-flossing":
            warnings.simplefilter("ignore")
        found = experiment.checks(Record(record.kind, record.config, empty, along))
    assert {c.key: c.outcome for c in found if c.outcome != UNDECIDED} == {}
    assert [c.key for c in found] == [c.key for c in experiment.checks(record)]


# every fourth always, those that take least; all where there is time
@pytest.mark.parametrize(
    ("paper", "figure"),
    [
        pytest.param(*name, marks=[pytest.mark.slow] if i % 4 != 3 else [], id=" ".join(name))
        for i, name in enumerate(UNTIMED)
    ],
    scope="module",
)
def test_equal_runs_give_equal_records(paper, figure, record):
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
    assert set(chosen.costs()) == set(SCALES)
    assert set(chosen.scales) == {"smoke", "small"}
    for changes in chosen.scales.values():
        assert chosen(**changes) != chosen()


def test_the_page_says_what_small_scale_changes():
    page = (Path(__file__).parents[2] / "docs/gradient-flossing.md").read_text(encoding="utf-8")

    def shown(value):
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    for name, figure in FIGURES["gradient-flossing"].items():
        paper, small = asdict(figure()), asdict(figure(**figure.scales["small"]))
        changed = [
            f"`{key}` {shown(small[key])} for {shown(paper[key])}"
            for key in paper
            if small[key] != paper[key]
        ]
        assert f"| {name} | {'; '.join(changed)} |" in page


def test_the_figure_that_the_docs_add_is_made_drawn_and_checked():
    page = (Path(__file__).parents[2] / "docs/extending.md").read_text(encoding="utf-8")
    cells = re.findall(r"```{code-cell}\n(?:---\n.*?\n---\n)?(.*?)```", page, re.DOTALL)
    (cell,) = (cell for cell in cells if "@declare" in cell)
    made = {"torch": torch}
    exec(cell, made)
    record = made["record"]
    assert record.kind == "beyond quiet"
    assert isinstance(made["Quiet"].draw(record), Figure)
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
