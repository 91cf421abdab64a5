"""The examples run, at tiny size: what they print is there; scripts in the percent format are that."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples"
PERCENT = (
    "deep_stack",
    "diagnose_lstm",
    "floss_rnn",
    "residual_images",
    "snntorch_delayed",
    "lightning_delayed_xor",
    "sweep_gain",
)


def run(name: str, *arguments: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def numbers(text: str, word: str) -> list[float]:
    """What stands behind a word in the lines that have it."""
    tails = [line.partition(word)[2].split() for line in text.splitlines() if word in line]
    return [float(number.strip(";)")) for tail in tails for number in tail if number[:1] in "-+0123456789"]


def shares(text: str) -> list[float]:
    """The accuracies that were printed, all between 0 and 1."""
    found = numbers(text, "accuracy")
    assert all(0 <= share <= 1 for share in found)
    return found


def test_a_diagnosis_says_why(monkeypatch, tmp_path, capsys):
    run("diagnose_lstm", "--smoke", monkeypatch=monkeypatch, folder=tmp_path)
    out = capsys.readouterr().out
    assert out.startswith("lstm: ")
    assert "λ₁" in out
    assert len(shares(out)) == 2


def test_flossing_moves_the_spectrum(monkeypatch, tmp_path, capsys):
    run("floss_rnn", "--smoke", monkeypatch=monkeypatch, folder=tmp_path)
    out = capsys.readouterr().out
    before, after = (numbers(line, "lambda_k:") for line in out.splitlines()[:2])
    assert sum(abs(rate) for rate in after) < sum(abs(rate) for rate in before)
    assert len(shares(out)) == 4


def test_a_deep_stack_gets_its_gradient_back(monkeypatch, tmp_path, capsys):
    run("deep_stack", "--smoke", monkeypatch=monkeypatch, folder=tmp_path)
    out = capsys.readouterr().out
    plain, flossed = numbers(out, "lambda_1")[::2]
    assert abs(flossed) < abs(plain)
    assert out.count("gradient at block") == 6
    assert len(shares(out)) == 2


def test_residual_networks_read_images(monkeypatch, tmp_path, capsys):
    run("residual_images", "--smoke", monkeypatch=monkeypatch, folder=tmp_path)
    out = capsys.readouterr().out
    assert len(numbers(out, "lambda_1")) == 3
    assert out.count("accuracy") == 3


def test_a_sweep_runs_in_processes_and_not_twice(tmp_path):
    command = [sys.executable, str(FOLDER / "sweep_gain.py"), "--smoke"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nc")}
    assert len(written) == 1
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert again.stdout == first.stdout
    assert first.stdout.count("gain ") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nc")} == written


def test_a_convolutional_network(monkeypatch, tmp_path, capsys):
    run("convolutional", "--side", "5", "--steps", "5", "--k", "2", monkeypatch=monkeypatch, folder=tmp_path)
    assert len(numbers(capsys.readouterr().out, "exponents")) == 2


@pytest.mark.parametrize(
    ("settings", "off"),
    [
        pytest.param(("--training", "2000", "--steps", "4000"), 0.2, id="short"),
        pytest.param((), 0.05, id="whole", marks=pytest.mark.slow),
    ],
)
def test_a_reservoir_has_the_exponents_of_what_it_learned(settings, off, monkeypatch, tmp_path, capsys):
    figure, dtype, threads = tmp_path / "figure.png", torch.get_default_dtype(), torch.get_num_threads()
    try:
        run("lorenz_reservoir", *settings, "--figure", str(figure), monkeypatch=monkeypatch, folder=tmp_path)
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    conditional, closed = (numbers(out, name)[::2] for name in ("driven", "closed"))
    assert conditional[0] < -40
    assert abs(closed[0] - 0.906) < off
    assert abs(closed[1]) < 0.6 * off
    assert abs(closed[2] + 14.571) < 10 * off
    assert closed[3] < -25
    assert figure.stat().st_size > 10_000


def test_an_lstm_is_diagnosed_and_started_anew(monkeypatch, tmp_path, capsys):
    figure, threads = tmp_path / "figure.png", torch.get_num_threads()
    short = ("--steps", "3", "--seeds", "1", "--silence", "20", "--units", "8", "--figure", str(figure))
    try:
        run("lstm_200_steps", *short, monkeypatch=monkeypatch, folder=tmp_path)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    out = capsys.readouterr().out
    assert out.startswith("lstm: vanishing")
    assert len(shares(out)) == 3
    torchs, opened, mixing = numbers(out, "lambda_1")[::4]
    assert torchs < -0.3 < min(opened, mixing)
    assert figure.stat().st_size > 10_000


def test_a_loop_of_ones_own(monkeypatch, tmp_path, capsys):
    """At two training steps, as those below; what they show in full is in test_integrations.py."""
    run("plain_delayed_xor", "--steps", "2", monkeypatch=monkeypatch, folder=tmp_path)
    assert len(shares(capsys.readouterr().out)) == 2


@pytest.mark.parametrize("library", ["lightning", "transformers", "accelerate"])
def test_other_peoples_loops(library, tmp_path):
    pytest.importorskip(library, reason=f"{library} is not installed")
    flags = ["--smoke"] if library == "lightning" else ["--steps", "2"]
    command = [sys.executable, str(FOLDER / f"{library}_delayed_xor.py"), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert len(shares(done.stdout)) == 2


def test_a_spiking_network_of_snntorch(monkeypatch, tmp_path, capsys):
    pytest.importorskip("snntorch", reason="snntorch is not installed")
    run("snntorch_delayed", "--smoke", monkeypatch=monkeypatch, folder=tmp_path)
    out = capsys.readouterr().out
    assert len(re.findall(r"seed \d: lambda_1 -?\d\.\d\d before training, accuracy [01]\.\d\d\n", out)) == 4
    assert [line.split()[0] for line in out.splitlines() if "+-" in line] == ["plain", "flossed"]


@pytest.mark.parametrize("name", PERCENT)
def test_the_percent_format(name):
    cells = [cell for cell in (FOLDER / f"{name}.py").read_text().split("# %%") if cell]
    assert cells[0].startswith(" [markdown]\n# # ")
    assert f"python examples/{name}.py" in cells[0]
    for cell in cells:
        if cell.startswith(" [markdown]"):
            assert all(line.startswith("#") for line in cell.splitlines()[1:] if line)
        else:
            # what stands beside the sign of a cell is for the site
            compile(cell.partition("\n")[2], name, "exec")


def test_dead_units_take_as_many_exponents_with_them(monkeypatch, tmp_path, capsys):
    run("dead_units", "--figure", "dead_units.png", monkeypatch=monkeypatch, folder=tmp_path)
    assert [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()] == ["14", "0"]
    assert (tmp_path / "dead_units.png").stat().st_size > 10_000


def test_instances_of_a_looped_model(monkeypatch, tmp_path, capsys):
    tiny = ("--networks", "1", "--epochs", "20", "--figure", "looped_model.png")
    run("looped_model", *tiny, monkeypatch=monkeypatch, folder=tmp_path)
    (line,) = capsys.readouterr().out.splitlines()[1:]
    _, wrong, apart, low, _, high, *others = line.split()
    assert 0 < int(wrong) < 2000
    assert 0 <= float(low) < 0.5 < float(high) <= 1
    assert len(others) == 3
    assert all(0 <= float(chance) <= 1 for chance in (apart, *others))
    assert (tmp_path / "looped_model.png").stat().st_size > 10_000
