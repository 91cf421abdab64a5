import pytest
import torch
from torch import nn

from lyaptorch import FitPhase, Model, evaluate, lyapunov_spectrum, presets, train
from lyaptorch.tasks import TASKS, DelayedCopy, OneHotXOR, Recall, SpatialXOR, TemporalXOR
from lyaptorch.tasks.batch import Batch, Draw, last_step
from lyaptorch.testing import xor_network

IDS = torch.tensor([[4, 0, 7], [2, 2, 9]])


def draw(delay, members, *, epoch=0, stream="task", batch=3, length=20, seed=5):
    return TemporalXOR(delay).draw(Draw(seed, length, batch, member_ids=members, epoch=epoch, stream=stream))


def xor(bits, delay):
    """The targets of one trajectory, None where nothing was shown."""
    near, far = delay // 2, delay
    return [bits[t - near] ^ bits[t - far] if t >= far else None for t in range(len(bits))]


def hand_made(delay, task_delay):
    """Accuracy of the hand-made network for one delay on the task of another."""
    cell, weight, bias = xor_network(delay)
    readout = nn.Linear(cell.state_size, 1)
    with torch.no_grad():
        readout.weight.copy_(weight)
        readout.bias.copy_(bias)
    task = TemporalXOR(task_delay)
    scores = evaluate(Model(cell, readout), task, batch=8, steps=2 * task_delay + 20, batches=3)
    return scores["accuracy"].item()


@pytest.mark.parametrize("delay", [2, 4, 6, 10])
def test_the_targets_are_the_xor_of_two_earlier_bits_and_the_mask_starts_at_d(delay):
    batch = draw(delay, torch.tensor(0))
    assert batch.inputs.shape == batch.targets.shape == (20, 3, 1)
    assert batch.mask.tolist() == [t >= delay for t in range(20)]
    for row in range(3):
        expected = xor(batch.inputs[:, row, 0].int().tolist(), delay)
        assert batch.targets[delay:, row, 0].int().tolist() == expected[delay:]
    assert 0 < batch.targets[delay:].mean() < 1


def test_a_delay_for_each_member():
    delay = torch.tensor([[2, 4, 6], [4, 8, 18]])
    batch = draw(delay, IDS)
    assert batch.inputs.shape == batch.targets.shape == (20, 2, 3, 3, 1)
    assert batch.mask.shape == (20, 2, 3)
    for i in range(2):
        for j in range(3):
            alone = draw(int(delay[i, j]), IDS[i, j])
            assert torch.equal(batch.inputs[:, i, j], alone.inputs)
            assert torch.equal(batch.mask[:, i, j], alone.mask)
            assert torch.equal(batch.targets[:, i, j][alone.mask], alone.targets[alone.mask])


def test_inputs_and_targets_are_bits_and_fair():
    batch = draw(4, torch.arange(50), batch=10, length=100)
    for bits in (batch.inputs, batch.targets[batch.mask]):
        assert set(bits.unique().tolist()) == {0.0, 1.0}
        # 5 standard errors of the mean; targets have as many independent bits up to a factor of 2
        assert abs(bits.mean().item() - 0.5) < 5 * 0.5 / (bits.numel() / 2) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype(dtype):
    batch = TemporalXOR(4).draw(Draw(0, 9, 2, member_ids=torch.arange(2), dtype=dtype))
    assert batch.inputs.dtype == batch.targets.dtype == dtype
    other = TemporalXOR(4).draw(Draw(0, 9, 2, member_ids=torch.arange(2), dtype=torch.float32))
    assert torch.equal(batch.inputs.float(), other.inputs)


def test_a_member_draws_the_same_alone_and_in_any_ensemble():
    together = draw(4, IDS)
    assert torch.equal(together.inputs[:, 1, 0], together.inputs[:, 1, 1])
    for i in range(2):
        for j in range(3):
            assert torch.equal(together.inputs[:, i, j], draw(4, IDS[i, j]).inputs)
            assert torch.equal(together.inputs[:, i, j], draw(4, IDS[i : i + 1, j]).inputs[:, 0])


def test_members_epochs_streams_seeds_and_trajectories_differ():
    member = torch.tensor(3)
    one = draw(4, member, length=60).inputs
    others = [
        draw(4, torch.tensor(4), length=60),
        draw(4, member, epoch=1, length=60),
        draw(4, member, stream="test", length=60),
        draw(4, member, seed=6, length=60),
    ]
    for other in others:
        # 180 fair bits: equal shares beyond 5 standard errors would tell a shift or a copy
        assert abs((other.inputs == one).float().mean().item() - 0.5) < 5 * 0.5 / 180**0.5
    assert not torch.equal(one[:, 0], one[:, 1])
    assert torch.equal(one, draw(4, member, length=60).inputs)


def test_an_epoch_for_each_member():
    epochs = torch.tensor([[0, 5, 1], [3, 0, 2]])
    together = draw(4, IDS, epoch=epochs)
    for i in range(2):
        for j in range(3):
            alone = draw(4, IDS[i, j], epoch=int(epochs[i, j]))
            assert torch.equal(together.inputs[:, i, j], alone.inputs)


def test_the_inputs_alone_are_those_of_the_batch():
    d, task = Draw(5, 20, 3, 2, member_ids=IDS), TemporalXOR(4)
    assert torch.equal(task.inputs(d), task.draw(d).inputs)
    # of any length, below the delay too
    assert TemporalXOR(30).inputs(d).shape == (20, 2, 3, 3, 1)


def test_the_task_tells_a_model_its_sizes_and_loss():
    task = TemporalXOR(4)
    assert (task.input_size, task.output_size, task.loss) == (1, 1, "binary_cross_entropy")
    assert TASKS["temporal_xor"] is TemporalXOR


@pytest.mark.parametrize("delay", [2, 4, 6, 30])
def test_a_network_made_by_hand_scores_exactly_100_percent(delay):
    assert hand_made(delay, delay) == 1.0


def test_the_network_for_another_delay_does_not():
    assert hand_made(6, 4) < 0.8
    assert hand_made(4, 6) < 0.8


@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_the_line_of_the_hand_made_network_is_nilpotent():
    cell, _, _ = xor_network(4)
    inputs = TemporalXOR(4).inputs(Draw(0, 40))
    assert (lyapunov_spectrum(cell, inputs).exponents == -torch.inf).all()


@pytest.mark.parametrize("delay", [0, 3])
def test_no_network_is_made_for_a_delay_that_the_task_cannot_have(delay):
    with pytest.raises(ValueError, match=f"delay must be .*got {delay}"):
        xor_network(delay)


@pytest.mark.parametrize(
    ("delay", "message"),
    [
        (3, "delay must be even, got 3; the shorter lag is half of it: try 4"),
        (0, "delay must be an integer >= 2, got 0; it is the longest lag"),
        (-2, "delay must be an integer >= 2, got -2"),
        (torch.tensor([4, 5]), "delay must be even, got 5"),
        (torch.tensor([[4], [0]]), "delay must be an integer >= 2, got 0"),
        (torch.tensor([4.0, 6.0]), "delay must be an integer >= 2, got 4.0"),
    ],
)
def test_delays_that_cannot_be(delay, message):
    with pytest.raises(ValueError, match=message):
        TemporalXOR(delay)


@pytest.mark.parametrize("delay", [20, 30, torch.tensor([2, 20])])
def test_a_delay_that_the_length_does_not_hold(delay):
    message = r"delay must be below the length of a trial, got delay=[23]0 and length=20; pass a longer"
    with pytest.raises(ValueError, match=message):
        draw(delay, torch.arange(2))
    assert draw(18, torch.arange(2)).mask.sum(0).tolist() == [2, 2]


@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 1)])
def test_a_delay_of_another_shape_than_the_ensemble(shape):
    message = r"delay must be a number or have the ensemble's shape \(2,\), got"
    with pytest.raises(ValueError, match=message):
        draw(torch.full(shape, 4), torch.arange(2))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("delay", [1, 7, torch.tensor([[1, 2, 3], [4, 5, 6]])])
def test_a_copy_is_what_was_seen_d_steps_ago(binary, delay):
    batch = DelayedCopy(delay, binary=binary).draw(Draw(5, 20, 3, member_ids=IDS))
    delay = torch.as_tensor(delay).expand(2, 3)
    for i in range(2):
        for j in range(3):
            d = int(delay[i, j])
            assert torch.equal(batch.targets[d:, i, j], batch.inputs[:-d, i, j])
            assert batch.mask[:, i, j].tolist() == [t >= d for t in range(20)]
    assert (set(batch.inputs.unique().tolist()) == {0.0, 1.0}) == binary
    assert 0 <= batch.inputs.min() < 0.1
    assert batch.inputs.max() > 0.9


def test_a_deeper_xor_differs_of_differences():
    for depth, delay in ((2, 8), (3, 8)):
        for binary in (True, False):
            task = TemporalXOR(delay, binary=binary, depth=depth)
            batch = task.draw(Draw(5, 20, 2, member_ids=torch.tensor(1)))
            x = batch.inputs[:, :, 0].tolist()
            for t in range(delay, 20):
                for row in range(2):
                    taps = [x[t - (i + 1) * delay // 2**depth][row] for i in range(2**depth)]
                    while len(taps) > 1:
                        taps = [abs(taps[i] - taps[i + 1]) for i in range(0, len(taps), 2)]
                    assert batch.targets[t, row, 0].item() == pytest.approx(taps[0], abs=1e-6)


def test_a_one_hot_xor_has_an_output_for_each_answer():
    d = Draw(5, 15, 2, 3, member_ids=IDS)
    bits, batch = TemporalXOR(4).draw(d), OneHotXOR(4).draw(d)
    assert torch.equal(batch.inputs, bits.inputs)
    assert torch.equal(batch.mask, bits.mask)
    assert torch.equal(batch.targets, torch.cat([1 - bits.targets, bits.targets], -1))
    with pytest.raises(ValueError, match="OneHotXOR has binary inputs only"):
        OneHotXOR(4, binary=False)


def test_spatial_xor_is_the_parity_of_three_channels():
    batch = SpatialXOR(4).draw(Draw(5, 20, 3, member_ids=torch.arange(2)))
    assert batch.inputs.shape == (20, 2, 3, 3)
    # the published setting divides the input by the number of channels
    bits = batch.inputs * 3
    assert set(bits.round(decimals=6).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.targets[4:, ..., 0], bits[:-4].sum(-1).round() % 2)


def test_recall_repeats_what_it_was_shown_when_cued():
    items, delay, length = 2, 5, 21
    batch = Recall(items, delay).draw(Draw(5, length, 3, member_ids=IDS))
    assert batch.inputs.shape == (length, 2, 3, 3, 2)
    x, period = batch.inputs * 2, delay + items
    for t in range(length):
        shown, cued = t % period < items, t % period >= delay
        assert (batch.mask[t] == cued).all()
        assert (x[t, ..., 1] == cued).all()
        assert shown or (x[t, ..., 0] == 0).all()
        if cued:
            assert torch.equal(batch.targets[t, ..., 0], x[t - delay, ..., 0])
    assert 0 < batch.targets[batch.mask].mean() < 1
    assert torch.equal(
        batch.inputs[:, 1, 2],
        Recall(items, delay).draw(Draw(5, length, 3, member_ids=IDS[1, 2])).inputs,
    )


@pytest.mark.parametrize(
    "task", [DelayedCopy(3), DelayedCopy(3, binary=True), SpatialXOR(3), Recall(2, 3), OneHotXOR(4)]
)
def test_every_task_is_learned_by_a_model_of_its_sizes_and_loss(task):
    model = presets.gf2023(task, hidden_size=6, rows=2)
    record = train(model, task, (FitPhase(2),), batch=2, steps=12)
    assert torch.isfinite(torch.tensor(record["loss"])).all()
    assert (model.cell.input_size, model.loss_name) == (task.input_size, task.loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DelayedCopy(0), "delay must be an integer >= 1, got 0"),
        (lambda: SpatialXOR(0), "delay must be an integer >= 1, got 0"),
        (lambda: SpatialXOR(3, binary=False), "SpatialXOR has binary inputs only"),
        (lambda: TemporalXOR(6, depth=2), "delay must be a multiple of 4, got 6.*try 8"),
        (lambda: TemporalXOR(6, depth=0), r"depth must be an integer in 1\.\.10, got 0"),
        (lambda: Recall(4, 3), r"items must be an integer in 1\.\.3, got 4; repetition may not overlap"),
        (lambda: Recall(0, 3), r"items must be an integer in 1\.\.3, got 0"),
        (
            lambda: Recall(2, 3).draw(Draw(0, 4, member_ids=IDS)),
            "length must hold delay . items = 5 steps, got 4",
        ),
    ],
)
def test_tasks_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("inputs", "targets", "mask", "message"),
    [
        ((9, 3, 2), (8, 3, 1), (8,), r"inputs must have shape .*, got \(9, 3, 2\) and \(8, 3, 1\)"),
        ((9, 3, 2), (9, 4, 1), (9,), "only .e may be missing in the inputs"),
        ((9, 2, 3, 2), (9, 3, 1), (9,), "only .e may be missing in the inputs"),
        ((9, 2), (9, 2), (9,), "time comes first in both"),
        ((9, 3, 2), (9, 4, 3, 1), (9, 3), r"mask must have shape \(t, \*e\) = \(9, 4\) or .* = \(9, 4, 3\)"),
        ((9, 4, 3, 2), (9, 4, 3, 1), (9,), r"as the targets, got \(9,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_shapes_of_a_batch_that_do_not_fit(inputs, targets, mask, message):
    with pytest.raises(ValueError, match=message):
        Batch(torch.zeros(inputs), torch.zeros(targets), torch.ones(mask, dtype=torch.bool))


def test_some_members_of_a_batch_whose_inputs_all_share():
    inputs, targets, mask = torch.randn(9, 3, 2), torch.randn(9, 4, 3, 1), torch.rand(9, 4) > 0.5
    part = Batch(inputs, targets, mask).select((torch.tensor([2, 0]),))
    assert torch.equal(part.inputs, inputs)
    assert torch.equal(part.targets, targets[:, [2, 0]])
    assert torch.equal(part.mask, mask[:, [2, 0]])


# with as many steps as members nothing but the numbers tells one from the other
@pytest.mark.parametrize("members", [3, 4])
def test_lengths_of_a_batch_whose_inputs_all_share(members):
    lengths, targets = torch.tensor([3, 1]), torch.ones(3, members, 2, 1)
    everywhere = torch.ones(3, members, dtype=torch.bool)
    batch = Batch(torch.zeros(3, 2, 1), targets, everywhere, lengths=lengths)
    own = torch.tensor([[True, True], [True, False], [True, False]])
    assert torch.equal(batch.counts, own.unsqueeze(1).expand(3, members, 2))
    assert torch.equal(batch.targets[..., 0], own.unsqueeze(1).expand(3, members, 2).float())
    last = last_step(torch.zeros(3, 2, 1), torch.ones(members, 2, 1), lengths)
    assert torch.equal(
        last.counts, torch.tensor([[0, 1], [0, 0], [1, 0]]).bool().unsqueeze(1).expand(3, members, 2)
    )
