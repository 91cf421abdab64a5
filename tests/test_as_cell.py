import pytest
import torch
from torch import nn

import lyaptorch as lt
import reference
from cases import M, N
from lyaptorch.cells import FunctionCell

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


def test_a_module_takes_part_with_its_own_parameters():
    gru = nn.GRUCell(M, N)
    cell = lt.as_cell(gru)
    assert isinstance(cell, FunctionCell)
    assert {id(p) for p in cell.parameters()} == {id(p) for p in gru.parameters()}
    inputs, h0, frame = torch.randn(8, 2, M), torch.randn(2, N), reference.random_frame(N, N)
    spec = lt.lyapunov_spectrum(gru, inputs, h0=h0, frame=frame)
    expected = reference.scan(cell, inputs, h0, frame)
    torch.testing.assert_close(spec.growth.log_r, expected.log_r, rtol=0, atol=1e-12)
    spec.exponents.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in gru.parameters())


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


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (
            nn.RNN(M, N, num_layers=2),
            r"one layer and one direction, got num_layers=2, bidirectional=False; wrap",
        ),
        (nn.RNN(M, N, bidirectional=True), r"got num_layers=1, bidirectional=True"),
        (
            nn.LSTM(M, N),
            r"a step whose state is one tensor, got a LSTM; write step\(x, h\) .* packed into one",
        ),
        (nn.LSTMCell(M, N), r"got a LSTMCell"),
        (nn.GRU(M, N), r"got a GRU"),
        ("tanh", r"as_cell takes a cell, a module or a function step\(x, h\), got str"),
        (torch.zeros(4, 4), r"got Tensor"),
    ],
)
def test_what_is_no_cell_is_refused(unchecked, obj, message):
    with pytest.raises(ValueError, match=message):
        lt.as_cell(obj)
