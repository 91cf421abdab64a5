"""The command `lyap` when something is wrong: one sentence, a status, and no half-written file."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from command import SMALL, TINY, command, files
from lyaptorch.record import Record


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


WRONG = [
    (["--cell", "ratte"], "unknown cell 'ratte', did you mean 'rate'? known: elman, gru, leaky, lstm, rate"),
    (["--cell", "gru", "--activation", "relu"], "activation must be tanh for a cell 'gru', got 'relu'"),
    (["--inputs", "nois"], "unknown inputs 'nois', did you mean 'noise'?"),
    (["--activation", "tan"], "unknown activation 'tan', did you mean 'tanh'?"),
    (["--weights", "gausian"], "unknown weights 'gausian', did you mean 'gaussian'?"),
    (["--inputs", "temporal_xor", "--delay", "3"], "delay must be even, got 3"),
    (["--k", "7"], "k must be an integer in 1..6, got 7"),
    (["--k", "0"], "k must be an integer in 1..6, got 0"),
    (["--n", "0"], "n must be an integer >= 1, got 0"),
    (["--dt", "0"], "dt must be a finite number above 0, got 0.0"),
    (["--steps", "0"], "steps must be an integer >= 1, got 0"),
    (["--steps", "-100"], "steps must be an integer >= 1, got -100"),
    (["--trajectories", "0"], "trajectories must be an integer >= 1, got 0"),
    (["--threads", "0"], "threads must be an integer in 1..1024, got 0"),
    (["--leak", "0.5"], "--leak is of --cell leaky, got 0.5; drop it"),
    (["--delay", "4"], "--delay is of a task, and the inputs are noise, got 4; drop it"),
    (
        ["--inputs", "recall", "--channels", "2"],
        "--channels is of noise and zero, and the inputs are recall, g",
    ),
    (["--inputs", "temporal_xor", "--items", "2"], "--items is of --inputs recall, got 2; drop it"),
    (
        ["net.py:rnn", "--gain", "2"],
        "--gain is of a network that lyap makes, and net.py:rnn is given, got 2.0",
    ),
    (
        ["net.py:rnn", "--inputs", "a.npy", "--trajectories", "2"],
        "--trajectories is of inputs that lyap draw",
    ),
    (["net.py:rnn", "--n", "7"], "--n must be 6, that of net.py:rnn, got 7; drop it"),
    (["net.py:rnn", "--channels", "3"], "--channels must be 2, that of net.py:rnn, got 3; drop it"),
    (["--segments", "30"], "segments must be in 1.."),
    (["--runs", "net.py"], "cannot write to the folder net.py"),
    (["--runs", "net.py/deep"], "cannot write to the folder net.py/deep"),
    (["net.py"], "target must be module:name or file.py:name, got 'net.py'"),
    (["nope.py:rnn"], "cannot load nope.py:rnn"),
    (["nope:rnn"], "cannot load nope:rnn: No module named 'nope'"),
    (["net.py:nope"], "has no attribute 'nope'; check the module and the name"),
    (
        ["net.py:number"],
        "as_cell takes a cell, a module, a function step(x, h), or a list of modules, got int",
    ),
    (["net.py:rnn", "--inputs", "nope.npy"], "cannot read nope.npy: "),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_an_error_is_one_sentence_and_status_2(lyap, arguments, message):
    assert message in lyap.fails("spectrum", *SMALL, *arguments)


def test_data_that_does_not_fit(lyap, tmp_path):
    whole = np.ones((60, 2))
    for name, data in (("wide", np.ones((60, 3))), ("flat", np.ones(60)), ("nan", whole * np.nan)):
        np.save(tmp_path / f"{name}.npy", data)
    np.save(tmp_path / "complex.npy", whole * 1j)
    np.save(tmp_path / "short.npy", whole[:9])
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "zip.npz", whole)
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "cut.npy", whole)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:200])
    messages = {
        "wide": "wide.npy must hold 2 channels (its last dimension), got (60, 1, 3)",
        "flat": "flat.npy must hold numbers of shape (t, m) or (t, b, m), got float64 (60,)",
        "complex": "complex.npy must hold numbers of shape (t, m) or (t, b, m), got complex128",
        "nan": "inputs must be finite, got nan at index (0, 0, 0)",
        "short": "inputs must hold transient + tangent_transient + at least 1 counted step, got t=9",
        "pickle": "cannot read pickle.npy: Array can't be memory-mapped: Python objects in dtype",
        "zip": "cannot read zip.npy: ",
        "empty": "cannot read empty.npy: ",
        "text": "cannot read text.npy: ",
        "cut": "cannot read cut.npy: ",
    }
    for name, message in messages.items():
        assert message in lyap.fails("spectrum", "net.py:rnn", *SMALL, "--inputs", f"{name}.npy")


def test_a_demo_that_cannot_be(lyap):
    assert "k must be an integer in 1..8, got 9" in lyap.fails("demo", *TINY, "--k", "9")
    assert "delay must be below the length" in lyap.fails("demo", *TINY, "--delay", "20")
    assert "floss_epochs must be an integer >= 1" in lyap.fails("demo", *TINY, "--floss-epochs", "0")
    for name in ("seeds", "batch", "measure", "length"):
        assert f"{name} must be an integer >= 1, got -1" in lyap.fails("demo", *TINY, f"--{name}", "-1")
    assert "floss_clip must be finite and at least 0, got nan" in lyap.fails(
        "demo", *TINY, "--floss-clip", "nan"
    )
    assert "cannot write to the folder net.py" in lyap.fails("demo", *TINY, "--runs", "net.py")


def test_dynamics_that_overflow_end_in_one_sentence(lyap):
    err = lyap.fails("spectrum", *SMALL, "--activation", "linear", "--gain", "1e30", "--transient", "0")
    assert "the state is not finite" in err


@pytest.mark.parametrize("moment", ["work", "figure"])
def test_an_interrupt_is_status_130_and_leaves_nothing_half_written(lyap, tmp_path, monkeypatch, moment):
    def interrupt(self, file=None, **kw):
        if file is not None and not hasattr(file, "write"):
            file.write_bytes(b"half")
        raise KeyboardInterrupt

    if moment == "work":
        module = sys.modules["lyaptorch.cli.measuring"]
        monkeypatch.setattr(module, "lyapunov_spectrum", lambda *a, **kw: interrupt(None))
    else:
        monkeypatch.setattr(Figure, "savefig", interrupt)
    status, out, err = lyap("spectrum", *SMALL)
    assert (status, out) == (130, "")
    kept = "" if moment == "work" else ", the Record is saved as runs/spectrum.nc"
    assert err == f"lyap: interrupted; no file is half written{kept}\n"
    left = files(tmp_path / "runs")
    assert left == set() or all(p.suffix in (".nc", ".json") for p in left)
    assert (left == set()) == (moment == "work")
    for path in left:
        if path.suffix == ".nc":
            Record.load(tmp_path / "runs" / path)
