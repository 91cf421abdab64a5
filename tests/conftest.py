"""One thread, public shapes checked, and what every test finds: here, and nowhere else."""

import functools
import gc
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

# so that what they assert is told, too; before they are imported
helpers = {path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_")}
pytest.register_assert_rewrite(*(helpers - {"conftest"}))

import shapes  # noqa: E402

# before anything imports lyaptorch; not the draws, which torch.compile traces, nor the checks in them
ROOT = Path(importlib.util.find_spec("lyaptorch").origin).parent
CHECKED = [f"lyaptorch.{path.stem}" for path in ROOT.iterdir() if path.stem not in ("_random", "_checks")]
shapes.install(CHECKED)

torch.set_num_threads(1)

with warnings.catch_warnings():
    # torch's first forward-mode product of a process uses torch.jit.script, which torch deprecates
    warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def pytest_collection_finish() -> None:
    """What is imported stays: to look through all of torch for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `gpu` has one, or is skipped."""
    shapes.begin_test()
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")


@functools.cache
def digits() -> Any:
    """In the place of MNIST, which is no part of the project: a bar for each label, at its own column."""
    from lyaptorch.tasks import archives

    labels = torch.arange(60, dtype=torch.uint8) % 10
    columns = torch.arange(28) // 3 == 1 + labels[:, None]
    bars = 200 * columns[:, None, :].expand(-1, 28, -1).to(torch.uint8)
    noise = torch.randint(56, bars.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = (bars + noise).flatten(1)
    return archives.Images(pixels[:40], labels[:40], pixels[40:], labels[40:])


@pytest.fixture(autouse=True)
def _digits(monkeypatch: pytest.MonkeyPatch) -> None:
    from lyaptorch.tasks import archives, recordings
    from spoken import made_up

    monkeypatch.setitem(archives._loaded, "mnist", digits())
    monkeypatch.setitem(recordings._loaded, recordings.FOLDER, made_up())


@pytest.fixture(autouse=True)
def _seed() -> None:
    """What a test draws does not depend on those that ran before it."""
    # `torch.manual_seed` formats the whole stack three times where there is no GPU
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)


@pytest.fixture
def double() -> Iterator[None]:
    """Tensors and cells are made in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of every figure of a Record a white sheet, for what is about something else."""
    from matplotlib.figure import Figure

    from lyaptorch.record import Record

    monkeypatch.setattr(Record, "plot", lambda self: Figure(figsize=(1, 1)))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """The library as users run it: its own checks speak, not beartype's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
