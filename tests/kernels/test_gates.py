"""LSTM and GRU over whole sequences in one call: against their steps, torch's modules, and themselves."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import lyaptorch as lt
from fused import SETS, compiled, threads
from lyaptorch.cells import settle, unroll
from lyaptorch.kernels import library

pytestmark = compiled

KINDS = {"gru": (lt.GRUCell, nn.GRU), "lstm": (lt.LSTMCell, nn.LSTM)}
every_kind = pytest.mark.parametrize("kind", KINDS)
# no padding, much of it, and inputs beyond those whose columns are summed by themselves
SIZES = [(16, 1, 16, (3,), True), (5, 3, 2, (), True), (17, 7, 19, (2, 2), False), (35, 33, 33, (2,), True)]


def problem(kind, n, m, b, ensemble, bias=True, t=11, dtype=torch.float64):
    g = torch.Generator().manual_seed(n)
    cell = KINDS[kind][0](m, n, ensemble=ensemble, bias=bias).to(dtype)
    inputs = torch.randn(t, *ensemble, b, m, generator=g, dtype=dtype).requires_grad_()
    h0 = torch.randn(*ensemble, b, cell.state_size, generator=g, dtype=dtype).requires_grad_()
    return cell, inputs, h0


def stepped(cell, inputs, h):
    states = []
    for x in inputs:
        h = cell.step(x, h)
        states.append(h)
    return torch.stack(states)


def gradients(states, cell, inputs, h0, **kw):
    weights = torch.linspace(-1, 2, states.numel(), dtype=states.dtype).reshape(states.shape).cos()
    return torch.autograd.grad((weights * states).sum(), [inputs, h0, *cell.parameters()], **kw)


def near(got, expected, tolerance):
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape
        assert (g - e).abs().max() <= tolerance * e.abs().max().clamp_min(1e-3)


def in_one_call(states):
    return "_Unroll" in type(states.grad_fn).__name__


@every_kind
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_states_and_gradients_are_those_of_the_steps(kind, name, size):
    if not library.open_library().lyap_use(name.encode()):
        pytest.skip(f"this machine has no {name}")
    try:
        for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 3e-6)):
            cell, inputs, h0 = given = problem(kind, *size, dtype=dtype)
            for first in (0, 4):
                states, expected = unroll(cell, inputs, h0, first=first), stepped(cell, inputs, h0)[first:]
                assert in_one_call(states)
                near([states], [expected], tolerance)
                near(gradients(states, *given), gradients(expected, *given), tolerance)
    finally:
        library.open_library().lyap_use(None)


@every_kind
def test_gradients_are_those_of_torch(kind):
    cell, inputs, h0 = problem(kind, 12, 3, 5, ())
    module = KINDS[kind][1](3, 12).double()
    own = dict(cell.named_parameters())
    module.load_state_dict({f"{name}_l0": own[name].detach() for name in own})
    parts = [z[None].contiguous() for z in h0.chunk(cell.state_size // 12, -1)]
    theirs, _ = module(inputs, tuple(parts) if len(parts) > 1 else parts[0])
    shown = unroll(cell, inputs, h0)[..., cell.readable]
    near([shown], [theirs], 1e-13)
    weights = torch.randn(theirs.shape, dtype=theirs.dtype, generator=torch.Generator().manual_seed(1))
    wanted = [[getattr(module, f"{name}_l0") for name in own], list(own.values())]
    expected, got = (
        torch.autograd.grad((weights * states).sum(), [inputs, h0, *parameters])
        for states, parameters in zip((theirs, shown), wanted, strict=True)
    )
    near(got, expected, 1e-12)


@every_kind
def test_gates_that_are_shut_keep_their_slopes(kind):
    """Gates at 20, whose slopes are e^-20: 1 less the sigmoid is 0 there in single precision."""
    cell, inputs, h0 = problem(kind, 4, 1, 1, (), t=1, dtype=torch.float32)
    fine, x, h = problem(kind, 4, 1, 1, (), t=1)
    with torch.no_grad():
        for one in (cell, fine):
            for gate, bias in zip(one.gates, one.bias_ih.split(4), strict=True):
                bias.fill_(0.5 if gate in ("new", "cell") else 20.0)
    got, expected = (gradients(unroll(c, u, z), c, u, z) for c, u, z in ((cell, inputs, h0), (fine, x, h)))
    for g, e in zip(got, expected, strict=True):
        assert ((g - e).abs() <= 1e-4 * e.abs()).all()


@every_kind
def test_results_depend_on_neither_threads_nor_company(kind):
    cell, inputs, h0 = given = problem(kind, 18, 2, 21, (3,), dtype=torch.float32)
    results = []
    for count in (1, 2):
        with threads(count):
            states = unroll(cell, inputs, h0)
            results.append([states, *gradients(states, *given)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    alone = KINDS[kind][0](2, 18)
    alone.load_state_dict({name: z[1] for name, z in cell.state_dict().items()})
    states = unroll(alone, inputs[:, 1], h0[1])
    assert torch.equal(states, results[0][0][:, 1])
    weights = torch.linspace(-1, 2, results[0][0].numel()).reshape(results[0][0].shape).cos()[:, 1]
    found = torch.autograd.grad((weights * states).sum(), list(alone.parameters()))
    assert all(torch.equal(a, b[1]) for a, b in zip(found, results[0][3:], strict=True))


@every_kind
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_goes_where_the_steps_take_it(kind, bad):
    cell, inputs, h0 = given = problem(kind, 5, 6, 4, ())
    with torch.no_grad():
        inputs[3, 2, 1] = bad
    states, expected = unroll(cell, inputs, h0), stepped(cell, inputs, h0)
    pairs = [(states, expected), *zip(gradients(states, *given), gradients(expected, *given), strict=True)]
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13, equal_nan=True)


@every_kind
def test_second_derivatives_and_forward_mode_go_through_the_steps(kind):
    cell, inputs, h0 = given = problem(kind, 4, 2, 3, (2,), t=5)
    seconds = []
    for states in (unroll(cell, inputs, h0), stepped(cell, inputs, h0)):
        first = gradients(states, *given, create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in first), [inputs, h0]))
    near(*seconds, 1e-12)
    with forward_ad.dual_level():
        h = forward_ad.make_dual(h0.detach(), torch.ones_like(h0))
        moved = [forward_ad.unpack_dual(f(cell, inputs.detach(), h)).tangent for f in (unroll, stepped)]
    near(moved[:1], moved[1:], 1e-13)
    few = torch.func.vmap(lambda x: unroll(cell, x, h0), in_dims=-1)(torch.stack([inputs, 2 * inputs], -1))
    near([few[1]], [unroll(cell, 2 * inputs, h0)], 1e-13)


@every_kind
def test_a_weight_that_is_computed_from_another_has_its_own_share(kind):
    """First and second derivatives, where one weight comes from another: neither is counted twice."""
    cell, inputs, h0 = problem(kind, 4, 2, 3, (), t=5)
    hidden = cell.weight_hh
    del cell._parameters["bias_hh"]
    for graph in (False, True):
        found = []
        for f in (unroll, stepped):
            cell.bias_hh = 2 * hidden[:, 0]
            loss = f(cell, inputs, h0).sin().sum()
            found.append(torch.autograd.grad(loss, [hidden, cell.weight_ih], create_graph=graph))
        near(*found, 1e-12)
    seconds = [torch.autograd.grad(g[0].square().sum(), hidden) for g in found]
    near(*seconds, 1e-11)


@every_kind
def test_only_what_is_asked_for_is_computed(kind):
    cell, inputs, h0 = problem(kind, 6, 2, 3, (2,))
    cell.weight_ih.requires_grad_(False)
    wanted = [z for z in cell.parameters() if z.requires_grad]
    expected = torch.autograd.grad(unroll(cell, inputs, h0).sin().sum(), [inputs, h0, *wanted])
    states = unroll(cell, inputs.detach(), h0.detach())
    found = torch.autograd.grad(states.sin().sum(), wanted)
    assert all(torch.equal(g, e) for g, e in zip(found, expected[2:], strict=True))
    with torch.no_grad():
        assert torch.equal(unroll(cell, inputs, h0), states)
        assert torch.equal(settle(cell, inputs, h0), states[-1])


@every_kind
def test_inputs_of_all_members_and_subclasses(kind):
    cell, inputs, h0 = problem(kind, 6, 2, 3, (4,))
    shared = inputs[:, 0].detach().requires_grad_()
    got, expected = (
        torch.autograd.grad(f(cell, shared, h0).sin().sum(), [shared]) for f in (unroll, stepped)
    )
    near(got, expected, 1e-12)

    class Halved(KINDS[kind][0]):
        def step(self, x, h):
            return 0.5 * super().step(x, h)

    other = Halved(2, 6, ensemble=(4,)).double()
    assert torch.equal(unroll(other, inputs, h0), stepped(other, inputs, h0))
