"""The commands `lyap report`, `show`, `diff` and `rm`, and what `lyap reproduce --list` says of Records."""

import io
import json
import math
import sys

import numpy as np
import pytest
import torch

import figures
from command import command, files
from lyaptorch import record as record_module
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.check import at_least, near
from lyaptorch.experiments.recorded import figure_of, recorded_checks, recorded_scale
from lyaptorch.plots import html as pages
from lyaptorch.plots.primitives import Drawing
from lyaptorch.record import Record
from pages import Reader

pytestmark = pytest.mark.usefixtures("unchecked")
FIG = FIGURES["gradient-flossing"]["fig15"]
CURVES = {
    "loss": (("member", "epoch"), torch.rand(2, 5)),
    "accuracy": (("member", "epoch"), torch.rand(2, 5)),
}


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


@pytest.fixture
def made():
    """A figure at smoke scale, quickly made, once for all."""
    return figures.made("gradient-flossing", "fig15")


@pytest.fixture
def runs(tmp_path, made):
    folder = tmp_path / "runs"
    made.save(folder / "gradient-flossing-fig15-smoke", host={"seconds": 2.5})
    Record("train", {"lr": 0.1, "note": "<b>&"}, CURVES).save(folder / "training", host={"seconds": 7300.0})
    Record("own", {}, {"x": ((), 1.0)}).save(folder / "own")
    (folder / "broken.nc").write_bytes(b"nothing")
    return folder


def test_a_record_says_again_what_it_is(made):
    assert figure_of(made, FIGURES) is FIG
    assert recorded_checks(made, FIG) == FIG(**FIG.scales["smoke"]).checks(made)
    assert recorded_scale(made, FIG) in ("smoke", "small", "paper")
    reseeded = Record(made.kind, {**made.config, "seed": 77}, made.variables, made.coordinates)
    assert recorded_scale(reseeded, FIG) == recorded_scale(made, FIG)
    changed = Record(made.kind, {**made.config, "gain": 7.7}, made.variables, made.coordinates)
    assert recorded_scale(changed, FIG) == ""
    # another version of the figure had other settings, or measured something else
    other = Record(made.kind, {**made.config, "old": 1}, made.variables)
    assert recorded_checks(other, FIG) is None
    assert recorded_checks(Record(made.kind, made.config, {}), FIG) is None
    assert figure_of(Record("train", {}, {}), FIGURES) is None
    assert figure_of(Record("gradient-flossing fig99", {}, {}), FIGURES) is None


def test_report_is_one_page_that_loads_nothing(lyap, runs, monkeypatch):
    facts = lyap.json("report", "runs")
    assert (facts["page"], facts["records"], facts["unreadable"]) == ("runs/report.html", 3, ["broken.nc"])
    assert facts["checks"] == facts["held"] > 0
    text = (runs / "report.html").read_text()
    page = Reader(text)
    assert page.open == []
    assert not {name for name, _ in page.tags} & {"script", "link", "iframe", "img", "object", "base", "form"}
    links = [a["href"] for a in page.of("a")]
    assert links == ["#record0", "#record1", "#record2"]
    assert {a["id"] for a in page.of("div") if a.get("id")} == {"record0", "record1", "record2"}
    assert len(page.of("figure")) == 2
    assert len({a["id"] for _, a in page.tags if "id" in a}) == sum("id" in a for _, a in page.tags)
    seen = " ".join(page.texts)
    for words in (
        f"3 Records, 2.0 h of computing; of {facts['checks']} checks {facts['held']} hold.",
        "broken.nc: cannot load",
        "<b>&",
        "This version of lyaptorch draws no figure of it.",
        torch.__version__,
    ):
        assert words in seen, words
    assert 'name="viewport"' in text
    status, out, err = lyap("report", "runs", "--out", "page.html")
    assert (status, err) == (0, "")
    assert "Page page.html" in out
    # of many Records figures take the time
    monkeypatch.delattr(Record, "plot")
    assert lyap.json("report", "runs", "--no-figures") == facts
    page = Reader((runs / "report.html").read_text())
    assert (len(page.of("figure")), page.texts.count("Figures were left out.")) == (0, 3)


def test_a_check_that_does_not_hold_is_said_so(lyap, runs, monkeypatch):
    monkeypatch.setattr(FIG, "checks", lambda self, record: [_missed()])
    assert lyap.json("report", "runs")["held"] == 0
    seen = " ".join(Reader((runs / "report.html").read_text()).texts)
    assert "of 1 checks 0 hold, 1 does not" in seen
    assert "it is so 1 ± 0.5 2 does not hold claim" in seen
    status, out, _ = lyap("show", "gradient-flossing-fig15-smoke")
    assert status == 0
    assert "does not hold" in out


def test_a_check_that_is_not_decided_is_neither_held_nor_missed(lyap, runs, monkeypatch):
    checks = [_missed(), at_least("b", "it is large", 3.0, math.nan, kind="question")]
    monkeypatch.setattr(FIG, "checks", lambda self, record: checks)
    facts = lyap.json("report", "runs")
    assert (facts["checks"], facts["held"], facts["undecided"]) == (2, 0, 1)
    seen = " ".join(Reader((runs / "report.html").read_text()).texts)
    assert "of 2 checks 0 hold, 1 does not, 1 not decided" in seen
    assert "it is large ≥ 3" in seen
    assert "not decided question" in seen
    shown = lyap.json("show", "gradient-flossing-fig15-smoke")["checks"]
    assert [check["outcome"] for check in shown] == ["does not hold", "not decided"]
    assert [check["side"] for check in shown] == ["within", "at least"]
    assert "not decided" in lyap("show", "gradient-flossing-fig15-smoke")[1]


def _missed():
    return near("a", "it is so", 1.0, 2.0, 0.5)


def test_a_heavy_figure_is_drawn_as_pixels_and_a_wide_one_scrolls(monkeypatch):
    curves = {name: (("member", "epoch"), torch.rand(4, 3000)) for name in ("loss", "accuracy")}
    drawn = Record("train", {}, curves).plot()
    small = pages.figure(Drawing("a", drawn, "", "alt", (), ()))
    assert 'class="scroll wide"' in small
    monkeypatch.setattr(pages, "HEAVY", 20_000)
    heavy = pages.figure(Drawing("a", drawn, "", "alt", (), ()))
    assert len(heavy) < len(small)
    assert 'href="data:image/png;base64' in heavy
    assert "data:image" not in small
    # words stay words
    assert "Accuracy" in heavy


def test_list_of_figures_says_what_is_made_and_what_it_cost(lyap, runs, made):
    rows = {(row["paper"], row["figure"]): row for row in lyap.json("reproduce", "--list")["figures"]}
    (found,) = rows["gradient-flossing", "fig15"]["records"]
    checks = FIG(**FIG.scales["smoke"]).checks(made)
    assert found["path"] == "runs/gradient-flossing-fig15-smoke.nc"
    assert (found["checks"], found["held"]) == (len(checks), sum(c.holds for c in checks))
    assert (found["scale"], found["seconds"]) == (recorded_scale(made, FIG), 2.5)
    assert all(not row["records"] for name, row in rows.items() if name[1] != "fig15")
    status, out, _ = lyap("reproduce", "--list")
    assert status == 0
    assert "2 s *" in out


def test_show_prints_what_a_record_holds(lyap, runs):
    shown = lyap.json("show", "training")
    assert (shown["path"], shown["kind"], shown["config"]["lr"]) == ("runs/training.nc", "train", 0.1)
    by = {row["name"]: row for row in shown["variables"]}
    loss = CURVES["loss"][1]
    assert by["loss"]["size"] == {"member": 2, "epoch": 5}
    assert (by["loss"]["least"], by["loss"]["most"]) == (float(loss.min()), float(loss.max()))
    np.testing.assert_allclose(by["loss"]["mean"], float(loss.mean()), rtol=1e-6)
    assert shown["host"]["seconds"] == 7300.0
    status, out, err = lyap("show", "runs/training.nc")
    assert (status, err) == (0, "")
    assert "member 2, epoch 5" in out


def test_diff_says_in_what_two_records_differ(lyap, runs):
    assert lyap.json("diff", "training", "training")["equal"] is True
    assert lyap("diff", "training", "runs/training.nc")[1] == "equal\n"
    other = {
        "loss": (("member", "epoch"), CURVES["loss"][1] + 0.5),
        "accuracy": (("member", "fit"), torch.rand(2, 4)),
    }
    other["only"] = ((), np.array("word"))
    Record("train", {"lr": 0.2, "note": "<b>&"}, other).save(runs / "other")
    found = lyap.json("diff", "training", "other")
    assert (found["equal"], found["settings"]) == (False, {"lr": [0.1, 0.2]})
    assert found["values"]["loss"] == pytest.approx(0.5)
    assert found["values"]["accuracy"] == "sizes 2 by 5 and 2 by 4"
    assert found["values"]["only"] == "only in the second"
    status, out, _ = lyap("diff", "training", "own")
    assert status == 0
    assert "kind" in out
    assert "only in the first" in out
    odd = torch.tensor([[1.0, torch.nan, torch.inf]])
    for name, values in (("a", odd), ("b", odd.clone()), ("c", torch.tensor([[1.0, 2.0, torch.inf]]))):
        Record("train", {}, {"loss": (("member", "epoch"), values)}).save(runs / name)
    assert lyap.json("diff", "a", "b")["values"]["loss"] == 0.0
    assert lyap.json("diff", "a", "c")["values"]["loss"] is None


def test_records_of_equal_numbers_that_differ_are_told_in_what(lyap, tmp_path):
    x = np.array([0.0, 1.0])
    own = {"": ("k", {"x": 1}, {"v": (("i",), x)})}
    own["type"] = ("k", {"x": 1}, {"v": (("i",), x.astype(np.float32))})
    own["bits"] = ("k", {"x": 1}, {"v": (("i",), np.array([-0.0, 1.0]))})
    own["unit"] = ("k", {"x": 1}, {"v": (("i",), x, {"units": "s"})})
    own["dims"] = ("k", {"x": 1}, {"v": (("j",), x)})
    own["role"] = ("k", {"x": 1}, {}, {"v": (("i",), x)})
    own["none"] = ("k", {"x": 1, "y": None}, {"v": (("i",), x)})
    own["real"] = ("k", {"x": 1.0}, {"v": (("i",), x)})
    for name, given in own.items():
        Record(*given).save(tmp_path / "runs" / f"a{name}")
    told = {
        "type": "equal, but of type float64 and of type float32",
        "bits": "equal, but not to the bit",
        "unit": "equal, but with attributes {} and with attributes {'units': 's'}",
        "dims": "equal, but along i and along j",
        "role": "equal, but a variable and a coordinate",
    }
    for name, words in told.items():
        assert lyap.json("diff", "a", f"a{name}")["values"] == {"v": words}
    assert lyap.json("diff", "a", "anone")["settings"] == {"y": [None, None]}
    assert "missing" in lyap("diff", "a", "anone")[1]
    assert lyap.json("diff", "a", "areal")["settings"] == {"x": [1, 1.0]}


def test_rm_removes_a_record_with_all_that_stands_beside_it(lyap, runs, tmp_path, monkeypatch):
    for end in (".png", ".html"):
        (runs / f"training{end}").touch()
    before = files(tmp_path)
    assert "6 files would be removed; pass --yes" in lyap.fails("rm", "training", "own")
    gone = lyap.json("rm", "training", "broken", "--yes")["removed"]
    assert len(gone) == 5
    assert before - files(tmp_path) == {(tmp_path / path).relative_to(tmp_path) for path in gone}
    for answer, left in (("n", True), ("", True), ("y", False)):
        stdin = io.StringIO(f"{answer}\n" if answer else "")
        monkeypatch.setattr(stdin, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", stdin)
        # a Record that is named twice is one, and the question is no part of the answer
        status, out, err = lyap("rm", "own", "own.nc", "--json")
        assert (status, len(json.loads(out)["removed"])) == (0, 0 if left else 2)
        assert "Remove these 2 files? [y/N]" in err
        assert (runs / "own.nc").exists() == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "there are no Records in nowhere; make one, or name another folder"),
        (["report", "runs", "--out", "nowhere/page.html"], "cannot write nowhere/page.html"),
        (
            ["report", "runs", "--out", "runs/own.nc"],
            "--out writes a page, got runs/own.nc; name a file such",
        ),
        (["report", "runs", "--markdown", "runs/own.host.json"], "--markdown writes a page, got runs/own.ho"),
        (["report", "runs", "--scale", "small"], "--scale and --records are of the Markdown; add --markdown"),
        (["report", "runs", "--records", "parts"], "--scale and --records are of the Markdown; add --mark"),
        (["show", "nope"], "there is no Record nope.nc, nor runs/nope.nc; in runs there are: broken, grad"),
        (["show", "broken"], "cannot load runs/broken.nc"),
        (["diff", "training", "nope"], "there is no Record nope.nc"),
        (["rm", "nope", "--yes"], "there is no Record nope.nc"),
        (["rm", "training", "nope", "--yes"], "there is no Record nope.nc"),
        (["rm", "net.py", "--yes"], "there is no Record net.py.nc"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence(lyap, runs, arguments, message):
    assert message in lyap.fails(*arguments)


def test_a_record_of_a_newer_version_is_named_and_left_alone(lyap, runs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "_VERSION", 99)
        Record("train", {}, CURVES).save(runs / "newer")
    before = (runs / "newer.nc").read_bytes()
    assert "format_version must be 1 or 2, got 99; update lyaptorch" in lyap.fails("show", "newer")
    assert lyap.json("report", "runs")["unreadable"] == ["broken.nc", "newer.nc"]
    assert "update lyaptorch" in (runs / "report.html").read_text()
    assert (runs / "newer.nc").read_bytes() == before


def test_tensorboard_shows_every_curve(lyap, runs, tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    rows = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, torch.nan]]])
    Record("train", {}, {"exponents": (("member", "floss_epoch", "index"), rows)}).save(runs / "own")
    facts = lyap.json("report", "runs", "--tensorboard", "events")
    assert facts["curves"] == 2 * 2 + 3
    for member in range(2):
        found = events.EventAccumulator(str(tmp_path / f"events/training/member{member}")).Reload()
        assert [e.step for e in found.Scalars("loss")] == list(range(5))
        np.testing.assert_allclose([e.value for e in found.Scalars("loss")], CURVES["loss"][1][member])
    own = events.EventAccumulator(str(tmp_path / "events/own/member0")).Reload()
    assert [e.value for e in own.Scalars("exponents/1")] == [1.0, 4.0]
    assert [e.value for e in own.Scalars("exponents/3")] == [3.0]


def test_without_tensorboard_a_sentence_says_what_to_install(lyap, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'lyaptorch[tensorboard]'" in lyap.fails("report", "runs", "--tensorboard", "events")
