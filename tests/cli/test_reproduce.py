"""The commands `lyap reproduce` and `lyap train`."""

import numpy as np
import pytest
import torch

import lyaptorch as lt
from command import command, files
from figures import NAMES, made, smoke
from lyaptorch.cli import foresee
from lyaptorch.experiments import FIGURES, SCALES
from lyaptorch.experiments.forecast import Forecast, Stretch
from lyaptorch.record import Record
from lyaptorch.tasks import archives


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def test_reproduce_lists_every_figure_and_what_it_costs(lyap, tmp_path):
    for arguments in (["--list"], []):
        status, out, err = lyap("reproduce", *arguments)
        assert (status, err) == (0, "")
        assert all(figure in out for _, figure in NAMES)
        assert all(word in out for word in ("gradient-flossing", "smoke", "small", "paper"))
    listed = lyap.json("reproduce", "--list")["figures"]
    assert [(row["paper"], row["figure"]) for row in listed] == NAMES
    assert all(row["shows"] and set(row["cost"]) == set(SCALES) for row in listed)
    assert files(tmp_path) == {tmp_path.joinpath("net.py").relative_to(tmp_path)}


def test_a_dry_run_says_what_it_would_take_and_makes_nothing(lyap, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ("reproduce", "gradient-flossing", "fig4c", "--scale", "smoke", "--dry-run")
    (found,) = lyap.json(*arguments)["figures"]
    cost = sum(s["epochs"] * s["seconds"] for s in found["stretches"])
    assert [s["what"] for s in found["stretches"]] == ["floss", "fit", "floss"]
    assert found["processor_seconds"] >= round(cost, 3)
    status, out, err = lyap(*arguments)
    assert (status, err) == (0, "")
    assert "all else" in out
    assert not list((tmp_path / "runs").glob("**/*.nc"))


def test_a_dry_run_counts_the_seeds_that_are_asked_for(lyap, monkeypatch):
    foreseen = []

    def noted(figure):
        foreseen.append(figure)
        return Forecast([Stretch("fit", 5, 10, 0.5, 0.0)])

    monkeypatch.setattr(foresee, "forecast", noted)
    arguments = ("reproduce", "gradient-flossing", "fig4c", "--dry-run", "--seeds", "3")
    # in parts the figure has so many networks; else it is made so many times
    for scale, networks in (("paper", 5), ("small", 15)):
        (found,) = lyap.json(*arguments, "--scale", scale)["figures"]
        assert [s["networks"] for s in found["stretches"]] == [networks]
    assert [figure.seeds == 3 for figure in foreseen] == [True, False]


def test_a_dry_run_of_paper_scale_counts_what_is_made(lyap, monkeypatch):
    """Figures that share parts once, those that are not cut with as many seeds as are made."""
    monkeypatch.setattr(foresee, "forecast", lambda figure: Forecast([Stretch("fit", 1, 10, 0.5, 0.0)]))
    found = lyap.json("reproduce", "gradient-flossing", "all", "--scale", "paper", "--dry-run")["figures"]
    networks = {row["figure"]: row["stretches"][0]["networks"] for row in found}
    assert {"fig13", "fig4d"} & networks.keys() == {"fig4d"}
    assert networks["fig4d"] == 1
    assert networks["fig1b"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "--seed", 3], "all figures are listed, whatever --seed may say; drop it"),
        (
            ["--scale", "paper", "--workers", 2],
            "all figures are listed, whatever --scale, --workers may say; dro",
        ),
        (
            ["gradient-flossing", "--list"],
            "all figures are listed, whatever gradient-flossing may say; drop it",
        ),
        (
            ["gradient-flossing", "fig1b", "--dry-run", "--workers", 2],
            "--dry-run makes nothing, whatever --workers may",
        ),
        (
            ["gradient-flossing", "fig4c", "--scale", "paper", "--gather", "--budget", "2h"],
            "--gather makes nothing, whatever --budget may say; drop it",
        ),
        (
            ["gradient-flossing", "fig1b", "--seed", 2**64],
            "seed must be an integer in 0..9223372036854775807",
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(lyap, arguments, message):
    assert message in lyap.fails("reproduce", *arguments)


@pytest.mark.parametrize("option", [("--gather",), ("--budget", "2h"), ("--records", "elsewhere")])
def test_what_is_of_paper_scale_is_refused_elsewhere(lyap, tmp_path, option):
    message = "--records, --budget and --gather are of paper scale; add --scale paper, or drop them"
    assert message in lyap.fails("reproduce", "gradient-flossing", "fig1b", "--scale", "smoke", *option)
    assert not list((tmp_path / "runs").glob("**/*.nc"))


def test_reproduce_as_json_is_the_figure_of_the_library(lyap, tmp_path):
    summary = lyap.json("reproduce", "gradient-flossing", "fig1b", "--scale", "smoke")
    experiment, record = smoke("gradient-flossing", "fig1b"), Record.load(summary["record"])
    torch.set_default_dtype(torch.float32)
    assert record == experiment.record(False, None)
    # JSON has no NaN
    assert summary["checks"] == [
        {name: None if value != value else value for name, value in check.facts().items()}
        for check in experiment.checks(record)
    ]
    assert len(summary["checks"]) == 4
    names = {p.name for p in files(tmp_path / "runs")}
    assert names == {f"gradient-flossing-fig1b-smoke.{end}" for end in ("nc", "png", "pdf", "host.json")}


PAPER = "gradient-flossing"


@pytest.mark.parametrize(
    ("name", "other"), [("fig1d", "fig1c"), ("fig2b", "fig2a"), ("fig9", "fig8"), ("fig11", "fig10")]
)
def test_what_another_figure_measured_is_not_measured_again(lyap, tmp_path, monkeypatch, name, other):
    def measured(self, study):
        raise FloatingPointError("measured again")

    theirs = made(PAPER, other)
    expected = made(PAPER, name)
    path = tmp_path / "runs" / f"{PAPER}-{other}-smoke.nc"
    path.parent.mkdir()
    monkeypatch.setattr(FIGURES[PAPER][name], "run", measured)
    order = ("reproduce", PAPER, name, "--scale", "smoke")
    assert "measured again" in lyap.fails(*order)
    # of another version, and of other settings
    Record(theirs.kind, {**theirs.config, "new": 1}, theirs.variables, theirs.coordinates).save(path)
    assert "measured again" in lyap.fails(*order)
    theirs.save(path)
    assert "measured again" in lyap.fails(*order, "--seed", 77)
    found = Record.load(lyap.json(*order)["record"])
    assert (found.kind, found.config) == (expected.kind, Record(expected.kind, expected.config, {}).config)
    assert list(found) == list(expected)
    for key in expected:
        if expected[key].dtype.kind == "f":
            np.testing.assert_allclose(found[key], expected[key], atol=1e-3, err_msg=key)
        else:
            np.testing.assert_array_equal(found[key], expected[key])


def test_reproduce_prints_a_table_and_null_for_what_is_not_known(lyap):
    status, out, err = lyap("reproduce", "gradient-flossing", "fig8", "--scale", "smoke")
    assert (status, err) == (0, "")
    assert "share of networks that learn" in out
    assert "not decided: nan did not occur" in out
    assert "Record runs/gradient-flossing-fig8-smoke.nc" in out
    checks = lyap.json("reproduce", "gradient-flossing", "fig8", "--scale", "smoke")["checks"]
    # two networks decide nothing, and of one check nothing is known
    assert {check["outcome"] for check in checks} == {"not decided"}
    assert [check["key"] for check in checks if check["measured"] is None] == ["learned"]


def test_image_files_are_looked_for_in_the_folder_that_is_named(lyap, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_loaded", {})
    monkeypatch.setenv("LYAPTORCH_DATA", "elsewhere")
    status, _, err = lyap(
        "reproduce", "weak-coupling", "images", "--scale", "smoke", "--data-dir", tmp_path / "data"
    )
    assert status == 2
    assert "train-images-idx3-ubyte.gz" in err
    assert str(tmp_path / "data" / "mnist") in err.replace("\n", "")


TINY = ["--delay", 4, "--seeds", 2, "--hidden-size", 8, "--k", 4, "--floss-epochs", 2, "--epochs", 3]
TINY += ["--batch", 2, "--length", 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["reproduce", "gradient-flosing", "fig1b"],
            "unknown paper 'gradient-flosing', did you mean 'gradie",
        ),
        (["reproduce", "gradient-flossing", "fig1x"], "unknown figure 'fig1x', did you mean 'fig1"),
        (["reproduce", "gradient-flossing"], "unknown figure '';"),
        (
            ["reproduce", "gradient-flossing", "fig1b", "--threads", 0],
            "threads must be an integer in 1..1024, got 0",
        ),
        (
            ["reproduce", "gradient-flossing", "fig1b", "--scale", "smoke", "--workers", 2],
            "one figure of one seed is made by one process, got --workers 2; drop it, or add --seeds",
        ),
        (["train", "temporal_xr", *TINY], "unknown task 'temporal_xr', did you mean 'temporal_xor'"),
        (
            ["train", "temporal_xor", *TINY, "--schedule", "durin"],
            "unknown schedule 'durin', did you mean 'du",
        ),
        (
            ["train", "temporal_xor", *TINY, "--preset", "gf2024"],
            "unknown preset 'gf2024', did you mean 'gf20",
        ),
        (["train", "temporal_xor", *TINY, "--delay", 3], "delay must be even, got 3"),
        (["train", "temporal_xor", *TINY, "--k", 9], "k must be an integer in 1..8, got 9"),
        (["train", "temporal_xor", *TINY, "--length", 4], "delay must be below the length of a trial"),
        (["train", "temporal_xor", *TINY, "--seeds", 0], "seeds must be an integer >= 1, got 0"),
        (["train", "temporal_xor", *TINY, "--epochs", -1], "epochs must be an integer >= 0, got -1"),
        (["train", "temporal_xor", *TINY, "--lr", -1.0], "lr must be finite and at least 0"),
        (["train", "temporal_xor", *TINY, "--threads", 0], "threads must be an integer in 1..1024, got 0"),
        (
            ["train", "temporal_xor", *TINY, "--threads", 100_000],
            "threads must be an integer in 1..1024, got 1",
        ),
        (["train", "temporal_xor", *TINY, "--batch", 0], "batch must be an integer >= 1, got 0"),
        (["train", "temporal_xor", *TINY, "--length", 0], "length must be an integer >= 1, got 0"),
        (
            ["train", "temporal_xor", *TINY, "--floss-epochs", -1],
            "floss_epochs must be an integer >= 0, got -1",
        ),
        (
            ["train", "temporal_xor", *TINY, "--floss-clip", -1],
            "floss_clip must be finite and at least 0, got -1",
        ),
        (["train", "temporal_xor", *TINY, "--lr", "nan"], "lr must be finite and at least 0, got nan"),
        (["train", "temporal_xor", *TINY, "--gain", "inf"], "gain must be finite, got inf; correct it"),
        (
            ["train", "temporal_xor", *TINY, "--seed", 2**64],
            "seed must be an integer in 0..92233720368547758",
        ),
    ],
    ids=lambda value: " ".join(map(str, value[:3] + value[-2:])) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence_and_status_2(lyap, arguments, message):
    assert message in lyap.fails(*arguments)


@pytest.mark.parametrize("task", ["temporal_xor", "recall"])
def test_train_prints_accuracy_and_writes_a_record(lyap, tmp_path, task):
    summary = lyap.json("train", task, *TINY, "--items", 2)
    assert len(summary["accuracy"]) == len(summary["loss"]) == 2
    assert all(0 <= value <= 1 for value in summary["accuracy"])
    names = {f"train-{task}-pre.{end}" for end in ("nc", "png", "host.json")}
    assert {p.name for p in files(tmp_path / "runs")} == names
    record = Record.load(summary["record"])
    assert record.kind == "train"
    assert record["loss"].shape == (2, 3)
    assert record["exponents"].shape == (2, 2, 4)
    status, out, err = lyap("train", task, *TINY, "--items", 2)
    assert (status, err) == (0, "")
    assert all(f"{value:.3f}" in out for value in summary["accuracy"])
    # the same command again is another run, not a resume
    assert Record.load(tmp_path / "runs" / f"train-{task}-pre-2.nc") == record


def test_train_is_the_training_of_the_library(lyap):
    summary = lyap.json("train", "temporal_xor", *TINY, "--seed", 5, "--schedule", "joint", "--lr", 0.01)
    torch.set_default_dtype(torch.float32)
    seeded, task = torch.Generator().manual_seed, lt.tasks.TemporalXOR(4)
    model = lt.presets.gf2023(task, hidden_size=8, rows=2, ensemble=(2,), generator=seeded(5))
    schedule = lt.schedules.SCHEDULES["joint"](3, lt.FlossPhase(2, k=4))
    settings = {"batch": 2, "steps": 20}
    record = lt.train(model, task, schedule, lr=0.01, generator=seeded(5), **settings)
    found = Record.load(summary["record"])
    # beside what the library tells, how the networks were drawn
    drawn = {"preset": "gf2023", "gain": 1.0, "weights": "gaussian"}
    assert found == Record(record.kind, {**record.config, **drawn}, record.variables, record.coordinates)
    scores = lt.evaluate(model, task, **settings)
    assert all(summary[name] == scores[name].tolist() for name in ("loss", "accuracy"))
