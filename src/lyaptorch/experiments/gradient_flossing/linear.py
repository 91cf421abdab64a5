"""Linear networks, which can copy but not combine: appendix E."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.delay_sweep import A_DAY, DelaySweep, curves, points
from lyaptorch.experiments.gradient_flossing.setting import PAPER, SMOKE, Condition
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import picture
from lyaptorch.record import Given, Record

TASKS = ("delayed_copy", "temporal_xor")


@picture(lambda record: 2 * len(record["task"]), width=3.0)
def explained(record: Record, axes: list[Axes]) -> None:
    """Variance explained against delay, and over epochs at the longest one, for each task."""
    names, label = record["condition"], "variance explained"
    for row, task in enumerate(record["task"]):
        over_epochs, final = axes[2 * row : 2 * row + 2]
        curves(over_epochs, record["accuracy"][row, :, -1].clip(-1), names)
        points(final, record["delay"], record["final_accuracy"][row].clip(-1), names)
        title = str(task).replace("_", " ")
        over_epochs.set(xlabel="epoch", ylabel=label, title=f"{title}, d = {record['delay'][-1]}")
        final.set(xlabel="delay", ylabel=label, title=f"{title}, after training", ylim=(-1.05, 1.05))
        final.legend(title="flossed")


@declare(
    PAPER,
    "appE",
    "linear networks, preflossed or not, on the copy and the temporal XOR of numbers",
    cost=("2 s", "50 s", A_DAY),
    smoke=SMOKE,
    small={"delays": (20, 40), "seeds": 2, "epochs": 600, "floss_clip": 1.0},
    draw=explained,
)
@dataclass(frozen=True)
class LinearNetworks(DelaySweep):
    """Share of variance explained by linear networks, preflossed or not: copy and temporal XOR of numbers.

    Of the temporal XOR no linear function of the inputs explains any variance. The paper gives no numbers;
    the gain is below 1 because a Gaussian matrix of gain 1 has a spectral radius a little above 1, and a
    linear network then runs away.

    Attributes:
        gain: of the initial weights.
    """

    task: str = "both"
    analogue: bool = True
    delays: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70)
    activation: str = "linear"
    gain: float = 0.8

    def conditions(self) -> tuple[Condition, ...]:
        """None and before, at the gain."""
        return (Condition("none", gain=self.gain), Condition("before", before=True, gain=self.gain))

    def run(self, study: Study) -> Results:
        """The variables of a sweep, each with `task` as first dimension."""
        found = [replace(self, task=task).swept(study.part(task))[0] for task in TASKS]
        each, coordinates = [variables for variables, _ in found], found[0][1]
        variables: dict[str, Given] = {
            name: (("task", *given[0]), np.stack([np.asarray(one[name][1]) for one in each]))
            for name, given in each[0].items()
        }
        return variables, {**coordinates, "task": (("task",), np.array(TASKS))}

    def checks(self, record: Record) -> list[Check]:
        """Flossing helps to copy; no linear network solves the XOR."""
        copy, xor = record["final_accuracy"].mean(-1)
        gain, sentence = copy[1] - copy[0], "copy: variance explained, gain of flossing at its best"
        found = [at_least("copy", sentence, 0.1, gain.max(), source="Gradient Flossing, appendix E")]
        for condition, row in zip(record["condition"], xor, strict=True):
            name = "not flossed" if condition == "none" else f"flossed {condition}"
            key, sentence = f"temporal XOR, {condition}", f"temporal XOR: most variance explained, {name}"
            found.append(at_most(key, sentence, 0.1, row.max(), kind="identity", source="theory"))
        return found
