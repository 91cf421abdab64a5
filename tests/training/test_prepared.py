"""Training by prepared steps is, to the bit, training by autograd."""

import copy

import pytest
import torch
from torch import nn

import lyaptorch as lt
from fused import compiled
from lyaptorch.cells import LeakyReadout
from lyaptorch.training.ensemble import Ensemble
from lyaptorch.training.optim import SGD
from lyaptorch.training.prepared import PreparedLoss

pytestmark = compiled

TASK = lt.tasks.TemporalXOR(4)


def rate(**kw):
    return lt.presets.gf2023(TASK, hidden_size=9, rows=4, **kw)


def elman(ensemble=()):
    cell = lt.ElmanCell(1, 9, ensemble=ensemble)
    return lt.Model(cell, lt.Readout(9, 1, ensemble=ensemble))


def residual(ensemble=()):
    cell = lt.ResidualCell(1, 8, ensemble=ensemble)
    return lt.Model(cell, lt.Readout(8, 1, ensemble=ensemble))


def lif(ensemble=()):
    cell = lt.LIFCell(1, 9, gain=2.0, threshold=0.3, ensemble=ensemble)
    return lt.Model(cell, LeakyReadout(cell, 1))


def frozen():
    model = rate()
    model.h0.requires_grad_(False)
    model.readout.weight.requires_grad_(False)
    return model


def one_row():
    return lt.presets.gf2023(TASK, hidden_size=9, rows=1)


def linear():
    cell = lt.RateCell(1, 9)
    return lt.Model(cell, nn.Linear(9, 1))


def sharp():
    cell = lt.BinaryCell(1, 9, sharpness=nn.Parameter(torch.ones(2, 1, 1)), ensemble=(2,))
    return lt.Model(cell, lt.Readout(9, 1, ensemble=(2,)))


def tied():
    model = elman()
    model.cell.bias_hh = model.cell.bias_ih
    return model


@pytest.fixture
def answers(monkeypatch):
    """What prepared losses answered, each time one was asked."""
    answers, of = [], PreparedLoss.of
    monkeypatch.setattr(PreparedLoss, "of", lambda self, b: answers.append(of(self, b)) or answers[-1])
    return answers


def by_autograd(monkeypatch, *args, **kw):
    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "differentiated", lambda self, batch: None)
        return lt.train(*args, **kw)


def same(model, other, record, expected):
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for name in ("loss", "accuracy", "gradient_norm"):
        assert (record[name] == expected[name]).all()


@pytest.mark.parametrize(
    ("made", "prepared"),
    [
        (rate, True),
        (lambda: rate(ensemble=(3,)), True),
        (lambda: rate(ensemble=(2, 2)), True),
        (elman, True),
        (lambda: elman((3,)), True),
        (residual, True),
        (lif, True),
        (frozen, True),
        (one_row, False),
        (linear, False),
        (sharp, False),
        (tied, False),
    ],
)
def test_the_same_as_by_autograd(made, prepared, answers, monkeypatch):
    model, other = made(), made()
    other, phases = (
        copy.deepcopy(model),
        (lt.FitPhase(3), lt.FlossPhase(1, steps=4, k=2, tangent_transient=0), lt.FitPhase(3)),
    )
    how = {"batch": 4, "steps": 12, "show_progress": False}
    expected = by_autograd(monkeypatch, other, TASK, phases, **how)
    record = lt.train(model, TASK, phases, **how)
    same(model, other, record, expected)
    assert [answer is not None for answer in answers] == 6 * [prepared]


def test_classes_and_masks_that_change(answers, monkeypatch):
    class Shifting(lt.tasks.OneHotXOR):
        """Counts from another step in each epoch."""

        def draw(self, d):
            drawn = super().draw(d)
            mask = drawn.mask.clone()
            mask[: 3 + int(d.epoch)] = False
            return lt.Batch(drawn.inputs, drawn.targets, mask)

    task = Shifting(2)
    model = lt.presets.gf2023(task, hidden_size=9, rows=4)
    other, how = copy.deepcopy(model), {"batch": 4, "steps": 12, "show_progress": False}
    how |= {"optimizer": SGD(0.9), "clip": 0.1}
    expected = by_autograd(monkeypatch, other, task, (lt.FitPhase(5),), **how)
    record = lt.train(model, task, (lt.FitPhase(5),), **how)
    same(model, other, record, expected)
    assert all(answer is not None for answer in answers)


def answer(model, batch):
    return PreparedLoss(model, [p for p in model.parameters() if p.requires_grad]).of(batch)


def test_what_has_a_life_of_its_own_is_left_to_autograd(monkeypatch):
    class Own(lt.Model):
        def loss(self, batch, h0=None):
            return super().loss(batch, h0)

    batch = TASK.draw(lt.tasks.Draw(0, 12, 4, member_ids=torch.zeros((), dtype=torch.int64)))
    model = rate()
    assert answer(model, batch) is not None
    assert answer(Own(model.cell, model.readout, h0=model.h0), batch) is None
    hook = model.cell.weight_hh.register_hook(lambda g: 2 * g)
    assert answer(model, batch) is None
    hook.remove()
    hook = model.readout.register_forward_hook(lambda *a: None)
    assert answer(model, batch) is None
    hook.remove()
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert answer(model, batch) is None


def test_what_moves_is_found_again():
    model, batch = rate(), TASK.draw(lt.tasks.Draw(0, 12, 4))
    parameters = list(model.parameters())
    prepared = PreparedLoss(model, parameters)
    before = prepared.of(batch).loss.clone()
    with torch.no_grad():
        model.cell.weight_hh.mul_(0.5)
    halved = prepared.of(batch).loss.clone()
    assert halved != before
    assert torch.equal(halved, model.loss(batch)[0].detach())
    model.cell.weight_hh.data = 2 * model.cell.weight_hh.data
    assert torch.equal(prepared.of(batch).loss, before)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn", "threshold"])
@pytest.mark.parametrize("ensemble", [(), (2,)])
def test_neurons_are_prepared_once_and_changed_constants_are_taken(name, ensemble):
    ids = torch.arange(2) if ensemble else torch.tensor(0)
    model, batch = lif(ensemble), TASK.draw(lt.tasks.Draw(0, 12, 4, member_ids=ids))
    own = PreparedLoss(model, list(model.parameters()))
    before = own.of(batch).loss.clone()
    prepared = own._prepared
    getattr(model.cell, name).mul_(0.5)
    found = own.of(batch)
    assert own._prepared is prepared
    assert (found.loss != before).all()
    loss, _ = model.loss(batch)
    assert torch.equal(found.loss, loss.detach())
    expected = torch.autograd.grad(loss.sum(), own.parameters)
    assert all(torch.equal(g, e) for g, e in zip(found.gradients, expected, strict=True))


def test_inputs_that_are_not_finite_are_named():
    model, batch = rate(), TASK.draw(lt.tasks.Draw(0, 12, 4))
    prepared = PreparedLoss(model, list(model.parameters()))
    prepared.of(batch)
    inputs = batch.inputs.clone()
    inputs[3, 0] = torch.inf
    with pytest.raises(ValueError, match="inputs must be finite, got inf at index"):
        prepared.of(lt.Batch(inputs, batch.targets, batch.mask))
