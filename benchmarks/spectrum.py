"""Time the exponents and their gradient against the loop that everybody writes.

Interleaved medians of forward + backward in one run, one thread, float32: `python benchmarks/spectrum.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import lyaptorch as lt

N, K, T = 80, 75, 55


def plain_loop(W: Tensor, V: Tensor, b: Tensor, inputs: Tensor, frame: Tensor) -> Tensor:
    """One network: Jacobian products, torch.linalg.qr and autograd, step by step."""
    h, Q, total = torch.zeros(N), frame, torch.zeros(K)
    for x in inputs[:, 0]:
        slope = 1 - torch.tanh(h) ** 2
        Q, R = torch.linalg.qr(W @ (slope.unsqueeze(-1) * Q))
        total = total + R.diagonal().abs().log()
        h = W @ torch.tanh(h) + V @ x + b
    return total / T


def case(ensemble: tuple[int, ...], method: str) -> Callable[[], Tensor]:
    """A closure that computes the flossing gradient of all members once."""
    cell = lt.RateCell(1, N, ensemble=ensemble)
    inputs = (torch.rand(T, 1, 1, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    frame = torch.linalg.qr(torch.randn(N, K, generator=torch.Generator().manual_seed(2)))[0]
    parameters = [cell.weight_hh, cell.weight_ih, cell.bias]

    def run() -> Tensor:
        if method == "plain":
            exponents = plain_loop(*parameters, inputs, frame)
        else:
            exponents = lt.lyapunov_spectrum(cell, inputs, k=K, frame=frame, backend=method).exponents
        loss = exponents.square().mean(-1).sum()
        return torch.autograd.grad(loss, parameters)[0]

    return run


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    cases = {"plain loop, 1 network": (case((), "plain"), 1)}
    for backend in ("torch", "cpu"):
        if lt.kernels.available()[backend].available:
            cases[f"{backend} backend, 1 network"] = (case((), backend), 1)
            cases[f"{backend} backend, ensemble of 20"] = (case((20,), backend), 20)
    plain, scan = cases["plain loop, 1 network"][0](), cases["torch backend, 1 network"][0]()
    print(f"gradients agree to {((plain - scan).norm() / plain.norm()).item():.1e} (float32)")
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, (run, networks) in cases.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / networks)
    reference = statistics.median(times["plain loop, 1 network"])
    print(f"n {N}, k {K}, t {T}, forward + backward, per network, median of {rounds}:")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"  {name:28s} {median * 1e3:8.2f} ms   {reference / median:5.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
