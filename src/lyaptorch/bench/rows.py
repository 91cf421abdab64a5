"""What is timed: the same numbers by the loop that everybody writes, by torch and by the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from lyaptorch._random import Stream
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


def runs(row: Row, dtype: torch.dtype) -> dict[str, Run]:
    """For each method that applies, a call that does the row once and returns what must come out alike.

    A gradient of W of the first network where there is no training, else the loss of the step.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made = {"exponents": _exponents, "BPTT": _elman, "residual": _residual, "spiking": _spiking}
        return made[row.kind](row)
    finally:
        torch.set_default_dtype(before)


def _exponents(row: Row) -> dict[str, Run]:
    ensemble = (row.networks,) if row.networks > 1 else ()
    cell, one = RateCell(1, row.n, ensemble=ensemble), RateCell(1, row.n)
    inputs = Stream(1, "bench").bernoulli((row.steps, 1, 1), member_ids=0)
    frame = random_frame(row.n, row.k, Stream(2, "bench"), torch.tensor(0))

    def loop() -> Tensor:
        W, V, b = weights = list(one.parameters())
        h, Q, logs = inputs.new_zeros(row.n), frame, inputs.new_zeros(row.k)
        for x in inputs[:, 0]:
            slope = 1 - torch.tanh(h) ** 2
            Q, R = torch.linalg.qr(W @ (slope.unsqueeze(-1) * Q))
            logs = logs + R.diagonal().abs().log()
            h = W @ torch.tanh(h) + V @ x + b
        return torch.autograd.grad((logs / row.steps).square().mean(), weights)[0]

    def scan(backend: str) -> Run:
        def run() -> Tensor:
            spectrum = lyapunov_spectrum(cell, inputs, k=row.k, frame=frame, backend=backend)
            loss = spectrum.exponents.square().mean(-1).sum()
            return torch.autograd.grad(loss, list(cell.parameters()))[0][(0,) * len(ensemble)]

        return run

    return {"loop": loop, "torch": scan("torch"), "fused": scan("cpu")}


def _elman(row: Row) -> dict[str, Run]:
    """Binary cross-entropy of a readout of every state."""
    x = Stream(1, "bench").normal((row.steps, row.batch, 2), member_ids=0)
    y = Stream(2, "bench").bernoulli((row.steps, row.batch, 1), member_ids=0)
    zeros = x.new_zeros(row.batch, row.n)

    def training(cell: nn.Module, states: Callable[[], Tensor]) -> Run:
        weight, bias = _readout(row.n, 1)

        def loss() -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(states() @ weight.mT + bias, y)

        return _adam([*cell.parameters(), weight, bias], loss)

    looped, plain, fused = (ElmanCell(2, row.n) for _ in range(3))
    rnn = nn.RNN(2, row.n, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in fused.named_parameters():
            getattr(rnn, f"{name}_l0").copy_(weight)

    def loop() -> Tensor:
        h, states = zeros, []
        for u in x:
            h = torch.tanh(u @ looped.weight_ih.T + looped.bias_ih + h @ looped.weight_hh.T + looped.bias_hh)
            states.append(h)
        return torch.stack(states)

    return {
        "loop": training(looped, loop),
        "torch": training(plain, lambda: _without_kernels(plain, x, zeros)),
        "rnn": training(rnn, lambda: rnn(x)[0]),
        "fused": training(fused, lambda: unroll(fused, x, zeros)),
    }


def _residual(row: Row) -> dict[str, Run]:
    """Cross-entropy of a readout of the last state."""
    x = Stream(1, "bench").uniform((row.steps, row.batch, 1), member_ids=0)
    y = (CLASSES * Stream(2, "bench").uniform((row.batch,), member_ids=0)).long()
    zeros = x.new_zeros(row.batch, row.n)

    def training(cell: Cell, last: Callable[[], Tensor]) -> Run:
        weight, bias = _readout(row.n, CLASSES)

        def loss() -> Tensor:
            return nn.functional.cross_entropy(last() @ weight.mT + bias, y)

        return _adam([*cell.parameters(), weight, bias], loss)

    looped, plain, fused = (
        ResidualCell(1, row.n, residual=decay(DECAY), coupling=COUPLING) for _ in range(3)
    )

    def loop() -> Tensor:
        h = zeros
        for u in x:
            a = h @ looped.weight_hh.T + u @ looped.weight_ih.T + looped.bias
            h = looped.residual * h + COUPLING * torch.tanh(a)
        return h

    return {
        "loop": training(looped, loop),
        "torch": training(plain, lambda: _without_kernels(plain, x, zeros, row.steps - 1)[-1]),
        "fused": training(fused, lambda: unroll(fused, x, zeros, first=row.steps - 1)[-1]),
    }


def _spiking(row: Row) -> dict[str, Run]:
    """Cross-entropy of a readout of the last state."""
    x = Stream(1, "bench").normal((row.steps, row.batch, 2), member_ids=0)
    y = (CLASSES * Stream(2, "bench").uniform((row.batch,), member_ids=0)).long()
    zeros = x.new_zeros(row.batch, 2 * row.n)

    def training(cell: Cell, last: Callable[[], Tensor]) -> Run:
        weight, bias = _readout(2 * row.n, CLASSES)

        def loss() -> Tensor:
            return nn.functional.cross_entropy(last() @ weight.mT + bias, y)

        return _adam([*cell.parameters(), weight, bias], loss)

    looped, plain, fused = (LIFCell(2, row.n) for _ in range(3))
    alpha, beta = looped.decays()

    def loop() -> Tensor:
        U, I = torch.split(zeros, row.n, -1)  # noqa: E741
        for u in x:
            S = looped.activation(U - looped.threshold)
            I = alpha * I + S @ looped.weight_hh.T + u @ looped.weight_ih.T  # noqa: E741
            U = (beta * U + (1 - beta) * I) * (1 - S.detach())
        return torch.cat([U, I], -1)

    return {
        "loop": training(looped, loop),
        "torch": training(plain, lambda: _without_kernels(plain, x, zeros, row.steps - 1)[-1]),
        "fused": training(fused, lambda: unroll(fused, x, zeros, first=row.steps - 1)[-1]),
    }


def _readout(n: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    weight = Stream(3, "bench").normal((outputs, n), member_ids=0) / n**0.5
    return nn.Parameter(weight), nn.Parameter(weight.new_zeros(outputs))


def _adam(parameters: list[nn.Parameter], loss: Callable[[], Tensor]) -> Run:
    optimiser = torch.optim.Adam(parameters, fused=True)

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return value.detach()

    return step


def _without_kernels(cell: Cell, inputs: Tensor, h0: Tensor, first: int = 0) -> Tensor:
    before = os.environ.get("LYAPTORCH_KERNELS")
    os.environ["LYAPTORCH_KERNELS"] = "0"
    try:
        return unroll(cell, inputs, h0, first=first)
    finally:
        if before is None:
            del os.environ["LYAPTORCH_KERNELS"]
        else:
            os.environ["LYAPTORCH_KERNELS"] = before
