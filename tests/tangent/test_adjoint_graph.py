"""Where gradients arrive: closures, frozen and tied weights; and where they do not."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import lyaptorch as lt
from cases import Case, M, N, rate, setup, soft_sign
from reference import random_frame, relative_error

pytestmark = pytest.mark.usefixtures("double")

both = pytest.mark.parametrize("backend", [None, "autograd"])


def squares(cell, *, t=10, backend=None, h0=None, **settings):
    inputs = torch.randn(t, 2, M, generator=torch.Generator().manual_seed(4))
    h0 = torch.full((2, N), 0.2) if h0 is None else h0
    spec = lt.lyapunov_spectrum(
        cell, inputs, h0=h0, k=2, frame=random_frame(N, 2), backend=backend, **settings
    )
    return spec.exponents.square().sum()


def same(make, wanted):
    """Both backends give every one of `wanted` the same gradient, and none is zero."""
    # weights that were computed outside have one graph for both
    expected = torch.autograd.grad(squares(make(), backend="autograd"), wanted, retain_graph=True)
    got = torch.autograd.grad(squares(make()), wanted, retain_graph=True)
    for g, e in zip(got, expected, strict=True):
        assert e.abs().max() > 0
        assert relative_error(g, e) < 1e-9


def test_a_function_that_closes_over_leaves():
    W, V = torch.randn(N, N).requires_grad_(), torch.randn(N, M).requires_grad_()
    same(lambda: lambda x, h: torch.tanh(h @ W.mT + x @ V.mT), [W, V])


def test_a_function_that_closes_over_what_was_computed_outside():
    g, W0 = torch.tensor(1.3, requires_grad=True), torch.randn(N, N).requires_grad_()
    W = g * W0 / N**0.5
    same(lambda: lambda x, h: torch.tanh(h @ W.mT), [g, W0])
    # and a second loss on the same graph
    same(lambda: lambda x, h: torch.sin(h @ W.mT), [g, W0])


def test_a_module_that_closes_over_a_tensor_of_somebody_elses():
    W = torch.randn(N, N).requires_grad_()

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(M, N)

        def forward(self, x, h):
            return torch.tanh(h @ W.mT + self.own(x))

    step = Step()
    same(lambda: step, [W, *step.parameters()])


def test_a_users_cell_that_closes_over_a_tensor():
    W = torch.randn(N, N).requires_grad_()

    class Closed(lt.Cell):
        def step(self, x, h):
            return torch.tanh(h @ W.mT)

    same(lambda: Closed(M, N), [W])


def test_a_cell_with_a_parametrised_weight():
    cell = rate()(ensemble=(), member_ids=None)
    parametrizations.weight_norm(cell, "weight_hh")
    same(lambda: cell, list(cell.parameters()))
    with parametrize.cached():
        same(lambda: cell, list(cell.parameters()))


def test_a_cell_called_with_other_peoples_weights():
    cell, g = lt.RateCell(M, N), torch.tensor(1.2, requires_grad=True)
    weights = {name: g * p.detach() for name, p in cell.named_parameters()}
    same(lambda: lambda x, h: torch.func.functional_call(cell, weights, (x, h)), [g])


def test_tied_biases_count_twice():
    cell = lt.ElmanCell(M, N)
    cell.bias_hh = cell.bias_ih
    same(lambda: cell, list(cell.parameters()))


def test_tied_weight_matrices_count_twice():
    cell = lt.RateCell(M, M)
    cell.weight_ih = cell.weight_hh
    inputs = torch.randn(8, 1, M)
    grads = [
        torch.autograd.grad(
            lt.lyapunov_spectrum(cell, inputs, backend=b).exponents.square().sum(), list(cell.parameters())
        )
        for b in (None, "autograd")
    ]
    assert all(relative_error(g, e) < 1e-9 for g, e in zip(*grads, strict=True))


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_an_activation_with_a_tensor_that_is_no_parameter(kind):
    """A sharpness computed from something trained."""
    raw = torch.tensor(0.3, requires_grad=True)

    def make():
        f = lt.Activation(
            lambda x, g: torch.tanh(g * x), parameters={"g": torch.nn.functional.softplus(raw)}, name="soft"
        )
        return kind(M, N, activation=f)

    same(make, [raw])


def test_one_activation_shared_by_two_cells():
    f = soft_sign()
    cells = [lt.RateCell(M, N, activation=f), lt.ElmanCell(M, N, activation=f)]
    total = sum(squares(cell) for cell in cells)
    (got,) = torch.autograd.grad(total, f.g)
    expected = sum(torch.autograd.grad(squares(cell, backend="autograd"), f.g)[0] for cell in cells)
    assert relative_error(got, expected) < 1e-9


@both
def test_frozen_parameters_get_none_and_the_others_what_they_had(backend):
    cell = lt.RateCell(M, N)
    full = torch.autograd.grad(squares(cell, backend=backend), list(cell.parameters()))
    cell.weight_hh.requires_grad_(False)
    squares(cell, backend=backend).backward()
    assert cell.weight_hh.grad is None
    torch.testing.assert_close((cell.weight_ih.grad, cell.bias.grad), full[1:], rtol=1e-12, atol=1e-15)


@both
def test_without_grad_there_is_no_graph_and_the_same_result(backend):
    cell = lt.RateCell(M, N)
    with torch.no_grad():
        loss = squares(cell, backend=backend)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, squares(cell, backend=backend).detach(), rtol=1e-13, atol=0)
    assert not squares(cell.requires_grad_(False), backend=backend).requires_grad


@both
def test_the_transient_hides_the_initial_state_and_the_tangent_transient_does_not(backend):
    cell, h0 = lt.RateCell(M, N), torch.full((2, N), 0.2).requires_grad_()
    cell.requires_grad_(False)
    assert not squares(cell, h0=h0, transient=2, backend=backend).requires_grad
    loss = squares(cell, h0=h0, tangent_transient=2, backend=backend)
    assert torch.autograd.grad(loss, h0)[0].abs().max() > 0


@pytest.mark.parametrize("which", range(6))
def test_a_member_gets_the_gradient_it_gets_alone(which):
    case = Case("", rate(activation="tanh"))
    grads = []
    for ensemble, members, at in (((2, 3), None, (which // 3, which % 3)), ((), which, ())):
        s = setup(case, ensemble, members=members)
        loss = lt.lyapunov_spectrum(s.cell, s.inputs, h0=s.h0, k=2).exponents.square().sum()
        grads.append([g[at] for g in torch.autograd.grad(loss, list(s.cell.parameters()))])
    assert all(relative_error(g, e) < 1e-12 for g, e in zip(*grads, strict=True))


@pytest.mark.parametrize(
    "make",
    [lambda: lt.RateCell(M, N), lambda: lt.as_cell(nn.GRUCell(M, N)), lambda: lt.as_cell(nn.RNNCell(M, N))],
)
def test_a_second_derivative_is_refused_with_a_way_out(make):
    cell = make()
    wanted = list(cell.parameters())
    first = torch.autograd.grad(squares(cell), wanted, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r'second derivative.*lyapunov_spectrum\(\.\.\., backend="autograd"\)'
    ):
        sum(g.square().sum() for g in first).backward()
    first = torch.autograd.grad(squares(cell, backend="autograd"), wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), wanted)
    assert all(g.abs().max() > 0 for g in second)


def test_a_weight_changed_in_place_before_the_backward_pass_is_an_error():
    W = torch.randn(N, N).requires_grad_()
    for cell, weight in ((rnn := lt.RateCell(M, N), rnn.weight_hh), (lambda x, h: torch.tanh(h @ W.mT), W)):
        loss = squares(cell)
        with torch.no_grad():
            weight.mul_(0.9)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("checkpoint", [None, 3])
@both
def test_a_second_backward_pass_gives_the_same_gradient_again(backend, checkpoint):
    cell = lt.RateCell(M, N)
    loss = squares(cell, backend=backend, checkpoint=checkpoint)
    wanted = list(cell.parameters())
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    assert all(torch.equal(g, e) for g, e in zip(torch.autograd.grad(loss, wanted), first, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, wanted)


def chaotic(**settings):
    cell = lt.RateCell(1, 30, gain=5.0).float()
    inputs, h0 = torch.zeros(800, 1, 1).float(), torch.full((1, 30), 0.3).float()
    spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, k=2, **settings)
    assert spec.exponents[0, 0] > 0.2
    return torch.autograd.grad(spec.exponents.square().sum(), cell.weight_hh)[0]


def test_an_exploding_gradient_is_announced():
    with pytest.warns(UserWarning, match=r'gradient of the exponents is not finite.*state_grad="detach"'):
        assert not torch.isfinite(chaotic()).all()


@pytest.mark.parametrize("state_grad", ["detach", 10])
def test_a_truncated_gradient_does_not_explode(state_grad):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(chaotic(state_grad=state_grad)).all()
