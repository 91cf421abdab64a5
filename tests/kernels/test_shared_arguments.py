"""What members and trajectories share: arguments of every shape that steps broadcast, and expanded ones."""

from dataclasses import replace

import jaxtyping
import pytest
import torch
from sanitize import record

import lyaptorch as lt
from fused import Bypassed, agree, bypassed, compare, compiled
from lyaptorch import kernels
from lyaptorch.cells import settle, unroll
from lyaptorch.cells.activation import tanh
from lyaptorch.kernels import arguments, fused, library, scanning
from lyaptorch.kernels.arguments import KernelArguments

pytestmark = [pytest.mark.usefixtures("double", "unchecked"), compiled]

KINDS = {"elman": lt.ElmanCell, "lif": lt.LIFCell, "gru": lt.GRUCell, "lstm": lt.LSTMCell}
T, B, M = 7, 4, 2
# the second has as many members as the last steps, with which a dimension might be confused
GIVEN = [
    ((3,), (T, B, M)),
    ((T,), (T, B, M)),
    ((3,), (T, 1, M)),
    ((3,), (T, 1, B, M)),
    ((3,), (T, 1, 1, M)),
    ((T, 3), (T, 3, B, M)),
    ((2, 3), (T, 2, 1, B, M)),
    ((), (T, 1, M)),
]


@pytest.fixture
def unchecked():
    """As users call: the shapes of annotations are looked at in tests only."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def guarded(monkeypatch):
    """Every tensor handed to the kernels must be as large as what they read or write there: how many were."""
    room, looked, kernel = {}, [], fused.call

    def fill(args, **values):
        library.fill(args, **values)
        room.update({z.data_ptr(): z.nbytes for z in values.values() if isinstance(z, torch.Tensor)})

    def call(name, args, dtype):
        for address, size, *_ in dict(record.found(name, args, dtype)).values():
            if address in room:
                looked.append(name)
                assert size <= room[address], f"{name} uses {size} bytes of {room[address]}"
        kernel(name, args, dtype)

    for module in (arguments, fused, scanning):
        monkeypatch.setattr(module, "fill", fill)
    for module in (fused, scanning):
        monkeypatch.setattr(module, "call", call)
    return looked


def gradients(states, wanted):
    weights = torch.linspace(-1, 2, states.numel()).reshape(states.shape).cos()
    return [states, *torch.autograd.grad((weights * states).sum(), wanted, materialize_grads=True)]


@pytest.mark.parametrize(("ensemble", "shape"), GIVEN, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_as_steps_broadcast_them(guarded, kind, ensemble, shape):
    cell, g = KINDS[kind](M, 5, ensemble=ensemble), torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=g).requires_grad_()
    # one state of all trajectories, by a stride of 0
    start = torch.randn(*ensemble, 1, cell.state_size, generator=g).requires_grad_()
    h = start.expand(*ensemble, B, -1)
    wanted = [x, start, *cell.parameters()]
    states = unroll(cell, x, h)
    assert type(states.grad_fn).__name__ == "_UnrollBackward"
    expected = unroll(cell, x, h, plain=True)
    agree(gradients(states, wanted), gradients(expected, wanted), 1e-11)
    agree([settle(cell, x, h)], [expected[-1]], 1e-12)
    assert guarded.count("unroll_adjoint") >= 5


@pytest.mark.parametrize(("ensemble", "shape"), GIVEN[:2], ids=str)
def test_without_kernels(monkeypatch, ensemble, shape):
    monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    cell = lt.ElmanCell(M, 5, ensemble=ensemble)
    x, h = torch.randn(shape, requires_grad=True), torch.zeros(*ensemble, B, 5, requires_grad=True)
    wanted = [x, h, *cell.parameters()]
    results = [gradients(unroll(cell, x, h, plain=plain), wanted) for plain in (False, True)]
    agree(*results, 1e-11)


def test_a_state_without_members_is_broadcast_by_the_steps():
    cell, x = lt.ElmanCell(M, 5, ensemble=(3,)), torch.randn(T, 3, B, M)
    h = torch.zeros(B, 5, requires_grad=True)
    wanted = [h, *cell.parameters()]
    results = [gradients(unroll(cell, x, h, plain=plain), wanted) for plain in (False, True)]
    agree(*results, 1e-11)


class Shared(Bypassed):
    """All is the same for all members: W by a stride of 0, the rest so, or by no dimension of theirs."""

    def __init__(self, n, kind, members, expanded):
        super().__init__(n, kind, (n,), (tanh(), tanh(), tanh()))
        self.ensemble, self.expanded = (members,), expanded

    def form(self):
        one, members = super().form(), self.ensemble

        def spread(z):
            return z.expand(*members, *z.shape)

        rest = spread if self.expanded else lambda z: z
        residual = replace(one.residual, matrix=rest(one.residual.matrix))
        biases = tuple(rest(z) for z in one.biases)
        own = {"weight_hh": spread(one.weight_hh), "weight_ih": rest(one.weight_ih)}
        return replace(one, **own, biases=biases, residual=residual, coupling=rest(one.coupling))


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("kind", ["diagonal", "blocks", "dense"])
def test_weights_that_members_share(guarded, kind, expanded):
    _, x, h = bypassed(6, kind, (6,), (None, None, None), ensemble=(3,), b=2)
    cell = Shared(6, kind, 3, expanded)
    wanted = [x, h, *cell.parameters()]
    results = [gradients(unroll(cell, x, h, plain=plain), wanted) for plain in (False, True)]
    assert type(results[0][0].grad_fn).__name__ == "_UnrollBackward"
    agree(*results, 1e-11)
    assert "unroll_adjoint" in guarded
    # a scan in torch takes what a `Form` promises, A and c of each member
    if expanded:
        compare(cell, x, h, 3)
        assert "scan_adjoint" in guarded


def test_wrong_inputs_never_reach_the_kernels():
    cell, h = lt.ElmanCell(M, 5, ensemble=(3,)), torch.zeros(3, B, 5)
    for x in (torch.zeros(T, B, M), torch.zeros(T, 3, B, M + 1), torch.zeros(T, 3, B, M).float()):
        with pytest.raises(ValueError, match=r"need inputs .* = \(7, 3, 4, 2\) in torch.float64, got"):
            KernelArguments(cell.form(), x, h)
    assert not kernels.refusal("cpu", cell.form(), h)
    with pytest.raises(RuntimeError, match="expected scalar type"):
        unroll(cell, torch.zeros(T, 3, B, M).float(), h)
