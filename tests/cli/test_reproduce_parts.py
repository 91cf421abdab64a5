"""`lyap reproduce --scale paper` makes parts within a budget, and gathers figures from what is there."""

import math

import numpy as np
import pytest

from command import command, files
from lyaptorch._brief import FAILS, HOLDS, UNDECIDED
from lyaptorch.cli import parts as module
from lyaptorch.cli.parts import Parts
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.check import WithinChance, at_least, near
from lyaptorch.experiments.over_seeds import OverSeeds, over_seeds
from lyaptorch.record import Record

PAPER = "gradient-flossing"
SETTING = ("reproduce", PAPER, "fig4d", "--scale", "paper")


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    """The command, with a few figures whose paper scale is that of smoke, but for four networks."""
    kept = {PAPER: ("fig4d", "fig13", "fig15", "fig1b")}
    for paper in list(FIGURES):
        few = {name: FIGURES[paper][name] for name in kept.get(paper, ())}
        monkeypatch.setitem(FIGURES, paper, few)
    for name, figure in FIGURES[PAPER].items():
        more = {"seeds": 5, "measure": 60, "epochs": 3} if name in ("fig4d", "fig13") else {}
        known = {key: value for key, value in more.items() if key in figure.__dataclass_fields__}
        monkeypatch.setattr(figure, "scales", {**figure.scales, "paper": {**figure.scales["smoke"], **known}})
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


@pytest.mark.usefixtures("blank")
def test_parts_are_made_and_gathered(lyap, tmp_path, monkeypatch):
    status, out, err = lyap(*SETTING)
    assert (status, err) == (0, "")
    assert "4 parts to make, about " in out
    assert f"4/4 {PAPER} fig13 seed0-network4-delay4: " in out
    # figure 4d is made from the parts of figure 13
    folder = tmp_path / "runs" / "records" / PAPER / "fig13"
    ends = {path.name.partition(".")[2] for path in folder.iterdir()}
    assert ends == {"nc", "host.json"}
    assert len(list(folder.glob("*.nc"))) == 4
    record = Record.load(tmp_path / "runs" / f"{PAPER}-fig4d-paper.nc")
    assert record.kind == f"{PAPER} fig4d"
    assert record["final_accuracy"].shape == (3, 2, 5)
    assert (tmp_path / "runs" / f"{PAPER}-fig4d-paper.png").is_file()
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "0 parts to make" in lyap(*SETTING)[1]
    answer = lyap.json(*SETTING, "--gather")
    assert answer["gathered"] == {"seeds": 5, "of": 5}
    assert answer["missing"] == answer["refused"] == answer["left_out"] == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert [check["key"] for check in answer["checks"]]
    # and figure 13 is there, too
    assert lyap.json("reproduce", PAPER, "fig13", "--scale", "paper", "--gather")["missing"] == []
    listed = {row["figure"]: row for row in lyap.json("reproduce", "--list")["figures"]}
    assert listed["fig4d"]["gathered"] == listed["fig13"]["gathered"] == {"seeds": 5, "of": 5}
    assert listed["fig1b"]["gathered"] == {"seeds": 0, "of": 8}
    assert [row["scale"] for row in listed["fig4d"]["records"]] == ["paper"]
    told = " ".join(lyap("reproduce", "--list")[1].split())
    assert "paper: 5 of 5" in told
    assert "points" not in told
    # where nothing is measured parts say nothing, and none counts as there
    monkeypatch.setattr(FIGURES[PAPER]["fig13"], "left_out", lambda self, point: point == (4,))
    assert "left out" in lyap(*SETTING, "--gather")[1]
    answer = lyap.json(*SETTING, "--gather")
    assert (answer["seeds"], answer["left_out"]) == ({"2": 5}, ["4"])
    listed = {row["figure"]: row["left_out"] for row in lyap.json("reproduce", "--list")["figures"]}
    assert (listed["fig4d"], listed["fig1b"]) == (1, 0)


@pytest.mark.usefixtures("blank")
def test_a_figure_is_gathered_from_what_is_there(lyap, tmp_path):
    assert "no part of gradient-flossing fig4d is in" in lyap(*SETTING, "--gather")[2]
    lyap.json(*SETTING, "--records", "store")
    folder = tmp_path / "store" / PAPER / "fig13"
    (folder / "seed0-network4-delay2.nc").unlink()
    damaged = folder / "seed0-network4-delay4.nc"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    before = files(tmp_path / "store")
    status, out, err = lyap(*SETTING, "--records", "store", "--gather")
    assert (status, err) == (0, "")
    assert "missing 2 parts: seed0-network4-delay2, seed0-network4-delay4" in out.replace("\n", " ")
    assert "refused: cannot load" in out
    assert "4 of 5" in out
    assert files(tmp_path / "store") == before
    answer = lyap.json(*SETTING, "--records", "store", "--gather")
    assert answer["seeds"] == {"2": 4, "4": 4}
    assert answer["gathered"] == {"seeds": 4, "of": 5}
    # at a delay of 2 alone
    for path in folder.glob("*-delay4.nc"):
        path.unlink()
    answer = lyap.json(*SETTING, "--records", "store", "--gather")
    assert answer["gathered"] == {"seeds": 0, "of": 5}
    assert Record.load(answer["record"])["delay"].tolist() == [2]
    told = " ".join(lyap(*SETTING, "--records", "store", "--gather")[1].split())
    assert "delays" in told
    assert "1 other point │ none" in told
    # the same command without it makes what is missing, and what is damaged
    out = lyap(*SETTING, "--records", "store", "--seeds", 4)[1]
    assert "1 part to make" in out
    answer = lyap.json(*SETTING, "--records", "store", "--seeds", 4, "--gather")
    assert answer["gathered"] == {"seeds": 4, "of": 4}


@pytest.mark.usefixtures("blank")
def test_a_budget_ends_before_a_part_that_would_not_fit(lyap, tmp_path, monkeypatch):
    status, out, err = lyap(*SETTING, "--budget", "0s")
    assert (status, err) == (0, "")
    assert "4 parts would not fit into the budget" in out
    assert f"{PAPER} fig4d lacks 4 parts" in out
    # as long as the first takes, by an estimate that knows no other, and no longer
    clock = iter([0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(module.time, "time", lambda: next(clock))
    monkeypatch.setattr(module.Store, "seconds", lambda *args: 1.5)
    answer = lyap.json(*SETTING, "--budget", "2 s")
    assert answer["made"] == [f"{PAPER} fig13 seed0-network0-3-delay2"]
    assert len(answer["no_time"]) == 3
    assert "budget must be a time such as 2h or 30min, got 'soon'" in lyap(*SETTING, "--budget", "soon")[2]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("30min", 1800), ("1.5 h", 5400), ("90 s", 90), ("", math.inf)]
)
def test_a_budget_is_a_time(text, seconds):
    assert Parts(budget=text).seconds() == seconds


def test_a_figure_that_is_not_cut_has_a_part_for_each_seed(lyap, tmp_path):
    command = ("reproduce", PAPER, "fig1b", "--scale", "paper", "--seeds", 3)
    status, out, err = lyap(*command, "--workers", 2)
    assert (status, err) == (0, "")
    assert "3 parts to make" in out
    assert "of 3 seeds" in out
    folder = tmp_path / "runs" / "records" / PAPER / "fig1b"
    assert {path.stem for path in folder.glob("*.nc")} == {"seed0", "seed1", "seed2"}
    record = Record.load(tmp_path / "runs" / f"{PAPER}-fig1b-paper.nc")
    assert record.config["seed"] == 0
    (folder / "seed1.nc").unlink()
    answer = lyap.json(*command, "--gather")
    assert answer["missing"] == ["seed1"]
    assert answer["gathered"] == {"seeds": 2, "of": 3}
    assert all(check["seeds"] == 2 for check in answer["checks"])
    # at this scale flossing does not get far: some speak of what did not happen
    known = [check for check in answer["checks"] if check["measured"] is not None]
    assert known
    assert all(check["low"] < check["measured"] < check["high"] for check in known)


def test_other_seeds_are_made_and_gathered_apart(lyap, tmp_path):
    command = ("reproduce", PAPER, "fig1b", "--scale", "paper", "--seeds", 2)
    lyap.json(*command)
    answer = lyap.json(*command, "--seed", 5)
    assert answer["record"].endswith(f"{PAPER}-fig1b-paper-seed5.nc")
    assert Record.load(tmp_path / answer["record"]).config["seed"] == 5
    assert all(check["seeds"] == 2 for check in answer["checks"])
    # and the usual ones are as they were
    assert Record.load(tmp_path / "runs" / f"{PAPER}-fig1b-paper.nc").config["seed"] == 0
    assert all(check["seeds"] == 2 for check in lyap.json(*command, "--gather")["checks"])


def test_a_long_figure_that_is_not_cut_has_one_part(lyap, monkeypatch):
    figure = FIGURES[PAPER]["fig1b"]
    for cost, of in (("3 hours", 8), ("a day", 1)):
        monkeypatch.setattr(figure, "cost", {**figure.cost, "paper": cost})
        listed = {row["figure"]: row for row in lyap.json("reproduce", "--list")["figures"]}
        assert listed["fig1b"]["gathered"] == {"seeds": 0, "of": of}


@pytest.mark.usefixtures("blank")
def test_all_figures_share_their_parts(lyap, tmp_path):
    answer = lyap.json("reproduce", PAPER, "all", "--scale", "paper", "--seeds", 2)
    assert [row["name"] for row in answer["figures"]] == ["fig4d", "fig13", "fig15", "fig1b"]
    assert len(answer["made"]) == len(set(answer["made"])) == 2 + 2 + 2
    assert answer["failed"] == {}
    # and the page of all checks tells of them at paper scale
    lyap.json("report", "--markdown", "checks.md")
    page = (tmp_path / "checks.md").read_text()
    paper, small = page.split("\n## Small scale, over seeds\n")
    rows = [line.strip("| ").split(" | ") for line in paper.splitlines() if line.startswith("|")]
    assert {row[4] for row in rows if row[0] == "fig4d" and len(row) == 7} == {"2 of 5 networks"}
    told = answer["figures"][-1]["checks"]
    for row, check in zip([row for row in rows if row[0] == "fig1b"], told, strict=True):
        # of two seeds one that is open is half of them: then their mean decides, or nothing does
        together = check["undecided"] > 0 and row[5] != "not decided"
        alone = f"holds in {check['held']} of 2 seeds"
        assert row[4].partition(",")[0] == ("2 seeds together" if together else alone)
    assert {row[0] for row in rows if row[-2:] == ["not run", ""]} == set()
    assert [line.split(" | ")[0] for line in small.splitlines() if "not run" in line] == [
        f"| {name}" for name in ("fig4d", "fig13", "fig15", "fig1b")
    ]


@pytest.mark.usefixtures("blank")
def test_fewer_networks_are_gathered_into_a_file_of_their_own(lyap, tmp_path):
    lyap.json(*SETTING)
    whole = (tmp_path / "runs" / f"{PAPER}-fig4d-paper.nc").read_bytes()
    answer = lyap.json(*SETTING, "--gather", "--seeds", 2)
    assert answer["record"].endswith(f"{PAPER}-fig4d-paper-seeds2.nc")
    assert Record.load(tmp_path / answer["record"]).config["seeds"] == 2
    assert (tmp_path / "runs" / f"{PAPER}-fig4d-paper.nc").read_bytes() == whole
    # as many as the paper has are the paper's
    assert lyap.json(*SETTING, "--gather", "--seeds", 5)["record"].endswith(f"{PAPER}-fig4d-paper.nc")
    # and what is damaged is named wherever parts are counted
    damaged = tmp_path / "runs" / "records" / PAPER / "fig13" / "seed0-network4-delay4.nc"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    (why,) = lyap.json("reproduce", "--list")["refused"]
    assert damaged.name in why
    assert f"refused: {why}\n" in lyap("reproduce", "--list")[1]
    assert lyap.json("report", "--markdown", "checks.md")["refused"] == [why]
    assert f"refused: {why}\n" in lyap("report", "--markdown", "checks.md")[1]


def test_more_networks_than_a_figure_has_at_a_point_are_refused(lyap, monkeypatch):
    monkeypatch.setattr(FIGURES[PAPER]["fig13"], "cut", FIGURES[PAPER]["fig13"].cut[1:])
    message = f"{PAPER} fig4d has one network at each point, got --seeds 3; drop it, or give another --seed"
    for more in ((), ("--gather",), ("--dry-run",)):
        assert message in lyap.fails(*SETTING, "--seeds", 3, *more)


@pytest.mark.usefixtures("blank")
def test_a_figure_that_cannot_be_gathered_stops_no_other(lyap, tmp_path):
    lyap.json("reproduce", PAPER, "fig1b", "--scale", "paper", "--seeds", 2)
    lyap.json(*SETTING)
    folder = tmp_path / "runs" / "records" / PAPER / "fig13"
    # networks 0 to 3 at one delay, 4 at the other: none is at both
    (folder / "seed0-network0-3-delay2.nc").unlink()
    (folder / "seed0-network4-delay4.nc").unlink()
    status, out, err = lyap("reproduce", PAPER, "all", "--scale", "paper", "--gather")
    assert (status, err) == (0, "")
    assert f"of {PAPER} fig13 no network is there at every point; make more of its parts" in out
    lyap.json("report", "--markdown", "checks.md")
    page = (tmp_path / "checks.md").read_text()
    assert (
        "| fig4d |  |  |  |  | not run: of gradient-flossing fig13 no network is there at every point;"
        in page
    )
    assert "(1 of 4 figures, 3 not run)" in page


@pytest.mark.usefixtures("blank")
def test_a_part_that_fails_is_named_and_stops_no_other(lyap, monkeypatch):
    figure = FIGURES[PAPER]["fig13"]
    run = figure.run

    def broken(self, study):
        if self.delays == (2,):
            raise FloatingPointError("nothing is left\nand more")
        return run(self, study)

    monkeypatch.setattr(figure, "run", broken)
    status, out, err = lyap(*SETTING)
    assert status == 2
    assert f"2 parts failed, the others are saved: {PAPER} fig13 seed0-network0-3-delay2" in err
    assert "FloatingPointError: nothing is left\n" in out
    assert "lacks 2 parts" in out


@pytest.mark.usefixtures("blank")
def test_checks_at_small_scale_say_with_how_many_seeds_they_hold(lyap, tmp_path):
    command = ("reproduce", PAPER, "fig1b", "--scale", "smoke", "--seeds", 3)
    answer = lyap.json(*command)
    assert [row["seed"] for row in answer["figures"]] == [0, 1, 2]
    (told,) = answer["checks"]
    assert told["figure"] == "fig1b"
    for check in told["checks"]:
        measured = [
            next(c.measured for c in figure_checks(row["path"]) if c.key == check["key"])
            for row in answer["figures"]
        ]
        assert check["seeds"] == 3
        known = [value for value in measured if math.isfinite(value)]
        # at this scale flossing does not get far: some speak of what did not happen
        assert check["measured"] == (pytest.approx(np.mean(known)) if known else None)
    status, out, err = lyap(*command)
    assert (status, err) == (0, "")
    assert "3 of 3 figures are made already" in out
    assert "of 3 seeds" in out
    assert "seeds must be an integer >= 1, got 0" in lyap.fails(*command[:-1], 0)


def figure_checks(path):
    record = Record.load(path)
    figure = FIGURES[PAPER]["fig1b"]
    return figure(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.config.items()}).checks(
        record
    )


def test_a_check_over_seeds():
    runs = [[at_least("a", "a", 1.0, value), at_least("b", "b", 1.0, 2.0)] for value in (0.5, 1.5, 2.5)]
    runs.append([at_least("a", "a", 1.0, math.nan)])
    first, second = over_seeds(runs)
    assert (first.held, first.undecided, first.seeds) == (2, 1, 4)
    assert first.standing == "holds in 2 of 4 seeds, 1 not decided"
    assert first.mean == 1.5
    # t(0.975, 2) = 4.303, s = 1
    assert first.interval == pytest.approx((1.5 - 4.3027 / 3**0.5, 1.5 + 4.3027 / 3**0.5), rel=1e-4)
    # two of three is what a coin does; where all agree, or no more than half decide, it is simple
    assert [first.outcome, second.outcome] == [UNDECIDED, HOLDS]
    assert over_seeds(runs[:1] + runs[3:])[0].outcome == UNDECIDED
    assert over_seeds(runs[:1])[0].outcome == FAILS
    # what a run does not say is not decided there
    assert (second.held, second.undecided) == (3, 1)
    one = OverSeeds((at_least("a", "a", 1.0, 2.0),), 1)
    assert all(map(math.isnan, one.interval))
    assert one.standing == "holds in 1 of 1 seeds"
    assert math.isnan(OverSeeds((at_least("a", "a", 1.0, math.nan),), 1).mean)


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        # of eight seeds a coin gives seven in 4% of all cases, six in 14%
        ([2.0] * 7 + [-9.0], HOLDS),
        ([0.0] * 7 + [9.0], FAILS),
        ([2.0] * 6 + [-9.0] * 2, UNDECIDED),
        ([2.0] * 5 + [-9.0] * 3, UNDECIDED),
        # where the mean lies clearly on their side
        ([9.0, 9.1, 8.9, 9.0, 9.0, 0.9], HOLDS),
        ([1.02, 1.02, 1.02, 0.999, 1.02, 0.999], HOLDS),
    ],
)
def test_a_bare_majority_decides_nothing(values, outcome):
    assert over_seeds([[at_least("a", "a", 1.0, value)] for value in values])[0].outcome == outcome


def test_seeds_that_chance_may_have_made_decide_together():
    """Of each alone nobody knows; their mean is above the bound, and those that decide are not chosen."""
    runs = [[at_least("a", "a", 1.0, WithinChance(2.0 + 0.1 * i))] for i in range(5)]
    (over,) = over_seeds([*runs, [at_least("a", "a", 1.0, 9.0)]])
    assert (over.held, over.undecided, over.mean) == (1, 5, pytest.approx((11.0 + 9.0) / 6))
    (alone,) = over_seeds(runs)
    assert (alone.outcome, alone.standing) == (HOLDS, "5 seeds together")
    near_it = [[at_least("a", "a", 2.1, WithinChance(2.0 + 0.1 * i))] for i in range(5)]
    assert over_seeds(near_it)[0].outcome == UNDECIDED
    assert over_seeds(near_it)[0].standing == "holds in 0 of 5 seeds, 5 not decided"
    # where half of them have nothing to say, or one alone speaks
    silent = [[at_least("a", "a", 1.0, math.nan)]]
    assert over_seeds([*runs, *5 * silent])[0].outcome == UNDECIDED
    assert over_seeds(runs[:1])[0].outcome == UNDECIDED


def test_where_each_seed_expects_its_own_the_difference_is_told():
    runs = [
        [near("a", "it is so", expected, expected + off, 0.1)] for expected, off in ((3.0, 0.05), (7.0, 0.01))
    ]
    (over,) = over_seeds(runs)
    assert (over.checks[0].bound, over.checks[0].sentence) == ("0 ± 0.1", "it is so: measured - expected")
    assert over.mean == pytest.approx(0.03)
    assert over.outcome == HOLDS
    assert over_seeds([runs[0], [near("a", "it is so", 7.0, 7.2, 0.1)]])[0].held == 1
