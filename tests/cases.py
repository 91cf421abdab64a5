"""One catalogue of cells: every line of `CASES` is tested everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lyaptorch import (
    Activation,
    BinaryCell,
    Cell,
    ElmanCell,
    Flow,
    GRUCell,
    LeakyRateCell,
    LIFCell,
    LSTMCell,
    RateCell,
    ResidualCell,
    as_cell,
    residuals,
)
from lyaptorch._random import Stream, ids_of
from lyaptorch.cells import (
    AdaptiveLIFCell,
    CoRNNCell,
    DeltaCell,
    LRUCell,
    MinGRUCell,
    S4DCell,
    SelectiveSSMCell,
    Stacked,
    URLSTMCell,
)
from lyaptorch.cells.activation import sech2, tanh
from lyaptorch.cells.cell import FormCell
from lyaptorch.cells.form import Form, Residual
from lyaptorch.cells.surrogates import fast_sigmoid
from lyaptorch.cells.weights import orthogonal

M, N = 2, 4
"""Input and state size of every case."""


class Case(NamedTuple):
    """A cell by name: `make(ensemble=..., member_ids=...)` in the default dtype.

    `rank`: how many exponents stay finite; less than N where units of the cell die.
    """

    name: str
    make: Callable[..., Cell]
    ensembles: bool = True
    rank: int = N

    def __str__(self) -> str:
        return self.name


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
    ids = ids_of(ensemble, members)
    with default_dtype(dtype), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        cell = case.make(ensemble=ensemble, member_ids=members)
        inputs = 0.7 * Stream(5, "inputs").normal((t, b, M), member_ids=ids)
        # positive, so that rectified units start open
        h0 = 0.5 * Stream(5, "h0").normal((b, N), member_ids=ids).abs()
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


class Bypassed(FormCell):
    """A residual Form with everything trained: A, c, the weights, and what its activations hold."""

    def __init__(
        self, kind: Literal["diagonal", "blocks", "dense"], *activations: Activation | None, **kw: Any
    ) -> None:
        super().__init__(M, N, kw["ensemble"])
        self.weight_hh, self.weight_ih = (nn.Parameter(w) for w in _weights(**kw))
        ids = ids_of(kw["ensemble"], kw["member_ids"])
        sizes = {"diagonal": (N,), "blocks": (N // 2, 2, 2), "dense": (N, N)}
        self.matrix = nn.Parameter(0.6 * Stream(2, "A").normal(sizes[kind], member_ids=ids))
        self.coupling = nn.Parameter(0.2 + Stream(3, "c").uniform((N,), member_ids=ids))
        self.kind, self.activations = kind, nn.ModuleList(f for f in activations if f is not None)
        self.given = activations

    def form(self) -> Form:
        inner, outer, phi = self.given
        residual = Residual(self.matrix, self.kind, phi)
        return Form(self.weight_hh, self.weight_ih, (), inner, outer, residual, self.coupling)


def bypassed(
    kind: Literal["diagonal", "blocks", "dense"],
    inner: Callable[[], Activation] | None = None,
    outer: Callable[[], Activation] | None = None,
    phi: Callable[[], Activation] | None = None,
) -> Callable[..., Cell]:
    return lambda **kw: Bypassed(kind, *(f and f() for f in (inner, outer, phi)), **kw)


def _weights(ensemble: tuple[int, ...], member_ids: int | Tensor | None) -> tuple[Tensor, Tensor]:
    ids = ids_of(ensemble, member_ids)
    return orthogonal(1.2)(N, Stream(1, "W"), ids), Stream(1, "V").normal((N, M), member_ids=ids)


def function(**kw: Any) -> Cell:
    """An arbitrary function with closed-over tensors, of which one is trained."""
    W, V = _weights(**kw)
    W.requires_grad_()
    return as_cell(lambda x, h: torch.sin(h @ W.mT) * (1.5 + torch.cos(h)) + x @ V.mT)


def stacked(**kw: Any) -> Cell:
    """A gated layer below, of which the upper one reads h, and an Elman layer above."""
    return Stacked([LSTMCell(M, 1, gain=2.0, **kw), ElmanCell(1, N - 2, weights="orthogonal", **kw)])


def adaptive(**kw: Any) -> Cell:
    """A spiking neuron with three variables below, which a rate unit reads."""
    neuron = AdaptiveLIFCell(M, 1, threshold=0.3, reset_grad="full", surrogate=fast_sigmoid(2.0), **kw)
    return Stacked([neuron, RateCell(3, 1, **kw)])


def parts(**kw: Any) -> Cell:
    """A function whose state is a pair."""
    inside = function(**kw)

    def step(x: Tensor, s: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        after = inside.step(x, torch.cat(s, -1))
        return after[..., :1], after[..., 1:]

    return as_cell(step, state=(torch.zeros(1, 1), torch.zeros(1, N - 1)))


def linear(**kw: Any) -> Cell:
    """A complex mode below, gated units that read its two numbers, and a selective state space."""
    return Stacked([LRUCell(M, 1, **kw), MinGRUCell(2, 1, **kw), SelectiveSSMCell(1, 1, N - 3, **kw)])


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


def spiking(**settings: Any) -> Callable[..., Cell]:
    settings = {"threshold": 0.3, "surrogate": fast_sigmoid(2.0), **settings}
    return lambda **kw: LIFCell(M, N // 2, **settings, **kw)


def wcrnn(**settings: Any) -> Callable[..., Cell]:
    turn = residuals.rotation(0.7) @ residuals.decay(torch.linspace(0.7, 0.9, N))
    return lambda **kw: ResidualCell(M, N, **{"residual": turn, "coupling": 0.3, **settings}, **kw)


def coupled(**kw: Any) -> Cell:
    """One trained coupling for each member, of which the weights of the form are computed."""
    return wcrnn(kind="B", coupling=nn.Parameter(torch.full(kw["ensemble"], 0.4)))(**kw)


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
    Case("lstm", lambda **kw: LSTMCell(M, N // 2, gain=2.0, **kw)),
    Case("gru", lambda **kw: GRUCell(M, N, weights="orthogonal", **kw)),
    Case("residual-diagonal", bypassed("diagonal", outer=tanh)),
    Case("residual-blocks", bypassed("blocks", outer=tanh)),
    Case("residual-dense", bypassed("dense", inner=tanh)),
    Case("residual-phi", bypassed("blocks", outer=tanh, phi=tanh)),
    Case("residual-linear", bypassed("diagonal")),
    Case("residual-trainable", bypassed("dense", inner=softplus, outer=steep_tanh, phi=steep_tanh)),
    Case("binary", lambda **kw: BinaryCell(M, N, weights="orthogonal", sharpness=0.8, **kw)),
    # a spike takes a dimension away where its reset is detached: here there is none
    Case("lif-detach", spiking(reset_grad="detach", threshold=3.0)),
    Case("lif-full", spiking(reset_grad="full")),
    Case("lif-ignore", spiking(reset_grad="ignore")),
    Case("lif-subtract", spiking(reset="subtract", reset_grad="detach", order="simultaneous", bias=True)),
    Case("wcrnn-linear", wcrnn(kind="linear")),
    Case("wcrnn-A", wcrnn(kind="A")),
    Case("wcrnn-B", wcrnn(kind="B")),
    Case("wcrnn-coupling-trained", coupled),
    Case("stacked", stacked),
    Case("adaptive-lif", adaptive),
    Case("ur-lstm", lambda **kw: URLSTMCell(M, N // 2, gain=2.0, **kw)),
    Case("cornn", lambda **kw: CoRNNCell(M, N // 2, dt=0.5, **kw)),
    Case("s4d", lambda **kw: S4DCell(M, 1, N // 2, **kw)),
    Case("linear", linear),
    Case("delta", lambda **kw: DeltaCell(M, 1, N // 2, 2, **kw)),
    Case("leaky", lambda **kw: LeakyRateCell(M, N, leak=torch.linspace(0.3, 0.9, N), gain=1.5, **kw)),
    Case("user-step", Leaky),
    Case("user-pushforward", Written),
    Case("function", function),
    Case("flow-rk4", flow("rk4")),
    Case("flow-dopri5", flow("dopri5")),
    Case("torch-RNNCell", lambda **kw: as_cell(nn.RNNCell(M, N)), ensembles=False),
    Case("torch-RNN", lambda **kw: as_cell(nn.RNN(M, N, nonlinearity="tanh")), ensembles=False),
    Case("torch-GRUCell", lambda **kw: as_cell(nn.GRUCell(M, N)), ensembles=False),
    Case("torch-LSTM", lambda **kw: as_cell(nn.LSTM(M, N // 4, num_layers=2)), ensembles=False),
    Case("function-parts", parts),
]

ALONE: tuple[int, ...] = ()
ROW, GRID = (3,), (2, 3)
"""Members in one dimension are asked of growth and its gradient; in two, of everything."""


def every(*, ensembles: bool = True) -> pytest.MarkDecorator:
    """Run a test with `case` and `ensemble` for all that there are."""
    return _pairs(("case", "ensemble"), [(e,) for e in (ALONE, GRID) if ensembles or not e])


def across(name: str, values: dict[tuple[int, ...], Sequence[Any]]) -> pytest.MarkDecorator:
    """Run a test with `case`, and with `ensemble` and `name` for the values of each ensemble.

    A case that has no ensembles takes all values alone.
    """
    pairs = [(e, value) for e, given in values.items() for value in given]
    return _pairs(("case", "ensemble", name), pairs)


@cache
def served(case: Case) -> bool:
    """Whether there are kernels that may run its cell."""
    cell = setup(case).cell
    return cell.form() is not None or cell.gate_form() is not None


def _pairs(names: tuple[str, ...], pairs: list[tuple[Any, ...]]) -> pytest.MarkDecorator:
    found: dict[str, Any] = {}
    for case in CASES:
        marks = [] if served(case) else [pytest.mark.formless]
        for e, *rest in pairs:
            e = e if case.ensembles else ALONE
            shown = [
                case.name,
                "x".join(map(str, e)) or "one",
                *(str(v).removeprefix("torch.") for v in rest),
            ]
            found.setdefault("-".join(shown), pytest.param(case, e, *rest, marks=marks))
    return pytest.mark.parametrize(names, list(found.values()), ids=list(found))
