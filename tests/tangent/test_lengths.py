"""Sequences of different lengths: every trajectory as if it were alone, and padding that never matters."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import lyaptorch as lt
from cases import M, N
from lyaptorch._padded import padded
from lyaptorch.integrations import Flosser, Sequences
from lyaptorch.tangent import mean_over_trajectories
from lyaptorch.tasks.batch import Draw, last_step

pytestmark = pytest.mark.usefixtures("double")

LENGTHS = [23, 7, 40, 12]
CELLS = {
    "rate": lambda: lt.RateCell(M, N, gain=1.5),
    "lstm": lambda: torch.nn.LSTM(M, 3),
    "function": lambda: lambda x, h: torch.tanh(1.3 * h.roll(1, -1) + x.sum(-1, keepdim=True)),
}
LOOSE = {"rtol": 1e-12, "atol": 1e-12}


def close(a, b, **more):
    torch.testing.assert_close(a, b, **{**LOOSE, **more})


def ragged(value=torch.nan):
    """Inputs (40, 4, M) whose padding holds `value`."""
    x = torch.randn(40, len(LENGTHS), M)
    for i, length in enumerate(LENGTHS):
        x[length:, i] = value
    return x


def leaves(cell):
    return [] if not isinstance(cell, torch.nn.Module) else list(cell.parameters())


def start(cell, b):
    return torch.rand(b, N, generator=torch.Generator().manual_seed(5)) if not leaves(cell) else None


EVERY = [
    {},
    {"backend": "autograd"},
    {"transient": 2, "tangent_transient": 3, "interval": 2},
    {"state_grad": 4, "tangent_transient": 2},
    {"interval": 3},
    {"checkpoint": 5},
    {"state_grad": "detach"},
    {"state_grad": 4, "backend": "autograd"},
    {"qr_method": "householder"},
]
SETTINGS = [
    *(("rate", s) for s in EVERY),
    *(("lstm", s) for s in EVERY[:4]),
    *(("function", s) for s in EVERY[:2]),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=str)
def test_every_trajectory_as_if_it_were_alone(kind, settings):
    """Exponents, final state and frame, and the gradients of inputs, initial state and weights."""
    cell, x = CELLS[kind](), ragged().requires_grad_()
    h0 = start(cell, 4)
    if h0 is not None:
        h0.requires_grad_()
    wanted = [x, *leaves(cell), *([] if h0 is None else [h0])]

    def measure(inputs, state, **more):
        spec = lt.lyapunov_spectrum(cell, inputs, k=3, h0=state, **settings, **more)
        weights = torch.linspace(1, 2, 3)
        loss = (spec.exponents * weights).sum() + spec.final_state.sin().sum()
        own = [z for z in wanted if z.requires_grad]
        return spec, torch.autograd.grad(loss, own, materialize_grads=True)

    together, gradients = measure(x, h0, lengths=LENGTHS)
    total = [torch.zeros_like(g) for g in gradients]
    for i, length in enumerate(LENGTHS):
        alone, more = measure(x[:length, [i]], None if h0 is None else h0[[i]])
        for sum_, g in zip(total, more, strict=True):
            sum_ += g
        close(together.exponents[[i]], alone.exponents)
        close(together.final_state[[i]], alone.final_state)
        close(together.final_frame[[i]], alone.final_frame)
        assert together.growth.steps[:, i].sum() == alone.growth.steps.sum()
        s = len(alone.growth.log_r)
        close(together.growth.log_r[:s, [i]], alone.growth.log_r)
        close(together.running()[s - 1, i], alone.exponents[0])
        close(together.running()[-1, i], alone.exponents[0])
        close(together.local()[:s, [i]], alone.local())
        assert (together.local()[s:, i] == 0).all()
        close(together.stderr()[[i]], alone.stderr(), rtol=1e-8)
        assert torch.equal(together.reliable[[i]], alone.reliable)
        close(together.kaplan_yorke()[[i]], alone.kaplan_yorke())
        close(together.entropy()[[i]], alone.entropy())
    for a, b in zip(gradients, total, strict=True):
        close(a, b, rtol=1e-10)
        assert torch.isfinite(a).all()


def test_padding_counted_no_more():
    """Zeros after 20 steps lead another spectrum away from that of the 20 steps; lengths do not."""
    rnn = torch.nn.RNN(M, 8)
    x = torch.cat([2 * torch.randn(20, 1, M), torch.zeros(60, 1, M)])
    true = lt.lyapunov_spectrum(rnn, x[:20], k=2).exponents
    assert ((lt.lyapunov_spectrum(rnn, x, k=2).exponents - true).abs() > 0.01).any()
    # the second sequence keeps the others from being cut
    both = torch.cat([x, torch.randn(80, 1, M)], 1)
    close(lt.lyapunov_spectrum(rnn, both, k=2, lengths=[20, 80]).exponents[:1], true)
    close(lt.lyapunov_spectrum(rnn, x, k=2, lengths=[20]).exponents, true)


@pytest.mark.parametrize("padding", [torch.nan, torch.inf, 1e300, 0.0])
def test_what_stands_in_the_padding_does_not_matter(padding):
    cell, x = lt.RateCell(M, N, gain=1.5), ragged()
    found = []
    for value in (padding, 1.0):
        y = torch.where(x.isnan(), value, x).requires_grad_()
        spec = lt.lyapunov_spectrum(cell, y, k=2, lengths=LENGTHS)
        found.append(
            [
                spec.exponents,
                spec.final_state,
                *torch.autograd.grad(spec.exponents.sum(), [y, *cell.parameters()]),
            ]
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert (found[0][2][7:, 1] == 0).all()


def test_an_explosion_after_the_end_is_nobodys():
    """The state grows by e^69 a step: 10 steps are fine, 11 overflow."""
    x = torch.zeros(15, 2, 1)

    def step(x, h):
        return torch.where(x > 0.5, 0.5, 1e30) * h

    x[:, 1] = 1.0
    spec = lt.lyapunov_spectrum(step, x, h0=torch.ones(2, 1), lengths=[9, 15])
    close(spec.exponents, torch.tensor([[1e30], [0.5]]).log())
    with pytest.raises(FloatingPointError, match="not finite after step 11"):
        lt.lyapunov_spectrum(step, x, h0=torch.ones(2, 1), lengths=[12, 15])


class TestPackedSequence:
    def test_it_is_a_tensor_with_lengths_in_its_own_order(self):
        cell, x = lt.RateCell(M, N), ragged(0.0)
        plain = lt.lyapunov_spectrum(cell, x, k=2, lengths=LENGTHS)
        packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
        same = lt.lyapunov_spectrum(cell, packed, k=2)
        assert torch.equal(plain.exponents, same.exponents)
        assert torch.equal(plain.final_state, same.final_state)
        with pytest.raises(ValueError, match="PackedSequence bring their own lengths, got others; leave"):
            lt.lyapunov_spectrum(cell, packed, lengths=LENGTHS)

    def test_equal_lengths_are_none(self):
        cell, rows = lt.RateCell(M, N), [torch.randn(9, M) for _ in range(3)]
        spec = lt.lyapunov_spectrum(cell, pack_sequence(rows), k=2)
        assert spec.growth.steps.shape == (9,)
        close(spec.exponents, lt.lyapunov_spectrum(cell, torch.stack(rows, 1), k=2).exponents)


class TestTooShort:
    def test_it_is_named_and_left_out(self):
        cell, x = lt.RateCell(M, N), ragged()
        with pytest.warns(
            UserWarning, match=r"trajectories \[1, 3\] end within the 12 steps of the transients"
        ):
            spec = lt.lyapunov_spectrum(cell, x, k=2, transient=9, tangent_transient=3, lengths=LENGTHS)
        assert spec.too_short.tolist() == [False, True, False, True]
        assert (spec.exponents[[1, 3]] == -torch.inf).all()
        assert not spec.reliable[[1, 3]].any()
        assert (spec.stderr()[[1, 3]] == torch.inf).all()
        close(mean_over_trajectories(spec.exponents), spec.exponents[[0, 2]].mean(0))
        loss = lt.flossing_loss(spec.exponents)
        close(loss, lt.flossing_loss(spec.exponents[[0, 2]]))
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, list(cell.parameters())))
        # the states are those at the ends all the same, within either transient
        for i in (1, 3):
            alone = lt.lyapunov_spectrum(cell, x[: LENGTHS[i], [i]], k=2)
            close(spec.final_state[[i]], alone.final_state)
        spec.variables(), spec.plot()

    def test_all_are(self):
        with pytest.raises(ValueError, match=r"lengths must be above the 40 steps.*at most 40; shorten"):
            lt.lyapunov_spectrum(lt.RateCell(M, N), torch.randn(50, 4, M), transient=40, lengths=LENGTHS)


def test_lengths_of_members():
    cell, x = lt.RateCell(M, N, ensemble=(2,)), torch.randn(20, 3, M)
    lengths = torch.tensor([[20, 5, 9], [3, 20, 11]])
    spec = lt.lyapunov_spectrum(cell, x, k=2, lengths=lengths)
    for j in (0, 1):
        for i in range(3):
            own = lt.lyapunov_spectrum(cell, x[: lengths[j, i], [i]], k=2)
            close(spec.exponents[j, i], own.exponents[j, 0])
    same = lt.lyapunov_spectrum(cell, x, k=2, lengths=lengths[0])
    close(same.exponents[0], spec.exponents[0])
    close(same.exponents[1, 0], lt.lyapunov_spectrum(cell, x, k=2).exponents[1, 0])
    assert spec.growth.stderr_of_mean().shape == (2, 2)
    assert spec.variables()[0]["error_of_mean"][1].shape == (2,)


def test_windows_of_a_ragged_spectrum():
    cell, x = lt.RateCell(M, N), torch.randn(12, 2, M)
    spec = lt.lyapunov_spectrum(cell, x, k=2, lengths=[12, 5])
    windows = spec.finite_time(4)
    close(windows[0, 1], spec.local()[:4, 1].mean(0))
    close(windows[1, 1], spec.local()[4, 1])
    assert (windows[2, 1] == 0).all()


BAD = [
    ({"lengths": torch.tensor([1.5, 2.0])}, r"lengths must be integers, got torch.float\d+; pass the number"),
    ({"lengths": [1, 2, 3]}, r"lengths must have shape \(b,\) = \(2,\) or \(\*e, b\), got \(3,\)"),
    ({"lengths": [0, 9]}, r"lengths must be integers in 1\.\.9, the steps of the inputs, got 0"),
    ({"lengths": [4, 10]}, r"lengths must be integers in 1\.\.9, the steps of the inputs, got 10"),
    (
        {"lengths": torch.tensor([[4, 9]] * 3)},
        r"lengths must have shape \(b,\) or \(\*e, b\) with \*e = \(\), got \(3, 2\)",
    ),
    ({"lengths": [4, 9], "transient": "auto"}, 'transient="auto" looks at all trajectories at once'),
    ({"lengths": [4, 9], "interval": "auto"}, "interval must be a number where trajectories have lengths"),
    (
        {"lengths": [4, 9], "backend": "cpu"},
        'backend "cpu" cannot serve: it takes all trajectories to one end',
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[str(s) for s, _ in BAD])
def test_bad_lengths(settings, message):
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        lt.lyapunov_spectrum(lt.RateCell(M, N), torch.randn(9, 2, M), **settings)


class TestTraining:
    def test_floss_of_padded_sequences_is_that_of_the_sequences(self):
        """With a fixed frame and one epoch, the step is that of the mean of single losses."""
        x, settings = ragged(), {"k": 2, "tangent_transient": 2, "steps": 40}
        start = lt.RateCell(M, N, gain=1.5)
        cell = copy.deepcopy(start)
        record = lt.floss(cell, x, lengths=LENGTHS, epochs=3, **settings)
        packed = copy.deepcopy(start)
        other = lt.floss(packed, pack_padded_sequence(x, LENGTHS, enforce_sorted=False), epochs=3, **settings)
        assert torch.equal(cell.weight_hh, packed.weight_hh)
        np.testing.assert_array_equal(record["exponents"], other["exponents"])
        # padding counted would give something else
        padding = lt.floss(copy.deepcopy(start), ragged(0.0), epochs=3, **settings)
        assert abs(padding["exponents"][0, 0] - record["exponents"][0, 0]).max() > 1e-3
        # of one sequence alone it is that of its steps
        one, cut = copy.deepcopy(start), copy.deepcopy(start)
        lt.floss(one, x[:, :1], lengths=[23], epochs=3, **settings)
        lt.floss(cut, x[:23, :1], epochs=3, **{**settings, "steps": 23})
        close(one.weight_hh, cut.weight_hh)

    def test_a_sequence_within_the_transient_is_left_out(self):
        start = lt.RateCell(M, N, gain=1.5)
        all_, some, x = copy.deepcopy(start), copy.deepcopy(start), ragged()
        settings = {"k": 2, "tangent_transient": 8, "epochs": 2}
        with pytest.warns(UserWarning, match=r"trajectories \[1\] end within the 8 steps"):
            record = lt.floss(all_, x, lengths=LENGTHS, steps=40, **settings)
        keep = [0, 2, 3]
        other = lt.floss(some, x[:, keep], lengths=[LENGTHS[i] for i in keep], steps=40, **settings)
        close(all_.weight_hh, some.weight_hh)
        np.testing.assert_allclose(record["floss_loss"], other["floss_loss"], rtol=1e-12)
        assert np.isfinite(record["exponents"]).all()

    def test_one_dead_trajectory_of_twenty_says_nothing_of_the_others(self):
        """A rectified unit that one trajectory never opens: no warning of death, no -inf in the Record."""
        cell = lt.RateCell(1, 1, activation="relu")
        with torch.no_grad():
            for p, value in zip(cell.parameters(), (0.9, 1.0, 0.0), strict=True):
                p.fill_(value)
        x = torch.ones(30, 20, 1)
        x[:, 7] = -1.0
        settings = {"k": 1, "epochs": 2, "steps": 30, "tangent_transient": 4}
        record = lt.floss(cell, x, h0=torch.full((20, 1), 0.5), **settings)
        assert record["exponents"][0, 0, 0] == pytest.approx(math.log(0.9))
        assert record["floss_loss"][0, 0] == pytest.approx(math.log(0.9) ** 2)
        assert np.isfinite(record["exponents"]).all()
        with pytest.warns(UserWarning, match="every tangent vector of member .0. dies"):
            dead = lt.floss(cell, -x[:, :1], **settings)
        assert (dead["exponents"] == -np.inf).all()

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_flosser_draws_real_steps_alone(self, packed):
        x, rnn = ragged(), torch.nn.RNN(M, N)
        inputs = pack_padded_sequence(x, LENGTHS, enforce_sorted=False) if packed else x
        phase = lt.FlossPhase(2, k=2, steps=20, tangent_transient=8, batch=3)
        with pytest.warns(UserWarning, match=r"sequences \[1\] end within the 8 steps of the transient"):
            flosser = Flosser(
                rnn,
                inputs,
                [lt.schedules.Trigger(lt.schedules.At(0), phase)],
                lengths=None if packed else LENGTHS,
            )
        (record,) = flosser.step()
        assert np.isfinite(record["exponents"]).all()
        assert torch.isfinite(flosser.exponents(2)).all()
        with pytest.raises(ValueError, match="lengths must be above the 50 steps of the transient"):
            Flosser(
                rnn,
                x,
                [lt.schedules.Trigger(lt.schedules.At(0), lt.FlossPhase(2, tangent_transient=50))],
                lengths=LENGTHS,
            )
        with pytest.raises(ValueError, match="lengths belong to a tensor of inputs, got a TemporalXOR"):
            Flosser(rnn, lt.tasks.TemporalXOR(2), [], lengths=LENGTHS)

    def test_draws_stay_within_their_sequences(self):
        x = torch.arange(40.0).reshape(-1, 1, 1) + 100 * torch.arange(4).reshape(1, -1, 1)
        source = Sequences(x, LENGTHS)
        seen = set()
        for epoch in range(40):
            drawn = source.inputs(Draw(0, 11, 4, epoch=epoch))
            for j, own in enumerate(drawn.lengths.tolist()):
                values = drawn.inputs[:, j, 0]
                row = int(values[0]) // 100
                assert own == min(11, LENGTHS[row])
                assert torch.equal(values[:own], values[0] + torch.arange(own))
                assert values[own - 1] - 100 * row < LENGTHS[row]
                seen.add(row)
        assert seen == {0, 1, 2, 3}

    def test_a_stretch_begins_anywhere_in_its_sequence(self):
        own, steps, epochs = torch.tensor([10, 7, 3]), 4, 1500
        source = Sequences(
            torch.arange(10.0).reshape(-1, 1, 1).repeat(1, 3, 1) + 100 * torch.arange(3)[:, None], own
        )
        counts = torch.zeros(3, 10, dtype=torch.float64)
        for epoch in range(epochs):
            for value in source.inputs(Draw(0, steps, 3, epoch=epoch)).inputs[0, :, 0].int().tolist():
                counts[value // 100, value % 100] += 1
        for row, size in zip(counts / epochs, (7, 4, 1), strict=True):
            # five standard deviations of a share of 1500 draws
            torch.testing.assert_close(row[:size], torch.full_like(row[:size], 1 / size), rtol=0, atol=0.06)
            assert not row[size:].any()

    def test_lengths_that_are_all_whole_change_no_draw(self):
        x, d = torch.randn(20, 3, 2), Draw(0, 8, 3, epoch=5)
        assert torch.equal(padded(Sequences(x, [20] * 3).inputs(d)).inputs, Sequences(x).inputs(d))

    def test_a_batch_leaves_out_padding(self):
        cell = lt.RateCell(M, N)
        model = lt.Model(cell, lt.Readout(N, 1), loss="mean_squared_error")
        x, y = ragged(), torch.randn(40, 4, 1)
        for i, length in enumerate(LENGTHS):
            y[length:, i] = torch.nan
        steps = torch.ones(40, dtype=torch.bool)
        steps[:3] = False
        batch = lt.tasks.Batch(x, y, steps, lengths=torch.tensor(LENGTHS))
        loss, accuracy = model.loss(batch)
        total = count = 0.0
        for i, length in enumerate(LENGTHS):
            alone = lt.tasks.Batch(x[:length, [i]], y[:length, [i]], steps[:length])
            total = total + model.loss(alone)[0] * (length - 3)
            count += length - 3
        close(loss, total / count)
        assert torch.isfinite(accuracy)
        for a, b in zip(
            torch.autograd.grad(loss, list(model.parameters())),
            torch.autograd.grad(total / count, list(model.parameters())),
            strict=True,
        ):
            close(a, b)
        rest = batch.after(10)
        assert rest.counts.sum(0).tolist() == [13, 0, 30, 2]

    def test_the_last_step_is_that_of_each_sequence(self):
        x, answers = ragged(), torch.randn(4, 1)
        batch = last_step(x, answers, torch.tensor(LENGTHS))
        assert batch.counts.sum() == 4
        assert all(batch.counts[length - 1, i] for i, length in enumerate(LENGTHS))
        model = lt.Model(lt.RateCell(M, N), lt.Readout(N, 1), loss="mean_squared_error")
        alone = [model.loss(last_step(x[:length, [i]], answers[[i]]))[0] for i, length in enumerate(LENGTHS)]
        close(model.loss(batch)[0], torch.stack(alone).mean())

    def test_a_task_of_ragged_batches_trains(self):
        class Sentences:
            input_size, output_size, loss = M, 1, "mean_squared_error"

            def inputs(self, d):
                return padded(torch.randn(d.steps, d.batch, M), [d.steps, *[d.steps // 2] * (d.batch - 1)])

            def draw(self, d):
                x, lengths = self.inputs(d)
                return last_step(x, torch.randn(d.batch, 1), lengths)

        model = lt.Model(lt.RateCell(M, N), lt.Readout(N, 1), loss="mean_squared_error")
        joint = lt.FlossPhase(0, k=2, steps=30, tangent_transient=4, batch=3)
        schedule = lt.schedules.Schedule(
            (
                lt.FlossPhase(2, k=2, steps=30, tangent_transient=4, batch=3),
                lt.FitPhase(3, flossing=joint, flossing_weight=0.1),
            )
        )
        record = lt.train(model, Sentences(), schedule, batch=5, steps=20)
        assert np.isfinite(record["loss"]).all()
        assert np.isfinite(record["exponents"]).all()
