"""Networks made by hand score exactly 100%, and have the spectrum of a nilpotent matrix."""

import pytest
import torch

import lyaptorch as lt
from lyaptorch import tasks
from lyaptorch.testing import copy_network, spatial_xor_network, xor_network


def model(network, loss):
    cell, weight, bias = network
    readout = lt.Readout(cell.state_size, 1)
    with torch.no_grad():
        readout.weight.copy_(weight)
        readout.bias.copy_(bias)
    return lt.Model(cell, readout, loss=loss)


@pytest.mark.parametrize("delay", [2, 4, 6, 30])
def test_xor(delay):
    task = tasks.TemporalXOR(delay)
    assert lt.evaluate(model(xor_network(delay), task.loss), task, steps=80)["accuracy"] == 1
    analogue = tasks.TemporalXOR(delay, binary=False)
    scores = lt.evaluate(model(xor_network(delay, binary=False), analogue.loss), analogue, steps=80)
    assert scores["loss"] < 1e-12
    assert scores["accuracy"] == pytest.approx(1)


@pytest.mark.parametrize("delay", [1, 2, 3, 17])
def test_copy_and_spatial_xor_and_recall(delay):
    copied, bits = tasks.DelayedCopy(delay), tasks.DelayedCopy(delay, binary=True)
    assert (
        lt.evaluate(model(copy_network(delay, binary=False), copied.loss), copied, steps=60)["loss"] < 1e-12
    )
    assert lt.evaluate(model(copy_network(delay), bits.loss), bits, steps=60)["accuracy"] == 1
    spatial = tasks.SpatialXOR(delay)
    assert lt.evaluate(model(spatial_xor_network(delay), spatial.loss), spatial, steps=60)["accuracy"] == 1
    recall = tasks.Recall(min(3, delay), delay)
    assert lt.evaluate(model(copy_network(delay, channels=2), recall.loss), recall, steps=60)["accuracy"] == 1


@pytest.mark.parametrize(
    "network", [xor_network(6), copy_network(5), spatial_xor_network(4)], ids=["xor", "copy", "spatial"]
)
@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_a_line_without_feedback_forgets_all(network):
    cell = network[0]
    inputs = torch.ones(cell.state_size + 1, 1, cell.input_size)
    spec = lt.lyapunov_spectrum(cell, inputs, k=3)
    assert (spec.exponents == -torch.inf).all()
    assert not spec.reliable.any()


def test_a_wrong_weight_is_noticed():
    cell, weight, bias = xor_network(6)
    with torch.no_grad():
        cell.weight_hh[1, 0] = 0.0
    task = tasks.TemporalXOR(6)
    assert lt.evaluate(model((cell, weight, bias), task.loss), task, steps=80)["accuracy"] < 0.9
