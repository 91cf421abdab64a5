"""Answers at the last step, test scores, grids of learning rates, and members that overflow."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch import FitPhase, residuals
from lyaptorch.analysis.training_curves import best_so_far, iterations_to
from lyaptorch.tasks import Adding, Batch
from lyaptorch.tasks.batch import Draw, last_step

N, ROWS = 12, 8
SAME = torch.zeros(3, dtype=torch.int64)


def adder(ensemble=(), *, member_ids=None, residual=None, **kw):
    cell = lt.ResidualCell(2, N, residual=residual, coupling=0.1, ensemble=ensemble, member_ids=member_ids)
    readout = lt.Readout(N, 1, scale=0.1, ensemble=ensemble, member_ids=member_ids)
    return lt.Model(cell, readout, loss="root_mean_square", **kw)


def fit(model, epochs=4, *, steps=10, **kw):
    return lt.train(model, Adding(steps), (FitPhase(epochs),), batch=ROWS, clip=None, **kw)


def classes(z, labels):
    return last_step(torch.zeros(5, *z.shape[:-1], 1), labels.unsqueeze(-1).to(z.dtype))


class Says(nn.Module):
    """A readout that answers the same whatever the state."""

    def __init__(self, answers):
        super().__init__()
        self.answers = nn.Parameter(answers)

    def forward(self, h):
        return self.answers.expand(*h.shape[:-1], -1)


@pytest.mark.parametrize("ensemble", [(), (3,)])
def test_cross_entropy_is_torchs_and_accuracy_the_share_of_right_classes(double, ensemble):
    z, labels = torch.randn(*ensemble, ROWS, 4), torch.randint(4, (*ensemble, ROWS))
    model = lt.Model(lt.RateCell(1, 3, ensemble=ensemble), Says(z), loss="cross_entropy")
    loss, right = model.loss(classes(z, labels))
    each = nn.functional.cross_entropy(z.movedim(-1, 1), labels, reduction="none") if ensemble else None
    if each is None:
        each = nn.functional.cross_entropy(z, labels, reduction="none")
    torch.testing.assert_close(loss, each.mean(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(right, (z.argmax(-1) == labels).double().mean(-1), rtol=0, atol=1e-15)


def test_a_class_beyond_the_outputs_is_refused():
    model = lt.Model(lt.RateCell(1, 3), lt.Readout(3, 4), loss="cross_entropy")
    with pytest.raises(ValueError, match=r"a whole number in 0\.\.3, got 1 targets from 0 to 4"):
        model.loss(classes(torch.zeros(2, 4), torch.tensor([0, 4])))
    with pytest.raises(ValueError, match=r"got 2 targets from 0 to 0"):
        model.loss(last_step(torch.zeros(5, 2, 1), torch.zeros(2, 2)))


def test_the_root_mean_square_is_the_root_of_the_mean_square(double):
    batch = Adding(6).draw(Draw(0, 6, 50, member_ids=torch.arange(3), dtype=torch.float64))
    model = adder((3,))
    outputs = model(batch.inputs)[-1]
    loss, explained = model.loss(batch)
    mse = (outputs - batch.targets[-1]).square().mean((-2, -1))
    torch.testing.assert_close(loss, mse.sqrt(), rtol=1e-12, atol=0)
    variance = batch.targets[-1].var((-2, -1), correction=0)
    torch.testing.assert_close(explained, 1 - mse.detach() / variance, rtol=1e-10, atol=0)


def test_a_perfect_answer_has_a_finite_gradient():
    model = lt.Model(lt.RateCell(1, 3), Says(torch.ones(1)), loss="root_mean_square")
    loss, _ = model.loss(last_step(torch.zeros(5, 2, 1), torch.ones(2, 1)))
    loss.backward()
    assert loss < 1e-10
    assert model.readout.answers.grad == 0


def test_only_steps_that_count_are_read_out():
    read = []
    model, target = adder(), torch.zeros(9, ROWS, 1)
    # with a hook a readout is called, and not computed with the loss
    model.readout.register_forward_hook(lambda module, given, out: read.append(len(given[0])))
    for counts in ([8], [3, 5, 8], [0]):
        mask = torch.zeros(9, dtype=torch.bool)
        mask[counts] = True
        model.loss(Batch(torch.randn(9, ROWS, 2), target, mask))
    assert read == [1, 6, 9]


def test_test_scores_are_those_of_evaluate_on_batches_that_training_never_sees():
    model, fresh = adder((2,)), adder((2,))
    record = fit(model, 5, metrics=("test",), metrics_every=2, test_batches=3, lr=0.1)
    assert record["test_accuracy"].shape == record["test_loss"].shape == (2, 3)
    for place, epochs in ((0, 0), (2, 4)):
        trained = adder((2,))
        fit(trained, epochs, lr=0.1)
        scores = lt.evaluate(trained, Adding(10), batch=ROWS, batches=3)
        np.testing.assert_allclose(record["test_loss"][:, place], scores["loss"], rtol=1e-5)
        np.testing.assert_allclose(
            record["test_accuracy"][:, place], scores["accuracy"], rtol=1e-4, atol=1e-5
        )
    task, ids = Adding(10), torch.arange(2)
    seen, held_out = (
        task.draw(Draw(0, 10, 4, member_ids=ids, stream=stream)).inputs for stream in ("task", "test")
    )
    assert not torch.equal(seen, held_out)
    assert not torch.equal(model.cell.weight_hh, fresh.cell.weight_hh)


def test_scores_come_from_the_test_stream_alone(monkeypatch):
    drawn, draw = [], Adding.draw
    monkeypatch.setattr(Adding, "draw", lambda self, d: drawn.append(d.stream) or draw(self, d))
    lt.evaluate(adder(), Adding(10), batch=ROWS, batches=3)
    assert drawn == ["test"] * 3


def test_a_grid_of_learning_rates_is_a_dimension_of_the_ensemble(double):
    rates = torch.tensor([1e-3, 1e-2, 0.1])
    together = fit(adder((3,), member_ids=SAME), lr=rates, member_ids=SAME, optimizer=lt.SGD(momentum=0.9))
    assert len(np.unique(together["loss"][:, 0])) == 1
    assert len(np.unique(together["loss"][:, -1])) == 3
    for i, rate in enumerate(rates.tolist()):
        alone = fit(adder(member_ids=0), lr=rate, member_ids=0, optimizer=lt.SGD(momentum=0.9))
        np.testing.assert_allclose(together["loss"][i], alone["loss"][0], rtol=1e-10)


def test_a_task_with_a_length_needs_none():
    assert fit(adder(), 1, steps=17).config["steps"] == 17
    with pytest.raises(ValueError, match=r"length must be 10, that of the task, got 300"):
        lt.train(adder(), Adding(10), (FitPhase(1),), steps=300)


EXPLODING = residuals.decay(torch.tensor([[1.0], [3.0], [1.0]]).expand(3, N))


def test_an_overflow_names_epoch_member_and_step():
    # 3^80 is the largest power of 3 that float32 holds; the coupling delays it by a step or two
    with pytest.raises(
        FloatingPointError, match=r"epoch 0 for member \[1\], its state overflows at step 8\d"
    ):
        fit(adder((3,), residual=EXPLODING), steps=100)


def test_a_member_that_overflows_is_marked_and_the_others_go_on(double):
    decay = residuals.decay(torch.tensor([[1.0], [700.0], [1.0]]).expand(3, N))
    record = fit(adder((3,), residual=decay), steps=120, unstable="mark")
    assert record["unstable_at"].tolist()[1] == 0
    assert np.isnan(record["unstable_at"][[0, 2]]).all()
    # 700^108.4 is the largest float64
    assert 107 <= record["overflow_step"][1] <= 111
    assert np.isnan(record["loss"][1]).all()
    calm = fit(adder((3,)), steps=120)
    np.testing.assert_allclose(record["loss"][[0, 2]], calm["loss"][[0, 2]], rtol=1e-10)
    assert "unstable_at" not in calm


def test_a_member_that_becomes_unstable_keeps_its_history_and_its_last_numbers(double):
    # its first step is so large that the next loss overflows
    rates, models = torch.tensor([0.01, 1e200, 0.01]), [adder((3,)) for _ in range(2)]
    linear = [lt.Model(m.cell, m.readout, loss="mean_squared_error") for m in models]
    record = fit(linear[0], 6, lr=rates, unstable="mark", optimizer=lt.SGD())
    at = record["unstable_at"]
    assert at[1] >= 1
    assert np.isnan(at[[0, 2]]).all()
    assert np.isfinite(record["loss"][1]).sum() == at[1]
    fit(linear[1], int(at[1]), lr=rates, optimizer=lt.SGD())
    for p, q in zip(*(m.parameters() for m in linear), strict=True):
        assert torch.equal(p[1], q[1])


def test_when_all_are_unstable_the_run_ends():
    decay = residuals.decay(5.0)
    record = fit(adder((2,), residual=decay), steps=100, unstable="mark")
    assert record["unstable_at"].tolist() == [0, 0]
    assert record["loss"].shape == (2, 0)


def test_a_marked_run_resumes_with_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["lyaptorch.training.run"], "CHECKPOINT_SECONDS", 0.0)
    kw = {"steps": 100, "unstable": "mark"}
    whole = fit(adder((3,), residual=EXPLODING), **kw)
    draw, calls = Adding.draw, []

    def killed(self, *a, **kw):
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("killed")
        return draw(self, *a, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(Adding, "draw", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fit(adder((3,), residual=EXPLODING), **kw, checkpoint=tmp_path / "run")
    resumed = fit(adder((3,), residual=EXPLODING), **kw, checkpoint=tmp_path / "run")
    assert resumed["unstable_at"].tolist()[1] == 0
    np.testing.assert_array_equal(resumed["loss"], whole["loss"])


def record_of(scores, name="test_accuracy"):
    scores = np.asarray(scores, dtype=float)
    at = np.broadcast_to(100.0 * np.arange(scores.shape[1]), scores.shape)
    dims = ("member", "measurement")
    return lt.Record("train", {}, {"measured_at": (dims, at), name: (dims, scores)})


def test_the_best_score_so_far_and_when_a_threshold_was_reached():
    record = record_of([[0.1, 0.6, 0.5], [0.1, 0.2, 0.3], [math.nan, 0.7, math.nan]])
    np.testing.assert_array_equal(
        best_so_far(record), [[0.1, 0.6, 0.6], [0.1, 0.2, 0.3], [math.nan, 0.7, 0.7]]
    )
    np.testing.assert_array_equal(iterations_to(record, 0.5), [100, math.nan, 100])


def test_of_a_loss_the_best_is_the_smallest():
    record = record_of([[0.5, 0.2, 0.4], [0.5, 0.4, 0.31]], name="test_loss")
    np.testing.assert_array_equal(best_so_far(record, "test_loss"), [[0.5, 0.2, 0.2], [0.5, 0.4, 0.31]])
    np.testing.assert_array_equal(iterations_to(record, 0.3, "test_loss"), [100, math.nan])


def test_bad_settings():
    with pytest.raises(ValueError, match=r"unknown unstable 'ignore'"):
        fit(adder(), unstable="ignore")
    with pytest.raises(ValueError, match=r"test_batches must be an integer >= 1, got 0"):
        fit(adder(), test_batches=0)
