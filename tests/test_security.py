"""What is executed when something is opened: nothing, but for the Python that a command is told to load."""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import fuzz
from command import SMALL, command
from lyaptorch._files import sealed
from lyaptorch.cli import files
from lyaptorch.record import Record

EXECUTING = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"}
EXECUTING |= {"socket.connect", "ctypes.dlopen", "os.remove", "os.mkdir"}
"""What Python tells of code that is found or run, of connections, and of harm that is done without either."""
TRAP = "open('sprung', 'w').close()"
heard: list[str] | None = None


@pytest.fixture(scope="module")
def _hook() -> None:
    # it cannot be taken back, only told not to listen
    sys.addaudithook(
        lambda event, _: heard.append(event) if heard is not None and event in EXECUTING else None
    )


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    global heard
    heard = []
    try:
        yield heard
    finally:
        heard = None


class Trap:
    """Whoever unpickles it leaves a file."""

    def __reduce__(self):
        return exec, (TRAP,)


def traps(folder: Path) -> list[bytes]:
    """Pickles in every cover in which they are known to be opened."""
    torch.save({"model.weight": Trap()}, folder / "zip.pt")
    torch.save({"model.weight": Trap()}, folder / "plain.pt", _use_new_zipfile_serialization=False)
    held = np.array([Trap()], dtype=object)
    np.save(folder / "array.npy", held, allow_pickle=True)
    np.savez(folder / "arrays.npz", held, allow_pickle=True)
    names = ("zip.pt", "plain.pt", "array.npy", "arrays.npz")
    covers = [
        *((folder / name).read_bytes() for name in names),
        *(pickle.dumps(Trap(), p) for p in (0, 2, 5)),
    ]
    return [*covers, *map(sealed, covers)]


@pytest.mark.usefixtures("_hook")
def test_the_traps_work_and_would_be_heard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    traps(tmp_path)
    with listening() as events:
        np.load("array.npy", allow_pickle=True)
    assert "pickle.find_class" in events
    assert (tmp_path / "sprung").exists()


# a refused archive is closed when nothing refers to it any more
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("_hook")
def test_no_reader_finds_or_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile, readers = traps(tmp_path), fuzz.readers(tmp_path)
    for suffix in files.READERS:
        read = fuzz.by_path(lambda path: files.read(str(path), 2), f"inputs{suffix}")
        readers[f"{suffix} inputs"] = readers[".npy inputs"]._replace(read=read)
    for name, reader in readers.items():
        with listening() as events:
            for body in hostile:
                with pytest.raises(ValueError, match=r"."):
                    reader.read(body, tmp_path)
            if not name.endswith("inputs"):
                reader.read(reader.whole, tmp_path)
        assert events == [], name
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def lyap(tmp_path, monkeypatch, capsys, unchecked):
    with command(tmp_path, monkeypatch, capsys) as run:
        yield run


def test_python_that_is_named_is_run_and_no_other(lyap, tmp_path):
    trapped = f"{TRAP}\nimport torch\nrnn = torch.nn.RNN(1, 4)\n"
    (tmp_path / "mynet.py").write_text(trapped)
    lyap("spectrum", *SMALL)
    lyap("show", "spectrum")
    assert not (tmp_path / "sprung").exists()
    assert lyap("spectrum", "mynet.py:rnn", *SMALL[2:])[0] == 0
    assert (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_a_folder_full_of_modules_is_not_looked_into(tmp_path):
    here, runs = tmp_path / "here", tmp_path / "here/runs"
    runs.mkdir(parents=True)
    for name in ("torch", "matplotlib", "numpy", "xarray", "lyaptorch", "sitecustomize", "evil"):
        (here / f"{name}.py").write_text(f"{TRAP}\n")
    (here / "matplotlibrc").write_text("backend: module://evil\n")
    Record("spectrum", {}, {"x": (("i",), [1.0])}).save(runs / "a.nc")
    script = tmp_path / "lyap"
    script.write_text("import sys\nfrom lyaptorch.cli import main\nsys.exit(main())\n")
    command = [sys.executable, str(script), "report", "--json"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["records"] == 1
    assert not (here / "sprung").exists()


TEXTS = {
    "title": "\x1b]0;taken\x07\x1b[31mred",
    "end": "[/x]",
    "link": "[link=file:///]here[/link]",
    "b": "\u202e",
}


@pytest.mark.parametrize("command", [("show", "a"), ("diff", "a", "b[bold]"), ("list",)])
def test_texts_of_a_record_are_neither_markup_nor_orders_to_the_terminal(lyap, tmp_path, command):
    words = {"x": (("i",), np.array([*TEXTS.values()]), {"units": "\x1b[31m[/x]"})}
    Record("spectrum", TEXTS, words).save(tmp_path / "runs/a")
    Record("spectrum", {}, {}).save(tmp_path / "runs/b[bold].nc")
    status, out, err = lyap(*command)
    assert (status, err) == (0, "")
    assert not set("\x1b\x07\u202e") & set(out)
    if command != ("list",):
        assert all(
            text in out for text in (r"\x1b]0;taken\x07\x1b[31mred", "[/x]", "[link=file:///]here[/link]")
        )
    (tmp_path / "runs/a\x1b[31m.nc").write_bytes(b"")
    _, out, err = lyap("show", "a\x1b[31m")
    assert "\x1b" not in err
    assert "\\x1b[31m" in err
