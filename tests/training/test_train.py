"""`lt.train`: every member of an ensemble trains as it would alone, and as a loop written by hand."""

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch._random import Stream, seed_from
from lyaptorch.cells import random_frame
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from trained import LENGTH, MASK, ROWS, SCAN, TASK, D, N, each, make, numbers, run, same, seeded

pytestmark = pytest.mark.usefixtures("double")


class ByHand:
    """One network, plain loops: autograd through torch.linalg.qr, torch.optim.Adam, clipping by formula."""

    def __init__(self, model, seed, lr):
        cell, out = model.cell, model.readout
        given = (cell.weight_hh, cell.weight_ih, cell.bias, out.weight, out.bias, model.h0)
        self.all = [p.detach().clone().requires_grad_() for p in given]
        self.seed, self.member, self.epoch, self.floss_epoch = seed, torch.tensor(0), 0, 0
        self.adam = torch.optim.Adam(self.all, lr=lr)
        self.floss_adam = torch.optim.Adam(self.all[:3])
        self.losses = []

    def fit(self, epochs, clip):
        W, V, b, R, o, h0 = self.all
        for _ in range(epochs):
            batch = TASK.draw(Draw(self.seed, LENGTH, ROWS, member_ids=self.member, epoch=self.epoch))
            h, z = h0, []
            for x in batch.inputs:
                h = torch.tanh(h) @ W.T + x @ V.T + b
                z.append(h @ R.T + o)
            loss = nn.functional.binary_cross_entropy_with_logits(torch.stack(z)[D:], batch.targets[D:])
            self._step(self.adam, loss, clip)
            self.losses.append(loss.item())
            self.epoch += 1

    def floss(self, epochs, k, target, lr, clip):
        self.floss_adam.param_groups[0]["lr"] = lr
        for _ in range(epochs):
            length, skip, i = SCAN["steps"], SCAN["tangent_transient"], self.floss_epoch
            x = TASK.inputs(Draw(self.seed, length, member_ids=self.member, epoch=i, stream="floss"))
            frame = random_frame(N, k, Stream(self.seed, "floss_frame"), torch.tensor(0), epoch=i)
            loss = (self._exponents(x[:, 0], frame, skip) - target).square().mean()
            self._step(self.floss_adam, loss, clip)
            self.floss_epoch += 1

    def _exponents(self, inputs, Q, skip):
        W, V, b, *_, h0 = self.all
        h, log_r = h0[0].detach(), []
        for x in inputs:
            Q, R = torch.linalg.qr(W @ torch.diag(1 - torch.tanh(h) ** 2) @ Q)
            log_r.append(R.diagonal().abs().log())
            h = W @ torch.tanh(h) + V @ x + b
        return torch.stack(log_r[skip:]).mean(0)

    def _step(self, adam, loss, clip):
        own = adam.param_groups[0]["params"]
        for p, g in zip(own, torch.autograd.grad(loss, own), strict=True):
            p.grad = g if clip is None else g * min(1.0, clip / g.norm().item())
        adam.step()


def test_a_schedule_runs_as_by_hand():
    model, lr, clip = make(), 2e-3, 0.03
    hand = ByHand(model, seed_from(seeded(7)), lr)
    floss = {"k": 5, "target": -0.1, "lr": 3e-3, "clip": 0.5}
    record = run(
        model,
        FlossPhase(3, **SCAN, **floss),
        FitPhase(4),
        FlossPhase(2, **SCAN, **{**floss, "clip": None}),
        FitPhase(3),
        lr=lr,
        clip=clip,
    )
    hand.floss(3, **floss)
    hand.fit(4, clip)
    hand.floss(2, **{**floss, "clip": None})
    hand.fit(3, clip)
    # 12 steps of size lr; gradients through 20 QRs agree to about 1e-12
    for name, expected in zip(("weight_hh", "weight_ih", "bias"), hand.all, strict=False):
        torch.testing.assert_close(getattr(model.cell, name), expected, rtol=1e-9, atol=1e-11)
    out = (model.readout.weight, model.readout.bias, model.h0)
    torch.testing.assert_close(
        [p.detach() for p in out], [p.detach() for p in hand.all[3:]], rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(torch.tensor(record["loss"][0]), torch.tensor(hand.losses), rtol=1e-10, atol=0)


@pytest.mark.parametrize("own", [False, True], ids=["common", "per-member"])
def test_a_member_of_a_mixed_ensemble_trains_as_it_does_alone(own):
    ids = torch.tensor([[0, 1, 2], [0, 1, 5]])
    settings = {"lr": 1e-3, "clip": 0.03}
    floss = {"k": 5, "target": 0.0, "lr": 1e-3, "clip": None}
    gain = 1.0
    if own:
        spread = torch.linspace(0.5, 2.0, 6).reshape(2, 3)
        settings, gain = {"lr": 1e-3 * spread, "clip": 0.03 * spread}, spread
        k = torch.tensor([[1, 2, 3], [4, 5, 6]])
        floss = {"k": k, "target": (spread - 1).unsqueeze(-1), "lr": 2e-3 * spread, "clip": 0.1 * spread}
    model = make((2, 3), ids, gain=gain)
    flossing = FlossPhase(3, who=MASK, **SCAN, **floss)
    together = run(model, flossing, FitPhase(3), flossing, FitPhase(2), member_ids=ids, **settings)
    for place, index in enumerate(torch.ones(2, 3).nonzero().tolist()):
        index = tuple(index)
        alone = make((), ids[index], gain=each(gain, index))
        phase = FlossPhase(3 if MASK[index] else 0, **SCAN, **{n: each(v, index) for n, v in floss.items()})
        mine = {name: each(value, index) for name, value in settings.items()}
        record = run(alone, phase, FitPhase(3), phase, FitPhase(2), member_ids=ids[index], **mine)
        # products of batched matrices round differently; 11 steps do not amplify that
        torch.testing.assert_close(numbers(model, index), numbers(alone), rtol=1e-8, atol=1e-12)
        for name in ("loss", "accuracy"):
            found, expected = torch.tensor(together[name][place]), torch.tensor(record[name][0])
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)
        if MASK[index]:
            k = each(floss["k"], index)
            found = torch.tensor(together["exponents"][place, :, :k])
            torch.testing.assert_close(found, torch.tensor(record["exponents"][0]), rtol=1e-8, atol=1e-10)


def test_who_takes_part_goes_on_when_others_rest():
    """The selection and what is put back: parameters, optimiser state, hyperparameters."""
    lr, clip = torch.linspace(1e-3, 3e-3, 6).reshape(2, 3), torch.linspace(0.01, 0.06, 6).reshape(2, 3)
    ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    model = make((2, 3), ids)
    run(model, FitPhase(2), FitPhase(2, who=MASK), FitPhase(2), member_ids=ids, lr=lr, clip=clip)
    for index in map(tuple, MASK.nonzero().tolist()):
        alone = make((), ids[index])
        run(alone, FitPhase(6), member_ids=ids[index], lr=lr[index].item(), clip=clip[index].item())
        torch.testing.assert_close(numbers(model, index), numbers(alone), rtol=1e-8, atol=1e-12)


def test_equal_ids_are_copies_and_others_are_not():
    ids = torch.tensor([4, 4, 1])
    model = make((3,), ids)
    run(model, FlossPhase(2, k=4, **SCAN), FitPhase(2), member_ids=ids)
    assert same(numbers(model, 0), numbers(model, 1))
    assert not same(numbers(model, 0), numbers(model, 2))


@pytest.mark.parametrize("phase", [FlossPhase(3, k=4, **SCAN, who=MASK), FitPhase(3, who=MASK)])
def test_a_phase_leaves_those_who_take_no_part_bit_identical(phase):
    model = make((2, 3))
    before = numbers(model)
    run(model, phase)
    for (name, p), q in zip(model.named_parameters(), before, strict=True):
        assert torch.equal(p[~MASK], q[~MASK])
        # readout and initial state belong to the task alone
        changes = isinstance(phase, FitPhase) or name.startswith("cell.")
        assert all((a != b).any() == changes for a, b in zip(p[MASK], q[MASK], strict=True))


def test_who_takes_no_part_in_flossing_trains_as_if_it_were_not_there():
    flossing = FlossPhase(2, k=4, **SCAN, who=MASK)
    first, second = make((2, 3)), make((2, 3))
    one = run(first, flossing, FitPhase(3), flossing, FitPhase(2))
    two = run(second, FitPhase(3), FitPhase(2))
    assert same(numbers(first, ~MASK), numbers(second, ~MASK))
    assert (one["loss"][~MASK.flatten()] == two["loss"][~MASK.flatten()]).all()
    assert not same(numbers(first, MASK), numbers(second, MASK))


@pytest.mark.parametrize(
    "phase", [FlossPhase(2, k=4, **SCAN), FitPhase(2)], ids=lambda phase: type(phase).__name__
)
def test_who_missed_a_phase_goes_on_with_its_own_next_batch(phase):
    """Alone it would see its batches 0, 1, ...; in the ensemble it must, too."""
    mask = torch.tensor([True, False])
    model, alone = make((2,)), make((), torch.tensor(1))
    masked = type(phase)(**{**vars(phase), "who": mask})
    run(model, masked, phase)
    run(alone, phase, member_ids=torch.tensor(1))
    torch.testing.assert_close(numbers(model, 1), numbers(alone), rtol=1e-8, atol=1e-12)


def test_an_episode_of_all_after_one_of_some():
    """They are at flossing epochs of their own then, and have frames of their own."""
    floss = {"k": 4, **SCAN}

    def fit(some):
        at = lt.schedules.Trigger(lt.schedules.At(2), FlossPhase(1, **floss, who=some))
        return FitPhase(5, triggers=(lt.schedules.Trigger(lt.schedules.Every(1), FlossPhase(1, **floss)), at))

    model = make((2,))
    run(model, fit(torch.tensor([True, False])))
    for index in range(2):
        alone, ids = make((), torch.tensor(index)), torch.tensor(index)
        some = fit(torch.tensor(True))
        run(alone, some if index == 0 else FitPhase(5, triggers=some.triggers[:1]), member_ids=ids)
        torch.testing.assert_close(numbers(model, index), numbers(alone), rtol=1e-8, atol=1e-12)


def test_a_delay_for_each_member_in_a_phase_of_some():
    task, mask = TemporalXOR(torch.tensor([2, 4, 6])), torch.tensor([True, False, True])
    model = make((3,))
    record = run(model, FitPhase(3, who=mask), task=task)
    for index, delay in ((0, 2), (2, 6)):
        ids = torch.tensor(index)
        alone = make((), ids)
        expected = run(alone, FitPhase(3), task=TemporalXOR(delay), member_ids=ids)["loss"][0]
        torch.testing.assert_close(numbers(model, index), numbers(alone), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(torch.tensor(record["loss"][index]), torch.tensor(expected))


def test_a_phase_with_a_rate_of_its_own():
    """Plain gradient descent, so that twice the rate is twice the step; afterwards the usual rate counts."""
    rates, mask = torch.tensor([1e-3, 4e-3]), torch.tensor([False, True])
    start, usual, own, after = (make((2,)) for _ in range(4))
    steps = {"optimizer": lt.SGD(), "clip": None, "lr": 2e-3}
    run(usual, FitPhase(1), **steps)
    run(own, FitPhase(1, lr=rates), **steps)
    for p, moved, found in zip(numbers(start), numbers(usual), numbers(own), strict=True):
        ratio = (rates / 2e-3).reshape(2, *[1] * (p.dim() - 1))
        torch.testing.assert_close(found - p, ratio * (moved - p), rtol=1e-3, atol=1e-8)
    run(after, FitPhase(2, who=mask, lr=rates), FitPhase(1), **steps)
    ids = torch.tensor(1)
    alone = make((), ids)
    run(alone, FitPhase(2, lr=4e-3), FitPhase(1), member_ids=ids, **steps)
    torch.testing.assert_close(numbers(after, 1), numbers(alone), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(numbers(after, 0), numbers(usual, 0), rtol=1e-8, atol=1e-12)
    with pytest.raises(ValueError, match="lr must be finite and at least 0"):
        FitPhase(1, lr=-1e-3)


def test_a_fit_of_some_members_has_their_usual_rates():
    rates, second = torch.tensor([1e-3, 4e-3]), torch.tensor([False, True])
    some, everybody = make((2,)), make((2,))
    for model, members in ((some, second), (everybody, None)):
        run(model, FitPhase(2, who=members), lr=rates)
    torch.testing.assert_close(numbers(some, 1), numbers(everybody, 1), rtol=1e-8, atol=1e-12)
    assert same(numbers(some, 0), numbers(make((2,)), 0))


def test_the_defaults_are_the_published_ones():
    one, two = make(rows=16), make(rows=16)
    lt.train(one, TASK, (FitPhase(2),))
    lt.train(two, TASK, (FitPhase(2),), batch=16, steps=300, lr=1e-3, clip=0.03)
    assert same(numbers(one), numbers(two))
    other = make(rows=16)
    lt.train(other, TASK, (FitPhase(2),), clip=None)
    assert not same(numbers(one), numbers(other))


def test_what_is_frozen_stays():
    model = make((2,))
    model.cell.requires_grad_(False)
    before = numbers(model)
    run(model, FitPhase(2))
    changed = [not torch.equal(p, q) for p, q in zip(numbers(model), before, strict=True)]
    assert changed == [n.split(".")[0] != "cell" for n, _ in model.named_parameters()]
    with pytest.raises(
        ValueError, match="there is nothing to floss: no parameter of the cell has requires_g"
    ):
        run(model, FlossPhase(1, k=2, **SCAN))
    with pytest.raises(ValueError, match="there is nothing to train: no parameter of the model has requires"):
        run(model.requires_grad_(False), FitPhase(1))


def test_evaluate_sees_fresh_batches_and_changes_nothing():
    model = make((2,))
    before = numbers(model)
    kw = {"batch": ROWS, "steps": LENGTH, "generator": seeded(7)}
    found = lt.evaluate(model, TASK, batches=3, **kw)
    assert {name: v.dims for name, v in found.variables.items()} == dict.fromkeys(
        ("loss", "accuracy"), ("member",)
    )
    assert found["loss"].shape == found["accuracy"].shape == (2,)
    assert (found.config["batches"], found.config["steps"]) == (3, LENGTH)
    assert same(numbers(model), before)
    # the first batch of training is another
    (first,) = run(model, FitPhase(1))["loss"].T
    single = lt.evaluate(make((2,)), TASK, batches=1, **{**kw, "generator": seeded(7)})
    assert (single["loss"] != first).all()
