"""Training under several conditions at several delays, and its picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.experiments.figure import Results
from lyaptorch.experiments.gradient_flossing.setting import Condition, Setting
from lyaptorch.experiments.study import Study
from lyaptorch.plots.curves import smooth
from lyaptorch.plots.primitives import Rows, bundle, level, look, picture, scores
from lyaptorch.record import Given, Record
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Model

A_DAY = "a day; minutes on a GPU"
"""What a sweep costs at paper scale."""
DIMS = ("condition", "delay", "seed")
BITS = (0.42, 1.03)
"""Limits of an axis of accuracies on bits."""
BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
"""Where a legend covers nothing: curves may run anywhere in a panel."""
Trained: TypeAlias = tuple[Model, LaggedTask, Tensor]
"""Networks, their task and their ids."""


@dataclass(frozen=True)
class DelaySweep(Setting):
    """Networks under several conditions, trained at several delays and tested."""

    def conditions(self) -> tuple[Condition, ...]:
        """What is compared."""
        return (Condition("none"), Condition("before", before=True))

    def run(self, study: Study) -> Results:
        """`accuracy`, `loss (condition, delay, seed, epoch)`, `final_accuracy`, `final_loss (...)`."""
        return self.swept(study)[0]

    def swept(self, study: Study) -> tuple[Results, Trained]:
        """What every Record of a sweep holds, and the trained networks."""
        conditions = self.conditions()
        model, task, ids = self.networks(conditions)
        record = self.train(study, model, task, conditions, ids)
        loss, accuracy = self.test(study, model, task, ids)
        flops = record["floss_flops"] if "floss_flops" in record else 0 * record["fit_flops"]
        share = flops / (flops + record["fit_flops"])
        variables: dict[str, Given] = {
            "accuracy": ((*DIMS, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "loss": ((*DIMS, "epoch"), record["loss"].reshape(*ids.shape, -1)),
            "final_accuracy": (DIMS, accuracy),
            "final_loss": (DIMS, loss),
            "floss_share": (DIMS, share.reshape(ids.shape)),
        }
        names = np.array([c.name for c in conditions])
        return self.found(variables, condition=(("condition",), names)), (model, task, ids)


@picture(lambda record: len(record["delay"]) + 1, width=3.0)
def sweep(record: Record, axes: list[Axes]) -> None:
    """Accuracy, or the error of numbers, over epochs for each delay, and after training against delay."""
    numbers = record.config["analogue"]
    name, label = ("loss", "mean squared error") if numbers else ("accuracy", "accuracy")
    for j, delay in enumerate(record["delay"]):
        curves(axes[j], record[name][:, j], record["condition"])
        axes[j].set(xlabel="epoch", ylabel=label, title=f"delay {delay}")
    points(axes[-1], record["delay"], record[f"final_{name}"], record["condition"])
    if not numbers:
        level(axes[-1], 0.5)
    for panel in axes:
        panel.set(**({"yscale": "log"} if numbers else {"ylim": BITS}))
    axes[-1].set(xlabel="delay", ylabel=label, title="After training")
    axes[-1].legend(title="flossed", **BESIDE)


def curves(axes: Axes, values: Rows, names: Iterable[object]) -> None:
    """A bundle over epochs for each group of `values (group, seed, epoch)`."""
    for i, (name, rows) in enumerate(zip(names, values, strict=True)):
        color, dash = look(i)
        bundle(axes, smooth(rows, 20), color, str(name), dash=dash)


def points(axes: Axes, x: NDArray[Any], values: Rows, names: Iterable[object]) -> None:
    """Scores over a setting x for each group of `values (group, x, seed)`."""
    for i, (name, rows) in enumerate(zip(names, values, strict=True)):
        color, dash = look(i)
        scores(axes, x, rows, color, str(name), dash=dash)
