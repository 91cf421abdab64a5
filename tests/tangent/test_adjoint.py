"""The whole-sequence adjoint against autograd through every QR, ours and LAPACK's."""

import pytest
import torch
from torch import nn

import lyaptorch as lt
import reference
from cases import ALONE, GRID, ROW, M, N, across, setup
from lyaptorch import _checks
from lyaptorch.cells.activation import sech2
from lyaptorch.tangent import adjoint
from reference import random_frame

pytestmark = pytest.mark.usefixtures("double")

SMALL, LARGE = 1e-9, 1e-7  # relative agreement for n <= 20 and for n = k = 80 (float64)

SETTINGS = {
    "plain": {},
    "interval": {"interval": 3, "tangent_transient": 2},
    "transient": {"transient": 2, "tangent_transient": 3, "interval": 2},
    "detach": {"state_grad": "detach"},
    "truncated": {"state_grad": 3, "interval": 2, "tangent_transient": 1},
}


def loss_of(running, final_state):
    """Weights every interval, column, trajectory and member differently, and sees the final state."""
    weights = torch.linspace(-1, 2, running.numel()).reshape(running.shape).cos()
    return (weights * running).sum() + running[-1].square().sum() + 0.3 * final_state.sin().sum()


def gradients(loss, wanted):
    return torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True, retain_graph=True)


def agree(got, expected, tolerance=SMALL):
    for g, e in zip(got, expected, strict=True):
        # where a gradient vanishes, as that of the frame of an orthogonal map, there is only round-off
        assert (g - e).abs().max() <= tolerance * e.abs().max().clamp_min(1e-3)


# with the dense reference alone and for members in one dimension
@across("name", {ALONE: list(SETTINGS)[1:], ROW: ["plain"], GRID: ["transient", "truncated"]})
def test_every_cell(case, ensemble, name):
    cell, inputs, h0 = setup(case, ensemble, t=9)
    k, settings = 3, dict(SETTINGS[name])
    frame = random_frame(N, k)
    wanted = [z.requires_grad_() for z in (inputs, h0, frame)] + cell.leaves(inputs[0], h0)
    grads = {}
    for backend in (None, "autograd"):
        spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, k=k, backend=backend, **settings)
        grads[backend] = gradients(loss_of(spec.running(), spec.final_state), wanted)
    agree(grads[None], grads["autograd"])
    if len(ensemble) < 2:
        cut = {"full": None, "detach": 1}.get(settings.get("state_grad", "full"), 3)
        settings.pop("state_grad", None)
        dense = reference.scan(cell, inputs, h0, frame, cut=cut, create_graph=True, **settings)
        agree(grads[None], gradients(loss_of(dense.running(), dense.final_state), wanted))


@across("checkpoint", {ALONE: (1, 100), GRID: (4,)})
def test_checkpointing_changes_nothing(case, ensemble, checkpoint):
    s = setup(case, ensemble, t=11)
    wanted = [z.requires_grad_() for z in (s.inputs, s.h0)] + s.cell.leaves(s.inputs[0], s.h0)
    grads = []
    for settings in ({}, {"checkpoint": checkpoint}):
        spec = lt.lyapunov_spectrum(
            s.cell, s.inputs, h0=s.h0, k=2, interval=2, tangent_transient=3, backend="torch", **settings
        )
        grads.append(gradients(loss_of(spec.running(), spec.final_state), wanted))
    agree(grads[1], grads[0], 1e-12)  # the same operations in the same order


@pytest.mark.parametrize("checkpoint", [None, 4])
@pytest.mark.parametrize("make", [lambda: lt.RateCell(M, N), lambda: lt.as_cell(nn.GRUCell(M, N))])
def test_the_gradient_of_inputs_alone(make, checkpoint):
    cell = make().requires_grad_(False)
    inputs, h0 = torch.randn(12, 2, M).requires_grad_(), torch.randn(2, N)
    grads = [
        gradients(
            lt.lyapunov_spectrum(cell, inputs, h0=h0, k=2, **settings).exponents.square().sum(), [inputs]
        )
        for settings in ({"checkpoint": checkpoint}, {"backend": "autograd"})
    ]
    agree(*grads)


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_twenty_units_over_a_hundred_steps(kind, interval):
    cell = kind(1, 20, gain=1.0)
    inputs, frame = torch.randn(100, 1, 1), random_frame(20, 12)
    grads = []
    for backend in (None, "autograd"):
        spec = lt.lyapunov_spectrum(cell, inputs, k=12, frame=frame, interval=interval, backend=backend)
        grads.append(gradients(loss_of(spec.running(), spec.final_state), list(cell.parameters())))
    agree(*grads)


@pytest.mark.parametrize("interval", [1, 2])
def test_eighty_units_and_all_exponents_against_lapack(interval):
    cell, inputs, frame = lt.RateCell(1, 80), torch.randn(24, 1, 1), random_frame(80, 80)
    spec = lt.lyapunov_spectrum(cell, inputs, frame=frame, tangent_transient=4, interval=interval)
    wanted = list(cell.parameters())
    got = gradients(spec.exponents.square().mean(), wanted)
    W, V, b = cell.weight_hh, cell.weight_ih, cell.bias
    h, Q, growth, rounding = torch.zeros(80), frame, 0.0, 0.0
    for s, x in enumerate(inputs[:, 0]):
        Q, h = (W * sech2(h)) @ Q, W @ torch.tanh(h) + V @ x + b
        if (s + 1) % interval == 0:
            Q, R = reference.positive_qr(Q)
            if s >= 4:
                growth = growth + R.diagonal().log()
                # a column is rounded by eps of the largest, relative to what is left of it
                rounding = rounding + torch.finfo(R.dtype).eps * R.diagonal()[0] / R.diagonal()
    off = (spec.exponents[0] - growth / 20).abs()
    assert (off <= 80 * rounding / 20).all(), (20 * off / rounding).max()
    agree(got, gradients((growth / 20).square().mean(), wanted), LARGE)


def test_eighty_units_over_three_hundred_steps_against_autograd():
    cell, inputs = lt.RateCell(1, 80), torch.randn(300, 1, 1)
    grads = []
    for backend in (None, "autograd"):
        spec = lt.lyapunov_spectrum(cell, inputs, backend=backend, tangent_transient=20, state_grad=50)
        grads.append(gradients(spec.exponents.square().mean(), list(cell.parameters())))
    # each of the two has round-off of its own
    agree(*grads, 2 * LARGE)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_truncation_against_a_loop_with_detach(cut):
    cell, inputs, frame = lt.ElmanCell(M, N, gain=1.5), torch.randn(12, 1, M), random_frame(N, 2)
    wanted, Q, h, growth = list(cell.parameters()), frame, torch.zeros(1, N), 0.0
    for s, x in enumerate(inputs):
        h = h.detach() if s % cut == 0 else h
        h = cell(x, h)
        Q, R = reference.positive_qr((1 - h[0] ** 2)[:, None] * (cell.weight_hh @ Q))
        growth = growth + R.diagonal().log()
    spec = lt.lyapunov_spectrum(cell, inputs, k=2, frame=frame, state_grad=cut)
    agree(gradients(spec.exponents.square().sum(), wanted), gradients((growth / 12).square().sum(), wanted))
    if cut == 1:
        detached = lt.lyapunov_spectrum(cell, inputs, k=2, frame=frame, state_grad="detach")
        agree(
            gradients(detached.exponents.square().sum(), wanted),
            gradients(spec.exponents.square().sum(), wanted),
            1e-14,
        )


@pytest.mark.parametrize("backend", [None, "autograd"])
def test_gradcheck(backend):
    cell = lt.RateCell(1, 3, gain=1.1)
    names = [name for name, _ in cell.named_parameters()]

    def growth(inputs, h0, *weights):
        def step(x, h):
            return torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x, h))

        spec = lt.lyapunov_spectrum(
            step,
            inputs,
            h0=h0,
            k=2,
            frame=random_frame(3, 2),
            tangent_transient=1,
            interval=2,
            backend=backend,
        )
        return spec.growth.log_r, spec.final_state

    leaves = [torch.randn(4, 1, 1), torch.randn(1, 3), *(p.detach().clone() for p in cell.parameters())]
    assert torch.autograd.gradcheck(growth, [z.requires_grad_() for z in leaves])
    if backend == "autograd":
        assert torch.autograd.gradgradcheck(growth, [z.requires_grad_() for z in leaves])


@pytest.mark.parametrize("kind", ["rate", "lstm"])
def test_where_nobody_can_look_the_same_is_computed(kind, monkeypatch):
    """Second passes and projections are decided on the device; more units than a kernel of Triton's holds."""
    n = 130 if kind == "rate" else 20
    cell = lt.RateCell(1, n, gain=1.5) if kind == "rate" else lt.LSTMCell(1, n // 2, gain=3.0)
    x, k = torch.linspace(-1, 1, 7).reshape(7, 1, 1), n // 2
    wanted = list(cell.parameters())
    results = []
    for looks in (True, False):
        monkeypatch.setattr(_checks, "can_look", lambda looks=looks: looks)
        spec = lt.lyapunov_spectrum(cell, x, k=k, backend="torch", interval=2)
        loss = spec.exponents.square().sum() + spec.final_state.sum()
        results.append([spec.growth.log_r, spec.final_frame, *torch.autograd.grad(loss, wanted)])
    spread = results[0][0].amax(-1) - results[0][0].amin(-1)
    assert spread.sum() > adjoint.SPREAD
    for looked, unseen in zip(*results, strict=True):
        assert torch.equal(looked, unseen)


def test_where_nobody_can_look_an_overflow_is_no_number(monkeypatch):
    """Of the last state alone: the tangent vectors are finite."""
    cell = lt.RateCell(1, 3, activation="linear")
    monkeypatch.setattr(_checks, "can_look", lambda: False)
    x = torch.full((4, 1, 1), 1e308)
    with torch.no_grad():
        spec = lt.lyapunov_spectrum(cell, x, backend="torch")
    assert spec.exponents.isnan().all()
