"""The longest memory that flossing reaches: accuracy against d, up to the number of units and beyond."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes

from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import label_accuracy, level, picture
from lyaptorch.plots.style import GREY, PALETTE
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record
from lyaptorch.schedules import At, FitPhase, Trigger, When, accuracy

CLAIMED = 70
"""The delay at which the paper claims more than 80% for n = 80."""


@picture(2, width=4.0)
def limit(record: Record, axes: list[Axes]) -> None:
    """Accuracy over epochs at each delay, and after training against delay."""
    (curves, last), n = axes, record.config["hidden_size"]
    for j, (delay, final) in enumerate(zip(record["delay"], record["final_accuracy"], strict=True)):
        color = PALETTE[j % len(PALETTE)]
        curves.plot(smooth(record["accuracy"][j], 20).mean(0), color=color, label=f"$d = {delay}$")
        last.plot([delay] * len(final), final, "o", color=color, alpha=0.4)
    last.plot(record["delay"], record["final_accuracy"].mean(-1), color=GREY, linewidth=1.4)
    level(last, 0.5)
    last.axvline(n, color=GREY, linestyle="--", linewidth=0.8)
    last.annotate(f"$n = {n}$", (n, 0.95), ha="right", color=GREY)
    label_accuracy(curves, "epoch", "Learning, mean over networks")
    label_accuracy(last, "delay $d$", "After training")
    curves.legend()


@declare(
    PAPER,
    "memory-limit",
    "accuracy against delay for n = 80, under the best schedule found",
    cost=("2 s", "20 s", "a day; 1 h on a GPU"),
    smoke={**SMOKE, "delays": (4, 8), "k": 8, "episodes": (2,), "every": 3},
    small={**SMALL, "delays": (20, 24, 28, 32), "epochs": 2000, "k": 32, "every": 1000},
    draw=limit,
)
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

    def run(self, study: Study) -> Results:
        """`accuracy (delay, seed, epoch)`, `final_accuracy (delay, seed)`."""
        model, task, ids = self.networks()
        phase = self.flossing(ids >= 0)
        early = Trigger(At(*self.episodes), phase)
        late = Trigger(When(accuracy < self.chance, after=self.episodes[-1] + 1), phase)
        fit = FitPhase(self.epochs, triggers=(early, late), check_every=self.every)
        record, final = self.learn(study, model, task, (phase, fit), ids)
        dims = ("delay", "seed")
        curves = record["accuracy"].reshape(*ids.shape[1:], -1)
        return self.found({"accuracy": ((*dims, "epoch"), curves), "final_accuracy": (dims, final[0])})

    def checks(self, record: Record) -> list[Check]:
        """The paper's claim, d = 70 of 80 units, in the same proportion for other n; and d = n."""
        found, n = [], self.hidden_size
        mean = record["final_accuracy"].mean(-1)
        for reached, delay in zip(mean, record["delay"].tolist(), strict=True):
            key, share = f"d {delay}", delay / n
            if share <= CLAIMED / 80:
                sentence = f"accuracy at d = {delay}, {share:.0%} of n = {n}"
                found.append(
                    at_least(key, sentence, 0.8, reached, source="Gradient Flossing, d = 70 of n = 80")
                )
            else:
                sentence = f"better than chance at d = {delay}, {share:.0%} of n"
                found.append(at_least(key, sentence, 0.55, reached, kind="question"))
        return found
