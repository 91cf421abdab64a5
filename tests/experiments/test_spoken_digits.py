"""The figure that learns spoken digits, and the starts it compares."""

import numpy as np
import pytest
import torch

from lyaptorch.experiments import FIGURES
from lyaptorch.experiments.beyond import sequence_starts
from lyaptorch.experiments.beyond.digit_tasks import Tones
from lyaptorch.experiments.beyond.sequence_starts import (
    BY_NAME,
    STARTS,
    UNFLOSSED,
    Start,
    started,
)
from lyaptorch.experiments.beyond.spoken import ADVISED, ONLY
from lyaptorch.experiments.check import HOLDS, UNDECIDED
from lyaptorch.experiments.figure import Study
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase
from lyaptorch.training import Model, Readout
from lyaptorch.training.choice import RECURRENT

FIGURE = FIGURES["beyond"]["spoken-digits"]
IDS = torch.arange(2)


def test_at_smoke_scale_every_network_is_trained_and_drawn_without_files(tmp_path, monkeypatch):
    monkeypatch.setattr("lyaptorch.tasks.sounds.load", lambda *_: pytest.fail("it looks for files"))
    figure = FIGURE(**FIGURE.scales["smoke"])
    record = figure.record(False)
    final = record["final_accuracy"]
    assert final.shape == (2, len(figure.starts), 1)
    left_out = [name not in ONLY["2 kHz"] for name in figure.starts]
    assert 0 < sum(left_out) < len(left_out)
    assert (np.isnan(final[..., 0]) == [[False] * len(left_out), left_out]).all()
    assert record["test_accuracy"].shape[-1] == record["measured_at"].shape[-1] == 3
    np.testing.assert_array_equal(record["test_accuracy"][..., -1], final)
    flossed = figure.starts.index("GRU, mixing, flossed")
    assert (record["flops"][0, flossed] > record["flops"][0, flossed - 1]).all()
    assert np.nanmin(record["step_seconds"]) > 0
    assert FIGURE.draw(record).savefig(tmp_path / "x.png") is None
    again = Record.load(record.save(tmp_path / "x.nc"))
    assert [c.key for c in figure.checks(again)] == [c.key for c in figure.checks(record)]


def a_record(**scores):
    """Of one task, accuracies of three networks of some starts."""
    names = [name.replace("_", " ").replace("  ", ", ") for name in scores]
    values = np.array([list(scores.values())], dtype=float)
    variables = {"final_accuracy": (("task", "start", "seed"), values)}
    return Record("x", {}, variables, {"task": (("task",), ["frames"]), "start": (("start",), names)})


def outcomes(**scores):
    return {c.key: (c.outcome, c.measured) for c in FIGURE().claims(a_record(**scores))}


def test_a_kind_at_chance_is_rescued_by_what_is_advised_to_it_alone():
    lost, found = [0.1, 0.2, 0.1], [0.7, 0.8, 0.9]
    assert outcomes(GRU=lost, GRU__open=lost, GRU__mixing=found)["frames rescued"] == (
        HOLDS,
        pytest.approx(0.8),
    )
    assert outcomes(GRU=lost, LSTM=found, LSTM__mixing=found)["frames rescued"][0] == UNDECIDED
    assert outcomes(GRU=found, GRU__mixing=found)["frames rescued"][0] == UNDECIDED
    assert outcomes(GRU=lost, GRU__mixing=[0.5, 0.5, 0.6])["frames rescued"][0] not in (HOLDS, UNDECIDED)


def test_differences_are_those_of_twins_and_nothing_is_told_within_their_error_or_at_chance():
    opened = outcomes(GRU=[0.3, 0.2, 0.3], GRU__open=[0.7, 0.7, 0.6])
    assert opened["frames GRU, open GRU"] == (HOLDS, pytest.approx(0.4))
    key = "frames GRU, mixing, flossed GRU, mixing"
    better = outcomes(GRU__mixing=[0.6, 0.4, 0.5], GRU__mixing__flossed=[0.7, 0.52, 0.61])
    assert better[key] == (HOLDS, pytest.approx(0.11))
    assert outcomes(GRU__mixing=[0.6, 0.4, 0.5], GRU__mixing__flossed=[0.5, 0.5, 0.51])[key][0] == UNDECIDED
    assert outcomes(GRU__mixing=[0.1, 0.1, 0.1], GRU__mixing__flossed=[0.2, 0.21, 0.2])[key][0] == UNDECIDED


def test_every_start_that_is_flossed_or_advised_is_there_with_its_twin():
    assert len(BY_NAME) == len(STARTS)
    assert set(UNFLOSSED.values()) <= set(BY_NAME)
    assert {name for names in ADVISED.values() for name in (*names, *ADVISED)} <= set(BY_NAME)
    assert [BY_NAME[name]._replace(flossed=True).name for name in UNFLOSSED.values()] == list(UNFLOSSED)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_open_gates_keep_memories_of_two_steps_to_the_whole_length(kind):
    start = Start(kind, "open")
    plain, opened = (started(s, Tones(), 50, 6, 0.1, Study(), IDS) for s in (start._replace(how=""), start))
    at = 6  # the second gate of both is the one that keeps
    keeps = opened.bias_hh[..., at : at + 6].sigmoid()
    torch.testing.assert_close(1 / (1 - keeps) - 1, torch.linspace(2, 50, 6).expand(2, -1), rtol=1e-4, atol=0)
    others = [i for i in range(opened.bias_hh.shape[-1]) if not at <= i < at + 6]
    assert torch.equal(opened.bias_hh[..., others], plain.bias_hh[..., others])
    assert torch.equal(opened.weight_hh, plain.weight_hh)


def test_a_residual_turns_at_the_frequency_of_the_sound(monkeypatch):
    found = {}
    monkeypatch.setattr(sequence_starts.residuals, "rotation", lambda w: found.setdefault("w", w) and None)
    monkeypatch.setattr(sequence_starts, "ResidualCell", lambda *_, **__: None)
    # tones of 200 to 1100 Hz at 4 kHz, each as strong: the spectrum has one of these peaks
    task = Tones("samples")
    started(Start("residual", "rotation"), task, task.length, 6, 0.1, Study(), IDS)
    tones = 2 * np.pi * np.arange(200, 1200, 100) / 4000
    assert np.abs(tones - found["w"]).min() < 0.05


def test_flossing_changes_recurrent_weights_alone():
    task = Tones()
    cell = started(Start("GRU", "mixing"), task, task.length, 6, 0.1, Study(), IDS)
    model = Model(cell, Readout(6, 10, ensemble=(2,)), loss=task.loss)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    phase = FlossPhase(2, k=3, lr=1e-2, parameters=RECURRENT)
    Study().train(model, task, (phase,), batch=2, member_ids=IDS)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"cell.weight_hh"}
    assert all(p.requires_grad for p in model.parameters())
