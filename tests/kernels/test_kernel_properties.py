"""Properties of the compiled kernels over whatever a Form can be: like torch, and the same on any threads."""

import math

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn

import lyaptorch as lt
from fused import KINDS, bypassed, compiled, doubt, problem, scan, threads
from lyaptorch.cells import surrogates, unroll
from lyaptorch.cells.activation import relu, tanh
from lyaptorch.tangent.qr import DEAD, orthonormalise
from reference import random_frame

pytestmark = [
    pytest.mark.usefixtures("double"),
    compiled,
]
DTYPES = st.sampled_from((torch.float32, torch.float64))


ACTIVATIONS = st.sampled_from([None, tanh, relu]) | st.builds(
    lambda bump, sharpness, trained, norm, value: (
        lambda: surrogates.SURROGATES[bump](
            nn.Parameter(torch.tensor(sharpness)) if trained else sharpness, norm=norm, value=value
        )
    ),
    st.sampled_from(sorted(surrogates.SURROGATES)),
    st.sampled_from((0.3, 0.7, 1.1)),
    st.booleans(),
    st.sampled_from(sorted(surrogates.NORMS)),
    st.sampled_from(sorted(surrogates.VALUES)),
)


@st.composite
def networks(draw):
    """A call that makes a cell, inputs and a state, in either dtype, of any kind, alone or an ensemble."""
    ensemble, n = draw(st.sampled_from([(), (2,), (2, 3)])), draw(st.integers(1, 36))
    sizes = {"ensemble": ensemble, "b": draw(st.sampled_from((1, 2, 3, 8, 9))), "t": draw(st.integers(1, 9))}
    sizes["dtype"] = draw(DTYPES)
    if draw(st.booleans()):
        kind, name = draw(st.sampled_from(KINDS)), draw(st.sampled_from(("tanh", "relu", "linear")))
        return lambda: problem(kind, n, activation=name, **sizes)
    kind = draw(st.sampled_from((None, "diagonal", "blocks", "dense")))
    n = n + n % 2 if kind == "blocks" else n
    coupling = draw(st.sampled_from([None, (), (n,), (*ensemble, 1), (*ensemble, n)]))
    made, biased = [draw(ACTIVATIONS) for _ in range(3)], draw(st.booleans())
    return lambda: bypassed(n, kind, coupling, [f and f() for f in made], biased=biased, **sizes)


def agree(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        # the loss has weights up to 1; where a gradient vanishes there is only their round-off
        scale = e.abs().max().clamp_min(0.1) if e.dtype != torch.bool else 1
        assert (g.double() - e.double()).abs().max() <= tolerance * scale


def unrolled(cell, inputs, h0, *, plain):
    states = unroll(cell, inputs, h0, plain=plain)
    weights = torch.linspace(-1, 2, states.numel(), dtype=states.dtype).reshape(states.shape).cos()
    wanted = [inputs, h0, *cell.parameters()]
    loss = (weights * states).sum() + states[-1].square().sum()
    return [
        states.detach(),
        *torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True),
    ]


every_network = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@every_network
@given(
    network=networks(),
    columns=st.integers(1, 36),
    interval=st.integers(1, 5),
    uncounted=st.integers(0, 8),
    state_grad=st.sampled_from(("full", "detach", 2)),
)
def test_the_scan_is_that_of_torch(network, columns, interval, uncounted, state_grad):
    cell, inputs, h0 = network()
    n, eps = h0.shape[-1], torch.finfo(h0.dtype).eps
    frame = random_frame(n, min(columns, n)).to(h0.dtype).requires_grad_()
    lengths = {"interval": interval, "tangent_transient": min(uncounted, len(inputs) - 1)}
    fused, plain = (
        scan(z, cell, inputs, h0, frame, state_grad=state_grad, **lengths) for z in ("cpu", "torch")
    )
    assert all(z.isfinite().all() for z in fused)
    least, most = doubt(cell, inputs, h0, frame, **lengths)
    # R_ii is known to eps |a_i|, so a column at the threshold may live on one backend and die on the other
    if least < 1e4 * DEAD * eps or most > DEAD * eps / 4:
        event("undecided")
        return
    event("decided")
    # the gradient divides by R; one Cholesky pass is right to 40^2 eps
    agree(fused, plain, 5e3 * eps / least)


@every_network
@given(network=networks())
def test_backpropagation_through_time_is_that_of_autograd(network):
    network = network()
    fused, plain = (unrolled(*network, plain=plain) for plain in (False, True))
    agree(fused, plain, 3e3 * torch.finfo(plain[0].dtype).eps)


@every_network
@given(network=networks(), columns=st.integers(1, 36), interval=st.integers(1, 3), count=st.integers(2, 5))
def test_the_number_of_threads_changes_no_bit(network, columns, interval, count):
    cell, inputs, h0 = network()
    frame = random_frame(h0.shape[-1], min(columns, h0.shape[-1])).to(h0.dtype).requires_grad_()
    found = []
    for number in (1, count):
        with threads(number):
            found.append(
                [
                    *scan("cpu", cell, inputs, h0, frame, interval=interval),
                    *unrolled(cell, inputs, h0, plain=False),
                ]
            )
    for one, many in zip(*found, strict=True):
        assert torch.equal(one, many)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    rank=st.integers(0, 40),
    zeros=st.integers(0, 20),
    doubtful=st.floats(-0.5, 3),
    dtype=DTYPES,
    seed=st.integers(0, 10**6),
)
@pytest.mark.filterwarnings("ignore:every tangent vector has died")
def test_both_backends_bury_the_same_columns(rows, columns, rank, zeros, doubtful, dtype, seed):
    """One matrix: a column lives or dies alike, except within a factor of four around the threshold."""
    n, k = rows, min(rows, columns)
    draws = torch.Generator().manual_seed(seed)
    A = torch.randn(n, min(rank, k), generator=draws) @ torch.randn(min(rank, k), k, generator=draws)
    if k > 1:
        # the last column stands out by a multiple of the threshold
        out = 10.0**doubtful * DEAD * torch.finfo(dtype).eps * torch.randn(n, generator=draws)
        A[:, -1] = A[:, 0] + out * math.sqrt(1 / n) * A[:, 0].norm()
    A[n - min(zeros, n - 1) :] = 0
    A = A.to(dtype)
    plain = orthonormalise(A[None])
    cell = lt.RateCell(1, n, activation="linear", bias=False).to(dtype)
    with torch.no_grad():
        cell.weight_hh.zero_()[:, :k] = A
    inputs, frame = A.new_zeros(1, 1, 1), torch.eye(n, dtype=dtype)[:, :k]
    growth = lt.lyapunov_spectrum(cell, inputs, k=k, frame=frame, backend="cpu").growth
    fused = ~growth.healthy[0, 0]
    buried = torch.zeros_like(fused) if plain.dead is None else plain.dead[0]
    A, Q = A.double(), plain.Q[0].double()
    left = A - Q @ torch.triu(Q.mT @ A, 1)
    ratios = left.norm(dim=0) / A.norm(dim=0).clamp_min(1e-300) / (DEAD * torch.finfo(dtype).eps)
    doubts = ((ratios > 1 / 4) & (ratios < 4)).nonzero().flatten().tolist()
    # the columns after a doubtful one depend on its fate
    clear = slice(0, doubts[0] if doubts else k)
    assert (fused == buried)[clear].all()
    assert (buried == (ratios <= 1))[clear].all()
