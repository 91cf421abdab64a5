"""Compiled draws against the same numbers by tensor operations: to the bit, wherever they are asked for."""

import pytest
import torch

from fused import SETS, compiled, threads
from lyaptorch import _random
from lyaptorch._random import Stream
from lyaptorch.kernels import draws, library

pytestmark = compiled

MEMBERS = {
    "one": 3,
    "()": torch.tensor(-5),
    "(3,)": torch.tensor([7, 0, 7]),
    "(2, 3)": torch.tensor([[1 << 62, -(1 << 63), 3], [2, 1, 0]]),
    "strided": torch.arange(12).view(4, 3).t()[:, ::2],
}
EPOCHS = {
    "number": lambda e: 11,
    "negative": lambda e: -1,
    "tensor": lambda e: torch.tensor(4),
    "each": lambda e: torch.arange(e.numel()).view(e.shape).flip(-1) if e.dim() else torch.tensor(2),
}
KINDS = {
    "bits": ("bits", {}),
    "uniform32": ("uniform", {"dtype": torch.float32}),
    "uniform64": ("uniform", {"dtype": torch.float64}),
    "uniform16": ("uniform", {"dtype": torch.bfloat16}),
    "normal32": ("normal", {"dtype": torch.float32}),
    "normal64": ("normal", {"dtype": torch.float64}),
    "coins32": ("bernoulli", {"dtype": torch.float32}),
    "coins64": ("bernoulli", {"dtype": torch.float64}),
    "coins of integers": ("bernoulli", {"dtype": torch.int64}),
}
SHAPES = [(), (1,), (5,), (7, 1), (300, 16, 1), (2, 0, 3), (9, 5, 3), (4500,)]


@pytest.fixture
def by_operations(monkeypatch):
    """A function that draws without kernels."""

    def draw(method, *args, **kw):
        with monkeypatch.context() as patch:
            patch.setattr(_random, "_drawers", [])
            return method(*args, **kw)

    return draw


@pytest.fixture
def served(monkeypatch):
    """How many draws the kernels served."""
    found = []

    def asked(d):
        z = draws.drawn(d)
        found.append(z is not None)
        return z

    monkeypatch.setattr(_random, "_drawers", [asked])
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("epoch", EPOCHS)
def test_the_same_bits_as_by_operations(kind, members, epoch, by_operations, served):
    (name, given), ids = KINDS[kind], MEMBERS[members]
    method = getattr(Stream((1 << 64) - 3, "täsk"), name)
    known = kind not in ("uniform16", "coins of integers")
    at = EPOCHS[epoch](torch.as_tensor(ids))
    for shape in SHAPES:
        for before in range(0 if name == "bits" else len(shape)):
            kw = {"member_ids": ids, "epoch": at, "before": before, **given}
            expected = by_operations(method, shape, **kw)
            found = method(shape, **kw)
            assert found.shape == expected.shape
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
            assert found.is_contiguous() or not known
    assert all(one == known for one in served)


def test_neither_threads_nor_instruction_sets_change_a_bit(by_operations):
    cpu, method = library.open_library(), Stream(3, "x").uniform
    kw = {"member_ids": torch.arange(5), "epoch": torch.arange(5), "before": 1, "dtype": torch.float64}
    expected = by_operations(method, (900, 7, 3), **kw)
    for name in SETS:
        if cpu.lyap_use(name.encode()):
            for count in (1, 2, 5):
                with threads(count):
                    assert torch.equal(method((900, 7, 3), **kw), expected)
    assert cpu.lyap_use(None)


def test_what_is_no_plain_memory_of_the_host_is_drawn_by_operations(served, monkeypatch):
    stream, ids = Stream(0, "x"), torch.arange(3)
    drawn = torch.func.vmap(lambda i: stream.uniform((4,), member_ids=i))(ids)
    assert stream.uniform((4,), member_ids=ids.to("meta")).is_meta
    assert stream.uniform((4,), member_ids=ids, device="meta").is_meta
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert torch.equal(stream.uniform((4,), member_ids=ids), drawn)
    assert served == [False] * 4
