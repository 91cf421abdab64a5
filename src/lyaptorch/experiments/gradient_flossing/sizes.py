"""Appendix F: the smallest network that solves a delay, against one that is flossed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import OURS, Checks, at_least, where
from lyaptorch.experiments.figure import Along, Results, Study, coordinates, stacked
from lyaptorch.experiments.gradient_flossing.comparisons import SOLVED
from lyaptorch.experiments.gradient_flossing.delays import points
from lyaptorch.experiments.gradient_flossing.setting import DelaySweep, figure, number
from lyaptorch.plots.primitives import Rows, footnote, label_accuracy, letter, level, picture
from lyaptorch.record import Record
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.metrics import fit_flops


@picture(2, width=3.6)
def by_size(record: Record, axes: list[Axes]) -> None:
    """Accuracy after training against the number of units, and what it took to solve the task."""
    (final, spent), sizes, names = axes, record["size"], record["condition"]
    # one delay: (size, condition, delay, seed) to (condition, size, seed)
    points(final, sizes, record["final_accuracy"][:, :, 0].swapaxes(0, 1), names)
    level(final, 0.5)
    label_accuracy(final, "units $n$", f"After training, delay {record['delay'][0]}")
    points(spent, sizes, operations(record).swapaxes(0, 1), names)
    spent.set(xlabel="units $n$", ylabel="operations", title="Until solved, flossing included")
    spent.set_ylim(bottom=0)
    for panel, name in zip(axes, "AB", strict=True):
        # given before the scale: an axis without a dot would have none that is positive
        panel.set_xlim(0.8 * sizes[0], 1.25 * sizes[-1])
        panel.set_xscale("log", base=2)
        letter(panel, name)
    final.legend(title="flossed")
    footnote(final, number(record), "lines: means; bands: 25 to 75%; dots: each, where it solves the task")


def operations(record: Record) -> Rows:
    """Floating-point operations of each network until it solves the task `(size, condition, seed)`."""
    epochs = onset(torch.from_numpy(record["accuracy"][:, :, 0]), SOLVED, which="last").numpy()
    each, share = record["epoch_flops"][:, None, None], record["floss_share"][:, :, 0]
    # f of flossing in a training of F: share = f / (f + F)
    floss = share / (1 - share) * each * record.config["epochs"]
    return np.asarray(floss + each * (epochs + 1))


@figure(
    "appF",
    "smallest network that solves a delay, and operations until solved, flossed or not",
    cost=("2 s", "4 min"),
    smoke={"delays": (4,), "sizes": (12, 16)},
    small={"delays": (20,), "sizes": (20, 40, 80, 160), "seeds": 3, "epochs": 1000},
    draw=by_size,
    cut=(Along("seed", "seeds", 4), Along("size", "sizes"), Along("delay", "delays")),
)
class AppendixF(DelaySweep):
    """Networks of several sizes on the binary temporal XOR of one delay, flossed before training or not.

    The paper proposes it and gives no result.

    Attributes:
        sizes: numbers of units n; of each min(k, n) exponents are flossed.
    """

    delays: tuple[int, ...] = (30,)
    sizes: tuple[int, ...] = (20, 40, 80, 160, 320)
    seeds: int = 8
    epochs: int = 10_000

    def run(self, study: Study) -> Results:
        """The variables of a sweep, each with `size` in front, and `epoch_flops (size)`."""
        parts = [replace(self, hidden_size=n, k=min(self.k, n)).swept(study.part(n))[0] for n in self.sizes]
        batch = TemporalXOR(self.delays[0]).draw(Draw(self.seed, self.length, self.batch))
        flops = np.array([float(fit_flops(batch, n, 1)) for n in self.sizes])
        variables = {**stacked("size", parts), "epoch_flops": (("size",), flops)}
        return self.compared(variables, **coordinates(size=self.sizes))

    def operations(self) -> float:
        """Of all sizes."""
        each = (replace(self, hidden_size=n, k=min(self.k, n)) for n in self.sizes)
        return sum(DelaySweep.operations(figure) for figure in each)

    def claims(self, record: Record) -> Checks:
        """Flossed networks need no more units, no more operations, and no fewer sizes solve the delay."""
        # on the median, as the paper asks
        solves = np.median(record["final_accuracy"][:, :, 0], -1) >= SOLVED
        none, flossed = (np.array(self.sizes)[solves[:, i]] for i in range(2))
        sentence = "smallest n whose median network solves the delay, not flossed / flossed before training"
        ratio = where(none.size and flossed.size, none.min(initial=10**9) / flossed.min(initial=10**9))
        yield at_least("units", sentence, 1.0, ratio, **OURS)
        # a network that never solves it takes for ever
        median = np.median(np.nan_to_num(operations(record), nan=np.inf), -1)
        spent = np.where(solves, median, np.inf).min(0)
        ratio = where(np.isfinite(spent).all(), spent[0] / spent[1]) if np.isfinite(spent[1]) else np.nan
        sentence = "operations until solved, cheapest size, not flossed / flossed before training (medians)"
        yield at_least("operations", sentence, 1.0, ratio, **OURS)
        reach = where(solves.any(), float(len(flossed)) - float(len(none)))
        sentence = "number of sizes that solve the delay, flossed before training − not flossed"
        yield at_least("sizes", sentence, 0.0, reach, **OURS)
