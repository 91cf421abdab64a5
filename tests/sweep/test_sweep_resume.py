"""Sweeps killed at random moments by a signal that nobody can catch, and started again: the same Records."""

import json
import multiprocessing as mp
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from command import forked
from lyaptorch.training import run as engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc"),
]
SETTINGS = {"task": "temporal_xor", "delay": 2, "hidden_size": 8, "k": 4, "epochs": 40, "floss_epochs": 10}
SETTINGS |= {"batch": 2, "length": 20}
COMMAND = [
    "sweep",
    "xor.json",
    "--over",
    "hidden_size=8,12",
    "--over",
    "delay=2,4",
    "--seeds",
    "2",
    "--group",
    "2",
]
KINDS = 12 * ("driver",) + 4 * ("worker",) + 4 * ("machine",)
"""Who is killed: a sweep in one process; one of two worker processes; a driver with its two workers."""


def start(folder: Path, kind: str) -> mp.process.BaseProcess:
    folder.mkdir(exist_ok=True)
    (folder / "xor.json").write_text(json.dumps(SETTINGS))
    arguments = [] if kind == "driver" else ["--workers", "2"]
    return forked(folder, [*COMMAND, *arguments])


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(process: mp.process.BaseProcess, kind: str, moments: random.Random) -> None:
    if kind == "worker":
        for child in moments.sample(found, 1) if (found := children(process.pid)) else []:
            os.kill(child, signal.SIGKILL)
    elif kind == "machine":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def results(folder: Path) -> dict[str, bytes]:
    """All Records, byte by byte."""
    runs = folder / "runs"
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*.nc")}


@pytest.mark.usefixtures("unchecked")
def test_twenty_kills_at_random_moments_give_twenty_times_the_same_records(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setenv("LYAPTORCH_CHECKPOINT_SECONDS", "-1")
    moments, report, seconds = random.Random(0), [], {}
    for kind in dict.fromkeys(KINDS):
        begin, process = time.monotonic(), start(tmp_path / kind, kind)
        process.join()
        seconds[kind] = time.monotonic() - begin
        assert process.exitcode == 0, (tmp_path / kind / "output.txt").read_text()
    expected = results(tmp_path / "driver")
    assert len(expected) == 5
    assert results(tmp_path / "worker") == results(tmp_path / "machine") == expected
    for count, kind in enumerate(KINDS):
        folder = tmp_path / f"killed{count}"
        process, moment = start(folder, kind), moments.uniform(0.0, 0.9 * seconds[kind])
        time.sleep(moment)
        alive = process.is_alive()
        kill(process, kind, moments) if alive else None
        if kind != "worker":
            process.join()
        before = len(list((folder / "runs/sweep").glob("*.nc")))
        drafts = len(list((folder / "runs").rglob(".*")))
        if kind != "worker":
            process = start(folder, kind)
        process.join()
        assert process.exitcode == 0, (folder / "output.txt").read_text()
        assert results(folder) == expected
        assert list((folder / "runs").rglob(".*")) == []
        state = f"{before} of 4 ensembles saved, {drafts} checkpoints and drafts" if alive else "it had ended"
        report.append(f"kill {count + 1}, {kind} after {moment:.1f} s: {state}; Records equal")
    with capsys.disabled():
        print("", *report, sep="\n")
