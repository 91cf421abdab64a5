"""`lyap reproduce --seed`, and figures whose picture fails: what was computed is kept and drawn."""

import ast
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

import lyaptorch
from command import command, files
from figures import NAMES, TIMED, every_figure, smoke
from lyaptorch.experiments import FIGURES, SCALES
from lyaptorch.experiments.figure import Figure, declare
from lyaptorch.experiments.recorded import recorded_scale
from lyaptorch.record import Record

PAPER = "gradient-flossing"
QUICK = [(PAPER, "fig1b"), (PAPER, "fig15"), ("surrogate-flossing", "fig4"), ("weak-coupling", "fig1")]
QUICK += [("beyond", "memory-limit")]
SOURCE = Path(lyaptorch.__file__).parent / "experiments"


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    kept = {PAPER: ("fig15", "fig16"), "surrogate-flossing": ("fig1d",)}
    for paper in list(FIGURES):
        few = {name: FIGURES[paper][name] for name in kept.get(paper, ())}
        monkeypatch.setitem(FIGURES, paper, few)
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


@every_figure
def test_every_figure_has_a_seed_that_its_record_tells(paper, figure):
    experiment = smoke(paper, figure)
    assert "seed" in {field.name for field in fields(experiment)}
    assert isinstance(experiment.seed, int)
    other = asdict(replace(experiment, seed=experiment.seed + 7))
    assert other != asdict(experiment)
    # with another seed it is still of the same scale
    assert recorded_scale(Record(f"{paper} {figure}", other, {}), FIGURES[paper][figure]) == "smoke"
    assert all("seed" not in FIGURES[paper][figure].scales.get(scale, {}) for scale in SCALES)


def test_no_figure_draws_from_a_number_that_is_not_its_seed():
    """What seeds a stream names a seed, or, beside streams that do, an epoch for frames."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if called in ("manual_seed", "Stream") and "seed" not in ast.unparse(node.args[0]):
                found.setdefault(path.name, []).append(ast.unparse(node))
    # vectors of timed products; frames, one for each epoch
    assert {name: len(calls) for name, calls in found.items()} == {"cost.py": 2, "depth.py": 1}


def test_every_training_of_a_figure_is_seeded():
    """Calls that would take a documented default seed of their own."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            seeded = isinstance(node, ast.Call) and any(
                k.arg in (None, "generator", "seed") for k in node.keywords
            )
            if called in ("train", "evaluate", "gf2023", "floss") and not seeded:
                found.append(f"{path.relative_to(SOURCE)}: {ast.unparse(node)[:30]}")
    # what `lyap train` and sweeps do, which is no figure: all are tested on the same batches
    assert {line.partition(":")[0] for line in found} == {"trainings.py"}


@pytest.mark.parametrize(("paper", "figure"), QUICK)
def test_seeds_change_what_is_measured(paper, figure):
    one, other = (replace(smoke(paper, figure), seed=seed).record(False, None) for seed in (0, 5))
    changed = [name for name in one.variables if (one[name] != other[name]).any()]
    assert changed, f"{paper} {figure} is the same with any seed"


@pytest.mark.slow
@every_figure
def test_seeds_change_every_figure(paper, figure):
    if figure in TIMED:
        pytest.skip("its Record holds measured times")
    one, other = (replace(smoke(paper, figure), seed=seed).record(False, None) for seed in (0, 5))
    assert any((one[name] != other[name]).any() for name in one.variables)


@pytest.mark.usefixtures("blank")
def test_runs_with_other_seeds_have_files_of_their_own(lyap, tmp_path):
    flags = ["reproduce", PAPER, "fig15", "--scale", "smoke"]
    usual = lyap.json(*flags)
    same, other = lyap.json(*flags, "--seed", 0), lyap.json(*flags, "--seed", 5)
    assert Record.load(usual["record"]) == Record.load(same["record"])
    assert other["record"] == f"runs/{PAPER}-fig15-smoke-seed5.nc"
    assert Record.load(other["record"]) == replace(smoke(PAPER, "fig15"), seed=5).record(False, None)
    assert Record.load(other["record"]).config["seed"] == 5
    assert "smoke, seed 5: " in " ".join(lyap("reproduce")[1].split())
    seeds = [r["seed"] for row in lyap.json("reproduce", "--list")["figures"] for r in row["records"]]
    assert sorted(seeds) == [0, 0, 5]
    assert "seed must be an integer in 0..9223372036854775807, got -1" in lyap.fails(*flags, "--seed", -1)


@pytest.mark.usefixtures("blank")
def test_all_figures_of_a_seed_are_those_of_this_seed(lyap, tmp_path):
    lyap.json("reproduce", PAPER, "all", "--scale", "smoke")
    flags = ["reproduce", PAPER, "all", "--scale", "smoke", "--seed", 3]
    assert "0 of 2 figures are made already" in lyap(*flags)[1]
    assert "2 of 2 figures are made already" in lyap(*flags)[1]
    assert "2 of 2 figures are made already" in lyap(*flags[:-2])[1]
    names = {path.name for path in files(tmp_path / "runs") if path.suffix == ".nc"}
    assert names == {f"{PAPER}-{f}-smoke{s}.nc" for f in ("fig15", "fig16") for s in ("", "-seed3")}
    # the page of checks tells of all seeds
    page = lyap.json("report", "--markdown", "checks.md", "--scale", "smoke")["markdown"]
    assert "| holds in 2 of 2 seeds | holds |" in (tmp_path / page).read_text()


def test_a_figure_without_a_picture_cannot_be_declared():
    with pytest.raises(TypeError, match="draw"):
        declare(PAPER, "fig0", "nothing", cost=("1 s", "1 s", "1 s"))(Figure)


@pytest.mark.parametrize("figure", ["fig15", "all"])
def test_a_figure_whose_picture_fails_is_kept_and_drawn_by_the_next_call(lyap, tmp_path, monkeypatch, figure):
    def broken(record):
        raise TypeError("no ink")

    flags = ["reproduce", PAPER, figure, "--scale", "smoke"]
    path = tmp_path / f"runs/{PAPER}-fig15-smoke.nc"
    with monkeypatch.context() as patch:
        patch.setattr(FIGURES[PAPER]["fig15"], "draw", staticmethod(broken))
        status, _, err = lyap(*flags)
    assert status == 2
    assert (
        f"the Record is saved as runs/{path.name}, but its figure cannot be drawn: TypeError('no ink')" in err
    )
    assert not path.with_suffix(".png").exists()
    before = path.read_bytes(), path.with_suffix(".host.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(FIGURES[PAPER]["fig15"], "run", lambda self, study: broken(study))
        assert lyap(*flags)[::2] == (0, "")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert (path.read_bytes(), path.with_suffix(".host.json").read_bytes()) == before
    # Record, its side file, and a picture of each kind
    assert len([name for name in files(tmp_path / "runs") if "fig15" in name.name]) == 4


def test_an_interrupt_says_that_it_resumes_if_something_is_kept(lyap, tmp_path, monkeypatch):
    def interrupted(self, study):
        if self.seed == 9:
            study.part("part").checkpoint.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(FIGURES[PAPER]["fig15"], "run", interrupted)
    nothing = "lyap: interrupted; no file is half written\n"
    kept = nothing.replace("\n", ", the same command resumes\n")
    flags = ["reproduce", PAPER, "fig15", "--scale", "smoke"]
    assert lyap(*flags)[::2] == (130, nothing)
    assert lyap(*flags, "--seed", 9)[::2] == (130, kept)
    assert NAMES
