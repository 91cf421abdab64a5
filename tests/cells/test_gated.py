"""LSTM and GRU: torch's states, the full state's tangents, gates by name, and what a readout sees."""

import pytest
import torch
from torch import nn

import lyaptorch as lt
import reference
from cases import CASES as ALL
from cases import M, setup
from lyaptorch.cells.weights import gaussian
from lyaptorch.training.model import settled_state

N = 5
KINDS = {"lstm": (lt.LSTMCell, nn.LSTMCell), "gru": (lt.GRUCell, nn.GRUCell)}
every_kind = pytest.mark.parametrize("kind", KINDS)
CASES = {case.name: case for case in ALL}


def theirs_steps(module, inputs, h):
    """States of torch's cell, (h, c) packed."""
    states = []
    for x in inputs:
        if isinstance(module, nn.LSTMCell):
            h = torch.cat(module(x, tuple(h.chunk(2, -1))), -1)
        else:
            h = module(x, h)
        states.append(h)
    return torch.stack(states)


@every_kind
@pytest.mark.parametrize("bias", [True, False])
def test_states_are_those_of_torch(double, kind, bias):
    own, theirs = KINDS[kind]
    module, cell = theirs(M, N, bias=bias), own(M, N, bias=bias)
    cell.load_state_dict(module.state_dict())
    module.load_state_dict(cell.state_dict())
    inputs, h = 2 * torch.randn(30, 3, M), torch.randn(3, cell.state_size)
    got = lt.Model(cell, lt.Readout(N, 1)).states(inputs, h)
    torch.testing.assert_close(got, theirs_steps(module, inputs, h), rtol=0, atol=1e-12)


@every_kind
def test_tangents_of_input_and_state(double, kind):
    cell = KINDS[kind][0](M, N, ensemble=(2,))
    x, h = torch.randn(2, 3, M), torch.randn(2, 3, cell.state_size)
    X, Q = torch.randn(2, 3, M, 4), torch.randn(2, 3, cell.state_size, 4)
    expected = lt.Cell.pushforward_with_input(cell, x, h, X, Q)
    got = cell.pushforward_with_input(x, h, X, Q)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-12)
    still = cell.pushforward_with_input(x, h, torch.zeros_like(X), Q)
    for g, e in zip(still, cell.pushforward(x, h, Q), strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-14)


def test_slopes_keep_their_digits_in_saturation():
    """An output gate at 20 in float32, where s (1 - s) is 0: h moves with x by c sigmoid'(20)."""
    cell = lt.LSTMCell(1, 1)
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
        cell.weight_ih[3], cell.bias_ih[1], cell.bias_ih[3] = 1.0, 40.0, 20.0
    one, h = torch.ones(1, 1, 1), torch.tensor([[0.0, 0.5]])
    _, moved = cell.pushforward_with_input(torch.zeros(1, 1), h, one, torch.zeros(1, 2, 1))
    expected = torch.tensor(0.5).tanh() * torch.tensor(-20.0).exp()
    torch.testing.assert_close(moved[0, 0, 0], expected, rtol=1e-6, atol=0)


@every_kind
def test_the_gradient_is_that_of_dense_jacobians(kind):
    cell, inputs, h0 = setup(CASES[kind], (2,), t=12)
    frame, wanted = reference.random_frame(4, 3), list(cell.parameters())
    expected = reference.scan(cell, inputs, h0, frame, create_graph=True).exponents.square().sum()
    got = lt.lyapunov_spectrum(cell, inputs, h0=h0, k=3, frame=frame).exponents.square().sum()
    pairs = zip(torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted), strict=True)
    for g, e in pairs:
        assert e.abs().max() > 0
        assert reference.relative_error(g, e) < 1e-9  # n <= 20


def test_the_cell_state_is_part_of_the_spectrum(double):
    """At rest c decays by f and h follows at once: n exponents are log f, n are -inf."""
    cell = lt.LSTMCell(M, N, bias=True)
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
        cell.bias_ih[N : 2 * N] = 3.0
    spec = lt.lyapunov_spectrum(cell, torch.zeros(50, 1, M), k=N, tangent_transient=1)
    expected = torch.sigmoid(torch.tensor(3.0)).log().expand(1, N)
    torch.testing.assert_close(spec.exponents, expected, rtol=1e-12, atol=0)
    assert (lt.lyapunov_spectrum(cell, torch.zeros(50, 1, M)).exponents[:, N:] == -torch.inf).all()


def test_a_gain_for_each_gate_scales_its_rows_alone(double):
    base = lt.LSTMCell(M, N, weights="gaussian")
    cell = lt.LSTMCell(
        M, N, weights="gaussian", ensemble=(2,), member_ids=torch.tensor([0, 0]),
        gain={"forget": 3.0, "output": torch.tensor([0.5, 2.0])},
    )  # fmt: skip
    blocks = (cell.weight_hh / base.weight_hh).unflatten(-2, (4, N)).mean((-2, -1))
    torch.testing.assert_close(blocks, torch.tensor([[1.0, 3, 1, 0.5], [1, 3, 1, 2]]))
    assert torch.equal(cell.weight_ih[0], base.weight_ih)


def test_weights_for_each_gate_come_from_its_own_ensemble(double):
    cell = lt.GRUCell(M, 400, weights={"reset": "orthogonal", "new": gaussian(2.0)})
    reset, update, new = cell.weight_hh.detach().chunk(3)
    torch.testing.assert_close(reset @ reset.mT, torch.eye(400), rtol=0, atol=1e-12)
    assert update.abs().max() <= 400**-0.5
    assert new.std().item() == pytest.approx(2 / 20, rel=0.02)  # 160 000 numbers
    shifted = reset.flatten() - update.flatten()
    assert shifted.abs().min() < 1e-3 < shifted.abs().max()


@every_kind
def test_gates_and_members_draw_their_own_numbers(double, kind):
    cell = KINDS[kind][0](M, N, ensemble=(2, 3))
    own = cell.weight_hh.unflatten(-2, (-1, N)).flatten(0, -3).flatten(1)
    assert len(torch.unique(own.round(decimals=12), dim=0)) == len(own)
    alone = KINDS[kind][0](M, N, member_ids=4)
    for a, b in zip(cell.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a[1, 1], b)
    seeded = KINDS[kind][0](M, N, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(seeded.weight_hh, alone.weight_hh)


def test_a_readout_sees_h_and_not_c(double):
    cell = lt.LSTMCell(1, N)
    assert (cell.output_size, cell.state_size) == (N, 2 * N)
    model = lt.Model(cell, lt.Readout(N, 1), h0=settled_state(cell, 4))
    inputs = torch.randn(6, 4, 1)
    expected = model.states(inputs)[..., :N] @ model.readout.weight.mT + model.readout.bias
    torch.testing.assert_close(model(inputs), expected, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"must read the 5 numbers that this cell shows, got one for 10"):
        lt.Model(cell, lt.Readout(2 * N, 1))


@every_kind
def test_flossing_and_training_run(double, kind):
    cell = KINDS[kind][0](1, 8, ensemble=(2,))
    record = lt.floss(cell, lt.tasks.TemporalXOR(4), k=2, epochs=30, lr=2e-2, steps=20, tangent_transient=5)
    assert (record["floss_loss"][:, -5:].mean(1) < 0.5 * record["floss_loss"][:, 0]).all()
    model = lt.Model(cell, lt.Readout(8, 1, ensemble=(2,)))
    record = lt.train(
        model, lt.tasks.DelayedCopy(1), (lt.FlossPhase(2, k=2), lt.FitPhase(60)), lr=2e-2, steps=20
    )
    assert (record["loss"][:, -5:].mean(1) < 0.8 * record["loss"][:, 0]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": {"forgt": 2.0}}, r"unknown gate in gain 'forgt', did you mean 'forget'\?"),
        ({"weights": {"reset": "gaussian"}}, r"unknown gate in weights 'reset'.*known: cell, forget"),
        ({"weights": {"cell": "gausian"}}, r"unknown weights 'gausian', did you mean 'gaussian'"),
        ({"gain": torch.ones(3)}, r"gain of the input gate .* ensemble's shape \(2,\), got \(3,\)"),
        ({"ensemble": (0,)}, r"each entry of ensemble must be an integer >= 1, got 0"),
        ({"generator": 7}, r"generator must be a torch.Generator or None, got int"),
    ],
)
def test_bad_arguments(unchecked, settings, message):
    with pytest.raises(ValueError, match=message):
        lt.LSTMCell(M, N, **{"ensemble": (2,), **settings})


@every_kind
@pytest.mark.parametrize("sizes", [(0, 4), (2, 0), (2, 4.0)])
def test_bad_sizes(unchecked, kind, sizes):
    with pytest.raises(ValueError, match=r"(input|hidden)_size must be an integer >= 1"):
        KINDS[kind][0](*sizes)
