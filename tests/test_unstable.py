"""With unstable="mark" a network that explodes is left out, and no other notices: in any phase, metric, trigger."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch.flossing.schedule import accuracy, gradient_norm, lambda1, task_loss
from lyaptorch.tasks import Adding, TemporalXOR
from lyaptorch.train import metrics
from recorded import stand_in

N, BAD = 5, 1
SCAN = {"k": 2, "steps": 30, "tangent_transient": 4}
IDS = torch.arange(3)
GOOD = torch.tensor([0, 2])

pytestmark = pytest.mark.usefixtures("double")


def networks(ids, factor=0.0, ensemble=None):
    """ReLU networks, one of which explodes: its recurrent weights are that many times larger."""
    e = tuple(ids.shape) if ensemble is None else ensemble
    cell = lt.RateCell(1, N, activation="relu", ensemble=e, members=ids)
    with torch.no_grad():
        cell.weight_hh *= 0.5
        cell.weight_hh.abs_()
        if factor:
            cell.weight_hh[BAD] *= factor
    return lt.Model(cell, lt.Readout(N, 1, ensemble=e, members=ids))


def train(model, schedule, ids, *, unstable="mark", task=None, **kw):
    task, kw = task or TemporalXOR(2), {"batch": 3, "length": 20, "test_batches": 2, **kw}
    return lt.train(model, task, schedule, members=ids, unstable=unstable, show_progress=False, **kw)


def fit(**kw):
    return lt.FitPhase(3, check_every=1, **kw)


def when(condition, **kw):
    return fit(triggers=(lt.Trigger(lt.When(condition), lt.FlossPhase(1, **SCAN)),), **kw)


HIGHER = {
    "lambda1": lambda1 > -9.0,
    "gradient": gradient_norm > 0.0,
    "loss": task_loss > 0.0,
    "accuracy": accuracy > 0.2,
}
PHASES = {
    "fit": lambda: (fit(),),
    "floss": lambda: (lt.FlossPhase(2, **SCAN), fit()),
    "joint": lambda: (fit(flossing_weight=0.1, flossing=lt.FlossPhase(0, **SCAN)),),
    "at": lambda: (fit(triggers=(lt.Trigger(lt.At(0), lt.FlossPhase(1, **SCAN)),)),),
    "every": lambda: (fit(triggers=(lt.Trigger(lt.Every(1), lt.FlossPhase(1, **SCAN)),)),),
    "jacobians": lambda: (lt.FlossPhase(2, penalty="one_step_jacobians", **SCAN), fit()),
    "slope": lambda: (lt.FlossPhase(2, penalty="mean_field_slope", **SCAN), fit()),
    "radius": lambda: (lt.FlossPhase(2, penalty="spectral_radius", **SCAN), fit()),
    **{f"when {name}": (lambda c=c: (when(c),)) for name, c in HIGHER.items()},
    "stop": lambda: (fit(stop=lt.When(lambda1 < -9.0)),),
    "two fits": lambda: (fit(), when(lambda1 > -9.0)),
}
FACTORS = {"state": 1e60, "slowly": 1e14}
"""Its state overflows within a trial, or in 155 steps alone, where exponents are measured."""


def check(schedule, factor, **kw):
    model, alone = networks(IDS, factor), networks(GOOD)
    record, expected = train(model, schedule(), IDS, **kw), train(alone, schedule(), GOOD, **kw)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        assert q.isfinite().all()
        # other batches of matrices round differently
        torch.testing.assert_close(p[GOOD], q, rtol=1e-8, atol=1e-12)
    for name, (dims, *_) in {name: (record[name].shape,) for name in expected.keys()}.items():
        if name in ("unstable_at", "overflow_step"):
            continue
        found, one = torch.tensor(record[name])[GOOD], torch.tensor(expected[name])
        found = found[:, : one.shape[1]] if len(dims) > 1 else found
        torch.testing.assert_close(found, one, rtol=1e-6, atol=1e-9, equal_nan=True)
    return torch.tensor(record["unstable_at"]).isfinite().tolist() if "unstable_at" in record.keys() else None


@pytest.mark.parametrize("name", PHASES)
def test_a_network_that_explodes_ends_no_other_in_any_phase_or_trigger(name):
    assert check(PHASES[name], FACTORS["state"]) == [False, True, False]


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_network_that_explodes_ends_no_other_in_any_metric(name):
    for phase in ("fit", "when lambda1"):
        found = check(PHASES[phase], FACTORS["state"], metrics=(name,), metrics_every=1)
        assert found == [False, True, False]
