"""What is measured is what a call of the network computes: hooks, other forwards, writes, constants."""

import copy
import functools

import pytest
import torch
from torch import nn

import lyaptorch as lt
from lyaptorch.cells import FunctionCell, GRUCell
from reference import random_frame

N = 4
INPUTS = torch.randn(12, 2, 2, generator=torch.Generator().manual_seed(0))
H0 = torch.randn(2, N, generator=torch.Generator().manual_seed(1))
FRAME = random_frame(N, N, torch.float32)
MIXER = random_frame(N, N, torch.float32, seed=3)


def spectrum(step, h0=H0, inputs=INPUTS):
    return lt.lyapunov_spectrum(step, inputs, h0=h0, frame=FRAME).exponents.detach()


class Halved(nn.GRUCell):
    def forward(self, x, h=None):
        return 0.5 * super().forward(x, h)


class Same(nn.GRUCell):
    def forward(self, x, h=None):
        return super().forward(x, h)


class HalvedLayer(nn.GRU):
    def forward(self, x, h=None):
        output, last = super().forward(x, h)
        return 0.5 * output, 0.5 * last


def hooked(module, hook):
    module.register_forward_hook(hook)
    return module


def pre_hooked(module, hook):
    module.register_forward_pre_hook(hook)
    return module


def patched(module):
    module.forward = lambda x, h: 0.5 * h + x.sum(-1, keepdim=True)
    return module


@pytest.mark.parametrize(
    "make",
    [
        lambda: Halved(2, N),
        lambda: hooked(nn.GRUCell(2, N), lambda module, given, after: 0.5 * after),
        lambda: pre_hooked(nn.GRUCell(2, N), lambda module, given: (given[0], 0.5 * given[1])),
        lambda: patched(nn.GRUCell(2, N)),
    ],
    ids=["subclass", "hook", "pre-hook", "patched"],
)
def test_a_cell_of_torch_with_another_call_is_measured_as_it_is_called(make):
    module = make()
    assert isinstance(lt.as_cell(module), FunctionCell)
    assert torch.equal(spectrum(module), spectrum(lambda x, h: module(x, h)))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_layers_of_torch_with_hooks_that_look_are_taken_and_those_that_change_refused(
    kind, batch_first, layers
):
    seen = []
    module = hooked(kind(2, N, layers, batch_first=batch_first), lambda *z: seen.append(len(z)))
    assert not isinstance(lt.as_cell(module), FunctionCell)
    assert seen == [3]
    hooked(module, lambda module, given, after: (1.1 * after[0], after[1]))
    with pytest.raises(ValueError, match=r"whose call gives what torch's gives, got a .* or with hooks"):
        lt.as_cell(module)


def test_a_layer_with_another_forward_is_refused_and_one_that_calls_torchs_is_taken():
    with pytest.raises(ValueError, match=r"torch\.nn\.GRU whose .* got a HalvedLayer with another forward"):
        lt.lyapunov_spectrum(HalvedLayer(2, N), INPUTS)
    assert isinstance(lt.as_cell(Same(2, N)), GRUCell)


def test_weights_that_hooks_compute_are_followed_without_a_call():
    module = nn.GRU(2, N)
    nn.utils.parametrizations.orthogonal(module, "weight_hh_l0")
    hooked(module, lambda *z: None)
    assert torch.equal(spectrum(module, None), spectrum(copy.deepcopy(module), None))


# steps that write into what they get


def written(x, h):
    h.mul_(0.9)
    h[..., 0] += 0.1
    return torch.tanh(h @ MIXER + x.sum(-1, keepdim=True))


def into_the_input(x, h):
    x *= 2
    return torch.tanh(h @ MIXER + x.sum(-1, keepdim=True))


def read_before(x, h):
    squares = h * h
    h *= 0.5
    return torch.sin(squares) + h


BOOST = torch.tensor([0.1, 0, 0, 0])
NEW = {
    written: lambda x, h: torch.tanh((0.9 * h + BOOST) @ MIXER + x.sum(-1, keepdim=True)),
    into_the_input: lambda x, h: torch.tanh(h @ MIXER + 2 * x.sum(-1, keepdim=True)),
    read_before: lambda x, h: torch.sin(h * h) + 0.5 * h,
}


@pytest.mark.parametrize("step", NEW, ids=lambda step: step.__name__)
def test_a_step_that_writes_into_what_it_gets_is_that_which_returns_anew(step):
    inputs, h0 = INPUTS.clone(), H0.clone()
    assert torch.allclose(spectrum(step, h0, inputs), spectrum(NEW[step]), atol=1e-6)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(h0, H0)


def test_a_step_with_parts_may_write_into_its_input():
    def step(x, s):
        x += 1
        return torch.tanh(s[0] + x.sum(-1, keepdim=True)), 0.5 * s[1]

    inputs = INPUTS.clone()
    lt.lyapunov_spectrum(step, inputs, h0=(H0, H0), k=1)
    assert torch.equal(inputs, INPUTS)


PARTS = {
    "unroll": lambda step, x, h: lt.cells.unroll(lt.as_cell(step), x, h),
    "forced": lambda step, x, h: spectrum(
        lt.forced(lt.as_cell(step, state=h), 0.5), h, torch.cat([x, torch.zeros(len(x), 2, N)], -1)
    ),
    "closed loop": lambda step, x, h: spectrum(
        lt.closed_loop(lt.as_cell(step, state=h), lambda h: h[..., :1]), h, x[..., :1]
    ),
    "gradient": lambda step, x, h: lt.analysis.gradient_norms(step, x, lambda states: states.sum(), h0=h),
    "stepper": lambda step, x, h: lt.tangent.Stepper(step, h, frame=FRAME).step(x[0]),
}


@pytest.mark.parametrize("name", PARTS)
def test_it_is_so_wherever_a_step_is_taken(name):
    inputs, h0 = INPUTS.clone(), H0.clone()
    assert torch.allclose(PARTS[name](both, inputs, h0), PARTS[name](neither, INPUTS, H0), atol=1e-6)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(h0, H0)


def both(x, h):
    x += 1
    h *= 0.9
    return torch.tanh(h @ MIXER + x.sum(-1, keepdim=True))


def neither(x, h):
    return torch.tanh(0.9 * h @ MIXER + (x + 1).sum(-1, keepdim=True))


class Writing(lt.Cell):
    def step(self, x, h):
        return h.mul_(0.5)


@pytest.mark.parametrize("cell", [Writing(2, N), lt.Flow(lambda x, h: h.mul_(0.5), dt=0.1)])
def test_other_cells_that_write_are_refused(cell):
    h0 = H0.clone()
    with pytest.raises(ValueError, match="must return another state, got one that writes into h; write"):
        lt.lyapunov_spectrum(cell, INPUTS, h0=h0)
    assert torch.equal(h0, H0)


def test_blocks_over_depth_may_write():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(N, N)) for _ in range(3)]
    others = [nn.Sequential(nn.ReLU(), block[1]) for block in blocks]
    x = H0.clone()
    found, expected = (lt.depth_spectrum(one, x, k=2).exponents for one in (blocks, others))
    assert torch.equal(found, expected)
    assert torch.equal(x, H0)


def test_a_step_that_fails_where_gradients_are_recorded_is_refused_in_a_sentence():
    def step(x, h):
        first, second = h.chunk(2, -1)
        first.mul_(0.5)
        return torch.cat([first, second], -1)

    with pytest.raises(
        ValueError, match="must run where gradients are recorded, as in training, got Output 0"
    ):
        spectrum(step)


def test_a_scripted_layer_is_refused_in_a_sentence():
    scripted = torch.jit.script(nn.GRU(2, N))
    for h0 in (None, H0):
        with pytest.raises(ValueError, match=r"what torch\.jit\.script made of a GRU; pass that module"):
            lt.lyapunov_spectrum(scripted, INPUTS, h0=h0)


@pytest.mark.parametrize(("layers", "do"), [(1, r"of one layer pass h\[0\]"), (2, r"of several list\(h\)")])
def test_a_state_in_torchs_layout_is_refused_with_what_to_pass(layers, do):
    module, h = nn.GRU(2, N, layers), torch.randn(layers, 2, N)
    with pytest.raises(ValueError, match=do):
        lt.lyapunov_spectrum(module, INPUTS, h0=h)
    after = lt.lyapunov_spectrum(module, INPUTS, h0=h[0] if layers == 1 else list(h)).final_state
    assert torch.allclose(after, module(INPUTS, h)[1].transpose(0, 1).flatten(1), atol=1e-6)


# members that differ in what is no weight


class Scaled(nn.Module):
    def __init__(self, factor, function=torch.tanh, buffer=None):
        super().__init__()
        self.cell, self.factor, self.function = nn.RNNCell(2, N), factor, function
        if buffer is not None:
            self.register_buffer("buffer", torch.tensor(buffer))

    def forward(self, x, h):
        return self.factor * getattr(self, "buffer", 1.0) * self.function(self.cell(x, h))


def times(factor):
    return lambda z: factor * z


@pytest.mark.parametrize(
    ("pair", "what"),
    [
        (lambda: (Scaled(0.5), Scaled(2.0)), "factor"),
        (lambda: (Scaled(1.0), Scaled(1.0, torch.relu)), "function"),
        (lambda: (Scaled(1.0, times(1.0)), Scaled(1.0, times(2.0))), "function"),
        (
            lambda: [Scaled(1.0, functools.partial(torch.clamp, max=m)) for m in (1.0, 0.1)],
            "function",
        ),
        (lambda: (Scaled(torch.ones(N)), Scaled(torch.zeros(N))), "factor"),
        (lambda: (Scaled((1.0, [2])[0]), Scaled(1)), "factor"),
        (lambda: (Scaled(1.0), hooked(Scaled(1.0), lambda m, z, after: 0.5 * after)), "_forward_hooks"),
        (lambda: (lt.LIFCell(2, N, dt=1.0), lt.LIFCell(2, N, dt=2.0)), "dt"),
    ],
)
def test_members_that_differ_in_more_than_weights_are_refused(pair, what):
    with pytest.raises(
        ValueError, match=f"in parameters and buffers alone, got a module 1 with another {what}"
    ):
        lt.as_cell(list(pair()))


def test_members_that_differ_in_weights_and_buffers_are_measured_as_alone():
    members = [Scaled(1.0, times(0.9), buffer) for buffer in (0.5, 2.0)]
    found = spectrum(members, H0.expand(2, -1, -1))
    assert torch.allclose(found, torch.stack([spectrum(one) for one in members]), atol=1e-6)


def test_weights_computed_by_hooks_and_parametrisations_may_differ():
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal):
        assert lt.as_cell([wrap(nn.RNNCell(2, N), "weight_hh") for _ in range(2)]).ensemble == (2,)


# weights computed before the step


def test_what_was_computed_of_a_parameter_before_the_step_is_not_flossed_in_vain():
    W = nn.Parameter(MIXER.clone())
    signed, settings = W * torch.sign(MIXER), {"h0": H0, "k": 2, "epochs": 2, "steps": 4}
    settings["tangent_transient"] = 0
    with pytest.raises(ValueError, match=r"computed before \(MulBackward0\), which would stay as they are"):
        lt.floss(lambda x, h: torch.tanh(h @ signed), INPUTS, **settings)
    assert torch.equal(W, MIXER)
    turned = W.T  # a view sees what becomes of its parameter
    lt.floss(lambda x, h: torch.tanh(h @ turned), INPUTS, **settings)
    assert not torch.equal(W, MIXER)
    # where the loop is the user's own, the graph is theirs
    loss = lt.lyapunov_spectrum(lambda x, h: torch.tanh(h @ signed), INPUTS, h0=H0).exponents.sum()
    assert torch.autograd.grad(loss, W)[0].abs().sum() > 0
