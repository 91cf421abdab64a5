"""The command `lyap`: what it prints and writes."""

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch

import lyaptorch as lt
from command import SMALL, TINY, command, files
from lyaptorch.experiments import Demo
from lyaptorch.record import Record
from lyaptorch.tasks import TASKS


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def test_demo_prints_a_table_and_where_the_files_are(lyap, tmp_path):
    status, out, err = lyap("demo", *TINY)
    assert status == 0
    assert "Binary temporal XOR, delay 4" in out
    assert out.count("plain") == out.count("flossed") == 2
    assert "Record runs/demo.nc" in out
    record = Record.load(tmp_path / "runs/demo.nc")
    assert record.kind == "demo"
    assert f"{record['final_accuracy'][0]:.3f}" in out
    assert (tmp_path / "runs/demo.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "runs/demo.host.json").read_text())["seconds"] > 0
    assert err == ""


@pytest.mark.usefixtures("blank")
def test_demo_as_json_is_the_demo_of_the_library(lyap, tmp_path):
    summary = lyap.json("demo", *TINY, "--runs", tmp_path / "else/where", "--seed", 3)
    record = Record.load(summary["record"])
    assert Demo(4, 2, 8, 4, 2, epochs=3, batch=2, length=20, measure=40, seed=3).run() == record
    assert files(tmp_path / "else/where").__len__() == 3
    accuracy = summary["plain_accuracy"] + summary["flossed_accuracy"]
    np.testing.assert_allclose(accuracy, record["final_accuracy"], atol=5e-5)
    np.testing.assert_allclose(summary["plain_lambda_1"], record["spectrum"][:2, 0], atol=5e-5)
    np.testing.assert_allclose(summary["flossed_lambda_1"], record["spectrum"][2:, 0], atol=5e-5)


def test_the_version_is_that_of_the_package(lyap):
    try:
        installed = metadata.version("lyaptorch")
    except metadata.PackageNotFoundError:
        installed = "not installed"
    assert lt.__version__ == installed
    assert lyap("--version") == (0, f"lyap {installed}\n", "")
    with pytest.raises(AttributeError, match="module 'lyaptorch' has no attribute 'spectra'"):
        _ = lt.spectra


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("kind", ["rate", "elman", "lstm", "gru"])
def test_spectrum_by_flags_is_the_spectrum_of_the_library(lyap, kind):
    flags = ["--cell", kind, "--gain", 1.3, "--weights", "orthogonal", "--inputs", "zero", "--k", 4]
    summary = lyap.json("spectrum", *SMALL, *flags, "--seed", 2, "--dtype", "float64")
    torch.set_default_dtype(torch.float32)
    make = {"rate": lt.RateCell, "elman": lt.ElmanCell, "lstm": lt.LSTMCell, "gru": lt.GRUCell}[kind]
    cell = make(1, 6, gain=1.3, weights="orthogonal", generator=torch.Generator().manual_seed(2)).double()
    inputs, g = torch.zeros(50, 1, 1, dtype=torch.float64), torch.Generator().manual_seed(2)
    measured = lt.lyapunov_spectrum(cell, inputs, k=4, transient=5, tangent_transient=5, generator=g)
    np.testing.assert_allclose(summary["exponents"], measured.exponents.detach(), rtol=1e-10)
    # JSON has no inf, which says that the run is too short to judge
    errors = [[np.inf if error is None else error for error in row] for row in summary["stderr"]]
    np.testing.assert_allclose(errors, measured.stderr(), rtol=1e-8)
    record = Record.load(summary["record"])
    np.testing.assert_array_equal(record["exponents"], summary["exponents"])
    assert (record.config["target"], record.config["gain"]) == (kind, 1.3)
    assert record["running"].shape == (1, 40, 4)
    assert record["elapsed"].tolist() == list(range(1, 41))


def test_the_table_shows_first_and_last_exponents(lyap):
    status, out, err = lyap("spectrum", *SMALL, "--n", 40, "--trajectories", 3)
    assert (status, err) == (0, "")
    assert "mean of 3 trajectories" in out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert rows == [*"123456", "…", *map(str, range(35, 41))]
    assert "Record runs/spectrum.nc" in out


@pytest.mark.usefixtures("blank")
def test_the_interval_changes_when_not_what_is_measured(lyap):
    kw = [*SMALL, "--dtype", "float64", "--k", 3]
    often, rarely = lyap.json("spectrum", *kw), lyap.json("spectrum", *kw, "--interval", 7)
    np.testing.assert_allclose(rarely["exponents"], often["exponents"], rtol=1e-9)
    assert Record.load(rarely["record"])["elapsed"].tolist() == [7, 14, 21, 28, 35, 40]


@pytest.mark.usefixtures("blank")
def test_segments_change_how_and_not_what_is_measured(lyap):
    kw = [*SMALL, "--dtype", "float64", "--k", 3, "--steps", 400]
    whole, pieces = lyap.json("spectrum", *kw), lyap.json("spectrum", *kw, "--segments", 4)
    assert (whole["segments"], whole["warm_up"], pieces["segments"]) == (1, 0, 4)
    config = Record.load(pieces["record"]).config
    assert (config["segments"], config["warm_up"]) == (4, pieces["warm_up"])
    assert pieces["exponents"] != whole["exponents"]
    far = np.abs(np.subtract(pieces["exponents"], whole["exponents"]))
    assert (far < 3 * np.array(pieces["stderr"])).all()
    out = lyap("spectrum", *kw, "--segments", 4)[1]
    assert f"4 segments, each after {pieces['warm_up']} steps of another" in " ".join(out.split())


@pytest.mark.usefixtures("blank")
def test_the_inputs_by_name(lyap):
    kw = [*SMALL, "--trajectories", 2]
    by = {name: lyap.json("spectrum", *kw, "--inputs", name) for name in ("noise", "zero", "temporal_xor")}
    shapes = {name: np.shape(summary["exponents"]) for name, summary in by.items()}
    assert set(shapes.values()) == {(2, 6)}
    assert by["zero"]["exponents"][0] == by["zero"]["exponents"][1]
    assert by["noise"]["exponents"][0] != by["noise"]["exponents"][1]
    scaled = lyap.json("spectrum", *kw, "--inputs", "noise", "--input-scale", 0.0)
    assert scaled["exponents"] == by["zero"]["exponents"]
    assert lyap.json("spectrum", *kw, "--seed", 0)["exponents"] == by["noise"]["exponents"]
    assert lyap.json("spectrum", *kw, "--seed", 1)["exponents"] != by["noise"]["exponents"]
    half = lyap.json("spectrum", *kw, "--inputs", "noise", "--dt", 0.5)["exponents"]
    np.testing.assert_allclose(half, 2 * np.array(by["noise"]["exponents"]), rtol=1e-6)


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_drives_a_network_with_as_many_channels(lyap, name):
    summary = lyap.json("spectrum", *SMALL, "--inputs", name, "--delay", 4, "--trajectories", 2)
    assert np.shape(summary["exponents"]) == (2, 6)
    channels = {
        "recall": 2,
        "spatial_xor": 3,
        "spike_patterns": 40,
        "spiking_xor": 20,
        "spoken_digits": 24,
    }.get(name, 1)
    assert Record.load(summary["record"]).config["shape"] == [50, 2, channels]


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize("shape", [(60, 2), (60, 3, 2)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i2"])
def test_a_network_of_my_own_on_data_of_my_own(lyap, tmp_path, shape, dtype):
    data = (4 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    np.save(tmp_path / "data.npy", data)
    cut = ["--transient", 7, "--tangent-transient", 3, "--runs", tmp_path / "r"]
    summary = lyap.json("spectrum", "net.py:rnn", "--inputs", "data.npy", *cut, "--dtype", "float64")
    torch.manual_seed(0)
    rnn = torch.nn.RNN(2, 6).double()
    inputs = torch.tensor(data.reshape(60, -1, 2)).double()
    g = torch.Generator().manual_seed(0)
    measured = lt.lyapunov_spectrum(rnn, inputs, transient=7, tangent_transient=3, generator=g)
    np.testing.assert_allclose(summary["exponents"], measured.exponents.detach(), rtol=1e-9)
    assert Record.load(tmp_path / "r/spectrum.nc").config["shape"] == list(inputs.shape)


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("target", "size"), [("net.py:step", 5), ("net.py:make", 4), ("net.py:Net", 6), ("net:rnn", 6)]
)
def test_targets_of_every_kind(lyap, target, size):
    channels = ["--channels", 2]
    summary = lyap.json("spectrum", target, *SMALL, "--n", size, *channels)
    assert np.shape(summary["exponents"]) == (1, size)
    if target.endswith("step"):
        # h' = h / 2, whatever the input
        np.testing.assert_allclose(summary["exponents"], np.log(0.5), rtol=1e-5)
        assert summary["kaplan_yorke"] == summary["entropy"] == [0.0]


@pytest.mark.usefixtures("blank")
def test_a_file_whose_name_is_that_of_a_loaded_module(lyap, tmp_path):
    """And one with dots and dashes; two files of one name in two folders."""
    for name, size in (("json.py", 3), ("my-net.v2.py", 4), ("deep/net.py", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"import torch\nrnn = torch.nn.RNN(1, {size})\n")
        summary = lyap.json("spectrum", f"{name}:rnn", *SMALL, "--n", size)
        assert np.shape(summary["exponents"]) == (1, size)


@pytest.mark.usefixtures("blank")
def test_dead_and_unmeasured_exponents_are_null_in_json(lyap):
    dead = lyap.json("spectrum", *SMALL, "--activation", "relu", "--gain", 0.01, "--steps", 200)
    assert None in dead["exponents"][0]
    assert not all(dead["reliable"][0])
    short = lyap.json("spectrum", *SMALL, "--steps", 2)
    assert short["stderr"] == [[None] * 6]


@pytest.mark.usefixtures("blank")
def test_a_second_run_replaces_nothing(lyap, tmp_path):
    for count in (1, 2, 3):
        assert lyap("spectrum", *SMALL)[0] == 0
        assert len(files(tmp_path / "runs")) == 3 * count
    names = {p.name for p in files(tmp_path / "runs") if p.suffix == ".nc"}
    assert names == {"spectrum.nc", "spectrum-2.nc", "spectrum-3.nc"}


@pytest.mark.usefixtures("blank")
def test_list_names_what_there_is_and_the_records(lyap, tmp_path):
    empty = lyap.json("list")
    assert empty["records"] == []
    assert {"rate", "elman"} <= set(empty["cells"])
    assert "temporal_xor" in empty["tasks"]
    assert "gf2023" in empty["presets"]
    lyap("spectrum", *SMALL)
    (tmp_path / "runs/broken.nc").write_bytes(b"nothing")
    broken, good = lyap.json("list")["records"]
    assert (good["path"], good["kind"]) == ("runs/spectrum.nc", "spectrum")
    assert "exponents" in good["contents"]
    assert broken["kind"] == "unreadable"
    status, out, _ = lyap("list")
    assert status == 0
    assert "spectrum.nc" in out
    assert "No Records under" in lyap("list", "--runs", "none")[1]


def test_the_command_in_a_process_of_its_own(tmp_path):
    code = "import sys; from lyaptorch.cli import main; status = main()"
    code += "; assert 'matplotlib.pyplot' not in sys.modules; sys.exit(status)"
    command = [sys.executable, "-c", code, "spectrum", *SMALL, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert len(json.loads(done.stdout)["exponents"][0]) == 6
    assert done.stderr == ""
    wrong = subprocess.run([*command, "--bogus"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert "--bogus" in wrong.stderr
    assert wrong.stdout == ""
