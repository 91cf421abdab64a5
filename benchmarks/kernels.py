"""Time the fused kernels against the loops that everybody writes, and against this core's limit.

Interleaved medians of forward + backward in one run, float32, one thread: `python benchmarks/kernels.py`.
Multiplications and additions are counted per step as 2n^2k + 2nk^2 + k^3/3 + 2n^2 forwards and
4n^2k + 3nk^2 + 4n^2 backwards; the limit is what the core reaches on registers alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lyaptorch as lt
from lyaptorch.cells import unroll
from lyaptorch.kernels.library import open_library

SIZES = [
    (80, 75, 55, 1),
    (80, 16, 300, 1),
    (32, 32, 300, 1),
    (128, 32, 1000, 1),
    (512, 64, 200, 1),
    (80, 75, 100, 20),
]
"""n, k, t and networks."""
Run = Callable[[], object]


def limit() -> float:
    """Floating-point operations a second on registers alone."""
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        done = open_library().lyap_peak(0, 2_000_000)
        rates.append(done / (time.perf_counter() - start))
    return max(rates)


def operations(n: int, k: int) -> float:
    return (2 * n * n * k + 2 * n * k * k + k**3 / 3 + 2 * n * n) + (
        4 * n * n * k + 3 * n * k * k + 4 * n * n
    )


def plain_loop(W: Tensor, V: Tensor, b: Tensor, inputs: Tensor, frame: Tensor) -> Tensor:
    """One network: Jacobian products, torch.linalg.qr and autograd, step by step."""
    h, Q, total = torch.zeros(len(W)), frame, torch.zeros(frame.shape[1])
    for x in inputs[:, 0]:
        slope = 1 - torch.tanh(h) ** 2
        Q, R = torch.linalg.qr(W @ (slope.unsqueeze(-1) * Q))
        total = total + R.diagonal().abs().log()
        h = W @ torch.tanh(h) + V @ x + b
    return total / len(inputs)


def scans(n: int, k: int, t: int, networks: int) -> dict[str, Run]:
    """Gradients of the flossing loss: the plain loop of one network, and `backend="cpu"` for all."""
    ensemble = (networks,) if networks > 1 else ()
    cell, one = lt.RateCell(1, n, ensemble=ensemble), lt.RateCell(1, n)
    inputs = (torch.rand(t, 1, 1, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    frame = torch.linalg.qr(torch.randn(n, k, generator=torch.Generator().manual_seed(2)))[0]

    def plain() -> Tensor:
        weights = [one.weight_hh, one.weight_ih, one.bias]
        return torch.autograd.grad(plain_loop(*weights, inputs, frame).square().mean(), weights)[0]

    def scan(backend: str) -> Run:
        def run() -> Tensor:
            spectrum = lt.lyapunov_spectrum(cell, inputs, k=k, frame=frame, backend=backend)
            loss = spectrum.exponents.square().mean(-1).sum()
            return torch.autograd.grad(loss, list(cell.parameters()))[0]

        return run

    return {"loop": plain, "torch": scan("torch"), "fused": scan("cpu")}


def training(n: int = 80, b: int = 16, t: int = 300) -> dict[str, Run]:
    """One step of training with Adam: a Python loop, torch.nn.RNN and `unroll`."""
    x, y = torch.randn(t, b, 2), (torch.rand(t, b, 1) < 0.5).float()

    def step(states: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Run:
        readout = nn.Linear(n, 1)
        optimiser = torch.optim.Adam([*parameters, *readout.parameters()], fused=True)

        def run() -> None:
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(readout(states()), y).backward()
            optimiser.step()

        return run

    loop, fused, rnn = lt.ElmanCell(2, n), lt.ElmanCell(2, n), nn.RNN(2, n)

    def python_loop() -> Tensor:
        h, states = torch.zeros(b, n), []
        for u in x:
            h = torch.tanh(u @ loop.weight_ih.T + loop.bias_ih + h @ loop.weight_hh.T + loop.bias_hh)
            states.append(h)
        return torch.stack(states)

    return {
        "loop": step(python_loop, list(loop.parameters())),
        "torch": step(lambda: rnn(x)[0], list(rnn.parameters())),
        "fused": step(lambda: unroll(fused, x, torch.zeros(b, n)), list(fused.parameters())),
    }


def residual(n: int = 100, b: int = 128, t: int = 784) -> dict[str, Run]:
    """Backpropagation through a residual form from its last state: autograd step by step, and `unroll`."""
    turn = lt.residuals.rotation(0.2244) @ lt.residuals.decay(0.99)
    cell, x = lt.ResidualCell(1, n, residual=turn, coupling=0.03), torch.rand(t, b, 1)
    parameters = list(cell.parameters())

    def run(plain: bool) -> Run:
        def states() -> Tensor:
            last = unroll(cell, x, torch.zeros(b, n), plain=plain)[-1]
            return torch.autograd.grad(last.square().mean(), parameters)[0]

        return states

    return {"loop": run(True), "fused": run(False)}


def medians(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def row(name: str, times: dict[str, float], share: float | None) -> str:
    loop, torch_, fused = (times[key] * 1e3 for key in ("loop", "torch", "fused"))
    part = "" if share is None else f"{share:10.0%}"
    return (
        f"{name:26s}{loop:10.2f}{torch_:10.2f}{fused:10.3f}{loop / fused:10.1f}x{torch_ / fused:8.1f}x{part}"
    )


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    where = lt.kernels.available()["cpu"].detail
    print(f"{where}, limit {limit() / 1e9:.0f} GFLOP/s, median of {rounds}, ms per network")
    print(f"{'':26s}{'loop':>10s}{'torch':>10s}{'fused':>10s}{'loop/':>11s}{'torch/':>9s}{'of limit':>10s}")
    for n, k, t, networks in SIZES:
        times = medians(scans(n, k, t, networks), rounds)
        times["fused"], times["torch"] = times["fused"] / networks, times["torch"] / networks
        share = operations(n, k) * t / times["fused"] / limit()
        many = f", {networks} networks" if networks > 1 else ""
        print(row(f"n {n}, k {k}, t {t}{many}", times, share), flush=True)
    print(row("BPTT n 80, b 16, t 300", medians(training(), rounds), None))
    print('loop: autograd step by step; torch: backend="torch", and torch.nn.RNN for BPTT')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    main(parser.parse_args().rounds)
