"""The same exponents and their gradient by what others offer, side by side.

Times the spectrum of one Elman network (all n exponents, float64) and the gradient of a flossing loss, by

- script: what public scripts do: the Jacobian as a matrix, `torch.linalg.qr`, autograd;
- clvlib: its PyTorch backend, if it is installed (`pip install clvlib tqdm numba`), with the same Jacobian;
- lyaptorch: `backend="torch"` and, where they are there, the compiled kernels.

Prints a table in Markdown, with the largest difference between exponents, and whether there is a gradient:

    python benchmarks/peers.py
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor

import lyaptorch as lt

Method = Callable[[lt.ElmanCell, Tensor, Tensor], Tensor]


def step(W: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The next state of y' = tanh(W y + x), and its Jacobian."""
    after = torch.tanh(W @ y + x)
    return after, (1 - after.square()).unsqueeze(-1) * W


def script(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
    """Step by step, with a matrix for the Jacobian."""
    Q = torch.eye(len(y), dtype=y.dtype)
    total = torch.zeros_like(y)
    for x in inputs:
        y, D = step(cell.weight_hh, x, y)
        Q, R = torch.linalg.qr(D @ Q)
        total = total + R.diagonal().abs().log()
    return total / len(inputs)


def clvlib(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
    """clvlib, whose functions get the number of the step as a time."""
    from clvlib.pytorch import lyap_exp_from_ic

    exponents: Tensor = lyap_exp_from_ic(
        lambda s, y: step(cell.weight_hh, inputs[int(s)], y)[0],
        lambda s, y: step(cell.weight_hh, inputs[int(s)], y)[1],
        y,
        torch.arange(len(inputs) + 1, dtype=y.dtype),
        stepper="discrete",
    )[0]
    return exponents


def lyaptorch(backend: str) -> Method:
    """This library, with one of its backends."""

    def run(cell: lt.ElmanCell, inputs: Tensor, y: Tensor) -> Tensor:
        frame = torch.eye(len(y), dtype=y.dtype)
        spec = lt.lyapunov_spectrum(cell, inputs.unsqueeze(1), h0=y[None], frame=frame, backend=backend)
        return spec.exponents[0]

    return run


def methods() -> dict[str, Method]:
    """What can be timed here, by name."""
    found: dict[str, Method] = {"script": script}
    if importlib.util.find_spec("clvlib") is not None:
        found[f"clvlib {version('clvlib')}"] = clvlib
    found["lyaptorch, torch"] = lyaptorch("torch")
    if lt.kernels.available()["cpu"].available:
        found["lyaptorch, compiled"] = lyaptorch("cpu")
    return found


def seconds(method: Method, cell: lt.ElmanCell, inputs: Tensor, y: Tensor, gradient: bool) -> float:
    """Processor time of one call, with or without the gradient by the recurrent weights."""
    start = time.process_time()
    with torch.set_grad_enabled(gradient):
        loss = lt.flossing_loss(method(cell, inputs, y)[None])
    if gradient:
        torch.autograd.grad(loss, cell.weight_hh)
    return time.process_time() - start


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    n, generator = options.n, torch.Generator().manual_seed(0)
    cell = lt.ElmanCell(n, n, gain=1.2)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(n))
        for bias in (cell.bias_hh, cell.bias_ih):
            if bias is not None:
                bias.zero_()
    inputs = torch.randn(options.steps, n, generator=generator)
    y = torch.randn(n, generator=generator)
    found = methods()
    expected = script(cell, inputs, y)
    slope = torch.autograd.grad(lt.flossing_loss(expected[None]), cell.weight_hh)[0]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in found}
    for _ in range(options.rounds):
        for name, method in found.items():
            for gradient in (False, True):
                times[name][gradient].append(seconds(method, cell, inputs, y, gradient))
    print("| method | exponents, ms | with gradient, ms | exponents differ by | gradients differ by |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, method in found.items():
        rates = method(cell, inputs, y)
        (bar,) = torch.autograd.grad(lt.flossing_loss(rates[None]), cell.weight_hh)
        forward, both = (1e3 * min(t) for t in times[name])
        errors = (rates - expected).abs().max(), (bar - slope).norm() / slope.norm()
        print(f"| {name} | {forward:.1f} | {both:.1f} | {errors[0]:.0e} | {errors[1]:.0e} |")
    print(f"\nn {n}, k {n}, t {options.steps}, float64; least processor time of {options.rounds} turns")


if __name__ == "__main__":
    main()
