"""With unstable="mark" a network that explodes is left out of any phase, metric and trigger, unnoticed."""

import numpy as np
import pytest
import torch

import lyaptorch as lt
from lyaptorch.schedules.triggers import accuracy, gradient_norm, lambda1, task_loss
from lyaptorch.tasks import TemporalXOR
from lyaptorch.training import metrics
from lyaptorch.training import run as engine
from recorded import stand_in

N, BAD = 5, 1
SCAN = {"k": 2, "steps": 30, "tangent_transient": 4}
IDS = torch.arange(3)
GOOD = torch.tensor([0, 2])

pytestmark = pytest.mark.usefixtures("double")


def networks(ids, factor=0.0, ensemble=None):
    """ReLU networks, one of which explodes: its recurrent weights are that many times larger."""
    e = tuple(ids.shape) if ensemble is None else ensemble
    cell = lt.RateCell(1, N, activation="relu", ensemble=e, member_ids=ids)
    with torch.no_grad():
        # all units are open
        cell.weight_hh.abs_().mul_(0.2)
        cell.weight_ih.abs_()
        if factor:
            cell.weight_hh[BAD] *= factor
    return lt.Model(cell, lt.Readout(N, 1, ensemble=e, member_ids=ids), h0=torch.ones(*e, 1, N))


def train(model, schedule, ids, *, unstable="mark", task=None, **kw):
    task, kw = task or TemporalXOR(2), {"batch": 3, "steps": 20, "test_batches": 2, **kw}
    return lt.train(model, task, schedule, member_ids=ids, unstable=unstable, show_progress=False, **kw)


def fit(**kw):
    return lt.FitPhase(3, check_every=1, **kw)


def when(condition, **kw):
    return fit(triggers=(lt.schedules.Trigger(lt.schedules.When(condition), lt.FlossPhase(1, **SCAN)),), **kw)


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
    "at": lambda: (fit(triggers=(lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(1, **SCAN)),)),),
    "every": lambda: (
        fit(triggers=(lt.schedules.Trigger(lt.schedules.Every(1), lt.FlossPhase(1, **SCAN)),)),
    ),
    "jacobians": lambda: (lt.FlossPhase(2, penalty="one_step_jacobians", **SCAN), fit()),
    "slope": lambda: (lt.FlossPhase(2, penalty="mean_field_slope", **SCAN), fit()),
    "radius": lambda: (lt.FlossPhase(2, penalty="spectral_radius", **SCAN), fit()),
    **{f"when {name}": (lambda c=c: (when(c),)) for name, c in HIGHER.items()},
    "stop": lambda: (fit(stop=lt.schedules.When(lambda1 < -9.0)),),
    "two fits": lambda: (fit(), when(lambda1 > -9.0)),
}
AT_ONCE, SLOWLY = 1e60, 1e6
"""How much larger: the state overflows within a trial, or only in the 155 steps that a metric measures."""


def check(schedule, factor, **kw):
    model, alone = networks(IDS, factor), networks(GOOD)
    record, expected = train(model, schedule(), IDS, **kw), train(alone, schedule(), GOOD, **kw)
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        assert q.isfinite().all()
        # other batches of matrices round differently
        torch.testing.assert_close(p[GOOD], q, rtol=1e-8, atol=1e-12)
    for name in expected.dataset.data_vars:
        found, one = torch.tensor(record[name])[GOOD], torch.tensor(expected[name])
        # rows of those who went on longer end in NaN
        found = found[:, : one.shape[1]] if one.dim() > 1 else found
        torch.testing.assert_close(found, one, rtol=1e-6, atol=1e-9, equal_nan=True)
    return torch.tensor(record["unstable_at"]).isfinite().tolist()


def test_a_joint_loss_of_weight_0_is_not_computed_and_cannot_overflow():
    joint = {"flossing_weight": torch.tensor([0.1, 0.0, 0.1]), "flossing": lt.FlossPhase(0, **SCAN)}
    mixed, plain = networks(IDS, factor=1e12), networks(IDS, factor=1e12)
    record = train(mixed, (fit(**joint),), IDS, unstable="raise", steps=4)
    expected = train(plain, (fit(),), IDS, unstable="raise", steps=4)
    np.testing.assert_allclose(record["loss"][BAD], expected["loss"][BAD], rtol=1e-10)
    assert (record["loss"][GOOD, 1:] != expected["loss"][GOOD, 1:]).all()


@pytest.mark.parametrize("name", PHASES)
def test_a_network_that_explodes_ends_no_other_in_any_phase_or_trigger(name):
    assert check(PHASES[name], AT_ONCE) == [False, True, False]


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_network_that_explodes_ends_no_other_in_any_metric(name):
    for phase in ("fit", "when lambda1"):
        found = check(PHASES[phase], AT_ONCE, metrics=(name,), metrics_every=1)
        assert found == [False, True, False]


@pytest.mark.parametrize("name", ["when lambda1", "stop", "spectrum"])
def test_a_network_that_explodes_where_it_is_measured_alone(name):
    metric = {"metrics": (name,), "metrics_every": 2} if name == "spectrum" else {}
    schedule = PHASES["fit" if metric else name]
    assert check(schedule, SLOWLY, **metric) == [False, True, False]
    with pytest.raises(
        FloatingPointError, match=r"not finite after step .*\(member \[1\] at epoch 0\), or pass unst"
    ):
        train(networks(IDS, SLOWLY), schedule(), IDS, unstable="raise", **metric)


@pytest.mark.parametrize("more", [{}, {"metrics": ("test",), "metrics_every": 1}], ids=["alone", "measured"])
def test_weights_that_overflow_in_an_update_are_an_overflow(more):
    """From there on not even states can be computed, which must not end the others."""
    rates = torch.tensor([1e-3, 1e308, 1e-3])

    def trained(ids, **how):
        model = networks(ids)
        if len(ids) == len(IDS):
            with torch.no_grad():
                # so large a gradient that the update overflows
                model.readout.weight[BAD] *= 1e3
        return train(model, (fit(),), ids, optimizer=lt.SGD(), clip=None, lr=rates[ids], **more, **how)

    record, alone = trained(IDS), trained(GOOD)
    assert record["unstable_at"][BAD] == 1
    np.testing.assert_array_equal(record["loss"][GOOD], alone["loss"])
    message = r"weights are not finite at epoch 1 for member \[1\]; lower the learning rate, or pass unstable"
    with pytest.raises(FloatingPointError, match=message):
        trained(IDS, unstable="raise")


def test_nobody_asks_a_network_that_was_dropped(monkeypatch):
    """Nor those that take no part."""
    asked, usual = [], metrics.measured_exponents
    monkeypatch.setattr(
        engine,
        "measured_exponents",
        lambda m, *z, **kw: (asked.append(m.ids.tolist()), usual(m, *z, **kw))[1],
    )
    mask = torch.tensor([True, True, False])
    train(networks(IDS, AT_ONCE), (fit(), when(lambda1 > 99.0, who=mask)), IDS)
    assert asked
    assert all(ids == [0] for ids in asked)


def test_an_explosion_in_flossing_between_two_looks(monkeypatch):
    """Epochs recorded and replayed: the network is dropped at the epoch at which it would be alone."""
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    schedule = (
        lt.FlossPhase(8, lr=torch.tensor([1e-3, 2e9, 1e-3]), target=60.0, **{**SCAN, "k": 1, "interval": 1}),
        lt.FitPhase(4),
    )
    models = [networks(IDS) for _ in range(2)]
    expected = train(models[0], schedule, IDS)
    with stand_in(monkeypatch) as recorded:
        found = train(models[1], schedule, IDS, fetch_every=8)
    assert recorded
    # what is recorded looks at nothing, and scans small frames step by step: equal to round-off
    for name in expected.variables:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    assert 2 < torch.tensor(found["floss_loss"])[1].isfinite().sum() < 8
    assert torch.tensor(found["unstable_at"]).isfinite().tolist() == [False, True, False]
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=0, equal_nan=True)


DELAYS = torch.tensor([2, 4, 6])


@pytest.mark.parametrize("name", metrics.METRICS)
@pytest.mark.parametrize("how", ["who", "stop"])
def test_a_task_with_something_of_each_member_is_measured_of_some(name, how):
    """Each metric of a subset is that of its members alone, with their own delays."""
    some = torch.tensor([True, False, True])
    if how == "stop":
        schedule = (fit(stop=lt.schedules.When(task_loss > torch.where(some, 99.0, 0.0))),)
    else:
        schedule = (fit(who=some),)
    kw = {"metrics": (name,), "metrics_every": 1}
    record = train(networks(IDS), schedule, IDS, unstable="raise", task=TemporalXOR(DELAYS), **kw)
    for i in some.nonzero().flatten().tolist():
        own, ids = networks(torch.tensor(i)), torch.tensor(i)
        alone = train(own, (fit(),), ids, unstable="raise", task=TemporalXOR(int(DELAYS[i])), **kw)
        # a batch is read out from the first step that counts for anybody
        for variable in set(alone.dataset.data_vars) - {"fit_flops"}:
            found, expected = torch.tensor(record[variable][i]), torch.tensor(alone[variable][0])
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
