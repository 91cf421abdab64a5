"""A list of modules as an ensemble: the numbers of each alone, on its own parameters."""

import copy

import pytest
import torch
from torch import nn

import lyaptorch as lt
from cases import M, N
from reference import random_frame, relative_error

pytestmark = pytest.mark.usefixtures("double")


class Own(nn.Module):
    """A step that the library does not know, with a buffer and a state of two parts."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(M + N, N)
        self.register_buffer("decay", torch.rand(()))

    def forward(self, x, s):
        a = torch.tanh(self.inside(torch.cat([x, *s], -1)))
        return a[..., :1], self.decay * s[1] + a[..., 1:]


class Gated(nn.Module):
    """What torch.func.vmap cannot run."""

    def __init__(self):
        super().__init__()
        self.inside = nn.LSTMCell(M, N // 2)

    def forward(self, x, h):
        return torch.cat(self.inside(x, tuple(h.chunk(2, -1))), -1)


MAKERS = {
    "lstm": lambda: nn.LSTM(M, N, num_layers=2),
    "lstmcell": lambda: nn.LSTMCell(M, N),
    "gru": lambda: nn.GRU(M, N),
    "rnn": lambda: nn.RNN(M, N),
    "own": Own,
    "gated": Gated,
    "rate": lambda: lt.RateCell(M, N, generator=torch.Generator().manual_seed(int(torch.randint(99, ())))),
}
every_maker = pytest.mark.parametrize("name", MAKERS)


def start(name, *e, rows=2):
    """An initial state for the steps that need one."""
    if name == "own":
        return torch.zeros(*e, rows, 1), torch.zeros(*e, rows, N - 1)
    return torch.zeros(*e, rows, N) if name == "gated" else None


@every_maker
def test_each_module_has_the_spectrum_and_the_gradient_that_it_has_alone(name):
    modules, inputs = [MAKERS[name]() for _ in range(3)], torch.randn(12, 2, M)
    n = {"lstm": 4 * N, "lstmcell": 2 * N}.get(name, N)
    frame = random_frame(n, 3)
    spec = lt.lyapunov_spectrum(modules, inputs, h0=start(name, 3), k=3, frame=frame)
    assert spec.exponents.shape == (3, 2, 3)
    spec.exponents.square().sum().backward()
    for i, module in enumerate(modules):
        grads = [p.grad for p in module.parameters()]
        alone = lt.lyapunov_spectrum(module, inputs, h0=start(name), k=3, frame=frame)
        torch.testing.assert_close(spec.growth.log_r[:, i], alone.growth.log_r, rtol=0, atol=1e-12)
        torch.testing.assert_close(spec.final_state[i], alone.final_state, rtol=0, atol=1e-12)
        expected = torch.autograd.grad(alone.exponents.square().sum(), list(module.parameters()))
        for g, e in zip(grads, expected, strict=True):
            assert relative_error(g, e) < 1e-9


@every_maker
def test_flossing_changes_the_modules_in_place_as_it_would_change_each_alone(name):
    torch.manual_seed(2)
    modules, inputs = [MAKERS[name]() for _ in range(2)], torch.randn(12, 1, M)
    alone = [MAKERS[name]() for _ in modules]
    for one, two in zip(modules, alone, strict=True):
        two.load_state_dict(one.state_dict())
    owners = [list(module.parameters()) for module in modules]
    settings = {"k": 2, "epochs": 3, "lr": 1e-2, "steps": 12, "tangent_transient": 2}
    record = lt.floss(modules, inputs, h0=start(name, 2, rows=1), **settings)
    for i, (module, single) in enumerate(zip(modules, alone, strict=True)):
        assert all(p is q for p, q in zip(owners[i], module.parameters(), strict=True))
        expected = lt.floss(single, inputs, h0=start(name, rows=1), **settings)
        torch.testing.assert_close(
            torch.tensor(record["floss_loss"][i]), torch.tensor(expected["floss_loss"][0]), rtol=1e-9, atol=0
        )
        for p, q in zip(module.parameters(), single.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-9)


def test_training_a_model_of_modules_writes_back_to_them():
    modules = [nn.GRU(1, 8) for _ in range(2)]
    before = [m.weight_hh_l0.detach().clone() for m in modules]
    model = lt.Model(modules, lt.Readout(8, 1, ensemble=(2,)))
    cell = model.cell
    first = lt.evaluate(model, lt.tasks.DelayedCopy(1), steps=10)["loss"]
    schedule = (lt.FlossPhase(2, k=2, steps=10, tangent_transient=2), lt.FitPhase(20))
    lt.train(model, lt.tasks.DelayedCopy(1), schedule, lr=5e-2, steps=10, clip=None)
    last = lt.evaluate(model, lt.tasks.DelayedCopy(1), steps=10)["loss"]
    assert model.cell is cell
    assert (last < 0.9 * first).all()
    for module, weight in zip(modules, before, strict=True):
        assert not torch.equal(module.weight_hh_l0, weight)
        final = lt.lyapunov_spectrum(module, torch.zeros(5, 1, 1), k=1).final_state
    together = lt.lyapunov_spectrum(modules, torch.zeros(5, 1, 1), k=1).final_state
    torch.testing.assert_close(together[1], final, rtol=0, atol=1e-12)


def test_a_phase_for_some_modules_leaves_the_others_alone():
    modules = [nn.LSTMCell(1, 4) for _ in range(3)]
    before = [m.weight_hh.detach().clone() for m in modules]
    model = lt.Model(modules, lt.Readout(4, 1, ensemble=(3,)))
    mask = torch.tensor([True, False, True])
    lt.train(model, lt.tasks.DelayedCopy(1), (lt.FitPhase(1, who=mask),), steps=5)
    moved = [not torch.equal(m.weight_hh, w) for m, w in zip(modules, before, strict=True)]
    assert moved == mask.tolist()


def test_frozen_weights_stay():
    modules = [nn.GRUCell(1, 4) for _ in range(2)]
    for module in modules:
        module.weight_ih.requires_grad_(False)
    before = [module.weight_ih.detach().clone() for module in modules]
    moved = [module.weight_hh.detach().clone() for module in modules]
    lt.floss(modules, torch.randn(10, 1, 1), k=1, epochs=2, steps=10, tangent_transient=2)
    for module, frozen, free in zip(modules, before, moved, strict=True):
        assert torch.equal(module.weight_ih, frozen)
        assert not torch.equal(module.weight_hh, free)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], r"at least one network"),
        (
            [nn.GRUCell(M, N), nn.LSTMCell(M, N)],
            r"one type and equal shapes, got a module 1 that differs .* type",
        ),
        ([nn.GRUCell(M, N), nn.GRUCell(M, N + 1)], r"differs from module 0 in .*weight_hh"),
        (
            [nn.GRUCell(M, N), nn.GRUCell(M, N).half()],
            r"differs from module 0 in bias_hh, bias_ih, weight_hh",
        ),
        ([nn.RNN(M, N), nn.RNN(M, N, nonlinearity="relu")], r"differs from module 0 in structure"),
        ([lt.GRUCell(M, N, ensemble=(2,))] * 2, r"none that is an ensemble itself, got \[\(2,\), \(2,\)\]"),
        ([torch.add, torch.mul], r"an ensemble needs modules, .* got a (builtin|method)"),
    ],
)
def test_lists_that_are_no_ensemble(unchecked, modules, message):
    with pytest.raises(ValueError, match=message):
        lt.as_cell(modules)


def test_h0_has_the_ensembles_shape(unchecked):
    with pytest.raises(ValueError, match=r"h0 must have shape \(\*e, b, n\) with \*e = \(2,\)"):
        lt.lyapunov_spectrum([Gated(), Gated()], torch.zeros(4, 2, M), h0=torch.zeros(2, N))


class Twice(nn.Module):
    """One layer under two names, and another whose weight is that of the first."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.same, self.tied = self.one, nn.Linear(3, 3)
        self.tied.weight = self.one.weight

    def forward(self, x, h):
        return torch.tanh(self.tied(torch.tanh(self.same(torch.tanh(self.one(h)) + x))))


def test_networks_with_shared_layers_are_left_as_they_were_and_compute_what_they_compute_alone():
    networks = [Twice().double(), Twice().double()]
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    x, h = torch.randn(5, 2, 3).double(), torch.randn(2, 2, 3).double()
    together = lt.lyapunov_spectrum(networks, x, h0=h).exponents
    for network, known, own, found in zip(networks, before, h, together, strict=True):
        assert all(torch.equal(known[name], w) for name, w in network.state_dict().items())
        alone = lt.lyapunov_spectrum(network, x, h0=own).exponents
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)
