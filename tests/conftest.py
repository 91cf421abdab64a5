"""One thread, and public shapes checked by beartype: here, and nowhere else."""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import beartype
import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeDecorHintPep3119Exception


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype; a signature that names a protocol which cannot be checked at run time is let go."""
    try:
        return beartype.beartype(function)
    except BeartypeDecorHintPep3119Exception:
        return function


# before anything imports lyaptorch; not the draws, which torch.compile traces, nor the checks in them
ROOT = Path(importlib.util.find_spec("lyaptorch").origin).parent
CHECKED = [f"lyaptorch.{path.stem}" for path in ROOT.iterdir() if path.stem not in ("_random", "_checks")]
jaxtyping.install_import_hook(CHECKED, "conftest.checked")

torch.set_num_threads(1)

with warnings.catch_warnings():
    # torch's first forward-mode product of a process uses torch.jit.script, which torch deprecates
    warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


@pytest.fixture(autouse=True)
def _digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of MNIST, which is no part of the project: a bar for each label, at its own column."""
    from lyaptorch.tasks import archives

    labels = torch.arange(60, dtype=torch.uint8) % 10
    columns = torch.arange(28) // 3 == 1 + labels[:, None]
    bars = 200 * columns[:, None, :].expand(-1, 28, -1).to(torch.uint8)
    noise = torch.randint(56, bars.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = (bars + noise).flatten(1)
    made = archives.Images(pixels[:40], labels[:40], pixels[40:], labels[40:])
    monkeypatch.setitem(archives._loaded, "mnist", made)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws does not depend on those that ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def double() -> Iterator[None]:
    """Tensors and cells are made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The library as users run it: its own checks speak, not beartype's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
