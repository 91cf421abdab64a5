"""`lt.diagnose` of sequences of different lengths: trajectories as if alone, padding that never matters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lyaptorch as lt
from lyaptorch._random import Stream
from lyaptorch.cells import unroll
from lyaptorch.diagnosis.blocks import finite_memory
from lyaptorch.diagnosis.trajectories import run
from lyaptorch.diagnosis.trial import Given
from lyaptorch.tasks.batch import Batch

pytestmark = pytest.mark.usefixtures("double")

LENGTHS, TRANSIENT, TANGENT = [60, 25, 41], 4, 5
CELLS = {
    "rate": lambda: lt.RateCell(2, 6, gain=1.2),
    "lstm": lambda: torch.nn.LSTM(2, 4),
    "layers": lambda: torch.nn.GRU(2, 3, num_layers=2),
}


def ragged(padding: float = torch.nan, lengths: list[int] = LENGTHS) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(max(lengths), len(lengths), 2, generator=generator)
    for i, t in enumerate(lengths):
        x[t:, i] = padding
    return x


def packed(lengths: list[int] = LENGTHS) -> PackedSequence:
    return pack_padded_sequence(ragged(0.0, lengths), torch.tensor(lengths), enforce_sorted=False)


def numbers(found: lt.diagnosis.Diagnosis) -> dict[str, Any]:
    """Everything that was measured, but its names."""
    variables = found.variables()[0]
    return {name: value for name, (_, value, *_) in variables.items() if isinstance(value, Tensor)}


def same(a: lt.diagnosis.Diagnosis, b: lt.diagnosis.Diagnosis) -> None:
    assert str(a) == str(b)
    assert a.config.get("lengths") == b.config.get("lengths")
    for name, value in numbers(a).items():
        assert torch.equal(value, numbers(b)[name]), name


@pytest.mark.parametrize("kind", CELLS)
def test_trajectories_count_as_if_each_were_alone(kind):
    """Of exponents, rates, gates, silence, gains and gradients the mean is that of diagnoses one by one."""
    cell, x = CELLS[kind](), ragged()
    waits = {"transient": TRANSIENT, "tangent_transient": TANGENT, "k": 3}
    found = lt.diagnose(cell, x, lengths=LENGTHS, **waits).measured
    alone = [lt.diagnose(cell, x[:t, [i]], **waits).measured for i, t in enumerate(LENGTHS)]

    def close(value: Tensor, of) -> None:
        torch.testing.assert_close(value, torch.stack([of(s) for s in alone]).mean(0), rtol=1e-9, atol=1e-12)

    close(found.spectrum.exponents.mean(0), lambda s: s.spectrum.exponents[0])
    torch.testing.assert_close(
        found.exponents, found.spectrum.exponents.mean(0).sort(descending=True).values, rtol=1e-12, atol=0
    )
    close(found.parts.rates, lambda s: s.parts.rates)
    close(found.parts.silent, lambda s: s.parts.silent)
    close(found.parts.passage.square(), lambda s: s.parts.passage.square())
    for name, values in found.gates.items():
        close(values, lambda s, name=name: s.gates[name])
    assert set(found.gates) == set(alone[0].gates)
    assert found.burst == pytest.approx(max(s.burst for s in alone))
    assert torch.equal(found.finite, alone[0].finite)
    assert found.horizon == max(LENGTHS) - TRANSIENT - TANGENT
    assert found.trajectories == 3


def test_every_gradient_starts_at_its_own_end():
    cell, x = lt.RateCell(2, 6, gain=1.2), ragged()
    found = lt.diagnose(cell, x, lengths=LENGTHS, tangent_transient=TANGENT).measured
    start = Stream(0, "gradient").normal((3, 6), member_ids=torch.zeros((), dtype=torch.int64))
    logs = []
    for i, t in enumerate(LENGTHS):
        states = [torch.zeros(1, 6, requires_grad=True)]
        for u in x[:t, [i]]:
            states.append(cell.step(u, states[-1]))
        bars = torch.autograd.grad(states[-1], states, start[[i]] / start[i].norm())
        logs.append(torch.stack([bar.norm().log() for bar in reversed(bars)]))
    for s in range(max(LENGTHS) + 1):
        long = [log[s] for log, t in zip(logs, LENGTHS, strict=True) if s <= t]
        assert found.gradient[s].item() == pytest.approx(torch.stack(long).mean().item(), abs=1e-9)
    torch.testing.assert_close(found.gradient_share.sum(-1), torch.ones(max(LENGTHS) + 1))


@pytest.mark.parametrize("kind", CELLS)
def test_what_stands_in_the_padding_does_not_matter(kind):
    cell = CELLS[kind]()
    given = {"k": 3, "transient": TRANSIENT, "name": "cell"}
    first = lt.diagnose(cell, ragged(), lengths=LENGTHS, **given)
    longer = torch.cat([ragged(1e300), torch.full((7, 3, 2), -torch.inf)])
    same(first, lt.diagnose(cell, longer, lengths=torch.tensor(LENGTHS), **given))
    other = lt.diagnose(cell, packed(), **given)
    for name, value in numbers(first).items():
        assert torch.equal(value, numbers(other)[name]), name
    assert [f.text for f in first.findings] == [f.text for f in other.findings]


def test_equal_lengths_are_none():
    cell, x = CELLS["lstm"](), ragged(lengths=[40, 40, 40])
    plain = lt.diagnose(cell, x, k=3)
    for other in (
        lt.diagnose(cell, packed([40, 40, 40]), k=3),
        lt.diagnose(cell, x, lengths=[40, 40, 40], k=3),
        lt.diagnose(cell, torch.cat([x, x + torch.nan]), lengths=[40, 40, 40], k=3),
    ):
        for name, value in numbers(plain).items():
            assert torch.equal(value, numbers(other)[name]), name


def test_padding_changes_no_verdict():
    """h' = x h: inputs of 1 keep everything, and zeros, as padding is, kill it."""

    def step(x: Tensor, h: Tensor) -> Tensor:
        return x[:, :1] * h

    x, lengths = torch.ones(200, 3, 1), [20, 20, 200]
    for i, t in enumerate(lengths):
        x[t:, i] = 0.1
    more = {"h0": torch.ones(3, 2), "tangent_transient": 0}
    assert lt.diagnose(step, x, **more).verdict == "vanishing"
    found = lt.diagnose(step, x, lengths=lengths, **more)
    assert found.verdict != "vanishing"
    assert found.measured.lambda1 == pytest.approx(0.0, abs=1e-12)
    assert found.measured.gradient.abs().max() < 1e-9


def test_an_explosion_in_the_padding_is_nobodys():
    """The state grows by a factor 1e20 a step where x is large."""

    def step(x: Tensor, h: Tensor) -> Tensor:
        return torch.where(x > 5, 1e20, 0.9) * h

    x = torch.ones(100, 2, 1)
    x[30:, 0] = 9.0
    found = lt.diagnose(step, x, h0=torch.ones(2, 2), lengths=[30, 100])
    assert found.measured.overflow is None
    assert found.measured.lambda1 == pytest.approx(math.log(0.9))
    assert lt.diagnose(step, x, h0=torch.ones(2, 2)).measured.overflow is not None
    late = lt.diagnose(step, x.flip(1), h0=torch.ones(2, 2), lengths=[80, 60])
    assert late.measured.overflow == 30 + math.ceil(
        (math.log(1.79e308) - 30 * math.log(0.9)) / math.log(1e20)
    )


def test_one_that_ends_within_the_transients_is_named_and_left_out():
    cell, x = lt.RateCell(2, 6), ragged()
    with pytest.warns(UserWarning, match=r"trajectories \[1\] end within the 30 steps of the transients"):
        found = lt.diagnose(cell, x, lengths=LENGTHS, transient=20, tangent_transient=10)
    left = lt.diagnose(cell, x[:, [0, 2]], lengths=[60, 41], transient=20, tangent_transient=10)
    same(found, left)
    assert found.config["lengths"] == [60, 41]
    with pytest.raises(ValueError, match=r"transient must be an integer in 0\.\.59, got 61"):
        lt.diagnose(cell, ragged(), lengths=LENGTHS, transient=61, tangent_transient=0)


def test_a_refused_call_says_nothing_else():
    with pytest.raises(ValueError, match="horizon must be an integer >= 1, got 0"):
        lt.diagnose(lt.RateCell(2, 6), ragged(), lengths=LENGTHS, transient=30, horizon=0)


def test_one_member_with_lengths():
    single, one = lt.RateCell(2, 6, ensemble=(1,)), lt.RateCell(2, 6)
    for p, q in zip(one.parameters(), single.parameters(), strict=True):
        p.data.copy_(q.data[0])
    x = ragged()
    plain = lt.diagnose(one, x, lengths=LENGTHS, k=2)
    for lengths in (LENGTHS, torch.tensor([LENGTHS])):
        found = lt.diagnose(single, x, lengths=lengths, k=2)
        torch.testing.assert_close(found.measured.exponents, plain.measured.exponents)
        torch.testing.assert_close(found.measured.gradient, plain.measured.gradient)
        torch.testing.assert_close(found.measured.parts.silent, plain.measured.parts.silent)
    with pytest.raises(
        ValueError, match=r"lengths must have shape \(b,\) or \(\*e, b\) with \*e = \(\), got"
    ):
        lt.diagnose(one, x, lengths=torch.tensor([LENGTHS] * 2))


def test_finite_memory_is_sought_in_the_longest():
    """A register whose first place is read back in the padding, and in the longest trajectory, alone."""

    def step(x: Tensor, h: Tensor) -> Tensor:
        return torch.cat([x[:, :1] + x[:, 1:] * h[:, 1:], h[:, :1]], -1)

    x = torch.zeros(30, 2, 2)
    x[5:, :, 1] = torch.tensor([0.0, 0.5])
    h = torch.zeros(2, 2)
    followed = run(lt.as_cell(step), x, h, torch.tensor([5, 30]))
    assert not finite_memory(lt.as_cell(step), followed).any()
    assert finite_memory(lt.as_cell(step), run(lt.as_cell(step), x, h, torch.tensor([30, 5]))).all()


def test_recent_steps_are_those_before_each_end():
    cell, x = lt.RateCell(2, 6), ragged(0.0)
    states = torch.cat([torch.zeros(1, 3, 6), unroll(cell, x, torch.zeros(3, 6))])
    recent = run(cell, x, torch.zeros(3, 6), torch.tensor(LENGTHS)).recent(30)
    assert recent.steps.tolist() == [30, 25, 30]
    assert len(recent.inputs) == 30
    for i, (t, own) in enumerate(zip(LENGTHS, [30, 25, 30], strict=True)):
        assert torch.equal(recent.inputs[:own, i], x[t - own : t, i])
        assert torch.equal(recent.states[: own + 1, i], states[t - own : t + 1, i])
        assert torch.equal(recent.states[-1, i], states[t, i])


def test_moments_go_from_the_first_step_to_the_last():
    cell, x = lt.RateCell(2, 6), ragged(0.0)
    x[..., 0] = torch.arange(60.0).unsqueeze(-1)
    seen = [
        (u[:, 0], there)
        for u, _, there in run(cell, x, torch.zeros(3, 6), torch.tensor([60, 3, 10])).moments(4)
    ]
    assert [[int(u[i]) for u, there in seen if there[i]] for i in range(3)] == [
        [0, 20, 39, 59],
        [0, 1, 2],
        [0, 3, 6, 9],
    ]


@pytest.mark.parametrize("given", ["lengths", "packed"])
@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_what_is_advised_runs_on_such_sequences(given, gain):
    """Every suggestion of a diagnosis runs as it is printed, and the sequences stay what they are."""
    torch.manual_seed(1)
    cell = lt.RateCell(2, 24, gain=gain).float()
    x, lengths = ragged(0.0, [30, 9, 17]).float(), [30, 9, 17]
    inputs = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False) if given == "packed" else x
    more = {"lengths": torch.tensor(lengths)} if given == "lengths" else {}
    found = lt.diagnose(cell, inputs, name="cell", tangent_transient=2, **more)
    titles = [suggestion.title.split(" k =")[0] for suggestion in found.suggestions]
    assert "Floss" in titles
    for suggestion in found.suggestions:
        scope = {"lt": lt, "torch": torch, "cell": cell, "inputs": inputs, **more}
        exec(suggestion.code.replace("epochs=500", "epochs=1"), scope)
        if "chunks" in scope:
            assert torch.stack(scope["chunk_lengths"]).sum(0).tolist() == lengths
            assert len(scope["chunks"]) == len(scope["chunk_lengths"])
        if "Floss" in suggestion.title and given == "lengths":
            assert "lengths=lengths" in suggestion.code


@pytest.mark.parametrize("given", ["lengths", "packed"])
def test_measuring_longer_repeats_every_sequence(given, capsys):
    cell, lengths = lt.RateCell(2, 6), torch.tensor(LENGTHS)
    inputs = packed() if given == "packed" else ragged()
    said = Given({"k": "2", "tangent_transient": "0"}, given == "packed", given == "lengths", 3)
    scope = {"lt": lt, "torch": torch, "cell": cell, "inputs": inputs, "lengths": lengths}
    exec(said.longer("cell"), scope)
    four = torch.nn.utils.rnn.pad_sequence([ragged()[:t, i].repeat(4, 1) for i, t in enumerate(LENGTHS)])
    expected = lt.diagnose(cell, four, lengths=4 * lengths, k=2, tangent_transient=0, name="network")
    first = capsys.readouterr().out.split("What to try")[0].strip()
    assert first == str(expected).split("What to try")[0].strip()
    exec(said.stronger(), scope)


SERVED = {
    "lyapunov_spectrum": lambda cell, x: lt.lyapunov_spectrum(cell, x, k=1),
    "diagnose": lambda cell, x: lt.diagnose(cell, x, k=1),
    "floss": lambda cell, x: lt.floss(cell, x, k=1, epochs=1, steps=12, tangent_transient=2),
    "Flosser": lambda cell, x: lt.integrations.Flosser(
        cell,
        x,
        [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(1, k=1, steps=8, tangent_transient=2))],
    ).step(),
}
REFUSED = {
    "covariant_vectors": lambda cell, x: lt.covariant_vectors(cell, x, k=1),
    "depth_spectrum": lambda cell, x: lt.depth_spectrum([torch.nn.Linear(2, 2)], x),
    "step_jacobians": lambda cell, x: lt.analysis.step_jacobians(cell, x),
    "condition_number": lambda cell, x: lt.analysis.condition_number(cell, x),
    "gradient_norms": lambda cell, x: lt.analysis.gradient_norms(cell, x, torch.sum),
    "gradient_overlap": lambda cell, x: lt.analysis.gradient_overlap(cell, x, torch.sum, at=2),
    "hessian_spectrum": lambda cell, x: lt.analysis.hessian_spectrum(cell, x, torch.sum),
    "fading_memory": lambda cell, x: lt.analysis.fading_memory(cell, x),
    "residual_exponents": lambda cell, x: lt.analysis.residual_exponents(
        lt.ResidualCell(2, 6, residual=lt.residuals.decay(0.9), coupling=0.1), x
    ),
    "characteristic_frequency": lambda cell, x: lt.analysis.characteristic_frequency(x),
    "spike_statistics": lambda cell, x: lt.analysis.spike_statistics(lt.LIFCell(2, 3), x),
    "fit": lambda cell, x: lt.cells.fit(cell, x, None),
    "settle": lambda cell, x: lt.cells.settle(cell, x, torch.zeros(2, 6)),
    "unroll": lambda cell, x: lt.cells.unroll(cell, x, torch.zeros(2, 6)),
    "Model": lambda cell, x: lt.Model(cell, lt.Readout(6, 1))(x),
    "Batch": lambda cell, x: Batch(x, torch.zeros(12, 2, 1), torch.ones(12, dtype=torch.bool)),
    "train": lambda cell, x: lt.train(lt.Model(cell, lt.Readout(6, 1)), x, (lt.FitPhase(1),)),
    "evaluate": lambda cell, x: lt.evaluate(lt.Model(cell, lt.Readout(6, 1)), x),
}


@pytest.mark.filterwarnings("ignore:.*too short")
@pytest.mark.parametrize("call", SERVED)
def test_who_takes_a_packed_sequence(call):
    SERVED[call](lt.RateCell(2, 6), packed([12, 9]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("call", REFUSED)
def test_who_refuses_it_says_so(call):
    with pytest.raises(ValueError, match=r"got a PackedSequence.*; (take|pad|call it for each)"):
        REFUSED[call](lt.RateCell(2, 6), packed([12, 9]))
