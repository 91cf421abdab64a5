"""Spiking neurons in the compiled kernels against the torch backend, in every convention."""

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn

import lyaptorch as lt
from fused import (
    CONVENTIONS,
    SETS,
    agree,
    compare,
    compare_unrolled,
    compiled,
    doubt,
    errors_in_float32,
    graph,
    neurons,
    scan,
    threads,
)
from lyaptorch import kernels
from lyaptorch.cells import LIFForm, surrogates, unroll
from lyaptorch.kernels import library
from reference import random_frame

pytestmark = [
    pytest.mark.usefixtures("double"),
    compiled,
]
conventions = pytest.mark.parametrize(
    "convention", CONVENTIONS, ids=["-".join(convention) for convention in CONVENTIONS]
)


@conventions
# unrolling knows nothing of the settings, so that it is compared once for each ensemble
@pytest.mark.parametrize(
    ("ensemble", "kw"),
    [
        ((), {}),
        ((2, 3), {}),
        ((2, 3), {"interval": 3, "transient": 1, "tangent_transient": 2}),
        ((), {"state_grad": 2, "interval": 2}),
    ],
    ids=["plain-one", "plain-2x3", "intervals-2x3", "cut-one"],
)
def test_every_convention_is_that_of_torch(convention, ensemble, kw):
    case = neurons(7, convention, ensemble=ensemble)
    spikes = case[0].spikes(unroll(*case)).mean()
    assert 0.1 < spikes < 0.7
    compare(*case, 5, **kw)
    if not kw:
        compare_unrolled(*case)


@conventions
def test_and_that_of_plain_autograd(convention):
    case, frame = neurons(6, convention, b=2), random_frame(12, 5).requires_grad_()
    agree(scan("cpu", *case, frame), scan("autograd", *case, frame), 1e-9)


@conventions
def test_float32_is_as_close_to_float64_as_torch(convention):
    case = neurons(20, convention, b=2, t=12)
    errors_in_float32(case[0], case[1:], random_frame(40, 9).requires_grad_())


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    n=st.integers(1, 36),
    k=st.integers(1, 72),
    sizes=st.fixed_dictionaries(
        {
            "b": st.sampled_from((1, 2, 8, 9, 17)),
            "t": st.integers(1, 9),
            "ensemble": st.sampled_from([(), (2,)]),
            "dtype": st.sampled_from((torch.float32, torch.float64)),
            "bias": st.booleans(),
        }
    ),
    convention=st.sampled_from(CONVENTIONS),
    bump=st.sampled_from(sorted(surrogates.SURROGATES)),
    trained=st.booleans(),
    norm=st.sampled_from(surrogates.NORMS),
    interval=st.integers(1, 4),
    uncounted=st.integers(0, 8),
    state_grad=st.sampled_from(("full", "detach", 3)),
)
def test_any_network(n, k, sizes, convention, bump, trained, norm, interval, uncounted, state_grad):
    sharpness = nn.Parameter(torch.tensor(0.7)) if trained else 0.7
    case = neurons(n, convention, surrogate=surrogates.SURROGATES[bump](sharpness, norm=norm), **sizes)
    eps = torch.finfo(sizes["dtype"]).eps
    compare_unrolled(*case, 3e3 * eps)
    frame = random_frame(2 * n, min(k, 2 * n)).to(sizes["dtype"]).requires_grad_()
    lengths = {"interval": interval, "tangent_transient": min(uncounted, sizes["t"] - 1)}
    fused, plain = (scan(z, *case, frame, state_grad=state_grad, **lengths) for z in ("cpu", "torch"))
    assert all(z.isfinite().all() for z in fused)
    # a spike kills a column where its reset is detached, if only to round-off
    least, most = doubt(*case, frame, **lengths)
    if least < 1e6 * eps or most > 4 * eps:
        event("undecided")
        return
    event("decided")
    agree(fused, plain, 5e3 * eps / least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_columns(dtype):
    """A neuron that always spikes, with a detached reset, takes one dimension away."""
    cell, inputs, h0 = neurons(6, b=2, dtype=dtype, weights="orthogonal")
    with torch.no_grad():
        cell.weight_ih.mul_(0.1)
        cell.bias.fill_(0.01)
        h0[:, :6] = torch.tensor([0.8, 0.9, 0.0, 0.0, -0.1, 0.05])
    frame = random_frame(12, 12).to(dtype).requires_grad_()
    fused, plain = (scan(z, cell, inputs[:1], h0, frame) for z in ("cpu", "torch"))
    assert torch.equal(fused[1], plain[1])
    assert (~fused[1]).sum(-1).max() == 2
    assert not any(z.isnan().any() for z in fused if z.is_floating_point())
    agree(fused, plain, 1e-8 if dtype == torch.float64 else 1e-3)


def everything(count):
    with threads(count):
        found = []
        for convention in CONVENTIONS[::5]:
            case = neurons(21, convention, ensemble=(2,), b=19, t=12, dtype=torch.float32)
            found += scan("cpu", *case, random_frame(42, 13).float().requires_grad_(), interval=2)
            states = unroll(*case)
            found += [states, *torch.autograd.grad(states.square().sum(), [*case[1:], case[0].weight_hh])]
        return found


def test_the_number_of_threads_changes_no_bit():
    one = everything(1)
    for count in (2, 5):
        assert all(torch.equal(a, b) for a, b in zip(one, everything(count), strict=True))


def test_a_member_is_the_same_alone_bit_for_bit():
    cell, inputs, h0 = neurons(11, ensemble=(3,), b=2)
    form = cell.form()
    own = (form.weight_hh[1], form.weight_ih[1], (form.biases[0][1],))
    spike = surrogates.fast_sigmoid(form.spike.arguments[0][1].detach(), value="step")
    constants = (z[1] for z in form.constants())
    one = LIFForm(*own, spike, *constants, form.reset, form.reset_grad, form.order)
    fused = kernels.FusedRecurrence("cpu")
    together, _ = fused.forward(form, inputs, h0, keep=False)
    alone, _ = fused.forward(one, inputs[:, 1], h0[1], keep=False)
    assert torch.equal(together[:, 1], alone)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set(name, dtype):
    cpu = library.open_library()
    if not cpu.lyap_use(name.encode()):
        pytest.skip(f"this machine has no {name}")
    try:
        for convention in CONVENTIONS[::3]:
            case = neurons(19, convention, dtype=dtype)
            compare(*case, 7, 1e-9 if dtype == torch.float64 else 5e-4, interval=2)
            compare_unrolled(*case, 1e-11 if dtype == torch.float64 else 1e-4)
    finally:
        assert cpu.lyap_use(None)


def test_trained_constants_and_foreign_steps_are_left_to_torch():
    class Mine(lt.LIFCell):
        def step(self, x, h):
            return 0.5 * super().step(x, h)

    tau = nn.Parameter(torch.full((4,), 8e-3))
    inputs, h0 = torch.randn(5, 3, 2), torch.randn(3, 8)
    for cell, reason in (
        (lt.LIFCell(2, 4, tau_mem=tau), "train no time constants or thresholds"),
        (lt.LIFCell(2, 4, surrogate=heaviside()), "the kernels know the activations"),
        (Mine(2, 4), "no Form"),
    ):
        with pytest.raises(ValueError, match=reason):
            lt.lyapunov_spectrum(cell, inputs, h0=h0, backend="cpu")
        assert "Unroll" not in graph(unroll(cell, inputs, h0))
        assert lt.lyapunov_spectrum(cell, inputs, h0=h0, k=2).exponents.isfinite().all()


def heaviside():
    return lt.Activation(
        lambda x: (x > 0).to(x.dtype), lambda x: 1 / (1 + x.abs()).square(), surrogate=True, name="heaviside"
    )


def test_they_are_taken_by_themselves_and_second_derivatives_are_refused():
    cell, inputs, h0 = neurons(5)
    states = unroll(cell, inputs, h0)
    assert type(states.grad_fn).__name__ == "_UnrollBackward"
    assert "FusedEngine" in graph(lt.lyapunov_spectrum(cell, inputs, h0=h0).exponents)
    (first,) = torch.autograd.grad(states.square().sum(), h0, create_graph=True)
    with pytest.raises(RuntimeError, match="plain=True"):
        first.sum().backward()


def test_training_is_that_of_torch(monkeypatch):
    def losses():
        cell = lt.LIFCell(1, 12, gain=2.0, threshold=0.3, ensemble=(2,))
        model = lt.Model(cell, lt.cells.LeakyReadout(cell, 1))
        record = lt.train(model, lt.tasks.TemporalXOR(2), (lt.FitPhase(6),), batch=4, steps=12)
        return torch.tensor(record["loss"])

    fused = losses()
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    torch.testing.assert_close(fused, losses(), rtol=1e-9, atol=1e-9)
