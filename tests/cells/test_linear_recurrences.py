"""LRU, minGRU, selective state space and gated delta rule: what follows from the equations."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells import DeltaCell, LRUCell, MinGRUCell, SelectiveSSMCell, Stacked, unroll
from lyaptorch.tangent.start import first_frame
from lyaptorch.testing import check_cell

pytestmark = pytest.mark.usefixtures("double")


def spectrum(cell, inputs, **kw):
    with torch.no_grad():
        return lt.lyapunov_spectrum(cell, inputs, **kw)


def parameters(cell):
    return sum(p.numel() for p in cell.parameters())


# diagonal transitions


def test_a_complex_mode_has_the_exponent_of_its_modulus_twice():
    cell, x = LRUCell(2, 3, ensemble=(2,)), torch.randn(100, 2, 1, 2)
    expected = -cell.log_decay.detach().exp().repeat_interleave(2, -1)
    got = spectrum(cell, x, frame=torch.eye(6)).exponents[:, 0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    # a rotation turns whatever frame by itself
    one = LRUCell(1, 1)
    got = spectrum(one, torch.randn(100, 1, 1)).exponents[0]
    torch.testing.assert_close(got, -one.log_decay.detach().exp().repeat(2), rtol=0, atol=1e-10)


def test_the_modes_of_an_lru_start_in_their_ring_and_have_the_power_of_its_input():
    cell = LRUCell(1, 4000, radii=(0.5, 0.8))
    modulus = (-cell.log_decay.exp()).exp().detach()
    assert (modulus > 0.5).all()
    assert (modulus < 0.8).all()
    assert modulus.square().mean().item() == pytest.approx((0.25 + 0.64) / 2, abs=0.01)
    assert parameters(cell) == 4000 * 4
    small = LRUCell(1, 3, radii=(0.5, 0.8))
    states = small.unpack(unroll(small, torch.randn(200, 600, 1), torch.zeros(600, 6))[40:])
    power = states.abs().square().mean((0, 1)) / small.weight_ih.unflatten(0, (-1, 2)).square().sum((1, 2))
    torch.testing.assert_close(power, torch.ones(3), rtol=0.05, atol=0)


def test_the_exponents_of_a_mingru_are_the_mean_logs_of_its_gates():
    cell, x = MinGRUCell(3, 5), torch.randn(150, 2, 3)
    assert parameters(cell) == 2 * 5 * (3 + 1)
    drive = x @ cell.weight_ih.mT + cell.bias
    z, s = torch.sigmoid(drive[..., :5]), drive[..., 5:]
    got = spectrum(cell, x, frame=torch.eye(5)).exponents
    torch.testing.assert_close(got, (1 - z).log().mean(0).detach(), rtol=0, atol=1e-12)
    h = torch.randn(2, 5)
    torch.testing.assert_close(cell(x[0], h), (1 - z[0]) * h + z[0] * s[0])
    assert torch.equal(cell.gate_values(x[0], h)["input"], z[0])
    check_cell(MinGRUCell(2, 3, ensemble=(2,)))


def test_a_gate_that_is_wide_open_keeps_its_digits():
    cell = MinGRUCell(1, 2)
    with torch.no_grad():
        cell.bias[:2] = 60.0
        cell.weight_ih.zero_()
    # log(1 - sigmoid(60)), where 1 - sigmoid(60) is 0 in float64
    assert spectrum(cell, torch.zeros(9, 1, 1)).exponents[0, 0].item() == pytest.approx(-60, abs=1e-12)


def test_the_exponents_of_a_selective_state_space_are_its_rates_times_the_mean_time_step():
    cell, x = SelectiveSSMCell(3, 2, 4), torch.randn(400, 1, 3)
    dt = nn.functional.softplus(x @ cell.weight_dt.mT + cell.bias_dt)[:, 0].mean(0)
    expected = -(dt[:, None] * torch.arange(1.0, 5.0)).flatten().detach()
    got = spectrum(cell, x, frame=torch.eye(8)).exponents[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    # without input dt is log-uniform
    rest = nn.functional.softplus(SelectiveSSMCell(1, 3000, 1).bias_dt).log10()
    assert -3 < rest.min() < -2.99
    assert -1.01 < rest.max() < -1
    h = torch.randn(1, 2, 4)
    step = nn.functional.softplus(x[0] @ cell.weight_dt.mT + cell.bias_dt)[..., None]
    after = (step * -torch.arange(1.0, 5.0)).exp() * h
    after = after + step * (x[0] @ cell.weight_ih.mT)[..., None] * (x[0] @ cell.weight_B.mT)[:, None]
    torch.testing.assert_close(cell.unpack(cell(x[0], cell.pack(h))), after)


# the delta rule


def plain_delta(cell, x, S):
    """The formula of one member and trajectory, head by head, S `(heads, d_k, d_v)`."""
    heads, d_k, d_v = cell.shape
    y = cell.weight_ih @ x
    keys, values = y[: heads * d_k].view(heads, d_k), y[heads * d_k : heads * (d_k + d_v)].view(heads, d_v)
    b, a = (y[-2 * heads :] + cell.bias).view(2, heads)
    after = []
    for h in range(heads):
        k, beta = keys[h] / keys[h].norm(), torch.sigmoid(b[h])
        alpha = torch.exp(-cell.log_rate[h].exp() * nn.functional.softplus(a[h]))
        after.append(alpha * (S[h] - beta * torch.outer(k, k @ S[h])) + beta * torch.outer(k, values[h]))
    return torch.stack(after)


def test_a_step_of_the_delta_rule_is_the_formula():
    cell = DeltaCell(3, 2, 4, 3)
    x, S = torch.randn(5, 3), torch.randn(5, 2, 4, 3)
    expected = torch.stack([plain_delta(cell, *pair) for pair in zip(x, S, strict=True)])
    torch.testing.assert_close(cell.unpack(cell(x, cell.pack(S))), expected)
    assert parameters(cell) == 2 * (4 + 3 + 2) * 3 + 2 * 2 + 2
    values = cell.gate_values(x, cell.pack(S))
    assert {name: tuple(value.shape) for name, value in values.items()} == {"keep": (5, 2), "write": (5, 2)}
    # a key of nothing writes nothing, and is no NaN
    assert torch.isfinite(cell(torch.zeros(1, 3), torch.ones(1, 24))).all()


def isotropic(value_size=1, heads=1, d=8, beta=0.7):
    """Keys are the inputs, and nothing decays."""
    cell = DeltaCell(d, heads, d, value_size)
    with torch.no_grad():
        cell.log_rate.fill_(-60.0)
        cell.bias[:heads] = math.log(beta / (1 - beta))
        cell.weight_ih.zero_()
        cell.weight_ih[: heads * d] = torch.eye(d).repeat(heads, 1)
    return cell


ISOTROPIC = [-0.0678, -0.0778, -0.0910, -0.1090, -0.1343, -0.1716, -0.2293, -0.3233]


def test_isotropic_keys():
    got = spectrum(isotropic(), torch.randn(600, 40, 8), tangent_transient=100).exponents
    torch.testing.assert_close(got.mean(0), torch.tensor(ISOTROPIC), rtol=0, atol=4e-3)
    # |det (1 - beta k k^T)| = 1 - beta at every step
    torch.testing.assert_close(got.sum(-1), torch.full((40,), math.log(0.3)), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_isotropic_keys_for_long():
    got = spectrum(isotropic(), torch.randn(20_000, 8, 8), tangent_transient=200).exponents
    torch.testing.assert_close(got.mean(0), torch.tensor(ISOTROPIC), rtol=0, atol=1e-3)
    torch.testing.assert_close(got.sum(-1), torch.full((8,), math.log(0.3)), rtol=0, atol=1e-9)


# its multiplicity


def of_copies(cell, k):
    """A frame of n rows whose columns are those of one copy, in each copy by itself."""
    n, copies = cell.state_size, cell.multiplicity
    one = first_frame(None, k, torch.zeros(1, n), None, cell, copies)[0]
    return torch.einsum("ij,cd->icjd", one, torch.eye(copies)).reshape(n, -1)[:, :k].contiguous()


@pytest.mark.parametrize("k", [None, 7, 1])
@pytest.mark.parametrize("ensemble", [(), (2,)])
def test_a_spectrum_keeps_all_copies(k, ensemble):
    cell = DeltaCell(2, 2, 3, 4, ensemble=ensemble)
    x = torch.randn(30, *ensemble, 2, 2)
    assert cell.multiplicity == 4
    found = spectrum(cell, x, k=k, tangent_transient=3, interval=2)
    k = 24 if k is None else k
    assert found.exponents.shape == (*ensemble, 2, k)
    assert found.final_frame.shape == (*ensemble, 2, 24, k)
    frame = of_copies(cell, k)
    full = spectrum(cell, x, k=k, frame=frame, tangent_transient=3, interval=2)
    torch.testing.assert_close(found.growth.log_r, full.growth.log_r, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.final_frame, full.final_frame, rtol=0, atol=1e-12)
    assert torch.equal(found.growth.healthy, full.growth.healthy)
    assert torch.equal(found.stderr().isfinite(), full.stderr().isfinite())


def test_copies_have_their_gradient_and_go_through_flossing_and_training():
    cell = DeltaCell(2, 1, 3, 2)
    x = torch.randn(20, 2, 2)
    frame = of_copies(cell, 5)
    gradients = []
    for settings in ({"k": 5}, {"k": 5, "frame": frame}, {"k": 5, "backend": "autograd"}):
        loss = lt.flossing_loss(lt.lyapunov_spectrum(cell, x, **settings).exponents)
        gradients.append(torch.autograd.grad(loss, [cell.weight_ih, cell.bias, cell.log_rate]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-9, atol=1e-12)
    before = lt.flossing_loss(spectrum(cell, x, k=4).exponents)
    record = lt.floss(cell, x, k=4, epochs=15, steps=20, lr=6e-2, tangent_transient=0, interval=1)
    assert record["exponents"].shape[-1] == 4
    assert lt.flossing_loss(spectrum(cell, x, k=4).exponents) < 0.5 * before
    model = lt.Model(DeltaCell(1, 1, 2, 2), lt.Readout(4, 1))
    phases = (lt.FlossPhase(2, k=3, steps=12, tangent_transient=2), lt.FitPhase(2))
    record = lt.train(model, lt.tasks.DelayedCopy(2), phases, batch=2, steps=12)
    assert torch.isfinite(torch.as_tensor(record["loss"])).any()


def test_pieces_lengths_and_steppers_know_of_copies():
    cell, x = isotropic(value_size=3), torch.randn(900, 1, 8)
    whole = spectrum(cell, x, k=9, tangent_transient=100)
    cut = spectrum(cell, x, k=9, tangent_transient=100, segments=2)
    assert cut.seams.shape == whole.exponents.shape == (1, 9)
    assert torch.equal(cut.exponents[0, ::3], cut.exponents[0, 2::3])
    torch.testing.assert_close(cut.exponents, whole.exponents, rtol=0, atol=0.03)
    short = spectrum(cell, torch.randn(50, 2, 8), k=4, lengths=torch.tensor([50, 20]))
    assert short.exponents.shape == (2, 4)
    stepper = lt.tangent.Stepper(cell, torch.zeros(1, 24), k=24)
    assert stepper.step(x[0]).sum().item() == pytest.approx(3 * math.log(0.3))
    assert lt.diagnose(cell, torch.randn(150, 2, 8), horizon=20).verdict


def test_a_cell_of_ones_own_has_no_copies_of_an_older_step():
    class Bent(DeltaCell):
        def step(self, x, h):
            return torch.tanh(super().step(x, h))

    cell = Bent(2, 1, 3, 2)
    assert cell.multiplicity == 1
    found = spectrum(cell, torch.randn(20, 1, 2), h0=torch.randn(1, 6))
    assert len(set(found.exponents[0].tolist())) == 6


def test_the_spectrum_of_a_stack_is_the_union_of_its_layers():
    layers, inputs = [DeltaCell(2, 1, 2, 2), LRUCell(4, 2), MinGRUCell(4, 3)], torch.randn(12, 1, 2)
    stack, x, own = Stacked(layers), inputs, []
    for layer in layers:
        n = layer.state_size
        own.insert(0, spectrum(layer, x, frame=torch.eye(n).flip(1)).exponents[0])
        x = unroll(layer, x, torch.zeros(1, n)).detach()
    # D is block lower triangular: columns of the last layer stay in it, and those of the layer below leave
    # to it what they have there; a frame whose slow columns come first keeps its digits for a few steps
    got = spectrum(stack, inputs, frame=torch.eye(stack.state_size).flip(1)).exponents[0]
    torch.testing.assert_close(got, torch.cat(own), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRUCell(1, 4, radii=(0.9, 0.5)), r"radii must be two numbers 0 <= low < high <= 1"),
        (lambda: LRUCell(1, 0), r"modes must be an integer >= 1, got 0"),
        (lambda: MinGRUCell(0, 4), r"input_size must be an integer >= 1, got 0"),
        (lambda: SelectiveSSMCell(1, 4, 0), r"states must be an integer >= 1, got 0"),
        (lambda: DeltaCell(1, 1, 0, 4), r"key_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
