"""Run the command `lyap` in an empty folder that holds a network in `net.py`."""

import json
import multiprocessing as mp
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lyaptorch import cli

SMALL = ["--n", "6", "--steps", "40", "--transient", "5", "--tangent-transient", "5"]
TINY = ["--delay", "4", "--seeds", "2", "--hidden-size", "8", "--k", "4", "--floss-epochs", "2"]
TINY += ["--epochs", "3", "--batch", "2", "--length", "20", "--measure", "40"]
NET = """
import torch
from torch import nn

torch.manual_seed(0)
rnn = nn.RNN(2, 6)
number = 3

def step(x, h):
    return 0.5 * h + 0.0 * x.sum(-1, keepdim=True)

def make():
    return nn.RNN(2, 4)

class Net(nn.Module):
    def __init__(self, size=6):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x, h):
        return torch.tanh(self.linear(h)) + x[..., :1]
"""


class Command(NamedTuple):
    """`lyap` in a folder of its own; every argument becomes a string."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Status, stdout and stderr."""
        self.monkeypatch.setattr(sys, "argv", ["lyap", *map(str, arguments)])
        self.capsys.readouterr()
        status = cli.main()
        return status, *self.capsys.readouterr()

    def json(self, *arguments: object) -> dict[str, Any]:
        """The answer to `--json`: exactly one object in one line on stdout, nothing on stderr."""
        status, out, err = self(*arguments, "--json")
        assert (status, err) == (0, "")
        assert out.endswith("\n")
        assert out.count("\n") == 1
        return json.loads(out, parse_constant=_refuse)

    def fails(self, *arguments: object) -> str:
        """The error of what must fail: one sentence on stderr, status 2, and no file."""
        before = files(self.folder)
        status, out, err = self(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("lyap: ")
        assert err.count("\n") == 1
        assert files(self.folder) == before
        return err


@contextmanager
def command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """The command in `folder`; modules loaded from there are forgotten again."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    (folder / "net.py").write_text(NET)
    yield Command(folder, monkeypatch, capsys)
    for name in set(sys.modules) - known:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def forked(folder: Path, arguments: list[str]) -> mp.process.BaseProcess:
    """The command, begun in a process and a process group of its own, which writes to `output.txt`.

    A fork has imported everything already, so that most moments are moments of work.
    """
    process = mp.get_context("fork").Process(target=_work, args=(folder, arguments))
    process.start()
    return process


def _work(folder: Path, arguments: list[str]) -> None:
    os.setsid()
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = ["lyap", *arguments]
    os._exit(cli.main())


def files(folder: Path) -> set[Path]:
    """All files below."""
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def _refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")
