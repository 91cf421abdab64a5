"""Model, its initial state, selections of it, and the published network."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from cases import M, N, every, setup
from lyaptorch._random import Stream, seed_from
from lyaptorch.cells import unroll
from lyaptorch.tasks import Batch, TemporalXOR
from lyaptorch.training import PRESETS, settled_state
from lyaptorch.training.presets import gf2023

pytestmark = pytest.mark.usefixtures("double")
ENSEMBLES = [(), (3,), (2, 3)]


def make(ensemble=(), *, h0=None, n=N, m=M, out=2, **kw):
    return lt.Model(lt.RateCell(m, n, ensemble=ensemble), lt.Readout(n, out, ensemble=ensemble), h0=h0, **kw)


def by_hand(model, inputs, h):
    """Outputs `(t, *e, b, o)` step by step."""
    outputs = []
    for x in inputs:
        h = model.cell.step(x, h)
        outputs.append((model.readout.weight @ h.mT).mT + model.readout.bias.unsqueeze(-2))
    return torch.stack(outputs)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_outputs_are_the_readout_of_the_state_after_each_step(ensemble):
    model, inputs = make(ensemble), torch.randn(7, *ensemble, 5, M)
    outputs = model(inputs)
    assert outputs.shape == (7, *ensemble, 5, 2)
    torch.testing.assert_close(outputs, by_hand(model, inputs, torch.zeros(*ensemble, 5, N)))
    # a missing ensemble broadcasts
    common = inputs[(slice(None), *[0] * len(ensemble))]
    assert model(common).shape == outputs.shape
    torch.testing.assert_close(model(common), model(common.expand(*ensemble, 7, 5, M).movedim(-3, 0)))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_each_trajectory_starts_from_its_row_of_h0(ensemble):
    inputs, h0 = torch.randn(7, *ensemble, 4, M), torch.randn(*ensemble, 6, N)
    model = make(ensemble, h0=h0)
    torch.testing.assert_close(model(inputs), by_hand(model, inputs, h0[..., :4, :]))
    single = make(ensemble, h0=h0[..., 2:3, :])
    start = h0[..., 2:3, :].expand(*ensemble, 4, N)
    torch.testing.assert_close(single(inputs), by_hand(single, inputs, start))


def test_only_a_parameter_is_trained_but_both_are_saved():
    fixed, trained = make(h0=torch.randn(4, N)), make(h0=nn.Parameter(torch.randn(4, N)))
    assert "h0" not in dict(fixed.named_parameters())
    assert "h0" in dict(trained.named_parameters())
    assert "h0" in fixed.state_dict()
    assert "h0" in trained.state_dict()
    trained(torch.randn(5, 3, M)).square().sum().backward()
    assert (trained.h0.grad[:3] != 0).any()
    assert (trained.h0.grad[3] == 0).all()


@pytest.mark.parametrize("whole", [False, True])
def test_an_initial_state_in_parts_is_trained_when_a_part_is_a_parameter(whole):
    parts = (nn.Parameter(torch.ones(2, 1, N)), torch.zeros(2, 1, N))
    cell, readout = lt.LSTMCell(1, N, ensemble=(2,)), lt.Readout(N, 1, ensemble=(2,))
    model = lt.Model(cell, readout, h0=tuple(map(nn.Parameter, parts)) if whole else parts)
    assert "h0" in dict(model.named_parameters())
    schedule = (lt.FlossPhase(1, k=2, who=torch.tensor([True, False])), lt.FitPhase(2))
    lt.train(model, lt.tasks.TemporalXOR(2), schedule, batch=2, steps=12, metrics=("covariant_overlap",))
    assert (model.h0 != torch.cat(parts, -1)).any((-2, -1)).all()
    frozen = nn.Parameter(torch.ones(2, 1, N), requires_grad=False)
    assert not lt.Model(cell, readout, h0=(frozen, parts[1])).h0.requires_grad


def test_an_h0_that_looks_trained_and_is_not_is_refused():
    start = torch.ones(4, N, requires_grad=True)
    with pytest.raises(ValueError, match=r"h0 must be an nn\.Parameter to be trained, .* pass nn\.Parameter"):
        make(h0=start)
    assert not make(h0=start.detach()).h0.requires_grad


def test_a_batch_beyond_the_rows_of_h0():
    message = "batch must be at most 4, the rows of the trained initial state, got 5; give h0 more rows"
    with pytest.raises(ValueError, match=message):
        make(h0=torch.zeros(4, N))(torch.zeros(3, 5, M))


@pytest.mark.parametrize(
    ("ensemble", "shape"), [((), (4, N + 1)), ((), (N,)), ((3,), (4, N)), ((3,), (2, 4, N)), ((), (3, 4, N))]
)
def test_an_h0_that_does_not_fit_the_cell(ensemble, shape):
    with pytest.raises(ValueError, match=r"h0 must have shape \(\*e, rows, n\) = .*, got "):
        make(ensemble, h0=torch.zeros(shape))


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown loss 'binary_crossentropy', did you mean 'binary_cross_en"
    ):
        make(loss="binary_crossentropy")


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_loss_counts_the_steps_of_the_mask_alone(ensemble):
    model, t, b = make(ensemble), 6, 3
    batch = Batch(
        torch.randn(t, *ensemble, b, M),
        (torch.rand(t, *ensemble, b, 2) < 0.5).double(),
        torch.rand(t, *ensemble) < 0.6,
    )
    z = model(batch.inputs)
    loss, right = model.loss(batch)
    assert loss.shape == right.shape == ensemble
    for index in map(tuple, torch.ones(ensemble).nonzero().tolist()):
        own = (slice(None), *index)
        mask = batch.mask[own]
        p = torch.sigmoid(z[own][mask])
        y = batch.targets[own][mask]
        torch.testing.assert_close(loss[index], -(y * p.log() + (1 - y) * (1 - p).log()).mean())
        torch.testing.assert_close(right[index], ((p > 0.5) == (y == 1)).double().mean())
    assert not right.requires_grad


@pytest.mark.parametrize("readout", [lt.Readout, nn.Linear])
def test_a_state_that_overflows_in_the_padding_is_not_read_out(readout):
    cell = lt.RateCell(1, N, activation="linear")
    with torch.no_grad():
        cell.weight_hh.copy_(1e3 * torch.eye(N))
        cell.bias.zero_()
    model = lt.Model(cell, readout(N, 1), loss="mean_squared_error").double()
    x, y, mask = torch.ones(200, 2, 1).double(), torch.zeros(200, 2, 1).double(), torch.zeros(200, 2).bool()
    x[:, 0], y[3], mask[3] = 0.0, 1.0, True
    batch = lt.Batch(x, y, mask, lengths=torch.tensor([200, 4]))
    (loss, right), (expected, _) = model.loss(batch), model.loss(lt.Batch(x[:4], y[:4], mask[:4]))
    torch.testing.assert_close(loss, expected)
    assert right == -torch.inf


def test_a_readout_that_does_not_answer_like_the_targets():
    batch = Batch(torch.zeros(6, 3, M), torch.zeros(6, 3, 1), torch.ones(6, dtype=torch.bool))
    message = r"the readout must answer like the targets, \(6, 3, 1\), got \(6, 3, 2\)"
    with pytest.raises(ValueError, match=message):
        make().loss(batch)


MASKS = {(3,): torch.tensor([True, False, True]), (2, 3): torch.tensor([[1, 0, 1], [0, 0, 1]]).bool()}


@pytest.mark.parametrize("ensemble", list(MASKS))
@pytest.mark.parametrize("trained", [False, True])
def test_a_selection_is_a_copy_of_some_members_and_is_put_back(ensemble, trained):
    mask, h0 = MASKS[ensemble], torch.randn(*ensemble, 4, N)
    model = make(ensemble, h0=nn.Parameter(h0) if trained else h0)
    inputs = torch.randn(7, *ensemble, 4, M)
    before = [p.detach().clone() for p in model.parameters()]
    part = model.select(mask)
    count = int(mask.sum())
    assert part.ensemble == part.cell.ensemble == (count,)
    torch.testing.assert_close(part(inputs[:, mask]), model(inputs)[:, mask])
    assert model.ensemble == ensemble

    with torch.no_grad():
        for p in part.parameters():
            p += 1
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    model.put(mask, part)
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p[mask], q[mask] + 1)
        assert torch.equal(p[~mask], q[~mask])
    torch.testing.assert_close(part(inputs[:, mask]), model(inputs)[:, mask])


def test_a_parameter_of_all_members_cannot_be_selected():
    model = lt.Model(lt.RateCell(M, N, ensemble=(3,)), nn.Linear(N, 1))
    with pytest.raises(
        ValueError,
        match=r"parameter readout.weight must have the leading dimensions \(3,\) of the ensemble, got",
    ):
        model.select(MASKS[3,])


@every()
def test_unroll_by_hand_is_unroll_by_autograd(case, ensemble):
    """States and the gradients of inputs, h0 and weights; cells without a Form take one path twice."""
    cell, inputs, h0 = setup(case, ensemble)
    wanted = [inputs.requires_grad_(), h0.requires_grad_(), *cell.leaves(inputs[0], h0)]
    cotangent, found = torch.randn(*inputs.shape[:-1], N), []
    for plain in (False, True):
        states = unroll(cell, inputs, h0, plain=plain)
        bars = torch.autograd.grad(states, wanted, cotangent, allow_unused=True, materialize_grads=True)
        found.append((states.detach(), *bars))
    for one, two in zip(*found, strict=True):
        # 8 steps of a handful of sums: some hundred roundings
        assert (one - two).abs().max() <= 1e-12 * two.abs().max().clamp_min(1.0)
    assert all(bar.abs().max() > 0 for bar in found[0][1:3])


def test_weights_and_h0_of_the_published_network_have_the_published_moments():
    gain = torch.linspace(0.5, 2.0, 10)
    model = gf2023(TemporalXOR(30), ensemble=(10,), gain=gain)
    n = 80
    assert (model.cell.state_size, model.cell.input_size, model.loss_name) == (n, 1, "binary_cross_entropy")
    assert model.h0.shape == (10, 16, n)
    W = model.cell.weight_hh * math.sqrt(n) / gain[:, None, None]
    for draws in (W, model.cell.weight_ih, model.readout.weight):
        count = draws.numel()
        # mean and variance of count standard normal draws, within 5 standard errors
        assert abs(draws.mean().item()) < 5 / count**0.5
        assert abs(draws.var().item() - 1) < 5 * (2 / count) ** 0.5
    b = model.cell.bias
    assert 0 <= b.min() < 0.01
    assert 0.09 < b.max() < 0.1
    assert abs(b.mean().item() - 0.05) < 5 * 0.1 / 12**0.5 / b.numel() ** 0.5
    assert torch.equal(model.readout.bias, torch.full((10, 1), 1e-3))
    assert all(p.requires_grad for p in model.parameters())
    assert len(list(model.parameters())) == 6
    assert torch.tanh(torch.tensor(0.3)) == model.cell.activation(torch.tensor(0.3))


def test_the_published_initial_state_has_settled_for_100_steps():
    model = gf2023(TemporalXOR(4), hidden_size=N, rows=3, gain=0.2, ensemble=(2,))
    rest = torch.zeros(2, 3, 1)
    # contracting by at least 0.8 each step, 100 steps leave at most 1e-9 of N(0, 1); there it stays
    assert (model.cell.step(rest, model.h0) - model.h0).abs().max() < 1e-9
    wild = gf2023(TemporalXOR(4), hidden_size=N, rows=3, gain=3.0, ensemble=(2,), generator=seeded(1))
    assert (wild.h0[:, 0] - wild.h0[:, 1]).abs().max() > 0.01

    start = Stream(seed_from(seeded(5)), "h0").normal((3, N), member_ids=torch.arange(2))
    h = start.clone()
    for _ in range(100):
        h = torch.tanh(h) @ wild.cell.weight_hh.mT + wild.cell.bias.unsqueeze(-2)
    settled = settled_state(wild.cell, 3, generator=seeded(5))
    assert isinstance(settled, nn.Parameter)
    # a hundred steps of a possibly chaotic map: rounding grows
    torch.testing.assert_close(settled.detach(), h.detach(), rtol=1e-6, atol=1e-6)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_member_of_the_published_ensemble_is_the_same_alone():
    ids = torch.tensor([[3, 0, 3], [1, 4, 7]])
    kw = {"hidden_size": N, "rows": 2}
    together = gf2023(TemporalXOR(4), ensemble=(2, 3), member_ids=ids, generator=seeded(2), **kw)
    for index in map(tuple, torch.ones(2, 3).nonzero().tolist()):
        alone = gf2023(TemporalXOR(4), member_ids=ids[index], generator=seeded(2), **kw)
        for p, q in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p[index], q, rtol=1e-12, atol=1e-14)
    first, again, other = (gf2023(TemporalXOR(4), generator=g, **kw) for g in (None, None, seeded(9)))
    assert torch.equal(first.cell.weight_hh, again.cell.weight_hh)
    assert not torch.equal(first.cell.weight_hh, other.cell.weight_hh)
    assert PRESETS["gf2023"] is gf2023


def test_cross_entropy_is_torchs_and_counts_the_class_that_is_named():
    class Shows(nn.Module):
        def forward(self, states):
            return states

    model = lt.Model(lambda x, h: x, Shows(), h0=torch.zeros(1, 3), loss="cross_entropy")
    logits, named = torch.randn(6, 2, 3), torch.randint(3, (6, 2))
    targets = nn.functional.one_hot(named, 3).to(logits.dtype)
    mask = torch.arange(6) > 1
    loss, accuracy = model.loss(lt.tasks.Batch(logits, targets, mask))
    expected = nn.functional.cross_entropy(logits[2:].flatten(0, 1), named[2:].flatten())
    torch.testing.assert_close(loss, expected)
    right = (logits[2:].argmax(-1) == named[2:]).to(logits.dtype).mean()
    torch.testing.assert_close(accuracy, right)
    assert 0 < accuracy < 1
