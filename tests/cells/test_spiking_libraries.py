"""Networks of snntorch, norse and spikingjelly against dense Jacobians of the libraries' own steps."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lyaptorch as lt

HAVE = {name: importlib.util.find_spec(name) is not None for name in ("snntorch", "norse", "spikingjelly")}
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not any(HAVE.values()), reason="the extra snn is not installed"),
]
needs = {
    name: pytest.mark.skipif(not there, reason=f"{name} (extra snn) is not installed")
    for name, there in HAVE.items()
}
N, B = 4, 3


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def jacobian(step, h: Tensor) -> Tensor:
    """The dense derivative of a step of one trajectory, row by row in reverse mode."""
    h = h.detach().clone().requires_grad_()
    after = step(h)
    return torch.stack([torch.autograd.grad(z, h, retain_graph=True)[0] for z in after])


def dense(cell, x: Tensor, h: Tensor) -> Tensor:
    return jacobian(lambda y: cell.step(x[:1], y.unsqueeze(0))[0], h[0])


def walk(cell, inputs: Tensor, h: Tensor) -> list[Tensor]:
    states = [h]
    for x in inputs:
        states.append(cell.step(x, states[-1]).detach())
    return states


def snn_layers():
    if not HAVE["snntorch"]:
        return {}
    import snntorch as snn
    from snntorch import surrogate

    spike = {"spike_grad": surrogate.fast_sigmoid(3.0)}
    recurrent = {"linear_features": N, **spike}
    return {
        "Leaky": lambda **kw: snn.Leaky(beta=0.8, **spike, **kw),
        "RLeaky": lambda **kw: snn.RLeaky(beta=0.8, **recurrent, **kw),
        "RSynaptic": lambda **kw: snn.RSynaptic(alpha=0.7, beta=0.8, **recurrent, **kw),
        "Synaptic": lambda **kw: snn.Synaptic(alpha=0.7, beta=0.8, **spike, **kw),
        "Alpha": lambda **kw: snn.Alpha(alpha=0.85, beta=0.6, **spike, **kw),
    }


@needs["snntorch"]
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("name", ["Leaky", "RLeaky", "RSynaptic", "Synaptic", "Alpha"])
def test_snntorch_layer_against_its_own_step(name, reset):
    layer = snn_layers()[name](reset_mechanism=reset)
    variables = {"Leaky": 1, "RLeaky": 1, "Alpha": 3}.get(name, 2)
    recurrent = name.startswith("R")
    cell = lt.as_cell(layer)
    x, h = torch.randn(B, N), 0.5 + torch.randn(B, variables * N)

    def own(y: Tensor) -> Tensor:
        """The library's step with explicit states, its spike a function of the potential."""
        values = [z.unsqueeze(0) for z in y.split(N)]
        spike = [layer.fire(values[-1])] if recurrent else []
        _, *after = layer(x[:1], *spike, *values)
        return torch.cat(after, -1)[0]

    cell.rest(x)
    expected = jacobian(own, h[0])
    assert torch.allclose(cell.step(x, h)[0], own(h[0]), atol=1e-6)
    assert torch.allclose(dense(cell, x, h), expected, atol=1e-6)
    assert expected.abs().max() > 0.1


@needs["snntorch"]
def test_snntorch_reset_without_delay_keeps_the_spike():
    import snntorch as snn

    layer = snn.RLeaky(beta=0.8, linear_features=N, reset_delay=False)
    cell = lt.as_cell(layer)
    x = torch.randn(B, N)
    assert cell.rest(x).shape == (B, 2 * N)
    h = torch.cat([torch.ones(B, N), torch.randn(B, N)], -1)
    spike, mem = layer(x, h[:, :N], h[:, N:])
    assert torch.allclose(cell.step(x, h), torch.cat([spike, mem], -1))


@needs["snntorch"]
def test_snntorch_network_is_flossed_and_left_as_it_was():
    import snntorch as snn
    from snntorch import surrogate

    slope = surrogate.fast_sigmoid(3.0)
    net = nn.Sequential(
        nn.Linear(2, N),
        snn.RLeaky(beta=0.6, linear_features=N, init_hidden=True, spike_grad=slope),
        nn.Linear(N, 3),
        snn.Leaky(beta=0.7, init_hidden=True, spike_grad=slope),
    )
    inputs = 2 * torch.randn(30, B, 2)
    net(inputs[0])
    mem, spk = net[1].mem, net[1].spk
    cell = lt.as_cell(net)
    spec = lt.lyapunov_spectrum(cell, inputs, k=3)
    assert spec.final_state.shape == (B, N + 3)
    assert net[1].mem is mem
    assert net[1].spk is spk
    record = lt.floss(cell, inputs, k=2, epochs=15, lr=3e-2, steps=30, tangent_transient=5, clip=1.0)
    loss = record["floss_loss"][0]
    assert loss[-1] < 0.7 * loss[0]


@needs["snntorch"]
def test_snntorch_networks_that_cannot_be_cells_say_why():
    import snntorch as snn

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = snn.RLeaky(beta=0.8, linear_features=N, init_hidden=True)

        def forward(self, x):
            self.layer.reset_mem()
            return self.layer(x)

    with pytest.raises(ValueError, match="the same state after it from two different ones"):
        lt.lyapunov_spectrum(lt.as_cell(Whole()), torch.randn(5, B, N), k=1)
    with pytest.raises(ValueError, match="must hold its state, got init_hidden=False"):
        lt.as_cell(nn.Sequential(nn.Linear(2, N), snn.RLeaky(beta=0.8, linear_features=N)))
    with pytest.raises(ValueError, match="got SLSTM"):
        lt.as_cell(snn.SLSTM(2, N, init_hidden=True))
    with pytest.raises(ValueError, match="RSynaptic with reset_delay=False"):
        lt.as_cell(snn.RSynaptic(alpha=0.7, beta=0.8, linear_features=N, reset_delay=False))


@pytest.fixture
def example():
    path = Path(__file__).parents[2] / "examples" / "snntorch_delayed.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs["snntorch"]
def test_flossed_example_network_gets_a_gradient_across_the_delay(example):
    delay = 20
    x, group = example.trials(8, delay)
    assert not x[example.CUE :].any()

    def reach(net) -> float:
        """Only the cue's steps give the input weights a gradient."""
        loss = nn.functional.cross_entropy(net.answer(x), group)
        return torch.autograd.grad(loss, net.inputs.weight)[0].norm().item()

    net = example.Net(n=24)
    plain, before = reach(net), example.exponent(net, delay)
    example.floss(net, delay, epochs=40)
    assert before < -0.5
    assert example.exponent(net, delay) > before + 0.2
    assert reach(net) > 100 * plain


def norse_layers():
    if not HAVE["norse"]:
        return {}
    import norse.torch as norse

    small = {"alpha": 3.0}
    lif = norse.LIFParameters(**small, v_th=torch.tensor(0.3), tau_syn_inv=torch.tensor(300.0))
    lsnn = norse.LSNNParameters(
        **small, v_th=torch.tensor(0.3), beta=torch.tensor(0.5), tau_adapt_inv=torch.tensor(90.0)
    )
    return {
        "LIFRecurrentCell": lambda: norse.LIFRecurrentCell(2, N, p=lif),
        "LIFRecurrent": lambda: norse.LIFRecurrent(2, N, p=lif),
        "LSNNRecurrentCell": lambda: norse.LSNNRecurrentCell(2, N, p=lsnn),
        "LSNNRecurrent": lambda: norse.LSNNRecurrent(2, N, p=lsnn),
    }


def chain(expand, own, cell, inputs: Tensor, states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """J_t ... J_1 G_0 of the library's full variables and G_t D_t ... D_1, G from our state to those."""
    left, right = jacobian(expand, states[0][0]), torch.eye(states[0].shape[-1])
    for x, h in zip(inputs, states[:-1], strict=True):
        full = expand(h[0]).detach()
        left = jacobian(lambda y, x=x: own(x[:1], y), full) @ left
        right = dense(cell, x, h) @ right
    return left, jacobian(expand, states[-1][0]) @ right


@needs["norse"]
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", ["LIFRecurrentCell", "LIFRecurrent", "LSNNRecurrentCell", "LSNNRecurrent"])
def test_norse_layer_against_its_own_step(name):
    from norse.torch.functional.lif import LIFState
    from norse.torch.functional.lsnn import LSNNState
    from norse.torch.functional.threshold import threshold

    layer = norse_layers()[name]().double()
    p, adapts, timed = layer.p, name.startswith("LSNN"), not name.endswith("Cell")
    state = LSNNState if adapts else LIFState
    cell = lt.as_cell(layer)

    def expand(y: Tensor) -> Tensor:
        """(z, v, i [, b]) after spike and reset."""
        u, i, *b = y.split(N)
        z = threshold(u - (b[0] if adapts else p.v_th), p.method, p.alpha)
        spike = z.detach()
        v = (1 - spike) * u + spike * p.v_reset
        return torch.cat([z, v, i, *([b[0] + spike * p.beta] if adapts else [])])

    def own(x: Tensor, y: Tensor) -> Tensor:
        values = state(*(z.unsqueeze(0) for z in y.split(N)))
        _, after = layer(x.unsqueeze(0) if timed else x, values)
        return torch.cat([z.flatten() for z in after])

    inputs = 2 * torch.randn(12, B, 2)
    states = walk(cell, inputs, 0.3 * torch.randn(B, cell.state_size))
    full = [expand(h[0]).detach() for h in states]
    assert any((z[:N] == 1).any() for z in full)
    for x, before, after in zip(inputs, full, full[1:], strict=False):
        assert torch.allclose(own(x[:1], before), after, atol=1e-12)
    left, right = chain(expand, own, cell, inputs[:5], states[:6])
    assert torch.allclose(left, right, rtol=1e-9, atol=1e-12)
    assert left.abs().max() > 1e-3


@needs["norse"]
def test_norse_networks_that_cannot_be_cells_say_why():
    import norse.torch as norse

    with pytest.raises(ValueError, match="knows the recurrent layers LIFRecurrent"):
        lt.as_cell(norse.SequentialState(nn.Linear(2, N), norse.LIFCell()))


def jelly(reset: float | None, detach: bool, linear: bool) -> nn.Module:
    from spikingjelly.activation_based import layer, neuron, surrogate

    node = neuron.LIFNode(
        tau=1.7, v_reset=reset, v_threshold=0.5, detach_reset=detach, surrogate_function=surrogate.ATan(2.0)
    )
    if linear:
        return layer.LinearRecurrentContainer(node, N, N)
    return layer.ElementWiseRecurrentContainer(
        nn.Sequential(nn.Linear(N, N), node), element_wise_function=lambda x, y: x + y
    )


@needs["spikingjelly"]
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("reset", [0.0, -0.2, None])
def test_spikingjelly_container_against_its_own_step(reset, detach, linear):
    container = jelly(reset, detach, linear).double()
    node = container.sub_module if linear else container.sub_module[1]
    cell = lt.as_cell(container)

    def expand(u: Tensor) -> Tensor:
        """(v, y) after spike and reset."""
        y = node.surrogate_function(u - node.v_threshold)
        s = y.detach() if detach else y
        v = u - s * node.v_threshold if reset is None else (1 - s) * u + s * reset
        return torch.cat([v, y])

    def own(x: Tensor, full: Tensor) -> Tensor:
        node.v, container.y = (z.unsqueeze(0) for z in full.split(N))
        y = container(x)
        return torch.cat([node.v[0], y[0]])

    inputs = 2 * torch.randn(12, B, N)
    h0 = cell.rest(inputs[0])
    assert h0.shape == (B, N)
    states = walk(cell, inputs, h0)
    full = [expand(h[0]).detach() for h in states]
    assert any((z[N:] == 1).any() for z in full)
    for x, before, after in zip(inputs, full, full[1:], strict=False):
        assert torch.allclose(own(x[:1], before), after, atol=1e-12)
    left, right = chain(expand, own, cell, inputs[:5], states[:6])
    assert torch.allclose(left, right, rtol=1e-9, atol=1e-12)
    assert left.abs().max() > 1e-3


@needs["spikingjelly"]
def test_spikingjelly_networks():
    from spikingjelly.activation_based import layer, neuron

    net = nn.Sequential(nn.Linear(2, N), jelly(0.0, True, False), nn.Linear(N, 3), neuron.IFNode())
    spec = lt.lyapunov_spectrum(lt.as_cell(net), torch.randn(20, B, 2), k=2)
    assert spec.final_state.shape == (B, N + 3)
    assert spec.exponents.isfinite().all()
    with pytest.raises(ValueError, match='step_mode="m"'):
        lt.as_cell(nn.Sequential(nn.Linear(2, N), neuron.LIFNode(step_mode="m")))
    with pytest.raises(ValueError, match="got IzhikevichNode"):
        lt.as_cell(nn.Sequential(nn.Linear(2, N), neuron.IzhikevichNode()))
    with pytest.raises(ValueError, match="must end in a node"):
        lt.as_cell(layer.LinearRecurrentContainer(nn.Sequential(neuron.LIFNode(), nn.Linear(N, N)), N, N))
