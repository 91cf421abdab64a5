"""Flossing episodes to the end of training: figure 12."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.episodes import (
    LONG,
    QUICK,
    Episodes,
    draw_norms,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import PAPER, Condition
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import bundle, label_accuracy
from lyaptorch.plots.style import PALETTE
from lyaptorch.plots.training import smooth
from lyaptorch.record import Record


@of_each_delay(3)
def by_schedule(record: Record, delay: int, axes: list[Axes]) -> None:
    """Accuracy, loss and |dL/dh0| over epochs: not flossed, flossed early, flossed throughout."""
    accuracy, loss, norms = axes
    for i, condition in enumerate(record["condition"]):
        for panel, name in ((accuracy, "accuracy"), (loss, "loss")):
            bundle(panel, smooth(record[name][i, delay], 5), PALETTE[i], str(condition), linewidth=1.4)
        draw_norms(norms, record["gradient_norm"][i, delay], PALETTE[i], record["measured_at"], linewidth=1.4)
    label_accuracy(accuracy, "epoch", f"delay {record['delay'][delay]}")
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    norms.set(xlabel="epoch")
    if delay == 0:
        handles, names = accuracy.get_legend_handles_labels()
        accuracy.figure.legend(handles, names, title="flossed", loc="outside right upper")


@declare(
    PAPER,
    "fig12",
    "flossing every 100 epochs to the end: accuracy, error, |dL/dh0| (a-c)",
    cost=("10 s", "1 min", LONG),
    smoke={**QUICK, "period": 4},
    small={"delays": (30,), "seeds": 2, "epochs": 1200, "floss_epochs": 200, "floss_clip": 1.0},
    draw=by_schedule,
)
@dataclass(frozen=True)
class Fig12(Episodes):
    """Accuracy, error and gradient norm: no flossing, early episodes, and episodes to the end.

    Attributes:
        period: task epochs between episodes of the networks that are flossed to the end.
    """

    period: int = 100

    def run(self, study: Study) -> Results:
        """`accuracy`, `loss (condition, delay, seed, epoch)`, `gradient_norm (..., measurement)`."""
        throughout = tuple(range(self.period, self.epochs, self.period))
        conditions = (
            Condition("none"),
            Condition("early", before=True, episodes=self.episodes),
            Condition("throughout", before=True, episodes=throughout),
        )
        metric, curves = "initial_gradient_norm", ("accuracy", "loss")
        variables, _ = self.trained(study, conditions, metric, "gradient_norm", curves=curves)
        return self.compared(conditions, variables)

    def checks(self, record: Record) -> list[Check]:
        """Accuracy drops at late episodes, and ends lower than with early episodes alone."""
        early, throughout = record["accuracy"][1:].reshape(2, -1, self.epochs)
        late = [e for e in range(self.period, self.epochs, self.period) if e > max(self.episodes)]
        few = max(1, self.period // 10)
        before = np.stack([throughout[:, e - few : e].mean(-1) for e in late])
        after = np.stack([throughout[:, e : e + few].mean(-1) for e in late])
        above = before > 0.6
        drops = (before - after)[above] > 0.05
        share = float(drops.mean()) if drops.size else float("nan")
        lead = float(early[:, -few:].mean() - throughout[:, -few:].mean())
        number = "networks and late episodes before which accuracy is above 0.6"
        lower = "of these, share after which accuracy is lower by 0.05"
        end = "accuracy at the end, early episodes alone above episodes to the end by"
        return [
            at_least("above", number, 1.0, float(above.sum()), source=self.source),
            at_least("drops", lower, 0.8, share, source=self.source),
            at_least("end", end, 0.02, lead, source=self.source),
        ]
