import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import lyaptorch as lt
import reference
from cases import ALONE, GRID, M, N, across, every, setup
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.products import by_forward_mode, by_reverse_mode
from lyaptorch.cells.stacked import Stacked

PRODUCTS = {
    "own": lambda cell, *a: cell.pushforward(*a),
    "forward": lambda cell, *a: by_forward_mode(cell.step, *a),
    "reverse": lambda cell, *a: by_reverse_mode(cell.step, *a),
}
# a handful of sums of N products: some tens of round-offs
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.mark.parametrize("product", PRODUCTS)
@across("dtype", {ALONE: [torch.float64], GRID: [torch.float32]})
def test_pushforward_is_the_dense_jacobian_times_the_frame(case, ensemble, dtype, product):
    cell, inputs, h = setup(case, ensemble, dtype)
    Q = torch.randn(*h.shape, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    after, pushed = PRODUCTS[product](cell, inputs[0], h, Q)
    expected = reference.jacobian(cell, inputs[0], h) @ Q
    torch.testing.assert_close(after, cell.step(inputs[0], h), rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(pushed, expected, rtol=0, atol=TOLERANCE[dtype])


@every()
def test_a_case_has_the_ensemble_it_was_made_with(case, ensemble):
    cell, inputs, h = setup(case, ensemble)
    assert h.shape == (*ensemble, 2, N)
    assert cell(inputs[0], h).shape == h.shape
    for p in cell.parameters():
        assert p.shape[: len(ensemble)] == ensemble or p.dim() <= 1  # activations share their parameters


def test_the_rate_jacobian_scales_columns_at_the_old_state(double):
    cell = lt.RateCell(M, N, gain=1.3)
    x, h, eye = torch.randn(1, M), torch.randn(1, N), torch.eye(N)[None]
    after, D = cell.pushforward(x, h, eye)
    W, V, b = cell.weight_hh, cell.weight_ih, cell.bias
    torch.testing.assert_close(after[0], W @ h[0].tanh() + V @ x[0] + b, rtol=0, atol=1e-14)
    torch.testing.assert_close(D[0], W * sech2(h[0]), rtol=0, atol=1e-14)


def test_the_elman_jacobian_scales_rows_at_the_preactivation(double):
    cell = lt.ElmanCell(M, N, gain=1.3)
    x, h, eye = torch.randn(1, M), torch.randn(1, N), torch.eye(N)[None]
    after, D = cell.pushforward(x, h, eye)
    W, V, b = cell.weight_hh, cell.weight_ih, cell.bias_ih + cell.bias_hh
    a = W @ h[0] + V @ x[0] + b
    torch.testing.assert_close(after[0], a.tanh(), rtol=0, atol=1e-14)
    torch.testing.assert_close(D[0], sech2(a)[:, None] * W, rtol=0, atol=1e-14)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_an_elman_cell_takes_the_weights_of_torch_and_rolls_the_same_states(double, nonlinearity, bias):
    rnn = nn.RNN(M, N, nonlinearity=nonlinearity, bias=bias)
    cell = lt.ElmanCell(M, N, activation=nonlinearity, bias=bias)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in rnn.state_dict().items()})
    inputs, h = torch.randn(20, 3, M), torch.randn(3, N)
    expected, last = rnn(inputs, h[None])
    for x, y in zip(inputs, expected, strict=True):
        h = cell(x, h)
        torch.testing.assert_close(h, y, rtol=0, atol=1e-14)
    torch.testing.assert_close(h[None], last, rtol=0, atol=1e-14)


def test_a_cell_and_torchs_cell_exchange_state_dicts():
    cell, theirs = lt.ElmanCell(M, N), nn.RNNCell(M, N)
    cell.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(cell.state_dict())
    x, h = torch.randn(3, M), torch.randn(3, N)
    torch.testing.assert_close(cell(x, h), theirs(x, h))


def test_an_ensemble_broadcasts_one_input_over_its_members(double):
    cell = lt.RateCell(M, N, ensemble=(2, 3))
    x, h = torch.randn(5, M), torch.randn(2, 3, 5, N)
    torch.testing.assert_close(cell(x, h), cell(x.expand(2, 3, 5, M), h), rtol=0, atol=0)


def test_cells_are_made_in_the_default_dtype_and_follow_double(double):
    assert all(p.dtype == torch.float64 for p in lt.RateCell(M, N).parameters())
    torch.set_default_dtype(torch.float32)
    cell = lt.ElmanCell(M, N)
    assert all(p.dtype == torch.float32 for p in cell.parameters())
    assert cell.double()(torch.randn(1, M).double(), torch.randn(1, N).double()).dtype == torch.float64


def test_repr_shows_sizes_activation_and_ensemble():
    shown = repr(lt.RateCell(M, N, activation="relu", ensemble=(2, 3)))
    assert "2, 4, ensemble=(2, 3)" in shown
    assert "relu" in shown


def test_a_cell_without_a_step_says_so():
    with pytest.raises(NotImplementedError, match=r"Cell must define step\(x, h\)"):
        lt.Cell(M, N).step(torch.zeros(1, M), torch.zeros(1, N))


def test_public_shapes_are_checked_in_tests():
    with pytest.raises(TypeCheckError, match="pushforward"):
        lt.RateCell(M, N).pushforward(torch.zeros(1, M), torch.zeros(1, N), torch.zeros(2, N, 1))


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((0, 4), {}, r"input_size must be an integer >= 1, got 0"),
        ((2, 0), {}, r"hidden_size must be an integer >= 1, got 0"),
        ((2, 4.0), {}, r"hidden_size must be an integer >= 1, got 4.0"),
        ((2, 4), {"activation": "tahn"}, r"unknown activation 'tahn', did you mean 'tanh'\?"),
        ((2, 4), {"weights": "gausian"}, r"unknown weights 'gausian', did you mean 'gaussian'\?"),
        ((2, 4), {"ensemble": (3, 0)}, r"each entry of ensemble must be an integer >= 1, got 0"),
        ((2, 4), {"ensemble": (3,), "gain": torch.ones(2)}, r"the ensemble\'s shape \(3,\), got \(2,\)"),
        (
            (2, 4),
            {"ensemble": (3,), "member_ids": torch.arange(2)},
            r"member_ids must have shape \*e = \(3,\), got \(2,\)",
        ),
        ((2, 4), {"generator": 7}, r"generator must be a torch.Generator or None, got int"),
    ],
)
@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_bad_arguments_of_a_cell(unchecked, kind, arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments, **settings)


@pytest.mark.parametrize("kind", [lt.RateCell, lt.ElmanCell])
def test_a_misspelt_setting_is_an_error(kind):
    with pytest.raises(TypeError, match="gian"):
        kind(M, N, gian=2.0)


def test_layers_of_stacks_within_a_stack_differ_as_those_of_a_flat_one():
    rate = lambda: lt.RateCell(4, 4)  # noqa: E731
    nested = Stacked([Stacked([rate(), rate()]), Stacked([rate(), rate()])])
    flat = Stacked([rate() for _ in range(4)])
    for p, q in zip(nested.parameters(), flat.parameters(), strict=True):
        assert torch.equal(p, q)
    weights = [p for name, p in nested.named_parameters() if "weight_hh" in name]
    assert not any(torch.equal(weights[i], weights[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize(
    "kind",
    [
        lt.RateCell,
        lt.ElmanCell,
        lt.GRUCell,
        lt.LIFCell,
        lt.cells.AdaptiveLIFCell,
        lt.BinaryCell,
        lt.ResidualCell,
    ],
)
def test_a_cell_can_be_made_without_numbers(kind):
    with torch.device("meta"):
        cell = kind(2, 3)
    assert {z.device.type for z in cell.tensors()} == {"meta"}
    with pytest.raises(ValueError, match="must hold numbers, got a meta tensor"):
        lt.lyapunov_spectrum(cell, torch.zeros(5, 1, 2))
