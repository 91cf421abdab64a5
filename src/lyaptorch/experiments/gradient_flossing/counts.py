"""How many exponents have to be flossed: figures 5 and 7."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import declare
from lyaptorch.experiments.gradient_flossing.delay_sweep import A_DAY, BESIDE, DelaySweep, points
from lyaptorch.experiments.gradient_flossing.delays import HARD, exceeds
from lyaptorch.experiments.gradient_flossing.frames import SOLVED
from lyaptorch.experiments.gradient_flossing.setting import PAPER, SMOKE, Condition
from lyaptorch.plots.primitives import label_accuracy, level, picture
from lyaptorch.record import Record

CHANCE = 0.6
"""Mean accuracy up to which networks count as being at chance."""


@picture(lambda record: 2 * len(record.config["schedules"]), width=3.2)
def counts(record: Record, axes: list[Axes]) -> None:
    """Accuracy against delay for each k, and against k for each delay, for each schedule."""
    ks, schedules, delays = record.config["ks"], record.config["schedules"], record["delay"]
    final = record["final_accuracy"].reshape(len(schedules), len(ks), len(delays), -1)
    for row, schedule in enumerate(schedules):
        left, right = axes[2 * row : 2 * row + 2]
        points(left, delays, final[row], [f"$k = {k}$" for k in ks])
        points(right, np.asarray(ks), final[row].swapaxes(0, 1), [f"$d = {delay}$" for delay in delays])
        for panel, label in ((left, "delay"), (right, "exponents flossed $k$")):
            level(panel, 0.5)
            label_accuracy(panel, label, f"Flossed {schedule}")
            panel.legend(**BESIDE)


@declare(
    PAPER,
    "fig5",
    "accuracy on binary temporal XOR over k and delay, flossed during training (a, b)",
    cost=("2 s", "2 min", A_DAY),
    smoke={**SMOKE, "ks": (1, 12), "episode": 5},
    small={"delays": (20, 40), "ks": (1, 16, 75), "seeds": 3, "epochs": 1200, "floss_clip": 1.0},
    draw=counts,
)
@dataclass(frozen=True)
class Fig5(DelaySweep):
    """Accuracy on the binary temporal XOR over k and delay, with flossing before and during training.

    Attributes:
        ks: numbers of exponents flossed.
        episode: task epoch of the episode during training.
        schedules: when networks are flossed; figure 7 has both.
    """

    delays: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70)
    epochs: int = 10_000
    ks: tuple[int, ...] = (1, 5, 10, 20, 40, 60, 75)
    episode: int = 500
    schedules: tuple[str, ...] = ("before and during",)

    def conditions(self) -> tuple[Condition, ...]:
        """Every schedule with every k."""
        return tuple(
            Condition(f"{schedule}, k = {k}", before=True, episodes=self._episodes(schedule), k=k)
            for schedule in self.schedules
            for k in self.ks
        )

    def checks(self, record: Record) -> list[Check]:
        """Longer delays need more exponents, and one exponent does not bridge a delay of 40."""
        found, delays = [], record["delay"].tolist()
        means = record["final_accuracy"].mean(-1).reshape(len(self.schedules), len(self.ks), -1)
        for schedule, accuracy in zip(self.schedules, means, strict=True):
            least = [
                min((k for k, yes in zip(self.ks, row, strict=True) if yes), default=0)
                for row in (accuracy >= SOLVED).T
            ]
            for (d, k), (longer, more) in pairwise(zip(delays, least, strict=True)):
                if k and more:
                    key = f"{schedule}, least k at d {longer}"
                    sentence = f"{schedule}: least k that solves d = {longer}, at least that of d = {d}"
                    found.append(at_least(key, sentence, k, more, source=self.source))
            for j, d in enumerate(delays):
                if d >= 40 and 1 in self.ks:
                    key, one = f"{schedule}, d {d}", accuracy[self.ks.index(1), j]
                    sentence = f"{schedule}: accuracy at d = {d} with k = 1"
                    found.append(at_most(f"{key}, k 1", sentence, CHANCE, one, source=self.source))
                    gain, ends = accuracy[-1, j] - accuracy[0, j], f"k = {self.ks[-1]} over {self.ks[0]}"
                    sentence = f"{schedule}: gain in accuracy at d = {d} of {ends}"
                    found.append(at_least(f"{key}, gain", sentence, 0.1, gain, source=self.source))
        return found

    def _episodes(self, schedule: str) -> tuple[int, ...]:
        return (self.episode,) if schedule == "before and during" else ()


@declare(
    PAPER,
    "fig7",
    "accuracy over k and delay, flossed during training (a-c) or before it alone (d)",
    cost=("2 s", "2 min", A_DAY),
    smoke=Fig5.scales["smoke"],
    small={**Fig5.scales["small"], "delays": (40, 60), "ks": (16, 75), "seeds": 2},
    draw=counts,
)
@dataclass(frozen=True)
class Fig7(Fig5):
    """Figure 5 with flossing before training alone beside flossing during training."""

    schedules: tuple[str, ...] = ("before and during", "before")

    def checks(self, record: Record) -> list[Check]:
        """As figure 5; and flossing all exponents before training does not replace flossing during it."""
        during, before = record["final_accuracy"].mean(-1).reshape(2, len(self.ks), -1)[:, -1]
        hard = record["delay"] >= min(HARD[0], self.delays[-1])
        both = f"k = {self.ks[-1]}, before and during"
        gains = exceeds(both, "before", record["delay"][hard], during[hard], before[hard], self.source)
        return [*super().checks(record), *gains]
