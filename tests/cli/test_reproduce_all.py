"""`lyap reproduce all` makes what is missing, and `lyap report --markdown` tells how the checks stand."""

import json
import math
import re
from pathlib import Path

import pytest

from command import command, files
from lyaptorch.cli import figures as module
from lyaptorch.cli.claims import NOT_RUN, Standing, headline
from lyaptorch.cli.figures import rough_seconds
from lyaptorch.experiments import FIGURES, SCALES
from lyaptorch.experiments.check import REASONS, at_least, near, reason
from lyaptorch.experiments.over_seeds import over_seeds
from lyaptorch.record import Record
from lyaptorch.sweep import Serial

PAPER = "gradient-flossing"
README = Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs" / "checks.md"
pytestmark = pytest.mark.usefixtures("blank")


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    """The command, with three figures of two papers that take no time."""
    kept = {PAPER: ("fig15", "fig16"), "surrogate-flossing": ("fig1d",)}
    for paper in list(FIGURES):
        few = {name: FIGURES[paper][name] for name in kept.get(paper, ())}
        monkeypatch.setitem(FIGURES, paper, few)
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def test_all_makes_what_is_missing_and_nothing_else(lyap, tmp_path):
    runs = tmp_path / "runs"
    made = lyap.json("reproduce", PAPER, "all", "--scale", "smoke")
    assert [row["figure"] for row in made["figures"]] == ["fig15", "fig16"]
    assert made["failed"] == {}
    assert all(row["cpu_seconds"] > 0 and row["seconds"] > 0 for row in made["figures"])
    first = {path: path.read_bytes() for path in runs.iterdir()}
    status, out, err = lyap("reproduce", "all", "--scale", "smoke")
    assert (status, err) == (0, "")
    assert "2 of 3 figures are made already" in out
    assert "3/3 surrogate-flossing fig1d: " in out
    assert len(out.splitlines()) == 2
    assert {path: path.read_bytes() for path in first} == first
    # another scale is another figure; what was removed is made again
    (runs / f"{PAPER}-fig15-smoke.nc").unlink()
    assert "2 of 3 figures are made already" in lyap("reproduce", "all", "--scale", "smoke")[1]
    assert (runs / f"{PAPER}-fig15-smoke.nc").read_bytes() == first[runs / f"{PAPER}-fig15-smoke.nc"]
    assert "0 of 1 figures are made already" in lyap("reproduce", "surrogate-flossing", "all")[1]
    ends = {"nc", "png", "pdf", "host.json"}
    names = {path.name for path in files(runs)}
    assert {name.partition(".")[2] for name in names} == ends
    assert len(names) == 4 * len(ends)


def test_a_figure_that_fails_is_named_at_the_end_and_stops_no_other(lyap, tmp_path, monkeypatch):
    def broken(self, study):
        raise FloatingPointError("nothing is left")

    with monkeypatch.context() as patch:
        patch.setattr(FIGURES[PAPER]["fig15"], "run", broken)
        status, out, err = lyap("reproduce", "all", "--scale", "smoke")
        assert status == 2
        assert err == (
            "lyap: 1 of 3 figures failed, the others are saved: "
            "gradient-flossing fig15 with FloatingPointError: nothing is left\n"
        )
        assert "1/3 gradient-flossing fig15: FloatingPointError: nothing is left" in out
        assert "3/3 surrogate-flossing fig1d: 1 holds; " in out
    assert "2 of 3 figures are made already" in lyap("reproduce", "all", "--scale", "smoke")[1]


def test_figures_that_fail_alike_are_named_together_with_the_first_line_of_why(lyap, monkeypatch):
    def broken(self, study):
        raise RuntimeError("\n  no luck\nmore about it")

    for name in ("fig15", "fig16"):
        monkeypatch.setattr(FIGURES[PAPER][name], "run", broken)
    err = lyap("reproduce", PAPER, "all", "--scale", "smoke")[2]
    assert err.startswith("lyap: 2 of 2 figures failed")
    assert err.endswith("gradient-flossing fig15, gradient-flossing fig16 with RuntimeError: no luck\n")


def test_what_was_interrupted_goes_on_where_it_was(lyap, tmp_path, monkeypatch):
    def interrupted(self, study):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FIGURES[PAPER]["fig16"], "run", interrupted)
        status, out, err = lyap("reproduce", "all", "--scale", "smoke")
        assert status == 130
        assert err == "lyap: interrupted; no file is half written, the same command resumes\n"
        assert "fig15: 4 hold; " in out
        assert "fig1d" not in out
    status, out, err = lyap("reproduce", "all", "--scale", "smoke")
    assert (status, err) == (0, "")
    assert "1 of 3 figures are made already" in out
    assert "3/3 surrogate-flossing fig1d" in out


def test_of_two_records_of_a_figure_the_newer_counts(lyap, tmp_path):
    lyap.json("reproduce", PAPER, "fig15", "--scale", "smoke")
    old = tmp_path / f"runs/{PAPER}-fig15-smoke.nc"
    lyap.json("reproduce", PAPER, "fig15", "--scale", "smoke")
    # of another time, whose name comes later in the alphabet
    host = json.loads(old.with_suffix(".host.json").read_text())
    old.with_suffix(".host.json").write_text(json.dumps({**host, "time": "2020-01-01T00:00:00+00:00"}))
    answer = lyap.json("reproduce", PAPER, "fig15", "--scale", "smoke", "--seeds", 1)
    (row,) = answer["figures"]
    assert row["path"].endswith("-smoke-2.nc")


def test_what_a_figure_took_may_be_lost(lyap, tmp_path):
    lyap.json("reproduce", PAPER, "fig15", "--scale", "smoke")
    for end in ("host.json", "png"):
        (tmp_path / f"runs/{PAPER}-fig15-smoke.{end}").unlink()
    answer = lyap.json("reproduce", PAPER, "fig15", "--scale", "smoke", "--seeds", 1)
    assert answer["failed"] == {}
    assert len(answer["figures"]) == 1


def test_a_record_of_another_version_stops_no_command(lyap, tmp_path):
    (tmp_path / "runs").mkdir(exist_ok=True)
    made = lyap.json("reproduce", PAPER, "fig16", "--scale", "smoke")
    record = Record.load(made["record"])
    for name, config in (("a", {"seed": None}), ("b", {"seed": "abc"}), ("c", {"steps": None})):
        odd = Record(record.kind, {**record.config, **config}, record.variables, record.coordinates)
        odd.save(tmp_path / "runs" / name)
    rows = lyap.json("reproduce", "--list")["figures"]
    assert next(len(row["records"]) for row in rows if row["figure"] == "fig16") == 4
    assert lyap("report", "runs")[0] == 0


@pytest.mark.slow
def test_several_processes_make_the_same_records(lyap, tmp_path):
    alone = lyap.json("reproduce", PAPER, "all", "--scale", "smoke", "--runs", "alone")
    shared = lyap.json("reproduce", PAPER, "all", "--scale", "smoke", "--runs", "shared", "--workers", 2)
    assert len(alone["figures"]) == len(shared["figures"]) == 2
    by_name = {row["figure"]: Record.load(row["path"]) for row in shared["figures"]}
    assert all(Record.load(row["path"]) == by_name[row["figure"]] for row in alone["figures"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "fig1b"], "unknown paper 'all'"),
        (["all", "--workers", 0], "workers must be an integer >= 1, got 0"),
        ([PAPER, "al"], "unknown figure 'al'"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(lyap, arguments, message):
    assert message in lyap.fails("reproduce", *arguments)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ((2.0, 2.0, 2.0), "1 reproduced, 0 not reproduced, 0 not decided"),
        ((2.0, 2.0, math.nan), "1 reproduced, 0 not reproduced, 0 not decided"),
        ((2.0, math.nan, math.nan), "0 reproduced, 0 not reproduced, 1 not decided"),
        ((2.0, 2.0, 0.0), "0 reproduced, 1 reproduced in part, 0 not reproduced, 0 not decided"),
        ((math.nan, math.nan, 0.0), "0 reproduced, 1 not reproduced, 0 not decided"),
    ],
)
def test_a_sentence_that_is_checked_at_several_points_counts_once(measured, told):
    points = [at_least(f"d {i}", f"at {i}", 1.0, x, part_of="all") for i, x in enumerate(measured)]
    standing = Standing(over_seeds([points]))
    assert told in headline({(PAPER, "fig1b"): standing})


def test_the_page_of_checks_says_what_held_what_is_missed_and_what_was_not_run(lyap, tmp_path, monkeypatch):
    lyap.json("reproduce", PAPER, "fig16", "--scale", "smoke")
    found = [
        near("a", "|a| is so", 1.0, 2.0, 0.5),
        near("b", "it is so", 1.0, 1.0, 0.5),
        at_least("c", "c", 3.0, math.nan),
    ]
    monkeypatch.setattr(FIGURES[PAPER]["fig15"], "checks", lambda self, record: found)
    monkeypatch.setitem(REASONS[PAPER], "fig15", {"a": "It was too short.", "c": "It was too small."})
    status, out, err = lyap("reproduce", PAPER, "fig15")
    assert (status, err) == (0, "")
    assert "does not hold, |a| is so: It was too short.\n" in out
    assert "not decided, c: It was too small.\n" in out
    (tmp_path / f"{PAPER}.md").write_text("")
    status, out, err = lyap("report", "runs", "--markdown", "checks.md")
    assert (status, err) == (0, "")
    assert "Markdown checks.md" in out
    page = (tmp_path / "checks.md").read_text()
    line = (
        "**Claims of the papers**: at paper scale 0 reproduced, 0 not reproduced, 0 not decided "
        "(0 of 3 figures, 3 not run); at small scale 1 reproduced, 1 not reproduced, 1 not decided "
        "(1 of 3 figures, 2 not run)."
    )
    assert line in page
    assert line in " ".join(out.split())
    assert "\n### surrogate-flossing\n" in page
    head = f"\n### [{PAPER}]({PAPER}.md)\n"
    paper, checks = (
        [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        for part in page.split(head)[1:]
    )
    assert [row[0] for row in paper if NOT_RUN in row] == ["fig15", "fig16", "fig1d"]
    assert [row[0] for row in checks if NOT_RUN in row] == ["fig16", "fig1d"]
    assert [row[1] for row in checks if row[-1] == "1 holds, 1 does not, 1 not decided"] == ["fig15"]
    one = "holds in 1 of 1 seeds"
    assert [
        "fig15",
        "&#124;a&#124; is so",
        "1 ± 0.5",
        "2",
        "holds in 0 of 1 seeds",
        "**does not hold**: It was too short.",
        "claim",
    ] in checks
    assert ["fig15", "it is so", "1 ± 0.5", "1", one, "holds", "claim"] in checks
    none = "holds in 0 of 1 seeds, 1 not decided"
    assert ["fig15", "c", "≥ 3", "nan", none, "not decided: It was too small.", "claim"] in checks
    # at another scale nobody knows why
    assert "too short" not in lyap("reproduce", PAPER, "fig15", "--scale", "smoke")[1]


def test_a_reason_is_known_by_the_key(monkeypatch):
    monkeypatch.setitem(REASONS, "a", {"fig1": {"late 4": "Later."}})

    def why(figure, key):
        return reason("a", figure, near(key, "late 4: accuracy", 1.0, 2.0, 0.0))

    assert why("fig1", "late 4") == "Later."
    assert why("fig1", "late 40") == ""
    assert why("fig2", "late 4") == ""


def test_every_known_miss_is_of_a_figure_and_a_sentence():
    for paper, figures in REASONS.items():
        assert figures.keys() <= FIGURES[paper].keys()
    for whys in (whys for figures in REASONS.values() for whys in figures.values()):
        assert all(re.fullmatch(r"[A-Z].*\.", why) for why in whys.values())
        # one that stands behind its own beginning is never found
        given = list(whys)
        assert not any(
            later.startswith(earlier) for i, earlier in enumerate(given) for later in given[i + 1 :]
        )


def test_the_page_in_the_docs_says_of_every_figure_how_it_stands_and_of_every_miss_why():
    page = PAGE.read_text()
    (claims,) = re.findall(r"^\*\*Claims of the papers\*\*: .*$", page, re.MULTILINE)
    assert claims in README.read_text()
    small = page[page.index("\n## Small scale") :]
    # as the page was written before and since outcomes have three words
    assert re.search(r"\*\*(no|does not hold)\*\*: ", small)
    assert not re.search(r"\*\*(no|does not hold)\*\* \|", small)
    for figures in FIGURES.values():
        assert all(page.count(f"| {name} |") >= 2 for name in figures)


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [("1 s", 1), ("70 s", 70), ("15 min", 900), ("3.8 h", 13_680), ("an hour", 3600), ("days", 86_400)],
)
def test_what_a_rough_cost_comes_to(cost, seconds):
    assert rough_seconds(cost) == seconds


def test_the_rough_cost_of_every_figure_is_understood():
    costs = [figure.costs() for figures in FIGURES.values() for figure in figures.values()]
    assert all(rough_seconds(cost[scale]) > 0 for cost in costs for scale in SCALES)


def test_figures_that_take_long_come_first(lyap, monkeypatch):
    for name, cost in (("fig15", "3 s"), ("fig16", "2 min")):
        monkeypatch.setattr(FIGURES[PAPER][name], "cost", dict.fromkeys(SCALES, cost))
    # the order in which processes are given work, done by one
    monkeypatch.setattr(module, "Processes", lambda count: Serial())
    for workers, order in (("1", ["fig15", "fig16"]), ("2", ["fig16", "fig15"])):
        runs = ("--runs", f"runs-{workers}", "--workers", workers)
        lines = lyap("reproduce", PAPER, "all", "--scale", "smoke", *runs)[1].splitlines()
        assert [line.split()[2].rstrip(":") for line in lines if "/2 " in line] == order
