"""When flossing happens, for whom, and what triggers change."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch._random import Stream, seed_from
from lyaptorch.cells import random_frame
from lyaptorch.schedules import SCHEDULES, At, Every, Scale, Trigger, When
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import run as engine
from trained import LENGTH, ROWS, SCAN, TASK, N, each, make, numbers, run, same, seeded

pytestmark = pytest.mark.usefixtures("double")
FLOSS = FlossPhase(2, k=2, **SCAN)
SHORT = FlossPhase(2, k=1, steps=2, tangent_transient=0)
STILL = replace(FLOSS, lr=0.0)
"""An episode that changes nothing."""
FIRST = torch.tensor([True, False])
ALWAYS = lt.schedules.task_loss > 0.0
NEVER = torch.tensor([0.0, 1e9])
"""A threshold that only the first of two members exceeds."""


def episodes(record, member=0, length=2):
    """The task epochs at which a member was flossed, each episode once."""
    at = record["at_epoch"][member] if "at_epoch" in record else np.zeros(0)
    at = at[~np.isnan(at)].astype(int).reshape(-1, length)
    assert (at == at[:, :1]).all()
    return at[:, 0].tolist()


def quick(schedule, activation="tanh"):
    """The smallest run there is, for hundreds of epochs."""
    cell = lt.RateCell(1, 2, ensemble=(2,), activation=activation)
    model, task = lt.Model(cell, lt.Readout(2, 1, ensemble=(2,))), TemporalXOR(2)
    return lt.train(model, task, schedule, batch=1, steps=3, show_progress=False)


PRESETS = {
    "none": (3, []),
    "pre": (3, [0]),
    "during": (502, [0, 500]),
    "episodes": (402, [0, 100, 200, 300, 400]),
    "periodic": (202, [0, 100, 200]),
    "joint": (3, [0]),
}
"""Task epochs of a run, and where Gradient Flossing flosses in it; "adaptive" depends on the run."""


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"adaptive"}))
def test_when_a_preset_flosses(name):
    epochs, expected = PRESETS[name]
    record = quick(SCHEDULES[name](epochs, SHORT))
    assert [episodes(record, i) for i in (0, 1)] == [expected] * 2
    assert record["loss"].shape == (2, epochs)


def test_the_adaptive_preset_asks_the_exponent_and_the_gradient(monkeypatch):
    """One episode where either is too large or both, each of which raises the sharpness by a tenth."""
    leading = {510: (0.3, 0.1), 520: (0.3, 0.19), 530: (0.21, 0.1), 540: (0.1, 0.1)}

    def measured(networks, *_, k):
        return torch.tensor(leading[int(networks.epoch[0])])[:, None]

    monkeypatch.setattr(engine, "measured_exponents", measured)
    norms = iter([(0.0, 1.5), (2.0, 2.0), (0.5, 0.5), (0.9, 0.0)])
    monkeypatch.setattr(engine.History, "last", lambda *_: torch.tensor(next(norms)))
    sharp = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"sharpness": torch.ones(2, 1, 1)})
    record = quick(SCHEDULES["adaptive"](541, SHORT), sharp)
    start = [0, 100, 200, 300, 400, 500]
    assert [episodes(record, i) for i in (0, 1)] == [[*start, 510, 520, 530], [*start, 510, 520]]
    torch.testing.assert_close(sharp.sharpness.flatten(), torch.tensor([1.1**3, 1.1**2]))


def test_the_adaptive_preset_needs_no_sharpness():
    (_, fit) = SCHEDULES["adaptive"](600, STILL)
    late = replace(fit.triggers[1], when=When(ALWAYS))
    assert episodes(quick((FitPhase(4, triggers=(late,), check_every=2),))) == [2]


WHENS = [
    (At(0, 3, 7), 10, [0, 3, 7]),
    (At(8), 1, []),
    (Every(3), 10, [3, 6]),
    (Every(4), 1, [4]),
    (When(ALWAYS), 1, [1, 2, 3, 4, 5, 6, 7]),
    (When(ALWAYS), 3, [3, 6]),
    (When(ALWAYS, after=3), 3, [3, 6]),
    (When(ALWAYS, after=4), 3, [6]),
    (When(lt.schedules.task_loss < 0.0), 1, []),
    (When(lt.schedules.lambda1 < 100.0), 3, [0, 3, 6]),
    (When((lt.schedules.task_loss < 0.0, lt.schedules.lambda1 < 100.0)), 4, [0, 4]),
]


@pytest.mark.parametrize(("when", "check_every", "expected"), WHENS)
def test_when_a_trigger_fires(when, check_every, expected):
    """In a fit of 8 epochs, whose end is no time; there is no loss before the first step."""
    fit = FitPhase(8, triggers=(Trigger(when, STILL),), check_every=check_every)
    assert episodes(run(make(), fit)) == expected
    assert when.times(8) == (None if isinstance(when, When) else len(expected))


@pytest.mark.parametrize(
    "metric", [lt.schedules.accuracy, lt.schedules.gradient_norm, lt.schedules.task_loss]
)
def test_a_condition_is_on_the_last_step_of_each_member(metric):
    plain = run(make((2,)), FitPhase(12))[metric.name]
    threshold = torch.tensor(np.median(plain[:, 1:10:2], axis=1))
    fit = FitPhase(12, triggers=(Trigger(When(metric > threshold, after=2), STILL),), check_every=2)
    record = run(make((2,)), fit)
    for i in (0, 1):
        expected = [e for e in range(2, 12, 2) if plain[i, e - 1] > threshold[i]]
        assert episodes(record, i) == expected
        assert len(expected) == 2 or metric is lt.schedules.accuracy


def test_lambda_1_is_the_one_that_the_metric_spectrum_shows():
    model = make((2,), gain=torch.tensor([0.4, 3.0]), hidden_size=16)
    fit = FitPhase(3, triggers=(Trigger(When(lt.schedules.lambda1 > 0.0), STILL),), check_every=1)
    record = run(model, fit, metrics=("spectrum",), metrics_every=1)
    assert (record["spectrum"][0, :, 0] < -0.2).all()
    assert (record["spectrum"][1, :, 0] > 0.05).all()
    assert [episodes(record, i) for i in (0, 1)] == [[], [0, 1, 2]]


def test_every_member_counts_its_own_epochs():
    schedule = [FitPhase(2, who=FIRST), FitPhase(4, triggers=(Trigger(At(1, 3), STILL),))]
    record = run(make((2,)), *schedule)
    assert [episodes(record, i) for i in (0, 1)] == [[3], [1, 3]]
    schedule[1] = FitPhase(4, triggers=(Trigger(Every(2), STILL), Trigger(When(ALWAYS, after=5), STILL)))
    record = run(make((2,)), schedule[0], replace(schedule[1], check_every=1))
    assert [episodes(record, i) for i in (0, 1)] == [[2, 4, 5], [2]]


def test_a_condition_asks_the_steps_of_its_own_fit_alone():
    check = FitPhase(3, triggers=(Trigger(When(ALWAYS), STILL),), check_every=2)
    record = run(make((2,)), FitPhase(2), FitPhase(3, who=~FIRST), check)
    assert [episodes(record, i) for i in (0, 1)] == [[4], [7]]


def test_a_later_fit_does_not_stop_by_what_an_earlier_one_told():
    stop = When(lt.schedules.accuracy > -1.0)
    record = run(make(), FitPhase(4, stop=stop, check_every=1), STILL, FitPhase(4, stop=stop, check_every=2))
    assert record["loss"].shape == (1, 1 + 2)


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger(At(1, 3), replace(FLOSS, who=FIRST)),
        Trigger(Every(2), replace(FLOSS, who=FIRST), Scale("cell.bias", 1.5)),
        Trigger(When(lt.schedules.task_loss > NEVER), FLOSS, Scale("cell.weight_hh", 0.9)),
        Trigger(When(lt.schedules.lambda1 < -NEVER + 100), FLOSS),
    ],
    ids=["member_ids", "members-scale", "threshold-scale", "exponent"],
)
def test_who_never_fires_trains_as_in_the_plain_run_to_the_bit(trigger):
    plain, model = make((2,)), make((2,))
    expected = run(plain, FitPhase(6))
    record = run(model, FitPhase(6, triggers=(trigger,), check_every=2))
    assert episodes(record, 1) == []
    assert episodes(record, 0) != []
    assert same(numbers(model, 1), numbers(plain, 1))
    assert not same(numbers(model, 0), numbers(plain, 0))
    for name in ("loss", "accuracy", "gradient_norm"):
        np.testing.assert_array_equal(record[name][1], expected[name][1])


@pytest.mark.parametrize("swap", [False, True])
def test_two_triggers_at_one_epoch_run_in_order(swap):
    one, three = (Trigger(At(2), replace(STILL, epochs=e, k=k)) for e, k in ((2, 1), (1, 3)))
    record = run(make((2,)), FitPhase(4, triggers=(three, one) if swap else (one, three)))
    assert record["at_epoch"].tolist() == [[2, 2, 2]] * 2
    ranks = np.isfinite(record["exponents"]).sum(-1).tolist()
    assert ranks == [[3, 1, 1] if swap else [1, 1, 3]] * 2


def test_each_trigger_flosses_at_its_own_rate():
    """Also when its turn comes again: a last episode at a rate of 0 changes nothing."""
    models = [make(), make()]
    for model, still in zip(models, (At(1), At(1, 3)), strict=True):
        triggers = (Trigger(still, STILL), Trigger(At(2), FLOSS))
        run(model, FitPhase(4, triggers=triggers), lr=0.0)
    assert same(*map(numbers, models))
    assert not same(numbers(models[0]), numbers(make()))


def test_scale_multiplies_for_those_who_fired_each_time():
    model, start = make((2,)), make((2,))
    triggers = (
        Trigger(Every(1), FlossPhase(0, who=FIRST), Scale("cell.bias", 2.0)),
        Trigger(At(0, 2), FlossPhase(0), Scale("h0", -2.0)),
    )
    run(model, FitPhase(4, triggers=triggers), lr=0.0)
    expected = dict(start.named_parameters())
    factors = {"cell.bias": torch.tensor([[8.0], [1.0]]), "h0": 4.0}
    for name, p in model.named_parameters():
        assert torch.equal(p, expected[name] * factors.get(name, 1.0))


def test_scale_comes_before_its_phase():
    """Twice the weights of a linear network: all exponents rise by log 2."""
    cell = lt.RateCell(1, N, gain=0.3, activation="linear")
    still = replace(STILL, epochs=1, frame="fixed", batch=2)
    trigger = Trigger(At(0), still, Scale("cell.weight_hh", 2.0))
    record = run(lt.Model(cell, lt.Readout(N, 1)), still, FitPhase(1, triggers=(trigger,)))
    before, after = record["exponents"][0]
    np.testing.assert_allclose(after, before + math.log(2), rtol=1e-12)


ONE = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"sharpness": 1.0})


THREE = torch.ones(3)
WRONG = [
    (
        Trigger(At(9), FLOSS, Scale("cell.wait_hh", 2.0)),
        "unknown parameter .* mean 'cell.weight_hh'",
    ),
    (Trigger(At(9), FLOSS, Scale("cell.activation.sharpness", 2.0)), r"leading dimensions \(2,\).*got \(\)"),
    (Trigger(At(9), replace(FLOSS, who=THREE > 0)), r"bool tensor of the ensemble's shape \(2,\)"),
    (Trigger(At(9), replace(FLOSS, who=~FIRST & FIRST)), "must not be all false"),
    (Trigger(At(9), replace(FLOSS, target=THREE)), r"a number, a spectrum .* \*e = \(2,\), got \(3,\)"),
    (
        Trigger(When(lt.schedules.lambda1 > THREE), FLOSS),
        "threshold of lambda1 must be a number or have the ens",
    ),
]


@pytest.mark.parametrize(("trigger", "message"), WRONG)
def test_a_trigger_that_cannot_work_is_refused_before_the_training(trigger, message):
    model = lt.Model(lt.RateCell(1, N, ensemble=(2,), activation=ONE), lt.Readout(N, 1, ensemble=(2,)))
    before = numbers(model)
    with pytest.raises(ValueError, match=message):
        run(model, FitPhase(1), FitPhase(20, triggers=(trigger,)))
    assert same(numbers(model), before)


def test_a_member_that_stops_stays_as_it_is_and_the_others_go_on():
    stopped, two, seven = make((2,)), make((2,)), make((), torch.tensor(1))
    stop = When(lt.schedules.accuracy > torch.tensor([-1.0, 2.0]))
    never = (Trigger(At(2), replace(FLOSS, who=FIRST)),)
    record = run(stopped, FitPhase(7, stop=stop, triggers=never, check_every=2))
    run(two, FitPhase(2))
    expected = run(seven, FitPhase(7), member_ids=torch.tensor(1))
    assert same(numbers(stopped, 0), numbers(two, 0))
    torch.testing.assert_close(numbers(stopped, 1), numbers(seven), rtol=1e-8, atol=1e-12)
    assert np.isfinite(record["loss"]).sum(1).tolist() == [2, 7]
    np.testing.assert_allclose(record["loss"][1], expected["loss"][0], rtol=1e-8)
    # who stopped does not fire, and the rest of the schedule is for all again
    assert "at_epoch" not in record
    record = run(make((2,)), FitPhase(7, stop=stop, check_every=2), FitPhase(3))
    assert np.isfinite(record["loss"]).sum(1).tolist() == [5, 10]
    # nor does anybody else begin when the last one stops
    alone = FitPhase(7, who=FIRST, stop=When(lt.schedules.accuracy > -1.0, after=3), check_every=2)
    assert np.isfinite(run(make((2,)), alone, FitPhase(1))["loss"]).sum(1).tolist() == [5, 1]


@pytest.mark.parametrize("weight", [0.3, torch.tensor([0.5, 2.0]), torch.tensor([0.0, 1.0])])
def test_the_joint_gradient_is_that_of_the_task_and_the_weighted_one_of_flossing(weight):
    phase = FlossPhase(0, k=3, target=-0.2, reduction="sum", **SCAN)
    model, hand, seed = make((2,)), make((2,)), seed_from(seeded(7))
    run(model, FitPhase(1, flossing_weight=weight, flossing=phase), lr=1.0, clip=None, optimizer=lt.SGD())
    ids, own = torch.arange(2), list(hand.parameters())
    loss, _ = hand.loss(TASK.draw(Draw(seed, LENGTH, ROWS, member_ids=ids)))
    task = torch.autograd.grad(loss.sum(), own)
    frame = random_frame(N, 3, Stream(seed, "floss_frame"), torch.tensor(0), epoch=0)
    inputs = TASK.inputs(Draw(seed, SCAN["steps"], member_ids=ids, stream="joint"))
    scan = {"h0": hand.h0[:, :1].detach(), "frame": frame, "tangent_transient": SCAN["tangent_transient"]}
    exponents = lt.lyapunov_spectrum(hand.cell, inputs, k=3, **scan).exponents
    loss = (exponents + 0.2).square().sum(-1).mean(-1)
    floss = torch.autograd.grad((weight * loss).sum(), own, materialize_grads=True)
    for p, q, a, b in zip(model.parameters(), own, task, floss, strict=True):
        torch.testing.assert_close(q - p, a + b, rtol=1e-10, atol=1e-12)
    assert max(g.norm() for g in floss) > 1e-2


def test_a_mixed_ensemble_is_what_its_members_are_alone():
    """Figure 4c, small: not flossed, before, before and during, by delays, by networks."""
    shape, delays = (3, 2, 2), (2, 4)
    condition = torch.arange(3)[:, None, None].expand(shape)
    ids, delay = torch.tensor([7, 3]).expand(shape), torch.tensor(delays)[None, :, None].expand(shape)
    floss, model = FlossPhase(2, k=3, **SCAN), make(shape, ids)
    later = Trigger(At(3), replace(floss, who=condition >= 2))
    schedule = (replace(floss, who=condition >= 1), FitPhase(6, triggers=(later,)))
    together = run(model, *schedule, task=TemporalXOR(delay), member_ids=ids)
    for place, index in enumerate(map(tuple, torch.ones(shape).nonzero().tolist())):
        alone, mine = make((), ids[index]), ids[index]
        triggers = (Trigger(At(3), floss),) if index[0] == 2 else ()
        schedule = (*([floss] if index[0] else []), FitPhase(6, triggers=triggers))
        record = run(alone, *schedule, task=TemporalXOR(delays[index[1]]), member_ids=mine)
        torch.testing.assert_close(numbers(model, index), numbers(alone), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(together["loss"][place], record["loss"][0], rtol=1e-8)
        assert episodes(together, place) == episodes(record) == [0, 3][: index[0]]


def test_every_number_of_a_trigger_and_of_a_joint_fit_may_be_a_members_own():
    spread, ids = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([4, 0, 4])
    k = torch.tensor([1, 3, 5])
    own = {"k": k, "target": (spread - 1).unsqueeze(-1), "lr": 2e-3 * spread, "clip": 0.1 * spread}
    joint = {"k": 6 - k, "target": -spread.unsqueeze(-1) / 2}
    settings = {"lr": 1e-3 * spread, "clip": 0.03 * spread}

    def schedule(pick):
        episode = FlossPhase(2, **SCAN, **{name: pick(v) for name, v in own.items()})
        when = When(lt.schedules.gradient_norm > pick(torch.tensor([0.0, 1e9, 0.0])), after=2)
        both = FlossPhase(0, **SCAN, **{name: pick(v) for name, v in joint.items()})
        trigger = Trigger(when, episode, Scale("cell.weight_hh", 0.9))
        return FitPhase(5, None, pick(0.1 * spread), both, (trigger,), check_every=2)

    model = make((3,), ids)
    together = run(model, schedule(lambda v: v), member_ids=ids, **settings)
    for i in range(3):
        alone, mine = make((), ids[i]), {name: each(v, i) for name, v in settings.items()}
        record = run(alone, schedule(lambda v, i=i: each(v, i)), member_ids=ids[i], **mine)
        torch.testing.assert_close(numbers(model, i), numbers(alone), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(together["loss"][i], record["loss"][0], rtol=1e-8)
        assert episodes(together, i) == episodes(record) == ([] if i == 1 else [2, 4])
