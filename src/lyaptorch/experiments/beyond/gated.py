"""Gated networks: which start learns to remember, and what flossing adds to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.analysis import memory_capacity
from lyaptorch.cells import Cell
from lyaptorch.experiments.beyond.learners import LEARNED, asks_at_least, figure
from lyaptorch.experiments.beyond.starts import STARTS, floss_some, networks, picked, training
from lyaptorch.experiments.check import Checks, beyond_error, where
from lyaptorch.experiments.figure import Along, Figure, Results, Study, coordinates, numbers, stacked
from lyaptorch.plots.primitives import footnote, look, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy, TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Model, Readout

TASKS: dict[str, Callable[[int], LaggedTask]] = {
    "copy": partial(DelayedCopy, binary=True),
    "XOR": TemporalXOR,
}
TUNING = 1000
"""The number of the first network on which learning rates are chosen; none of them is shown."""
DEMANDED = {("GRU", "copy", 30): 0.12, ("LSTM", "copy", 20): 0.1, ("LSTM", "XOR", 20): 0.15}
"""What mixing is to add to open gates, in each network."""
ADDED = 0.1
"""The same elsewhere."""
ALIKE = 0.02
"""Accuracies of rates that count as equal."""
MEASURED, ALIGN = 300, 50
"""Steps over which exponents are measured, and steps before."""
FLOSSED = "mixing, W flossed, half"
"""The start of which flossing is asked the most: as many exponents as an LSTM has units."""
COMPARED = (
    *(("passing, Gaussian", "mixing"), (FLOSSED, "mixing")),
    *((name, FLOSSED) for name in STARTS if name.startswith("mixing, ") and name != FLOSSED),
    *((name, "gates at half") for name in STARTS if name.startswith("gates at half, ")),
)
"""What is asked to add to what: flossing to its unflossed twin, other ways of flossing to half of W alone."""


@picture(lambda record: len(record["task"]) * len(record["kind"]), width=3.6, height=4.2)
def starts(record: Record, axes: list[Axes]) -> None:
    """Accuracy of each network under each start, a panel for each kind and task, a colour for each delay."""
    names, delays = record["start"].tolist(), record["delay"].tolist()
    shown = record["final_accuracy"]
    panels = iter(axes)
    for i, kind in enumerate(record["kind"]):
        for j, task in enumerate(record["task"]):
            panel = next(panels)
            for d, delay in enumerate(delays):
                color, _ = look(d)
                for s in range(len(names)):
                    at = len(names) - s + 0.2 * (d - (len(delays) - 1) / 2)
                    values = shown[i, d, j, s]
                    panel.plot(values, [at] * len(values), "o", color=color, alpha=0.5, markersize=3)
                    panel.plot([values.mean()], [at], "|", color=color, markersize=9)
                panel.plot([], "o", color=color, label=f"$d = {delay}$")
            panel.axvline(0.5, color="#777777", linestyle=":", linewidth=0.8)
            panel.set(xlim=(0.42, 1.03), xlabel="accuracy", title=f"{kind}, {task}")
            panel.set_yticks(range(len(names), 0, -1), names if panel is axes[0] else [""] * len(names))
    axes[0].legend(loc="lower left")
    footnote(axes[0], f"n = {shown.shape[-1]} networks", "dots: each; bars: mean")


class Gated(Figure):
    """Gated networks under several starts learn to copy bits, or their XOR.

    The learning rate of each start is the lowest of those among `rates` that are best on other networks.

    Attributes:
        kinds: of cells.
        delays: longest lags, even.
        starts: how they begin, names in `STARTS`.
        tasks: copy, XOR.
        seeds: networks at each point.
        first: the number of the first of them.
        tuning: networks on which a rate is chosen.
        rates: learning rates that are tried.
        epochs: training steps.
        floss_epochs: flossing steps, before training and of each episode during it.
        floss_lr: learning rate of flossing.
        hidden_size: units.
        batch: trajectories of a training step.
        length: steps of a trial.
    """

    kinds: tuple[str, ...] = ("GRU", "LSTM")
    delays: tuple[int, ...] = (20, 30, 40)
    starts: tuple[str, ...] = tuple(STARTS)
    tasks: tuple[str, ...] = ("copy",)
    seeds: int = 5
    first: int = 20
    tuning: int = 2
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    epochs: int = 900
    floss_epochs: int = 60
    floss_lr: float = 4e-3
    hidden_size: int = 32
    batch: int = 16
    length: int = 100

    cut = (
        *(Along("seed", "seeds", 5), Along("start", "starts", 8)),
        *(Along("task", "tasks"), Along("delay", "delays"), Along("kind", "kinds")),
    )

    def run(self, study: Study) -> Results:
        """`exponents (kind, delay, start, seed, rank)`, `final_accuracy (kind, delay, task, start, seed)`."""
        found = [
            stacked("delay", [self._at(kind, d, study.part(kind, d)) for d in self.delays])
            for kind in self.kinds
        ]
        along = {"kind": self.kinds, "delay": self.delays, "task": self.tasks, "start": self.starts}
        return stacked("kind", found), coordinates(**along)

    def claims(self, record: Record) -> Checks:
        """Mixing learns more than open gates, in each network; and what each of its parts adds."""
        for i, kind in enumerate(record["kind"]):
            for j, task in enumerate(record["task"]):
                for d, delay in enumerate(record["delay"].tolist()):
                    own = dict(zip(record["start"], record["final_accuracy"][i, d, j], strict=True))
                    yield from self._compared(str(kind), str(task), delay, own)

    def _compared(self, kind: str, task: str, delay: int, own: dict[str, NDArray[Any]]) -> Checks:
        learned = max(z.mean() for z in own.values()) > LEARNED
        point = f"{kind}, {task}, d = {delay}"
        for name in ("mixing", FLOSSED):
            if not {name, "open gates"} <= own.keys():
                continue
            least = float((own[name] - own["open gates"]).min())
            bound = DEMANDED.get((kind, task, delay), ADDED)
            gain = f"{point}: accuracy, [{name}] − [open gates]"
            sentence = f"{gain} (smallest of {len(own[name])} networks)"
            # who is nearly perfect leaves nothing to add
            room = learned and own["open gates"].mean() < 1 - bound
            key = f"{kind} {task} {delay} {name} over gates"
            yield asks_at_least(key, sentence, bound, where(room, least))
        for name, base in COMPARED:
            if name not in own or base not in own:
                continue
            difference = own[name] - own[base]
            told = where(learned, beyond_error(difference))
            sentence = f"{point}: accuracy, [{name}] − [{base}] (mean over networks)"
            yield asks_at_least(f"{kind} {task} {delay} {name}", sentence, 0.0, told)

    def _at(self, kind: str, delay: int, study: Study) -> dict[str, Any]:
        """What is measured of the networks of one kind that are to learn one delay."""
        chosen = [STARTS[name] for name in self.starts]
        tuned = torch.arange(TUNING, TUNING + self.tuning) if len(self.rates) > 1 else torch.arange(0)
        ids = torch.cat([numbers(self.first, self.seeds), tuned])
        inputs = TASKS["copy"](delay)
        cell = networks(kind, self.hidden_size, chosen, inputs, ids, study)
        floss_some(cell, chosen, inputs, ids, study, epochs=self.floss_epochs, lr=self.floss_lr)
        shown = picked(cell, (slice(None), slice(self.seeds)))
        other = picked(cell, (slice(None), slice(self.seeds, None)))
        variables = self._measured(shown, inputs, delay, ids[: self.seeds])
        learned = [
            self._learned(shown, other, TASKS[task](delay), ids, study.part(task)) for task in self.tasks
        ]
        return variables | stacked("task", learned)

    @torch.no_grad()
    def _measured(self, cell: Cell, task: LaggedTask, delay: int, ids: Tensor) -> dict[str, Any]:
        """The first n exponents, and the capacity at the delay and in all."""
        drawn = Draw(self.seed, MEASURED + ALIGN, member_ids=ids.expand(cell.ensemble), stream="measure")
        found = lyapunov_spectrum(cell, task.inputs(drawn), tangent_transient=ALIGN).exponents[..., 0, :]
        exponents = found.sort(-1, descending=True).values[..., : self.hidden_size]
        capacity, dims = memory_capacity(cell, 2 * delay + 1, steps=2000), ("start", "seed")
        return {
            "exponents": ((*dims, "rank"), exponents, {"units": "nats per step"}),
            "capacity": (dims, capacity[delay]),
            "whole_capacity": (dims, capacity.sum(0)),
        }

    def _learned(
        self, shown: Cell, other: Cell, task: LaggedTask, ids: Tensor, study: Study
    ) -> dict[str, Any]:
        """Training at the best rate of each start; `rate (start)` and what the choice rests on."""
        rates = torch.tensor(self.rates)
        best, tried = torch.zeros(len(self.starts), dtype=torch.int64), {}
        if len(rates) > 1:
            each = picked(other, torch.arange(len(self.starts)).expand(len(rates), -1))
            own = ids[self.seeds :].expand(each.ensemble)
            dims = ("tried", "start", "other")
            found = self._trained(
                each, task, own, rates[:, None, None].expand(own.shape), dims, study.part("tuning")
            )
            _, accuracy = found["final_accuracy"]
            best = lowest_of_best(torch.as_tensor(accuracy))
            tried = {"tuning_accuracy": (dims, accuracy)}
        own = ids[: self.seeds].expand(shown.ensemble)
        rate = rates[best]
        found = self._trained(shown, task, own, rate[:, None].expand(own.shape), ("start", "seed"), study)
        return {**found, **tried, "rate": (("start",), rate)}

    def _trained(
        self, cell: Cell, task: LaggedTask, ids: Tensor, lr: Tensor, dims: tuple[str, ...], study: Study
    ) -> dict[str, Any]:
        # what was measured is trained by somebody else, too
        model = Model(picked(cell, ...), Readout(self.hidden_size, 1, **study.ensemble(ids)), loss=task.loss)
        chosen = [STARTS[name] for name in self.starts]
        flossing: dict[str, Any] = {"floss_epochs": self.floss_epochs, "lr": self.floss_lr}
        fit: dict[str, Any] = {"batch": self.batch, "steps": self.length, "clip": 1.0, "clip_mode": "global"}
        schedule = training(chosen, model.cell, epochs=self.epochs, **flossing)
        _, learned = study.learn(model, task, ids, dims, schedule=schedule, lr=lr.contiguous(), **fit)
        return learned


def lowest_of_best(accuracy: Tensor) -> Tensor:
    """Which rate to take, `(start,)`, from accuracies `(rate, start, network)` at ascending rates."""
    mean = accuracy.mean(-1)
    # of those that are as good: few networks do not tell how often a high rate fails
    return (mean >= mean.amax(0) - ALIKE).int().argmax(0)


SMOKE: dict[str, Any] = {
    "delays": (4,),
    "starts": ("open gates", "mixing", "mixing, W flossed"),
    "seeds": 1,
    "tuning": 1,
    "rates": (3e-3, 1e-2),
    "epochs": 3,
    "floss_epochs": 2,
    "hidden_size": 8,
    "batch": 2,
    "length": 20,
}


@figure(
    "gated-starts",
    "starts of gated networks, learning to copy bits",
    cost=("5 s", "2 min", "half an hour"),
    smoke=SMOKE,
    small={
        "delays": (30,),
        "starts": ("torch", "open gates", "gates at half", "mixing", "mixing, W flossed, half"),
        "seeds": 3,
        "rates": (3e-3,),
        "floss_epochs": 50,
    },
    draw=starts,
)
class GatedStarts(Gated):
    """Which start of a GRU or LSTM learns in 900 steps, and what flossing adds."""


@figure(
    "gated-xor",
    "starts of gated networks, learning the delayed XOR of bits",
    cost=("5 s", "20 s", "15 min"),
    smoke=SMOKE,
    small={
        "kinds": ("LSTM",),
        "starts": ("torch", "open gates", "mixing", FLOSSED),
        "seeds": 3,
        "rates": (3e-3,),
    },
    draw=starts,
)
class GatedXOR(Gated):
    """The same for the XOR of two bits, which no sum of inputs tells."""

    tasks: tuple[str, ...] = ("XOR",)
    delays: tuple[int, ...] = (20,)
