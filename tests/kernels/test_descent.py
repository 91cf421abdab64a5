"""The compiled step of an optimiser against torch's and against the one of operations."""

import math

import pytest
import torch
from torch import nn

from fused import SETS, compiled, threads
from lyaptorch.kernels import library
from lyaptorch.kernels.descent import Descent
from lyaptorch.training.optim import SGD, Adam, MemberOptimizer, clip

pytestmark = compiled

ENSEMBLES = [(), (3,), (2, 2), (0,)]
RULES = [Adam(), Adam(0.5, 0.9, 1e-2), SGD(), SGD(0.9), SGD(0.9, nesterov=True)]
TYPES = [torch.float32, torch.float64]
OWN = [(17, 16), (33,), (), (1, 1)]
"""Of the parameters of one member."""


def drawn(ensemble, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn((*ensemble, *shape), generator=g, dtype=dtype) for shape in OWN]


def steps(ensemble, dtype, count=12):
    """Gradients whose sizes differ by orders of magnitude from step to step and tensor to tensor."""
    for s in range(count):
        yield [10.0 ** ((s + i) % 5 - 3) * g for i, g in enumerate(drawn(ensemble, dtype, s + 1))]


@pytest.fixture
def by_operations(monkeypatch):
    """A function that steps without kernels."""

    def step(optimizer, *args):
        with monkeypatch.context() as patch:
            patch.setattr(MemberOptimizer, "_compiled", lambda self: None)
            return optimizer.step(*args)

    return step


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernel."""
    found = []

    def called(*args):
        found.append(args)
        return step(*args)

    step = Descent.step
    monkeypatch.setattr(Descent, "step", called)
    return found


def limits(ensemble, dtype):
    each = 0.05 + torch.rand(ensemble, generator=torch.Generator().manual_seed(5))
    return [
        (None, "tensor"),
        (0.3, "tensor"),
        (0.0, "tensor"),
        (0.3, "global"),
        (each, "tensor"),
        (each.to(dtype), "global"),
    ]


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_same_as_by_operations(ensemble, dtype, rule, by_operations, calls):
    lr = 10 ** -(1 + 3 * torch.rand(ensemble))
    for limit, mode in limits(ensemble, dtype):
        one, two = (MemberOptimizer(drawn(ensemble, dtype), ensemble, lr, rule) for _ in range(2))
        # some are behind
        for optimizer in (one, two):
            optimizer.count += 10 * torch.arange(optimizer.count.numel()).view(ensemble)
        for gradients in steps(ensemble, dtype):
            wrong, lengths = one.step(gradients, limit, mode)
            assert wrong is None
            _, expected = by_operations(two, gradients, limit, mode)
            torch.testing.assert_close(lengths, expected)
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
        for a, b in zip((*one.parameters, *one.tensors()), (*two.parameters, *two.tensors()), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        assert torch.equal(one.count, two.count)
    assert len(calls) == 6 * 12


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_as_near_to_torchs_adam_in_float64_as_torchs_own_is(dtype, calls):
    """The error of round-off over 300 steps, beside that of torch.optim.Adam in the same dtype."""
    found = {}
    for name, kind in (("exact", torch.float64), ("torch", dtype), ("kernel", dtype)):
        own = [nn.Parameter(p.to(kind)) for p in drawn((), torch.float64)]
        adam = torch.optim.Adam(own, lr=1e-2)
        optimizer = MemberOptimizer(own, (), 1e-2, Adam())
        for gradients in steps((), torch.float64, 300):
            gradients = [g.to(dtype).to(kind) for g in gradients]
            if name == "kernel":
                optimizer.step(gradients)
            else:
                for p, g in zip(own, gradients, strict=True):
                    p.grad = g
                adam.step()
        found[name] = torch.cat([p.detach().double().reshape(-1) for p in own])
    assert len(calls) == 300
    error = {name: (found[name] - found["exact"]).abs().max().item() for name in ("torch", "kernel")}
    assert error["kernel"] <= 2 * error["torch"] + 1e-14


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("place", "entry"), [(0, 271), (0, 0), (1, 32), (2, 0)])
def test_one_that_is_not_finite_keeps_everybody_where_they_are(bad, dtype, place, entry, calls):
    optimizer = MemberOptimizer(drawn((2, 2), dtype), (2, 2), 1e-2, Adam())
    (gradients,) = steps((2, 2), dtype, 1)
    optimizer.step(gradients)
    everything = [*optimizer.parameters, *optimizer.tensors(), optimizer.count]
    before = [z.clone() for z in everything]
    gradients[place].view(4, -1)[2, entry] = bad
    wrong, _ = optimizer.step(gradients, 0.1)
    assert wrong.tolist() == [[False, False], [True, False]]
    assert all(torch.equal(a, b) for a, b in zip(everything, before, strict=True))
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_largest_gradients_are_finite(dtype):
    """Their squares are not."""
    optimizer = MemberOptimizer([torch.zeros(2, 40, dtype=dtype)], (2,), 1.0, SGD())
    g = torch.ones(2, 40, dtype=dtype)
    g[0] *= torch.finfo(dtype).max / 16
    wrong, lengths = optimizer.step([g], 1.0)
    assert wrong is None
    assert lengths[0, 0] == (math.inf if dtype == torch.float64 else g[0, 0] * 40**0.5)
    torch.testing.assert_close(optimizer.parameters[0][1], torch.full((40,), -(40**-0.5), dtype=dtype))


@pytest.mark.parametrize("rule", [Adam(), SGD(0.9, nesterov=True)], ids=str)
def test_threads_and_instruction_sets(rule):
    """Threads change no bit; instruction sets only how often is rounded."""
    cpu, found = library.open_library(), {}
    for name in SETS:
        if not cpu.lyap_use(name.encode()):
            continue
        for count in (1, 2, 5):
            optimizer = MemberOptimizer(drawn((7,), torch.float32), (7,), 1e-2, rule)
            with threads(count):
                lengths = [optimizer.step(g, 0.1)[1] for g in steps((7,), torch.float32)]
            found[name, count] = [*optimizer.parameters, *optimizer.tensors(), *lengths]
    assert cpu.lyap_use(None)
    first = next(iter(found.values()))
    for (name, _), values in found.items():
        for a, b, c in zip(values, found[name, 1], first, strict=True):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, c, rtol=1e-5, atol=1e-6)


def test_members_step_as_they_would_alone():
    together = MemberOptimizer(drawn((3,), torch.float64), (3,), 1e-2, Adam())
    alone = [MemberOptimizer([p[i].clone() for p in together.parameters], (), 1e-2, Adam()) for i in range(3)]
    for gradients in steps((3,), torch.float64):
        together.step(gradients, 0.2, "global")
        for i, optimizer in enumerate(alone):
            optimizer.step([g[i] for g in gradients], 0.2, "global")
    for i, optimizer in enumerate(alone):
        for p, q in zip(together.parameters, optimizer.parameters, strict=True):
            assert torch.equal(p[i], q)


class Halving:
    """A user's rule."""

    slots = 1

    def step(self, g, slots, count):
        return g / 2


@pytest.mark.parametrize("why", ["strided", "half", "mixed", "rule", "switched off"])
def test_what_the_kernel_does_not_know_is_stepped_by_operations(why, calls, monkeypatch):
    own = [torch.zeros(2, 5, 4), torch.zeros(2, 3)]
    if why == "strided":
        own[0] = torch.zeros(2, 4, 5).mT
    if why == "half":
        own = [p.to(torch.bfloat16) for p in own]
    if why == "mixed":
        own[1] = own[1].double()
    if why == "switched off":
        monkeypatch.setenv("LYAPTORCH_KERNELS", "0")
    optimizer = MemberOptimizer(own, (2,), 0.5, Halving() if why == "rule" else SGD())
    optimizer.step([torch.ones_like(p) for p in own])
    for p in own:
        assert torch.equal(p, torch.full_like(p, -0.25 if why == "rule" else -0.5))
    assert not calls


def test_tensors_may_be_others_than_those_of_the_step_before(calls):
    """A phase of fewer members, a checkpoint, or a user may have put others in their places."""
    optimizer = MemberOptimizer([torch.zeros(2, 3)], (2,), 1.0, SGD(1.0))
    one = optimizer.parameters[0]
    optimizer.step([torch.ones(2, 3)])
    two = optimizer.parameters[0] = torch.zeros(2, 3)
    optimizer.slots = [[torch.ones(2, 3)]]
    optimizer.count = torch.tensor([5, 6])
    optimizer.step([torch.ones(2, 3)])
    assert torch.equal(one, -torch.ones(2, 3))
    assert torch.equal(two, torch.full((2, 3), -2.0))
    assert optimizer.count.tolist() == [6, 7]
    assert len(calls) == 2
    optimizer.parameters[0] = two.double()
    optimizer.step([torch.ones(2, 3).double()])
    assert torch.equal(optimizer.parameters[0], torch.full((2, 3), -5.0, dtype=torch.float64))
    assert len(calls) == 2


def test_gradients_may_lie_in_any_way(calls):
    optimizer = MemberOptimizer([torch.zeros(2, 3, 4), torch.zeros(2, 3)], (2,), 1.0, SGD())
    given = [torch.arange(24.0).view(4, 3, 2).permute(2, 1, 0), torch.ones(1).expand(2, 3)]
    optimizer.step(given)
    assert all(torch.equal(p, -g) for p, g in zip(optimizer.parameters, given, strict=True))
    assert len(calls) == 1


def test_autograd_knows_that_parameters_changed(calls):
    p = nn.Parameter(torch.ones(3))
    out = (p * p).sum()
    MemberOptimizer([p], (), 0.1, SGD()).step([torch.ones(3)])
    assert len(calls) == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@pytest.mark.parametrize("mode", ["tensor", "global"])
def test_a_clipped_step_is_that_of_the_clipped_gradients(mode, calls):
    one, two = (MemberOptimizer(drawn((3,), torch.float64), (3,), 0.1, SGD(0.5)) for _ in range(2))
    for gradients in steps((3,), torch.float64):
        one.step(gradients, 0.2, mode)
        two.step(clip(gradients, (3,), 0.2, mode))
    for p, q in zip(one.parameters, two.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert len(calls) == 2 * 12
