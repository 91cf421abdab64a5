"""UR-LSTM, diagonal state space, coupled oscillators: parameters, and what follows from the equations."""

import math

import pytest
import torch

import lyaptorch as lt
from lyaptorch.cells import unroll

pytestmark = pytest.mark.usefixtures("double")


def count(cell):
    return sum(p.numel() for p in cell.parameters())


def exponents(cell, inputs, **kw):
    with torch.no_grad():
        return lt.lyapunov_spectrum(cell, inputs, **kw).exponents[..., 0, :]


@pytest.mark.parametrize(("m", "n"), [(1, 8), (3, 5)])
def test_parameter_counts(m, n):
    assert count(lt.cells.URLSTMCell(m, n)) == count(lt.LSTMCell(m, n)) == 4 * (n * n + n * m + 2 * n)
    # both recurrent matrices, the input, one bias
    assert count(lt.cells.CoRNNCell(m, n)) == 2 * n * n + n * m + n
    # of each channel dt and its input; of each mode a decay and a frequency
    assert count(lt.cells.S4DCell(m, n, 4)) == n + n * m + 2 * 4 * n


# UR-LSTM


def test_the_forget_gates_start_uniform_and_the_refine_gates_mirrored():
    n = 2000
    cell = lt.cells.URLSTMCell(1, n)
    forget, refine = torch.sigmoid(cell.bias_ih[:n]).detach(), cell.bias_ih[n : 2 * n]
    assert torch.equal(refine, -cell.bias_ih[:n])
    assert (cell.bias_hh[: 2 * n] == 0).all()
    quantiles = forget.sort().values
    torch.testing.assert_close(quantiles, (torch.arange(n) + 0.5) / n, rtol=0, atol=0.04)
    assert forget.min() >= 1 / n - 1e-12
    assert forget.max() <= 1 - 1 / n + 1e-12
    assert torch.isfinite(lt.cells.URLSTMCell(1, 1).bias_ih).all()


def test_the_refined_gate_lies_in_its_band_and_is_the_forget_gate_at_one_half():
    cell, n = lt.cells.URLSTMCell(1, 1, weights="identity", gain=0.0), 1
    f = 0.3
    for r in (1e-9, 0.5, 1 - 1e-9):
        with torch.no_grad():
            cell.weight_ih.zero_()
            cell.bias_hh.zero_()
            cell.bias_ih.copy_(torch.tensor([math.log(f / (1 - f)), math.log(r / (1 - r)), -50.0, 0.0]))
        # u = -1: c' = g c - (1 - g), so g = (c' + 1) / (c + 1)
        g = (cell(torch.zeros(1, 1), torch.tensor([[0.0, 1.0]]))[0, n] + 1) / 2
        assert f * f - 1e-8 <= g <= 1 - (1 - f) ** 2 + 1e-8
        expected = {1e-9: f * f, 0.5: f, 1 - 1e-9: 1 - (1 - f) ** 2}[r]
        assert g.item() == pytest.approx(expected, abs=1e-8)


def test_without_recurrent_weights_the_memory_of_an_ur_lstm_is_its_gate():
    # c' = g c + ..., h' a function of c': n exponents log g, n of -inf
    n = 6
    cell = lt.cells.URLSTMCell(1, n, weights="identity", gain=0.0)
    with torch.no_grad():
        cell.weight_ih.zero_()
    f, r = torch.sigmoid(cell.bias_ih[:n]), torch.sigmoid(cell.bias_ih[n : 2 * n])
    expected = (2 * r * f + (1 - 2 * r) * f * f).log().sort(descending=True).values.detach()
    got = exponents(cell, torch.zeros(300, 1, 1), k=n, transient=50, tangent_transient=200)
    assert got.sum().item() == pytest.approx(expected.sum().item(), abs=1e-10)
    # two gates are close, and their directions part slowly
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02)


# the diagonal state space


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_convolution_and_recurrence_agree(dtype, tolerance):
    cell = lt.cells.S4DCell(2, 3, 8, ensemble=(2,)).to(dtype)
    inputs = torch.randn(784, 1, 4, 2, dtype=dtype).expand(-1, 2, -1, -1)
    states = unroll(cell, inputs, torch.zeros(2, 4, cell.state_size, dtype=dtype))
    assert states.shape == cell.convolve(inputs).shape == (784, 2, 4, 48)
    assert (cell.convolve(inputs) - states).abs().max() < tolerance * states.abs().max()


def test_the_exponents_of_a_state_space_are_its_decays_on_any_input():
    cell = lt.cells.S4DCell(1, 2, 3)
    with torch.no_grad():
        cell.log_decay.copy_(torch.linspace(-1, 2, 6).view(2, 3))
    rates = -cell.log_decay.exp() * cell.log_dt.exp().unsqueeze(-1)
    expected = rates.flatten().repeat_interleave(2).detach()
    got = exponents(cell, torch.randn(7, 1, 1), frame=torch.eye(12))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_a_constant_input_holds_a_mode_at_minus_one_over_a():
    cell = lt.cells.S4DCell(1, 1, 2)
    with torch.no_grad():
        cell.weight_ih.fill_(1.0)
        cell.log_dt.fill_(0.0)
    last = unroll(cell, torch.ones(200, 1, 1), torch.zeros(1, 4))[-1, 0]
    A = torch.complex(torch.tensor([-0.5, -0.5]), torch.tensor([0.0, math.pi]))
    torch.testing.assert_close(last, torch.view_as_real(-1 / A).flatten(), rtol=0, atol=1e-12)


# coupled oscillators


def test_a_step_of_the_oscillators_is_the_formula():
    cell, b = lt.cells.CoRNNCell(2, 3, dt=0.3, gamma=1.7, damping=0.6), 4
    y, z, x = torch.randn(b, 3), torch.randn(b, 3), torch.randn(b, 2)
    a = y @ cell.weight_hh.mT + z @ cell.weight_zh.mT + x @ cell.weight_ih.mT + cell.bias
    z_after = z + 0.3 * (a.tanh() - 1.7 * y - 0.6 * z)
    y_after = y + 0.3 * z_after
    after = cell(x, torch.stack([y, z], -1).flatten(-2))
    torch.testing.assert_close(after, torch.stack([y_after, z_after], -1).flatten(-2), rtol=0, atol=1e-14)
    assert torch.equal(after[..., cell.readable], after[..., ::2])


def test_an_uncoupled_oscillator_has_the_exponents_of_its_damping():
    cell = lt.cells.CoRNNCell(1, 4, dt=0.1, damping=0.8)
    with torch.no_grad():
        for p in (cell.weight_hh, cell.weight_zh):
            p.zero_()
    got = exponents(cell, torch.randn(4000, 1, 1), tangent_transient=100)
    expected = 0.5 * math.log(1 - 0.1 * 0.8)
    assert got.sum().item() == pytest.approx(8 * expected, abs=1e-10)
    torch.testing.assert_close(got, torch.full((8,), expected), rtol=0, atol=2e-3)


def test_oscillators_are_served_by_kernels_that_know_residual_forms():
    cell = lt.cells.CoRNNCell(1, 4)
    form = cell.form()
    assert form.residual.kind == "blocks"
    assert form.residual.matrix.shape == (4, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lt.cells.CoRNNCell(1, 4, dt=0.0), r"dt must be a finite number above 0, got 0.0"),
        (lambda: lt.cells.CoRNNCell(1, 0), r"hidden_size must be an integer >= 1, got 0"),
        (lambda: lt.cells.S4DCell(1, 4, 0), r"modes must be an integer >= 1, got 0"),
        (lambda: lt.cells.URLSTMCell(0, 4), r"input_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
