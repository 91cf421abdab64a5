"""`lt.diagnose`: made networks whose illness is known."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt
from cases import every, setup
from lyaptorch._random import Stream
from lyaptorch.cells import fit, unroll
from lyaptorch.diagnosis.blocks import block_squares, measure, own_rates, pull_back, silence
from lyaptorch.diagnosis.findings import findings
from lyaptorch.diagnosis.measure import gradient_back, largest_growth
from lyaptorch.diagnosis.reliability import between, unsettled
from lyaptorch.diagnosis.trajectories import Run, run, whole
from lyaptorch.plots.diagnosis import drawings

LONG = 160
TURNING = "Add a residual connection that turns"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(t: int = LONG, b: int = 3, m: int = 1) -> Tensor:
    return torch.randn(t, b, m, generator=seeded(1))


def words(found: lt.diagnosis.Diagnosis) -> dict[str, str]:
    return {finding.name: finding.text for finding in found.findings}


def titles(found: lt.diagnosis.Diagnosis) -> list[str]:
    return [suggestion.title for suggestion in found.suggestions]


def follow(found: lt.diagnosis.Diagnosis, title: str, **scope: Any) -> dict[str, Any]:
    """Run the Python of the suggestion whose title begins so."""
    code = next(suggestion.code for suggestion in found.suggestions if suggestion.title.startswith(title))
    scope |= {"lt": lt, "torch": torch}
    exec(code, scope)
    return scope


def vanishing() -> lt.RateCell:
    return lt.RateCell(1, 24, gain=0.5, generator=seeded())


def linear(W: Tensor) -> lt.RateCell:
    """h' = W h + V x."""
    cell = lt.RateCell(1, len(W), activation="linear", bias=False)
    cell.weight_hh.data = W.to(cell.weight_hh)
    return cell


def rotation(n: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(n, n), generator=seeded())


def two_layers(top: float) -> lt.RateCell:
    """Layer 1 a rotation; layer 2 loses all but `top` of a perturbation at every step."""
    W = torch.zeros(12, 12)
    W[:6, :6] = 0.99 * rotation(6)
    W[6:, 6:] = top * rotation(6)
    W[6:, :6] = 0.3 * torch.eye(6)
    return linear(W)


LAYERS = {"layer 1": slice(0, 6), "layer 2": slice(6, 12)}


def test_a_vanishing_network():
    cell = vanishing()
    found = lt.diagnose(cell, noise(), name="cell")
    measured = found.measured
    assert found.verdict == "vanishing"
    assert measured.surviving == 0
    assert measured.lambda1 == pytest.approx(
        lt.lyapunov_spectrum(cell, noise(), k=24, tangent_transient=LONG // 10).exponents.mean(0).max().item()
    )
    assert words(found)["verdict"].startswith("Gradients vanish: λ₁ = -")
    assert words(found)["explosion"].startswith("Risk of explosion: low")
    floss = f"Floss k = {int(measured.reliable.sum())} exponents to 0"
    assert titles(found)[:4] == ["Start by mixing", "Raise the gain", floss, TURNING]


@pytest.mark.parametrize("title", ["Raise the gain", "Start by mixing"])
def test_a_suggestion_does_what_it_says(title):
    cell = vanishing()
    found = lt.diagnose(cell, noise(), name="cell")
    follow(found, title, cell=cell, inputs=noise())
    after = lt.diagnose(cell, noise())
    assert abs(after.measured.lambda1) < 0.8 * abs(found.measured.lambda1)
    if title == "Raise the gain":
        (suggestion,) = (r for r in found.suggestions if r.title == title)
        assert after.measured.lambda1 == pytest.approx(suggestion.expected, abs=0.03)
        assert after.verdict != "vanishing"


@pytest.mark.slow
def test_flossing_as_advised_lengthens_the_horizon():
    cell = vanishing()
    found = lt.diagnose(cell, noise(), name="cell")
    code = next(r.code for r in found.suggestions if r.title.startswith("Floss"))
    k = int(found.measured.reliable.sum())
    assert code == f"lt.floss(cell, inputs, k={k}, target=0.0, epochs=500)"
    exec(code, {"lt": lt, "cell": cell, "inputs": noise()})
    assert lt.diagnose(cell, noise()).measured.lambda1 > found.measured.lambda1 + 0.3


def test_the_residual_network_that_is_advised_is_healthy():
    found = lt.diagnose(vanishing(), noise())
    cell = follow(found, "Add a residual")["cell"]
    after = lt.diagnose(cell, noise())
    assert after.verdict == "healthy"
    assert after.measured.lambda1 == pytest.approx(-1 / found.measured.horizon, abs=0.02)


def overflows_after(cell: lt.Cell, inputs: Tensor) -> int:
    h = torch.zeros(inputs.shape[1], cell.state_size)
    for s, x in enumerate(inputs, 1):
        h = cell.step(x, h)
        if not torch.isfinite(h).all():
            return s
    raise AssertionError("it does not overflow")


def test_an_exploding_network():
    cell, inputs = linear(1.2 * rotation(8)), noise(600)
    found = lt.diagnose(cell, inputs, name="cell")
    assert found.verdict == "exploding"
    assert found.measured.lambda1 == pytest.approx(math.log(1.2), abs=1e-3)
    assert found.measured.overflow == overflows_after(cell, inputs)
    # 88.7 / log 1.2, less what the first inputs have made of the state by then
    assert 430 < found.measured.overflow < 487
    assert f"overflows at step {found.measured.overflow}" in words(found)["verdict"]
    assert words(found)["explosion"].startswith("Risk of explosion: certain")
    assert set(titles(found)[:2]) == {"Lower the gain", "Start by mixing"}
    assert "Clip gradients, and cut them off" in titles(found)


def test_lowering_the_gain_of_an_exploding_network_is_exact():
    cell = linear(1.2 * rotation(8))
    follow(lt.diagnose(cell, noise(), name="cell"), "Lower the gain", cell=cell)
    assert lt.diagnose(cell, noise()).measured.lambda1 == pytest.approx(0.0, abs=1e-3)


def test_an_explosion_within_the_first_steps_cannot_be_measured():
    with pytest.raises(FloatingPointError, match="too soon to measure"):
        lt.diagnose(linear(1e3 * rotation(4)), noise())


def chaotic_with_dead_units() -> lt.RateCell:
    """Gain 4.5, and the last 10 of 40 units saturated by their biases."""
    cell = lt.RateCell(1, 40, gain=4.5, generator=seeded())
    cell.bias.data[30:] = 50.0
    cell.weight_hh.data[:30, 30:] = 0.0
    return cell


def test_a_chaotic_network_with_a_dead_group():
    groups = {"free": slice(0, 30), "stuck": list(range(30, 40))}
    cell = chaotic_with_dead_units()
    found = lt.diagnose(cell, noise(), k=40, groups=groups, name="cell")
    assert found.verdict == "chaotic"
    assert words(found)["parts"].startswith("stuck kills the signal.")
    assert "10 of 40 units are dead" in words(found)["silence"]
    assert "30, 31, 32" in words(found)["silence"]
    assert int(re.search(r"(\d+) died", words(found)["reliability"])[1]) >= 10
    free, stuck = found.measured.parts.mean(found.measured.parts.silent)
    assert free < 0.6
    assert stuck > 0.9
    assert "Wake the dead units" in titles(found)
    follow(found, "Wake the dead units", cell=cell)
    assert cell.bias[30:].abs().max() == 0.0
    assert lt.diagnose(cell, noise(), k=40).measured.parts.silent[30:].max() < 0.9


def test_the_suggestions_of_chaos():
    cell = lt.RateCell(1, 40, gain=3.0, generator=seeded())
    found = lt.diagnose(cell, noise(), name="cell")
    assert found.verdict == "chaotic"
    assert words(found)["verdict"].startswith("The network is chaotic")
    scope = follow(found, "Clip", cell=cell, inputs=noise())
    growth = found.measured.lambda1 * len(scope["chunks"][0])
    assert growth <= math.log(1e3) < growth + found.measured.lambda1
    follow(found, "Lower the gain", cell=cell)
    after = lt.diagnose(cell, noise())
    assert after.verdict not in ("chaotic", "vanishing")


def test_input_that_suppresses_chaos():
    cell = lt.RateCell(1, 60, gain=1.7, generator=seeded())
    found = lt.diagnose(cell, 0.2 * noise(), name="cell")
    assert found.verdict == "chaotic"
    inputs = follow(found, "Drive it harder", inputs=0.2 * noise())["inputs"]
    assert lt.diagnose(cell, inputs).measured.lambda1 < found.measured.lambda1 / 2


def test_a_network_that_is_fine():
    found = lt.diagnose(linear(rotation(12)), noise())
    assert found.verdict == "healthy"
    assert found.measured.surviving == 12
    assert found.suggestions == ()
    told = ["verdict", "directions", "memory", "explosion", "gradient", "parallel", "reliability"]
    assert list(words(found)) == told
    assert "What to try" not in str(found)


def test_one_slow_unit_among_fast_ones_is_narrow():
    found = lt.diagnose(linear(torch.diag(torch.tensor([0.999] + 11 * [0.3]))), noise())
    assert (found.verdict, found.measured.surviving) == ("narrow", 1)
    assert "1 direction only" in words(found)["verdict"]


def test_a_layer_that_kills():
    found = lt.diagnose(two_layers(0.02), noise(), groups=LAYERS, name="cell")
    assert found.verdict == "blocked"
    assert words(found)["parts"].startswith("layer 2 kills the signal.")
    assert "layer 2" in words(found)["verdict"]
    torch.testing.assert_close(
        found.measured.parts.rates, torch.tensor([0.99, 0.02]).log(), atol=1e-4, rtol=1e-4
    )
    # what one step passes on: within layer 1, from 1 to 2, nothing back, within 2
    passage = torch.tensor([[0.99, 0.0], [0.3, 0.02]])
    torch.testing.assert_close(found.measured.parts.passage, passage, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("top", "verdict"), [(0.98, "healthy"), (0.9, "blocked")])
def test_a_layer_is_accused_when_it_falls_short_of_the_horizon(top, verdict):
    found = lt.diagnose(two_layers(top), noise(), groups=LAYERS)
    assert found.verdict == verdict


def test_layers_that_are_alike_are_not_accused():
    W = torch.zeros(12, 12)
    W[:6, :6], W[6:, 6:] = 0.6 * rotation(6), 0.5 * rotation(6)
    found = lt.diagnose(linear(W), noise(), groups=LAYERS)
    assert found.verdict == "vanishing"
    assert words(found)["parts"].startswith("No part stands out.")


def test_the_layer_of_a_torch_lstm_that_kills():
    lstm = nn.LSTM(1, 10, num_layers=2)
    # layer 1 keeps everything, layer 2 forgets at once and listens to nobody
    lstm.bias_hh_l0.data[10:20] = 6.0
    lstm.weight_ih_l1.data *= 0.02
    lstm.weight_hh_l1.data *= 0.02
    lstm.bias_hh_l1.data[10:20] = -2.0
    found = lt.diagnose(lstm, noise(), name="lstm")
    assert found.verdict == "blocked"
    assert found.measured.parts.names == ("layer 1", "layer 2")
    assert found.measured.parts.assignment.sum(0).tolist() == [20, 20]
    assert words(found)["parts"].startswith("layer 2 kills the signal.")
    assert "layer 1 forget gate 1.00" in words(found)["gates"]
    assert "layer 2 forget gate 0.1" in words(found)["gates"]
    # the gradient starts in what a readout sees, and what is left of it lives in layer 1
    assert found.measured.gradient_share[0].tolist() == pytest.approx([0.0, 1.0])
    assert found.measured.gradient_share[-1, 0] > 0.99
    assert found.measured.gradient[10] < math.log(1e-2)
    code = found.suggestions[0].code
    assert code.startswith("lstm.bias_hh_l1.data[..., 10:20] = ")
    assert "l0" not in code
    follow(found, "Open the gates", lstm=lstm)
    after = lt.diagnose(lstm, noise()).measured.parts.rates[1]
    assert after.item() == pytest.approx(found.suggestions[0].expected, abs=0.01)


def test_the_layer_of_a_torch_rnn_that_is_saturated():
    rnn = nn.RNN(1, 10, num_layers=2)
    nn.init.orthogonal_(rnn.weight_hh_l0)
    rnn.weight_ih_l0.data *= 0.1
    rnn.bias_ih_l1.data[:] = 8.0
    found = lt.diagnose(rnn, noise(), name="rnn")
    assert words(found)["parts"].startswith("layer 2 kills the signal.")
    assert "10 of 20 units are dead" in words(found)["silence"]
    follow(found, "Wake", rnn=rnn)
    assert rnn.bias_ih_l1.abs().max() == 0.0
    assert lt.diagnose(rnn, noise()).measured.parts.silent[10:].max() < 0.9


def test_an_lstm_is_told_by_gates_and_by_h_and_c():
    cell = lt.LSTMCell(1, 12)
    found = lt.diagnose(cell, noise(), name="cell")
    assert found.verdict == "vanishing"
    assert found.measured.parts.names == ("h", "c")
    assert words(found)["parts"].startswith("c carries the memory.")
    assert re.search(r"forget gate 0\.(4[5-9]|5\d) on average", words(found)["gates"])
    follow(found, "Open the gates", cell=cell)
    opened = lt.diagnose(cell, noise())
    assert opened.verdict != "vanishing"
    assert opened.measured.gates["forget"].mean() > 0.95


def test_shut_gates_are_named():
    cell = lt.LSTMCell(1, 8)
    cell.bias_hh.data[24:] = -6.0
    text = words(lt.diagnose(cell, noise()))["gates"]
    assert "output gate 0.00 on average, nearly shut" in text
    assert "input gate 0.5" in text


def test_c_alone_forgets_as_its_forget_gate_says():
    """With c held, h' does not depend on h; with h held, dc'/dc = diag(f)."""
    cell = lt.LSTMCell(1, 6).double()
    x, h = noise(50).double(), torch.zeros(3, 12, dtype=torch.float64)
    members = torch.zeros(12, 1, dtype=torch.float64)
    members[6:] = 1.0
    logs, state = torch.zeros(3, 6, dtype=torch.float64), h
    for u in x:
        logs += cell.gate_values(u, state)["forget"].log()
        state = cell.step(u, state)
    # the norm over units lies between the slowest unit's product and sqrt(n) times that
    slowest = logs.amax(-1).mean() / 50
    assert abs(own_rates(cell, x, h, members, whole(x, h)).item() - slowest) < math.log(6) / 50


def test_a_gru_is_told_by_its_update_gate():
    found = lt.diagnose(lt.GRUCell(1, 12), noise(), name="cell")
    assert "update gate 0." in words(found)["gates"]
    assert "(a unit alone forgets" in words(found)["gates"]
    # both are offered, mixing first: it tells more times apart
    assert titles(found)[:2] == ["Start by mixing", "Open the gates that keep the memory"]
    assert ".data[..., 12:24]" in found.suggestions[1].code


def test_a_torch_module_and_a_model_by_their_own_names():
    rnn = nn.RNN(1, 16)
    found = lt.diagnose(rnn, noise(), name="rnn")
    before = rnn.weight_hh_l0.clone()
    follow(found, "Raise the gain", rnn=rnn)
    assert (rnn.weight_hh_l0 / before).std() < 1e-3
    cell = vanishing()
    model = lt.Model(cell, lt.Readout(24, 1), h0=0.1 * torch.ones(1, 24))
    told = lt.diagnose(model, noise(), name="model")
    codes = {suggestion.title: suggestion.code for suggestion in told.suggestions}
    assert codes["Raise the gain"].startswith("model.cell.weight_hh.data *= ")
    assert any(code.startswith("lt.floss(model.cell, inputs, k=") for code in codes.values())
    alone = lt.diagnose(cell, noise(), h0=0.1 * torch.ones(3, 24))
    torch.testing.assert_close(told.measured.exponents, alone.measured.exponents)


def test_a_network_is_left_as_it_was():
    cell = chaotic_with_dead_units()
    before = [p.clone() for p in cell.parameters()]
    state = torch.random.get_rng_state()
    lt.diagnose(cell, noise(), name="cell")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, cell.parameters(), strict=True))
    assert all(p.grad is None for p in cell.parameters())


def test_a_function_has_no_parameters_to_change():
    found = lt.diagnose(lambda x, h: 0.5 * torch.tanh(h) + 0.0 * x, noise(), h0=torch.zeros(3, 5))
    assert found.verdict == "vanishing"
    assert titles(found) == []


def test_a_step_without_a_graph_is_dead():
    @torch.no_grad()
    def step(x: Tensor, h: Tensor) -> Tensor:
        return 0.5 * h + x

    with pytest.warns(UserWarning, match="using reverse mode"):
        found = lt.diagnose(step, noise(), h0=torch.zeros(3, 2))
    assert found.verdict == "vanishing"
    assert "every direction dies" in words(found)["verdict"]
    assert math.isinf(found.measured.gradient[-1])


class Resetting(lt.Cell):
    """A cell with a reset mode: "full" loses nearly everything, "detach" half, "ignore" nothing."""

    reset_grad = "full"

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        kept = {"full": 0.1, "detach": 0.5, "ignore": 1.0}[self.reset_grad]
        return kept * h + (0.3 - kept) * h.detach() + x


def test_the_reset_mode_with_the_longest_memory_is_advised():
    cell = Resetting(1, 1)
    found = lt.diagnose(cell, noise(), name="cell")
    assert titles(found)[0] == 'Reset mode "ignore"'
    assert found.suggestions[0].expected == pytest.approx(0.0, abs=1e-6)
    follow(found, "Reset mode", cell=cell)
    assert cell.reset_grad == "ignore"
    # one unit that keeps everything holds the sum of all that came
    assert lt.diagnose(cell, noise()).verdict == "integrating"


def test_exponents_lost_to_round_off_are_told():
    cell = linear(torch.diag(torch.tensor([0.9, 1e-6])))
    found = lt.diagnose(cell, noise(), name="cell")
    assert found.measured.reliable.tolist() == [True, False]
    assert "1 of 2 exponents stand above round-off; 1 are lost to it" in words(found)["reliability"]
    assert "Measure in float64" in titles(found)
    assert found.suggestions[-1].code == "print(lt.diagnose(cell.double(), inputs.double()))"
    exact = lt.diagnose(cell.double(), noise().double())
    assert exact.measured.reliable.all()
    assert "Measure in float64" not in titles(exact)


def test_a_run_too_short_for_a_verdict_says_so():
    cell = lt.RateCell(1, 30, gain=1.5, generator=seeded(3))
    short = lt.diagnose(cell, noise(40, 1), k=2, horizon=400, name="cell")
    assert "too short to be sure" in words(short)["reliability"]
    assert titles(short)[-1] == "Measure longer"
    # the error is inf
    tiny = lt.diagnose(cell, noise(7, 1), k=2, horizon=400)
    assert "cannot be excluded" in words(tiny)["explosion"]
    long = lt.diagnose(cell, noise(4000, 1), k=2, horizon=40)
    assert "long enough" in words(long)["reliability"]


def test_the_horizon_is_what_survival_is_counted_over():
    cell = linear(torch.diag(torch.tensor([0.99, 0.9, 0.5])))
    surviving = [lt.diagnose(cell, noise(), horizon=T).measured.surviving for T in (5, 50, 500, 1000)]
    assert surviving == [3, 2, 1, 0]
    steps = lt.diagnose(cell, noise()).measured.steps_to(math.e)
    torch.testing.assert_close(steps, -1 / torch.tensor([0.99, 0.9, 0.5]).log(), rtol=0.05, atol=0)


@pytest.mark.parametrize("T", [10, 60])
def test_a_gradient_on_its_way_back_is_that_of_backpropagation(T, double):
    cell = lt.LSTMCell(1, 5, generator=seeded())
    inputs, h = noise(T).double(), torch.zeros(3, 10, requires_grad=True)
    states = torch.cat([h.unsqueeze(0), unroll(cell, inputs, h)])
    followed = Run(inputs, states.detach(), whole(inputs, h))
    parts = measure(cell, followed, None)
    logs, share = gradient_back(cell, followed, parts)
    start = torch.zeros(3, 10)
    start[:, :5] = Stream(0, "gradient").normal((3, 5), member_ids=torch.zeros((), dtype=torch.int64))
    start = start / start.norm(dim=-1, keepdim=True)
    (bar,) = torch.autograd.grad(states[-1], h, start)
    assert logs[-1].item() == pytest.approx(bar.norm(dim=-1).log().mean().item(), abs=1e-9)
    expected = torch.stack([bar[:, :5].square().sum(-1), bar[:, 5:].square().sum(-1)], -1)
    torch.testing.assert_close(share[-1], (expected / bar.square().sum(-1, keepdim=True)).mean(0))
    assert share[0].tolist() == [1.0, 0.0]


@every(ensembles=False)
def test_blocks_silence_and_products_are_those_of_the_dense_jacobian(case, ensemble):
    cell, inputs, h = setup(case)
    x, n = inputs[0], h.shape[-1]
    fit(cell, inputs, h)
    D = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda y, i=i: cell.step(x[i : i + 1], y)[0], h[i : i + 1])[
                :, 0
            ]
            for i in range(2)
        ]
    )
    Z = torch.randn(2, n, 3, dtype=h.dtype)
    torch.testing.assert_close(pull_back(cell, x, h, Z).detach(), D.mT @ Z)
    members = torch.zeros(n, 2, dtype=h.dtype)
    members[:1, 0], members[1:, 1] = 1.0, 1.0
    with torch.no_grad():
        squares = block_squares(cell, x, h, members).flatten(0, -3).mean(0)
        silent = silence(cell, run(cell, inputs[:1], h))
    expected = (members.mT @ D.square() @ members).mean(0)
    torch.testing.assert_close(squares, expected)
    through = torch.minimum(D.norm(dim=-1), D.norm(dim=-2))
    torch.testing.assert_close(silent, (through < 0.05).double().mean(0))


def test_random_probes_stand_for_all_of_a_large_state():
    cell = lt.ElmanCell(1, 200, weights="gaussian", gain=1.0, generator=seeded())
    cell.bias_ih.data[:50] = 9.0
    x, h = noise(1), 0.1 * torch.randn(1, 3, 200, generator=seeded())
    with torch.no_grad():
        silent = silence(cell, run(cell, x, h[0]))
        members = torch.zeros(200, 2)
        members[:50, 0], members[50:, 1] = 1.0, 1.0
        squares = block_squares(cell, x[0], h[0], members).mean(0)
    assert silent[:50].min() == 1.0
    assert silent[50:].max() == 0.0
    # rows of units 50.. have variance 1 / 200 and slopes near 1
    assert squares[1, 1].item() == pytest.approx(150 * 150 / 200, rel=0.2)


def test_the_largest_growth_is_that_of_the_best_window():
    log_r = torch.tensor([[-1.0], [2.0], [-0.5], [1.5], [-4.0]])
    assert largest_growth(log_r) == pytest.approx(3.0)
    assert largest_growth(-log_r.abs()) == 0.0
    dying = torch.tensor([[1.5], [-torch.inf], [-torch.inf]])
    assert largest_growth(dying) == pytest.approx(1.5)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments():
    cell = vanishing()
    with pytest.raises(ValueError, match=r"diagnose takes one network, got an ensemble \(3,\)"):
        lt.diagnose(lt.RateCell(1, 4, ensemble=(3,)), noise())
    for bad in (slice(30, 40), [], [1, 1], [24], [-1]):
        with pytest.raises(ValueError, match="group 'a' must be a slice or a list of different units"):
            lt.diagnose(cell, noise(), groups={"a": bad})
    with pytest.raises(ValueError, match=r"k must be an integer in 1\.\.24"):
        lt.diagnose(cell, noise(), k=25)
    with pytest.raises(ValueError, match="transient must be an integer in 0"):
        lt.diagnose(cell, noise(), transient=LONG)
    with pytest.raises(ValueError, match="horizon must be an integer >= 1"):
        lt.diagnose(cell, noise(), horizon=0)
    with pytest.raises(ValueError, match="name must be a name in Python"):
        lt.diagnose(cell, noise(), name="my net")


def test_one_member_of_an_ensemble():
    many = lt.RateCell(1, 8, gain=0.5, ensemble=(3,))
    model = lt.Model(many, lt.Readout(8, 1, ensemble=(3,)))
    found = lt.diagnose(model.select(torch.tensor([False, True, False])), noise())
    alone = lt.diagnose(lt.RateCell(1, 8, gain=0.5, member_ids=1), noise())
    torch.testing.assert_close(found.measured.exponents, alone.measured.exponents, atol=1e-5, rtol=1e-4)


def field(x: Tensor, h: Tensor) -> Tensor:
    return 0 * x.sum(-1, keepdim=True) - h


def flow_and_map() -> tuple[lt.Flow, Any]:
    flow = lt.Flow(field, dt=0.01)
    return flow, lambda x, h: flow.step(x, h)


def test_a_flow_and_the_same_map_are_told_alike():
    """-1 per unit of time is -0.01 per step: over 180 steps 0.165 of a perturbation is left."""
    flow, step = flow_and_map()
    inputs, h0 = noise(200), torch.ones(3, 2)
    as_flow, as_map, timed = (
        lt.diagnose(flow, inputs, h0=h0),
        lt.diagnose(step, inputs, h0=h0),
        lt.diagnose(step, inputs, h0=h0, dt=0.01),
    )
    for found in (as_flow, as_map, timed):
        assert (found.verdict, found.measured.horizon, found.measured.surviving) == ("healthy", 180, 2)
        assert found.measured.grown == pytest.approx(-1.8, abs=1e-3)
        torch.testing.assert_close(
            found.measured.steps_to(math.e), torch.full((2,), 100.0), rtol=1e-3, atol=0
        )
    assert as_map.measured.lambda1 == pytest.approx(-0.01, rel=1e-3)
    assert as_flow.measured.lambda1 == timed.measured.lambda1 == pytest.approx(-1, rel=1e-3)
    assert "λ₁ = -0.01 ± " in words(as_map)["verdict"]
    assert "nats per step" in words(as_map)["verdict"]
    for found in (as_flow, timed):
        assert "λ₁ = -1 ± " in words(found)["verdict"]
        assert "nats per unit of time" in words(found)["verdict"]
        assert "over 180 steps (a time of 1.8)" in words(found)["verdict"]
        assert "per step" not in str(found)
        assert found.variables()[0]["exponents"][2] == {"units": "nats per unit of time"}
    # the error of a flow has that of its step in it
    told = [{key: re.sub(r" ± \S+", "", text) for key, text in words(z).items()} for z in (as_flow, timed)]
    assert told[0] == told[1]
    plain, of_flow = (lt.Record("diagnose", f.config, *f.variables()) for f in (as_map, as_flow))
    # what is drawn in steps does not know about time
    drawn = [[np.asarray(d.rows, dtype=float) for d in drawings(z)[1:]] for z in (plain, of_flow)]
    for steps, time in zip(*drawn, strict=True):
        # a flow and a map go different ways to their Jacobians, in float32
        np.testing.assert_allclose(steps, time, rtol=1e-4, atol=1e-4)
    assert "nats per unit of time" in drawings(of_flow)[0].alt
    assert of_flow.config["dt"] == 0.01


def test_time_changes_units_and_no_number_of_steps():
    """A chaotic network in steps, and with two steps for a unit of time: every rate doubles, nothing else."""
    cell = lt.RateCell(1, 40, gain=3.0, generator=seeded())
    steps, timed = (lt.diagnose(cell, noise(), dt=dt, name="cell") for dt in (None, 0.5))
    assert steps.verdict == timed.verdict == "chaotic"
    for name in ("exponents", "error"):
        torch.testing.assert_close(getattr(timed.measured, name), 2 * getattr(steps.measured, name))
    assert timed.measured.grown == pytest.approx(steps.measured.grown)
    torch.testing.assert_close(timed.measured.parts.rates, 2 * steps.measured.parts.rates)
    assert titles(steps) == titles(timed)
    told = {suggestion.title: suggestion for suggestion in timed.suggestions}
    for suggestion in steps.suggestions:
        assert told[suggestion.title].code.replace(", dt=0.5", "") == suggestion.code
        if suggestion.expected is not None:
            assert told[suggestion.title].expected == pytest.approx(2 * suggestion.expected)
            assert f"{2 * suggestion.expected:+.3g}" in told[suggestion.title].reason
    every = 1 / steps.measured.lambda1
    assert f"every {every:.2g} steps (a time of {every / 2:.3g})" in words(timed)["verdict"]


def test_flossing_a_flow_aims_per_step_and_records_per_unit_of_time():
    """Two equal fields, one as a Flow and one as the map of its step, have the same losses."""

    def made() -> lt.Flow:
        inner = nn.Linear(3, 3, bias=False)
        inner.weight.data = -torch.eye(3)
        return lt.Flow(lambda x, h: inner(h) + 0 * x.sum(-1, keepdim=True), dt=0.5)

    flow, mapped = made(), made()
    options = {"k": 3, "epochs": 3, "target": -0.1, "h0": torch.ones(1, 3), "lr": 1e-2}
    as_flow = lt.floss(flow, noise(60, 1), **options)
    as_map = lt.floss(lambda x, h: mapped.step(x, h), noise(60, 1), **options)
    assert (as_flow["floss_loss"] == as_map["floss_loss"]).all()
    torch.testing.assert_close(as_flow["exponents"], 2 * as_map["exponents"])
    assert as_flow.variables["exponents"].attributes["units"] == "nats per unit of time"
    assert as_map.variables["exponents"].attributes["units"] == "nats per step"
    # Runge-Kutta's e^-1/2 per step is .6068
    assert as_flow["exponents"][0, 0] == pytest.approx(2 * math.log(0.6068), abs=1e-3)
    flosser = lt.integrations.Flosser(flow, noise(60, 1), (), h0=torch.ones(1, 3))
    assert flosser.exponents().item() == pytest.approx(as_flow["exponents"][0].max(), abs=0.3)


def dying_trajectory(b: int = 20) -> tuple[lt.Cell, Tensor, Tensor]:
    """h' = relu(W h), W positive with norm e^-.05; the first trajectory starts where every unit is shut."""
    W = torch.full((4, 4), math.exp(-0.05) / 4)
    cell = lt.ElmanCell(1, 4, activation="relu", bias=False)
    cell.weight_hh.data, cell.weight_ih.data = W, torch.zeros(4, 1)
    h0 = torch.ones(b, 4)
    h0[0] = -1.0
    return cell, torch.zeros(100, b, 1), h0


def test_one_dead_trajectory_is_told_and_leaves_the_others_alone():
    cell, inputs, h0 = dying_trajectory()
    found = lt.diagnose(cell, inputs, h0=h0, horizon=20)
    alone = lt.diagnose(cell, inputs[:, 1:], h0=h0[1:], horizon=20)
    assert found.measured.lambda1 == pytest.approx(-0.05, abs=1e-4)
    assert (found.measured.trajectories, found.measured.died) == (20, 1)
    assert found.verdict == alone.verdict != "vanishing"
    assert words(found)["deaths"].startswith("In 1 of 20 trajectories every direction died")
    assert "means are over the other 19." in words(found)["deaths"]
    assert "deaths" not in words(alone)
    for name in ("exponents", "reliable", "energy"):
        torch.testing.assert_close(getattr(found.measured, name), getattr(alone.measured, name))
    # each trajectory has a random gradient of its own
    torch.testing.assert_close(found.measured.gradient, alone.measured.gradient, rtol=0.05, atol=0.05)
    torch.testing.assert_close(found.measured.gradient_share, alone.measured.gradient_share)
    torch.testing.assert_close(found.measured.parts.rates, alone.measured.parts.rates)
    none = lt.diagnose(cell, inputs[:, :1], h0=h0[:1])
    assert "every direction dies" in words(none)["verdict"]
    assert "deaths" not in words(none)
    assert not any(suggestion.title.startswith("Floss") for suggestion in none.suggestions)


def test_squares_that_overflow_are_no_overflow():
    cell = linear(2.45 * rotation(8))
    inputs = noise(120)
    found = lt.diagnose(cell, inputs)
    assert found.measured.overflow == overflows_after(cell, inputs)
    # e^88.7 is the end of float32, and a square of it is reached at half the time
    assert 90 < found.measured.overflow <= 99
    large = lt.diagnose(linear(rotation(8)), noise(), h0=torch.full((3, 8), 1e30))
    assert (large.verdict, large.measured.overflow) == ("healthy", None)
    assert abs(large.measured.swelling) < 1e-3


def test_equal_trajectories_are_no_further_samples():
    cell = lt.RateCell(1, 30, gain=1.5, generator=seeded(3))
    inputs = noise(300, 1)
    alone = lt.diagnose(cell, inputs, k=2)
    copies = lt.diagnose(cell, inputs.expand(-1, 20, -1), k=2)
    torch.testing.assert_close(copies.measured.error, alone.measured.error, rtol=1e-3, atol=1e-6)


def test_independent_trajectories_are_further_samples():
    """Means of white growth: of b trajectories the error is that of one over sqrt b."""
    inputs = torch.randn(400, 64, 1, generator=seeded())

    def step(x: Tensor, h: Tensor) -> Tensor:
        return h * torch.exp(0.3 * x - 0.1)

    one, many = (
        lt.diagnose(step, inputs[:, :b], h0=torch.full((b, 1), 1e10), tangent_transient=0).measured
        for b in (1, 64)
    )
    # 0.3 / sqrt(400) = .015; from some 20 batches an error is known to 16%
    assert one.error[0].item() == pytest.approx(0.015, rel=0.35)
    assert many.error[0].item() == pytest.approx(0.015 / 8, rel=0.35)
    assert abs(many.lambda1 + 0.1) < 3 * many.error[0].item()


def register(x: Tensor, h: Tensor) -> Tensor:
    """Four places of a shift register fed by the input, a sum that reads the last, and a shut unit."""
    places = torch.cat([x, h[..., :3]], -1)
    total = torch.tanh(0.95 * h[..., 4:5] + h[..., 3:4])
    return torch.cat([places, total, 0.0 * h[..., 5:] + 1e-4 * x], -1)


def test_places_of_a_shift_register_are_not_dead():
    found = lt.diagnose(register, noise(), h0=torch.zeros(3, 6))
    assert found.measured.finite.tolist() == [True] * 4 + [False] * 2
    assert "1 of 6 units are dead" in words(found)["silence"]
    assert "(units 5)" in words(found)["silence"]
    assert words(found)["registers"].startswith("4 of 6 variables only hand on what they take up")
    assert "-inf (4 of the 6 measured ones)" in words(found)["registers"]


@pytest.mark.parametrize(
    ("W", "finite"),
    [
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [True, True, True]),  # a delay line; the last is only read
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], [False, False, False]),  # a ring comes back
        ([[0.5, 0, 0], [1, 0, 0], [0, 1, 0]], [False, True, True]),  # delays of a unit that remembers
        ([[0.5, 0, 0], [0.7, 0, 0], [0, 0, 0.9]], [False, False, False]),  # one that nobody listens to
    ],
)
def test_what_is_of_finite_memory(W, finite):
    cell = linear(torch.tensor(W, dtype=torch.float32))
    cell.weight_ih.data[:] = torch.eye(3)[:, :1]
    assert lt.diagnose(cell, noise()).measured.finite.tolist() == finite


@pytest.mark.parametrize(
    "network",
    [
        lt.Flow(lambda x, h: -5 * h + 0 * x.sum(-1, keepdim=True), dt=0.1),
        lambda x, h: 0.1 * h + 0 * x,
        lt.cells.S4DCell(1, 2, 2),
        lt.LSTMCell(1, 8),
        lt.ResidualCell(1, 8, residual=lt.residuals.decay(0.5)),
    ],
    ids=["flow", "function", "state space", "gated", "residual"],
)
def test_a_residual_connection_is_advised_to_plain_layers_only(network):
    h0 = None if isinstance(network, lt.Cell) and network.state_size else torch.ones(3, 4)
    found = lt.diagnose(network, noise(), h0=h0, horizon=50_000)
    assert found.verdict == "vanishing"
    assert "Add a residual connection" not in titles(found)
    assert any(title.startswith("Floss") for title in titles(found)) == bool(
        isinstance(network, nn.Module) and list(network.parameters())
    )


def test_all_advice_can_be_followed():
    """Each line that is printed runs, with what the user gave `diagnose` and no more."""
    for network, h0 in (
        (lambda x, h: torch.tanh(3 * h @ nn.init.orthogonal_(torch.empty(5, 5), generator=seeded())), True),
        (lt.RateCell(1, 20, gain=3.0, generator=seeded()), True),
        (nn.RNN(1, 8), False),
    ):
        n = 5 if not isinstance(network, nn.Module) else getattr(network, "state_size", 8)
        given = {"h0": 0.1 * torch.ones(3, n)} if h0 else {}
        found = lt.diagnose(network, noise(40), horizon=400, **given)
        assert found.suggestions
        for suggestion in found.suggestions:
            code = suggestion.code.replace("epochs=500", "epochs=1")
            exec(code, {"lt": lt, "torch": torch, "network": network, "inputs": noise(40), **given})
            network = network.float() if isinstance(network, nn.Module) else network


def test_the_default_device_changes_nothing():
    cell, inputs = lt.RateCell(1, 6, gain=0.5), noise(60, 2)
    here = lt.diagnose(cell, inputs)
    with torch.device("meta"):
        there = lt.diagnose(cell, inputs)
    assert str(there) == str(here)
    assert torch.equal(there.measured.exponents, here.measured.exponents)


def newton(cell: lt.RateCell, inputs: Tensor) -> int:
    """How many Newton iterations over all steps at once find the orbit from 0: t, but for round-off."""
    form = cell.form()
    drive, orbit = form.drive(inputs), unroll(cell, inputs, torch.zeros(1, cell.state_size).to(inputs))
    guess = torch.zeros_like(orbit)
    for iteration in range(1, len(inputs) + 1):
        before = torch.cat([torch.zeros_like(guess[:1]), guess[:-1]])
        D, after = form.jacobian(drive, before)[:, 0], form.step(drive, before)[:, 0]
        # h_{s+1} = f(g_s) + D_s (h_s - g_s): linear in h, which a scan solves side by side
        h, found = torch.zeros_like(after[0]), []
        for s in range(len(inputs)):
            h = after[s] + D[s] @ (h - before[s, 0])
            found.append(h)
        guess = torch.stack(found).unsqueeze(1)
        if (guess - orbit).abs().max() < 1e-6:
            return iteration
    return len(inputs) + 1


@pytest.mark.parametrize(("gain", "word"), [(0.9, "possible"), (3.0, "not useful")])
def test_what_it_says_of_evaluation_in_parallel_holds(gain, word):
    cell, inputs = lt.RateCell(1, 30, gain=gain, generator=seeded()).double(), noise(b=1).double()
    with torch.no_grad():
        short, long = newton(cell, inputs[:40]), newton(cell, inputs)
    assert words(lt.diagnose(cell, inputs, k=4))["parallel"].startswith(f"Parallel over time: {word}.")
    assert long <= short + 2 < 15 if word == "possible" else long > 2 * short > 30


def without_error(found, **more):
    """The same measurements, of a run that tells nothing of the error of its exponents."""
    return replace(found.measured, error=torch.full_like(found.measured.error, math.inf), **more)


def said(measured):
    return {finding.name: finding.text for finding in findings(measured)}


def test_a_network_whose_growth_has_no_error_still_gets_its_verdict():
    """Its first exponents are nearly equal, and the frame turns for as long as the run lasts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network, inputs = nn.GRU(3, 16, num_layers=2), torch.randn(60, 1, 3)
    found = lt.diagnose(network, inputs, k=4)
    assert math.isinf(found.measured.error[0])
    assert found.verdict == "vanishing"
    assert "±" not in found.findings[0].text
    least, most = between(found.measured)
    assert least < found.measured.lambda1 < most < 0
    assert "λ₁ has no error" in words(found)["reliability"]
    assert (
        f"4 equal stretches of the run, in every trajectory, it was between {least:+.3g} and {most:+.3g}"
        in (words(found)["reliability"])
    )
    assert "Measure longer" not in titles(found)
    assert "Start by mixing" in titles(found)
    assert words(found)["parallel"].startswith("Parallel over time: possible.")
    assert words(found)["explosion"].startswith("Risk of explosion: low")


def test_without_an_error_the_stretches_of_all_trajectories_decide():
    cell, inputs = lt.RateCell(1, 12, gain=1.7, generator=seeded(1)), noise(44)
    found = lt.diagnose(cell, inputs, k=2, tangent_transient=4)
    log_r, first = found.measured.spectrum.growth.log_r[..., 0], found.measured.lambda1
    rates = torch.unflatten(log_r, 0, (4, -1)).mean(1)
    assert len(log_r) == 40
    assert between(without_error(found)) == pytest.approx((rates.min().item(), rates.max().item()))
    # some stretches gain, so that there is a doubt, and the words have it
    assert rates.min() < 0 < rates.max()
    assert unsettled(without_error(found))
    assert said(without_error(found))["parallel"].startswith(
        "Parallel over time: not known, on so few independent"
    )
    assert "the run is too short to be sure" in said(without_error(found))["reliability"]
    # stretches are those of the horizon, where that is shorter
    short = without_error(found, horizon=5)
    rates = torch.unflatten(log_r, 0, (8, -1)).mean(1)
    assert between(short) == pytest.approx((rates.min().item(), rates.max().item()))
    # with an error nothing has changed
    error = 2 * found.measured.error[0].item()
    assert between(found.measured) == pytest.approx((first - error, first + error))


def test_without_an_error_nothing_is_foretold_beyond_the_run():
    lost = lt.diagnose(linear(0.9 * rotation(2)), noise(44), tangent_transient=4)
    # 40 steps lose 4.2 nats: a thousandth is left after 66, which were not seen
    assert not unsettled(without_error(lost, horizon=40))
    assert unsettled(without_error(lost, horizon=100))
    assert not unsettled(replace(lost.measured, horizon=100))
    # but what is gone within the run is gone after more steps, too
    gone = lt.diagnose(linear(0.8 * rotation(2)), noise(44), tangent_transient=4)
    assert not unsettled(without_error(gone, horizon=100))
    # three steps are too few to compare with each other, and a flow's steps may be too long to tell
    few = lt.diagnose(linear(0.1 * rotation(2)), noise(4), tangent_transient=1)
    assert between(without_error(few)) == (-math.inf, math.inf)
    coarse = torch.full_like(gone.measured.spectrum.exponents, math.inf)
    spectrum = replace(gone.measured.spectrum, discretisation=coarse)
    assert unsettled(without_error(gone, spectrum=spectrum))


def test_without_an_error_a_trajectory_counts_to_its_own_end():
    inputs = noise(44)
    found = lt.diagnose(linear(0.8 * rotation(2)), inputs, lengths=[44, 44, 9], tangent_transient=4)
    assert between(without_error(found)) == pytest.approx((math.log(0.8),) * 2, abs=1e-5)


def test_an_exponent_without_an_error_is_not_drawn_as_exact():
    cell = lt.RateCell(1, 12, gain=1.7, generator=seeded(1))
    found = lt.diagnose(cell, noise(44), k=2, tangent_transient=4)
    for measured, expected in ((found.measured, 0), (without_error(found), 2)):
        figure = replace(found, measured=measured).plot()
        crosses = [line for line in figure.axes[0].lines if line.get_label() == "error not known"]
        assert sum(len(line.get_xdata()) for line in crosses) == expected


def test_only_networks_with_gates_are_told_of_them():
    for network, told in ((torch.nn.RNN(1, 16), False), (torch.nn.GRU(1, 16), True)):
        found = lt.diagnose(network, noise(), horizon=30)
        reasons = [s.reason for s in found.suggestions if s.title == "Start by mixing"]
        assert all(("gate" in reason) == told for reason in reasons)
        assert reasons


def test_a_target_below_zero_makes_evaluation_in_parallel_possible():
    cell = linear(rotation(4))
    assert words(lt.diagnose(cell, noise()))["parallel"].startswith("Parallel over time: not known, λ₁ is 0")
    cell.weight_hh.data *= 1.02
    assert "flossing with target < 0 makes it possible" in words(lt.diagnose(cell, noise()))["parallel"]
    lt.floss(cell, noise(), target=-0.05, epochs=20, lr=5e-3)
    assert words(lt.diagnose(cell, noise()))["parallel"].startswith("Parallel over time: possible.")


def test_numbers_without_tangents_are_no_units():
    cell = lt.RateCell(1, 3, gain=0.5).double()
    x, h0 = torch.randn(120, 1, 1, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)

    def told(step, h0, **settings):
        found = lt.diagnose(step, x, h0=h0, horizon=10, k=2, **settings)
        numbers = {
            name: z.values for name, z in found.record().variables.items() if z.values.dtype.kind in "fb"
        }
        return str(found), {**numbers, "swelling": found.measured.swelling}

    for settings in ({}, {"groups": {"left": slice(0, 1), "right": slice(1, None)}}):
        alone, expected = told(lambda now, h: cell.step(now, h), h0, **settings)
        counting = (h0, torch.zeros(1, 1, dtype=torch.int64))
        said, numbers = told(lambda now, s: (cell.step(now, s[0]), s[1] + 1), counting, **settings)
        assert said == alone
        # capacities are sums over 4 000 states; all else is the same but for round-off
        for name, values in expected.items():
            np.testing.assert_allclose(numbers[name], values, rtol=1e-8, atol=1e-12, err_msg=name)
    with pytest.raises(ValueError, match=r"group 'count' must be .* within 0\.\.2, got \[3\]"):
        told(lambda now, s: (cell.step(now, s[0]), s[1] + 1), counting, groups={"count": [3]})
