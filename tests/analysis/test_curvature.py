import math
import sys

import pytest
import torch
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

import lyaptorch as lt
from lyaptorch.analysis import effective_learning_rates, hessian_spectrum
from lyaptorch.analysis.curvature import lanczos

pytestmark = pytest.mark.usefixtures("double")
N, T, B = 4, 6, 5
READ = torch.randn(3, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0])

CELLS = {
    "residual": lambda **kw: lt.ResidualCell(2, N, coupling=0.4, **kw),
    "kind-b": lambda **kw: lt.ResidualCell(2, N, kind="B", coupling=0.4, **kw),
    "rate": lambda **kw: lt.RateCell(2, N, **kw),
}


def outputs(states):
    return states[-1] @ READ.mT


def cross_entropy(states):
    """Of the last state, averaged over trajectories; summed over members."""
    z = outputs(states)
    return -z.log_softmax(-1).gather(-1, LABELS.expand(z.shape[:-1]).unsqueeze(-1)).mean((-2, -1))


def inputs_of(*ensemble):
    return torch.randn(T, *ensemble, B, 2, generator=torch.Generator().manual_seed(2))


def final_states(cell, flat, inputs, names):
    """All states as a function of the named weights, in one flat vector."""
    shapes = {name: dict(cell.named_parameters())[name].shape for name in names}
    pieces = torch.split(flat, [math.prod(s) for s in shapes.values()])
    own = {name: piece.view(s) for (name, s), piece in zip(shapes.items(), pieces, strict=True)}
    h, states = torch.zeros(B, N), []
    for x in inputs:
        h = functional_call(cell, own, (x, h))
        states.append(h)
    return torch.stack(states)


def dense(cell, inputs, names, matrix):
    flat = torch.cat([dict(cell.named_parameters())[name].detach().flatten() for name in names])

    def states(w):
        return final_states(cell, w, inputs, names)

    if matrix == "hessian":
        return torch.autograd.functional.hessian(lambda w: cross_entropy(states(w)), flat)
    J = torch.autograd.functional.jacobian(states, flat).flatten(0, -2)
    curved = torch.autograd.functional.hessian(
        lambda h: cross_entropy(h.view(T, B, N)), states(flat).flatten()
    )
    return J.mT @ curved @ J


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("names", [("weight_hh",), ("weight_ih", "bias", "weight_hh")])
@pytest.mark.parametrize("cell", CELLS)
def test_leading_eigenpairs_are_those_of_the_dense_matrix(cell, names, matrix):
    cell, inputs, k = CELLS[cell](), inputs_of(), 4
    found = hessian_spectrum(cell, inputs, cross_entropy, weights=names, matrix=matrix, k=k, steps=100)
    M = dense(cell, inputs, names, matrix)
    values = torch.linalg.eigvalsh(M)
    expected = values[values.abs().argsort(descending=True)[:k]]
    torch.testing.assert_close(found.eigenvalues, expected, rtol=1e-6, atol=1e-12)
    for value, v in zip(found.eigenvalues, found.eigenvectors, strict=True):
        torch.testing.assert_close(M @ v, value * v, rtol=0, atol=1e-7 * expected[0].abs().item())
        assert v.norm().item() == pytest.approx(1.0, abs=1e-12)
    assert found.residuals.max() < 1e-7 * expected[0].abs()


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_the_shares_of_the_steps_add_up_to_the_eigenvalue(matrix):
    found = hessian_spectrum(CELLS["residual"](), inputs_of(), cross_entropy, matrix=matrix, k=3)
    torch.testing.assert_close(found.contributions.sum(0), found.eigenvalues, rtol=1e-9, atol=1e-12)


def test_the_share_of_a_step_is_that_of_the_weights_use_there():
    cell, inputs = CELLS["residual"](), inputs_of()
    found = hessian_spectrum(cell, inputs, cross_entropy, k=1)
    W = cell.weight_hh.detach()

    def loss(copies):
        h, states = torch.zeros(B, N), []
        for x, W_s in zip(inputs, copies, strict=True):
            h = functional_call(cell, {"weight_hh": W_s}, (x, h))
            states.append(h)
        return cross_entropy(torch.stack(states))

    H = torch.autograd.functional.hessian(loss, W.expand(T, N, N).clone()).view(T, N * N, T, N * N)
    v = found.eigenvectors[0]
    expected = torch.einsum("i,siuj,j->s", v, H, v)
    torch.testing.assert_close(found.contributions[:, 0], expected, rtol=1e-9, atol=1e-12)
    # nothing was in the state yet
    assert abs(expected[0]) < 1e-15


def test_in_a_linear_network_early_steps_count_as_its_residual_lets_them():
    # one unit, constant input: dh_T/dW_s = r^(T-s) eps h_(s-1); far from h = 0 that is a geometric series
    r, t = 0.8, 30
    cell = lt.ResidualCell(
        1, 1, residual=lt.residuals.decay(r), coupling=1e-6, activation="linear", bias=False
    )
    h0 = torch.full((1, 1), 1.0)
    found = hessian_spectrum(
        cell, torch.zeros(t, 1, 1), lambda h: 0.5 * h[-1].square().sum(), h0=h0, matrix="ggn", k=1
    )
    # h_(s-1) = r^(s-1): all steps count alike
    torch.testing.assert_close(found.contributions[:, 0], found.eigenvalues.expand(t) / t, rtol=1e-4, atol=0)
    assert found.eigenvalues.item() == pytest.approx((1e-6 * t * r ** (t - 1)) ** 2, rel=1e-4)


@pytest.mark.parametrize("ensemble", [(3,), (2, 3)])
def test_a_member_has_the_curvature_that_it_has_alone(ensemble):
    inputs, loss = inputs_of(*ensemble), cross_entropy
    found = hessian_spectrum(CELLS["rate"](ensemble=ensemble), inputs, loss, k=2, steps=16)
    last = math.prod(ensemble) - 1
    at = tuple(s - 1 for s in ensemble)
    alone = hessian_spectrum(CELLS["rate"](member_ids=last), inputs[(slice(None), *at)], loss, k=2, steps=16)
    torch.testing.assert_close(found.eigenvalues[at], alone.eigenvalues, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        found.contributions[(slice(None), *at)], alone.contributions, rtol=1e-6, atol=1e-10
    )


def test_the_density_is_that_of_the_matrix():
    cell, inputs = CELLS["residual"](), inputs_of()
    found = hessian_spectrum(cell, inputs, cross_entropy, matrix="ggn", k=1, steps=16, probes=50)
    values = torch.linalg.eigvalsh(dense(cell, inputs, ("weight_hh",), "ggn"))
    largest = values.max().item()
    grid = torch.linspace(-1, 2, 3001) * largest
    density, step = found.density(grid, 0.05 * largest), grid[1] - grid[0]
    assert (density.sum() * step).item() == pytest.approx(1.0, abs=1e-6)
    # one probe is off by some 70%, fifty by 10%
    assert ((density * grid).sum() * step).item() == pytest.approx(values.mean().item(), rel=0.2)


def test_the_quadrature_of_a_start_has_its_moments():
    M = torch.randn(6, 6)
    M, start = M + M.T, torch.randn(2, 6)
    nodes, mixing = lanczos(lambda v: v @ M, start, 4).ritz()
    weights = mixing[..., 0, :].square()
    v = start / start.norm(dim=-1, keepdim=True)
    for power in range(8):
        expected = torch.einsum("ei,ij,ej->e", v, torch.linalg.matrix_power(M, power), v)
        torch.testing.assert_close((weights * nodes**power).sum(-1), expected, rtol=1e-10, atol=1e-10)


def test_lanczos_goes_on_where_the_space_of_the_start_ends():
    M = torch.diag(torch.tensor([3.0, 3.0, 2.0, 0.0, 0.0]))
    start = torch.ones(2, 5)
    found = lanczos(lambda v: v @ M, start, 5)
    V = found.basis.movedim(0, -2)
    torch.testing.assert_close(V @ V.mT, torch.eye(5).expand(2, 5, 5), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found.ritz()[0], torch.tensor([0.0, 0.0, 2.0, 3.0, 3.0]).expand(2, 5), rtol=0, atol=1e-12
    )


def test_a_member_whose_curvature_overflows_has_nan_and_leaves_the_others_alone():
    cell = lt.ResidualCell(2, N, residual=lt.residuals.decay(torch.tensor([1.0, 1e60])), ensemble=(2,))
    found = hessian_spectrum(cell, inputs_of(2), lambda h: h[-1].square().mean((-2, -1)), k=2, steps=8)
    alone = hessian_spectrum(
        lt.ResidualCell(2, N), inputs_of(2)[:, 0], lambda h: h[-1].square().mean((-2, -1)), k=2, steps=8
    )
    torch.testing.assert_close(found.eigenvalues[0], alone.eigenvalues, rtol=1e-9, atol=1e-14)
    assert found.eigenvalues[1].isnan().all()


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize("names", [("weight_hh",), ("weight_ih", "bias", "weight_hh")])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("ensemble", [(), (3,)])
def test_curvlinops_finds_the_same(cell, names, matrix, ensemble):
    pytest.importorskip(
        "curvlinops", reason="curvlinops is not installed; it needs an environment of its own"
    )
    # members differ by their ids alone
    cell, inputs = CELLS[cell](ensemble=ensemble), inputs_of(*ensemble)
    settings = {"weights": names, "matrix": matrix, "k": 4, "steps": 100}
    found, oracle = (
        hessian_spectrum(cell, inputs, cross_entropy, backend=backend, **settings)
        for backend in ("torch", "curvlinops")
    )
    torch.testing.assert_close(found.eigenvalues, oracle.eigenvalues, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.contributions, oracle.contributions, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(found.nodes, oracle.nodes, rtol=1e-6, atol=1e-8)
    assert oracle.residuals.max() < 1e-7


def test_curvlinops_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(ValueError, match=r"needs curvlinops-for-pytorch; install lyaptorch\[hessian\]"):
        hessian_spectrum(CELLS["rate"](), inputs_of(), cross_entropy, backend="curvlinops")


def test_memory_does_not_grow_with_the_square_of_the_steps():
    """The gradient of one step's copy of the weights must not be as large as all copies."""
    sizes = []
    for steps in (10, 40):
        inputs, most = torch.ones(steps, B, 2), 0

        class Largest(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                nonlocal most
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor) and not out._is_view():
                    most += out.numel()
                return out

        with Largest():
            hessian_spectrum(CELLS["rate"](), inputs, cross_entropy, k=1, steps=3)
        sizes.append(most)
    assert sizes[1] < 5 * sizes[0]


def test_effective_learning_rates_tell_convergence_from_divergence():
    curvature, lr = torch.tensor([[10.0, 1.0], [3.0, 2.0]]), torch.tensor([0.1, 0.7])
    rates = effective_learning_rates(curvature, lr)
    torch.testing.assert_close(rates, torch.tensor([[1.0, 0.1], [2.1, 1.4]]))
    x = torch.ones(2, 2)
    for _ in range(200):
        x = x - lr[:, None] * curvature * x
    assert ((x.abs() < 1) == (rates < 2)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "triton"}, r"unknown backend 'triton'.* known: curvlinops, torch"),
        ({"matrix": "fisher"}, r"unknown matrix 'fisher'"),
        ({"weights": ("weight_h",)}, r"unknown weights 'weight_h', did you mean 'weight_.h'\?"),
        ({"k": 17}, r"k must be an integer in 1\.\.16, got 17"),
        ({"k": 5, "steps": 4}, r"steps must be an integer >= 5, got 4"),
        ({"probes": 0}, r"probes must be an integer >= 1, got 0"),
        ({"loss": lambda h: h.detach().sum()}, r"loss must depend on the states"),
    ],
)
def test_bad_arguments(settings, message):
    arguments = {"loss": cross_entropy, **settings}
    with pytest.raises(ValueError, match=message):
        hessian_spectrum(CELLS["rate"](), inputs_of(), **arguments)


class Twice(lt.Cell):
    """One submodule by two names."""

    def __init__(self):
        super().__init__(1, 3)
        self.a = self.b = torch.nn.Linear(3, 3).double()

    def step(self, x, h):
        return torch.tanh(self.a(h) + x + self.b(h).roll(1, -1))


def test_a_submodule_of_two_names_keeps_its_parameters():
    cell, x = Twice(), torch.ones(6, 2, 1).double()
    weight, value = cell.a.weight, cell.a.weight.detach().clone()

    def loss(w):
        h = torch.zeros(2, 3).double()
        for u in x:
            y = h @ w.mT + cell.a.bias.detach()
            h = torch.tanh(y + u + y.roll(1, -1))
        return (h - 1).square().mean()

    found = hessian_spectrum(cell, x, lambda h: (h[-1] - 1).square().mean(), weights=("a.weight",), k=3)
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, value).reshape(9, 9))
    dense = dense[dense.abs().argsort(descending=True)][:3]
    torch.testing.assert_close(found.eigenvalues, dense, rtol=1e-9, atol=1e-12)
    assert cell.a.weight is weight
    assert torch.equal(weight, value)
