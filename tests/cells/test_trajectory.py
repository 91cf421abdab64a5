import pytest
import torch

import lyaptorch as lt
from cases import M, N, every, setup
from lyaptorch.cells import settle, unroll
from reference import relative_error

pytestmark = pytest.mark.usefixtures("double")


def rolled(cell, inputs, h):
    states = []
    for x in inputs:
        h = cell.step(x, h)
        states.append(h)
    return torch.stack(states)


@every()
def test_unroll_gives_every_state_and_its_gradient(case, ensemble):
    cell, inputs, h0 = setup(case, ensemble)
    wanted = [z.requires_grad_() for z in (inputs, h0)] + cell.leaves(inputs[0], h0)
    states, expected = unroll(cell, inputs, h0), rolled(cell, inputs, h0)
    torch.testing.assert_close(states, expected, rtol=1e-14, atol=1e-13)
    weights = torch.randn(states.shape)
    grads = [
        torch.autograd.grad((weights * y.sin()).sum(), wanted, allow_unused=True, materialize_grads=True)
        for y in (states, expected)
    ]
    for g, e in zip(*grads, strict=True):
        assert (g - e).abs().max() <= 1e-12 * e.abs().max().clamp_min(1.0)


@every(ensembles=False)
@pytest.mark.parametrize("plain", [False, True])
def test_first_leaves_states_out_and_changes_nothing_else(case, ensemble, plain):
    cell, inputs, h0 = setup(case, ensemble)
    wanted = [z.requires_grad_() for z in (inputs, h0)] + cell.leaves(inputs[0], h0)
    every_state = unroll(cell, inputs, h0)
    for first in (2, len(inputs) - 1):
        states, expected = unroll(cell, inputs, h0, first=first, plain=plain), every_state[first:]
        torch.testing.assert_close(states, expected, rtol=1e-13, atol=1e-13)
        settings = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        grads = [torch.autograd.grad(y.sin().sum(), wanted, **settings) for y in (states, expected)]
        for g, e in zip(*grads, strict=True):
            assert (g - e).abs().max() <= 1e-11 * e.abs().max().clamp_min(1.0)
        with torch.no_grad():
            alone = unroll(cell, inputs, h0, first=first)
        torch.testing.assert_close(alone, expected, rtol=1e-13, atol=1e-13)


def test_first_must_be_a_step():
    cell, inputs, h0 = lt.RateCell(M, N), torch.randn(5, 1, M), torch.zeros(1, N)
    for first in (5, -1):
        with pytest.raises(ValueError, match=r"first must be an integer in 0..4"):
            unroll(cell, inputs, h0, first=first)


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_tied_weights_are_counted_as_often_as_they_are_used(kind):
    cell = kind(M, M)
    cell.weight_ih = cell.weight_hh
    if kind is lt.ElmanCell:
        cell.bias_hh = cell.bias_ih
    inputs, h0 = torch.randn(6, 2, M), torch.randn(2, M)
    grads = [
        torch.autograd.grad(y.square().sum(), list(cell.parameters()))
        for y in (unroll(cell, inputs, h0), rolled(cell, inputs, h0))
    ]
    assert all(relative_error(g, e) < 1e-12 for g, e in zip(*grads, strict=True))


def test_a_second_derivative_of_unroll_is_refused_with_a_way_out():
    cell, inputs, h0 = lt.RateCell(M, N), torch.randn(5, 1, M), torch.zeros(1, N)
    (first,) = torch.autograd.grad(unroll(cell, inputs, h0).square().sum(), cell.weight_hh, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivative.*unroll\(\.\.\., plain=True\)"):
        first.square().sum().backward()
    states = unroll(cell, inputs, h0, plain=True)
    (first,) = torch.autograd.grad(states.square().sum(), cell.weight_hh, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), cell.weight_hh)
    assert second.abs().max() > 0


@every(ensembles=False)
def test_settle_is_the_last_state_without_a_graph(case, ensemble):
    cell, inputs, h0 = setup(case, ensemble)
    h = settle(cell, inputs, h0)
    assert not h.requires_grad
    torch.testing.assert_close(h, rolled(cell, inputs, h0)[-1].detach(), rtol=0, atol=1e-13)
    assert settle(cell, inputs[:0], h0) is h0


def test_a_state_that_overflows_is_an_error():
    cell = lt.RateCell(M, N, gain=50.0, activation="linear")
    with pytest.raises(
        FloatingPointError, match=r"state is not finite after step 172 of the transient.*lower the gain"
    ):
        settle(cell, torch.ones(300, 1, M), torch.ones(1, N))
