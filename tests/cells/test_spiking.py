"""Spiking cells against autodiff of the papers' equations, written down once more."""

import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
import reference
from lyaptorch.cells.products import by_forward_mode, by_reverse_mode

pytestmark = pytest.mark.usefixtures("double")

MODES = pytest.mark.parametrize(
    ("grad", "order"), [(g, o) for g in ("detach", "full", "ignore") for o in ("sequential", "simultaneous")]
)
RESETS = pytest.mark.parametrize("reset", ["product", "subtract"])
ALPHA, BETA = math.exp(-2 / 5), math.exp(-2 / 10)


def network(n=6, ensemble=(), **settings):
    settings = {"threshold": 0.4, "surrogate": lt.surrogates.fast_sigmoid(3.0), **settings}
    return lt.LIFCell(2, n, ensemble=ensemble, generator=torch.Generator().manual_seed(1), **settings)


def state(n=6, b=3):
    """About half of the neurons spike."""
    return torch.cat([0.4 + 0.5 * torch.randn(b, n), torch.randn(b, n)], -1)


def dense_jacobian(cell, x, h):
    """D of one trajectory `(2n, 2n)` from the equations, term by term."""
    n, V, theta = cell.hidden_size, cell.weight_hh.detach(), 0.4
    U, I = h[:n], h[n:]  # noqa: E741
    S = (theta < U).double()
    d = 1 / (1 + 3 * (U - theta).abs()) ** 2
    after = ALPHA * I + V @ S + cell.weight_ih.detach() @ x
    sequential = cell.order == "sequential"
    v = BETA * U + (1 - BETA) * (after if sequential else I)
    eye, zero = torch.eye(n), torch.zeros(n, n)
    UU = BETA * eye + (1 - BETA) * (V * d if sequential else zero)
    UI = (1 - BETA) * (ALPHA if sequential else 1.0) * eye
    if cell.reset == "product" and cell.reset_grad != "ignore":
        UU, UI = (1 - S)[:, None] * UU, (1 - S)[:, None] * UI
    if cell.reset_grad == "full":
        UU = UU - torch.diag(v * d if cell.reset == "product" else theta * d)
    return torch.cat([torch.cat([UU, UI], 1), torch.cat([V * d, ALPHA * eye], 1)], 0)


@MODES
@RESETS
def test_the_jacobian_is_that_of_the_equations_and_of_autodiff(grad, order, reset):
    cell = network(reset_grad=grad, order=order, reset=reset)
    x, h = torch.randn(3, 2), state()
    Q = torch.eye(12).expand(3, 12, 12)
    after, D = cell.pushforward(x, h, Q)
    spiking = (h[..., :6] > 0.4).double().mean()
    assert 0.2 < spiking < 0.8
    assert torch.equal(after, cell.step(x, h))
    torch.testing.assert_close(D, reference.jacobian(cell, x, h), rtol=0, atol=1e-14)
    expected = torch.stack([dense_jacobian(cell, *pair) for pair in zip(x, h, strict=True)])
    torch.testing.assert_close(D.detach(), expected, rtol=0, atol=1e-14)
    for product in (by_forward_mode, by_reverse_mode):
        torch.testing.assert_close(product(cell.step, x, h, Q)[1], D, rtol=0, atol=1e-14)


@MODES
@RESETS
def test_a_loss_backwards_through_time_meets_the_product_of_the_jacobians(grad, order, reset):
    cell = network(reset_grad=grad, order=order, reset=reset)
    inputs, h0 = torch.randn(30, 3, 2), state().requires_grad_()
    h, D = h0, torch.eye(12).expand(3, 12, 12)
    for x in inputs:
        h, D = cell.pushforward(x, h, D)
    weights = torch.randn(3, 12)
    expected = (D.mT @ weights.unsqueeze(-1)).squeeze(-1)
    for plain in (True, False):
        last = lt.cells.unroll(cell, inputs, h0, plain=plain)[-1]
        (got,) = torch.autograd.grad((weights * last).sum(), h0)
        torch.testing.assert_close(last, h, rtol=0, atol=0 if plain else 1e-13)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())


def test_the_step_is_that_of_the_paper():
    cell = network(bias=True, reset="subtract")
    nn.init.normal_(cell.bias)
    x, h = torch.randn(3, 2), state()
    U, I = h[:, :6], h[:, 6:]  # noqa: E741
    S = torch.heaviside(U - 0.4, torch.zeros(()))
    current = ALPHA * I + S @ cell.weight_hh.T + x @ cell.weight_ih.T + cell.bias
    v = BETA * U + (1 - BETA) * current
    after = cell.step(x, h)
    torch.testing.assert_close(after, torch.cat([v - 0.4 * S, current], -1), rtol=0, atol=1e-15)
    cell.reset = "product"
    torch.testing.assert_close(cell.step(x, h)[:, :6], v * (1 - S), rtol=0, atol=1e-15)
    cell.order = "simultaneous"
    torch.testing.assert_close(
        cell.step(x, h)[:, :6], (BETA * U + (1 - BETA) * I) * (1 - S), rtol=0, atol=1e-15
    )


def test_at_the_threshold_there_is_no_spike():
    cell = network()
    assert torch.equal(
        cell.spikes(torch.tensor([[0.4, 0.4 + 1e-15, 0.0, 9.0, -1.0, 0.39]]))[0].nonzero()[:, 0],
        torch.tensor([1, 3]),
    )


@MODES
def test_without_coupling_the_exponents_are_the_time_constants(grad, order):
    cell = network(8, threshold=1e6, reset_grad=grad, order=order)
    nn.init.zeros_(cell.weight_hh)
    frame = torch.eye(16)
    spectrum = lt.lyapunov_spectrum(cell, torch.randn(400, 1, 2), k=16, frame=frame, dt=1.0)
    expected = torch.tensor([-2 / 10] * 8 + [-2 / 5] * 8)
    torch.testing.assert_close(spectrum.exponents[0], expected, rtol=0, atol=1e-12)
    random = lt.lyapunov_spectrum(cell, torch.randn(400, 1, 2), k=16, dt=2e-3)
    assert random.exponents.sum().item() == pytest.approx(-8 * (1 / 10e-3 + 1 / 5e-3), rel=1e-12)
    torch.testing.assert_close(
        random.exponents[0, [0, 15]], torch.tensor([-1 / 10e-3, -1 / 5e-3]), rtol=0.05, atol=0
    )


def test_every_neuron_may_have_its_own_constants():
    tau = torch.tensor([[5e-3, 10e-3, 20e-3], [8e-3, 9e-3, 10e-3]])
    cell = lt.LIFCell(1, 3, tau_mem=tau, tau_syn=torch.tensor([5e-3, 6e-3]), threshold=1e6, ensemble=(2,))
    nn.init.zeros_(cell.weight_hh)
    spectrum = lt.lyapunov_spectrum(cell, torch.zeros(50, 1, 1), k=6, frame=torch.eye(6)).exponents[:, 0]
    torch.testing.assert_close(spectrum[:, :3], -2e-3 / tau, rtol=0, atol=1e-12)
    torch.testing.assert_close(spectrum[1, 3:], torch.full((3,), -2 / 6), rtol=0, atol=1e-12)
    one = lt.LIFCell(1, 3, tau_mem=tau[0], threshold=torch.tensor([0.1, 0.2, 0.3]))
    assert one.spikes(torch.full((1, 3), 0.15)).tolist() == [[1.0, 0.0, 0.0]]


def test_trained_time_constants_have_the_gradient_of_finite_differences():
    tau = nn.Parameter(torch.tensor([8e-3, 10e-3, 12e-3]))
    cell = lt.LIFCell(1, 3, tau_mem=tau, threshold=0.3)
    inputs = torch.ones(40, 1, 1)

    def loss():
        return lt.flossing_loss(
            lt.lyapunov_spectrum(cell, inputs, k=2, h0=torch.full((1, 6), -5.0)).exponents
        )

    (got,) = torch.autograd.grad(loss(), tau)
    assert (got != 0).all()
    step = 1e-8
    with torch.no_grad():
        tau[1] += step
        up = loss()
        tau[1] -= 2 * step
        down = loss()
    torch.testing.assert_close(got[1], (up - down) / (2 * step), rtol=1e-5, atol=0)


def test_the_three_conventions_differ():
    inputs = 3 * torch.randn(300, 1, 2)
    first = [
        lt.lyapunov_spectrum(network(20, reset_grad=g), inputs, k=1).exponents.item()
        for g in ("detach", "full", "ignore")
    ]
    assert min(abs(a - b) for a, b in zip(first, first[1:] + first[:1], strict=True)) > 0.01


def test_a_spike_with_a_detached_reset_takes_a_dimension_away():
    cell = network(2, threshold=0.3)
    spectrum = lt.lyapunov_spectrum(cell, torch.ones(200, 1, 2), k=4)
    assert cell.spikes(spectrum.final_state).shape == (1, 2)
    dead = spectrum.exponents[0] == -math.inf
    assert dead.any()
    assert not dead[0]
    assert not spectrum.exponents.isnan().any()
    loss = lt.flossing_loss(spectrum.exponents)
    gradient = torch.autograd.grad(loss, cell.weight_hh)[0]
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_a_users_activation_spikes_as_it_says():
    heaviside = lt.Activation(
        lambda x: (x > 0).to(x.dtype), lambda x: torch.exp(-x.abs()), surrogate=True, name="mine"
    )
    cell = network(surrogate=heaviside)
    h, x = state(), torch.randn(3, 2)
    torch.testing.assert_close(
        cell.pushforward(x, h, torch.eye(12).expand(3, 12, 12))[1],
        reference.jacobian(cell, x, h),
        rtol=0,
        atol=1e-14,
    )
    assert network().activation.value == "step"


class TestAdaptiveLIF:
    def cell(self, **settings):
        return lt.cells.AdaptiveLIFCell(2, 4, jump=0.7, tau_adapt=20e-3, threshold=0.3, **settings)

    def test_the_step(self):
        cell, x, h = self.cell(), torch.randn(3, 2), torch.randn(3, 12)
        U, _, A = h.chunk(3, -1)
        S = (U - 0.7 * A > 0.3).double()
        rho = math.exp(-2 / 20)
        after = cell.step(x, h)
        torch.testing.assert_close(after[:, 8:], rho * A + (1 - rho) * S, rtol=0, atol=1e-15)
        current = ALPHA * h[:, 4:8] + S @ cell.weight_hh.T + x @ cell.weight_ih.T
        torch.testing.assert_close(after[:, 4:8], current, rtol=0, atol=1e-14)
        assert torch.equal(cell.spikes(h), S)

    @pytest.mark.parametrize("grad", ["detach", "full", "ignore"])
    def test_the_jacobian_and_a_spectrum(self, grad):
        cell, x, h = self.cell(reset_grad=grad), torch.randn(3, 2), torch.randn(3, 12)
        D = cell.pushforward(x, h, torch.eye(12).expand(3, 12, 12))[1]
        torch.testing.assert_close(D, reference.jacobian(cell, x, h), rtol=0, atol=1e-14)
        spectrum = lt.lyapunov_spectrum(cell, torch.randn(60, 1, 2), k=2)
        assert torch.isfinite(spectrum.exponents).all()
        (gradient,) = torch.autograd.grad(lt.flossing_loss(spectrum.exponents), cell.weight_hh)
        assert gradient.abs().max() > 0

    def test_with_no_jump_it_is_a_lif(self):
        cell = lt.cells.AdaptiveLIFCell(2, 4, jump=1e-300, threshold=0.3)
        plain, x, h = lt.LIFCell(2, 4, threshold=0.3), torch.randn(3, 2), torch.randn(3, 12)
        torch.testing.assert_close(cell.step(x, h)[:, :8], plain.step(x, h[:, :8]), rtol=0, atol=1e-15)


class TestLeakyReadout:
    def test_it_integrates_spikes_and_does_not_spike(self):
        cell = network(ensemble=(2,))
        readout = lt.cells.LeakyReadout(cell, 3)
        states = lt.cells.unroll(cell, torch.randn(25, 3, 2), torch.zeros(2, 3, 12))
        nn.init.normal_(readout.bias)
        current = potential = torch.zeros(2, 3, 3)
        expected = []
        for h in states:
            S = (h[..., :6] > 0.4).double()
            current = ALPHA * current + S @ readout.weight.mT + readout.bias[:, None]
            potential = BETA * potential + (1 - BETA) * current
            expected.append(potential)
        torch.testing.assert_close(readout(states), torch.stack(expected), rtol=0, atol=1e-13)
        assert {name for name, _ in readout.named_parameters()} == {"weight", "bias"}

    def test_in_a_model_members_are_copied_with_their_own_cell(self):
        cell = network(ensemble=(3,))
        model = lt.Model(cell, lt.cells.LeakyReadout(cell, 2))
        part = model.select(torch.tensor([True, False, True]))
        inputs = torch.randn(10, 4, 2)
        torch.testing.assert_close(part(inputs), model(inputs)[:, [0, 2]], rtol=0, atol=1e-14)
        assert part.readout._spikes.__self__ is part.cell


class TestFluctuationDriven:
    @pytest.mark.parametrize("order", ["sequential", "simultaneous"])
    def test_simulated_potentials_have_the_mean_and_the_spread(self, order):
        n, t, p, q = 60, 4000, 0.06, 0.02
        cell = lt.LIFCell(100, n, order=order, tau_mem=torch.linspace(5e-3, 20e-3, n))
        lt.weights.fluctuation_driven(
            cell, input_rate=p / 2e-3, rate=q / 2e-3, mean=0.2, std=0.8, recurrent=0.3
        )
        # the neurons' own spikes are drawn too, independent and at their rate; nothing is reset
        x = (torch.rand(t, 100) < p).double() @ cell.weight_ih.T.detach()
        x += (torch.rand(t, n) < q).double() @ cell.weight_hh.T.detach()
        I, U, potentials = torch.zeros(n), torch.zeros(n), []  # noqa: E741
        alpha, beta = (decay[0] for decay in cell.decays())
        for drive in x:
            before, I = I, alpha * I + drive  # noqa: E741
            U = beta * U + (1 - beta) * (I if order == "sequential" else before)
            potentials.append(U)
        U = torch.stack(potentials)[100:]
        # the neurons' own means scatter by 0.2, and with 100 and 60 weights the variance of each by 15%
        assert U.mean().item() == pytest.approx(0.2, abs=5 * 0.2 / n**0.5)
        assert U.var(0).mean().item() == pytest.approx(0.8**2, rel=5 * 0.15 / n**0.5)

    def test_expected_moments_of_the_weights(self):
        cell = lt.weights.fluctuation_driven(
            lt.LIFCell(500, 400, ensemble=(4,)), input_rate=20.0, rate=8.0, mean=0.3, recurrent=0.25
        )
        A = 1 / (1 - ALPHA)
        kernel = [(1 - BETA) * (BETA ** (j + 1) - ALPHA ** (j + 1)) / (BETA - ALPHA) for j in range(400)]
        assert sum(kernel) == pytest.approx(A, rel=1e-12)
        B = sum(k * k for k in kernel)
        for weight, p, share in ((cell.weight_ih, 0.04, 0.75), (cell.weight_hh, 0.016, 0.25)):
            N = weight.shape[-1]
            assert (weight.mean() * N * p * A).item() == pytest.approx(0.3 * share, rel=0.2)
            assert (weight.square().mean() * N * p * (1 - p) * B).item() == pytest.approx(share, rel=0.02)

    def test_members_draw_the_same_alone(self):
        def make(ids, **kw):
            return lt.weights.fluctuation_driven(lt.LIFCell(5, 6, **kw), input_rate=50.0, member_ids=ids)

        ensemble = make(torch.tensor([4, 7]), ensemble=(2,))
        assert torch.equal(ensemble.weight_hh[1], make(torch.tensor(7)).weight_hh)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"input_rate": 500.0},
                r"input_rate must be between 0 and 500 Hz, one spike in each step, got 500",
            ),
            ({"input_rate": 10.0, "rate": 0.0}, r"rate must be between 0 and 500 Hz.* got 0"),
            ({"input_rate": 10.0, "recurrent": 1.5}, r"recurrent must be a share in 0..1, got 1.5"),
            ({"input_rate": 10.0, "std": 0.0}, r"std must be a finite number above 0"),
            (
                {"input_rate": 200.0, "mean": 9.0},
                r"std must be at least .* for a mean of 9.0 .* lower",
            ),
        ],
    )
    def test_bad_arguments(self, settings, message):
        with pytest.raises(ValueError, match=message):
            lt.weights.fluctuation_driven(lt.LIFCell(3, 4), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dt": 0.0}, r"dt must be a finite number above 0, got 0.0"),
        ({"tau_mem": -1e-3}, r"tau_mem must be a finite number above 0"),
        ({"tau_syn": torch.ones(3)}, r"tau_syn must be a number or a tensor of .* n = 4, got \(3,\)"),
        ({"threshold": nn.Parameter(torch.ones(()))}, r"threshold must be .* the shape \(4,\) .* got \(\)"),
        ({"reset": "substract"}, r"unknown reset 'substract', did you mean 'subtract'\?"),
        ({"reset_grad": "detached"}, r"unknown reset_grad 'detached', did you mean 'detach'\?"),
        ({"order": "sequntial"}, r"unknown order 'sequntial', did you mean 'sequential'\?"),
    ],
)
def test_bad_arguments_of_a_spiking_cell(settings, message):
    with pytest.raises(ValueError, match=message):
        lt.LIFCell(2, 4, **settings)
