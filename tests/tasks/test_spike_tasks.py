"""Tasks in spikes."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch._random import Stream
from lyaptorch.tasks import SpikePatterns, SpikingXOR
from lyaptorch.tasks.batch import Draw

IDS = torch.tensor([[4, 0, 7], [2, 2, 9]])
EVERY = pytest.mark.parametrize(
    "task",
    [SpikingXOR(7), SpikePatterns(2, classes=3, steps=20), SpikePatterns(3, steps=20, code="latency")],
    ids=["xor", "poisson", "latency"],
)


def draw(task, members=IDS, *, epoch=0, stream="task", batch=3, trials=2, seed=5):
    length = trials * task.period
    return task.draw(Draw(seed, length, batch, member_ids=members, epoch=epoch, stream=stream))


@EVERY
def test_spikes_are_bits_and_the_answer_is_asked_at_the_end_of_each_trial(task):
    batch = draw(task)
    t = 2 * task.period
    assert batch.inputs.shape == (t, 2, 3, 3, task.input_size)
    assert batch.targets.shape == (t, 2, 3, 3, task.output_size)
    assert set(batch.inputs.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.targets.sum(-1), torch.ones(t, 2, 3, 3))
    asked = [s % task.period >= task.period - task.answer for s in range(t)]
    assert batch.mask[:, 1, 2].tolist() == asked
    per_trial = batch.targets.unflatten(0, (2, task.period))
    assert torch.equal(per_trial, per_trial[:, :1].expand_as(per_trial))
    assert not batch.inputs[torch.tensor(asked)].any()


@EVERY
def test_a_member_draws_the_same_alone_and_everything_else_differs(task):
    batch = draw(task)
    alone = draw(task, IDS[1, 2])
    assert torch.equal(alone.inputs, batch.inputs[:, 1, 2])
    assert torch.equal(alone.targets, batch.targets[:, 1, 2])
    assert torch.equal(batch.inputs[:, 1, 0], batch.inputs[:, 1, 1])
    assert not torch.equal(batch.inputs[:, 0, 0], batch.inputs[:, 0, 1])
    for other in (draw(task, epoch=1), draw(task, stream="test"), draw(task, seed=6)):
        assert not torch.equal(other.inputs, batch.inputs)
        assert not torch.equal(other.targets, batch.targets)
    own = draw(task, epoch=torch.tensor([[0, 1, 2], [3, 4, 5]]))
    assert torch.equal(own.inputs[:, 0, 1], draw(task, epoch=1).inputs[:, 0, 1])


@EVERY
def test_the_inputs_alone_are_those_of_the_batch_at_any_length(task):
    length = 2 * task.period
    x = task.inputs(Draw(5, length - 3, 3, member_ids=IDS))
    assert torch.equal(x, draw(task).inputs[: length - 3])
    assert task.inputs(Draw(5, 4, 3, member_ids=IDS)).shape[0] == 4


@EVERY
def test_a_length_that_holds_no_trial(task):
    with pytest.raises(ValueError, match=rf"length must hold one trial of {task.period} steps, got 5"):
        task.draw(Draw(0, 5, member_ids=IDS))


def test_the_two_cues_tell_the_answer():
    task = SpikingXOR(5, channels=6, cue=8, probability=0.9)
    batch = draw(task, torch.arange(40), batch=4, trials=1)
    bits = []
    for start in (0, 13):
        counts = batch.inputs[start : start + 8].sum(0).unflatten(-1, (2, 3)).sum(-1)
        assert ((counts > 0).sum(-1) == 1).all()  # one half only
        bits.append(counts[..., 0] > 0)
    assert torch.equal(batch.targets[-1, ..., 1].bool(), bits[0] ^ bits[1])
    assert not batch.inputs[8:13].any()
    shares = [(bits[0] == a).double().mean().item() for a in (True, False)]
    assert shares == pytest.approx([0.5, 0.5], abs=5 * 0.5 / 160**0.5)
    assert batch.inputs[:8].mean().item() == pytest.approx(0.45, abs=0.02)


def test_poisson_patterns_have_a_rate_for_each_class_and_channel():
    task = SpikePatterns(classes=3, channels=10, steps=30, probability=0.2)
    batch = draw(task, torch.arange(600), batch=4, trials=1)
    named = batch.targets[-1].argmax(-1)
    assert torch.bincount(named.flatten()).tolist() == pytest.approx([800] * 3, abs=5 * (2400 * 2 / 9) ** 0.5)
    rates = torch.stack([batch.inputs[:30, named == c].mean((0, 1)) for c in range(3)])
    patterns = Stream(0, "spike_patterns").uniform((3, 10), member_ids=0)
    torch.testing.assert_close(rates, 0.4 * patterns, rtol=0, atol=5 * 0.5 / (700 * 30) ** 0.5)
    assert (rates[0] - rates[1]).abs().max() > 0.1
    # the same patterns for another seed of the run
    other = task.draw(Draw(9, task.period, 4, member_ids=torch.arange(600)))
    again = torch.stack([other.inputs[:30, other.targets[-1].argmax(-1) == c].mean((0, 1)) for c in range(3)])
    torch.testing.assert_close(rates, again, rtol=0, atol=5 * 0.5 / (800 * 30) ** 0.5 * 2**0.5)


def test_latencies_are_one_spike_at_a_time_of_its_own():
    task = SpikePatterns(classes=2, channels=10, steps=40, code="latency", jitter=1.5)
    batch = draw(task, torch.arange(500), batch=4, trials=1)
    assert torch.equal(batch.inputs.sum(0), torch.ones(500, 4, 10))
    times, named = batch.inputs.argmax(0).double(), batch.targets[-1].argmax(-1)
    middle = [times[named == c].median(0).values for c in range(2)]
    assert (middle[0] - middle[1]).abs().max() > 5
    inside = (middle[0] > 8) & (middle[0] < 32)
    # the variance of rounding to a step is 1/12
    spread = times[named == 0][:, inside].std(0)
    torch.testing.assert_close(spread, torch.full_like(spread, (1.5**2 + 1 / 12) ** 0.5), rtol=0.1, atol=0)
    exact = draw(SpikePatterns(classes=2, steps=40, code="latency", jitter=0.0), trials=1)
    first = exact.inputs[:, exact.targets[-1].argmax(-1) == 0]
    assert torch.equal(first, first[:, :1].expand_as(first))


@EVERY
def test_a_spiking_network_trains_on_it(task):
    cell = lt.LIFCell(task.input_size, 8, ensemble=(2,))
    lt.weights.fluctuation_driven(cell, input_rate=50.0)
    model = lt.Model(cell, lt.cells.LeakyReadout(cell, task.output_size), loss=task.loss)
    schedule = (lt.FlossPhase(1, k=2, steps=12, tangent_transient=2), lt.FitPhase(2))
    record = lt.train(model, task, schedule=schedule, batch=2, steps=task.period)
    assert record["loss"].shape == (2, 2)
    assert torch.isfinite(torch.as_tensor(record["loss"])).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpikingXOR(-1), r"delay must be an integer >= 0, got -1"),
        (lambda: SpikingXOR(3, channels=5), r"channels must be even, half for each bit, got 5"),
        (lambda: SpikingXOR(3, probability=1.5), r"probability must be a share in 0..1, got 1.5"),
        (lambda: SpikePatterns(classes=1), r"classes must be an integer >= 2, got 1"),
        (lambda: SpikePatterns(code="latencies"), r"unknown code 'latencies', did you mean 'latency'\?"),
        (lambda: SpikePatterns(probability=0.6), r"probability must be a share in 0..1, got 1.2"),
    ],
)
def test_tasks_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
