"""`lyap train`, killed twenty times at random moments by a signal that nobody can catch, and begun again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lyaptorch.record import Record

pytestmark = pytest.mark.slow
CODE = "import sys; from lyaptorch.cli import main; sys.exit(main())"
OPTIONS = ["--schedule", "episodes", "--delay", "4", "--seeds", "2", "--hidden-size", "12", "--k", "8"]
OPTIONS += ["--floss-epochs", "25", "--epochs", "1400", "--batch", "4", "--length", "30", "--json"]
KILLS = 20


def lyap(folder: Path) -> subprocess.Popen[str]:
    """The command in a folder, with a checkpoint after every step."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "train", "temporal_xor", *OPTIONS],
        cwd=folder,
        env={**os.environ, "LYAPTORCH_CHECKPOINT_SECONDS": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), err
    assert '"accuracy"' in out


def at_work(folder: Path, process: subprocess.Popen[str], before: int) -> bool:
    """Wait until it has written a checkpoint since `before`; false if it ended first."""
    while process.poll() is None:
        try:
            if any(p.stat().st_mtime_ns > before for p in (folder / "runs").glob(".*.checkpoint")):
                return True
        except FileNotFoundError:
            pass
        time.sleep(0.002)
    return False


def test_a_training_killed_at_twenty_random_moments_is_the_uninterrupted_one(tmp_path, capsys):
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    for folder in (whole, killed):
        folder.mkdir()
    done(lyap(whole))
    expected = Record.load(whole / "runs/train-temporal_xor-episodes.nc")
    drafts, report = set(), []
    for count in range(KILLS):
        before, process = time.time_ns(), lyap(killed)
        assert at_work(killed, process, before), f"ended before kill {count}: {process.communicate()}"
        delay = moments.uniform(0.0, 0.4)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        drafts |= {p.name for p in (killed / "runs").glob("*.tmp")}
        names = [p.name for p in (killed / "runs").iterdir() if p.suffix != ".tmp"]
        assert [Path(name).suffix for name in names] == [".checkpoint"]
        report.append(f"kill {count + 1}: {1000 * delay:.0f} ms after its first checkpoint")
    done(lyap(killed))
    assert Record.load(killed / "runs/train-temporal_xor-episodes.nc") == expected
    names = {p.name for p in (killed / "runs").iterdir()}
    assert names == {f"train-temporal_xor-episodes.{end}" for end in ("nc", "png", "host.json")}
    with capsys.disabled():
        print("", *report, f"{len(drafts)} drafts were left by kills, all removed; Records equal", sep="\n")
