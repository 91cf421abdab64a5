"""The memory capacity in `lt.diagnose`: verdict, words, advice that follows from it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt
from lyaptorch.analysis import memory_capacity
from lyaptorch.cells import fit
from lyaptorch.diagnosis import memory
from lyaptorch.diagnosis.memory import Memory, remembered
from lyaptorch.plots.diagnosis import drawings

T = 20


def bits(t: int = 60, b: int = 6) -> Tensor:
    return torch.randint(0, 2, (t, b, 1), generator=torch.Generator().manual_seed(0)).float()


def words(found: lt.diagnosis.Diagnosis) -> dict[str, str]:
    return {finding.name: finding.text for finding in found.findings}


def titles(found: lt.diagnosis.Diagnosis) -> list[str]:
    return [suggestion.title for suggestion in found.suggestions]


def linear(W: Tensor) -> lt.ElmanCell:
    cell = lt.ElmanCell(1, len(W), activation="linear", bias=False)
    cell.weight_hh.data, cell.weight_ih.data = W, torch.eye(len(W))[:, :1]
    return cell


def gru(taus: Tensor | None = None) -> nn.GRU:
    torch.manual_seed(0)
    net = nn.GRU(1, 16)
    if taus is not None:
        net.bias_hh_l0.data[16:32] = taus.log()
    return net


def follow(found: lt.diagnosis.Diagnosis, title: str, network: nn.Module) -> nn.Module:
    """Run what is printed under that title."""
    (suggestion,) = (s for s in found.suggestions if s.title == title)
    scope = {"network": network, "lt": lt, "torch": torch, "inputs": bits()}
    exec(suggestion.code, scope)
    return scope.get("cell", network)


def test_a_delay_line_holds_a_number_for_each_step_and_a_sum_holds_one():
    """Both keep gradients for the horizon; of a ring every lag is known, of a sum their mean alone."""
    ring = linear(torch.roll(torch.eye(64), 1, 0))
    found = lt.diagnose(ring, bits(64, 64), horizon=T)
    assert found.verdict == "healthy"
    assert found.measured.memory.held == pytest.approx(10, abs=1e-3)
    assert found.measured.memory.resolves
    leaky = lt.diagnose(linear(math.exp(-1 / T) * torch.eye(8)), bits(), horizon=T, k=4)
    # of one leaky sum with a = e^-1/T the share at lag l is (1 - a^2) a^2l
    a = math.exp(-2 / T)
    expected = sum((1 - a) * a**lag for lag in range(11, 21))
    held = leaky.measured.memory
    assert held.held == pytest.approx(expected, abs=2 * held.held_error)
    assert (leaky.verdict, held.integrates) == ("integrating", True)
    assert words(leaky)["verdict"].startswith(
        "The network integrates: gradients survive 20 steps because the state hardly changes"
    )


def test_gates_that_stand_still_integrate_and_the_advice_mends_it():
    network = gru(torch.linspace(2, 2 * T, 16))
    found = lt.diagnose(network, bits(), horizon=T, name="network")
    assert found.verdict == "integrating"
    assert titles(found)[0] == "Start by mixing"
    assert not any(title.startswith(("Open", "Floss")) for title in titles(found))
    first, before = found.suggestions[0], found.measured.memory
    assert f"held {first.held:.2g} numbers older than 10 steps, not {before.held:.2g}" in first.reason
    after = lt.diagnose(follow(found, "Start by mixing", network), bits(), horizon=T).measured
    assert after.memory.held == pytest.approx(first.held, abs=3 * after.memory.held_error)
    assert after.memory.held > before.held + 3 * before.held_error


def test_advice_comes_in_the_order_of_what_copies_held():
    found = lt.diagnose(gru(), bits(), horizon=T, name="network")
    assert titles(found)[:2] == ["Start by mixing", "Open the gates that keep the memory"]
    mixing, opened = found.suggestions[:2]
    assert mixing.held > opened.held


@pytest.mark.parametrize("cell", [lt.GRUCell, lt.LSTMCell, lt.ElmanCell])
@pytest.mark.parametrize("strength", [1, 8])
def test_the_gain_of_rest_is_taken_unless_inputs_saturate_the_units(cell, strength):
    network = cell(1, 16, generator=torch.Generator().manual_seed(4))
    found = lt.diagnose(network, strength * bits(), horizon=T, k=4, name="network")
    first = next(each for each in found.suggestions if each.title == "Start by mixing")
    assert ("inputs=" in first.code) is (strength == 8)
    # which keeps gradients either way
    assert abs(first.expected) * T < 5


def test_a_weakly_coupled_identity_is_advised_to_turn():
    cell = lt.ResidualCell(1, 16)
    found = lt.diagnose(cell, bits(), horizon=T, name="network")
    assert found.verdict == "integrating"
    assert titles(found)[0] == "Add a residual connection that turns"
    after = lt.diagnose(follow(found, titles(found)[0], cell), bits(), horizon=T)
    assert after.verdict == "healthy"
    assert after.measured.memory.held == pytest.approx(found.suggestions[0].held, abs=0.3)


def test_units_that_see_no_state_are_not_advised_to_mix():
    cell = lt.cells.MinGRUCell(1, 16)
    found = lt.diagnose(cell, bits(), horizon=40, name="network")
    assert "Start by mixing" not in titles(found)
    # what holds more of the past comes first, though it is a network of its own
    assert titles(found)[:2] == [
        "Add a residual connection that turns",
        "Open the gates that keep the memory",
    ]
    assert found.suggestions[0].held > found.suggestions[1].held
    after = lt.diagnose(follow(found, "Open the gates that keep the memory", cell), bits(), horizon=40)
    assert after.measured.lambda1 > found.measured.lambda1 + 0.1


def test_the_numbers_are_those_of_the_memory_capacity():
    cell = lt.RateCell(1, 8, gain=1.2)
    found = lt.diagnose(cell, bits(), horizon=T, tangent_transient=0)
    alone = memory_capacity(cell, T + 1, inputs=bits(), scale=memory.PROBE)
    torch.testing.assert_close(found.measured.memory.shares, alone)
    record = found.record()
    np.testing.assert_allclose(record["capacity"], alone)
    assert record.config["capacity_steps"] >= 4000
    (drawn,) = (d for d in drawings(record) if d.name == "memory")
    assert [share for _, share in drawn.rows] == pytest.approx(alone.tolist())


def test_inputs_that_do_not_reach_the_state_are_no_verdict():
    cell = linear(0.99 * torch.eye(4))
    cell.weight_ih.data.zero_()
    found = lt.diagnose(cell, bits(), horizon=T)
    assert found.verdict == "healthy"
    assert "recovers none of it at any lag" in words(found)["memory"]
    # who reads the first sentence alone is told, too
    assert words(found)["verdict"].endswith(", but a linear readout recovers nothing of the inputs.")


def test_a_state_too_large_for_the_steps_says_how_many_it_takes(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 100)
    found = lt.diagnose(lt.RateCell(1, 16, gain=0.5), bits(), horizon=T)
    assert words(found)["memory"] == (
        "Memory capacity: not measured, not enough steps: 16 units take at least 68 states."
    )
    assert "capacity" not in [d.name for d in drawings(found.record())]
    assert "memory" not in [d.name for d in drawings(found.record())]


def test_a_capacity_near_the_border_is_no_verdict_and_says_how_many_steps_would_do():
    cell = linear(math.exp(-1 / T) * torch.eye(8))
    x, h = fit(cell, bits(), None)
    measured = remembered(cell, x, h, None, T)
    doubtful = dataclasses.replace(measured, common=1.0)
    assert measured.integrates
    assert not doubtful.integrates
    assert not doubtful.resolves
    assert "states would do" in memory.told(doubtful, "20 steps", "10 steps")


def test_few_lags_hold_few_numbers():
    """Above half of 3 steps lie lags 2 and 3: two numbers at most, so that one is enough."""
    assert Memory(torch.ones(4)).needed == 1.0
    assert Memory(torch.ones(T + 1)).needed == 2.0


def test_sequences_of_their_own_lengths_are_probed_within_them():
    padded, lengths = bits(), [60, 30, 45, 50, 55, 40]
    for i, length in enumerate(lengths):
        padded[length:, i] = torch.nan
    cell = lt.RateCell(1, 6, gain=1.2)
    found = lt.diagnose(cell, padded, lengths=lengths, horizon=T, tangent_transient=0)
    alone = memory_capacity(cell, T + 1, inputs=padded, lengths=lengths, scale=memory.PROBE)
    torch.testing.assert_close(found.measured.memory.shares, alone)
