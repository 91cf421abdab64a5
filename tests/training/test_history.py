"""Rows of a training, and the memory of a process that trains."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch

import lyaptorch as lt
from lyaptorch.training.history import History, Rows
from lyaptorch.training.run import _Told

TOUCHED = """
import resource, sys
from lyaptorch.training.epochs import keep_pages
if sys.argv[1] == "keep":
    keep_pages()
import torch
def faults():
    for _ in range(20):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
print(-faults() + faults())
"""


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)], ids=str)
def test_rows_are_those_that_were_added_in_one_block(shape):
    added = torch.randn(100, *shape)
    for first in (0, 5):
        rows = Rows(added[:first])
        for row in added[first:]:
            rows.append(row)
        assert torch.equal(rows.values, added)
        assert rows.values.untyped_storage().nbytes() <= 2 * added.nbytes + 32 * added[0].nbytes


@pytest.mark.parametrize("first", [0, 1])
def test_rows_do_not_keep_the_graphs_of_what_is_added(first):
    added = torch.randn(3, 2, requires_grad=True).exp()
    rows = Rows(added[:first])
    for row in added[first:]:
        rows.append(row)
    assert not rows.values.requires_grad
    assert torch.equal(rows.values, added)


def test_nothing_that_is_measured_while_training_is_kept_with_its_graph():
    """A test of many batches would keep all of their inputs, time after time."""
    alive = weakref.WeakSet()

    class Watched(lt.tasks.TemporalXOR):
        def draw(self, d):
            batch = super().draw(d)
            alive.add(batch.inputs)
            return batch

    model = lt.presets.gf2023(lt.tasks.TemporalXOR(2), hidden_size=4, rows=2)
    settings = {"metrics": ("test",), "metrics_every": 1, "test_batches": 5}
    most = []
    add = History.add
    # what earlier tests left is not looked through again at every row
    gc.freeze()

    def counted(history, *row):
        gc.collect()
        most.append(len(alive))
        add(history, *row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "add", counted)
        lt.train(model, Watched(2), (lt.FitPhase(6),), batch=2, steps=6, show_progress=False, **settings)
    assert most[-1] == most[1]


def test_rows_of_different_lengths_are_padded():
    rows = Rows(torch.empty(0, 2, 3))
    for width in (3, 1, 5, 2):
        rows.append(torch.full((2, width), float(width)))
    expected = torch.full((4, 2, 5), torch.nan)
    for i, width in enumerate((3, 1, 5, 2)):
        expected[i, :, :width] = width
    torch.testing.assert_close(rows.values, expected, equal_nan=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is asked to, where it is glibc")
def test_a_process_that_trains_keeps_its_pages():
    counts = {}
    for how in ("keep", "give back"):
        command = [sys.executable, "-c", TOUCHED, how]
        counts[how] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 10 * counts["keep"] < counts["give back"]


def test_totals_and_rows_of_everybody_are_those_of_each():
    """Whoever took part: all at once, or some after the others."""
    ensemble, generator = (2, 3), torch.Generator().manual_seed(0)
    together, apart = History(ensemble), History(ensemble)
    some = torch.tensor([[True, False, True], [False, True, True]])
    everybody = torch.ones(ensemble, dtype=torch.bool)
    for _ in range(5):
        row, amount = torch.randn(ensemble, generator=generator), torch.rand(ensemble, generator=generator)
        together.add({"loss": row}, everybody)
        together.count("each", amount, everybody)
        together.count("one", 3, everybody)
        for mask in (some, ~some):
            apart.add({"loss": row[mask]}, mask)
            apart.count("each", amount[mask], mask)
            apart.count("one", 3, mask)
    for name in ("each", "one"):
        assert torch.equal(together.totals[name], apart.totals[name])
    found = [history.variables()["loss"][1] for history in (together, apart)]
    assert torch.equal(torch.as_tensor(found[0]), torch.as_tensor(found[1]))


def test_the_text_of_a_row_is_made_only_when_somebody_looks(monkeypatch):
    asked = []
    monkeypatch.setattr(_Told, "__str__", lambda told: asked.append(told) or "")
    model = lt.presets.gf2023(lt.tasks.TemporalXOR(2), hidden_size=4, rows=2)
    lt.train(model, lt.tasks.TemporalXOR(2), (lt.FitPhase(3),), batch=2, steps=4, show_progress=False)
    assert not asked
