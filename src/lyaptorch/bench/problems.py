"""Problems that are timed: each by the loop that everybody writes, by torch and by the kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch.bench import epochs, spectra
from lyaptorch.bench.rows import Kind, Row, Run
from lyaptorch.cells import Cell, ElmanCell, LIFCell, RateCell, ResidualCell, random_frame, unroll
from lyaptorch.cells.residuals import decay
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Batch, last_step
from lyaptorch.training import Model, Readout

COUPLING, DECAY, CLASSES = 0.1, 0.99, 10
"""Of the residual networks."""


def runs(row: Row, dtype: torch.dtype, seed: int = 1) -> dict[str, Run]:
    """For each method that applies, a call that does the row once and returns what must come out alike.

    A gradient of W of the first network where there is no training, the exponents where there is no gradient,
    else the loss of the step. Of a row of whole epochs the call takes their number.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        made: dict[Kind, Callable[[Row, int], dict[str, Run]]] = {
            "exponents": _exponents,
            "spectrum": spectra.all_of_one,
            "segments": spectra.pieces,
            "BPTT": _elman,
            "residual": _residual,
            "spiking": _spiking,
            **dict.fromkeys(("train", "GRU", "LSTM"), epochs.trained),
            "floss": epochs.flossed,
        }
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

    def training(network: nn.Module, states: Callable[[], Tensor], *, whole: bool = False) -> Run:
        # without the scale of 1 / sqrt(n), logits of n units would grow with n
        shape = (classes or 1, looped.state_size)
        drawn = Stream(DEFAULT_SEED, "readout").normal(shape, member_ids=0)
        readout = Readout(shape[1], shape[0], offset=0.0)
        with torch.no_grad():
            readout.weight.copy_(drawn / shape[1] ** 0.5)
        model = Model(fused, readout, loss="cross_entropy" if classes else "binary_cross_entropy")

        # fused: the fastest that torch has, so that no method is slowed by its optimiser
        optimiser = torch.optim.Adam([*network.parameters(), *readout.parameters()], fused=True)

        def step() -> Tensor:
            optimiser.zero_grad()
            if whole:
                loss, _ = model.loss(batch)
            else:
                h = states()[-1] if classes else states()
                loss = criterion(readout(h), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return loss.detach()

        return step

    # as `Model` takes them: states, readout, loss and the way back in one call
    answers = targets.to(x.dtype).unsqueeze(-1)
    everywhere = torch.ones(len(x), x.shape[1], dtype=torch.bool)
    batch = last_step(x, answers) if classes else Batch(x, targets, everywhere)
    made = {
        "loop": training(looped, lambda: torch.stack(loop(looped, h0))),
        "torch": training(plain, lambda: _without_kernels(plain, x, h0, first)),
    }
    if rnn is not None:
        made["rnn"] = training(rnn, lambda: rnn(x)[0])
    return {**made, "fused": training(fused, lambda: unroll(fused, x, h0, first=first), whole=True)}


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
