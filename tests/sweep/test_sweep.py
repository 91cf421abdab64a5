"""Grids, packs, and sweeps executed here and in processes."""

import errno
import functools
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from sweep_work import begun, mortal, square

import lyaptorch as lt
from command import command, files
from lyaptorch import _files, record
from lyaptorch.experiments.trainings import PER_NETWORK, Training, alike, check_run, cost, train_runs
from lyaptorch.record import Record
from lyaptorch.sweep import Group, Plan, Processes, Ray, Serial, axis, gather, grid, packs, run_id, sweep
from lyaptorch.training import run as engine

pytestmark = pytest.mark.usefixtures("unchecked")
XS = [{"x": x} for x in range(7)]


def one(config):
    return ""


def go(folder, function=square, configs=XS, **settings):
    return sweep(function, configs, folder, name="square", show_progress=False, **settings)


def saved(folder: Path) -> dict[str, bytes]:
    """The Records, byte by byte."""
    return {path.name: path.read_bytes() for path in folder.glob("*.nc")}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("delay=10:80:10", list(range(10, 81, 10))),
        ("delay=10:85:10", list(range(10, 81, 10))),
        ("k=3:1:-1", [3, 2, 1]),
        ("k=2:4", [2, 3, 4]),
        ("k=5:5:1", [5]),
        ("lr=0.1:0.3:0.1", [0.1, 0.2, 0.3]),
        ("k=1,16,75", [1, 16, 75]),
        ("lr=1e-4, 1e-3", [1e-4, 1e-3]),
        ("schedule=none", ["none"]),
        ("floss_clip=null,1.0", [None, 1.0]),
    ],
)
def test_an_axis_by_its_text(text, values):
    name, found = axis(text)
    assert (name, found) == (text.partition("=")[0], values)
    assert [type(v) for v in found] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("delay", r"an axis must be name=first:last:step or name=a,b,c, got 'delay'; write"),
        ("delay=", r"an axis must be .* got 'delay='"),
        ("=1,2", r"an axis must be .* got '=1,2'"),
        ("delay=1:2:3:4", r"a range must be first:last:step, three numbers, got 'delay=1:2:3:4'"),
        ("delay=a:b:1", r"a range must be first:last:step, three numbers, got 'delay=a:b:1'"),
        ("delay=10:80:0", r"between one and 100000 values, got 'delay=10:80:0'; correct its ends or step"),
        ("delay=80:10:10", r"between one and 100000 values, got 'delay=80:10:10'"),
        ("delay=0:1e9:1", r"between one and 100000 values"),
        ("delay=[1],2", r"a value of an axis must be a number, a word, true, false or null, got '\[1\]'"),
    ],
)
def test_an_axis_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=message):
        axis(text)


def test_a_grid_is_every_combination_the_last_axis_fastest():
    found = grid({"task": "copy", "k": 9}, {"k": [1, 2], "network": range(3)})
    assert [(c["k"], c["network"]) for c in found] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert all(c["task"] == "copy" for c in found)
    assert grid({"x": 1}, {}) == [{"x": 1}]
    with pytest.raises(ValueError, match=r"axis k must hold different values, at least one, got 2 twice"):
        grid({}, {"k": [1, 2, 2]})
    with pytest.raises(ValueError, match=r"axis k must hold different values, at least one, got none"):
        grid({}, {"k": []})


def test_a_run_is_called_after_its_content():
    assert run_id("train", {"a": 1, "b": [2, None]}) == run_id("train", {"b": [2, None], "a": 1})
    different = [run_id("train", {"a": 1}), run_id("train", {"a": 1.5}), run_id("train", {"b": 1})]
    different += [run_id("floss", {"a": 1}), run_id("train", {"a": "1"}), run_id("train", {"a": True})]
    assert len(set(different)) == len(different)
    # fixed for ever: what is finished on disk is found again
    assert run_id("train", {"a": 1}) == "b24f96fed03ea5a9"


def test_packs_follow_from_the_grid():
    configs = grid({}, {"n": [8, 16], "delay": [2, 4], "network": range(5)})
    found = packs("train", configs, lambda c: str(c["n"]), 4)
    assert [len(pack.ids) for pack in found] == [4, 4, 2, 4, 4, 2]
    assert [c for pack in found for c in pack.configs] == configs
    assert len({pack.id for pack in found}) == 6
    assert all(len({c["n"] for c in pack.configs}) == 1 for pack in found)
    alone = packs("train", configs, None, 4)
    assert [pack.ids for pack in alone] == [(run_id("train", c),) for c in configs]
    left = found[0].without(frozenset(found[0].ids[1:3]))
    assert left == Group(found[0].configs[::3], found[0].ids[::3])
    assert left.id != found[0].id
    with pytest.raises(ValueError, match=r"most must be an integer >= 1, got 0"):
        packs("train", configs, one, 0)


@pytest.mark.parametrize("most", [1, 3, 20])
def test_a_sweep_writes_one_record_for_each_pack(tmp_path, most):
    plan = go(tmp_path, together=one, most=most)
    assert plan.todo == []
    assert len(saved(tmp_path)) == -(-7 // most)
    assert [
        float(plan.finished[run_id("square", c)][0]["y"][plan.finished[run_id("square", c)][1]]) for c in XS
    ] == [x**2 for x in range(7)]
    for name in saved(tmp_path):
        made = Record.load(tmp_path / name)
        label = made.config["sweep"]
        assert (name, label["name"]) == (f"{label['pack']}.nc", "square")
        assert label["ids"] == [run_id("square", c) for c in label["configs"]]
        assert made["y"].tolist() == [c["x"] ** 2 for c in label["configs"]]
        assert json.loads((tmp_path / name).with_suffix(".host.json").read_text())["seconds"] >= 0


def test_what_is_finished_is_not_repeated(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    work = functools.partial(square, log=log)
    go(tmp_path / "runs", work, XS[:4], together=one, most=2)
    before = saved(tmp_path / "runs")
    assert begun(log) == [0, 1, 2, 3]
    go(tmp_path / "runs", work, XS[:4], together=one, most=2)
    assert begun(log) == [0, 1, 2, 3]
    # a larger grid, packed otherwise, does only what is new
    plan = go(tmp_path / "runs", work, [{"x": 9}, *XS], together=one, most=3)
    assert begun(log) == [0, 1, 2, 3, 4, 5, 6, 9]
    assert len(plan.finished) == 8
    after = saved(tmp_path / "runs")
    assert {name: after[name] for name in before} == before


def test_a_pack_whose_record_is_lost_is_made_again_the_same(tmp_path):
    go(tmp_path, together=one, most=3)
    before = saved(tmp_path)
    (tmp_path / min(before)).unlink()
    plan = Plan.of(XS, tmp_path, name="square", together=one, most=3)
    assert [f"{pack.id}.nc" for pack in plan.todo] == [min(before)]
    go(tmp_path, together=one, most=3)
    assert saved(tmp_path) == before


def test_what_killed_writers_left_is_removed(tmp_path):
    go(tmp_path, together=one)
    (pack,) = (Path(name).stem for name in saved(tmp_path))
    drafts = [f".{pack}.checkpoint", f".{pack}.nc.0123.tmp", f".{pack}.checkpoint.0123.tmp"]
    for name in (*drafts, ".other.checkpoint"):
        (tmp_path / name).touch()
    go(tmp_path, together=one)
    assert {path.name for path in tmp_path.glob(".*")} == {".other.checkpoint"}


def test_processes_do_what_this_one_does_even_if_one_dies(tmp_path):
    go(tmp_path / "here")
    message = (
        r"1 of 7 runs failed, the others are saved; .*FloatingPointError: the loss is not finite.*'x': 2"
    )
    for folder, workers in (("serial", Serial()), ("processes", Processes(2))):
        with pytest.raises(ValueError, match=message):
            go(tmp_path / folder, functools.partial(mortal, deaths=folder == "processes"), workers=workers)
        assert list((tmp_path / folder).glob(".*")) == []
        assert len(saved(tmp_path / folder)) == 6
        go(tmp_path / folder)
        assert saved(tmp_path / folder) == saved(tmp_path / "here")


@pytest.mark.slow
def test_a_process_that_always_dies_takes_no_other_run_with_it(tmp_path):
    message = r"1 of 3 runs failed, the others are saved; .*its process died 1 time; is there.*'x': 1"
    with pytest.raises(ValueError, match=message):
        go(
            tmp_path,
            functools.partial(mortal, deaths=9),
            [XS[1], XS[0], XS[3]],
            workers=Processes(1, retries=0),
        )
    assert len(saved(tmp_path)) == 2


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (3, r"the function of a sweep must return a Record, got int; return one"),
        (Record("x", {}, {"y": (("member",), [1.0])}), r"must have 7 members, got \[1\]; give each run one"),
        (Record("x", {}, {"y": ((), 1.0)}), r"must have 7 members, got \[\]"),
    ],
)
def test_a_function_that_returns_something_else(tmp_path, result, message):
    with pytest.raises(ValueError, match=message):
        go(tmp_path, lambda configs, checkpoint: result, together=one)
    assert saved(tmp_path) == {}


def test_gathering_gives_arrays_over_the_axes(tmp_path):
    axes = {"a": [1, 2], "x": [3, 5, 7]}
    configs = grid({"c": 0}, axes)
    plan = go(tmp_path, configs=configs, together=one, most=4)
    found = gather(plan, {"c": 0}, axes, name="square")
    assert (found.kind, list(found.variables)) == ("sweep", ["y"])
    assert found.variables["y"].dims == ("a", "x")
    assert found["y"].tolist() == [[9, 25, 49]] * 2
    assert found["x"].tolist() == [3, 5, 7]
    curves = gather(plan, {"c": 0}, axes, name="square", names=("curve",))
    assert curves.variables["curve"].dims == ("a", "x", "epoch")
    np.testing.assert_allclose(curves["curve"][1, 2], np.sin(7 + np.arange(5)))
    # of a part, the rest is missing
    part = Plan(plan.folder, {i: plan.finished[i] for i in list(plan.finished)[:4]}, [])
    assert np.isnan(gather(part, {"c": 0}, axes, name="square")["y"]).sum() == 2
    words = gather(
        go(tmp_path, configs=grid({"x": 1}, {"w": ["p", None]})), {"x": 1}, {"w": ["p", None]}, name="square"
    )
    assert words["w"].tolist() == ["p", "None"]
    for made in (found, words):
        assert made.plot().axes


# what a user can do wrong, or a machine


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    log = tmp_path / "log"
    log.mkdir()
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        with pytest.raises(ValueError, match=r"cannot write to the folder .*; pass another folder"):
            go(folder, functools.partial(square, log=log))

    def refuse(*arguments, **settings):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(_files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot write to the folder .*Read-only file system"):
        go(tmp_path / "readonly", functools.partial(square, log=log))
    assert begun(log) == []


def test_a_full_disk_loses_nothing_that_was_written(tmp_path, monkeypatch):
    whole, count, replace = tmp_path / "whole", iter(range(99)), _files.replace_file
    go(whole)

    def full(path, data, **settings):
        if next(count) > 6:
            real = os.fsync
            monkeypatch.setattr(
                _files.os,
                "fsync",
                lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
            )
            try:
                return replace(path, data, **settings)
            finally:
                monkeypatch.setattr(_files.os, "fsync", real)
        return replace(path, data, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "replace_file", full)
        with pytest.raises(
            ValueError, match=r"cannot write .*No space left on device; free space or pass another"
        ):
            go(tmp_path / "full")
    left = saved(tmp_path / "full")
    assert len(left) == 3
    assert list((tmp_path / "full").glob("*.tmp")) == list((tmp_path / "full").glob(".*")) == []
    go(tmp_path / "full")
    assert saved(tmp_path / "full") == saved(whole)


def test_a_record_of_a_newer_version_is_not_overwritten(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record, "_VERSION", 99)
        go(tmp_path, together=one)
    before = saved(tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot load .*: format_version must be 1 or 2, got 99; update lyaptorch"
    ):
        go(tmp_path, together=one)
    assert saved(tmp_path) == before


def test_a_damaged_record_is_named_and_made_again(tmp_path):
    go(tmp_path, together=one)
    (path,) = tmp_path.glob("*.nc")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"123456789")
    (tmp_path / "another.nc").write_bytes(b"")
    plan = go(tmp_path, together=one)
    assert sorted("another.nc" in why for why in plan.refused) == [False, True]
    assert any("it is damaged" in why for why in plan.refused)
    # its runs are made again, and what is of no pack of this sweep stays
    assert path.read_bytes() == whole
    assert (tmp_path / "another.nc").read_bytes() == b""


@pytest.mark.parametrize(
    ("workers", "settings", "message"),
    [
        (Processes, {"count": 0}, r"count must be an integer >= 1, got 0"),
        (Processes, {"count": 1, "retries": -1}, r"retries must be an integer >= 0, got -1"),
        (Ray, {"cpus": -1.0}, r"cpus must be finite and at least 0, got -1"),
        (Ray, {"gpus": float("inf")}, r"gpus must be finite and at least 0, got inf"),
        (Ray, {"retries": -1}, r"retries must be an integer >= 0, got -1"),
    ],
)
def test_workers_that_cannot_be(workers, settings, message):
    with pytest.raises(ValueError, match=message):
        workers(**settings)


# trainings

TINY = {
    "task": "temporal_xor",
    "delay": 2,
    "hidden_size": 8,
    "k": 4,
    "epochs": 3,
    "floss_epochs": 2,
    "batch": 2,
}
TINY |= {"length": 20}


def test_a_training_is_given_by_names():
    assert Training.of(TINY) == Training(**TINY)
    assert Training.of({**TINY, "lr": 1, "gain": 2}) == Training(**TINY, lr=1.0, gain=2.0)
    assert Training.of({**TINY, "gain": "mean-field", "floss_clip": None}).gain == "mean-field"
    assert check_run(TINY) == {**asdict(Training(**TINY)), "network": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dealy": 3}, r"unknown setting 'dealy', did you mean 'delay'\?"),
        ({"task": "temporal_xr"}, r"unknown task 'temporal_xr', did you mean 'temporal_xor'\?"),
        ({"schedule": "durin"}, r"unknown schedule 'durin', did you mean 'during'\?"),
        ({"preset": "gf2024"}, r"unknown preset 'gf2024', did you mean 'gf2023'\?"),
        ({"weights": "gausian"}, r"unknown weights 'gausian', did you mean 'gaussian'\?"),
        ({"gain": "mean"}, r"unknown gain 'mean', did you mean 'mean-field'\?"),
        ({"gain": [1.0]}, r"gain must be of type float \| str, got \[1.0\]"),
        ({"delay": "10"}, r"delay must be of type int, got '10'; correct it"),
        ({"delay": True}, r"delay must be of type int, got True"),
        ({"delay": 3}, r"delay must be even, got 3"),
        ({"delay": 20}, r"delay must be below the length of a trial, got delay=20 and length=20"),
        ({"k": 9}, r"k must be an integer in 1\.\.8, got 9"),
        ({"k": 0}, r"k must be an integer in 1\.\.8, got 0"),
        ({"lr": -1.0}, r"lr must be finite and at least 0"),
        ({"epochs": -1}, r"epochs must be an integer >= 0, got -1"),
        ({"epochs": 1.5}, r"epochs must be of type int, got 1\.5"),
        ({"hidden_size": 0}, r"hidden_size must be an integer >= 1, got 0"),
        ({"batch": 0}, r"batch must be an integer >= 1, got 0"),
        ({"network": -1}, r"network must be an integer >= 0, got -1"),
        ({"task": "recall", "items": 3}, r"items must be an integer in 1\.\.2, got 3"),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_any_work(change, message):
    with pytest.raises(ValueError, match=message):
        check_run({**TINY, **change})
    with pytest.raises(ValueError, match=r"task is missing"):
        check_run({key: value for key, value in TINY.items() if key != "task"})


def test_which_trainings_share_an_ensemble():
    base = check_run(TINY)
    for change in ({"delay": 4}, {"gain": 2.0}, {"k": 2}, {"lr": 0.1}, {"network": 3}):
        assert alike({**base, **change}) == alike(base), change
    for change in ({"hidden_size": 9}, {"epochs": 4}, {"seed": 1}, {"floss_clip": 1.0}, {"schedule": "none"}):
        assert alike({**base, **change}) != alike(base), change
    recall = {**base, "task": "recall", "items": 1}
    assert alike({**recall, "delay": 4}) != alike(recall)
    with pytest.raises(ValueError, match=r"networks of one ensemble may differ in delay, gain, k"):
        train_runs([base, {**base, "epochs": 4}], Path("unused"))


def test_a_network_of_a_pack_trains_as_alone(tmp_path):
    """In delay, gain, k, clip, learning rate and number."""
    runs = [
        {**TINY, "floss_clip": 1.0, "network": 4},
        {**TINY, "floss_clip": 2.0, "delay": 6, "k": 1, "lr": 0.01, "network": 1},
        {**TINY, "floss_clip": 0.1, "gain": 1.5, "network": 0},
        {**TINY, "floss_clip": 0.1, "gain": "mean-field", "network": 0},
    ]
    assert set(PER_NETWORK) <= {key for run in runs for key in run}
    together = train_runs([check_run(run) for run in runs], tmp_path / "together")
    for i, run in enumerate(runs):
        alone = train_runs([check_run(run)], tmp_path / f"alone{i}")
        for name in ("loss", "gradient_norm", "floss_loss", "final_loss", "final_accuracy"):
            np.testing.assert_allclose(together[name][i], alone[name][0], rtol=2e-4, err_msg=name)
    assert len({tuple(row) for row in together["loss"].tolist()}) == 4


def test_a_network_that_overflows_is_marked_and_the_others_go_on(tmp_path):
    runs = [
        {**TINY, "schedule": "none", "epochs": 40, "lr": lr, "task": "delayed_copy"} for lr in (1e-3, 1e38)
    ]
    made = train_runs([check_run(run) for run in runs], tmp_path / "c")
    assert np.isnan(made["unstable_at"]).tolist() == [True, False]
    assert np.isfinite(made["loss"][0]).all()


def test_a_cost_grows_with_the_steps():
    base = check_run({**TINY, "hidden_size": 16, "k": 16})
    few, many = (cost([{**base, "epochs": n, "floss_epochs": n}]) for n in (20, 2000))
    assert 0 < few < many < 200 * few


# the command

CONFIG = "\n".join(f"{key} = {json.dumps(value)}" for key, value in TINY.items())


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys):
    with command(tmp_path, monkeypatch, capsys) as run:
        (tmp_path / "xor.toml").write_text(CONFIG)
        yield run


def test_the_command_trains_a_grid(lyap, tmp_path):
    grid_of = ["--over", "delay=2:6:2", "--over", "hidden_size=6,8", "--seeds", 2]
    planned = lyap.json("sweep", "xor.toml", *grid_of, "--dry-run")
    assert (planned["runs"], planned["finished"], planned["ensembles"]) == (12, 0, 2)
    assert planned["seconds"] > 0
    assert not (tmp_path / "runs").exists()
    summary = lyap.json("sweep", "xor.toml", *grid_of)
    assert np.shape(summary["accuracy"]) == (3, 2, 2)
    made = Record.load(summary["record"])
    assert made.variables["final_accuracy"].dims == ("delay", "hidden_size", "network")
    packed = sorted((tmp_path / "runs/sweep").glob("*.nc"))
    assert len(packed) == 2
    # one of them is what `lyap train` trains
    torch.set_default_dtype(torch.float32)
    trained = lyap.json(
        "train",
        "temporal_xor",
        *[f"--{k.replace('_', '-')}={v}" for k, v in TINY.items() if k != "task"],
        "--seeds",
        2,
    )
    np.testing.assert_allclose(made["final_accuracy"][0, 1], trained["accuracy"], atol=1e-4)
    status, out, err = lyap("sweep", "xor.toml", *grid_of)
    assert (status, err) == (0, "")
    assert "xor: accuracy" in out
    again = lyap.json("sweep", "xor.toml", *grid_of, "--dry-run")
    assert (again["finished"], again["ensembles"], again["seconds"]) == (12, 0, 0)
    (tmp_path / "xor.json").write_text(json.dumps(TINY))
    status, out, _ = lyap("sweep", "xor.json", *grid_of, "--dry-run", "--over", "gain=1,2")
    assert "24 runs, 12 of them finished; 12 to do, in 2 ensembles" in out


def test_one_worker_of_this_process_is_not_started_again(lyap):
    message = "--retries is of processes that may die, and there is one worker, got 0"
    assert message in lyap.fails("sweep", "xor.toml", "--retries", 0, "--dry-run")


def test_a_seed_is_that_of_the_file_unless_it_is_given(lyap, tmp_path):
    own, given = (lyap.json("sweep", "xor.toml", "--seeds", 1, *seed) for seed in ([], ["--seed", 5]))
    own, given = (Record.load(summary["record"]) for summary in (own, given))
    assert given.config["config"] == {**own.config["config"], "seed": 5}
    assert given["final_loss"] != own["final_loss"]


def test_the_command_resumes_an_ensemble_that_was_stopped(lyap, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    whole = lyap.json("sweep", "xor.toml", "--runs", "whole")
    step, left = engine.Run.step, iter(range(4))

    def stop(self):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "step", stop)
        assert lyap("sweep", "xor.toml")[0] == 130
    assert [p.suffix for p in files(tmp_path / "runs")] == [".checkpoint"]
    killed = lyap.json("sweep", "xor.toml")
    assert Record.load(killed["record"]) == Record.load(whole["record"])
    assert saved(tmp_path / "runs/sweep") == saved(tmp_path / "whole/sweep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.toml"], "cannot read nope.toml: "),
        (["net.py"], "a configuration must be a file .toml or .json, got net.py"),
        (["bad.toml"], "cannot read bad.toml: "),
        (["list.json"], "list.json must hold names and values, got list"),
        (["xor.toml", "--over", "dealy=2,4"], "unknown setting 'dealy', did you mean 'delay'?"),
        (["xor.toml", "--over", "delay=2,3"], "delay must be even, got 3"),
        (["xor.toml", "--over", "delay=2:40:2"], "delay must be below the length of a trial"),
        (["xor.toml", "--over", "k=4:16:4"], "k must be an integer in 1..8, got 12"),
        (["xor.toml", "--over", "delay=4:2:2"], "a range must hold between one and 100000 values"),
        (["xor.toml", "--over", "k=1,1"], "axis k must hold different values, at least one, got 1 twice"),
        (["xor.toml", "--over", "k=1", "--over", "k=2"], "an axis must be given once, got k twice"),
        (["xor.toml", "--over", "network=1"], "an axis must be given once, got network twice"),
        (["xor.toml", "--seeds", 0], "seeds must be an integer >= 1, got 0"),
        (["xor.toml", "--group", 0], "group must be an integer >= 1, got 0"),
        (["xor.toml", "--workers", 0], "workers must be an integer >= 1, got 0"),
        (["xor.toml", "--workers", 2, "--address", "auto"], "Ray decides how many workers there are"),
        (["xor.toml", "--runs", "net.py"], "cannot write to the folder net.py"),
        (["xor.toml", "--runs", "/proc/nowhere"], "cannot write to the folder /proc/nowhere"),
        (["xor.toml", "--threads", 0], "threads must be an integer in 1..1024, got 0"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_an_error_of_the_command_is_one_sentence(lyap, tmp_path, arguments, message):
    (tmp_path / "bad.toml").write_text("task = ")
    (tmp_path / "list.json").write_text("[1]")
    assert message in lyap.fails("sweep", *arguments)


@pytest.mark.skipif("ray" in sys.modules, reason="ray is loaded")
def test_without_ray_a_sentence_says_what_to_install(lyap, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = lyap("sweep", "xor.toml", "--address", "local")
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install 'lyaptorch[ray]'" in err


def test_the_library_is_the_command(lyap, tmp_path):
    """As the documentation shows it."""
    configs = [check_run(c) for c in grid(TINY, {"delay": [2, 4], "network": range(2)})]
    sweep(train_runs, configs, tmp_path / "own", name="train", together=alike)
    lyap("sweep", "xor.toml", "--over", "delay=2,4", "--seeds", 2)
    assert saved(tmp_path / "own") == saved(tmp_path / "runs/sweep")
    assert isinstance(lt.Record.load(next((tmp_path / "own").glob("*.nc"))), Record)
