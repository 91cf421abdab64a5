"""Binary networks on the delayed copy (appendix C), and flossing that trains the sharpness (section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.surrogate_flossing.networks import PAPER, binary_network
from lyaptorch.plots.primitives import PALETTE, learning, picture, scores
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import DelayedCopy, OneHotXOR
from lyaptorch.tasks.batch import Task

CONDITIONS = ("none", "before")
"""When networks are flossed."""
SOLVED = 0.95
"""Mean accuracy from which a delay counts as reached."""


@picture(2)
def copying(record: Record, axes: list[Axes]) -> None:
    """Accuracy against the delay, and over epochs at the longest."""
    delays, (final, curves) = record["delay"], axes
    for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        scores(final, delays, record["final_accuracy"][i], color, f"flossed: {condition}")
        learning(curves, record["accuracy"][i, -1], color, condition, f"delay {delays[-1]}")
    final.set(xlabel="delay", ylabel="accuracy", title="Delayed copy", ylim=(0.42, 1.03))
    final.legend()


@declare(
    PAPER,
    "appC-copy",
    "accuracy of binary networks on the delayed copy over delays, with and without flossing",
    cost=("1 s", "15 s", "1 hour"),
    smoke={
        "delays": (2, 3),
        "seeds": 2,
        "epochs": 10,
        "floss_epochs": 3,
        "hidden_size": 10,
        "batch": 3,
        "extra": 8,
    },
    small={"delays": (10, 16, 22, 30), "seeds": 3, "epochs": 600, "floss_epochs": 300},
    draw=copying,
)
@dataclass(frozen=True)
class AppCCopy(Figure):
    """Accuracy of binary networks on the delayed copy of bits, not flossed and flossed before training.

    The paper says that flossing helps on the copy task and gives no numbers: all settings are ours.
    Flossing trains W, V and b; the sharpness stays.

    Attributes:
        delays: of the copy.
        seeds: networks for each delay and condition.
        epochs: task steps.
        floss_epochs: flossing steps before training.
        k: exponents flossed.
        target: exponent to reach.
        clip: largest norm of a flossing gradient.
        lr: learning rate of the task.
        hidden_size: n.
        batch: trajectories of a task step.
        extra: steps of a trial beyond the delay.
    """

    delays: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 35, 40)
    seeds: int = 9
    epochs: int = 3000
    floss_epochs: int = 500
    k: int = 8
    target: float = 0.0
    clip: float = 1.0
    lr: float = 1e-3
    hidden_size: int = 80
    batch: int = 16
    extra: int = 45

    def run(self, study: Study) -> Results:
        """`accuracy (condition, delay, seed, epoch)` and `final_accuracy`."""
        shape = (len(CONDITIONS), len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        flossed = torch.tensor([False, True])[:, None, None].expand(shape)
        task = DelayedCopy(torch.tensor(self.delays)[None, :, None].expand(shape), binary=True)
        model = binary_network(task, self.hidden_size, self.batch, ids, self.seed, floss_sharpness=False)
        pre = FlossPhase(self.floss_epochs, k=self.k, target=self.target, clip=self.clip, who=flossed)
        trial = {"batch": self.batch, "length": max(self.delays) + self.extra, "member_ids": ids}
        record = study.train(model, task, (pre, FitPhase(self.epochs)), lr=self.lr, **trial)
        _, final = study.evaluate(model, task, **trial)
        dims = ("condition", "delay", "seed")
        variables = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final_accuracy": (dims, final),
        }
        coordinates = {
            "condition": (("condition",), np.array(CONDITIONS)),
            "delay": (("delay",), np.array(self.delays)),
        }
        return variables, coordinates

    def checks(self, record: Record) -> list[Check]:
        """Flossed networks solve a longer delay, and one that networks without flossing do not."""
        means, delays = record["final_accuracy"].mean(-1), record["delay"]
        none, flossed = (float(delays[row >= SOLVED].max(initial=0)) for row in means)
        gain, source = means[1] - means[0], "Surrogate Gradient Flossing, appendix C"
        sentence = "longest delay solved with flossing, beyond that without"
        return [
            at_least("longest delay", sentence, none + 1, flossed, source=source),
            at_least("largest gain", "largest gain in accuracy at one delay", 0.2, gain.max(), source=source),
            at_least("mean gain", "gain in accuracy, mean over delays", 0.0, gain.mean(), source=source),
        ]


"""When networks are flossed."""


@picture(3)
def limits(record: Record, axes: list[Axes]) -> None:
    """The sharpness that flossing leaves, and accuracy over epochs on both tasks."""
    sharpness, copy, xor = axes
    for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        values = record["sharpness"][i]
        sharpness.plot(np.full(len(values), i), values, "o", color=color, label=condition)
        learning(copy, record["copy"][i], color, condition, "Delayed copy")
        learning(xor, record["xor"][i], color, condition, "Delayed XOR")
    sharpness.set(ylabel="sharpness $g$", title="After flossing", ylim=(0, 1.1), xticks=[])
    sharpness.legend()


@declare(
    PAPER,
    "limits-g",
    "the sharpness collapses when flossing trains it: copy is learned, XOR is not",
    cost=("2 s", "40 s", "10 min"),
    smoke={
        "delay": 2,
        "seeds": 2,
        "epochs": 15,
        "floss_epochs": 5,
        "k": 10,
        "hidden_size": 12,
        "batch": 4,
        "extra": 10,
    },
    small={"seeds": 4},
    draw=limits,
)
@dataclass(frozen=True)
class LimitsG(Figure):
    """Flossing that trains the sharpness makes it small: the copy is still learned, the XOR is not.

    Attributes:
        delay: longest lag of both tasks.
        seeds: networks for each task and condition.
        epochs: task steps.
        floss_epochs: flossing steps before training.
        k: exponents flossed.
        lr: of flossing.
        clip: largest norm of a flossing gradient.
        hidden_size: n.
        batch: trajectories of a task step.
        extra: steps of a trial beyond the delay.
    """

    delay: int = 6
    seeds: int = 9
    epochs: int = 1000
    floss_epochs: int = 1000
    k: int = 75
    lr: float = 3e-3
    clip: float = 1.0
    hidden_size: int = 80
    batch: int = 16
    extra: int = 40

    def run(self, study: Study) -> Results:
        """`sharpness (condition, seed)`, `copy`, `xor (condition, seed, epoch)`: accuracies."""
        shape = (2, self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        flossed = torch.tensor([False, True])[:, None].expand(shape)
        pre = FlossPhase(self.floss_epochs, k=self.k, lr=self.lr, clip=self.clip, who=flossed)
        dims = ("condition", "seed")
        variables: dict[str, Any] = {}
        tasks: dict[str, Task] = {"copy": DelayedCopy(self.delay, binary=True), "xor": OneHotXOR(self.delay)}
        for name, task in tasks.items():
            model = binary_network(task, self.hidden_size, self.batch, ids, self.seed, floss_sharpness=True)
            record = study.part(name).train(
                model,
                task,
                (pre, FitPhase(self.epochs)),
                batch=self.batch,
                length=self.delay + self.extra,
                member_ids=ids,
            )
            variables[name] = ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1))
            variables["sharpness"] = (dims, model.state_dict()["cell.activation.sharpness"][..., 0, 0])
        return variables, {"condition": (("condition",), np.array(("none", "flossed")))}

    def checks(self, record: Record) -> list[Check]:
        """G falls below half; the copy is learned, the XOR is not, which unflossed networks learn."""
        copy, xor = (record[name][..., -50:].mean(-1).mean(-1) for name in ("copy", "xor"))
        sharpness, source = record["sharpness"][1].mean(), "Surrogate Gradient Flossing, section 6"
        return [
            at_most("sharpness", "flossed: mean sharpness, from 1", 0.5, sharpness, source=source),
            at_least("flossed copy", "flossed: accuracy of the copy", 0.95, copy[1], source=source),
            at_most("flossed xor", "flossed: accuracy of the XOR", 0.75, xor[1], source=source),
            at_least("plain xor", "not flossed: accuracy of the XOR", 0.95, xor[0], source=source),
        ]
