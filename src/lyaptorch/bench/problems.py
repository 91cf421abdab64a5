"""Problems that are timed: each by the loop that everybody writes, by torch and by the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.cells import Cell, ElmanCell, LIFCell, RateCell, ResidualCell, random_frame, unroll
from lyaptorch.cells.residuals import decay
from lyaptorch.tangent import lyapunov_spectrum

METHODS = ("loop", "torch", "rnn", "fused")
"""A plain loop with autograd, `backend="torch"`, `torch.nn.RNN`, and the compiled kernels."""
COUPLING, DECAY, CLASSES = 0.1, 0.99, 10
"""Of the residual networks."""
Run: TypeAlias = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One problem, forwards and backwards.

    Attributes:
        kind: the gradient of a flossing loss ("exponents", a rate network), or a training step with Adam of
            an Elman network ("BPTT"), of a residual one ("residual") or of a spiking one ("spiking").
        n: state size.
        k: exponents.
        batch: trajectories.
        steps: t.
        networks: independent ones; times are per network.
        threads: of torch and of the kernels.
    """

    kind: Literal["exponents", "BPTT", "residual", "spiking"]
    n: int
    steps: int
    k: int = 0
    batch: int = 1
    networks: int = 1
    threads: int = 1

    @property
    def name(self) -> str:
        """What the row is called in tables."""
        size = f"k {self.k}" if self.kind == "exponents" else f"batch {self.batch}"
        many = f", {self.networks} networks" if self.networks > 1 else ""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{self.kind} n {self.n}, {size}, t {self.steps}{many}{threads}"

    @property
    def operations(self) -> float:
        """Multiplications and additions of one network, of the products and factorisations alone.

        Of exponents 2n^2k + 2nk^2 + k^3/3 + 2n^2 a step forwards and 4n^2k + 3nk^2 + 4n^2 backwards; of a
        trajectory that is trained on 2n^2 and 4n^2.
        """
        n, k = self.n, self.k
        if self.kind == "exponents":
            # forwards: D Q; Q^T Q, its Cholesky factor and the triangular solve; W f(h). Backwards: the
            # cotangents of W and of Q each cost a product as large as D Q
            forwards = 2 * n * n * k + 2 * n * k * k + k**3 / 3 + 2 * n * n
            return self.steps * (forwards + 4 * n * n * k + 3 * n * k * k + 4 * n * n)
        return self.steps * self.batch * 6.0 * n * n


ROWS = (
    Row("exponents", 80, 55, k=75),
    Row("exponents", 80, 300, k=16),
    Row("exponents", 32, 300, k=32),
    Row("exponents", 128, 1000, k=32),
    Row("exponents", 512, 200, k=64),
    Row("exponents", 80, 100, k=75, networks=20, threads=2),
    Row("BPTT", 80, 300, batch=16),
    Row("residual", 100, 784, batch=128),
    Row("residual", 100, 784, batch=128, threads=2),
    Row("spiking", 80, 100, batch=16),
)


def runs(row: Row, dtype: torch.dtype, seed: int = 1) -> dict[str, Run]:
    """For each method that applies, a call that does the row once and returns what must come out alike.

    A gradient of W of the first network where there is no training, else the loss of the step.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made = {"exponents": _exponents, "BPTT": _elman, "residual": _residual, "spiking": _spiking}
        return made[row.kind](row, seed)
    finally:
        torch.set_default_dtype(before)


def _exponents(row: Row, seed: int) -> dict[str, Run]:
    ensemble = (row.networks,) if row.networks > 1 else ()
    cell, one = RateCell(1, row.n, ensemble=ensemble), RateCell(1, row.n)
    inputs = Stream(seed, "inputs").bernoulli((row.steps, 1, 1), member_ids=0)
    frame = random_frame(row.n, row.k, Stream(seed, "frame"), torch.tensor(0))

    def loop() -> Tensor:
        W, V, b = weights = list(one.parameters())
        h, Q, logs = inputs.new_zeros(row.n), frame, inputs.new_zeros(row.k)
        for x in inputs[:, 0]:
            # D = W diag(f'(h)) of h' = W f(h) + V x + b, and f' = 1 - tanh^2; diag(..) Q scales the rows of Q
            slope = 1 - torch.tanh(h) ** 2
            Q, R = torch.linalg.qr(W @ (slope.unsqueeze(-1) * Q))
            logs = logs + R.diagonal().abs().log()
            h = W @ torch.tanh(h) + V @ x + b
        return torch.autograd.grad((logs / row.steps).square().mean(), weights)[0]

    def scan(backend: str) -> Run:
        def run() -> Tensor:
            # a given frame: drawing one would be timed, too
            spectrum = lyapunov_spectrum(cell, inputs, k=row.k, frame=frame, backend=backend)
            loss = spectrum.exponents.square().mean(-1).sum()
            return torch.autograd.grad(loss, list(cell.parameters()))[0][(0,) * len(ensemble)]

        return run

    return {"loop": loop, "torch": scan("torch"), "fused": scan("cpu")}


def _elman(row: Row, seed: int) -> dict[str, Run]:
    """Binary cross-entropy of a readout of every state."""
    x, _ = _drawn(row, seed, channels=2)
    y = Stream(seed, "targets").bernoulli((row.steps, row.batch, 1), member_ids=0)
    # by way of meta: torch would draw its weights from the global generator
    rnn = nn.RNN(2, row.n, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in ElmanCell(2, row.n).named_parameters():
            getattr(rnn, f"{name}_l0").copy_(weight)

    def loop(cell: ElmanCell, h: Tensor) -> list[Tensor]:
        states = []
        for u in x:
            h = torch.tanh(u @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh)
            states.append(h)
        return states

    return _trainings(lambda: ElmanCell(2, row.n), loop, x, y, rnn=rnn)


def _residual(row: Row, seed: int) -> dict[str, Run]:
    """Cross-entropy of a readout of the last state."""
    x, y = _drawn(row, seed, channels=1)

    def loop(cell: ResidualCell, h: Tensor) -> list[Tensor]:
        for u in x:
            a = h @ cell.weight_hh.T + u @ cell.weight_ih.T + cell.bias
            h = cell.residual * h + COUPLING * torch.tanh(a)
        return [h]

    def make() -> ResidualCell:
        return ResidualCell(1, row.n, residual=decay(DECAY), coupling=COUPLING)

    return _trainings(make, loop, x, y, CLASSES)


def _spiking(row: Row, seed: int) -> dict[str, Run]:
    """Cross-entropy of a readout of the last state."""
    x, y = _drawn(row, seed, channels=2)
    alpha, beta = LIFCell(2, row.n).decays()

    def loop(cell: LIFCell, h: Tensor) -> list[Tensor]:
        U, I = torch.split(h, row.n, -1)  # noqa: E741
        for u in x:
            S = cell.activation(U - cell.threshold)
            I = alpha * I + S @ cell.weight_hh.T + u @ cell.weight_ih.T  # noqa: E741
            # the reset passes no gradient, as in the cell
            U = (beta * U + (1 - beta) * I) * (1 - S.detach())
        return [torch.cat([U, I], -1)]

    return _trainings(lambda: LIFCell(2, row.n), loop, x, y, CLASSES)


def _drawn(row: Row, seed: int, channels: int) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    x = Stream(seed, "inputs").normal((row.steps, row.batch, channels), member_ids=0)
    return x, (CLASSES * Stream(seed, "targets").uniform((row.batch,), member_ids=0)).long()


C = TypeVar("C", bound=Cell)


def _trainings(
    make: Callable[[], C],
    loop: Callable[[C, Tensor], list[Tensor]],
    x: Tensor,
    targets: Tensor,
    classes: int = 0,
    rnn: nn.RNN | None = None,
) -> dict[str, Run]:
    """Steps of training a cell with a readout of its last state as `classes`, or of all states without."""
    looped, plain, fused = (make() for _ in range(3))
    h0 = x.new_zeros(x.shape[1], looped.state_size)
    first = len(x) - 1 if classes else 0
    losses = nn.functional
    criterion = losses.cross_entropy if classes else losses.binary_cross_entropy_with_logits

    def training(network: nn.Module, states: Callable[[], Tensor]) -> Run:
        # without the scale of 1 / sqrt(n), logits of n units would grow with n
        shape = (classes or 1, looped.state_size)
        drawn = Stream(DEFAULT_SEED, "readout").normal(shape, member_ids=0)
        weight, bias = nn.Parameter(drawn / shape[1] ** 0.5), nn.Parameter(drawn.new_zeros(shape[0]))

        # fused: the fastest that torch has, so that no method is slowed by its optimiser
        optimiser = torch.optim.Adam([*network.parameters(), weight, bias], fused=True)

        def step() -> Tensor:
            optimiser.zero_grad()
            h = states()[-1] if classes else states()
            loss = criterion(h @ weight.mT + bias, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return loss.detach()

        return step

    made = {
        "loop": training(looped, lambda: torch.stack(loop(looped, h0))),
        "torch": training(plain, lambda: _without_kernels(plain, x, h0, first)),
    }
    if rnn is not None:
        made["rnn"] = training(rnn, lambda: rnn(x)[0])
    return {**made, "fused": training(fused, lambda: unroll(fused, x, h0, first=first))}


def _without_kernels(cell: Cell, inputs: Tensor, h0: Tensor, first: int) -> Tensor:
    before = os.environ.get("LYAPTORCH_KERNELS")
    os.environ["LYAPTORCH_KERNELS"] = "0"
    try:
        return unroll(cell, inputs, h0, first=first)
    finally:
        if before is None:
            del os.environ["LYAPTORCH_KERNELS"]
        else:
            os.environ["LYAPTORCH_KERNELS"] = before
