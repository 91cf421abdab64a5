"""Figure 12: flossing to the end of training."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import Checks, at_least, at_most, beyond_error, typical, where
from lyaptorch.experiments.gradient_flossing.comparisons import CHANCE, SOLVED, share
from lyaptorch.experiments.gradient_flossing.episodes import (
    Episodes,
    beside,
    draw_norms,
    lettered,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import Condition, bundles, figure, number, smoothed
from lyaptorch.experiments.thinning import resolution
from lyaptorch.plots.primitives import PALETTE, TINY, Rows, footnote, label_accuracy, smooth
from lyaptorch.record import Record

ALL_RIGHT = 0.999
"""Accuracy that counts as 100%."""
BRIEFLY = 5
"""Epochs over which curves are averaged that fall within ten."""


@of_each_delay(3)
def by_schedule(record: Record, delay: int, axes: list[Axes]) -> None:
    """Accuracy, loss and |dL/dh0| over epochs: not flossed, flossed early, flossed throughout."""
    accuracy, loss, norms = axes
    for panel, name in ((accuracy, "accuracy"), (loss, "loss")):
        bundles(panel, smooth(record[name][:, delay], BRIEFLY), record["condition"], linewidth=1.4)
    for rows, color in zip(record["gradient_norm"][:, delay], PALETTE, strict=False):
        draw_norms(norms, rows, color, record["measured_at"], linewidth=1.4)
    label_accuracy(accuracy, "epoch", f"delay {record['delay'][delay]}")
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    norms.set(xlabel="epoch")
    if delay == 0:
        beside(accuracy)
        said = "thick: means (A, B), geometric means (C); bands: 25 to 75%; thin: each"
        footnote(accuracy, number(record), said, f"A, B: {smoothed(record, BRIEFLY)}")
    lettered(delay, axes)


@figure(
    "fig12",
    "flossing every 100 epochs to the end: accuracy, error, |dL/dh0| (a-c)",
    cost=("10 s", "90 s"),
    smoke={"period": 4},
    small={"delays": (30,), "seeds": 3, "epochs": 1200, "floss_epochs": 200},
    draw=by_schedule,
)
class Fig12(Episodes):
    """Accuracy, error and gradient norm: no flossing, early episodes, and episodes to the end.

    Attributes:
        period: task epochs between episodes of the networks that are flossed to the end.
    """

    period: int = 100

    curves: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def conditions(self) -> tuple[Condition, ...]:
        """None, early, and to the end."""
        throughout = tuple(range(self.period, self.epochs, self.period))
        return (
            Condition("none"),
            Condition("early", before=True, episodes=self.episodes),
            Condition("throughout", before=True, episodes=throughout),
        )

    def claims(self, record: Record) -> Checks:
        """Accuracy drops at late episodes, never reaches 100%, and ends lower than with early ones alone."""
        early, throughout = record["accuracy"][1:].reshape(2, -1, self.epochs)
        late = [e for e in range(self.period, self.epochs, self.period) if e > max(self.episodes)]
        # accuracy is back within a period, so that only the first epochs after an episode show the drop
        few = max(1, self.period // 10)
        # of each group, late episode and network
        groups = np.stack([early, throughout])
        before = np.stack([groups[..., e - few : e].mean(-1) for e in late], 1)
        after = np.stack([groups[..., e : e + few].mean(-1) for e in late], 1)
        # at chance there is nothing to drop
        drop, above = before - after > 0.05, before > CHANCE
        # the null: how often the twin drops, whose episodes are over
        by_chance = share(drop[0][above[0]])
        drops = where(above[1].any(), share(drop[1][above[1]]) - (0 if math.isnan(by_chance) else by_chance))
        lead = early[:, -few:].mean(-1) - throughout[:, -few:].mean(-1)
        late_only, both = "episodes to the end", "episodes to the end − early episodes only"
        lower = f"share of late episodes followed by a drop in accuracy > 0.05, {both} (same epochs)"
        end = f"mean accuracy in the last {few} epochs, early episodes only − {late_only}"
        yield at_least("drops", lower, 0.8, drops, source=self.source, part_of="drops")
        sentence = (
            f"median accuracy in the {few} epochs after a late episode (networks above chance before it)"
        )
        close = typical(after[1][above[1]])
        yield at_most("drops to chance", sentence, CHANCE, close, source=self.source, part_of="drops")
        loss = record["loss"][1:].reshape(2, -1, self.epochs)
        jump = np.stack([loss[..., e : e + few].mean(-1) / loss[..., e - few : e].mean(-1) for e in late], 1)
        up = typical(jump[1][above[1]]) / typical(jump[0][above[0]])
        sentence = f"jump factor of the loss at late episodes, {late_only} / early episodes only (medians)"
        yield at_least("error jumps", sentence, 2.0, up, source=self.source)
        # what it was before an episode against what it is before the next one, where it dropped
        back = (before[1, 1:] > before[1, :-1] - 0.05)[(above & drop)[1, :-1]]
        sentence = "share of drops > 0.05 at late episodes recovered (to within 0.05) before the next episode"
        yield at_least("recovers", sentence, 0.8, share(back), source=self.source)
        learn = max(early[:, -few:].mean(), throughout[:, -few:].mean()) > CHANCE
        yield at_least("end", end, 0.02, where(learn, beyond_error(lead, 0.02)), source=self.source)
        yield from self._never(early, throughout, late, few)
        yield from self._alike(record, late)

    def _never(self, early: Rows, throughout: Rows, late: list[int], few: int) -> Checks:
        """Between late episodes accuracy never reaches 100%, where it does with early episodes alone."""
        # a point of a thinned curve may stand for more
        few = max(few, resolution(self.epochs))
        best = [
            np.stack([smooth(rows, few)[:, e + few : e + self.period].max(-1) for e in late])
            for rows in (early, throughout)
        ]
        reaches = best[0] >= ALL_RIGHT
        sentence = (
            f"share of late periods with {few}-epoch accuracy >= {ALL_RIGHT}, among those in which the "
            "network with early episodes only reaches it"
        )
        reached = share((best[1] >= ALL_RIGHT)[reaches])
        yield at_most("never", sentence, 0.0, reached, source=self.source)

    def _alike(self, record: Record, late: list[int]) -> Checks:
        """Once the gradient is large, episodes leave it as it is."""
        at, (early, throughout) = record["measured_at"], record["gradient_norm"][1:]
        # the last measurement before each late episode, of networks that have learned in both groups
        places = np.searchsorted(at, late) - 1
        solved = np.isfinite(onset(torch.from_numpy(record["accuracy"][1:]), SOLVED).numpy()).all(0)
        ratio = np.maximum(throughout, TINY)[solved][:, places] / np.maximum(early, TINY)[solved][:, places]
        sentence = (
            "|log10 ratio| of |dL/dh0| before late episodes, episodes to the end / early episodes only "
            "(median over networks that solve the task in both)"
        )
        yield at_most("norms alike", sentence, 0.5, typical(np.abs(np.log10(ratio))), source=self.source)
