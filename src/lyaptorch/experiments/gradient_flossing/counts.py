"""How many exponents have to be flossed: figures 5 and 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.gradient_flossing.delays import HARD, DelaySweep, exceeds
from lyaptorch.experiments.gradient_flossing.frames import SOLVED
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition
from lyaptorch.record import Record

CHANCE = 0.6
"""Mean accuracy up to which networks count as being at chance."""


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

    figure: ClassVar[str] = "fig5"
    shows: ClassVar[str] = "accuracy on binary temporal XOR over k and delay, flossed during training (a, b)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "ks": (1, 12), "episode": 5},
        "small": {"delays": (20, 40), "ks": (1, 16, 75), "seeds": 3, "epochs": 1200, "floss_clip": 1.0},
    }

    def conditions(self) -> tuple[Condition, ...]:
        """Every schedule with every k."""
        return tuple(
            Condition(f"{schedule}, k = {k}", before=True, episodes=self._episodes(schedule), k=k)
            for schedule in self.schedules
            for k in self.ks
        )

    def checks(self, record: Record) -> list[Check]:
        """Longer delays need more exponents, and one exponent does not bridge a delay of 40."""
        found, delays = [], record["delay"]
        means = record["final_accuracy"].mean(-1).reshape(len(self.schedules), len(self.ks), -1)
        for schedule, accuracy in zip(self.schedules, means, strict=True):
            solved = accuracy >= SOLVED
            least = [
                min((k for k, yes in zip(self.ks, row, strict=True) if yes), default=0) for row in solved.T
            ]
            for (d, k), (longer, more) in pairwise(zip(delays.tolist(), least, strict=True)):
                if k and more:
                    sentence = f"{schedule}: least k that solves d = {longer}, at least that of d = {d}"
                    found.append(at_least(sentence, float(k), float(more)))
            for j, d in enumerate(delays.tolist()):
                gain = float(accuracy[-1, j] - accuracy[0, j])
                if d >= 40 and 1 in self.ks:
                    one = float(accuracy[self.ks.index(1), j])
                    found.append(at_most(f"{schedule}: accuracy at d = {d} with k = 1", CHANCE, one))
                    sentence = (
                        f"{schedule}: gain in accuracy at d = {d} of k = {self.ks[-1]} over {self.ks[0]}"
                    )
                    found.append(at_least(sentence, 0.1, gain))
        return found

    def _episodes(self, schedule: str) -> tuple[int, ...]:
        return (self.episode,) if schedule == "before and during" else ()


@dataclass(frozen=True)
class Fig7(Fig5):
    """Figure 5 with flossing before training alone beside flossing during training."""

    schedules: tuple[str, ...] = ("before and during", "before")

    figure: ClassVar[str] = "fig7"
    shows: ClassVar[str] = "accuracy over k and delay, flossed during training (a-c) or before it alone (d)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": Fig5.scales["smoke"],
        "small": {**Fig5.scales["small"], "delays": (40, 60), "ks": (16, 75), "seeds": 2},
    }

    def checks(self, record: Record) -> list[Check]:
        """As figure 5; and flossing all exponents before training does not replace flossing during it."""
        during, before = record["final_accuracy"].mean(-1).reshape(2, len(self.ks), -1)
        claim = f"k = {self.ks[-1]}, before and during exceeds before by"
        hard = record["delay"] >= min(HARD[0], self.delays[-1])
        gains = exceeds(record["delay"][hard], claim, during[-1, hard], before[-1, hard])
        return [*super().checks(record), *gains]
