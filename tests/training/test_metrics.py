"""What is measured of networks in training, the penalties, and the optimisers' options, against formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lyaptorch as lt
from lyaptorch import FitPhase, FlossPhase
from lyaptorch._random import seed_from
from lyaptorch.schedules.loss import PENALTIES
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import metrics, work
from lyaptorch.training.ensemble import new_ensemble
from lyaptorch.training.optim import SGD, MemberOptimizer, clip
from reference import differences, jacobian
from trained import (
    ENSEMBLES,
    EXACT,
    LENGTH,
    ROWS,
    SCAN,
    TASK,
    N,
    gradients,
    indices,
    make,
    numbers,
    parameters,
    run,
    seeded,
)

pytestmark = pytest.mark.usefixtures("double")
n, B, T, K = 4, 2, 7, 3


def network(kind=lt.RateCell, ensemble=(), gain=1.5, **kw):
    cell = kind(1, n, gain=gain, ensemble=ensemble, weights="gaussian", **kw)
    h0 = nn.Parameter(torch.randn(*ensemble, B, n))
    return lt.Model(cell, lt.Readout(n, 1, ensemble=ensemble), h0=h0)


def batch_for(model, length=T):
    ids = torch.arange(2) if model.ensemble else torch.tensor(0)
    return TemporalXOR(2).draw(Draw(1, length, B, member_ids=ids))


both = pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
each = pytest.mark.parametrize("ensemble", [(), (2,)])


@both
@each
def test_the_gradients_of_the_loss_that_are_measured(kind, ensemble):
    model = network(kind, ensemble)
    batch = batch_for(model)

    expected = differences(lambda: model.loss(batch)[0], model.h0, ensemble).norm(dim=(-2, -1))
    assert (expected > 1e-3).all()
    torch.testing.assert_close(metrics.initial_gradient_norm(model, batch), expected, rtol=1e-6, atol=0)
    gradient = differences(lambda: model.loss(batch)[0], model.cell.weight_hh, ensemble)
    singular = np.linalg.svd(gradient.numpy(), compute_uv=False)
    found = metrics.recurrent_singular_values(model, batch)
    np.testing.assert_allclose(found.numpy(), singular, atol=1e-9)
    expected = (singular**2).sum(-1) ** 2 / (singular**4).sum(-1)
    np.testing.assert_allclose(metrics.effective_rank(found).numpy(), expected, rtol=1e-6)


def test_the_initial_gradient_of_a_state_that_is_not_trained():
    model = lt.Model(lt.RateCell(1, n), lt.Readout(n, 1))
    batch, h0 = batch_for(model), torch.zeros(B, n)
    expected = differences(lambda: model.loss(batch, h0)[0], h0, ()).norm()
    torch.testing.assert_close(metrics.initial_gradient_norm(model, batch), expected, rtol=1e-6, atol=0)


@each
def test_the_overlap_that_is_measured_is_that_of_the_whole_trial(ensemble):
    """The gradient with respect to a state, of the loss of the last step."""
    model = network(lt.RateCell, ensemble)
    batch = batch_for(model, length=30)
    found = metrics.covariant_overlap(model, batch)
    vectors = lt.covariant_vectors(
        model.cell, batch.inputs, k=1, h0=model.h0.detach(), tangent_transient=10, backward_transient=19
    )
    states = [model.h0.detach()]
    for x in batch.inputs:
        states.append(model.cell.step(x, states[-1]).detach())
        if len(states) == 11:
            states[-1].requires_grad_()
    chain = [*states[:10], middle := states[10]]
    for x in batch.inputs[10:]:
        chain.append(model.cell.step(x, chain[-1]))
    outputs = model.readout(torch.stack(chain[1:]))
    error = nn.functional.binary_cross_entropy_with_logits(outputs, batch.targets, reduction="none")
    mask = batch.mask[..., None, None].double()
    assert mask[-1].all()
    (gradient,) = torch.autograd.grad(error[-1].sum(), middle)
    expected = vectors.overlap(gradient.unsqueeze(0))[0].mean((-2, -1))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_overlap_is_a_mean_over_trajectories_that_have_not_ended():
    model = network()
    batch = batch_for(model, length=30)
    model.h0 = nn.Parameter(model.h0[:1].detach().clone())
    batch = lt.Batch(batch.inputs[:, :1].repeat(1, 2, 1), batch.targets[:, :1].repeat(1, 2, 1), batch.mask)
    expected = metrics.covariant_overlap(model, batch)
    short = lt.Batch(batch.inputs, batch.targets, batch.mask, lengths=torch.tensor([30, 5]))
    assert expected > 0
    torch.testing.assert_close(metrics.covariant_overlap(model, short), expected)


def test_the_overlap_of_members_that_see_the_same_inputs():
    model = network(ensemble=(2,))
    batch = batch_for(model, length=30)
    own = batch.inputs[:, :1].expand_as(batch.inputs)
    expected = metrics.covariant_overlap(model, lt.Batch(own, batch.targets, batch.mask))
    found = metrics.covariant_overlap(model, lt.Batch(batch.inputs[:, 0], batch.targets, batch.mask))
    torch.testing.assert_close(found, expected)


def slopes(model, batch):
    """phi' of every step `(t, *e, b, n)`, from plain loops: at h for a rate network, at a for Elman's."""
    h, found = model.h0, []
    for x in batch.inputs:
        after = model.cell.step(x, h)
        found.append(1 - (after if isinstance(model.cell, lt.ElmanCell) else torch.tanh(h)) ** 2)
        h = after
    return torch.stack(found).detach()


@both
@each
def test_the_share_of_saturated_units(kind, ensemble):
    batch = batch_for(model := network(kind, ensemble, gain=3.0))
    expected = (slopes(model, batch) < 0.1).double().mean((0, -2, -1))
    assert ((expected > 0.1) & (expected < 0.9)).all()
    torch.testing.assert_close(metrics.saturated_share(model, batch), expected)
    linear = network(kind, ensemble, activation="linear")
    assert (metrics.saturated_share(linear, batch) == 0).all()


@both
@each
def test_measured_exponents_add_up_to_the_mean_of_log_det(kind, ensemble):
    model = network(kind, ensemble)
    members = new_ensemble(model, None, 1e-3, lt.Adam())
    members.epoch += 5
    found = metrics.measured_exponents(members, TASK, 3)
    x = TASK.inputs(Draw(3, metrics.STEPS, member_ids=members.ids, epoch=5, stream="measure"))
    h, logs = model.h0[..., :1, :].detach(), []
    for x_t in x:
        logs.append(torch.linalg.slogdet(jacobian(model.cell, x_t, h)).logabsdet)
        h = model.cell.step(x_t, h).detach()
    expected = torch.stack(logs)[metrics.TRANSIENT :].mean(0)[..., 0]
    torch.testing.assert_close(found.sum(-1), expected, rtol=1e-10, atol=0)
    first = metrics.measured_exponents(members, TASK, 3, k=1)[..., 0]
    torch.testing.assert_close(first, found[..., 0], rtol=1e-9, atol=0)
    assert not found.requires_grad


@each
def test_the_curvature_that_is_measured_is_that_of_the_dense_hessian(ensemble):
    """On test trajectories, with respect to W, whatever the epoch; in float64 of a float32 network."""
    model = network(lt.ElmanCell, ensemble)
    members = new_ensemble(model.float(), None, 1e-3, lt.Adam())
    members.epoch += 5
    found = metrics.leading_curvature(members, TASK, 3, sample=B, steps=T)
    assert found.dtype == torch.float64
    assert next(model.parameters()).dtype == torch.float32
    model.double()
    batch = TASK.draw(Draw(3, T, B, member_ids=members.ids, stream="test"))
    W = model.cell.weight_hh

    def loss(flat):
        h, states = model.h0, []
        for x in batch.inputs:
            h = torch.func.functional_call(model.cell, {"weight_hh": flat.view_as(W)}, (x, h))
            states.append(h)
        return model.score(batch, torch.stack(states))[0].sum()

    dense = torch.autograd.functional.hessian(loss, W.detach().flatten())
    for i, value in enumerate(found.flatten()):
        own = torch.linalg.eigvalsh(dense[i * n * n : (i + 1) * n * n, i * n * n : (i + 1) * n * n])
        # ten steps of the iteration leave some error in the sixteen weights
        assert value.item() == pytest.approx(own[own.abs().argmax()].item(), rel=1e-4)


def test_metrics_in_a_record_are_those_of_the_networks_before_the_step():
    model, fresh = make((2,)), make((2,))
    record = run(
        model,
        FlossPhase(2, k=2, **SCAN, lr=0.0),
        FitPhase(5),
        metrics=metrics.METRICS,
        metrics_every=2,
        test_batches=2,
    )
    assert record["measured_at"].tolist() == [[0, 2, 4]] * 2
    seed, members = seed_from(seeded(7)), new_ensemble(fresh, None, 1e-3, lt.Adam())
    batch = TASK.draw(Draw(seed, LENGTH, ROWS, member_ids=members.ids))
    for name, value in metrics.measure(members, batch, metrics.METRICS, TASK, seed, 2).items():
        np.testing.assert_array_equal(record[name][:, 0], value.detach().numpy())
        assert record[name].shape == (2, 3, *value.shape[1:])


class Normed(nn.Module):
    """A readout that keeps running means while it trains, and drops half of what it reads."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.out = nn.BatchNorm1d(N), nn.Dropout(0.5), nn.Linear(N, 1)

    def forward(self, h):
        return self.out(self.drop(self.norm(h.flatten(0, -2)).reshape(h.shape)))


def test_metrics_measure_a_network_as_evaluate_does_and_leave_its_running_means():
    names = ("test", "initial_gradient_norm", "singular_values", "effective_rank", "covariant_overlap")
    model = lt.Model(lt.RateCell(1, N), Normed()).train()
    expected = lt.evaluate(model, TASK, batch=ROWS, steps=LENGTH, batches=2, generator=seeded(7))
    networks = new_ensemble(model, None, 1e-3, SGD())
    before = {name: z.clone() for name, z in model.state_dict().items()}
    batch = TASK.draw(Draw(0, LENGTH, ROWS))
    found, again = (
        metrics.measure(networks, batch, (*names, "curvature"), TASK, seed_from(seeded(7)), 2) for _ in "ab"
    )
    assert found["test_loss"].item() == expected["loss"].item()
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert all(torch.equal(before[name], z) for name, z in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_cell_that_cannot_be_measured_or_penalised_says_why():
    model = lt.Model(lambda x, h: 0.5 * h + x, lt.Readout(n, 1), h0=torch.zeros(B, n))
    batch = batch_for(model)
    with pytest.raises(ValueError, match="singular values of dL/dW need a cell with weight_hh, got Function"):
        metrics.recurrent_singular_values(model, batch)
    with pytest.raises(ValueError, match="saturated units needs a cell with a Form, got FunctionCell"):
        metrics.saturated_share(model, batch)
    for name in ("spectral_radius", "mean_field_slope"):
        with pytest.raises(
            ValueError,
            match="recurrent weights and no residual connection, got FunctionCell",
        ):
            PENALTIES[name](model.cell, batch.inputs, model.h0, 2)
    with pytest.raises(ValueError, match="unknown penalty 'spectral', did you mean 'spectral_radius'"):
        FlossPhase(1, penalty="spectral")


def by_hand(name, model, batch, index, k):
    """A penalty of one member in numpy."""
    W = model.cell.weight_hh.detach()[index].numpy()
    if name == "spectral_radius":
        return (np.abs(np.linalg.eigvals(W)).max() - 1) ** 2
    if name == "mean_field_slope":
        return ((W**2).sum() / n * (slopes(model, batch)[(slice(None), *index)] ** 2).mean().item() - 1) ** 2
    h, found = model.h0.detach(), []
    for x in batch.inputs:
        D = jacobian(model.cell, x, h)[index].numpy()
        found.append(np.log(np.linalg.svd(D, compute_uv=False)[:, :k]) ** 2)
        h = model.cell.step(x, h).detach()
    return np.mean(found)


@both
@each
@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_a_penalty_by_hand_and_its_gradient(name, kind, ensemble):
    model = network(kind, ensemble)
    batch, h0 = batch_for(model), model.h0.detach()

    def value():
        return PENALTIES[name](model.cell, batch.inputs, h0, K)

    expected = [by_hand(name, model, batch, index, K) for index in indices(ensemble)]
    np.testing.assert_allclose(value().detach().reshape(-1), expected, rtol=1e-12)
    own = list(model.cell.parameters())
    found = torch.autograd.grad(value().sum(), own, materialize_grads=True)
    for p, g in zip(own, found, strict=True):
        torch.testing.assert_close(g, differences(value, p, ensemble), rtol=1e-6, atol=1e-7)
    assert (found[[p is model.cell.weight_hh for p in own].index(True)] != 0).all()


@both
@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_flossing_by_a_penalty_lowers_it(name, kind):
    cell = kind(1, N, gain=torch.tensor([0.5, 2.0]), weights="gaussian", ensemble=(2,))
    model = lt.Model(cell, lt.Readout(N, 1, ensemble=(2,)))
    record = run(model, FlossPhase(60, k=K, penalty=name, lr=1e-2, steps=8, tangent_transient=0))
    loss = record["floss_loss"]
    assert (loss[:, -5:].mean(1) < 0.3 * loss[:, :5].mean(1)).all()
    assert "exponents" not in record
    record.plot()


def test_the_k_of_a_penalty_may_be_a_members_own():
    ids, k = torch.tensor([4, 4, 1]), torch.tensor([1, 3, 8])
    phase = FlossPhase(2, k=k, penalty="one_step_jacobians", **SCAN)
    model = make((3,), ids)
    together = run(model, phase, member_ids=ids)
    for i in range(3):
        alone = make((), ids[i])
        record = run(alone, replace(phase, k=k[i].item()), member_ids=ids[i])
        np.testing.assert_allclose(together["floss_loss"][i], record["floss_loss"][0], rtol=1e-9)
        torch.testing.assert_close(numbers(model, i), numbers(alone), rtol=1e-8, atol=1e-12)


def test_exponents_and_penalties_in_one_run():
    """NaN where a flossing step did not look at exponents."""
    flossing = FlossPhase(2, k=2, **SCAN)
    penalty = replace(flossing, epochs=3, penalty="spectral_radius", who=torch.tensor([True, False]))
    record = run(make((2,)), flossing, penalty, flossing)
    finite = np.isfinite(record["exponents"]).all(-1)
    assert finite.tolist() == [[True] * 2 + [False] * 3 + [True] * 2, [True] * 4 + [False] * 3]
    assert np.isfinite(record["floss_loss"]).sum(1).tolist() == [7, 4]
    record.plot()


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_every_member_steps_as_torchs_sgd_does(ensemble, momentum, nesterov):
    start, steps, lr = parameters(ensemble), gradients(ensemble, 50), 10 ** -(1 + 2 * torch.rand(ensemble))
    own = [p.clone() for p in start]
    rule = MemberOptimizer(own, ensemble, lr, SGD(momentum, nesterov))
    for step in steps:
        rule.step(step)
    for index in indices(ensemble):
        alone = [nn.Parameter(p[index].clone()) for p in start]
        sgd = torch.optim.SGD(alone, lr=lr[index].item(), momentum=momentum, nesterov=nesterov)
        for step in steps:
            for p, g in zip(alone, step, strict=True):
                p.grad = g[index].clone()
            sgd.step()
        torch.testing.assert_close([p[index] for p in own], [p.detach() for p in alone], **EXACT)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_global_clipping_is_torchs_member_by_member(ensemble):
    given = gradients(ensemble, 1)[0]
    whole = torch.cat([g.reshape(*ensemble, -1) for g in given], -1).norm(dim=-1)
    # every other member is touched
    norm = whole * torch.tensor([0.5, 2.0] * 3)[: whole.numel()].reshape(ensemble)
    clipped = clip(given, ensemble, norm, "global")
    for index in indices(ensemble):
        alone = [nn.Parameter(torch.zeros_like(g[index])) for g in given]
        for p, g in zip(alone, given, strict=True):
            p.grad = g[index].clone()
        nn.utils.clip_grad_norm_(alone, norm[index].item())
        for p, g in zip(alone, clipped, strict=True):
            # torch divides by the norm plus 1e-6
            torch.testing.assert_close(g[index], p.grad, rtol=1e-6 / norm[index].item() + 1e-12, atol=0)


def test_a_step_of_globally_clipped_descent_has_the_length_of_the_clip():
    limit = torch.tensor([1e-3, 1e-2])
    for mode, lengths in (("global", limit), ("tensor", limit * 6**0.5)):
        model, before = make((2,)), make((2,))
        run(model, FitPhase(1), lr=1.0, clip=limit, clip_mode=mode, optimizer=SGD())
        steps = [(p - q).flatten(1) for p, q in zip(numbers(model), numbers(before), strict=True)]
        torch.testing.assert_close(torch.cat(steps, 1).norm(dim=1), lengths, rtol=1e-9, atol=0)
    with pytest.raises(ValueError, match="unknown clip_mode 'globl', did you mean 'global'"):
        run(make((2,)), FitPhase(1), clip_mode="globl")


def test_what_a_task_step_costs_is_what_torch_counts(monkeypatch):
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")  # torch counts its own operations only
    model, batch = make(), TASK.draw(Draw(0, LENGTH, ROWS))
    with FlopCounterMode(display=False) as counter:
        model.loss(batch)
    assert metrics.fit_flops(batch, N, 1) == 3 * counter.get_total_flops() > 0


def test_what_a_flossing_step_costs(monkeypatch):
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")  # torch counts its own operations only
    cell, k, steps = lt.RateCell(1, N), 3, SCAN["steps"]
    with FlopCounterMode(display=False) as counter:
        lt.lyapunov_spectrum(cell, torch.zeros(steps, 1, 1), k=k)
    counts = counter.get_flop_counts()["Global"]
    products = counts[torch.ops.aten.mm] + counts[torch.ops.aten.addmm]
    tangent = products - 2 * N * steps
    factoring = steps * (5 * N * k**2 + k**3 // 3)
    # backwards costs twice as much as forwards; the drive is left out
    assert metrics.floss_flops(N, k, steps) == 3 * tangent + factoring
    assert metrics.floss_flops(N, k, steps, 7) == 3 * tangent + 3 * factoring // steps
    assert metrics.floss_flops(N, k, 2 * steps) == 2 * metrics.floss_flops(N, k, steps)


def test_the_totals_in_a_record_are_epochs_times_steps_for_who_took_part():
    some = torch.tensor([True, False])
    long = FlossPhase(3, k=2, **SCAN, batch=2, who=some, interval=1)
    short = FlossPhase(1, k=N, **SCAN, interval=4)
    record = run(make((2,)), long, short, FitPhase(4), FitPhase(2, who=some))
    step = [2 * metrics.floss_flops(N, 2, SCAN["steps"]), metrics.floss_flops(N, N, SCAN["steps"], 4)]
    assert record["floss_flops"].tolist() == [3 * step[0] + step[1], step[1]]
    batch = TASK.draw(Draw(0, LENGTH, ROWS, member_ids=torch.arange(2)))
    fit = metrics.fit_flops(batch, N, 1)
    assert record["fit_flops"].tolist() == [6 * fit, 4 * fit]


def test_an_automatic_interval_is_counted_as_it_was_taken(monkeypatch):
    taken = []

    def counted(n, k, steps, interval=1):
        taken.append(interval)
        return interval

    monkeypatch.setattr(work, "floss_flops", counted)
    record = run(make((2,)), FlossPhase(12, k=2, **SCAN))
    # 1, before anybody has looked; then what the growth allows, and again after the step of epoch 10
    assert len(taken) == 12
    assert taken[0] == 1
    assert min(taken[1:]) > 1
    assert len(set(taken[1:11])) == 1
    assert record["floss_flops"].tolist() == [sum(taken)] * 2


def test_a_joint_loss_costs_those_in_whose_loss_it_is():
    joint = FlossPhase(0, k=2, **SCAN, batch=2, interval=1)
    record = run(make((2,)), FitPhase(3, flossing_weight=torch.tensor([0.0, 0.5]), flossing=joint))
    assert record["floss_flops"].tolist() == [0, 3 * 2 * metrics.floss_flops(N, 2, SCAN["steps"])]
    alone = run(make(), FitPhase(3, flossing_weight=0.5, flossing=joint))
    assert alone["floss_flops"].tolist() == [record["floss_flops"][1]]
    assert "floss_flops" not in run(make(), FitPhase(1))


class Plain(nn.Module):
    """A module from which as_cell cannot tell how many units there are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(N, N, generator=seeded(0)) / N**0.5)

    def forward(self, x, h):
        return torch.tanh(h @ self.weight.mT + x)


def test_a_module_that_does_not_tell_its_size_is_flossed_and_counted():
    cell = lt.as_cell(Plain())
    assert cell.state_size == 0
    model = lt.Model(cell, lt.Readout(N, 1), h0=torch.zeros(ROWS, N), loss="binary_cross_entropy")
    record = run(model, FlossPhase(2, k=2, **SCAN, interval=1), FitPhase(3))
    assert record["floss_flops"].tolist() == [2 * metrics.floss_flops(N, 2, SCAN["steps"])]
    batch = TASK.draw(Draw(0, LENGTH, ROWS))
    assert record["fit_flops"].tolist() == [3 * metrics.fit_flops(batch, N, 1)]
