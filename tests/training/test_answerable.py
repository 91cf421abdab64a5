"""What a task draws is looked at once, before anything is trained on it or asked."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import lyaptorch as lt


class Drawn(lt.Task):
    """Bits, of which something is made."""

    input_size, output_size, loss = 1, 1, "binary_cross_entropy"
    made: Callable[..., object]

    def draw(self, d):
        return type(self).made(d.normal(), d.bernoulli(), d.where(d.now >= 2))


def task(made):
    return type("Given", (Drawn,), {"made": staticmethod(made)})()


def model(loss="binary_cross_entropy"):
    torch.manual_seed(0)
    return lt.Model(nn.GRU(1, 3), lt.Readout(3, 1), loss=loss)


def learn(made, loss="binary_cross_entropy"):
    return lt.train(model(loss), task(made), (lt.FitPhase(2),), steps=6, batch=2)["loss"]


def masked_in_the_middle(x, y, mask):
    y, mask = y.clone(), mask.clone()
    y[4], mask[4] = math.nan, False
    return lt.Batch(x, y, mask)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda x, y, mask: None, "a task must draw a Batch, got NoneType; return"),
        (lambda x, y, mask: (x, y, mask), "a task must draw a Batch, got tuple"),
        (lambda x, y, mask: lt.Batch(x, y, mask.float()), r"mask must be bool, .* got torch\.float32"),
        (lambda x, y, mask: lt.Batch(x, y, mask.long()), r"mask must be bool, .* got torch\.int64"),
        (lambda x, y, mask: lt.Batch(x, y, mask & False), "mask must let some step count for each member"),
        (lambda x, y, mask: lt.Batch(x, y, mask & False, 0), "mask must let some step count for each member"),
        (lambda x, y, mask: lt.Batch(x, y * math.nan, mask), "targets must be finite, got nan"),
        (masked_in_the_middle, "targets must be finite, .* where the mask is False any number will do"),
        (lambda x, y, mask: lt.Batch(x, 2 * y - 1, mask), "needs targets in 0..1, got -1 to 1; of -1 and 1"),
        (lambda x, y, mask: lt.Batch(x, 3 * y, mask), "needs targets in 0..1, got 0 to 3"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_and_when_it_is_asked(made, says):
    with pytest.raises(ValueError, match=says):
        learn(made)
    with pytest.raises(ValueError, match=says):
        lt.evaluate(model(), task(made), steps=6, batch=2)


def test_other_losses_take_other_numbers_and_targets_before_the_first_step_that_counts_are_not_looked_at():
    numbers = learn(lambda x, y, mask: lt.Batch(x, 3 * y, mask), "mean_squared_error")
    assert (numbers > 0).all()
    plain = learn(lt.Batch)
    early = learn(lambda x, y, mask: lt.Batch(x, torch.cat([y[:2] * math.nan, y[2:]]), mask))
    assert (plain == early).all()


def test_a_readout_of_torch_has_the_size_of_what_it_reads():
    with pytest.raises(
        ValueError, match=r"read the 3 numbers that this cell shows, got one for 4; make it Linear"
    ):
        lt.Model(nn.GRU(1, 3), nn.Linear(4, 1))


def test_what_a_task_holds_and_a_record_cannot_is_named():
    held = task(lt.Batch)
    held.function = SimpleNamespace()
    with pytest.raises(
        ValueError, match=r"what a task holds goes into the Record, .* got SimpleNamespace as function"
    ):
        lt.train(model(), held, (lt.FitPhase(2),), steps=6, batch=2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("shift", "from_to"), [(-1.0, "-1 to 1"), (0.5, "0.5 to 2.5"), (1.0, "1 to 3")])
def test_classes_are_whole_numbers_below_the_count_of_outputs(shift, from_to, fused):
    torch.manual_seed(0)
    cell = lt.ElmanCell(1, 3)
    asked = lt.Model(cell, lt.Readout(3, 3) if fused else nn.Linear(3, 3), loss="cross_entropy")
    x, classes = torch.randn(6, 2, 1), torch.arange(12.0).reshape(6, 2, 1) % 3
    everywhere = torch.ones(6, 2, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=rf"a whole number in 0\.\.2, .* from {from_to}; steps to be ignored"
    ):
        asked.loss(lt.Batch(x, classes + shift, everywhere))
    counted = everywhere & (classes[..., 0] != 1)
    marked = torch.where(counted.unsqueeze(-1), classes, -100.0)
    found, expected = (asked.loss(lt.Batch(x, y, counted)) for y in (marked, classes))
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
