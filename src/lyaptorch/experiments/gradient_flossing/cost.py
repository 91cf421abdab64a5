"""Computation of exponents: how they converge (figure 16), and the processor time of its parts (table 1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, RateCell, unroll
from lyaptorch.experiments.check import THEORY, Checks, at_most, near, slopes
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.setting import figure
from lyaptorch.plots.primitives import BLUE, GREY, ORANGE, PALETTE, geometric_mean, picture
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.qr import orthonormalise
from lyaptorch.tasks import Noise, TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.presets import gf2023


class Sizes(NamedTuple):
    """What a cost depends on: n units, b trajectories, t steps, k vectors, the interval of QR."""

    n: int
    b: int = 1
    t: int = 1
    k: int = 1
    interval: int = 1


Network: TypeAlias = Callable[[Sizes], tuple[Cell, Tensor, Tensor]]
"""A network with a state of n numbers, its inputs and its initial state."""


def rnn(network: Network, sizes: Sizes) -> Callable[[], object]:
    """t steps of a network, forwards and backwards."""
    cell, inputs, h = network(sizes)
    return lambda: torch.autograd.grad(unroll(cell, inputs, h).sum(), list(cell.parameters()))


def jacobian(network: Network, sizes: Sizes) -> Callable[[], object]:
    """D Q, once."""
    cell, inputs, h = network(sizes)
    Q = torch.randn(sizes.b, sizes.n, sizes.k, generator=torch.Generator().manual_seed(1))
    return torch.no_grad()(lambda: cell.pushforward(inputs[0], h, Q))


def factors(network: Network, sizes: Sizes) -> Callable[[], object]:
    """Orthonormalisation of k vectors, once; the same for every network."""
    A = torch.randn(sizes.b, sizes.n, sizes.k, generator=torch.Generator().manual_seed(1))
    return torch.no_grad()(lambda: orthonormalise(A, method="cholesky2"))


def flossing(network: Network, sizes: Sizes) -> Callable[[], object]:
    """The flossing loss of t steps and its gradient."""
    cell, inputs, h = network(sizes)

    def call() -> object:
        spectrum = lyapunov_spectrum(cell, inputs, k=sizes.k, h0=h, interval=sizes.interval)
        return torch.autograd.grad(flossing_loss(spectrum.exponents), list(cell.parameters()))

    return call


PARTS: Mapping[str, Callable[[Network, Sizes], Callable[[], object]]] = {
    "RNN": rnn,
    "Jacobian": jacobian,
    "QR": factors,
    "flossing": flossing,
}


@picture(len(PARTS), width=3.0)
def seconds(record: Record, axes: list[Axes]) -> None:
    """Seconds against each size, with the power of the last doubling."""
    for panel, part in zip(axes, PARTS, strict=True):
        for i in np.nonzero(record["part"] == part)[0]:
            label = f"{record['doubled'][i]}: power {record['power'][i]:.2f}"
            panel.loglog(record["sizes"][i], record["seconds"][i], "o-", markersize=3, label=label)
        # sizes are doubled: powers of two are few, and their labels do not run into each other
        panel.set_xscale("log", base=2)
        panel.set(xlabel="size", ylabel="processor seconds", title=part)
        panel.legend()


@figure(
    "table1",
    "measured cost of RNN, Jacobian and QR steps against sizes, share of flossing",
    cost=("2 s", "20 s", "3 min"),
    smoke={"base": 64, "doublings": 1, "rounds": 2, "epochs": 2},
    small={"base": 1024},
    draw=seconds,
)
class Table1(Figure):
    """Measured costs against sizes, the powers of the last doubling, and the share of flossing in training.

    Processor time, that differs from run to run and machine to machine: of all figures' Records only this
    one's do.

    Attributes:
        base: the largest n; other sizes are fixed fractions of it.
        doublings: how many times each size is doubled.
        rounds: measurements, of which the fastest counts; parts take turns.
        epochs: task steps timed for the share.
        task_epochs: task steps of a training.
        floss_epochs: flossing steps of a training.
    """

    base: int = 2048
    doublings: int = 2
    rounds: int = 5
    epochs: int = 20
    task_epochs: int = 10_000
    floss_epochs: int = 500

    def network(self, sizes: Sizes) -> tuple[Cell, Tensor, Tensor]:
        """A rate network, driven by noise from state 0."""
        generator = Study(self.seed).generator()
        cell = RateCell(1, sizes.n, generator=generator)
        inputs = torch.randn(sizes.t, sizes.b, 1, generator=generator)
        return cell, inputs, torch.zeros(sizes.b, sizes.n)

    def training(self, flosses: int, fits: int) -> Callable[[], object]:
        """Flossing steps, then task steps, of a new network in the published setting."""
        task, schedule = TemporalXOR(50), (FlossPhase(flosses), FitPhase(fits))
        study = Study(self.seed, show_progress=False)
        return partial(study.train, gf2023(task, generator=study.generator()), task, schedule)

    def rows(self) -> list[tuple[str, str, float, Sizes]]:
        """Part, the size that is doubled, the power that theory names, and the largest sizes."""
        # operations: RNN t b n^2, forwards and backwards alike; D Q b n^2 k; QR b n k^2. The other sizes are
        # large enough for products, not calls, to take the time
        n = self.base
        half, quarter = n // 2, n // 4
        return [
            ("RNN", "n", 2.0, Sizes(n, b=half, t=4)),
            ("RNN", "b", 1.0, Sizes(half, b=n, t=4)),
            ("RNN", "t", 1.0, Sizes(quarter, b=quarter, t=32)),
            ("Jacobian", "n", 2.0, Sizes(n, k=half)),
            ("Jacobian", "k", 1.0, Sizes(half, k=half)),
            ("Jacobian", "b", 1.0, Sizes(half, b=8, k=quarter)),
            ("QR", "n", 1.0, Sizes(2 * n, k=quarter)),
            ("QR", "k", 2.0, Sizes(n, k=half)),
            ("QR", "b", 1.0, Sizes(half, b=8, k=quarter)),
            ("flossing", "t", 1.0, Sizes(quarter, t=64, k=quarter)),
            ("flossing", "interval", 0.0, Sizes(quarter, t=32, k=quarter, interval=16)),
        ]

    def run(self, study: Study) -> Results:
        """`seconds (row, point)`, `sizes (row, point)`, `power (row)`, `theory (row)`, and two epochs."""
        rows = self.rows()
        largest = np.array([getattr(sizes, size) for _, size, _, sizes in rows])
        doubled = largest[:, None] // 2 ** np.arange(self.doublings, -1, -1)
        calls = [
            [PARTS[part](self.network, sizes._replace(**{size: value})) for value in values]
            for (part, size, _, sizes), values in zip(rows, doubled.tolist(), strict=True)
        ]
        fastest = np.full(doubled.shape, np.inf)
        for _ in range(self.rounds):
            # all in turn, so that a busy moment of the machine does not fall on one row alone
            fastest = np.minimum(fastest, [[_timed(call) for call in row] for row in calls])
        # where sizes are large: of the last doubling
        power = np.log2(fastest[:, -1] / fastest[:, -2])
        # the first steps compile and allocate
        self.training(1, 1)()
        floss, fit = _timed(self.training(self.epochs, 0)), _timed(self.training(0, self.epochs))
        parts, names, theory, _ = zip(*rows, strict=True)
        variables: dict[str, Given] = {
            "seconds": (("row", "point"), fastest, {"units": "s of processor time"}),
            "sizes": (("row", "point"), doubled),
            "power": (("row",), power),
            "theory": (("row",), np.array(theory, dtype=float)),
            "flossing_epoch": ((), floss / self.epochs, {"units": "s of processor time"}),
            "task_epoch": ((), fit / self.epochs, {"units": "s of processor time"}),
        }
        return variables, {"part": (("row",), np.array(parts)), "doubled": (("row",), np.array(names))}

    def claims(self, record: Record) -> Checks:
        """Powers within .3 of theory; flossing takes a small share of training."""
        timing: dict[str, Any] = {"kind": "timing", "source": "Gradient Flossing, table 1"}
        for i, (part, size) in enumerate(zip(record["part"], record["doubled"], strict=True)):
            key, theory, power = f"{part} {size}", record["theory"][i], record["power"][i]
            if size == "interval":
                # a longer interval saves QR and leaves D Q: theory names a sign, no power
                sentence = "flossing: time falls with the interval, power"
                yield at_most(key, sentence, 0.0, power, **timing)
            else:
                sentence = f"{part}: time grows with {size}, power"
                yield near(key, sentence, theory, power, 0.3, **timing)
        floss = self.floss_epochs * float(record["flossing_epoch"])
        fit = self.task_epochs * float(record["task_epoch"])
        few, many = f"{self.floss_epochs} flossing steps", f"{self.task_epochs} task steps"
        sentence = f"share of {few} in a training of {many}"
        yield at_most("share", sentence, 0.1, floss / (floss + fit), **timing)


def _timed(call: Callable[[], object]) -> float:
    # of the processor, not of the clock: what other programs do does not count, and threads add up
    start = time.process_time()
    call()
    return time.process_time() - start


@picture(2, width=3.6)
def convergence(record: Record, axes: list[Axes]) -> None:
    """Running estimates of a few exponents from each initial state, and their spread."""
    left, right = axes
    time, running = record["time"], record["running"]
    k = running.shape[-1]
    for color, i in zip(PALETTE, sorted({0, k // 4, k // 2, k - 1}), strict=False):
        left.semilogx(time, running[:, :, i], color=color, linewidth=0.7, alpha=0.6)
        left.plot([], [], color=color, label=rf"$\lambda_{{{i + 1}}}$")
    left.set(xlabel="steps", ylabel="running estimate (nats per step)", title="Several initial states")
    left.legend()
    deviation = running.std(1, ddof=1)
    spread = geometric_mean(deviation, -1)
    right.loglog(time, spread, color=BLUE, linewidth=1.6, label="all exponents")
    right.loglog(time, deviation[:, 0], color=ORANGE, label=r"$\lambda_1$")
    right.loglog(time, spread[-1] * (time / time[-1]) ** -0.5, ":", color=GREY, label=r"$t^{-1/2}$")
    right.set(xlabel="steps", ylabel="standard deviation", title="Spread")
    right.legend()


@figure(
    "fig16",
    "convergence of the exponents over time, from several initial states",
    cost=("1 s", "10 s", "3 min"),
    smoke={"hidden_size": 16, "states": 4, "steps": 300, "transient": 50, "points": 20},
    small={"hidden_size": 40, "steps": 3000},
    draw=convergence,
)
class Fig16(Figure):
    """Running estimates of the exponents of one network from several initial states.

    Every state is driven by noise of its own: with a common input trajectories of a stable network meet, and
    the estimates with them. That, and the gain, are ours, because the paper names neither.

    Attributes:
        hidden_size: n.
        gain: of the weights.
        states: initial states.
        steps: counted.
        transient: of state and frame, each, not counted.
        points: times at which the estimates are kept, evenly spaced in their logarithm.
    """

    hidden_size: int = 80
    gain: float = 1.0
    states: int = 10
    steps: int = 10_000
    transient: int = 200
    points: int = 60

    def run(self, study: Study) -> Results:
        """`running (time, state, index)` and `time`."""
        cell = RateCell(1, self.hidden_size, gain=self.gain, bias=False, generator=study.generator()).double()
        shared_id, double = torch.zeros((), dtype=torch.int64), torch.float64
        shape, length = (self.states, self.hidden_size), 2 * self.transient + self.steps
        h0 = Stream(self.seed, "h0").normal(shape, member_ids=shared_id, dtype=double)
        inputs = Noise().inputs(Draw(self.seed, length, self.states, dtype=double))
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell, inputs, h0=h0, transient=self.transient, tangent_transient=self.transient
            )
        # early times are dense on a logarithmic scale, and several round to the same step
        kept = np.unique(np.geomspace(1, self.steps, self.points).round().astype(int))
        running = (("time", "state", "index"), spectrum.running()[kept - 1], {"units": "nats per step"})
        return {"running": running}, coordinates(time=kept.tolist())

    def claims(self, record: Record) -> Checks:
        """The spread over initial states falls like t^-1/2."""
        time, spread = record["time"], record["running"].std(1, ddof=1)
        # a running estimate is the mean of t local exponents, which scatters like t^-1/2 once t is many of
        # their correlation times
        late = time >= self.steps / 100
        power = slopes(np.log(time[late]), np.log(spread[late]).mean(-1))
        falls, source = "spread over initial states, power of t", "Gradient Flossing, figure 16"
        yield near("power", falls, -0.5, power, 0.15, **THEORY)
        yield at_most("end", "spread of lambda_1 at the end", 0.02, spread[-1, 0], source=source)
