"""Files of inputs and networks by name, as commands read them."""

import gc

import numpy as np
import pytest
import torch

import lyaptorch as lt
from command import SMALL, command, files
from lyaptorch.cli.files import read
from lyaptorch.record import Record

WHOLE = """
import torch
from torch import nn

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.RNN(2, 6)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.GRUCell(2, 5)])

whole = Classifier()

def make():
    return Classifier()
"""


pytestmark = pytest.mark.usefixtures("blank")


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        (tmp_path / "mynet.py").write_text(WHOLE)
        yield run


@pytest.fixture
def data():
    return np.random.default_rng(0).standard_normal((200, 2)).astype("f4")


def test_a_short_file_is_measured_with_transients_that_fit(lyap, data, tmp_path):
    np.save(tmp_path / "data.npy", data)
    summary = lyap.json("spectrum", "net.py:rnn", "--inputs", "data.npy")
    assert (summary["transient"], summary["tangent_transient"], summary["counted"]) == (20, 18, 162)
    torch.manual_seed(0)
    rnn, g = torch.nn.RNN(2, 6), torch.Generator().manual_seed(0)
    inputs = torch.tensor(data)[:, None]
    measured = lt.lyapunov_spectrum(rnn, inputs, transient=20, tangent_transient=18, generator=g)
    np.testing.assert_allclose(summary["exponents"], measured.exponents, rtol=1e-5)
    config = Record.load(summary["record"]).config
    assert (config["transient"], config["tangent_transient"]) == (20, 18)
    assert lyap.json("diagnose", "net.py:rnn", "--inputs", "data.npy")["counted"] == 162
    said = "data.npy: steps 200, trajectories 1, channels 2; transients 20 + 18, counted 162"
    for name in ("spectrum", "diagnose"):
        status, out, err = lyap(name, "net.py:rnn", "--inputs", "data.npy")
        assert (status, err) == (0, "")
        assert said in out


@pytest.mark.parametrize(
    ("t", "flags", "counts"),
    [
        (9, [], (0, 0, 9)),
        (2000, [], (100, 100, 1800)),
        (200, ["--transient", 195], (195, 0, 5)),
        (200, ["--tangent-transient", 0], (20, 0, 180)),
        (200, ["--steps", 50], (20, 18, 50)),
    ],
)
def test_what_is_given_counts_and_the_rest_fits(lyap, tmp_path, t, flags, counts):
    np.save(tmp_path / "data.npy", np.ones((t, 2), "f4"))
    summary = lyap.json("spectrum", "net.py:rnn", "--inputs", "data.npy", "--k", 1, *flags)
    assert tuple(summary[name] for name in ("transient", "tangent_transient", "counted")) == counts


def test_other_inputs_have_the_steps_they_had(lyap):
    summary = lyap.json("spectrum", "--n", 4, "--k", 1)
    assert (summary["transient"], summary["tangent_transient"], summary["counted"]) == (100, 100, 1000)


def test_every_kind_of_file_holds_the_same_numbers(lyap, data, tmp_path):
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "one.npz", data)
    np.savez(tmp_path / "two.npz", x=data, y=data[:5])
    torch.save(torch.tensor(data), tmp_path / "one.pt")
    torch.save({"x": torch.tensor(data), "epoch": 3}, tmp_path / "two.pt")
    np.savetxt(tmp_path / "bare.csv", data, delimiter=",", fmt="%.9g")
    text = (tmp_path / "bare.csv").read_text()
    (tmp_path / "named.csv").write_text(f"left,right\n{text}")
    names = ["a.npy", "one.npz", "two.npz:x", "one.pt", "two.pt", "two.pt:x", "bare.csv", "named.csv"]
    found = [lyap.json("spectrum", "net.py:rnn", "--inputs", name)["exponents"] for name in names]
    assert all(exponents == found[0] for exponents in found)


def test_python_gives_inputs_too_and_is_run_once(lyap, data, tmp_path):
    np.save(tmp_path / "data.npy", data)
    (tmp_path / "own.py").write_text(
        "import numpy as np, torch\n"
        "with open('runs.txt', 'a') as runs: runs.write('once ')\n"
        "net = torch.nn.RNN(2, 4)\n"
        "array = np.load('data.npy')\n"
        "class Data:\n    tensor = torch.tensor(array)\n"
        "def make(): return torch.tensor(array, requires_grad=True)\n"
    )
    for name in ("array", "Data.tensor", "make"):
        wanted = lyap.json("spectrum", "net.py:rnn", "--inputs", "data.npy")["exponents"]
        assert lyap.json("spectrum", "net.py:rnn", "--inputs", f"own.py:{name}")["exponents"] == wanted
    (tmp_path / "runs.txt").unlink()
    lyap.json("spectrum", "own.py:net", "--inputs", "own.py:array")
    assert (tmp_path / "runs.txt").read_text() == "once "


def test_what_python_gives_must_be_inputs(lyap, tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "words = 'abc'\n"
        "wide = torch.zeros(50, 3)\n"
        "turned = torch.zeros(50, 2, dtype=torch.complex64)\n"
        "def broken(): raise KeyError('no data')\n"
    )
    for name, message in {
        "words": "own.py:words must be a tensor or an array, got str",
        "wide": "own.py:wide must hold 2 channels (its last dimension), got (50, 1, 3)",
        "turned": "own.py:turned must hold numbers of shape (t, m) or (t, b, m), got complex64",
        "broken": "own.py:broken() failed: KeyError('no data'); it must do its work without arguments",
        "nothing": "cannot load own.py:nothing: ",
    }.items():
        assert message in lyap.fails("spectrum", "net.py:rnn", "--inputs", f"own.py:{name}")


def test_one_number_a_step_is_one_channel(lyap, tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(60))
    np.save(tmp_path / "column.npy", np.ones((60, 1)))
    flat, column = (lyap.json("spectrum", *SMALL[:2], "--inputs", f"{n}.npy") for n in ("flat", "column"))
    assert flat["exponents"] == column["exponents"]


def test_more_trajectories_than_steps_are_remarked_on(lyap, tmp_path):
    np.save(tmp_path / "batch.npy", np.ones((20, 50, 2), "f4"))
    out = lyap("spectrum", "net.py:rnn", "--inputs", "batch.npy")[1].replace("\n", " ")
    assert "steps 20, trajectories 50, channels 2; if time is its second axis, save x.swapaxes(0, 1)" in out


class Trap:
    """Whoever unpickles it leaves a file."""

    def __reduce__(self):
        return open, ("sprung", "w")


def test_files_that_cannot_be_read_are_one_sentence_and_execute_nothing(lyap, data, tmp_path):
    np.savez(tmp_path / "two.npz", x=data, y=data)
    np.savez(tmp_path / "trap.npz", x=np.array([Trap()], dtype=object), allow_pickle=True)
    torch.save(Trap(), tmp_path / "trap.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    np.save(tmp_path / "one.npy", data)
    np.save(tmp_path / "fake.npy", data)
    (tmp_path / "fake.npy").rename(tmp_path / "fake.npz")
    (tmp_path / "words.csv").write_text("left,right\n1,two\n")
    for suffix in ("npy", "npz", "pt", "csv"):
        (tmp_path / f"empty.{suffix}").touch()
        (tmp_path / f"folder.{suffix}").mkdir()
    messages = {
        "two.npz": "two.npz holds the arrays x, y, got two.npz alone; name one, as two.npz:x",
        "two.npz:z": "two.npz holds the arrays x, y, got two.npz:z; name one, as two.npz:x",
        "one.npy:x": "one.npy holds one array without a name, got one.npy:x; drop the name",
        "trap.npz": "cannot read trap.npz: Object arrays cannot be loaded when allow_pickle=False",
        "trap.pt": "cannot read trap.pt: ",
        "none.pt": "cannot read none.pt: it holds no tensor, but dict",
        "fake.npz": "cannot read fake.npz: it is no archive of arrays; it must be a .npz file of numbers",
        "words.csv": "cannot read words.csv: could not convert string 'two' to float64",
        "nope.npz": "cannot read nope.npz: [Errno 2] No such file",
        "data.txt": "unknown inputs 'data.txt'",
    }
    for suffix in ("npy", "npz", "pt", "csv"):
        messages[f"empty.{suffix}"] = f"cannot read empty.{suffix}: "
        messages[f"folder.{suffix}"] = f"cannot read folder.{suffix}: "
    for name, message in messages.items():
        assert message in lyap.fails("spectrum", "net.py:rnn", "--inputs", name)
    assert not (tmp_path / "sprung").exists()


def test_more_steps_than_a_file_holds(lyap, data, tmp_path):
    np.save(tmp_path / "data.npy", data)
    message = "steps must be an integer in 1..162 for data.npy, which holds 200 steps, 38 of them transients"
    assert message in lyap.fails("spectrum", "net.py:rnn", "--inputs", "data.npy", "--steps", 163)


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("mynet.py:whole.rnn", 6),
        ("mynet:whole.rnn", 6),
        ("mynet.py:make.rnn", 6),
        ("mynet.py:Classifier.rnn", 6),
        ("mynet.py:whole.layers.1", 5),
    ],
)
def test_a_part_of_a_network_has_a_name(lyap, target, size):
    summary = lyap.json("spectrum", target, *SMALL, "--n", size)
    assert np.shape(summary["exponents"]) == (1, size)


def test_a_diagnosis_calls_a_part_by_its_name(lyap):
    summary = lyap.json("diagnose", "mynet.py:whole.rnn", *SMALL)
    assert Record.load(summary["record"]).config["name"] == "whole.rnn"
    assert any("whole.rnn" in suggestion["code"] for suggestion in summary["suggestions"])


def test_names_and_modules_that_fail_are_one_sentence(lyap, tmp_path):
    (tmp_path / "cut.py").write_text("rnn = (\n")
    (tmp_path / "bad.py").write_text("import torch\nrnn = torch.nn.RNN(1, size)\n")
    messages = {
        "mynet.py:whole.rrn": "cannot load mynet.py:whole.rrn: 'Classifier' object has no attribute 'rrn'",
        "mynet.py:whol.rnn": "has no attribute 'whol'; check the module and the name",
        "cut.py:rnn": "cannot load cut.py:rnn: SyntaxError: '(' was never closed",
        "bad.py:rnn": "cannot load bad.py:rnn: NameError: name 'size' is not defined in line 2 of ",
    }
    for target, message in messages.items():
        assert message in lyap.fails("spectrum", target, *SMALL)


def test_what_cannot_be_written_is_told_why(lyap, tmp_path):
    assert lyap("spectrum", *SMALL)[0] == 0
    before = files(tmp_path)
    for out, advice in (("nowhere/r.html", "make the folder"), ("runs", "name a file")):
        status, _, err = lyap("report", "--out", out)
        assert status == 2
        assert err.startswith(f"lyap: cannot write {out}, got [Errno ")
        assert advice in err
        assert "free space" not in err
    assert files(tmp_path) == before


def test_a_damaged_archive_is_not_left_open(tmp_path):
    path = tmp_path / "inputs.npz"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(ValueError, match="cannot read"):
        read(str(path), 1)
    # an open file would be told of here, which is an error
    gc.collect()
