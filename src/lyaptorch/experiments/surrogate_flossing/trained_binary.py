"""Binary networks that learn, flossed before or not: delayed copy (appendix C), limits (section 6)."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from lyaptorch._types import Number
from lyaptorch.cells import BinaryCell
from lyaptorch.experiments.check import Checks, at_least, at_most, beyond_error, failing, where
from lyaptorch.experiments.figure import Along, Figure, Results, Scales, Study, coordinates
from lyaptorch.experiments.surrogate_flossing.random_binary import TITLE, copies, figure
from lyaptorch.plots.primitives import PALETTE, TINY, footnote, learning, picture, scores
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase, Schedule
from lyaptorch.tasks import DelayedCopy, OneHotXOR
from lyaptorch.tasks.batch import Task
from lyaptorch.training import Model, Readout
from lyaptorch.training.model import settled_state

SOLVED = 0.95
"""Mean accuracy from which a delay counts as reached."""


class Learning(Figure):
    """Networks that learn a task, some of them flossed.

    Attributes:
        seeds: networks for each task, delay and condition.
        first: the number of the first of them.
        hidden_size: units n.
        epochs: task steps.
        floss_epochs: flossing steps before training.
        k: exponents flossed.
        batch: trials of a task step.
    """

    seeds: int = 9
    first: int = 0
    hidden_size: int = 80
    epochs: int = 3000
    floss_epochs: int = 500
    k: int = 8
    batch: int = 16

    cut: ClassVar[tuple[Along, ...]] = (Along("seed", "seeds"),)

    def flossing(self, who: Tensor, **more: Any) -> FlossPhase:
        """What is done before training to those who are flossed."""
        return FlossPhase(self.floss_epochs, k=self.k, who=who, **more)

    def learn(
        self,
        study: Study,
        model: Model,
        task: Task,
        schedule: Schedule,
        ids: Tensor,
        length: int,
        every: int = 0,
        **settings: Any,
    ) -> dict[str, Any]:
        """Train networks `ids (condition, seed)`, or of several delays between these, and test them.

        Returns accuracies, over epochs and in the end; with `every` also |dL/dh0|, measured that often, and
        the sharpness in the end. Then members that overflow are marked and left out from there on.
        """
        # sharp surrogates make gradients overflow
        if every:
            settings |= {"metrics": ("initial_gradient_norm",), "metrics_every": every, "unstable": "mark"}
        settings |= {"schedule": schedule, "batch": self.batch, "steps": length}
        dims = ("condition", *("setting", "delay")[4 - ids.dim() :], "seed")
        record, found = study.learn(model, task, ids, dims, **settings)
        if every:
            norms = record["initial_gradient_norm"].reshape(*ids.shape, -1)
            found["gradient_norm"] = ((*dims, "measurement"), norms)
            found["sharpness"] = (dims, final_sharpness(model))
        return found


def final_sharpness(model: Model) -> Tensor:
    """The sharpness of the surrogate of each network."""
    sharpness: Tensor = model.state_dict()["cell.activation.sharpness"][..., 0, 0]
    return sharpness


class BinaryLearning(Learning):
    """Binary networks that learn.

    Attributes:
        clip: largest norm of a flossing gradient.
        extra: steps of a trial beyond the delay.
    """

    clip: float = 1.0
    extra: int = 45

    scales: ClassVar[Scales] = {
        "smoke": {"seeds": 2, "epochs": 15, "hidden_size": 12, "batch": 4, "extra": 10},
        "small": {},
    }

    def network(
        self,
        study: Study,
        task: Task,
        ids: Tensor,
        sharpness: Number = 1.0,
        rows: int | None = None,
        input_scale: Number = 1.0,
        readout_scale: float = 1.0,
    ) -> Model:
        """Networks with a trained initial state of so many rows, as many as trials when missing.

        W ~ N(0, 1/n), V ~ N(0, input_scale^2), b ~ U(0, 0.1); the readout's weights are
        N(0, readout_scale^2 / n). The bias and the scale of the readout are ours: the paper prints neither.
        A sharpness that is a parameter is trained by flossing.
        """
        n, networks = self.hidden_size, study.ensemble(ids)
        cell = BinaryCell(task.input_size, n, sharpness=sharpness, **networks)
        with torch.no_grad():
            # in place: the draws stay those of scale 1
            cell.weight_ih.mul_(torch.as_tensor(input_scale).expand(ids.shape)[..., None, None])
        readout = Readout(n, task.output_size, scale=readout_scale * n**-0.5, **networks)
        # cell, readout and state take a seed from one generator after the other
        h0 = settled_state(cell, rows or self.batch, member_ids=ids, generator=networks["generator"])
        return Model(cell, readout, h0=h0, loss=task.loss)


def arriving(axes: Axes, norms: NDArray[Any], record: Record, color: str, title: str, alpha: float) -> None:
    """|dL/dh0| over epochs, a curve for each network."""
    epochs = np.arange(norms.shape[-1]) * record.config["every"]
    axes.semilogy(epochs, np.maximum(norms, TINY).T, color=color, alpha=alpha, linewidth=0.8)
    axes.set(xlabel="epoch", ylabel=r"$|dL/dh_0|$", title=title)


def tuned(record: Record) -> NDArray[np.intp]:
    """For each condition the place of the setting with the best mean accuracy over delays and seeds."""
    return np.asarray(record["final_accuracy"].mean((-1, -2)).argmax(-1))


@picture(2)
def copying(record: Record, axes: list[Axes]) -> None:
    """Accuracy against the delay, and over epochs at the longest, at the best setting of each condition."""
    delays, (final, curves) = record["delay"], axes
    for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        at = tuned(record)[i]
        lr, g = record["learning_rate"][at], record["sharpness"][at]
        label = f"flossed: {condition}, rate {lr:g}, $g = {g:g}$"
        scores(final, delays, record["final_accuracy"][i, at], color, label)
        learning(curves, record["accuracy"][i, at, -1], color, str(condition), f"delay {delays[-1]}")
    final.set(xlabel="delay", ylabel="accuracy", title="Delayed copy", ylim=(0.42, 1.03))
    final.legend()
    counted = f"n = {record['final_accuracy'].shape[-1]} networks, each shown thin"
    footnote(final, counted, "left: mean", "right: median, running mean of 20 epochs")


@figure(
    "appC-copy",
    "accuracy of binary networks on the delayed copy over delays, with and without flossing",
    cost=("1 s", "2 min", "4 hours"),
    smoke={
        "delays": (2, 3),
        "epochs": 10,
        "floss_epochs": 3,
        "hidden_size": 10,
        "batch": 3,
        "extra": 8,
    },
    small={"delays": (10, 16, 22, 30), "seeds": 3, "epochs": 600, "floss_epochs": 300},
    draw=copying,
)
class AppCCopy(BinaryLearning):
    """Accuracy of binary networks on the delayed copy of bits, not flossed and flossed before training.

    The paper says that flossing helps on the copy task and gives no numbers: all settings are ours. Flossing
    trains W, V and b; the sharpness stays. Both conditions have the same choice of learning rates and
    sharpnesses, and each is judged at its best.

    Attributes:
        delays: of the copy.
        target: exponent to reach.
        lrs: learning rates of the task.
        sharpnesses: of the surrogate.
    """

    delays: tuple[int, ...] = (5, 10, 15, 20, 25, 30, 35, 40)
    target: float = 0.0
    lrs: tuple[float, ...] = (1e-3, 3e-3)
    sharpnesses: tuple[float, ...] = (1.0, 0.7)

    def run(self, study: Study) -> Results:
        """`accuracy (condition, setting, delay, seed, epoch)` and `final_accuracy`."""
        settings = list(product(self.lrs, self.sharpnesses))
        ids, condition = copies(2, len(settings), len(self.delays), self.seeds, first=self.first)
        rates, sharpnesses = zip(*settings, strict=True)
        lr, g = (torch.tensor(z)[:, None, None].expand(ids.shape).clone() for z in (rates, sharpnesses))
        # one ensemble holds all delays; its trials are as long as the longest delay needs
        task = DelayedCopy(torch.tensor(self.delays)[:, None].expand(ids.shape), binary=True)
        model = self.network(study, task, ids, g)
        pre = self.flossing(condition == 1, target=self.target, clip=self.clip)
        schedule, length = (pre, FitPhase(self.epochs)), max(self.delays) + self.extra
        variables = self.learn(study, model, task, schedule, ids, length, lr=lr)
        along = {"learning_rate": (("setting",), rates), "sharpness": (("setting",), sharpnesses)}
        return variables, {**coordinates(condition=("none", "before"), delay=self.delays), **along}

    def claims(self, record: Record) -> Checks:
        """Flossed networks solve a longer delay, and learn better where not all is learned by both."""
        finals = [z[at] for z, at in zip(record["final_accuracy"], tuned(record), strict=True)]
        plain, flossed = (final.mean(-1) for final in finals)
        delays, least = record["delay"], partial(at_least, source=f"{TITLE}, appendix C")
        # 0 where none is solved
        longest, reached = (float(delays[row >= SOLVED].max(initial=0)) for row in (plain, flossed))
        sentence = "longest delay solved, flossed before training (bound: not flossed + 1; best settings)"
        # where both solve nothing, or the longest, neither is beyond the other
        told = where(max(longest, reached) > 0 and min(longest, reached) < delays.max(), reached)
        yield least("longest delay", sentence, longest + 1, told)
        # delays that tell: somebody learns something, and not both all
        tells = (np.maximum(plain, flossed) > 0.6) & (np.minimum(plain, flossed) < SOLVED)
        # seed by seed, which start alike
        gains = (finals[1] - finals[0])[tells]
        over = "mean over delays that either learns and not both solve"
        sentence = f"accuracy, flossed before training − not flossed ({over})"
        told = beyond_error(gains.mean(0)) if tells.any() else np.nan
        yield least("mean gain", sentence, 0.0, told)


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
    footnote(copy, f"n = {len(values)} networks, each shown thin", "thick: median, running mean of 20 epochs")


@figure(
    "limits-g",
    "accuracy on copy and XOR after flossing has trained the sharpness, which collapses",
    cost=("2 s", "40 s", "10 min"),
    smoke={"delay": 2, "floss_epochs": 5, "k": 10},
    small={"seeds": 4},
    draw=limits,
)
class LimitsG(BinaryLearning):
    """Accuracy on copy and XOR after flossing that trains the sharpness, which makes it small.

    Attributes:
        delay: longest lag of both tasks.
        lr: of flossing.
    """

    delay: int = 6
    epochs: int = 1000
    floss_epochs: int = 1000
    k: int = 75
    lr: float = 3e-3
    extra: int = 40

    def run(self, study: Study) -> Results:
        """`sharpness (condition, seed)`, `copy`, `xor (condition, seed, epoch)`: accuracies."""
        ids, condition = copies(2, self.seeds, first=self.first)
        pre = self.flossing(condition == 1, lr=self.lr, clip=self.clip)
        variables: dict[str, Any] = {}
        tasks: dict[str, Task] = {"copy": DelayedCopy(self.delay, binary=True), "xor": OneHotXOR(self.delay)}
        for name, task in tasks.items():
            model = self.network(study, task, ids, nn.Parameter(torch.ones(*ids.shape, 1, 1)))
            trial = {"batch": self.batch, "steps": self.delay + self.extra, "member_ids": ids}
            record = study.part(name).train(model, task, (pre, FitPhase(self.epochs)), **trial)
            curves = record["accuracy"].reshape(*ids.shape, -1)
            variables[name] = (("condition", "seed", "epoch"), curves)
        # of the networks that learned the XOR: flossing is driven by the inputs of the task
        variables["sharpness"] = (("condition", "seed"), final_sharpness(model))
        return variables, coordinates(condition=("none", "flossed"))

    def claims(self, record: Record) -> Checks:
        """G falls below half; the copy is learned, the XOR is not, which unflossed networks learn."""
        # over the last 50 epochs, of 16 trials each, and over seeds
        copy, xor = (record[name][..., -50:].mean(-1).mean(-1) for name in ("copy", "xor"))
        least, most = (partial(side, source=f"{TITLE}, section 6") for side in (at_least, at_most))
        flossed, mean = "flossed before training", record["sharpness"][1].mean()
        yield most("sharpness", f"{flossed}: mean final sharpness (initial: 1)", 0.5, mean)
        yield least("flossed copy", f"{flossed}: mean accuracy on copy", 0.95, copy[1])
        # a network that has lost the copy, too, or a task that nobody learns, says nothing of the XOR
        told = failing(min(copy[1], xor[0]) >= 0.95, xor[1], 0.75)
        yield most("flossed xor", f"{flossed}: mean accuracy on XOR, where copy is learned", 0.75, told)
        yield least("plain xor", "not flossed: mean accuracy on XOR", 0.95, xor[0])
