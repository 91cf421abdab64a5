"""Epochs between two looks: what is recorded and replayed is what runs one by one, to the bit."""

import warnings

import pytest
import torch

import cases
import lyaptorch as lt
from lyaptorch import At, Every, FitPhase, FlossPhase, Scale, Trigger, When
from lyaptorch.cells import trajectory
from lyaptorch.train import epochs
from recorded import stand_in

pytestmark = [pytest.mark.usefixtures("double")]
T, ROWS = 5, 2
FLOSS = {"k": 2, "steps": 4, "tangent_transient": 1, "lr": 1e-2}
BOTH = (
    FlossPhase(4, **FLOSS),
    FitPhase(4, flossing_weight=0.3, flossing=FlossPhase(0, **FLOSS)),
)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Operators alone can be recorded: without compiled kernels."""
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")


def model_of(case):
    """Two networks, unless they share a parameter or are a function, which knows no ensemble."""
    cell, _, h0 = cases.setup(case, (2,) if case.ensembles else ())
    if not cell.state_size or any(tuple(p.shape[:1]) != (2,) for p in cell.parameters()):
        cell, _, h0 = cases.setup(case)
    readout = lt.Readout(cell.output_size or cases.N, 1, ensemble=tuple(h0.shape[:-2]))
    return lt.Model(cell, readout, h0=torch.nn.Parameter(h0), loss="mean_squared_error")


def train(model, schedule, fetch_every, task=None, **kw):
    settings = {"batch": ROWS, "length": T, "show_progress": False, **kw}
    return lt.train(model, task or lt.tasks.Adding(T), schedule, fetch_every=fetch_every, **settings)


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_the_catalogue(case, monkeypatch):
    one, two = model_of(case), model_of(case)
    schedule = BOTH if list(one.cell.parameters()) else BOTH[1:]
    expected = train(one, schedule, 1)
    with stand_in(monkeypatch) as recorded, warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train(two, schedule, 4)
    assert len(recorded) == len(schedule)
    assert found == expected
    for a, b in zip(parameters(one), parameters(two), strict=True):
        assert torch.equal(a, b)
