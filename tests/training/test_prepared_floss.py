"""Flossing by prepared steps is, to the bit, flossing by autograd; and each member has its own interval."""

import copy

import pytest
import torch

import lyaptorch as lt
from fused import compiled
from lyaptorch.training.prepared_floss import PreparedScan, pieces_apart

pytestmark = compiled

TASK = lt.tasks.TemporalXOR(4)
SCAN = {"k": 5, "epochs": 4, "steps": 14, "tangent_transient": 3, "lr": 1e-2, "show_progress": False}


def rate(ensemble=(), **kw):
    return lt.RateCell(1, 9, gain=1.5, ensemble=ensemble, **kw)


def elman(ensemble=()):
    return lt.ElmanCell(1, 9, ensemble=ensemble)


def lif(ensemble=()):
    return lt.LIFCell(1, 6, gain=2.0, threshold=0.3, ensemble=ensemble)


def leaky(ensemble=()):
    return lt.LeakyRateCell(1, 9, leak=0.5, ensemble=ensemble)


def frozen():
    cell = rate((2,))
    cell.weight_ih.requires_grad_(False)
    return cell


def rectified():
    """Of which columns die."""
    cell = lt.RateCell(1, 9, activation="relu")
    with torch.no_grad():
        cell.weight_hh.copy_(torch.eye(9))
        cell.bias.copy_(torch.where(torch.arange(9) < 4, 0.1, -5.0))
    return cell


def tied():
    cell = elman()
    cell.bias_hh = cell.bias_ih
    return cell


@pytest.fixture
def answers(monkeypatch):
    """Whether prepared scans answered, each time one was asked."""
    answers, of = [], PreparedScan.of

    def asked(self, *args):
        found = of(self, *args)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(PreparedScan, "of", asked)
    return answers


def both(monkeypatch, cell, *inputs, **how):
    """Records and weights, by prepared steps and by autograd."""
    other, how = copy.deepcopy(cell), SCAN | how
    found = lt.floss(cell, *inputs, **how)
    with monkeypatch.context() as patch:
        patch.setattr(PreparedScan, "of", lambda self, *args: None)
        expected = lt.floss(other, *inputs, **how)
    return (cell, found), (other, expected)


def same(one, two):
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, two[0].state_dict()[name]), name
    for name in ("exponents", "floss_loss"):
        assert (one[1][name] == two[1][name]).all()


@pytest.mark.parametrize(
    ("made", "how", "prepared"),
    [
        (rate, {}, True),
        (rate, {"interval": 3, "batch": 3, "state_grad": 4}, True),
        (rate, {"frame": "fixed", "state_grad": "detach", "reduction": "sum", "target": -0.3}, True),
        (lambda: rate((3,)), {"interval": 2, "target": torch.tensor([0.0, 0.1, -1.0])[:, None]}, True),
        (lambda: rate((2, 2)), {"interval": 1, "batch": 2, "clip": 0.01}, True),
        (lambda: rate((2,)), {"interval": 2, "k": torch.tensor([2, 5]), "tangent_transient": 0}, True),
        (elman, {"interval": 2}, True),
        (leaky, {"interval": 2}, True),
        (lambda: lt.ResidualCell(1, 8, ensemble=(2,)), {"interval": 2}, True),
        (lif, {"interval": 2, "k": 3}, True),
        (lambda: torch.nn.RNN(1, 9), {"interval": 2}, True),
        (frozen, {"interval": 4, "batch": 2}, True),
        (rectified, {"h0": torch.ones(1, 9), "k": 9, "lr": 1e-4}, True),
        (tied, {}, False),
        (lambda: lt.LSTMCell(1, 5), {}, False),
    ],
)
def test_the_same_as_by_autograd(made, how, prepared, answers, monkeypatch):
    one, two = both(monkeypatch, made(), TASK, **how)
    same(one, two)
    assert answers == 4 * [prepared]
    assert (one[1]["exponents"][0, 0] != one[1]["exponents"][0, -1]).any()


def test_phases_of_a_training(answers, monkeypatch):
    """Weights, initial state and who takes part change in between."""
    some, floss = (
        torch.tensor([True, False, True]),
        {"steps": 14, "k": 4, "tangent_transient": 2, "interval": 2},
    )
    phases = [lt.FlossPhase(2, **floss), lt.FitPhase(2), lt.FlossPhase(2, who=some, **floss)]
    model = lt.presets.gf2023(TASK, hidden_size=9, rows=4, ensemble=(3,))
    other, how = copy.deepcopy(model), {"batch": 4, "steps": 12, "show_progress": False}
    record = lt.train(model, TASK, phases, **how)
    assert answers == 4 * [True]
    monkeypatch.setattr(PreparedScan, "of", lambda self, *args: None)
    expected = lt.train(other, TASK, phases, **how)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for name in ("exponents", "floss_loss", "loss", "floss_flops"):
        assert torch.equal(*(torch.tensor(z[name]).nan_to_num(9.0) for z in (record, expected)))


def flossed(cell, inputs, threads=1):
    """Exponents, weights, and the intervals that were taken."""
    taken, of, before = [], PreparedScan.of, torch.get_num_threads()

    def asked(self, flossing, *args):
        found = of(self, flossing, *args)
        assert found is not None
        taken.append(torch.as_tensor(flossing.taken).expand(flossing.allowed.shape).tolist())
        return found

    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreparedScan, "of", asked)
        record = lt.floss(cell, inputs, **SCAN | {"epochs": 12, "lr": 1e-3})
    torch.set_num_threads(before)
    return taken, [torch.tensor(record["exponents"]), *(p.detach() for p in cell.parameters())]


def test_each_member_has_the_interval_that_it_would_have_alone(double):
    """Whatever the others allow; and whoever computes it, to the bit."""
    cell = lt.RateCell(1, 9, ensemble=(3,))
    with torch.no_grad():
        cell.weight_hh *= torch.tensor([0.3, 1.0, 6.0]).view(3, 1, 1)
    inputs, own = torch.randn(14, 2, 1), copy.deepcopy(cell)
    taken, found = flossed(cell, inputs)
    assert len({tuple(one) for one in zip(*taken, strict=True)}) > 1
    assert all(torch.equal(*z) for z in zip(found, flossed(copy.deepcopy(own), inputs, 3)[1], strict=True))
    for i in range(3):
        one = lt.RateCell(1, 9)
        one.load_state_dict({name: value[i] for name, value in own.state_dict().items()})
        alone, expected = flossed(one, inputs)
        assert alone == [each[i] for each in taken]
        for z, other in zip(found, expected, strict=True):
            torch.testing.assert_close(z[i], other[0] if z is found[0] else other, rtol=0, atol=1e-11)


def test_spans_of_each_member():
    pieces = pieces_apart(5, 14, (2, 5, 20))
    assert pieces.cuts.steps.tolist() == [
        [0, 2, 4, 5, 7, 9, 11, 13, 14],
        [0, 0, 0, 5, 10, 14, 14, 14, 14],
        [0, 0, 0, 5, 14, 14, 14, 14, 14],
    ]
    assert pieces.cuts.twice.tolist() == [
        [0, 0, 1, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0, 0, 0],
    ]
    assert (pieces.uncounted, pieces.counted) == (3, 9)


def test_derivatives_against_plain_autograd(double):
    """Of members whose intervals differ, by one step of no momentum: Adam's first moment is the gradient."""
    cell = lt.RateCell(1, 7, ensemble=(2,))
    inputs, frame = torch.randn(12, 2, 2, 1), torch.linalg.qr(torch.randn(7, 4))[0]
    other = copy.deepcopy(cell)
    phase = lt.FlossPhase(1, k=4, steps=12, tangent_transient=3, target=-0.2)
    allowed = torch.tensor([2, 5])
    flossing = lt.training.flossing.flossing_of(
        phase, 0, torch.ones(2, dtype=int), allowed, list(cell.parameters())
    )
    flossing.frame = lambda *args: frame
    found = flossing.value(cell, lt._padded.Padded(inputs, None), None)
    assert found.prepared is not None
    spec = lt.lyapunov_spectrum(
        other, inputs, k=4, tangent_transient=3, frame=frame, backend="autograd", interval=1
    )
    loss = lt.flossing_loss(spec.exponents, -0.2)
    torch.testing.assert_close(found.losses.sum(), loss, rtol=1e-12, atol=0)
    expected = torch.autograd.grad(loss, list(other.parameters()))
    for one, two in zip(found.gradients(list(cell.parameters())), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


def test_what_has_a_life_of_its_own_is_left_to_autograd(answers, monkeypatch):
    hooked = rate()
    hooked.weight_hh.register_hook(lambda g: 2 * g)
    seen = []
    hooked.bias.register_hook(lambda g: seen.append(g))
    lt.floss(hooked, TASK, **SCAN)
    assert len(seen) == 4
    lt.floss(rate(), torch.randn(14, 2, 1), lengths=torch.tensor([14, 9]), **(SCAN | {"interval": 1}))
    computed = rate()
    torch.nn.utils.parametrizations.weight_norm(computed, "weight_hh")
    lt.floss(computed, TASK, **SCAN)
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    lt.floss(rate(), TASK, **SCAN)
    assert not any(answers)


def test_what_overflows_is_told_as_before(answers, monkeypatch):
    cell = lt.RateCell(1, 9, activation="linear")
    with torch.no_grad():
        cell.weight_hh.mul_(1e30)
    before = copy.deepcopy(cell.state_dict())
    with pytest.raises(FloatingPointError, match=r"at flossing epoch 0: .* not finite after step \d"):
        lt.floss(cell, TASK, **SCAN)
    with torch.no_grad():
        cell.weight_hh[0, 0] = torch.nan
    with pytest.raises(ValueError, match="weight_hh must be finite"):
        lt.floss(cell, TASK, **SCAN)
    assert answers == [False]
    assert all(torch.equal(z, before[name]) for name, z in cell.state_dict().items() if name != "weight_hh")
