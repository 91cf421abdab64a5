"""Table 1: the processor time of the parts of flossing, and of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import Cell, RateCell, unroll
from lyaptorch.experiments.check import Checks, at_least, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study
from lyaptorch.experiments.gradient_flossing.setting import figure
from lyaptorch.plots.primitives import BLUE, ORANGE, footnote, picture
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.qr import orthonormalise
from lyaptorch.tasks import TemporalXOR
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


PUBLISHED, STEPS = Sizes(80, k=75), ("Jacobian", "QR")
"""The sizes at which the paper flosses, and the parts of a step of its scan."""


@picture(len(PARTS) + 1, width=3.0)
def seconds(record: Record, axes: list[Axes]) -> None:
    """Seconds against each size, with the power of the last doubling."""
    shares = axes[-1]
    shares.bar(record["step"], 1e6 * record["step_seconds"], color=(BLUE, ORANGE))
    flossed, trained = float(record["flossing_epoch"]), float(record["task_epoch"])
    title = f"A step, $n = {PUBLISHED.n}$, $k = {PUBLISHED.k}$"
    shares.set(ylabel="processor microseconds", title=title)
    for panel, part in zip(axes, PARTS, strict=False):
        for i in np.nonzero(record["part"] == part)[0]:
            label = f"{record['doubled'][i]}: power {record['power'][i]:.2f}"
            panel.loglog(record["sizes"][i], record["seconds"][i], "o-", markersize=3, label=label)
        # sizes are doubled: powers of two are few, and their labels do not run into each other
        panel.set_xscale("log", base=2)
        panel.set(xlabel="size", ylabel="processor seconds", title=part)
        panel.legend()
    said = f"an epoch: flossing {1e3 * flossed:.3g} ms, task {1e3 * trained:.3g} ms"
    footnote(axes[0], f"fastest of {record.config['rounds']} rounds", said)


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

    share: ClassVar[tuple[float, float]] = (0.022, 0.011)
    """The share of time spent flossing that is expected, and by how much "approximately" may be exceeded."""

    def network(self, sizes: Sizes) -> tuple[Cell, Tensor, Tensor]:
        """A rate network, driven by noise from state 0."""
        generator = Study(self.seed).generator()
        cell = RateCell(1, sizes.n, generator=generator)
        inputs = torch.randn(sizes.t, sizes.b, 1, generator=generator)
        return cell, inputs, torch.zeros(sizes.b, sizes.n)

    def training(self, flosses: int, fits: int) -> Callable[[], object]:
        """Flossing steps, then task steps, of a new network in the published setting."""
        task, schedule = TemporalXOR(50), (FlossPhase(flosses, interval=1), FitPhase(fits))
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
        steps = [PARTS[part](self.network, PUBLISHED) for part in STEPS]
        step = np.full(len(STEPS), np.inf)
        for _ in range(self.rounds):
            # all in turn, so that a busy moment of the machine does not fall on one row alone
            fastest = np.minimum(fastest, [[_timed(call) for call in row] for row in calls])
            step = np.minimum(step, [_timed(call) for call in steps])
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
            "step_seconds": (("step",), step, {"units": "s of processor time"}),
            "theory": (("row",), np.array(theory, dtype=float)),
            "flossing_epoch": ((), floss / self.epochs, {"units": "s of processor time"}),
            "task_epoch": ((), fit / self.epochs, {"units": "s of processor time"}),
        }
        return variables, {
            "part": (("row",), np.array(parts)),
            "doubled": (("row",), np.array(names)),
            "step": (("step",), np.array(STEPS)),
        }

    def claims(self, record: Record) -> Checks:
        """Powers within .3 of theory; QR is the bottleneck; flossing takes a small share of training."""
        timing: dict[str, Any] = {
            "kind": "timing",
            "source": "Gradient Flossing, table 1",
            "because": "A measured time differs from run to run and machine to machine.",
        }
        for i, (part, size) in enumerate(zip(record["part"], record["doubled"], strict=True)):
            key, theory, power = f"{part} {size}", record["theory"][i], record["power"][i]
            if size == "interval":
                # a longer interval saves QR and leaves D Q: theory names a sign, no power
                sentence = "flossing: processor time, power of the QR interval (last doubling)"
                yield at_most(key, sentence, 0.0, power, **timing)
            else:
                sentence = f"{part}: processor time, power of {size} (last doubling)"
                yield near(key, sentence, theory, power, 0.3, **timing)
        floss = self.floss_epochs * float(record["flossing_epoch"])
        fit = self.task_epochs * float(record["task_epoch"])
        few, many = f"{self.floss_epochs} flossing steps", f"{self.task_epochs} task steps"
        sentence, (most, slack) = (
            f"share of processor time spent on {few}, in a training with {many}",
            self.share,
        )
        timing["source"] = "Gradient Flossing, appendix F"
        yield at_most("share", sentence, most, floss / (floss + fit), slack, **timing)
        jacobian, factoring = record["step_seconds"]
        sentence = "share of QR in the processor time of D Q + QR, forward (n = 80, k = 75)"
        timing["source"] = "Gradient Flossing, section 4"
        yield at_least("bottleneck", sentence, 0.5, factoring / (jacobian + factoring), **timing)


def _timed(call: Callable[[], object]) -> float:
    # of the processor, not of the clock: what other programs do does not count, and threads add up
    start = time.process_time()
    call()
    return time.process_time() - start
