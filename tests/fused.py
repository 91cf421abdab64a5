"""Networks that the compiled kernels serve, and how what they give is compared with the torch backend's."""

import math
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import cases
import lyaptorch as lt
from lyaptorch._random import Stream, ids_of
from lyaptorch.cells import Form, surrogates, unroll
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Residual
from lyaptorch.cells.spiking import ORDERS, RESET_GRADS, RESETS
from lyaptorch.tangent.dynamics import bind
from lyaptorch.tangent.qr import orthonormalise
from lyaptorch.tangent.scan import spans, sweep
from reference import random_frame

CPU = lt.kernels.available()["cpu"]


compiled = pytest.mark.skipif(not CPU.available, reason=f"no compiled kernels: {CPU.detail}")

ACTIVATIONS = ("tanh", "relu", "linear")


KINDS = (lt.RateCell, lt.ElmanCell)


SETS = ("avx512", "avx2", "baseline")


def problem(kind, n, *, ensemble=(), b=1, t=13, activation="tanh", gain=1.0, dtype=torch.float64):
    """A cell, inputs and a state that all ask for gradients."""
    cell = kind(2, n, ensemble=ensemble, activation=activation, gain=gain, weights="orthogonal").to(dtype)
    ids = ids_of(ensemble, None)
    if activation == "relu":
        # open units: whether a column is dead that only round-off keeps alive is anybody's guess
        with torch.no_grad():
            cell.weight_ih.mul_(0.2)
            (cell.bias if kind is lt.RateCell else cell.bias_ih).fill_(3.0)
            cell.weight_hh.mul_(0.5 / gain)
    inputs = Stream(5, "inputs").normal((t, b, 2), member_ids=ids).movedim(-3, 0).to(dtype)
    h0 = 0.5 * Stream(6, "h0").normal((b, n), member_ids=ids).abs().to(dtype)
    return cell, inputs.contiguous().requires_grad_(), h0.requires_grad_()


def scan(backend, cell, inputs, h0, frame, *, summed=False, **kw):
    """log R, what is healthy, final state and frame, and the gradients of a loss that sees all of it.

    With `summed` log R is that of all spans together, as in exponents.
    """
    spec = lt.lyapunov_spectrum(cell, inputs, h0=h0, frame=frame, k=frame.shape[-1], backend=backend, **kw)
    log_r, healthy = spec.growth.log_r, spec.growth.healthy
    finite = torch.where(healthy, log_r, 0.0)
    finite = finite.sum(0) if summed else finite
    weights = torch.linspace(-1, 2, finite.numel(), dtype=log_r.dtype).reshape(finite.shape).cos()
    loss = (weights * finite).sum() + 0.3 * spec.final_state.sin().sum()
    wanted = [inputs, h0, frame, *cell.parameters()]
    gradients = torch.autograd.grad(loss, wanted, materialize_grads=True, allow_unused=True)
    return [finite.detach(), healthy, spec.final_state.detach(), spec.final_frame, *gradients]


def agree(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        if e.dtype == torch.bool:
            assert (g == e).all()
        else:
            # where a gradient vanishes there is only round-off
            assert (g - e).abs().max() <= tolerance * e.abs().max().clamp_min(1e-3)


def compare(cell, inputs, h0, k, tolerance=1e-9, **kw):
    frame = random_frame(h0.shape[-1], k).to(h0.dtype).requires_grad_()
    agree(scan("cpu", cell, inputs, h0, frame, **kw), scan("torch", cell, inputs, h0, frame, **kw), tolerance)


def compare_unrolled(cell, inputs, h0, tolerance=1e-11):
    results, leaves = [], list(cell.parameters())
    for plain in (False, True):
        states = unroll(cell, inputs, h0, plain=plain)
        weights = torch.linspace(-1, 2, states.numel()).reshape(states.shape).cos()
        loss = (weights * states).sum() + states[-1].square().sum()
        results.append(
            [
                states,
                *torch.autograd.grad(loss, [inputs, h0, *leaves], materialize_grads=True, allow_unused=True),
            ]
        )
    assert type(results[0][0].grad_fn).__name__ == "_UnrollBackward"
    agree(*results, tolerance)


class Bypassed(FormCell):
    """A residual Form of any size with everything trained; c has the shape `coupling`, or is left out."""

    def __init__(self, n, kind, coupling, activations, ensemble=(), biased=True):
        super().__init__(2, n, ensemble)
        ids = ids_of(ensemble, None)

        def draw(stream, *shape):
            return nn.Parameter(Stream(7, stream).normal(shape, member_ids=ids))

        self.weight_hh, self.weight_ih = nn.Parameter(draw("W", n, n).data / n**0.5), draw("V", n, 2)
        self.bias = draw("b", n) if biased else None
        sizes = {"diagonal": (n,), "blocks": (n // 2, 2, 2), "dense": (n, n)}
        scale = n**-0.5 if kind == "dense" else 0.7
        self.matrix = None if kind is None else nn.Parameter(scale * draw("A", *sizes[kind]).data)
        self.coupling = (
            None
            if coupling is None
            else nn.Parameter(0.5 + torch.linspace(0, 0.6, math.prod(coupling)).reshape(coupling))
        )
        self.kind, self.given = kind, activations
        self.held = nn.ModuleList(f for f in activations if f is not None)

    def form(self):
        inner, outer, phi = self.given
        residual = None if self.kind is None else Residual(self.matrix, self.kind, phi)
        biases = () if self.bias is None else (self.bias,)
        return Form(self.weight_hh, self.weight_ih, biases, inner, outer, residual, self.coupling)


def bypassed(n, kind, coupling, activations, *, ensemble=(), b=1, t=7, dtype=torch.float64, **kw):
    cell = Bypassed(n, kind, coupling, activations, ensemble, **kw).to(dtype)
    ids = ids_of(ensemble, None)
    inputs = 0.7 * Stream(5, "inputs").normal((t, b, 2), member_ids=ids).movedim(-3, 0).to(dtype)
    h0 = 0.5 * Stream(6, "h0").normal((b, n), member_ids=ids).to(dtype)
    return cell, inputs.contiguous().requires_grad_(), h0.requires_grad_()


def has_a_known_form(case):
    form = cases.setup(case).cell.form()
    return form is not None and all(f.known for f in form.activations())


def errors_in_float32(cell, given, frame):
    """The kernels' must be round-off, as torch's are.

    Of exponents: a single log R_ii after one Cholesky pass is right to 40^2 eps, and errors cancel in sums.
    """
    exact = scan("torch", cell, *given, frame, summed=True)
    single = [z.detach().float().requires_grad_() for z in (*given, frame)]
    cell = cell.float()
    errors = {}
    for backend in ("torch", "cpu"):
        got = scan(backend, cell, *single, summed=True)
        errors[backend] = [
            (g.double() - e).norm() / e.norm().clamp_min(1)
            for g, e in zip(got, exact, strict=True)
            if e.dtype != torch.bool
        ]
    # both are round-off; neither is favoured in every tensor, so a factor of 4 and a floor of 3e-6, and
    # the loss holds the sine of the final state, whose error grows with that state
    floor = 3e-6 * exact[2].abs().max().clamp_min(1)
    for fused, plain in zip(errors["cpu"], errors["torch"], strict=True):
        assert fused <= 4 * plain + floor


def graph(z: Tensor) -> str:
    names, stack = [], [z.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None:
            # of a scan the engine's name, too
            names += [type(node).__name__, type(getattr(node, "engine", None)).__name__]
            stack += [parent for parent, _ in node.next_functions]
    return " ".join(names)


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def doubt(cell, inputs, h0, frame, interval, tangent_transient):
    """How near the columns come to death: the least R_ii / |a_i| of the living, the most of the dying."""
    least, most = [], []

    def factor(A, dead, method):
        factors = orthonormalise(A, dead, method)
        lengths = torch.linalg.vector_norm(A, dim=-2).clamp_min(torch.finfo(A.dtype).tiny)
        ratios = factors.R.diagonal(dim1=-2, dim2=-1) / lengths
        if factors.dead is not None:
            before = torch.zeros_like(factors.dead) if dead is None else dead
            left = torch.linalg.vector_norm(A - factors.Q @ (factors.Q.mT @ A), dim=-2) / lengths
            most.append(torch.where(factors.dead & ~before, left, 0.0).max().item())
            ratios = torch.where(factors.dead, torch.inf, ratios)
        least.append(ratios.min().item())
        return factors

    with torch.no_grad():
        over = spans(tangent_transient, len(inputs), interval)
        dynamics = bind(cell, cell.form(), inputs, ())
        sweep(dynamics, h0, frame.expand(*h0.shape, -1), None, over, factor=factor)
    return min(least), max(most, default=0.0)


CONVENTIONS = [(a, b, c) for a in RESETS for b in RESET_GRADS for c in ORDERS]


def neurons(n, convention=CONVENTIONS[0], *, ensemble=(), b=3, t=9, dtype=torch.float64, **given):
    """Neurons with constants of their own that all ask for gradients, and of which a third spikes."""
    ids = ids_of(ensemble, None)

    def draw(stream, low, high):
        return low + (high - low) * Stream(9, stream).uniform((n,), member_ids=ids)

    chosen = dict(zip(("reset", "reset_grad", "order"), convention, strict=True))
    chosen |= {"tau_mem": draw("mem", 5e-3, 20e-3), "tau_syn": draw("syn", 3e-3, 10e-3)}
    chosen |= {"threshold": draw("threshold", 0.1, 0.4), "bias": True}
    shape = (1, 1) if ensemble else ()
    sharpness = nn.Parameter(1.5 + Stream(9, "sharpness").uniform(shape, member_ids=ids))
    chosen |= {"surrogate": surrogates.fast_sigmoid(sharpness)} | given
    cell = lt.LIFCell(2, n, ensemble=ensemble, **chosen).to(dtype)
    if cell.bias is not None:
        cell.bias.data = 0.3 * Stream(9, "bias").normal((n,), member_ids=ids).to(dtype)
    inputs = 1.5 * Stream(5, "inputs").normal((t, b, 2), member_ids=ids).movedim(-3, 0)
    h0 = 0.4 * Stream(6, "h0").normal((b, 2 * n), member_ids=ids)
    return cell, *(z.to(dtype).contiguous().requires_grad_() for z in (inputs, h0))
