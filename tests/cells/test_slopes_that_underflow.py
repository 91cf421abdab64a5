"""Slopes below the least normal number: dead, never a finite exponent that means nothing."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch import surrogates
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.surrogates import OWN

pytestmark = pytest.mark.filterwarnings("ignore:every tangent vector has died")

BACKENDS = ["torch", "autograd"] + (["cpu"] if lt.kernels.available()["cpu"].available else [])
DTYPES = [torch.float32, torch.float64]


def alone(slope_at: float, f: lt.Activation | str, dtype: torch.dtype) -> tuple[lt.Cell, torch.Tensor]:
    """One unit that stays at `slope_at`: h' = 0 h + x with a recurrent weight of 1 in the tangent alone."""
    cell = lt.RateCell(1, 1, activation=f, bias=False).to(dtype)
    with torch.no_grad():
        cell.weight_hh.fill_(1.0)
        cell.weight_ih.fill_(1.0)
    value = cell.activation(torch.tensor([[slope_at]], dtype=dtype)).item()
    return cell, torch.full((5, 1, 1), slope_at - value, dtype=dtype)


def exponent(cell, inputs, h, backend):
    h0 = torch.full((1, 1), h, dtype=inputs.dtype)
    return lt.lyapunov_spectrum(cell, inputs, h0=h0, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_steep_sech2_is_dead_and_not_healthy(dtype, backend):
    cell, inputs = alone(1.0, surrogates.sech2(1000.0), dtype)
    spec = exponent(cell, inputs, 1.0, backend)  # log(4 e^-2000) = -1998.6 is below both dtypes
    assert spec.exponents.item() == -math.inf
    assert not spec.growth.healthy.any()
    assert not spec.reliable.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bump", OWN, ids=lambda bump: bump.name)
def test_an_exponent_is_the_log_of_the_slope_or_minus_infinity(dtype, backend, bump):
    for g in (3.0, 20.0, 40.0, 43.0, 44.0, 46.0, 90.0, 300.0, 400.0, 1e4):
        cell, inputs = alone(1.0, bump(g), dtype)
        got = exponent(cell, inputs, 1.0, backend).exponents.item()
        right = {
            "sech2": math.log(4) - 2 * g - 2 * math.log1p(math.exp(-2 * g)),
            "sigmoid": math.log(4) - g - 2 * math.log1p(math.exp(-g)),
            "fast_sigmoid": -2 * math.log1p(g),
            "arctan": -math.log1p(g * g),
            "triangular": -math.inf,
            "gaussian": -g * g / 2,
            "erfc": -g * g,
        }[bump.name]
        if right < math.log(torch.finfo(dtype).tiny):
            assert got == -math.inf
        else:  # the argument of e is rounded, so the log errs like it
            assert got == pytest.approx(right, rel=20 * torch.finfo(dtype).eps, abs=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [5.0, 40.0, 44.0, 46.0, 300.0, 354.0, 356.0, 1e4])
def test_a_saturated_tanh_is_followed_as_far_as_numbers_go(dtype, backend, size):
    cell, inputs = alone(size, "tanh", dtype)
    got = exponent(cell, inputs, size, backend).exponents.item()
    right = math.log(4) - 2 * size - 2 * math.log1p(math.exp(-2 * size))
    if right < math.log(torch.finfo(dtype).tiny):
        assert got == -math.inf
    else:
        assert got == pytest.approx(right, rel=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_binary_network_that_is_too_steep_has_gradients_that_are_finite(dtype, backend):
    g = nn.Parameter(torch.tensor(1000.0, dtype=dtype))
    cell = lt.BinaryCell(1, 8, sharpness=g).to(dtype)
    inputs = torch.zeros(20, 1, 1, dtype=dtype)
    spec = lt.lyapunov_spectrum(cell, inputs, backend=backend)  # in exact arithmetic lambda_1 = -324.5
    assert (spec.exponents == -math.inf).all()
    lt.flossing_loss(spec.exponents).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in cell.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_sech2_is_zero_where_it_underflows_with_finite_derivatives_and_keeps_nan(dtype):
    ends = torch.tensor([0.0, 9.5, 1e3, 1e30, math.inf, -math.inf], dtype=dtype, requires_grad=True)
    values = sech2(ends)
    assert values[1] > 0
    assert (values[2:] == 0).all()
    (first,) = torch.autograd.grad(values.sum(), ends, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), ends)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert sech2(torch.tensor(math.nan, dtype=dtype)).isnan()
