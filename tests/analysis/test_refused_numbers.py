"""Numbers that mean nothing are refused where they would come out as an answer."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch import analysis, theory

NAN = torch.tensor([0.0, math.nan])


@pytest.mark.parametrize(
    "ask",
    [
        analysis.time_scales,
        lambda rates: analysis.usable_dimensions(rates, 10, 1e3),
        lambda rates: theory.log_condition_number(rates, 10),
    ],
)
def test_exponents_that_are_nan_are_refused(ask):
    with pytest.raises(ValueError, match="exponents must not be NaN, got 1 NaN of 2"):
        ask(NAN)


@pytest.mark.parametrize("kind", ["participation", "entropy", "threshold"])
def test_singular_values_must_be_some(kind):
    with pytest.raises(ValueError, match=r"singular_values must be at least 0, got -1\.0; of eigenvalues"):
        analysis.effective_rank(torch.tensor([-1.0, 2.0]), kind)
    with pytest.raises(ValueError, match="singular_values must be finite, got nan"):
        analysis.effective_rank(NAN, kind)


def test_a_condition_number_is_that_of_exponents_in_any_order():
    expected = torch.tensor([0.0, 5.0, math.inf])
    for rates in ([0.0, -1.0, -math.inf], [-1.0, -math.inf, 0.0]):
        assert torch.equal(theory.log_condition_number(torch.tensor(rates), 5), expected)


def test_a_constant_has_no_frequency():
    for constant in (torch.full((200, 3), 0.1), torch.full((150, 1), 1e3).double()):
        with pytest.raises(ValueError, match="no frequency above zero"):
            print(analysis.characteristic_frequency(constant).frequency)
    wave = 1e5 + torch.sin(0.5 * torch.arange(400.0, dtype=torch.float64))[:, None]
    assert abs(analysis.characteristic_frequency(wave).frequency - 0.5) < 0.01


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda states: states[-1].sum().item(), "got a float without gradient; do not detach"),
        (lambda states: states.detach().sum(), "got a Tensor without gradient; do not detach"),
        (lambda states: states[-1].sum() * math.nan, "loss must be finite, got nan"),
    ],
)
def test_a_loss_without_gradient_or_value_is_refused(loss, says):
    with pytest.raises(ValueError, match=says):
        analysis.gradient_norms(torch.nn.GRU(1, 3), torch.zeros(4, 1, 1), loss)
    with pytest.raises(ValueError, match=says):
        analysis.gradient_overlap(torch.nn.GRU(1, 3), torch.zeros(4, 1, 1), loss, at=2)


def test_a_weight_that_the_loss_does_not_reach_is_refused():
    loss = torch.ones(2, requires_grad=True).sum()
    for weight in (torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)):
        with pytest.raises(ValueError, match="got one whose graph does not reach it"):
            analysis.gradient_singular_values(loss, weight)


def measured(weight):
    return lt.lyapunov_spectrum(
        lambda x, h: torch.tanh(h @ weight), torch.zeros(4, 1, 1), h0=torch.ones(1, 2)
    ).exponents.sum()


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap, torch.func.jacrev])
def test_a_transform_of_torch_func_around_a_measurement_is_refused(transform):
    with pytest.raises(
        ValueError, match=r"lyapunov_spectrum must be called outside of transforms of torch\.func"
    ):
        transform(measured)(torch.ones(2, 2) if transform is not torch.func.vmap else torch.ones(3, 2, 2))
