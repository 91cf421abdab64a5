"""Controls: linear networks (appendix E), and what does not replace flossing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, Study, declare, mean_field_gain
from lyaptorch.experiments.gradient_flossing.counts import CHANCE, SOLVED
from lyaptorch.experiments.gradient_flossing.delay_sweep import A_DAY, BITS, DelaySweep, curves, points
from lyaptorch.experiments.gradient_flossing.setting import LAGGED, PAPER, SMOKE, Condition
from lyaptorch.plots.primitives import GREY, label_accuracy, look, picture
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


UNCLIPPED = 1e6
"""A norm that no gradient reaches."""


@picture(lambda record: 2 * len(record["delay"]), width=3.6, height=3.3)
def conditions(record: Record, axes: list[Axes]) -> None:
    """Accuracy over epochs, and after training a row for each condition, for each delay."""
    names = [str(name) for name in record["condition"]]
    for j, delay in enumerate(record["delay"]):
        over_epochs, final = axes[2 * j : 2 * j + 2]
        curves(over_epochs, record["accuracy"][:, j], names)
        for i, rows in enumerate(record["final_accuracy"][:, j]):
            color, _ = look(i)
            final.plot(rows, np.full(len(rows), i), "o", color=color, alpha=0.4, markersize=4)
            final.plot(rows.mean(), i, "|", color=color, markersize=16, markeredgewidth=2)
        label_accuracy(over_epochs, "epoch", f"delay {delay}")
        final.axvline(0.5, color=GREY, linestyle=":", linewidth=0.8)
        final.set_yticks(range(len(names)), names)
        final.invert_yaxis()
        final.set(xlabel="accuracy", xlim=BITS, title="After training")
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside lower center", ncols=4)


@declare(
    PAPER,
    "controls",
    "penalties on single steps, gain and clipping in place of flossing; joint loss",
    cost=("2 s", "2 min", A_DAY),
    smoke={**SMOKE, "delays": (4,)},
    small={"delays": (30,), "seeds": 2, "epochs": 1000, "floss_epochs": 400, "floss_clip": 1.0},
    draw=conditions,
)
@dataclass(frozen=True)
class Controls(DelaySweep):
    """Flossing beside what could replace it, on the binary temporal XOR.

    Three penalties that look at single steps, minimised before training as exponents are; the gain at which
    mean-field theory puts lambda_1 at 0; task gradients that are not clipped; and the flossing loss added to
    the task loss instead of phases of its own, which is no control but flossing in another form.

    Attributes:
        joint_weight: of the flossing loss beside the task loss; ours.
    """

    delays: tuple[int, ...] = (40,)
    joint_weight: float = 0.1

    def conditions(self) -> tuple[Condition, ...]:
        """Flossing first, then what leaves networks at chance, then the joint loss."""
        gain = mean_field_gain(LAGGED[self.task](torch.tensor(self.delays[0])))
        return (
            Condition("flossing before", before=True),
            Condition("none"),
            Condition("spectral radius", before=True, penalty="spectral_radius"),
            Condition("one-step Jacobians", before=True, penalty="one_step_jacobians"),
            Condition("mean-field slope", before=True, penalty="mean_field_slope"),
            Condition("mean-field gain", gain=gain),
            Condition("no clipping", clip=UNCLIPPED),
            Condition("joint loss", flossing_weight=self.joint_weight),
        )

    def checks(self, record: Record) -> list[Check]:
        """Controls stay at chance where flossing solves."""
        found, source = [], "Gradient Flossing, section 9"
        for j, delay in enumerate(record["delay"].tolist()):
            for i, name in enumerate(record["condition"]):
                key, sentence = f"{name}, d {delay}", f"d = {delay}: accuracy, {name}"
                mean = record["final_accuracy"][i, j].mean()
                if i == 0:
                    found.append(at_least(key, sentence, SOLVED, mean, source=source))
                elif name != "joint loss":
                    found.append(at_most(key, sentence, CHANCE, mean, source=source))
        return found
