"""`lt.floss`: exponents go where they are told, in place, for every kind of network."""

import itertools

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.tasks import TemporalXOR
from lyaptorch.training import flossing
from reference import random_frame

N, M = 8, 2
QUICK = {"k": 3, "steps": 25, "tangent_transient": 5, "lr": 1e-2, "show_progress": False}


def drive(t=25, b=2, m=M):
    return 0.5 * torch.randn(t, b, m)


def leading(record):
    """lambda_1 of each member over the flossing epochs."""
    return torch.tensor(record["exponents"][:, :, 0])


def distance(cell, inputs, target, **kw):
    """|lambda_1 - target| of each member, measured with another frame."""
    g = torch.Generator().manual_seed(99)
    exponents = lt.lyapunov_spectrum(cell, inputs, k=1, tangent_transient=5, generator=g, **kw).exponents
    return (exponents[..., 0].mean(-1) - target).abs().detach()


@pytest.mark.parametrize("target", [0.0, 0.3, -0.6])
def test_lambda_1_moves_to_the_target_on_a_tensor(target):
    cell, inputs = lt.RateCell(M, N, gain=0.6), drive()
    before = distance(cell, inputs, target)
    record = lt.floss(cell, inputs, target=target, epochs=120, frame="fixed", **{**QUICK, "lr": 3e-2})
    loss, lambda_1 = record["floss_loss"][0], leading(record)[0]
    assert loss[-1] < 0.1 * loss[0]
    assert distance(cell, inputs, target) < 0.4 * before
    # it starts at about -0.8
    assert (lambda_1[-1] > -0.1) == (target > -0.1)
    assert abs(lambda_1[-1] - target) < 0.5 * abs(lambda_1[0] - target)


@pytest.mark.parametrize("target", [0.0, 0.3, -0.6])
def test_lambda_1_moves_to_the_target_on_a_task(target):
    cell = lt.RateCell(1, N, gain=0.6, ensemble=(3,))
    record = lt.floss(cell, TemporalXOR(4), target=target, epochs=60, batch=2, **QUICK)
    loss = record["floss_loss"]
    assert (loss[:, -5:].mean(-1) < 0.2 * loss[:, :5].mean(-1)).all()
    start, end = leading(record)[:, :5].mean(-1), leading(record)[:, -5:].mean(-1)
    assert ((end - target).abs() < 0.5 * (start - target).abs()).all()


def test_each_member_has_its_own_target():
    target = torch.tensor([[0.2, 0.0], [-0.3, -0.8]])
    cell, inputs = lt.RateCell(M, N, gain=0.6, ensemble=(2, 2)), drive()
    lt.floss(cell, inputs, target=target.unsqueeze(-1), epochs=80, frame="fixed", **QUICK)
    assert (distance(cell, inputs, target) < 0.1).all()


def test_a_member_is_flossed_as_it_would_be_alone(double):
    ids, spread = torch.tensor([4, 1, 1]), torch.tensor([0.5, 1.0, 2.0])
    own = {
        "lr": 1e-2 * spread,
        "clip": 0.2 * spread,
        "target": (spread - 1).unsqueeze(-1),
        "k": torch.tensor([1, 3, 5]),
    }
    cell = lt.RateCell(1, N, gain=spread, ensemble=(3,), member_ids=ids)
    together = lt.floss(cell, TemporalXOR(4), epochs=5, member_ids=ids, **{**QUICK, **own})
    for i in range(3):
        alone = lt.RateCell(1, N, gain=spread[i].item(), member_ids=ids[i])
        mine = {name: value[i].item() for name, value in own.items()}
        record = lt.floss(alone, TemporalXOR(4), epochs=5, member_ids=ids[i], **{**QUICK, **mine})
        for p, q in zip(cell.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p[i], q, rtol=1e-8, atol=1e-12)
        losses = (torch.tensor(r["floss_loss"][j]) for r, j in ((together, i), (record, 0)))
        torch.testing.assert_close(*losses, rtol=1e-8, atol=0)


def test_a_clip_for_each_member(double):
    """One of zero stops a member, to the bit; a huge one changes nothing."""

    def flossed(**kw):
        cell = lt.RateCell(M, N, ensemble=(2,))
        lt.floss(cell, torch.ones(25, 1, M), epochs=3, **QUICK, **kw)
        return list(cell.parameters())

    start = list(lt.RateCell(M, N, ensemble=(2,)).parameters())
    free, clipped = flossed(), flossed(clip=torch.tensor([0.0, 1e9]))
    for p, q, r in zip(start, free, clipped, strict=True):
        assert torch.equal(r[0], p[0])
        torch.testing.assert_close(r[1], q[1], rtol=1e-9, atol=1e-12)
        assert not torch.equal(r[1], p[1])


def test_a_clip_bends_the_path():
    """Adam forgets a common factor, so a clip shows only where gradients change their length."""
    cells = [lt.RateCell(M, N), lt.RateCell(M, N)]
    for cell, clip in zip(cells, (None, 1e-3), strict=True):
        lt.floss(cell, torch.ones(25, 1, M), epochs=5, clip=clip, **QUICK)
    assert not torch.equal(cells[0].weight_hh, cells[1].weight_hh)


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
def test_torchs_networks_are_flossed_in_place(kind):
    rnn, inputs = kind(M, N), drive()
    before = {name: (p, p.detach().clone()) for name, p in rnn.named_parameters()}
    start = distance(rnn, inputs, 0.0)
    lt.floss(rnn, inputs, epochs=40, **QUICK)
    for name, p in rnn.named_parameters():
        assert p is before[name][0]
        assert not torch.equal(p, before[name][1])
    assert distance(rnn, inputs, 0.0) < 0.3 * start


def test_a_function_with_a_closed_over_parameter():
    W = torch.eye(N).mul(0.3).requires_grad_()
    fixed = torch.randn(N, M)

    def step(x, h):
        return torch.tanh(h @ W.mT + x @ fixed.mT)

    inputs, h0 = drive(), torch.zeros(2, N)
    start = distance(step, inputs, 0.0, h0=h0)
    lt.floss(step, inputs, h0=h0, epochs=60, **QUICK)
    assert not torch.equal(W, 0.3 * torch.eye(N))
    assert distance(step, inputs, 0.0, h0=h0) < 0.3 * start


def test_a_trained_number_of_the_activation_is_flossed_too():
    steep = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": nn.Parameter(torch.tensor(1.1))})
    lt.floss(lt.RateCell(M, N, activation=steep), drive(), epochs=2, **QUICK)
    assert steep.a.item() != pytest.approx(1.1)


def test_a_value_is_the_one_before_its_step_and_h0_and_steps_are_used():
    cell, inputs, h0 = lt.RateCell(M, N, ensemble=(2,)), drive(t=40), torch.randn(2, 2, N)
    kw = {**QUICK, "lr": 0.0}
    short = lt.floss(cell, inputs[:25], h0=h0, epochs=2, **kw)
    assert short["exponents"].shape == (2, 2, 3)
    assert short["floss_loss"].shape == (2, 2)
    assert short.variables["exponents"].dims == ("member", "floss_epoch", "index")
    assert short.kind == "floss"
    assert short == lt.floss(cell, inputs, h0=h0, epochs=2, **kw)
    assert short != lt.floss(cell, inputs, epochs=2, **kw)
    full = lt.floss(cell, inputs[:25], h0=h0, epochs=1, **{**kw, "k": N, "tangent_transient": 0})
    # the sum of all exponents is the mean log |det D|, whatever the frame
    expected = lt.lyapunov_spectrum(cell, inputs[:25], h0=h0).exponents.sum(-1).mean(-1).detach()
    torch.testing.assert_close(torch.tensor(full["exponents"][:, 0].sum(-1)), expected, rtol=1e-5, atol=1e-5)
    first = torch.tensor(short["exponents"][:, 0])
    one = lt.floss(cell, inputs[:, :1], h0=h0[:, :1], epochs=1, **kw)
    two = lt.floss(cell, inputs[:, 1:], h0=h0[:, 1:], epochs=1, **kw)
    mean = torch.tensor(one["exponents"] + two["exponents"])[:, 0] / 2
    torch.testing.assert_close(first, mean, rtol=1e-5, atol=1e-5)


def test_frames_are_redrawn_or_fixed_and_a_task_is_drawn_anew():
    cell, task = lt.RateCell(1, N), TemporalXOR(4)
    # one interval, because another one rounds differently
    kw = {**QUICK, "lr": 0.0, "epochs": 3, "interval": 1}

    def spread(inputs, **more):
        rows = lt.floss(cell, inputs, **kw, **more)["exponents"][0]
        return (rows.max(0) - rows.min(0)).max()

    zeros = torch.zeros(25, 1, 1)
    assert spread(zeros, frame="fixed") == 0
    assert spread(zeros, frame="redrawn") > 1e-4
    assert spread(task, frame="fixed") > 1e-4
    seeds = [torch.Generator().manual_seed(s) for s in (1, 1, 2)]
    one, same, other = (lt.floss(cell, task, **kw, generator=g)["exponents"] for g in seeds)
    assert (one == same).all()
    assert (one != other).all()


def test_the_published_k_is_75_or_all():
    cell = lt.RateCell(1, 80)
    kw = {"epochs": 1, "steps": 4, "tangent_transient": 1}
    assert lt.floss(cell, TemporalXOR(4), **kw)["exponents"].shape == (1, 1, 75)
    assert lt.floss(lt.RateCell(1, N), TemporalXOR(4), **kw)["exponents"].shape == (1, 1, N)


def frozen():
    return lt.RateCell(1, N).requires_grad_(False)


def shared():
    """An ensemble whose members share the steepness of their activation."""
    steep = lt.Activation(lambda x, a: torch.tanh(a * x), parameters={"a": nn.Parameter(torch.tensor(1.1))})
    return lt.RateCell(1, N, ensemble=(3,), activation=steep)


@pytest.mark.parametrize(
    ("cell", "given", "message"),
    [
        (frozen, {}, "there is nothing to floss: no parameter of the cell has requires_grad; set it"),
        (
            lambda: lambda x, h: 0.5 * h + x[..., :1],
            {"inputs": torch.zeros(25, 1, 1), "h0": torch.zeros(1, N)},
            "nothing",
        ),
        (
            shared,
            {},
            r"parameter activation.a must have the leading dimensions \(3,\) of the ensemble, got \(\)",
        ),
        (
            None,
            {"inputs": torch.zeros(24, 1, 1)},
            "inputs must hold steps=25 steps, got 24; pass fewer steps",
        ),
        (None, {"inputs": torch.zeros(25, 1, 3)}, "inputs must have 1 channels for this cell, got 3"),
        (None, {"k": N + 1}, r"k must be an integer in 1\.\.8, got 9; a state of size 8 has 8 exponents"),
        (None, {"k": 0}, r"k must be an integer in 1\.\.8, got 0"),
        (None, {"steps": 5}, r"tangent_transient must be an integer in 0\.\.4, got 5"),
        (None, {"reduction": "none"}, "unknown reduction 'none'"),
        (None, {"frame": "fix"}, "unknown frame 'fix', did you mean 'fixed'"),
        (None, {"state_grad": "ful"}, "unknown state_grad 'ful', did you mean 'full'"),
        (None, {"lr": torch.ones(2)}, r"lr must be a number or have the ensemble's shape \(\), got \(2,\)"),
        (None, {"target": torch.ones(2)}, r"target must be a number, a spectrum .* \*e = \(\), got \(2,\)"),
        (None, {"clip": torch.ones(2)}, r"clip must be a number or have the ensemble's shape \(\)"),
        (None, {"member_ids": torch.arange(2)}, r"member_ids must have shape \*e = \(\), got \(2,\)"),
        (lambda: nn.LSTM(1, N, proj_size=2), {}, "as_cell takes a torch.nn.LSTM without projection"),
    ],
)
def test_what_cannot_be_flossed_says_why(cell, given, message):
    cell = lt.RateCell(1, N) if cell is None else cell()
    kw = {**QUICK, "epochs": 1, "inputs": TemporalXOR(4), **given}
    with pytest.raises(ValueError, match=message):
        lt.floss(cell, kw.pop("inputs"), **kw)


def test_a_keyword_that_floss_does_not_know():
    with pytest.raises(TypeError, match="epoch"):
        lt.floss(lt.RateCell(1, N), TemporalXOR(4), epoch=3)


def test_dynamics_that_overflow_name_the_epoch():
    cell = lt.RateCell(1, N, activation="linear", gain=1e30)
    with pytest.raises(FloatingPointError, match=r"at flossing epoch 0: the state is not finite after step"):
        lt.floss(cell, TemporalXOR(4), epochs=1, **QUICK)


class Leaky(nn.Module):
    """A network with a gain and a time constant for each unit, of which alone are trained."""

    def __init__(self, n):
        super().__init__()
        self.register_buffer("W", 1.5 * torch.randn(n, n) / n**0.5)
        self.gain = nn.Parameter(0.5 + torch.rand(n))
        self.log_tau = nn.Parameter(torch.rand(n))

    def forward(self, x, h):
        rate = torch.exp(-self.log_tau)
        return (1 - rate) * h + rate * (torch.tanh(self.gain * h) @ self.W.mT + x)


def gated_with_unit_parameters(n):
    """Forget biases of an LSTM, shared by nobody: time constants by another name."""
    cell = lt.LSTMCell(1, n // 2, gain=2.0)
    for name, p in cell.named_parameters():
        p.requires_grad_(name == "bias_hh")
    return cell


@pytest.mark.parametrize("make", [Leaky, gated_with_unit_parameters])
def test_exponents_of_single_unit_parameters_against_finite_differences(double, make):
    """Central differences of step e: errors of about e^2 and eps / e, both 1e-10 at e = 1e-5."""
    network, inputs, h0, frame = make(6), torch.randn(20, 2, 1), 0.3 * torch.randn(2, 6), random_frame(6, 3)

    def exponents():
        return lt.lyapunov_spectrum(network, inputs, h0=h0, k=3, frame=frame, interval=2).exponents

    weights = torch.randn(2, 3)
    wanted = [p for p in network.parameters() if p.requires_grad]
    bars = torch.autograd.grad((weights * exponents()).sum(), wanted)
    for p, bar in zip(wanted, bars, strict=True):
        for i in range(len(p)):
            values = []
            for e in (1e-5, -1e-5):
                with torch.no_grad():
                    p[i] += e
                    values.append((weights * exponents()).sum())
                    p[i] -= e
            assert bar[i].item() == pytest.approx((values[0] - values[1]).item() / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("make", [Leaky, gated_with_unit_parameters])
def test_flossing_single_unit_parameters_leaves_all_else_alone(double, make):
    network = make(6)
    before = {name: w.clone() for name, w in network.state_dict().items()}
    wanted = {name for name, p in network.named_parameters() if p.requires_grad}
    record = lt.floss(
        network,
        torch.randn(12, 1, 1),
        h0=torch.zeros(1, 6),
        k=1,
        epochs=10,
        lr=5e-2,
        steps=12,
        tangent_transient=2,
        target=-0.05,
        frame="fixed",
    )
    assert record["floss_loss"][0, -1] < 0.5 * record["floss_loss"][0, 0]
    for name, w in network.state_dict().items():
        assert torch.equal(w, before[name]) != (name in wanted)


def test_a_rectified_network_that_starts_silent_is_not_flossed_in_silence(double):
    cell, task = lt.RateCell(1, N, activation="relu", ensemble=(2,)), TemporalXOR(4)
    settings = {"k": 1, "epochs": 2, "steps": 10, "tangent_transient": 2}
    with pytest.warns(
        UserWarning, match=r"every tangent vector of member \[0, 1\] dies .* pass an h0 that opens"
    ):
        lt.floss(cell, task, **settings)
    h0 = torch.rand(2, 1, N)
    record = lt.floss(cell, task, h0=h0, **settings)
    assert torch.isfinite(torch.tensor(record["exponents"])).all()


def intervals(monkeypatch):
    """Those that are taken, in their order."""
    taken, laid = [], flossing.layout

    def watched(wait, t, interval, device):
        taken.append(interval)
        return laid(wait, t, interval, device)

    monkeypatch.setattr(flossing, "layout", watched)
    return taken


SCANNED = {"k": 8, "steps": 40, "tangent_transient": 10, "batch": 2, "show_progress": False}


@pytest.mark.parametrize("kind", [lt.RateCell, pytest.param(lt.LSTMCell, marks=pytest.mark.slow)])
def test_an_automatic_interval_changes_nothing_but_round_off(kind, double, monkeypatch):
    found = []
    for interval in (1, "auto"):
        taken, cell = intervals(monkeypatch), kind(1, 12, ensemble=(2,))
        record = lt.floss(cell, TemporalXOR(4), epochs=24, lr=3e-3, interval=interval, **SCANNED)
        found.append([torch.tensor(record["exponents"]), *cell.parameters()])
        monkeypatch.undo()
    # chosen after the first step, and after those of epochs 10 and 20
    assert taken[0] == 1
    assert max(taken) > 1
    assert len(set(taken[1:11])) == len(set(taken[11:21])) == len(set(taken[21:])) == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("member", range(6))
def test_two_thirds_of_the_digits_are_left_in_single_precision(member, monkeypatch):
    """Without steps of training, in which round-off grows whatever the interval."""
    exact, cell = lt.RateCell(1, 12, member_ids=member), lt.RateCell(1, 12, member_ids=member)
    expected = lt.floss(exact.double(), TemporalXOR(4), epochs=3, lr=0.0, interval=1, **SCANNED)
    taken = intervals(monkeypatch)
    found = lt.floss(cell, TemporalXOR(4), epochs=3, lr=0.0, **SCANNED)
    assert min(taken[1:]) > 1
    distance = torch.tensor(found["exponents"] - expected["exponents"]).abs().max()
    assert distance <= torch.finfo(torch.float32).eps ** (2 / 3)


def test_a_phase_begins_with_an_interval_of_its_own(monkeypatch):
    """Training in between may have spread the growth: what one phase found says nothing of the next."""
    taken, task = intervals(monkeypatch), TemporalXOR(4)
    model = lt.Model(lt.RateCell(1, N), lt.Readout(N, 1), loss=task.loss)
    phase = lt.FlossPhase(3, k=3, steps=25, tangent_transient=5)
    lt.train(model, task, (phase, lt.FitPhase(2), phase), batch=2, steps=10)
    assert len(taken) == 6
    assert taken[0] == taken[3] == 1
    assert min(taken[1:3] + taken[4:]) > 1


def test_columns_that_die_do_not_shorten_an_automatic_interval(monkeypatch):
    """Rectified units: of what died nothing can be lost."""
    taken = intervals(monkeypatch)
    cell = lt.RateCell(1, N, activation="relu")
    with torch.no_grad():
        cell.weight_hh.copy_(torch.eye(N))
        cell.bias.copy_(torch.where(torch.arange(N) < 4, 0.1, -5.0))
    record = lt.floss(cell, torch.zeros(25, 1, 1), h0=torch.ones(1, N), k=N, epochs=3, steps=25, lr=1e-4)
    assert (record["exponents"][0, -1] == -torch.inf).any()
    assert taken[1] > 1


@pytest.mark.slow
def test_flossed_spectra_and_accuracies_do_not_depend_on_the_interval(monkeypatch):
    """Chaos of the training blows round-off up: over twins the mean difference is 0 within its error."""
    found, task, kind = {1: [], "auto": []}, TemporalXOR(10), {"k": 24, "steps": 40, "tangent_transient": 10}
    # five at a time: an ensemble shares the shortest of its intervals
    for interval, ids in itertools.product(found, torch.arange(20).split(5)):
        taken = intervals(monkeypatch)
        model = lt.presets.gf2023(task, hidden_size=32, ensemble=(5,), member_ids=ids)
        schedule = (lt.FlossPhase(200, interval=interval, **kind), lt.FitPhase(300))
        record = lt.train(model, task, schedule, batch=16, steps=60, member_ids=ids, show_progress=False)
        accuracy = torch.tensor(record["accuracy"])[:, -50:].mean(1)
        found[interval].append((torch.tensor(record["exponents"])[:, -1], accuracy))
        monkeypatch.undo()
    assert max(taken) > 2
    found = {interval: map(torch.cat, zip(*parts, strict=True)) for interval, parts in found.items()}
    for one, auto in zip(found[1], found["auto"], strict=True):
        assert torch.isfinite(auto).all()
        # 4 standard errors are what 24 exponents of 20 pairs exceed by chance in one run of 50
        apart, error = (one - auto).mean(0).abs(), (one - auto).std(0) / 20**0.5
        assert (apart <= 4 * error + 1e-3).all()
