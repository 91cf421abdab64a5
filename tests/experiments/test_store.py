"""A store of parts: what was killed goes on, nobody does a part twice, what is damaged is made again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from command import forked
from lyaptorch import record as record_module
from lyaptorch._files import host_of
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.parts import name_of, parts
from lyaptorch.experiments.store import RATE, Store, _taken
from lyaptorch.record import Record
from lyaptorch.training import history
from lyaptorch.training import run as engine
from lyaptorch.training.checkpoint import begin, clocks

FIG4C = FIGURES["gradient-flossing"]["fig4c"]
FIGURE = FIG4C(**FIG4C.scales["smoke"])
OTHER = "it is no part of gradient-flossing fig4c as it is now; move it away"
EPOCHS = 150
"""A few seconds of work."""
SCRIPT = """
import sys
from pathlib import Path
from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.parts import parts
from lyaptorch.experiments.store import Store

chosen = FIGURES["gradient-flossing"]["fig4c"]
figure = chosen(**{**chosen.scales["smoke"], "epochs": int(sys.argv[2])})
print(Store(figure, Path(sys.argv[1])).make(parts(figure)[1], False))
"""


def start(folder, epochs):
    environment = {**os.environ, "LYAPTORCH_CHECKPOINT_SECONDS": "0.1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(epochs)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(folder, pattern, process):
    end = time.monotonic() + 120
    while not any(folder.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_part_that_was_killed_goes_on(tmp_path):
    figure, folder = replace(FIGURE, epochs=EPOCHS), tmp_path / "killed"
    part = parts(figure)[1]
    killed = start(folder, EPOCHS)
    wait_for(folder, ".*.checkpoint", killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not any(folder.glob("*.nc"))
    # from the checkpoint, not from the start: one that is damaged is told
    shutil.copytree(folder, tmp_path / "damaged")
    checkpoint = next((tmp_path / "damaged").glob(".*.checkpoint"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot load"):
        Store(figure, tmp_path / "damaged").make(part, False)
    # the lock of a process that is dead is free
    store, unbroken = Store(figure, folder), Store(figure, tmp_path / "unbroken")
    path = store.make(part, False)
    assert path == store.path(part)
    assert Record.load(path) == Record.load(unbroken.make(part, False))
    assert {p.name for p in folder.iterdir()} == {f"{name_of(part)}.nc", f"{name_of(part)}.host.json"}


def test_what_a_part_took_counts_what_was_done_before_it_was_stopped(tmp_path, monkeypatch):
    store, part = Store(FIGURE, tmp_path), parts(FIGURE)[1]
    step, left = engine.Run.step, [3]

    def stopped(self):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(engine.Run, "step", stopped)
    # as if the first steps had taken so long
    monkeypatch.setattr(history, "clocks", lambda: clocks() * torch.tensor([1e6, 1e3]))
    with pytest.raises(KeyboardInterrupt):
        store.make(part, False)
    monkeypatch.undo()
    (checkpoint,) = tmp_path.glob(".*.checkpoint*")
    before = (clocks() - begin(checkpoint)).tolist()
    host = host_of(store.make(part, False))
    assert before[0] < host["seconds"] < before[0] + 60
    assert before[1] < host["cpu_seconds"] < before[1] + 60
    assert before[0] > 100
    # and so they tell the rate
    assert host["operations"] == part.operations()


KILLS = 20
PAPER = ["reproduce", "gradient-flossing", "fig4c", "--scale", "paper", "--records", "records"]


def results(folder):
    """All Records, byte by byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.nc")}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_twenty_kills_of_a_figure_made_in_parts_and_gathered_give_the_same_records(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(FIG4C.scales, "paper", {**FIG4C.scales["smoke"], "epochs": EPOCHS})
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    whole, moments, report, seconds = tmp_path / "whole", random.Random(0), [], {}
    whole.mkdir()
    for what, more in (("parts", []), ("gathering", ["--gather"])):
        begin, process = time.monotonic(), forked(whole, PAPER + more)
        process.join()
        seconds[what] = time.monotonic() - begin
        assert process.exitcode == 0, (whole / "output.txt").read_text()
    expected = results(whole)
    assert len(expected) == len(parts(FIGURE)) + 1
    for count in range(KILLS):
        # every other one while it only draws and checks what is there
        what, folder = ("parts", "gathering")[count % 2], tmp_path / f"killed{count}"
        folder.mkdir()
        if what == "gathering":
            shutil.copytree(whole / "records", folder / "records")
        command = PAPER + ["--gather"] * (what == "gathering")
        process, moment = forked(folder, command), moments.uniform(0.0, 0.9 * seconds[what])
        time.sleep(moment)
        alive = process.is_alive()
        process.kill()
        process.join()
        there = len(results(folder))
        process = forked(folder, command)
        process.join()
        assert process.exitcode == 0, (folder / "output.txt").read_text()
        assert results(folder) == expected
        assert not [path for path in folder.rglob(".*") if path.is_file()]
        state = f"{there} of {len(expected)} Records were there" if alive else "it had ended"
        report.append(f"kill {count + 1}, {what} after {moment:.1f} s: {state}; Records equal")
    with capsys.disabled():
        print("", *report, sep="\n")


def test_two_processes_make_a_part_once(tmp_path):
    first = start(tmp_path, EPOCHS)
    wait_for(tmp_path, "*.lock", first)
    figure = replace(FIGURE, epochs=EPOCHS)
    store, part = Store(figure, tmp_path), parts(figure)[1]
    assert store.make(part, False) is None
    assert first.communicate()[0].strip() == str(store.path(part))
    written = store.path(part).stat().st_mtime_ns
    # what another has finished since is not made again
    assert store.make(part, False) == store.path(part)
    assert store.path(part).stat().st_mtime_ns == written


def test_a_lock_is_held_until_it_is_given_back(tmp_path):
    path = tmp_path / "part.nc"
    with _taken(path) as mine, _taken(path) as others:
        assert (mine, others) == (True, False)
    with _taken(path) as again:
        assert again
    assert not any(tmp_path.iterdir())


def test_what_is_damaged_or_of_other_settings_is_refused_and_made_again(tmp_path):
    store = Store(FIGURE, tmp_path)
    first, *_ = parts(FIGURE)
    path = store.make(first, False)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + b"x" + whole[1001:])
    other = Store(replace(FIGURE, epochs=3), tmp_path)
    other.path(parts(FIGURE)[1]).write_bytes(b"")
    found, refused = store.look()
    assert found == []
    assert len(refused) == 2
    assert "it is damaged" in refused[path]
    assert store.missing() == parts(FIGURE)
    assert store.make(first, False) == path
    assert path.read_bytes() == whole
    # what is whole is never replaced
    assert "it is no part of gradient-flossing fig4c as it is now" in other.look()[1][path]
    with pytest.raises(ValueError, match="it is no part of gradient-flossing fig4c as it is now; move it"):
        other.make(parts(other.figure)[0], False)
    assert path.read_bytes() == whole
    # another seed is another whole
    assert Store(replace(FIGURE, seed=1), tmp_path).look() == ([], {})


def test_a_copy_of_a_part_is_no_further_network(tmp_path):
    chosen = FIGURES["gradient-flossing"]["fig15"]
    store = Store(chosen(**chosen.scales["smoke"]), tmp_path, 2)
    path = store.make(store.missing()[0], False)
    for name in ("seed0 (copy).nc", "seed0.old.nc", "seed1.nc"):
        shutil.copy(path, tmp_path / name)
    found, refused = store.look()
    assert len(found) == 1
    assert sorted(p.name for p in refused) == ["seed0 (copy).nc", "seed0.old.nc", "seed1.nc"]
    assert all("it is a copy of seed0; move it away" in why for why in refused.values())
    # the other one is still to be made, and not by what is called like it
    (other,) = store.missing()
    with pytest.raises(ValueError, match=r"cannot use .*seed1.nc"):
        store.make(other, False)


def test_a_part_of_no_number_of_networks_is_refused(tmp_path):
    store = Store(FIGURE, tmp_path)
    path = store.make(store.missing()[0], False)
    record = Record.load(path)
    for odd in ({"seeds": "x"}, {"seeds": None}, {"delays": 3}, {"delays": []}):
        Record(record.kind, {**record.config, **odd}, record.variables, record.coordinates).save(path)
        assert store.look() == ([], {path: f"cannot use {path}: {OTHER}"})


def test_a_part_without_a_seed_is_refused(tmp_path):
    chosen = FIGURES["gradient-flossing"]["fig15"]
    store = Store(chosen(**chosen.scales["smoke"]), tmp_path, 1)
    record = Record.load(store.make(store.missing()[0], False))
    for seed in (None, "abc"):
        Record(record.kind, {**record.config, "seed": seed}, record.variables).save(tmp_path / "seed0")
        assert (store.look()[0], len(store.look()[1])) == ([], 1)
        (tmp_path / "seed0.nc").unlink()


def test_a_part_of_which_some_networks_are_there_is_made(tmp_path):
    figure = replace(FIGURE, seeds=2)
    store, (first, *_) = Store(figure, tmp_path), parts(figure)
    path = store.make(first, False)
    whole = Record.load(path)
    fewer = Record(whole.kind, {**whole.config, "seeds": first.seeds - 1}, {})
    fewer.save(path)
    assert first in store.missing()
    assert store.make(first, False) == path
    assert Record.load(path) == whole


def test_a_part_of_a_newer_lyaptorch_is_not_replaced(tmp_path, monkeypatch):
    store, (first, *_) = Store(FIGURE, tmp_path), parts(FIGURE)
    with monkeypatch.context() as patch:
        patch.setattr(record_module, "_VERSION", 99)
        path = store.make(first, False)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="format_version must be 1 or 2, got 99; update lyaptorch"):
        store.make(first, False)
    assert path.read_bytes() == before


def test_what_is_no_part_costs_nothing(tmp_path):
    store, (first, *_) = Store(FIGURE, tmp_path), parts(FIGURE)
    path = store.make(first, False)
    spent = store.spent()
    for name in ("another.nc", f"{path.stem}-copy.nc"):
        Record.load(path).save(tmp_path / name, host={"seconds": 1e6, "cpu_seconds": 1e6})
    assert store.spent() == spent


def test_what_a_part_will_cost(tmp_path):
    store, (first, second) = Store(FIGURE, tmp_path), parts(FIGURE)
    assert store.seconds(first, 0.0) == first.operations() / RATE
    path = store.make(first, False)
    # by the rate at which the first was made
    record = Record.load(path)
    record.save(path, host={"seconds": 3.0, "operations": first.operations()})
    assert store.seconds(second, 0.0) == pytest.approx(3.0 * second.operations() / first.operations())
    # what is no number is no cost, nor is what nobody can have taken
    for wrong in ("3", None, [3.0], -1.0, 0, 10**400):
        record.save(path, host={"seconds": wrong, "cpu_seconds": wrong, "operations": wrong})
        assert store.seconds(second, 0.0) == second.operations() / RATE
        assert store.spent() == (None, None)
    # of one whose operations are not known: what another took, or its share
    chosen = FIGURES["gradient-flossing"]["fig1b"]
    whole = chosen(**chosen.scales["smoke"])
    store = Store(whole, tmp_path / "fig1b", 4)
    assert store.seconds(parts(whole)[0], 8.0) == 2.0
    path = store.make(parts(whole)[0], False)
    assert 0 < store.seconds(parts(whole)[1], 0.0) < 100
    assert np.isfinite(store.seconds(parts(whole)[1], 0.0))
    assert [part.seed for part in store.missing()] == [1, 2, 3]
