import math

import pytest
import torch
from torch import nn

import lyaptorch as lt
from cases import M, N
from lyaptorch import residuals, weights
from lyaptorch.cells import unroll

E = torch.arange(3)


def turn(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]])


FACTORS = {
    "diagonal": residuals.decay(torch.tensor([0.5, 0.9, 1.1, 0.7])),
    "blocks": residuals.rotation(torch.tensor([0.3, 1.2])),
    "dense": residuals.orthogonal(N),
}


def test_a_decay_is_diagonal_and_a_rotation_turns_pairs(double):
    decay, rotation = (FACTORS[kind](N, torch.tensor(0)) for kind in ("diagonal", "blocks"))
    assert decay.kind == "diagonal"
    torch.testing.assert_close(decay.dense(), torch.diag(decay.matrix), rtol=0, atol=0)
    expected = torch.block_diag(turn(0.3), turn(1.2))
    assert rotation.kind == "blocks"
    torch.testing.assert_close(rotation.dense(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("first", FACTORS)
@pytest.mark.parametrize("second", FACTORS)
def test_a_product_is_the_matrix_product_and_no_larger_than_its_factors(double, first, second):
    product = (FACTORS[first] @ FACTORS[second])(N, E)
    p, q = (FACTORS[kind](N, E).dense() for kind in (first, second))
    torch.testing.assert_close(product.dense(), p @ q, rtol=0, atol=1e-15)
    order = ["diagonal", "blocks", "dense"]
    assert product.kind == order[max(order.index(first), order.index(second))]


def test_orthogonal_matrices_are_orthogonal_and_differ_between_members(double):
    A = residuals.orthogonal(6)(6, E).matrix
    torch.testing.assert_close(A.mT @ A, torch.eye(6).expand(3, 6, 6), rtol=0, atol=1e-14)
    assert (A[0] - A[1]).abs().max() > 0.1
    other = residuals.orthogonal(6, generator=torch.Generator().manual_seed(1))(6, E).matrix
    assert (A - other).abs().max() > 0.1


@pytest.mark.parametrize(
    ("dense", "kind"),
    [
        (torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])), "diagonal"),
        (torch.block_diag(turn(0.1), turn(0.2)), "blocks"),
        (torch.ones(4, 4), "dense"),
        (torch.block_diag(torch.ones(1, 1), turn(0.2)), "dense"),
    ],
)
def test_a_given_matrix_is_stored_as_small_as_it_can_be(dense, kind):
    made = residuals.matrix(dense)(len(dense), E)
    assert made.kind == kind
    torch.testing.assert_close(made.dense(), dense.expand(3, *dense.shape), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(), (3,), (4,), (3, 4)])
def test_a_decay_is_given_for_all_for_members_for_units_or_for_both(shape):
    r = torch.rand(shape)
    made = residuals.decay(r)(4, E).matrix
    expected = r[:, None] if shape == (3,) else r
    torch.testing.assert_close(made, expected.expand(3, 4), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("recipe", "n", "member_ids", "message"),
    [
        (residuals.rotation(0.1), 5, E, r"a rotation turns pairs of units.*even, got 5; take 6"),
        (residuals.decay(torch.ones(2)), 4, E, r"r must be a number or have shape \*e = \(3,\), \(4,\)"),
        (residuals.decay(torch.ones(3)), 3, E, r"r of shape \(3,\) may be one for each of 3 members or"),
        (residuals.decay(math.nan), 4, E, r"r must be finite, got nan"),
        (residuals.orthogonal(6), 4, E, r"orthogonal was made for 6 units, and the cell has 4"),
        (residuals.matrix(torch.eye(6)), 4, E, r"matrix was made for 6 units, and the cell has 4"),
        (residuals.matrix(torch.eye(4).expand(2, 4, 4)), 4, E, r"A must have shape \(\*e, n, n\)"),
    ],
)
def test_recipes_that_do_not_fit(recipe, n, member_ids, message):
    with pytest.raises(ValueError, match=message):
        recipe(n, member_ids)


def test_a_matrix_that_is_none():
    with pytest.raises(ValueError, match=r"A must have shape \(n, n\).*got \(2, 3\)"):
        residuals.matrix(torch.ones(2, 3))


KINDS = {
    "linear": lambda A, e, a, h: A(h) + e * a.tanh(),
    "A": lambda A, e, a, h: A(h).tanh() + e * a.tanh(),
    "B": lambda A, e, a, h: (A(h) + e * a).tanh(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_formula_of_its_kind(double, kind):
    eps = torch.linspace(0.1, 0.4, N)
    residual = FACTORS["blocks"] @ FACTORS["diagonal"]
    cell = lt.ResidualCell(M, N, residual=residual, coupling=eps, kind=kind)
    x, h = torch.randn(5, M), torch.randn(5, N)
    a = h @ cell.weight_hh.mT + x @ cell.weight_ih.mT + cell.bias
    A = residual(N, torch.tensor(0)).dense()
    expected = KINDS[kind](lambda y: y @ A.mT, eps, a, h)
    torch.testing.assert_close(cell(x, h), expected, rtol=0, atol=1e-14)


def test_without_a_non_linearity_all_kinds_are_one_affine_map(double):
    cells = [lt.ResidualCell(M, N, kind=kind, activation="linear") for kind in KINDS]
    x, h = torch.randn(5, M), torch.randn(5, N)
    for cell in cells:
        torch.testing.assert_close(cell(x, h), cells[0](x, h), rtol=0, atol=1e-15)
        drift = cell(x, torch.zeros_like(h))
        torch.testing.assert_close(cell(x, 2 * h) - drift, 2 * (cell(x, h) - drift), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (3,), (4,), (3, 4)])
def test_a_coupling_scales_what_the_weights_add(double, shape):
    eps = 0.1 + torch.rand(shape)
    cell = lt.ResidualCell(M, 4, coupling=eps, activation="linear", bias=False, ensemble=(3,))
    x, h = torch.randn(3, 2, M), torch.zeros(3, 2, 4)
    per = eps[:, None] if shape == (3,) else eps
    expected = per.expand(3, 4).unsqueeze(-2) * (x @ cell.weight_ih.mT)
    torch.testing.assert_close(cell(x, h), expected, rtol=0, atol=1e-15)


def test_a_rotation_costs_no_n_by_n_matrix():
    cell = lt.ResidualCell(1, 1000, residual=residuals.rotation(0.2) @ residuals.decay(0.9))
    assert cell.residual.shape == (500, 2, 2)


def test_weights_start_at_one_over_the_root_of_the_fan_in():
    cell = lt.ResidualCell(4, 100, ensemble=(20,))
    for weight, fan_in in ((cell.weight_hh, 100), (cell.weight_ih, 4), (cell.bias, 4)):
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)


def test_the_residual_is_fixed_and_the_coupling_is_trained_on_request():
    fixed = lt.ResidualCell(M, N)
    assert {name for name, _ in fixed.named_parameters()} == {"weight_hh", "weight_ih", "bias"}
    eps = nn.Parameter(torch.full((2, N), 0.1))
    cell = lt.ResidualCell(M, N, coupling=eps, ensemble=(2,))
    assert cell.coupling is eps
    unroll(cell, torch.randn(5, 2, 3, M), torch.zeros(2, 3, N)).sum().backward()
    assert eps.grad.abs().min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_everything_follows_double(kind):
    cell = lt.ResidualCell(M, N, kind=kind).double()
    x, h = torch.randn(1, M).double(), torch.randn(1, N).double()
    assert cell(x, h).dtype == torch.float64
    assert all(z.dtype == torch.float64 for z in cell.form().tensors())


@pytest.mark.parametrize("recipe", FACTORS)
def test_a_member_is_the_same_alone_and_in_an_ensemble(recipe):
    every = lt.ResidualCell(M, N, residual=FACTORS[recipe], ensemble=(3,))
    alone = lt.ResidualCell(M, N, residual=FACTORS[recipe], member_ids=2)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, every.state_dict()[name][2]), name


NETWORKS = {
    "RNN": lambda: nn.RNN(M, N),
    "RNNCell": lambda: nn.RNNCell(M, N),
    "RNN without bias": lambda: nn.RNN(M, N, bias=False),
    "ElmanCell": lambda: lt.ElmanCell(M, N),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_weakly_coupled_initialisation_makes_an_elman_network_of_kind_b(network):
    rnn, recipe = NETWORKS[network](), FACTORS["blocks"] @ FACTORS["diagonal"]
    weights.weakly_coupled_(rnn, recipe, 0.2)
    expected = lt.ResidualCell(M, N, residual=recipe, coupling=0.2, kind="B", bias="without" not in network)
    x, h = torch.randn(3, M), torch.randn(3, N)
    torch.testing.assert_close(lt.as_cell(rnn)(x, h), expected(x, h))


@pytest.mark.parametrize("network", [nn.LSTM(M, N), nn.RNN(M, N, num_layers=2), nn.Linear(M, N)])
def test_weak_coupling_is_for_elman_networks(network):
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(ValueError, match=r"network must be an ElmanCell, a torch.nn.RNNCell or"):
        weights.weakly_coupled_(network, residuals.decay(1.0))
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "C"}, r"unknown kind 'C'"),
        ({"coupling": torch.ones(5)}, r"coupling must be a number or have shape"),
        ({"coupling": nn.Parameter(torch.ones(5))}, r"a trained coupling must have shape \*e = \(\)"),
        ({"activation": "tahn"}, r"unknown activation 'tahn', did you mean 'tanh'\?"),
        ({"hidden_size": 5, "residual": residuals.rotation(1.0)}, r"must be even, got 5"),
        ({"hidden_size": 0}, r"hidden_size must be an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_of_a_residual_cell(unchecked, settings, message):
    with pytest.raises(ValueError, match=message):
        lt.ResidualCell(**{"input_size": M, "hidden_size": N, **settings})
