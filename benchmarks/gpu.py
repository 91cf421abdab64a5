"""What one GPU does: six pieces of work, each against the fp32 and bandwidth limits measured beside it.

    python benchmarks/gpu.py            # on a GPU, under 8 minutes; needs torch and triton alone
    TRITON_INTERPRET=1 python benchmarks/gpu.py --smoke   # tiny sizes, anywhere: does it run?

A step is captured in a CUDA graph where that can be done, and replayed; a row says which it was.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import lyaptorch as lt
from lyaptorch.cells import AnyForm, unroll
from lyaptorch.cells.unroll import use
from lyaptorch.training.optim import MemberOptimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Everywhere(lt.kernels.FusedRecurrence):
    """Triton's recurrence, interpreted too."""

    def serves(self, form: AnyForm, h: Tensor) -> bool:
        """Whether the kernels can run `form`, wherever h lies."""
        return lt.kernels.refusal("triton", form, h) is None


@dataclass(frozen=True)
class Size:
    """How large the work is: networks, units, trajectories, steps, exponents, epochs, steps of an episode."""

    many: int = 600
    flossed: int = 528
    residual: int = 24
    figure: int = 168
    n: int = 80
    wide: int = 100
    b: int = 16
    digits: int = 128
    t: int = 300
    pixels: int = 784
    k: int = 75
    floss: int = 55
    uncounted: int = 16
    epochs: int = 10_000
    episode: int = 500


SMOKE = Size(2, 2, 2, 3, 4, 4, 2, 2, 4, 3, 3, 3, 1, 3, 2)


@dataclass(frozen=True)
class Row:
    """A piece of work.

    Attributes:
        name: what it is.
        demanded: milliseconds it may take.
        seconds: what it took.
        flops: floating-point operations of its products with weights and frames, padding not counted.
        bytes: the least it must move: states, cotangents and frames, each written and read once.
        how: "graph" or "launches".
    """

    name: str
    demanded: float
    seconds: float
    flops: float
    bytes: float
    how: str


def ready() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def capture(step: Callable[[], object]) -> tuple[Callable[[], object], str]:
    """A function that replays `step`, and how: as a graph, or by launching it again where that fails."""
    if DEVICE == "cpu":
        return step, "launches"
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        print("not captured:", str(error).splitlines()[0])
        ready()
        return step, "launches"
    return graph.replay, "graph"


def median(run: Callable[[], object], rounds: int) -> float:
    """Seconds of a call, the median of several after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        ready()
        start = time.perf_counter()
        run()
        ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def limits(rounds: int) -> tuple[float, float]:
    """Measured: fp32 operations a second of a large product, bytes a second of a large copy."""
    torch.backends.cuda.matmul.allow_tf32 = False
    n, m = (8192, 1 << 28) if DEVICE == "cuda" else (256, 1 << 18)
    a, x = torch.randn(n, n, device=DEVICE), torch.empty(m, device=DEVICE)
    y = torch.empty_like(x)
    return 2 * n**3 / median(lambda: a @ a, rounds), 8 * m / median(lambda: y.copy_(x), rounds)


def rate_cell(size: Size, networks: int) -> lt.RateCell:
    """Independent networks; `()` is not used, so that one network runs as an ensemble does."""
    return lt.RateCell(1, size.n, ensemble=(networks,)).to(DEVICE)


def bptt(size: Size, networks: int) -> tuple[Callable[[], object], float, float]:
    """Unroll, backpropagate a given cotangent of all states; operations and bytes."""
    cell = rate_cell(size, networks)
    x = torch.randn(size.t, networks, size.b, 1, device=DEVICE)
    h0 = torch.zeros(networks, size.b, size.n, device=DEVICE)
    wanted = list(cell.parameters())
    # as a readout's products leave it
    bar = torch.randn(networks, size.t, size.b, size.n, device=DEVICE).movedim(0, 1)

    def step() -> object:
        return torch.autograd.grad(unroll(cell, x, h0), wanted, bar)

    numbers = size.t * networks * size.b * size.n
    # written: states, cotangents; read: states, given and own cotangents
    return step, 3 * 2 * numbers * size.n, 5 * 4 * numbers


def flossing(size: Size, networks: int) -> tuple[Callable[[], object], float, float]:
    """One step of flossing: the spectrum of one trajectory each and the gradient of its square."""
    cell = rate_cell(size, networks)
    x = torch.randn(size.floss, networks, 1, 1, device=DEVICE)
    h0 = torch.zeros(networks, 1, size.n, device=DEVICE)
    frame = torch.linalg.qr(torch.randn(size.n, size.k, device=DEVICE))[0]
    wanted = list(cell.parameters())

    def step() -> object:
        return torch.autograd.grad(floss_loss(cell, x, h0, frame, size.uncounted), wanted)

    frames = size.floss * networks * size.k * size.n
    # push, pull back, gradient of W: 6 n; Gram-Schmidt 2 k, solve back 2 k
    return step, frames * (6 * size.n + 4 * size.k), 4 * 4 * frames


def floss_loss(cell: lt.Cell, x: Tensor, h0: Tensor, frame: Tensor, uncounted: int) -> Tensor:
    """The mean of the squared exponents, summed over networks."""
    k = frame.shape[-1]
    spec = lt.lyapunov_spectrum(
        cell, x, h0=h0, frame=frame, k=k, tangent_transient=uncounted, backend="triton"
    )
    exponents = spec.exponents
    return torch.where(exponents == -torch.inf, 0.0, exponents).square().mean((-2, -1)).sum()


def digits(size: Size) -> tuple[Callable[[], object], float, float]:
    """A whole iteration on sequences of pixels: residual networks, readout, loss, gradient, momentum."""
    networks = size.residual
    residual = lt.residuals.rotation(2 * math.pi / 28) @ lt.residuals.decay(0.99)
    cell = lt.ResidualCell(1, size.wide, residual=residual, coupling=0.1, ensemble=(networks,)).to(DEVICE)
    x = torch.rand(size.pixels, 1, size.digits, 1, device=DEVICE).expand(-1, networks, -1, -1)
    h0 = torch.zeros(networks, size.digits, size.wide, device=DEVICE)
    answers = torch.arange(size.digits, device=DEVICE).remainder(10).repeat(networks)
    readout = torch.zeros(networks, 10, size.wide, device=DEVICE, requires_grad=True)
    wanted = [readout, *(p for p in cell.parameters() if p.requires_grad)]
    optimizer = MemberOptimizer(wanted, (networks,), 1e-3, lt.SGD(0.9))

    def step() -> None:
        last = unroll(cell, x, h0)[-1]
        loss = cross_entropy((last @ readout.mT).flatten(0, 1), answers) * networks
        optimizer.step(torch.autograd.grad(loss, wanted))

    numbers = size.pixels * networks * size.digits * size.wide
    return step, 3 * 2 * numbers * size.wide, 5 * 4 * numbers


def figure(size: Size) -> tuple[float, str]:
    """Gradient Flossing's figure 4c, by `lt.train`: flossed never, before, or twice; how it ran."""
    e = size.figure
    # three conditions of each delay
    condition = torch.arange(e) % 3
    task = lt.tasks.TemporalXOR(2 * (1 + torch.arange(e) // 3 % max(1, min(35, size.t // 2 - 1))))
    model = lt.presets.gf2023(task, hidden_size=size.n, rows=size.b, ensemble=(e,)).to(DEVICE)
    floss = partial(lt.FlossPhase, size.episode, k=size.k, steps=size.floss, tangent_transient=size.uncounted)
    schedule = (
        floss(who=condition > 0),
        lt.FitPhase(size.episode),
        floss(who=condition > 1),
        lt.FitPhase(size.epochs - size.episode),
    )
    ready()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        lt.train(model, task, schedule, batch=size.b, steps=size.t, show_progress=False)
    ready()
    for warning in said:
        print("said:", warning.message)
    alone = DEVICE == "cpu" or any("one by one" in str(warning.message) for warning in said)
    return time.perf_counter() - start, "launches" if alone else "graph"


def rows(size: Size, rounds: int) -> list[Row]:
    """All six."""
    many, spectra = f"n {size.n}, batch {size.b}, t {size.t}", f"n {size.n}, k {size.k}, t {size.floss}"
    figure_of = f"{size.figure} networks, {size.epochs} epochs"
    works = [
        (
            f"BPTT step, {size.many} networks, {many}",
            9,
            bptt(size, size.many),
        ),
        ("the same, 1 network", 1.5, bptt(size, 1)),
        (
            f"flossing step, {size.flossed} networks, {spectra}",
            30,
            flossing(size, size.flossed),
        ),
        ("the same, 1 network", 6, flossing(size, 1)),
        (
            f"{size.residual} residual networks, batch {size.digits}, t {size.pixels}",
            14,
            digits(size),
        ),
    ]
    found = []
    for name, demanded, (step, flops, moved) in works:
        run, how = capture(step)
        found.append(Row(name, demanded, median(run, rounds), flops, moved, how))
    seconds, how = figure(size)
    fit, floss = bptt(size, size.figure)[1:], flossing(size, size.figure)[1:]
    flops, moved = (size.epochs * a + 2 * size.episode * b for a, b in zip(fit, floss, strict=True))
    return [*found, Row(f"figure 4c: {figure_of}, all flossing", 75e3, seconds, flops, moved, how)]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does everything run?")
    smoke = parser.parse_args().smoke
    if DEVICE == "cpu" and not smoke:
        parser.error("there is no GPU here; --smoke runs tiny sizes on the CPU")
    use(Everywhere("triton"))
    rounds = 1 if smoke else 7
    flops, bandwidth = limits(rounds)
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else platform.machine()
    print(f"{name}, torch {torch.__version__}, {date.today()}")
    print(f"limits: {flops / 1e12:.3g} TFLOP/s fp32, {bandwidth / 1e9:.0f} GB/s")
    print()
    print("| work | ms | demanded | fp32 limit | bandwidth | how |\n|---|---|---|---|---|---|")
    for row in rows(SMOKE if smoke else Size(), rounds):
        shares = (row.flops / flops / row.seconds, row.bytes / bandwidth / row.seconds)
        percent = " | ".join(f"{share:.0%}" for share in shares)
        print(f"| {row.name} | {1e3 * row.seconds:.3g} | {row.demanded:g} | {percent} | {row.how} |")


if __name__ == "__main__":
    main()
