"""Every kind of cell x every public call: it works and agrees with dense Jacobians, or says why not."""

from __future__ import annotations

import importlib.util
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrizations as parametrizations
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

import cases
import lyaptorch as lt
import reference
from lyaptorch.cells import Cell, FormCell, SpikingCell, Stacked

pytestmark = [pytest.mark.usefixtures("double", "unchecked"), pytest.mark.filterwarnings("ignore")]
T, B, M, N = 14, 2, 2, 4
ALIKE = 1e-9
"""Of exponents: round-off of T factors, times the spread of the spectra."""


@dataclass
class Pair:
    """A state in two parts."""

    a: torch.Tensor
    b: torch.Tensor


class Module(nn.Module):
    """A module with parameters, whose state has parts."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell, self.kind = nn.GRUCell(M, N), kind

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        given = (
            state.values() if self.kind == "dict" else vars(state).values() if self.kind == "data" else state
        )
        a, b = self.cell(x, torch.cat(list(given), -1)).split([1, N - 1], -1)
        return {"tuple": (a, b), "dict": {"a": a, "b": b}, "data": Pair(a, b)}[self.kind]


def parts(kind: str) -> tuple[Any, Any]:
    a, b = torch.zeros(B, 1), torch.full((B, N - 1), 0.1)
    return Module(kind), {"tuple": (a, b), "dict": {"a": a, "b": b}, "data": Pair(a, b)}[kind]


def function() -> tuple[Any, Any]:
    W, V = nn.Parameter(torch.randn(N, N) / 2), torch.randn(N, M)
    return lambda x, h: torch.tanh(h @ W.mT + x @ V.mT), torch.full((B, N), 0.1)


def parametrised(way: Any, make: Any) -> Any:
    module = make()
    for name in [name for name, _ in module.named_parameters() if name.startswith("weight_hh")]:
        way(module, name)
    return module


WAYS = {
    "orthogonal": parametrizations.orthogonal,
    "spectral": parametrizations.spectral_norm,
    "weight": parametrizations.weight_norm,
    "old-spectral": spectral_norm,
    "old-weight": weight_norm,
    "pruned": lambda module, name: prune.random_unstructured(module, name, amount=2),
}
TORCH = {
    "RNN": lambda: nn.RNN(M, N),
    "LSTM": lambda: nn.LSTM(M, 2),
    "GRU": lambda: nn.GRU(M, N),
    "RNN-2": lambda: nn.RNN(M, 3, num_layers=2),
    "LSTM-2": lambda: nn.LSTM(M, 2, num_layers=2),
    "GRU-2": lambda: nn.GRU(M, 3, num_layers=2),
    "RNNCell": lambda: nn.RNNCell(M, N),
    "LSTMCell": lambda: nn.LSTMCell(M, 2),
    "GRUCell": lambda: nn.GRUCell(M, N),
}
HAVE = {name: importlib.util.find_spec(name) is not None for name in ("snntorch", "norse", "spikingjelly")}


def snntorch() -> Any:
    import snntorch as snn

    return nn.Sequential(nn.Linear(M, N), snn.Leaky(beta=0.9, init_hidden=True)), None


def norse() -> Any:
    from norse.torch.module.lif import LIFRecurrentCell

    return LIFRecurrentCell(M, 3), None


def spikingjelly() -> Any:
    from spikingjelly.activation_based import neuron

    return nn.Sequential(nn.Linear(M, N), neuron.LIFNode()), None


def depth() -> tuple[Any, Any]:
    blocks = [nn.Sequential(nn.Linear(N, N), nn.Tanh()) for _ in range(T)]
    return lt.cells.Depth(blocks, (N,)), torch.randn(B, N)


def wrapped(case: cases.Case) -> tuple[Any, Any]:
    found = cases.setup(case, b=B)
    return found.cell, found.h0


NETWORKS: dict[str, Any] = {
    # with h0 from the catalogue, for functions
    **{case.name: lambda case=case: wrapped(case) for case in cases.CASES},
    **{f"torch {name}": lambda make=make: (make(), None) for name, make in TORCH.items()},
    **{f"{way} RNN": lambda way=way: (parametrised(WAYS[way], TORCH["RNN"]), None) for way in WAYS},
    **{f"{way} LSTM-2": lambda way=way: (parametrised(WAYS[way], TORCH["LSTM-2"]), None) for way in WAYS},
    **{f"{way} GRUCell": lambda way=way: (parametrised(WAYS[way], TORCH["GRUCell"]), None) for way in WAYS},
    "a function": function,
    **{f"a module with a {kind}": lambda kind=kind: parts(kind) for kind in ("tuple", "dict", "data")},
    "a flow": lambda: (
        lt.Flow(lambda x, h: torch.tanh(x.sum(-1, keepdim=True) - h), dt=0.5),
        torch.ones(B, N),
    ),
    "a list": lambda: ([nn.GRUCell(M, N), nn.GRUCell(M, N)], None),
    "a list of parametrised": lambda: (
        [parametrised(WAYS["spectral"], TORCH["LSTM-2"]) for _ in range(2)],
        None,
    ),
    "a stack of mixed layers": lambda: (Stacked([lt.cells.URLSTMCell(M, 2), lt.RateCell(2, 3)]), None),
    "an own step in a class of ours": lambda: (Halved(M, N), None),
    "adaptive spiking": lambda: (lt.cells.AdaptiveLIFCell(M, 2, threshold=0.3), torch.full((B, 6), 0.2)),
    "depth": depth,
    "snntorch": snntorch,
    "norse": norse,
    "spikingjelly": spikingjelly,
}


class Halved(lt.LSTMCell):
    def __init__(self, m: int, n: int) -> None:
        super().__init__(m, n // 2)

    def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return 0.5 * super().step(x, h)


ENSEMBLES = ("a list", "a list of parametrised")
UNTRAINED = ("a flow",)
LOSING = ("relu", "lif", "binary", "surrogate", "adaptive", "snntorch", "norse", "spikingjelly", "pruned")
"""Names of kinds whose frames may lose columns in T steps."""


AGAIN = ("spectral LSTM-2", "weight LSTM-2", "old-spectral LSTM-2")
"""Ways that an RNN is parametrised with, too, and several layers in other ways."""


def first_of_their_kind() -> list[Any]:
    """All names; further variants of a cell, which other tests meet too, are slow."""
    kinds: set[str] = set()
    listed = []
    for name in NETWORKS:
        kind = name.partition("-")[0] if name in {case.name for case in cases.CASES} else name
        again = name.endswith(" GRUCell") or name in AGAIN
        marks = [pytest.mark.slow] if kind in kinds or again else []
        kinds.add(kind)
        listed.append(pytest.param(name, marks=marks))
    return listed


LIBRARYS = [case.name for case in cases.CASES if case.name not in ("rate-tanh", "lstm")]


@pytest.fixture(params=first_of_their_kind())
def name(request):
    if request.param in HAVE and not HAVE[request.param]:
        pytest.skip(f"{request.param} (extra snn) is not installed")
    return request.param


@pytest.fixture
def made(name):
    torch.manual_seed(4)
    network, h0 = NETWORKS[name]()
    inputs = network.numbers(torch.zeros(B, 1)) if name == "depth" else 0.7 * torch.randn(T, B, M)
    return network, inputs, h0


def moved(network: Any) -> list[torch.Tensor]:
    modules = network if isinstance(network, list) else [network]
    return [p.detach().clone() for m in modules if isinstance(m, nn.Module) for p in m.parameters()]


def dense(cell: Cell, inputs: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The exponents from a dense Jacobian of each step, row by row in reverse mode."""
    frame = reference.random_frame(h.shape[-1], 2)
    Q, total = frame.expand(*h.shape, 2), 0.0
    for x in inputs:
        y = h.detach().requires_grad_()
        after = cell.step(x, y)
        rows = [torch.autograd.grad(after[..., i].sum(), y, retain_graph=True)[0] for i in range(h.shape[-1])]
        Q, R = reference.positive_qr(torch.stack(rows, -2) @ Q)
        total, h = total + R.diagonal(dim1=-2, dim2=-1).log(), after.detach()
    return total / len(inputs) / cell.time_step


def test_the_spectrum_is_that_of_dense_jacobians(name, made):
    network, inputs, h0 = made
    cell = lt.as_cell(network, state=h0 if not isinstance(h0, torch.Tensor | None) else None)
    wide = inputs.unsqueeze(1).expand(T, 2, B, M) if name in ENSEMBLES else inputs
    h = cell.rest(wide[0]) if h0 is None else cell.pack(h0)
    spec = lt.lyapunov_spectrum(network, inputs, k=2, h0=h0, frame=reference.random_frame(h.shape[-1], 2))
    expected = dense(cell, wide, h)
    there = spec.growth.healthy.all(0)
    assert there[..., 0].all() or any(word in name for word in LOSING)
    torch.testing.assert_close(spec.exponents[there], expected[there], rtol=ALIKE, atol=ALIKE)


def test_it_is_diagnosed_or_refused(name, made):
    network, inputs, h0 = made
    if name in ENSEMBLES:
        with pytest.raises(ValueError, match="diagnose takes one network, got an ensemble"):
            lt.diagnose(network, inputs, h0=h0, k=2)
        return
    found = lt.diagnose(network, inputs, h0=h0, k=2)
    assert found.verdict in found.summary()
    # at most two spectra of the same orbit, whatever the frame
    assert found.measured.exponents.shape == (2,)


def test_it_is_flossed(name, made):
    network, inputs, h0 = made
    settings = {"k": 1, "epochs": 2, "steps": T, "tangent_transient": 2, "lr": 1e-2}
    if name in UNTRAINED:
        with pytest.raises(ValueError, match=r"nothing to floss"):
            lt.floss(network, inputs, h0=h0, **settings)
        return
    before = moved(network)
    record = lt.floss(network, inputs, h0=h0, **settings)
    after = moved(network)
    assert record["floss_loss"].shape[-1] == 2
    if before and not any(word in name for word in LOSING):
        assert any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


# cells of the library come to the same flossing as in the test above
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(*p.values, marks=[pytest.mark.slow] if p.values[0] in LIBRARYS else p.marks)
        for p in first_of_their_kind()
    ],
    indirect=True,
)
def test_a_flosser_flosses_what_is_a_module(name, made):
    network, inputs, h0 = made
    phase = lt.FlossPhase(2, k=1, steps=T, tangent_transient=2, lr=1e-2, batch=B)
    h0 = None if h0 is None else lt.as_cell(network).pack(h0) if isinstance(h0, torch.Tensor) else h0
    flosser = lt.integrations.Flosser(
        network, inputs, [lt.schedules.Trigger(lt.schedules.At(0), phase)], h0=h0
    )
    if name in UNTRAINED:
        with pytest.raises(ValueError, match=r"nothing to floss"):
            flosser.step()
        return
    before = moved(network)
    flosser.step()
    if before and not any(word in name for word in LOSING):
        assert any(not torch.equal(one, two) for one, two in zip(before, moved(network), strict=True))


def test_its_covariant_vectors_are_covariant(name, made):
    network, inputs, h0 = made
    if any(word in name for word in LOSING):
        pytest.skip("a column may die")
    vectors = lt.covariant_vectors(network, inputs, k=1, h0=h0)
    assert vectors.covariance_error.max() < 1e-8


def test_its_gradient_is_that_of_autograd(name, made):
    network, inputs, h0 = made
    cell = lt.as_cell(network, state=h0 if not isinstance(h0, torch.Tensor | None) else None)
    wide = inputs.unsqueeze(1).expand(T, 2, B, M) if name in ENSEMBLES else inputs
    h = cell.rest(wide[0]) if h0 is None else cell.pack(h0)
    spec = lt.lyapunov_spectrum(network, inputs[:5], k=1, h0=h0)
    leaves = cell.leaves(wide[0], h)
    if not leaves or not spec.growth.healthy.all():
        return
    got = torch.autograd.grad(spec.exponents.sum(), leaves, allow_unused=True, materialize_grads=True)
    plain = lt.lyapunov_spectrum(network, inputs[:5], k=1, h0=h0, backend="autograd")
    if not plain.exponents.requires_grad:
        assert all((bar == 0).all() for bar in got)
        return
    expected = torch.autograd.grad(plain.exponents.sum(), leaves, allow_unused=True, materialize_grads=True)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-9)


def test_its_gradient_norms_are_those_of_backpropagation(name, made):
    network, inputs, h0 = made
    cell = lt.as_cell(network, state=h0 if not isinstance(h0, torch.Tensor | None) else None)
    if name in ENSEMBLES:
        inputs = inputs.unsqueeze(1).expand(T, 2, B, M)
    h = (cell.rest(inputs[0]) if h0 is None else cell.pack(h0)).detach().requires_grad_()
    norms = lt.analysis.gradient_norms(cell, inputs, lambda states: states[-1].square(), h0=h)
    y = h
    for x in inputs:
        y = cell.step(x, y)
    (expected,) = torch.autograd.grad(y.square().sum(), h)
    assert norms.shape[0] == len(inputs) + 1
    torch.testing.assert_close(norms[0], torch.linalg.vector_norm(expected, dim=-1), rtol=1e-9, atol=1e-12)


def test_every_cell_of_the_library_is_in_the_catalogue():
    built = {type(part) for case in cases.CASES for part in cases.setup(case).cell.modules()}
    known = {c for c in vars(lt.cells).values() if inspect.isclass(c) and issubclass(c, Cell)}
    # what others inherit from; Depth, whose inputs are numbers of blocks, is in the table above
    missing = known - built - {Cell, FormCell, SpikingCell, lt.cells.Depth}
    assert not missing, missing


def test_each_case_stands_in_the_catalogue_once():
    names = [case.name for case in cases.CASES]
    assert len(names) == len(set(names))
