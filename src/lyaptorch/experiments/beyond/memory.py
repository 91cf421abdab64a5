"""How long a memory flossing can reach: accuracy against d, up to the number of units and beyond."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lyaptorch.experiments.beyond.learning import Learning
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.record import Given, Record
from lyaptorch.schedules import At, FitPhase, Trigger, When, accuracy

CLAIMED = 70
"""The delay at which the paper claims more than 80% for n = 80."""


@dataclass(frozen=True)
class MemoryLimit(Learning):
    """Flossed networks learn the temporal XOR at delays around the number of units.

    The schedule: all exponents are flossed before training, in several episodes early in it, and later
    whenever a network is still at chance.

    Attributes:
        k: exponents flossed, here all.
        episodes: task epochs of the early episodes.
        every: task epochs between two looks at who is at chance, after the last of these.
        chance: accuracy below which a network is.
    """

    delays: tuple[int, ...] = (40, 50, 60, 70, 80, 90)
    seeds: int = 8
    epochs: int = 10_000
    k: int = 80
    episodes: tuple[int, ...] = (200, 400, 600, 800)
    every: int = 4000
    chance: float = 0.55

    figure: ClassVar[str] = "memory-limit"
    shows: ClassVar[str] = "accuracy against delay for n = 80, under the best schedule found"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Learning.SMOKE, "delays": (4, 8), "k": 8, "episodes": (2,), "every": 3},
        "small": {**Learning.SMALL, "delays": (20, 24, 28, 32), "epochs": 2000, "k": 32} | {"every": 1000},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "20 s", "paper": "a day; 1 h on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy (delay, seed, epoch)`, `final_accuracy (delay, seed)`."""
        model, task, ids = self.networks()
        phase = self.flossing(ids >= 0)
        early = Trigger(At(*self.episodes), phase)
        late = Trigger(When(accuracy < self.chance, after=self.episodes[-1] + 1), phase)
        fit = FitPhase(self.epochs, triggers=(early, late), check_every=self.every)
        record, final = self.learn(model, task, (phase, fit), ids, checkpoint, show_progress)
        dims = ("delay", "seed")
        variables: dict[str, Given] = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape[1:], -1)),
            "final_accuracy": (dims, final[0]),
        }
        delays: dict[str, Given] = {"delay": (("delay",), np.array(self.delays))}
        return Record(f"beyond {self.figure}", asdict(self), variables, delays)

    def checks(self, record: Record) -> list[Check]:
        """The paper's claim, d = 70 of 80 units, in the same proportion for other n; and d = n."""
        found, n = [], self.hidden_size
        mean = record["final_accuracy"].mean(-1)
        for i, delay in enumerate(record["delay"].tolist()):
            share = delay / n
            if share <= CLAIMED / 80:
                found.append(
                    at_least(f"accuracy at d = {delay}, {share:.0%} of n = {n}", 0.8, float(mean[i]))
                )
            else:
                found.append(
                    at_least(f"better than chance at d = {delay}, {share:.0%} of n", 0.55, float(mean[i]))
                )
        return found
