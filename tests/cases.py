"""One catalogue of cells: every line of `CASES` is tested everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lyaptorch import Activation, Cell, ElmanCell, Flow, RateCell, as_cell
from lyaptorch._random import Stream, member_ids
from lyaptorch.cells.activation import sech2
from lyaptorch.cells.weights import orthogonal

M, N = 2, 4
"""Input and state size of every case."""


class Case(NamedTuple):
    """A cell by name: `make(ensemble=..., members=...)` in the default dtype.

    `rank`: how many exponents stay finite; less than N where units of the cell die.
    """

    name: str
    make: Callable[..., Cell]
    ensembles: bool = True
    rank: int = N


class Setup(NamedTuple):
    cell: Cell
    inputs: Tensor
    h0: Tensor


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def setup(
    case: Case,
    ensemble: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float64,
    *,
    t: int = 8,
    b: int = 2,
    members: int | Tensor | None = None,
) -> Setup:
    """The cell with inputs `(t, *e, b, M)` and a state; a member has its own, the same in any ensemble."""
    ids = member_ids(ensemble, members)
    with default_dtype(dtype), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        cell = case.make(ensemble=ensemble, members=members)
        inputs = 0.7 * Stream(5, "inputs").normal((t, b, M), members=ids)
        # positive, so that rectified units start open
        h0 = 0.5 * Stream(5, "h0").normal((b, N), members=ids).abs()
    return Setup(cell, inputs.movedim(-3, 0), h0)


def softplus() -> Activation:
    """No derivative is given: all are derived."""
    return Activation(lambda x: torch.log1p(torch.exp(x)) - 0.7, name="softplus")


def steep_tanh() -> Activation:
    """A trainable steepness for all units, and a trainable height for each."""
    return Activation(
        lambda x, a, c: c * torch.tanh(a * x),
        lambda x, a, c: c * a * sech2(a * x),
        parameters={"a": nn.Parameter(torch.tensor(1.3)), "c": nn.Parameter(torch.linspace(0.7, 1.2, N))},
        name="steep_tanh",
    )


def soft_sign() -> Activation:
    """The sign, with a trainable surrogate slope."""
    return Activation(
        lambda x, g: torch.sign(x),
        lambda x, g: sech2(g * x),
        parameters={"g": nn.Parameter(torch.tensor(0.8))},
        surrogate=True,
        name="soft_sign",
    )


class Leaky(Cell):
    """A user's cell with only `step`."""

    def __init__(self, **kw: Any) -> None:
        super().__init__(M, N, kw["ensemble"])
        self.W, self.V = (nn.Parameter(w) for w in _weights(**kw))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return 0.6 * h + 0.5 * torch.tanh(h @ self.W.mT + x @ self.V.mT)


class Written(Leaky):
    """A user's cell with its own `pushforward`."""

    def pushforward(self, x: Tensor, h: Tensor, Q: Tensor) -> tuple[Tensor, Tensor]:
        a = h @ self.W.mT + x @ self.V.mT
        W = self.W.unsqueeze(-3)
        return 0.6 * h + 0.5 * torch.tanh(a), 0.6 * Q + 0.5 * sech2(a).unsqueeze(-1) * (W @ Q)


def _weights(ensemble: tuple[int, ...], members: int | Tensor | None) -> tuple[Tensor, Tensor]:
    ids = member_ids(ensemble, members)
    return orthogonal(1.2)(N, Stream(1, "W"), ids), Stream(1, "V").normal((N, M), members=ids)


def function(**kw: Any) -> Cell:
    """An arbitrary function with closed-over tensors, of which one is trained."""
    W, V = _weights(**kw)
    W.requires_grad_()
    return as_cell(lambda x, h: torch.sin(h @ W.mT) * (1.5 + torch.cos(h)) + x @ V.mT)


def flow(method: str) -> Callable[..., Cell]:
    """A neural ODE with closed-over tensors, of which one is trained; a unit of time is a step."""

    def make(**kw: Any) -> Cell:
        W, V = _weights(**kw)
        W.requires_grad_()
        return Flow(lambda x, h: torch.tanh(h @ W.mT + x @ V.mT) - 0.8 * h, dt=1.0, method=method)

    return make


def rectified(kind: type[RateCell | ElmanCell], bias: str) -> Callable[..., Cell]:
    """All units stay open but the last, which stays shut: one exponent is -inf."""

    def make(**kw: Any) -> Cell:
        cell = kind(M, N, weights="orthogonal", gain=0.5, activation="relu", **kw)
        with torch.no_grad():
            cell.weight_ih.mul_(0.2)
            getattr(cell, bias).copy_(torch.tensor([3.0, 3.0, 3.0, -30.0]))
        return cell

    return make


def rate(**settings: Any) -> Callable[..., Cell]:
    return lambda **kw: RateCell(M, N, **{"weights": "orthogonal", "gain": 1.2, **settings}, **kw)


def elman(**settings: Any) -> Callable[..., Cell]:
    return lambda **kw: ElmanCell(M, N, **{"weights": "orthogonal", "gain": 1.2, **settings}, **kw)


CASES = [
    Case("rate-tanh", rate()),
    Case("rate-relu", rectified(RateCell, "bias"), rank=N - 1),
    Case("rate-linear", rate(activation="linear", weights="gaussian", bias=False)),
    Case("rate-user", rate(activation=softplus())),
    Case("rate-trainable", lambda **kw: rate(activation=steep_tanh())(**kw)),
    Case("rate-surrogate", lambda **kw: rate(activation=soft_sign())(**kw)),
    Case("elman-tanh", elman(weights="uniform")),
    Case("elman-relu", rectified(ElmanCell, "bias_ih"), rank=N - 1),
    Case("elman-linear", elman(activation="linear")),
    Case("elman-user", elman(activation=softplus(), bias=False)),
    Case("elman-trainable", lambda **kw: elman(activation=steep_tanh())(**kw)),
    Case("elman-surrogate", lambda **kw: elman(activation=soft_sign())(**kw)),
    Case("user-step", Leaky),
    Case("user-pushforward", Written),
    Case("function", function),
    Case("flow-rk4", flow("rk4")),
    Case("flow-dopri5", flow("dopri5")),
    Case("torch-RNNCell", lambda **kw: as_cell(nn.RNNCell(M, N)), ensembles=False),
    Case("torch-RNN", lambda **kw: as_cell(nn.RNN(M, N, nonlinearity="tanh")), ensembles=False),
    Case("torch-GRUCell", lambda **kw: as_cell(nn.GRUCell(M, N)), ensembles=False),
]

ENSEMBLES: list[tuple[int, ...]] = [(), (3,), (2, 3)]


def every(*, ensembles: bool = True, only_full_rank: bool = False) -> pytest.MarkDecorator:
    """Run a test with `case` and `ensemble` for all that there are."""
    return pytest.mark.parametrize(
        ("case", "ensemble"),
        [
            pytest.param(case, e, id=f"{case.name}-{'x'.join(map(str, e)) or 'one'}")
            for case in CASES
            for e in (ENSEMBLES if case.ensembles else ENSEMBLES[:1])
            if (ensembles or not e) and (case.rank == N or not only_full_rank)
        ],
    )
