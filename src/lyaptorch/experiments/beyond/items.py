"""Items and delay: the exponents that each of them needs."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.learners import LEARNED, Learning, asks_at_least, figure
from lyaptorch.experiments.check import Checks, where
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.plots.primitives import (
    footnote,
    label_accuracy,
    level,
    look,
    picture,
    scores,
)
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Recall


@picture(lambda record: len(record["items"]), width=3.2)
def memories(record: Record, axes: list[Axes]) -> None:
    """Accuracy against the number of flossed exponents, a panel for each number of items."""
    places = np.arange(len(record["k"]))
    for i, (items, panel) in enumerate(zip(record["items"], axes, strict=True)):
        for j, delay in enumerate(record["delay"]):
            scores(panel, places, record["final_accuracy"][i, j], look(j)[0], f"delay {delay}")
        level(panel, 0.5)
        panel.set_xticks(places, [str(k) for k in record["k"]])
        label_accuracy(panel, "exponents flossed", f"{items} items")
    axes[0].legend()
    counted = f"n = {record['final_accuracy'].shape[-1]} networks"
    footnote(axes[0], counted, "each, and their mean", "dotted: chance")


@figure(
    "items-x-delay",
    "the Recall task: whether more items or a longer delay needs more exponents",
    cost=("2 s", "20 s", "2 h"),
    smoke={"items": (1, 2), "delays": (3, 5), "ks": (0, 1, 4)},
    small={"items": (2, 10), "delays": (20, 40), "ks": (0, 1, 4, 12, 30), "epochs": 500},
    draw=memories,
)
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
        # k is not looked at where nothing is flossed, but must be at least 1
        phase = self.flossing(k > 0, k=k.clamp_min(1))
        schedule, rows = (phase, FitPhase(self.epochs)), []
        for items in self.items:
            for delay in self.delays:
                task = Recall(items, delay)
                model, part = self.model(task, ids), study.part(items, delay)
                trained = part.learn(model, task, ids, ("k", "seed"), schedule=schedule, **self.trial)
                rows.append(trained[1])
        final = np.stack([np.asarray(row["final_accuracy"][1]) for row in rows])
        final = final.reshape(len(self.items), len(self.delays), *shape)
        variables: dict[str, Given] = {"final_accuracy": (("items", "delay", "k", "seed"), final)}
        return variables, coordinates(items=self.items, delay=self.delays, k=self.ks)

    def claims(self, record: Record) -> Checks:
        """More items need more exponents, and that matters more than a longer delay."""
        needed, best = exponents_needed(record), record["final_accuracy"].mean(-1).max(-1)
        # last minus first along one axis, averaged over the other
        items, delay = (float(np.diff(needed.mean(axis)[[0, -1]])[0]) for axis in (1, 0))
        sentence = "mean accuracy at the best k, most items and longest delay"
        yield asks_at_least("best", sentence, 0.6, best[-1, -1])
        # what is needed is known where something is learned: k = 0 is enough for nothing
        known = (record["final_accuracy"].mean(-1).max(-1) > LEARNED).all()
        more = "most − fewest items"
        sentence = f"exponents needed, {more} (mean over delays)"
        yield asks_at_least("items", sentence, 1.0, where(known, items))
        sentence = f"exponents needed, ({more}) − (longest − shortest delay)"
        # both may ask for as many
        yield asks_at_least("items and delay", sentence, 0.0, where(known and items != delay, items - delay))


def exponents_needed(record: Record) -> NDArray[np.float64]:
    """`(items, delay)`: the least k with 90% of what the best k brings; 0 where none is needed."""
    # beyond chance; where no k brings anything, all do 90% of nothing, and the first, k = 0, is taken
    gain = record["final_accuracy"].mean(-1) - 0.5
    enough = gain >= 0.9 * gain.max(-1, keepdims=True)
    return np.asarray(record["k"][enough.argmax(-1)], np.float64)
