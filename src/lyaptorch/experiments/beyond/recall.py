"""Exponents that more items, or a longer delay, need to be flossed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, coordinates, declare
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import label_accuracy, level, picture, scores
from lyaptorch.plots.style import PALETTE
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import Recall


@picture(lambda record: len(record["items"]), width=3.2)
def memories(record: Record, axes: list[Axes]) -> None:
    """Accuracy against the number of flossed exponents, a panel for each number of items."""
    places = np.arange(len(record["k"]))
    for i, (items, panel) in enumerate(zip(record["items"], axes, strict=True)):
        for j, delay in enumerate(record["delay"]):
            color = PALETTE[j % len(PALETTE)]
            scores(panel, places, record["final_accuracy"][i, j], color, f"delay {delay}")
        level(panel, 0.5)
        panel.set_xticks(places, [str(k) for k in record["k"]])
        label_accuracy(panel, "exponents flossed", f"{items} items")
    axes[0].legend()


@declare(
    PAPER,
    "items-x-delay",
    "the Recall task: whether more items or a longer delay needs more exponents",
    cost=("2 s", "20 s", "a day; 1 h on a GPU"),
    smoke={**SMOKE, "items": (1, 2), "delays": (3, 5), "ks": (0, 1, 4)},
    small={**SMALL, "items": (2, 10), "delays": (20, 40), "ks": (0, 1, 4, 12, 30), "epochs": 500},
    draw=memories,
)
@dataclass(frozen=True)
class ItemsByDelay(Learning):
    """Preflossed networks learn `Recall`, with items and delay varied independently, over k.

    Attributes:
        items: bits to remember.
        delays: steps from a bit to its repetition; the networks of an item and a delay are one ensemble.
        ks: exponents flossed; 0 for none.
    """

    items: tuple[int, ...] = (2, 5, 10, 20)
    delays: tuple[int, ...] = (20, 40, 60)
    ks: tuple[int, ...] = (0, 1, 5, 10, 20, 40, 75)
    seeds: int = 5

    def run(self, study: Study) -> Results:
        """`final_accuracy (items, delay, k, seed)`."""
        shape = (len(self.ks), self.seeds)
        ids, k = torch.arange(self.seeds).expand(shape), torch.tensor(self.ks)[:, None].expand(shape)
        # of those that are not flossed k is not looked at
        phase = FlossPhase(self.floss_epochs, k=k.clamp_min(1), clip=self.floss_clip, who=k > 0)
        schedule, rows = (phase, FitPhase(self.epochs)), []
        for items in self.items:
            for delay in self.delays:
                task = Recall(items, delay)
                model = self.model(study, task, ids)
                rows.append(self.learn(study.part(items, delay), model, task, schedule, ids)[1])
        final = torch.stack(rows).reshape(len(self.items), len(self.delays), *shape)
        variables = {"final_accuracy": (("items", "delay", "k", "seed"), final)}
        return variables, coordinates(items=self.items, delay=self.delays, k=self.ks)

    def checks(self, record: Record) -> list[Check]:
        """More items need more exponents, and that matters more than a longer delay."""
        needed, best = exponents_needed(record), record["final_accuracy"].mean(-1).max(-1)
        items, delay = (float(np.diff(needed.mean(axis)[[0, -1]])[0]) for axis in (1, 0))
        best_last = "best accuracy with most items, longest delay"
        most = "exponents needed, with most items minus with fewest"
        difference = "difference by items minus difference by delay"
        return [
            at_least("best", best_last, 0.6, best[-1, -1], kind="question"),
            at_least("items", most, 1.0, items, kind="question"),
            at_least("items and delay", difference, 0.0, items - delay, kind="question"),
        ]


def exponents_needed(record: Record) -> NDArray[np.float64]:
    """`(items, delay)`: the least k with 90% of what the best k brings; 0 where none is needed."""
    gain = record["final_accuracy"].mean(-1) - 0.5
    enough = gain >= 0.9 * gain.max(-1, keepdims=True)
    return np.asarray(record["k"][enough.argmax(-1)], np.float64)
