"""Processor time of a step of the network, of the tangent vectors and of QR: table 1."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import Cell, RateCell, unroll
from lyaptorch.experiments.check import Check, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import PAPER
from lyaptorch.plots.primitives import picture
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.qr import orthonormalise
from lyaptorch.tasks import TemporalXOR
from lyaptorch.training import train
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

    def call() -> object:
        return torch.autograd.grad(unroll(cell, inputs, h).sum(), list(cell.parameters()))

    return call


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


def _parts(record: Record) -> list[str]:
    return list(dict.fromkeys(record["part"].tolist()))


@picture(lambda record: len(_parts(record)), width=3.0)
def seconds(record: Record, axes: list[Axes]) -> None:
    """Seconds against each size, with the power of the last doubling."""
    for panel, part in zip(axes, _parts(record), strict=True):
        for i in np.nonzero(record["part"] == part)[0]:
            label = f"{record['doubled'][i]}: power {record['power'][i]:.2f}"
            panel.loglog(record["sizes"][i], record["seconds"][i], "o-", markersize=3, label=label)
        # sizes are doubled: powers of two are few, and their labels do not run into each other
        panel.set_xscale("log", base=2)
        panel.set(xlabel="size", ylabel="processor seconds", title=part)
        panel.legend()


@declare(
    PAPER,
    "table1",
    "measured cost of RNN, Jacobian and QR steps against sizes, share of flossing",
    cost=("2 s", "20 s", "3 min"),
    smoke={"base": 64, "doublings": 1, "rounds": 2, "epochs": 2},
    small={"base": 1024},
    draw=seconds,
)
@dataclass(frozen=True)
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
        source: of its checks.
    """

    base: int = 2048
    doublings: int = 2
    rounds: int = 5
    epochs: int = 20
    task_epochs: int = 10_000
    floss_epochs: int = 500

    source: ClassVar[str] = "Gradient Flossing, table 1"

    def network(self, sizes: Sizes) -> tuple[Cell, Tensor, Tensor]:
        """A rate network, driven by noise from state 0."""
        generator = self._seeds()
        cell = RateCell(1, sizes.n, generator=generator)
        inputs = torch.randn(sizes.t, sizes.b, 1, generator=generator)
        return cell, inputs, torch.zeros(sizes.b, sizes.n)

    def training(self, flosses: int, fits: int) -> Callable[[], object]:
        """Flossing steps, then task steps, of a new network in the published setting."""
        task, schedule = TemporalXOR(50), (FlossPhase(flosses), FitPhase(fits))
        model = gf2023(task, generator=self._seeds())
        return partial(train, model, task, schedule, generator=self._seeds(), show_progress=False)

    def _seeds(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def rows(self) -> list[tuple[str, str, float, Sizes]]:
        """Part, the size that is doubled, the power that theory names, and the largest sizes."""
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
        calls, sizes = [], []
        for part, size, _, largest in self.rows():
            of_row = [getattr(largest, size) // 2**i for i in reversed(range(self.doublings + 1))]
            sizes.append(of_row)
            calls.append([PARTS[part](self.network, largest._replace(**{size: value})) for value in of_row])
        fastest = np.full((len(calls), self.doublings + 1), np.inf)
        for _ in range(self.rounds):
            for i, row in enumerate(calls):
                fastest[i] = np.minimum(fastest[i], [_timed(call) for call in row])
        # where sizes are large: of the last doubling
        power = np.log2(fastest[:, -1] / fastest[:, -2])
        # the first steps compile and allocate
        self.training(1, 1)()
        floss, fit = _timed(self.training(self.epochs, 0)), _timed(self.training(0, self.epochs))
        parts, doubled, theory, _ = zip(*self.rows(), strict=True)
        variables: dict[str, Given] = {
            "seconds": (("row", "point"), fastest, {"units": "s of processor time"}),
            "sizes": (("row", "point"), np.array(sizes)),
            "power": (("row",), power),
            "theory": (("row",), np.array(theory, dtype=float)),
            "flossing_epoch": ((), floss / self.epochs, {"units": "s of processor time"}),
            "task_epoch": ((), fit / self.epochs, {"units": "s of processor time"}),
        }
        coordinates: dict[str, Given] = {
            "part": (("row",), np.array(parts)),
            "doubled": (("row",), np.array(doubled)),
        }
        return variables, coordinates

    def checks(self, record: Record) -> list[Check]:
        """Powers within .3 of theory; flossing takes a small share of training."""
        timing: dict[str, Any] = {"kind": "timing", "source": self.source}
        found = []
        for i, (part, size) in enumerate(zip(record["part"], record["doubled"], strict=True)):
            key, theory, power = f"{part} {size}", record["theory"][i], record["power"][i]
            if size == "interval":
                sentence = "flossing: time falls with the interval, power"
                found.append(at_most(key, sentence, 0.0, power, **timing))
            else:
                sentence = f"{part}: time grows with {size}, power"
                found.append(near(key, sentence, theory, power, 0.3, **timing))
        floss = self.floss_epochs * float(record["flossing_epoch"])
        fit = self.task_epochs * float(record["task_epoch"])
        sentence = (
            f"share of {self.floss_epochs} flossing steps in a training of {self.task_epochs} task steps"
        )
        return [*found, at_most("share", sentence, 0.1, floss / (floss + fit), **timing)]


def _timed(call: Callable[[], object]) -> float:
    # of the processor, not of the clock: what other programs do does not count, and threads add up
    start = time.process_time()
    call()
    return time.process_time() - start
