from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lyaptorch as lt
import reference
from cases import M, N
from lyaptorch.cells import FunctionCell, Stacked

pytestmark = pytest.mark.usefixtures("double")


def test_a_cell_is_returned_as_it_is():
    cell = lt.RateCell(M, N)
    assert lt.as_cell(cell) is cell


@pytest.mark.parametrize("bias", [True, False])
def test_the_weights_of_torchs_networks_are_shared_not_copied(bias):
    rnn, one = nn.RNN(M, N, bias=bias), nn.RNNCell(M, N, bias=bias)
    for module, tail in ((rnn, "_l0"), (one, "")):
        cell = lt.as_cell(module)
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else [])]
        assert all(getattr(cell, name) is getattr(module, name + tail) for name in names)
        assert {id(p) for p in cell.parameters()} == {id(p) for p in module.parameters()}
        assert (cell.input_size, cell.state_size, cell.ensemble) == (M, N, ())


def test_the_gradient_of_the_exponents_arrives_in_the_wrapped_network():
    rnn = nn.RNN(M, N)
    lt.lyapunov_spectrum(rnn, torch.randn(10, 2, M), k=2).exponents.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in rnn.parameters())


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("wrap", [lambda *a, **kw: nn.RNN(*a, **kw), lambda *a, **kw: nn.RNNCell(*a, **kw)])
def test_torchs_networks_roll_the_same_states(wrap, nonlinearity):
    module = wrap(M, N, nonlinearity=nonlinearity)
    inputs, h = torch.randn(15, 3, M), torch.randn(3, N)
    final = lt.lyapunov_spectrum(module, inputs, h0=h, k=1).final_state
    if isinstance(module, nn.RNN):
        h = module(inputs, h[None])[1][0]
    else:
        for x in inputs:
            h = module(x, h)
    torch.testing.assert_close(final, h, rtol=0, atol=1e-14)


def test_a_wrapped_network_follows_its_own_dtype():
    rnn = nn.RNN(M, N).float()
    assert lt.lyapunov_spectrum(rnn, torch.randn(5, 1, M).float(), k=1).exponents.dtype == torch.float32
    with pytest.raises(ValueError, match=r"dtype of the weights, torch.float32, got torch.float64; convert"):
        lt.lyapunov_spectrum(rnn, torch.randn(5, 1, M), k=1)


def test_batch_first_changes_nothing_time_comes_first():
    first, second = nn.RNN(M, N), nn.RNN(M, N, batch_first=True)
    second.load_state_dict(first.state_dict())
    inputs = torch.randn(7, 3, M)
    expected = lt.lyapunov_spectrum(first, inputs, k=2).exponents
    assert torch.equal(lt.lyapunov_spectrum(second, inputs, k=2).exponents, expected)


def test_a_whole_network_is_told_to_pass_its_recurrent_part():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ModuleDict({"rnn": nn.GRU(M, N)})

    expected = (
        r'Whole must be one step.* around its torch.nn.GRU, pass that part, .get_submodule\("body.rnn"\)'
    )
    with pytest.raises(ValueError, match=expected):
        lt.lyapunov_spectrum(Whole(), torch.randn(5, 2, M))


class Gate(nn.Module):
    """A module that the library does not know."""

    def __init__(self):
        super().__init__()
        self.inside = nn.GRUCell(M, N)

    def forward(self, x, h):
        return self.inside(x, h)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_batch_as_a_batch_first_network_takes_it_is_doubted(layers):
    network, batch = nn.LSTM(M, N, layers, batch_first=True), torch.randn(4, 30, M)
    with pytest.warns(
        UserWarning, match=r"as 4 steps of 30 traj.* batch_first=True; .* x\.transpose\(0, 1\)"
    ):
        lt.lyapunov_spectrum(network, batch, k=1)
    lt.lyapunov_spectrum(network, batch.transpose(0, 1), k=1)
    lt.lyapunov_spectrum(nn.LSTM(M, N, layers), batch, k=1)


def test_a_module_takes_part_with_its_own_parameters():
    module = Gate()
    cell = lt.as_cell(module)
    assert isinstance(cell, FunctionCell)
    assert {id(p) for p in cell.parameters()} == {id(p) for p in module.parameters()}
    inputs, h0, frame = torch.randn(8, 2, M), torch.randn(2, N), reference.random_frame(N, N)
    spec = lt.lyapunov_spectrum(module, inputs, h0=h0, frame=frame)
    expected = reference.scan(cell, inputs, h0, frame)
    torch.testing.assert_close(spec.growth.log_r, expected.log_r, rtol=0, atol=1e-12)
    spec.exponents.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_the_state_size_and_the_ensemble_of_a_function_come_from_h0():
    W = torch.randn(5, 1, 3, 3) / 3**0.5  # one network per member, the same for all its trajectories

    def step(x, h):
        return torch.tanh((W.squeeze(1) @ h.mT).mT + x)

    spec = lt.lyapunov_spectrum(step, torch.randn(6, 2, 1), h0=torch.zeros(5, 2, 3), k=2)
    assert spec.exponents.shape == (5, 2, 2)
    with pytest.raises(ValueError, match=r"h0 must be given for a function or module, .* got None"):
        lt.lyapunov_spectrum(step, torch.randn(6, 2, 1))


def test_a_method_a_lambda_and_a_callable_object_are_steps():
    class Map:
        def step(self, x, h):
            return torch.cos(h)

        __call__ = step

    inputs, h0 = torch.zeros(4, 1, 1), torch.full((1, 1), 0.3)
    exponents = [
        lt.lyapunov_spectrum(step, inputs, h0=h0).exponents
        for step in (Map().step, Map(), lambda x, h: torch.cos(h))
    ]
    assert exponents[0] == exponents[1] == exponents[2]


def packed(module, h, c):
    """torch's (h, c) or h, each (layers, b, n), as as_cell packs it."""
    return list(zip(h, c, strict=True)) if isinstance(module, nn.LSTM) else list(h)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_stacked_networks_of_torch_roll_the_same_states(kind, layers, bias):
    module = kind(M, N, num_layers=layers, bias=bias, dropout=0.5 if layers > 1 else 0.0).eval()
    inputs, h, c = torch.randn(25, 3, M), torch.randn(layers, 3, N), torch.randn(layers, 3, N)
    outputs, end = module(inputs, (h, c) if kind is nn.LSTM else h)
    cell = lt.as_cell(module)
    start = packed(module, h, c) if layers > 1 else packed(module, h, c)[0]
    model = lt.Model(cell, nn.Identity(), h0=start)
    torch.testing.assert_close(model(inputs), outputs, rtol=0, atol=1e-12)
    final = lt.lyapunov_spectrum(module, inputs, h0=start, k=1).final_state
    last = cell.unpack(final) if layers > 1 else [cell.unpack(final)]
    for own, theirs in zip(last, packed(module, *(end if kind is nn.LSTM else (end, end))), strict=True):
        for a, b in zip(*([own, theirs] if kind is nn.LSTM else [[own], [theirs]]), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert {id(p) for p in cell.parameters()} == {id(p) for p in module.parameters()}
    assert (cell.input_size, cell.output_size) == (M, N)


def test_an_lstm_of_two_layers_has_the_spectrum_of_its_dense_product():
    """From torch's own step, packed layer by layer as (h, c), its Jacobians by autograd."""
    lstm, frame = nn.LSTM(M, N, num_layers=2), reference.random_frame(4 * N, 4 * N)

    class Torchs(lt.Cell):
        def step(self, x, h):
            own = h.unflatten(-1, (2, 2, N)).movedim(-3, 0)
            state = (own[..., 0, :].contiguous(), own[..., 1, :].contiguous())
            after = torch.stack(lstm(x[None], state)[1], -2)
            return after.movedim(0, -3).flatten(-3)

    inputs, h0 = torch.randn(40, 2, M), torch.randn(2, 4 * N)
    expected = reference.scan(Torchs(M, 4 * N), inputs, h0, frame)
    spec = lt.lyapunov_spectrum(lstm, inputs, h0=h0, frame=frame)
    # what the leading direction hides is lost to both: here at most e^6
    torch.testing.assert_close(spec.growth.log_r, expected.log_r, rtol=0, atol=1e-10)
    torch.testing.assert_close(spec.final_state, expected.final_state, rtol=0, atol=1e-12)
    squares = spec.exponents[..., :3].square().sum()
    got = torch.autograd.grad(squares, list(lstm.parameters()))
    dense = reference.scan(Torchs(M, 4 * N), inputs, h0, frame[:, :3], create_graph=True)
    wanted = torch.autograd.grad(dense.exponents.square().sum(), list(lstm.parameters()))
    for g, e in zip(got, wanted, strict=True):
        assert reference.relative_error(g, e) < 1e-9


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_cells_of_torch_share_their_weights(kind):
    module = kind(M, N)
    cell = lt.as_cell(module)
    assert cell.weight_hh is module.weight_hh
    assert {id(p) for p in cell.parameters()} == {id(p) for p in module.parameters()}
    lt.lyapunov_spectrum(module, torch.randn(10, 2, M), k=2).exponents.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in module.parameters())


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must take the 4 outputs of the one below .* got 8 inputs"):
        Stacked([lt.LSTMCell(M, N), lt.LSTMCell(2 * N, N)])
    with pytest.raises(ValueError, match=r"share its ensemble \(3,\), got 4 inputs and \(\)"):
        Stacked([lt.RateCell(M, N, ensemble=(3,)), lt.RateCell(N, N)])
    with pytest.raises(ValueError, match=r"at least one cell of known size, got \[\]"):
        Stacked([])
    with pytest.raises(ValueError, match=r"known size, got \['FunctionCell'\]"):
        Stacked([lt.as_cell(torch.add)])


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


@dataclass
class Named:
    h: torch.Tensor
    c: torch.Tensor


LSTM = nn.LSTMCell(M, N).double()
STRUCTURES = {
    "tuple": (lambda h, c: (h, c), lambda s: s),
    "list": (lambda h, c: [h, c], lambda s: s),
    "namedtuple": (Pair, lambda s: (s.h, s.c)),
    "dataclass": (Named, lambda s: (s.h, s.c)),
    "dict": (lambda h, c: {"h": h, "c": c}, lambda s: (s["h"], s["c"])),
}


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_state_of_parts_is_packed_and_unpacked(kind, output):
    make, take = STRUCTURES[kind]

    def step(x, state):
        assert type(state) is type(make(x, x))
        after = make(*LSTM(x, take(state)))
        return (LSTM.weight_hh.sum() + x, after) if output else after

    # of directions that shrink by e^-12 in a step round-off would be 1e-10
    inputs, h, c, frame = (
        torch.randn(12, 3, M),
        torch.randn(3, N),
        torch.randn(3, N),
        reference.random_frame(8, 4),
    )
    expected = lt.lyapunov_spectrum(LSTM, inputs, k=4, h0=(h, c), frame=frame)
    for cell, h0 in (
        (step, make(h, c)),
        (lt.as_cell(step), make(h, c)),
        (lt.as_cell(step, state=make(h, c)), torch.cat([h, c], -1)),
        (lt.as_cell(step, output=output), make(h, c)),
    ):
        spec = lt.lyapunov_spectrum(cell, inputs, k=4, h0=h0, frame=frame)
        torch.testing.assert_close(spec.growth.log_r, expected.growth.log_r, rtol=0, atol=1e-10)
    last = take(lt.as_cell(step, state=make(h, c)).unpack(spec.final_state))
    torch.testing.assert_close(torch.cat(last, -1), expected.final_state, rtol=0, atol=1e-12)


def test_parts_of_a_dict_may_come_back_in_another_order_and_have_other_sizes():
    def step(x, s):
        return {"c": 0.5 * s["c"] + s["h"].sum(-1, keepdim=True), "h": torch.tanh(s["h"] + s["c"])}

    h0 = {"h": torch.randn(2, 3), "c": torch.randn(2, 1)}
    after = lt.as_cell(step, state=h0)(torch.zeros(2, 1), torch.cat([h0["h"], h0["c"]], -1))
    expected = step(None, h0)
    assert torch.equal(after, torch.cat([expected["h"], expected["c"]], -1))


def test_a_state_of_parts_is_flossed_and_trained():
    torch.manual_seed(1)
    module = nn.LSTMCell(1, N)
    before = module.weight_hh.detach().clone()

    def step(x, s):
        return module(x, s)

    h0 = (torch.zeros(1, N), torch.zeros(1, N))
    record = lt.floss(step, torch.randn(20, 1, 1), h0=h0, k=1, epochs=20, lr=2e-2, steps=20)
    assert record["floss_loss"][0, -1] < 0.5 * record["floss_loss"][0, 0]
    assert not torch.equal(module.weight_hh, before)
    model = lt.Model(module, lt.Readout(N, 1), h0=h0)
    assert model.h0.shape == (1, 2 * N)


def test_a_step_that_returns_two_states_must_say_which_is_which():
    def step(x, h):
        return 0.3 * h, 0.9 * h + x[..., :1]

    inputs, h0 = torch.randn(5, 1, M), torch.randn(1, N)
    with pytest.raises(
        ValueError, match=r"a tuple of two such; return the state alone, or pass .*output=True"
    ):
        lt.lyapunov_spectrum(step, inputs, h0=h0)
    spec = lt.lyapunov_spectrum(lt.as_cell(step, output=True), inputs, h0=h0)
    torch.testing.assert_close(spec.exponents, torch.full((1, N), 0.9).log())
    with pytest.raises(
        ValueError, match=r"with output=True step\(x, h\) must return \(output, state\), got \(1, 4\)"
    ):
        lt.lyapunov_spectrum(lt.as_cell(lambda x, h: 0.9 * h, output=True), inputs, h0=h0)


A, B = torch.zeros(2, 3).double(), torch.zeros(2, 1).double()


@pytest.mark.parametrize(
    ("step", "h0", "message"),
    [
        (
            lambda x, s: s,
            (A, B.float()),
            r"one dtype and device, .* got a tuple of 0: \(2, 3\) torch.float64, 1",
        ),
        (
            lambda x, s: (s[0], s[1].float()),
            (A, B),
            r"part 1 of the state must come back in torch.float64, .* got torch.float32; leave casts out",
        ),
        (
            lambda x, s: s,
            (),
            r"a state must have a floating tensor \(\*e, b, ...\), got a tuple; whole numbers",
        ),
        (
            lambda x, s: s,
            {"t": 0, "flags": torch.ones(2, 3, dtype=torch.bool)},
            r"must have a floating tensor .*, got a dict of t: a int, flags: \(2, 3\) torch.bool",
        ),
        (
            lambda x, s: s,
            (A, B[:1]),
            r"shapes \(\*e, b, ...\) with \(2,\) in front, as inputs have, got .* 1: \(1, 1\)",
        ),
        (
            lambda x, s: (s[0], s[0]),
            (A, B),
            r"part 1 of the state must keep its shape \(2, 1\), got \(2, 3\); a cache that grows",
        ),
        (
            lambda x, s: s[0],
            (A, B),
            r"must remain a tuple of 0: \(..., 3,\), 1: .* got \(2, 3\) torch.float64 .*; a step returns",
        ),
        (
            lambda x, s: {"h": s["h"]},
            {"h": A, "c": B},
            r"^the state must remain a dict of h: .* got a dict of h: .* \(gone c\)",
        ),
        (
            lambda x, s: torch.cat([s, s], -1),
            A,
            r"one tensor like the state, \(2, 3\) .* got \(2, 6\) torch.float64",
        ),
        (lambda x, s: (s[0][:1], s[1][:1]), (A, B), r"like the state, \(2, 4\) .* got \(1, 4\)"),
        (lambda x, s: 0.5 * s, [A, B], r"step\(x, h\) failed"),
    ],
)
def test_states_that_do_not_fit_are_refused(unchecked, step, h0, message):
    with pytest.raises(ValueError, match=message):
        lt.lyapunov_spectrum(step, torch.zeros(3, 2, M), h0=h0)


def test_structures_are_for_functions_and_modules():
    with pytest.raises(
        ValueError, match=r"state= and output= are for modules and functions of your own, got .* GRU"
    ):
        lt.as_cell(nn.GRU(M, N), output=True)
    with pytest.raises(
        ValueError, match=r"state of this GRUCell must be one tensor \(\*e, b, n\), got a tuple"
    ):
        lt.lyapunov_spectrum(nn.GRU(M, N), torch.zeros(3, 2, M), h0=(A, B))
    with pytest.raises(
        ValueError, match=r"one tensor or a list of 2 layers' states, got a tuple; .*list\(zip\(h, c\)\)"
    ):
        lt.lyapunov_spectrum(nn.LSTM(M, N, 2), torch.zeros(3, 2, M), h0=(A, A, A))


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@DTYPES
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_fused_recurrence_inside_a_step_is_handled_silently(kind, dtype):
    """Warnings are errors in these tests; torch's fused LSTM lacks forward mode (in float32, on a CPU)."""
    module, lstm = kind(M, N).to(dtype), kind is nn.LSTM

    def step(x, s):
        after = module(x[None], tuple(part[None] for part in s) if lstm else s[None])[1]
        return tuple(part[0] for part in after) if lstm else after[0]

    inputs, h = torch.randn(10, 1, M).to(dtype), torch.randn(1, N).to(dtype)
    h0, frame = (h, h) if lstm else h, reference.random_frame(2 * N if lstm else N, 3, dtype)
    squares = [
        lt.lyapunov_spectrum(cell, inputs, h0=h0, k=3, frame=frame).exponents.square().sum()
        for cell in (step, module)
    ]
    tolerance = 1e-11 if dtype is torch.float64 else 1e-3
    torch.testing.assert_close(*squares, rtol=tolerance, atol=0)
    bars = [torch.autograd.grad(loss, list(module.parameters())) for loss in squares]
    for g, e in zip(*bars, strict=True):
        assert reference.relative_error(g, e) < tolerance
    assert torch.backends.mkldnn.enabled


@DTYPES
def test_fused_attention_inside_a_step_is_handled_silently(dtype):
    """It lacks forward mode and second derivatives; the oracle writes it out."""
    inputs, frame = torch.randn(8, 2, M).to(dtype), reference.random_frame(N, 3, dtype)

    def attend(q):
        return torch.softmax(q @ q.mT / 2**0.5, -1) @ q

    def fused(q):
        return nn.functional.scaled_dot_product_attention(q, q, q)

    def squares(attention):
        h0 = torch.linspace(-1, 1, 2 * N).to(dtype).reshape(2, N).requires_grad_()

        def step(x, h):
            q = h.unflatten(-1, (1, 2, 2))
            return torch.sin(1.5 * h + attention(q).flatten(-3) + x.sum(-1, keepdim=True))

        loss = lt.lyapunov_spectrum(step, inputs, h0=h0, k=3, frame=frame).exponents.square().sum()
        return loss, *torch.autograd.grad(loss, h0)

    tolerance = 1e-11 if dtype is torch.float64 else 1e-3
    for got, expected in zip(squares(fused), squares(attend), strict=True):
        assert reference.relative_error(got, expected) < tolerance


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (
            nn.RNN(M, N, bidirectional=True),
            r"torch.nn.RNN with one direction, got bidirectional=True: .* load each",
        ),
        (nn.LSTM(M, N, 2, bidirectional=True), r"torch.nn.LSTM with one direction"),
        (nn.LSTM(M, N, proj_size=2), r"without projection, got proj_size=2; write its step as a function"),
        (
            nn.GRU(M, N, 2, dropout=0.3),
            r"without dropout in training mode, got dropout=0.3: .* call \.eval\(\)",
        ),
        ("tanh", r"as_cell takes a cell, a module, a function step\(x, h\), or a list of modules, got str"),
        (torch.zeros(4, 4), r"got Tensor"),
    ],
)
def test_what_is_no_cell_is_refused(unchecked, obj, message):
    with pytest.raises(ValueError, match=message):
        lt.as_cell(obj)


class Stateful(nn.Module):
    """Keeps its state itself."""

    def __init__(self):
        super().__init__()
        self.inside, self.h = nn.GRUCell(1, 3), None

    def forward(self, x):
        self.h = self.inside(x, self.h)
        return self.h


def test_a_module_that_keeps_its_state_is_told_how_to_be_a_step():
    m, x, h0 = Stateful(), torch.randn(9, 2, 1), torch.zeros(2, 3)
    for given in (None, h0):
        with pytest.raises(ValueError, match=r"def step\(x, h\): m.h = h; return m\(x\)"):
            lt.lyapunov_spectrum(m, x, h0=given)

    def step(x, h):
        m.h = h
        return m(x)

    expected = lt.lyapunov_spectrum(m.inside, x, frame=torch.eye(3)).exponents
    found = lt.lyapunov_spectrum(step, x, h0=h0, frame=torch.eye(3)).exponents
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_token_ids_are_told_to_be_embedded(unchecked):
    with pytest.raises(ValueError, match=r"got torch.int64; embed token ids first"):
        lt.lyapunov_spectrum(nn.GRU(1, 3), torch.ones(9, 2, 1, dtype=torch.int64))


@pytest.mark.parametrize("given", [False, True])
def test_a_whole_model_of_transformers_is_told_which_part_to_pass(given):
    def forward(self, input_ids, attention_mask=None):
        raise TypeError("embedding(): argument 'indices' must be Tensor of integers")

    model = type("GPT2Model", (nn.Module,), {"__module__": "transformers.models.gpt2", "forward": forward})()
    with pytest.raises(ValueError, match=r"GPT2Model is a whole model of transformers, .*depth_spectrum"):
        lt.lyapunov_spectrum(model, torch.zeros(9, 2, 1), h0=torch.zeros(2, 3) if given else None)


@pytest.mark.parametrize(
    "names", ["h, x", "prev, u", "carry, x", "state, action", "hidden, v", "s, obs", "a, inputs"]
)
def test_a_square_step_with_its_state_first_is_found_by_its_names(names):
    step = eval(f"lambda {names}: 0.6 * {names.split(',')[0]}")
    with pytest.raises(ValueError, match=rf"got \(state, input\).*rename its arguments {names}"):
        lt.lyapunov_spectrum(step, torch.zeros(5, 1, 3), h0=torch.zeros(1, 3))


@pytest.mark.parametrize("names", ["t, y", "time, state"])
def test_the_slope_of_an_ode_is_no_step_but_a_flow(names):
    slope, x, h0 = eval(f"lambda {names}: -{names.split(', ')[1]}"), torch.zeros(5, 1, 1), torch.ones(1, 3)
    for cell in (slope, lt.Flow(slope, dt=0.1)):
        with pytest.raises(ValueError, match=rf"got \({names}\).*Flow\(f, dt=..., time=True\)"):
            lt.lyapunov_spectrum(cell, x, h0=h0)
    found = lt.lyapunov_spectrum(lt.Flow(slope, dt=0.1, time=True), x, h0=h0).exponents
    torch.testing.assert_close(found, -torch.ones(1, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("names", ["x, h", "u, x", "x, u", "obs, state", "x, c", "input, hx", "a, b"])
def test_a_square_step_with_its_input_first_is_taken(names):
    step = eval(f"lambda {names}: 0.6 * {names.split(',')[1]}")
    found = lt.lyapunov_spectrum(step, torch.zeros(5, 1, 3), h0=torch.zeros(1, 3)).exponents
    torch.testing.assert_close(found, torch.full((1, 3), 0.6).log(), rtol=0, atol=1e-6)


WAYS = {
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "old weight_norm": nn.utils.weight_norm,
    "pruning": lambda module, name: prune.random_unstructured(module, name, amount=3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("way", WAYS)
def test_computed_weights_are_those_of_the_modules_own_calls_and_what_they_are_made_of_is_flossed(way):
    rnn, x = nn.RNN(2, 4).double(), torch.randn(20, 1, 2).double()
    WAYS[way](rnn, "weight_hh_l0")
    before = {name: w.clone() for name, w in rnn.state_dict().items()}
    frame = torch.linalg.qr(torch.randn(4, 4).double())[0]
    found = lt.lyapunov_spectrum(rnn, x, frame=frame).exponents
    # in training mode, too, a measurement changes nothing
    assert all(torch.equal(w, before[name]) for name, w in rnn.state_dict().items())

    def own(u, h):
        return rnn(u.unsqueeze(0), h.unsqueeze(0))[1][0]

    rnn.eval()
    Q, h, total = frame, torch.zeros(1, 4).double(), 0.0
    for u in x:
        D = torch.autograd.functional.jacobian(lambda y, u=u: own(u, y), h)[0, :, 0]
        Q, R = torch.linalg.qr(D @ Q)
        total, h = total + R.diagonal().abs().log(), own(u, h).detach()
    torch.testing.assert_close(found[0].detach(), total / len(x), rtol=1e-10, atol=1e-10)

    rnn.train()
    record = lt.floss(
        rnn, x, k=1, epochs=30, steps=20, tangent_transient=0, lr=1e-2, target=-1.5, frame="fixed"
    )
    made_of = [p for name, p in rnn.named_parameters() if "weight_hh" in name]
    assert all(not torch.equal(p, before[name]) for name, p in rnn.named_parameters() if "weight_hh" in name)
    assert made_of
    assert record["floss_loss"][0, -1] < record["floss_loss"][0, 0]
    assert lt.diagnose(rnn, x, k=2).verdict
