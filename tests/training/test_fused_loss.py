"""Loss, accuracy and gradients in one fused call, against the general path."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

import lyaptorch as lt
from fused import SETS, bypassed, compiled, threads
from lyaptorch.cells import LeakyReadout, unroll
from lyaptorch.cells.activation import tanh
from lyaptorch.kernels import library
from lyaptorch.training import model as models

pytestmark = compiled

LOSSES = {
    "binary_cross_entropy": 1,
    "cross_entropy": 10,
    "mean_squared_error": 3,
    "root_mean_square": 2,
}
"""Each with a number of outputs."""


def networks():
    """Cells of `n` units with `m` inputs, by name."""
    made = {
        "rate": lambda m, n, **kw: lt.RateCell(m, n, gain=1.5, **kw),
        "relu": lambda m, n, **kw: lt.RateCell(m, n, activation="relu", gain=0.5, **kw),
        "binary": lambda m, n, **kw: lt.BinaryCell(m, n, **kw),
        "elman": lambda m, n, **kw: lt.ElmanCell(m, n, **kw),
        "residual": lambda m, n, **kw: lt.ResidualCell(m, n, **kw),
        "gru": lambda m, n, **kw: lt.GRUCell(m, n, **kw),
        "lstm": lambda m, n, **kw: lt.LSTMCell(m, n, **kw),
    }
    for reset in ("product", "subtract"):
        for grad in ("detach", "full", "ignore"):
            for order in ("sequential", "simultaneous"):
                how = {"reset": reset, "reset_grad": grad, "order": order}
                made[f"lif {reset} {grad} {order}"] = lambda m, n, how=how, **kw: lt.LIFCell(
                    m, n, gain=2.0, threshold=0.3, **how, **kw
                )
    return made


def problem(
    kind, loss, *, ensemble=(), b=5, n=18, m=2, t=17, sparse=False, affine=False, dtype=torch.float64, seed=0
):
    """A model with all its parameters trained, and a batch."""
    g, o = torch.Generator().manual_seed(seed), LOSSES[loss]
    cell = networks()[kind](m, n, ensemble=ensemble)
    spiking = kind.startswith("lif") and not affine
    own = {"ensemble": ensemble, "scale": n**-0.5}
    readout = LeakyReadout(cell, o) if spiking else lt.Readout(cell.output_size, o, **own)
    h0 = nn.Parameter(0.5 * torch.randn(*ensemble, b, cell.state_size, generator=g))
    model = lt.Model(cell, readout, h0=h0, loss=loss).to(dtype)
    with torch.no_grad():
        readout.bias.copy_(torch.randn(*ensemble, o, generator=g))
    shape = (t, *ensemble, b)
    inputs = 2 * torch.randn(*shape, m, generator=g, dtype=dtype)
    if loss == "cross_entropy":
        targets = torch.randint(0, o, (*shape, 1), generator=g).to(dtype)
    elif loss == "binary_cross_entropy":
        targets = torch.randint(0, 2, (*shape, o), generator=g).to(dtype)
    else:
        targets = torch.randn(*shape, o, generator=g, dtype=dtype)
    mask = torch.rand(shape, generator=g) > (0.8 if sparse else 0.3)
    mask[: t // 2 if sparse else 0], mask[-1] = False, True
    return model, lt.Batch(inputs, targets, mask)


@contextmanager
def general(monkeypatch):
    """Only the general path, within."""
    with monkeypatch.context() as patch:
        patch.setattr(models, "fused_loss", lambda *a: None)
        yield


def found(model, batch, h0=None):
    """Loss, accuracy and gradients of a sum with a weight for each member."""
    loss, right = model.loss(batch, h0)
    weights = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    wanted = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad((weights * loss).sum(), wanted, allow_unused=True, materialize_grads=True)
    return [loss.detach(), right, *gradients]


def agree(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        assert (g - e).abs().max() <= tolerance * e.abs().max().clamp_min(1e-3)


def compare(monkeypatch, model, batch, tolerance=1e-11):
    assert served(model, batch)
    got = found(model, batch)
    with general(monkeypatch):
        agree(got, found(model, batch), tolerance)


def served(model, batch):
    """Whether the fused call takes it."""
    inputs, h = model._start(batch.inputs, None)
    given = (model.cell, model.readout, model.loss_name, batch, inputs, h, model._judge)
    return models.fused_loss(*given) is not None


@pytest.mark.parametrize("kind", networks())
@pytest.mark.parametrize("loss", LOSSES)
def test_every_network_and_loss(kind, loss, monkeypatch):
    compare(monkeypatch, *problem(kind, loss))
    compare(monkeypatch, *problem(kind, loss, sparse=True, seed=1))


@pytest.mark.parametrize("ensemble", [(), (3,), (2, 2)])
@pytest.mark.parametrize("b", [1, 16, 37])
@pytest.mark.parametrize("kind", ["rate", "elman", "residual", "lif product full sequential"])
def test_ensembles_and_trajectories(kind, ensemble, b, monkeypatch):
    for loss in ("binary_cross_entropy", "root_mean_square"):
        compare(monkeypatch, *problem(kind, loss, ensemble=ensemble, b=b))


@pytest.mark.parametrize("n", [5, 16, 18])
@pytest.mark.parametrize("kind", [kind for kind in networks() if kind.startswith("lif")])
def test_neurons_whose_potentials_and_currents_are_read(kind, n, monkeypatch):
    ensemble = (3,) if n == 5 else ()
    compare(monkeypatch, *problem(kind, "cross_entropy", n=n, ensemble=ensemble, b=19, t=9, affine=True))


@pytest.mark.parametrize(("n", "m"), [(15, 1), (16, 1), (31, 3), (32, 4), (47, 17), (80, 1)])
def test_sizes_that_fill_and_break_blocks(n, m, monkeypatch):
    for kind in ("rate", "elman", "lif subtract full simultaneous"):
        compare(monkeypatch, *problem(kind, "mean_squared_error", n=n, m=m, b=9))


@pytest.mark.parametrize("kind", [None, "diagonal", "blocks", "dense"])
@pytest.mark.parametrize("inner", [None, tanh()])
@pytest.mark.parametrize("outer", [None, tanh()])
@pytest.mark.parametrize("phi", [None, tanh()])
def test_residuals_with_everything_trained(kind, inner, outer, phi, monkeypatch):
    cell, inputs, h0 = bypassed(12, kind, (12,), (inner, outer, phi if kind else None), b=5, t=9)
    model, batch = problem("residual", "cross_entropy", n=12, t=9)
    own = lt.Model(cell, model.readout, h0=nn.Parameter(h0.detach()), loss=model.loss_name)
    compare(monkeypatch, own, lt.Batch(inputs.detach(), batch.targets, batch.mask))


@pytest.mark.parametrize("kind", ["rate", "residual", "lif product detach sequential"])
def test_against_plain_autograd(kind, monkeypatch):
    model, batch = problem(kind, "binary_cross_entropy")
    got = found(model, batch)
    monkeypatch.setattr(models, "fused_loss", lambda *a: None)
    monkeypatch.setattr(
        models, "unroll", lambda cell, x, h, first=0: unroll(cell, x, h, first=first, plain=True)
    )
    agree(got, found(model, batch), 1e-11)


@pytest.mark.parametrize("kind", ["rate", "elman", "lif product detach sequential"])
def test_float32_is_as_close_to_float64_as_torch(kind, monkeypatch):
    # contracting, or errors grow with the steps, whoever makes them
    model, batch = problem(kind, "binary_cross_entropy", b=16, n=40, t=40)
    with torch.no_grad():
        model.cell.weight_hh.mul_(0.3)
    exact = found(model, batch)
    single = lt.Batch(batch.inputs.float(), batch.targets.float(), batch.mask)
    model.float()
    got = found(model, single)
    with general(monkeypatch):
        torch_made = found(model, single)
    for mine, theirs, true in zip(got, torch_made, exact, strict=True):
        error, torch_error = ((z.double() - true).abs().max() for z in (mine, theirs))
        assert error <= 3 * torch_error + 3e-7 * true.abs().max()


def test_logits_far_out_lose_no_digit(monkeypatch):
    model, batch = problem("rate", "binary_cross_entropy")
    for scale in (1e-6, 40.0, 2e3):
        with torch.no_grad():
            model.readout.weight.normal_().mul_(scale)
        compare(monkeypatch, model, batch)


def test_gradients_that_vanish_are_zero_and_quick():
    model, batch = problem("elman", "binary_cross_entropy", t=60, dtype=torch.float32)
    with torch.no_grad():
        model.cell.weight_hh.mul_(1e-3)
    (last,) = torch.autograd.grad(
        model.loss(lt.Batch(batch.inputs, batch.targets, only_last(batch)))[0], model.h0
    )
    assert (last == 0).all()


def only_last(batch):
    mask = torch.zeros_like(batch.mask)
    mask[-1] = True
    return mask


def test_a_state_that_overflows_gives_a_loss_that_says_so():
    model, batch = problem("relu", "mean_squared_error")
    with torch.no_grad():
        model.cell.weight_hh.fill_(1e40)
    assert not torch.isfinite(model.loss(batch)[0])


def test_no_step_counts_for_one_member(monkeypatch):
    model, batch = problem("rate", "mean_squared_error", ensemble=(2,))
    mask = batch.mask.clone()
    mask[:, 1] = False
    with pytest.raises(ValueError, match="mask must let some step count for each member"):
        lt.Batch(batch.inputs, batch.targets, mask)
    # who says where it begins is not looked at
    batch = lt.Batch(batch.inputs, batch.targets, mask, since=0)
    loss, right = model.loss(batch)
    with general(monkeypatch):
        expected = model.loss(batch)
    assert loss[1].isnan()
    assert right[1].isnan()
    torch.testing.assert_close((loss[0], right[0]), (expected[0][0], expected[1][0]))


@pytest.mark.parametrize("kind", ["rate", "gru"])
@pytest.mark.parametrize("value", [0.1, -3.7, 1e6])
def test_targets_that_do_not_vary_have_no_variance_to_explain(kind, value, monkeypatch):
    model, batch = problem(kind, "mean_squared_error", ensemble=(2,), b=3)
    targets = batch.targets.clone()
    targets[:, 1] = value
    batch = lt.Batch(batch.inputs, targets, batch.mask)
    with general(monkeypatch):
        general_loss, general_right = model.loss(batch)
    loss, right = model.loss(batch)
    torch.testing.assert_close(loss, general_loss)
    torch.testing.assert_close(right[0], general_right[0])
    assert right[1] == general_right[1] == -torch.inf
    # not even where the answer is the constant
    with torch.no_grad():
        model.readout.weight.zero_()
        model.readout.bias[1] = value
    with general(monkeypatch):
        expected = model.loss(batch)
    for loss, right in (expected, model.loss(batch)):
        assert loss[1] == 0
        assert right[1] == -torch.inf


@pytest.mark.parametrize("kind", ["rate", "lstm"])
@pytest.mark.parametrize("of_each", [False, True])
def test_members_that_see_the_same_inputs(kind, of_each, monkeypatch):
    # as many members as trajectories: a mask (t, *e) must not pass for (t, b)
    model, batch = problem(kind, "binary_cross_entropy", ensemble=(5,), b=5)
    mask = batch.mask if of_each else batch.mask[..., 0]
    shared = lt.Batch(batch.inputs[:, 0], batch.targets, mask)
    spread = lt.Batch(batch.inputs[:, :1].expand_as(batch.inputs), batch.targets, mask)
    compare(monkeypatch, model, shared)
    agree(found(model, shared), found(model, spread), 1e-12)
    with general(monkeypatch):
        agree(found(model, shared), found(model, spread), 1e-12)


def everything(count):
    with threads(count):
        kinds = ("rate", "residual", "lif product full sequential")
        cases = [
            problem(kind, "root_mean_square", ensemble=(3,), b=37, dtype=torch.float32) for kind in kinds
        ]
        return [z for case in cases for z in found(*case)]


def test_the_number_of_threads_changes_no_bit():
    one = everything(1)
    for count in (2, 5):
        assert all(torch.equal(a, b) for a, b in zip(one, everything(count), strict=True))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set(name, dtype, monkeypatch):
    cpu = library.open_library()
    if not cpu.lyap_use(name.encode()):
        pytest.skip(f"this machine has no {name}")
    try:
        for kind in ("rate", "elman", "binary", "lif product full sequential"):
            for loss in LOSSES:
                case = problem(kind, loss, n=19, dtype=dtype)
                compare(monkeypatch, *case, 1e-11 if dtype == torch.float64 else 2e-4)
    finally:
        assert cpu.lyap_use(None)


def test_a_member_is_the_same_alone_bit_for_bit():
    model, batch = problem("rate", "binary_cross_entropy", ensemble=(3,))
    together = found(model, batch)
    who = torch.tensor([False, True, False])
    alone = found(model.select(who), batch.select((torch.tensor([1]),)))
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])


def test_inputs_and_masks_that_all_members_share(monkeypatch):
    model, batch = problem("rate", "binary_cross_entropy", ensemble=(3,))
    shared = batch.inputs[:, :1].expand_as(batch.inputs)
    mask = batch.mask[:, :1, 0].expand(-1, 3)
    targets = batch.targets[-1:].expand_as(batch.targets)
    compare(monkeypatch, model, lt.Batch(shared, targets, mask))


def test_lengths(monkeypatch):
    model, batch = problem("rate", "binary_cross_entropy")
    compare(
        monkeypatch,
        model,
        lt.Batch(batch.inputs, batch.targets, batch.mask, lengths=torch.tensor([3, 17, 9, 1, 12])),
    )


def test_frozen_parameters_get_no_gradient():
    model, batch = problem("rate", "binary_cross_entropy")
    whole = torch.autograd.grad(model.loss(batch)[0], model.cell.weight_hh)
    for p in (model.readout.weight, model.cell.weight_ih, model.h0):
        p.requires_grad_(False)
    loss, _ = model.loss(batch)
    assert torch.equal(torch.autograd.grad(loss, model.cell.weight_hh, retain_graph=True)[0], whole[0])
    # twice, from what was kept
    assert torch.equal(torch.autograd.grad(loss, model.cell.weight_hh)[0], whole[0])
    with torch.no_grad():
        assert torch.equal(model.loss(batch)[0], loss)


def test_second_derivatives_are_refused():
    model, batch = problem("rate", "binary_cross_entropy")
    (first,) = torch.autograd.grad(model.loss(batch)[0], model.cell.weight_hh, create_graph=True)
    with pytest.raises(RuntimeError, match="plain=True"):
        first.sum().backward()


def test_what_it_does_not_know_goes_the_general_way(monkeypatch):
    model, batch = problem("rate", "cross_entropy")
    wrong = lt.Batch(batch.inputs, batch.targets + 5, batch.mask)
    assert served(model, batch)
    assert not served(model, wrong)
    with pytest.raises(ValueError, match=r"whole number in 0\.\.9, got"):
        model.loss(wrong)
    model.readout.register_forward_hook(lambda *a: None)
    assert not served(model, batch)

    class Own(lt.Readout):
        def forward(self, h):
            return super().forward(h).tanh()

    model, batch = problem("rate", "binary_cross_entropy")
    own = lt.Model(model.cell, Own(18, 1).double(), h0=model.h0, loss=model.loss_name)
    assert not served(own, batch)
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    assert not served(model, batch)


def test_a_leaky_readout_sees_the_steps_before_the_first_that_counts(monkeypatch):
    """It integrates all of them, as the model's outputs do, and not only those of which there is a loss."""
    model, batch = problem("lif product detach sequential", "mean_squared_error", sparse=True)
    assert batch.first > 0
    outputs = model(batch.inputs)
    off = (outputs - batch.targets).square()[batch.mask]
    expected = off.mean()
    torch.testing.assert_close(model.loss(batch)[0], expected)
    with general(monkeypatch):
        torch.testing.assert_close(model.loss(batch)[0], expected)
        torch.testing.assert_close(model.score(batch, model.states(batch.inputs))[0], expected)
