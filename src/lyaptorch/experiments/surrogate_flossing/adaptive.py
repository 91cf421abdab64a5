"""Adaptive surrogate flossing on the delayed XOR: binary networks (figure 3), and spiking ones (ours)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch.analysis import spike_statistics
from lyaptorch.cells import LeakyReadout, LIFCell, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import Checks, at_least, at_most
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.surrogate_flossing.random_binary import TITLE, copies, figure
from lyaptorch.experiments.surrogate_flossing.trained_binary import BinaryLearning, Learning, arriving
from lyaptorch.plots.primitives import PALETTE, TINY, learning, picture, scores
from lyaptorch.record import Record
from lyaptorch.schedules import Schedule
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import OneHotXOR, SpikePatterns, SpikingXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model

CONDITIONS = ("none", "before", "adaptive")
"""When networks are flossed; binary ones never or adaptively."""
CODES = ("poisson", "latency")
"""Of spike patterns."""


@picture(4, width=3.0)
def xor(record: Record, axes: list[Axes]) -> None:
    """Accuracy and |dL/dh0| over epochs at the longest delay, and both against the delay."""
    delays = record["delay"]
    longest = f"delay {delays[-1]}"
    for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        learning(axes[0], record["accuracy"][i, -1], color, condition, longest)
        scores(axes[1], delays, record["final_accuracy"][i], color, condition, thick=np.median)
        # of networks whose gradients overflow the other epochs count
        norms = record["gradient_norm"][i]
        norms = np.where(np.isinf(norms), np.nan, norms)
        arriving(axes[2], norms[-1], record, color, longest, 0.4)
        logs = np.log(np.maximum(norms, TINY))
        axes[3].semilogy(delays, np.exp(np.nanmean(logs, (-2, -1))), "o-", color=color)
    axes[1].set(xlabel="delay", ylabel="final accuracy", title="After training", ylim=(0.42, 1.03))
    axes[1].legend()
    axes[3].set(xlabel="delay", ylabel=r"$|dL/dh_0|$", title="Mean over epochs")


@figure(
    "fig3",
    "adaptive surrogate flossing against none: accuracy and |dL/dh0| over delays",
    cost=("3 s", "13 min", "1 hour"),
    smoke={
        "delays": (2, 4),
        "late": 10,
        "floss_epochs": 4,
        "episode_epochs": 2,
        "every": 5,
        "check_every": 5,
    },
    small={"delays": (14, 18), "seeds": 8},
    draw=xor,
)
class Fig3(BinaryLearning):
    """Accuracy and |dL/dh0| of binary networks on the one-hot XOR: no flossing against adaptive flossing.

    As in the paper, flossing trains W, V, b and the sharpness, which starts at 1, and episodes that end in a
    sharper surrogate come whenever lambda_1 or |dL/dW| is too large. Ours, because the paper's numbers are
    missing or did not learn the task: the target below 0, the bounds of lambda_1, a lower one among them,
    which count from the start, k, all rates and lengths, the scales of the input weights and of the readout.
    Networks that are not flossed have the sharpness and the input weights with which they learn best.

    Attributes:
        delays: longest delays.
        episode_epochs: flossing steps of the episodes during training.
        target: exponent to reach.
        bounds: of lambda_1, outside of which there is an episode.
        factor: of the sharpness, when lambda_1 is above its bounds or |dL/dW| above 1.
        check_every: task epochs between two looks at lambda_1.
        lr: learning rate of the task.
        late: task steps at that rate.
        late_lr: learning rate of the task from then on.
        input_scale: standard deviation of the input weights of networks that are flossed.
        plain_input_scale: the same of those that are not.
        plain_sharpness: their sharpness.
        readout_scale: standard deviation of the readout's weights, in units of 1 / sqrt(n).
        every: task epochs between measurements of the gradient.
    """

    delays: tuple[int, ...] = (10, 12, 14, 16, 18, 20, 22, 24, 26)
    epochs: int = 3001
    episode_epochs: int = 10
    target: float = -0.08
    bounds: tuple[float, float] = (-0.1, -0.05)
    factor: float = 1.05
    check_every: int = 10
    lr: float = 2e-3
    late: int = 2000
    late_lr: float = 1e-3
    input_scale: float = 2.0
    plain_input_scale: float = 1.0
    plain_sharpness: float = 0.7
    readout_scale: float = 0.01
    every: int = 50
    batch: int = 64
    extra: int = 200

    def run(self, study: Study) -> Results:
        """`accuracy (condition, delay, seed, epoch)`, `final_accuracy`, `gradient_norm`, `sharpness`."""
        ids, condition = copies(2, len(self.delays), self.seeds, first=self.first)
        task = OneHotXOR(torch.tensor(self.delays)[None, :, None].expand(ids.shape))
        flossed, length = condition == 1, max(self.delays) + self.extra
        sharpness = nn.Parameter(torch.where(flossed, 1.0, self.plain_sharpness)[..., None, None])
        scale = torch.where(flossed, self.input_scale, self.plain_input_scale)
        model = self.network(study, task, ids, sharpness, 1, scale, self.readout_scale)
        rate: dict[str, Any] = {"lr": self.lr, "every": self.every}
        variables = self.learn(study, model, task, self._schedule(flossed), ids, length, **rate)
        return variables, coordinates(condition=CONDITIONS[::2], delay=self.delays)

    def _schedule(self, who: Tensor) -> Schedule:
        """What is done, for those networks that are flossed."""
        pre = self.flossing(who, target=self.target, clip=self.clip)
        lowest, highest = self.bounds
        floss, fit = adaptive(
            self.epochs,
            pre,
            episode_epochs=self.episode_epochs,
            check_every=self.check_every,
            at=(),
            after=0,
            lowest=lowest,
            highest=highest,
            factor=self.factor,
        )
        # two phases, because a phase has one rate; its triggers go with it
        early = replace(fit, epochs=min(self.late, self.epochs))
        return floss, early, replace(fit, epochs=self.epochs - early.epochs, lr=self.late_lr)

    def claims(self, record: Record) -> Checks:
        """D = 14 is solved with and without flossing, d = 18 with it alone; gradients arrive with it."""
        delays = record["delay"].tolist()
        least, most = (partial(side, source=f"{TITLE}, figure 3") for side in (at_least, at_most))
        if 14 in delays:
            finals = record["final_accuracy"][:, delays.index(14)]
            for condition, final in zip(CONDITIONS[::2], finals, strict=True):
                sentence = f"d = 14, {condition}: median accuracy"
                yield least(f"d 14 {condition}", sentence, 0.95, np.median(final))
        if 18 in delays:
            none, flossed = record["final_accuracy"][:, delays.index(18)]
            solved, sentence = (flossed >= 0.95).mean(), "d = 18, adaptive: share of networks that reach 95%"
            yield least("d 18 share", sentence, 0.5, solved)
            yield least("d 18 adaptive", "d = 18, adaptive: mean accuracy", 0.8, flossed.mean())
            yield most("d 18 none", "d = 18, none: best accuracy", 0.6, none.max())
        # as in the paper, averaged over epochs; the mean of logarithms, because the norms span decades
        norms = np.log10(np.maximum(record["gradient_norm"][:, -1], TINY))
        apart = np.diff(np.nanmean(norms, (1, 2)))[0]
        sentence = f"d = {delays[-1]}: log10 of |dL/dh0| with flossing over without"
        yield least("gradient", sentence, 4.0, apart)


def tasks_of(record: Record) -> list[str]:
    """The names of the tasks."""
    return [name.removesuffix("_accuracy") for name in record.variables if name.endswith("_accuracy")]


@picture(lambda record: len(tasks_of(record)) + 1, width=3.0)
def learned(record: Record, axes: list[Axes]) -> None:
    """Accuracy over epochs on each task, and the norm of dL/dh0 on the XOR of the longest delay."""
    longest = f"xor{record.config['delays'][-1]}"
    for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        for panel, name in zip(axes, tasks_of(record), strict=False):
            learning(panel, record[f"{name}_accuracy"][i], color, condition, name, lowest=0.0)
        arriving(axes[-1], record[f"{longest}_gradient_norm"][i], record, color, longest, 0.5)
    axes[0].legend()


@figure(
    "spiking",
    "LIF networks, flossed and not, on the delayed XOR and on spike patterns",
    cost=("5 s", "5 min", "20 min"),
    smoke={
        "delays": (3, 4),
        "pattern_delay": 3,
        "seeds": 2,
        "hidden_size": 6,
        "epochs": 4,
        "floss_epochs": 2,
        "episode_epochs": 1,
        "k": 2,
        "steps": 20,
        "batch": 2,
        "every": 2,
    },
    small={"delays": (60, 80), "seeds": 5},
    draw=learned,
)
class Spiking(Learning):
    """LIF networks on the delayed XOR of two cues and on spike patterns, flossed and not.

    Fluctuation-driven initial weights; a leaky readout of the spikes. All settings are ours.

    Attributes:
        delays: silent steps between the cues of the XOR.
        pattern_delay: silent steps between a pattern and the answer.
        episode_epochs: flossing steps of the episodes during training.
        steps: of each flossing scan.
        target: exponent to reach.
        sharpness: of the fast-sigmoid surrogate at first.
        lr: learning rate of the task and of flossing.
        clip: largest norm of a gradient of the task, for all tensors together.
        every: task epochs between measurements of the gradient.
    """

    delays: tuple[int, ...] = (40, 60, 80, 100)
    pattern_delay: int = 60
    seeds: int = 10
    hidden_size: int = 64
    epochs: int = 1500
    floss_epochs: int = 300
    episode_epochs: int = 50
    k: int = 16
    steps: int = 60
    target: float = 0.0
    sharpness: float = 4.0
    lr: float = 2e-3
    clip: float = 1.0
    batch: int = 32
    every: int = 20

    def run(self, study: Study) -> Results:
        """For each task `<task>_accuracy (condition, seed, epoch)`, `_final`, `_gradient_norm`, `_rate`."""
        tasks: dict[str, SpikingXOR | SpikePatterns] = {f"xor{d}": SpikingXOR(d) for d in self.delays}
        tasks |= {code: SpikePatterns(self.pattern_delay, code=code) for code in CODES}
        variables = {
            f"{name}_{key}": value
            for name, task in tasks.items()
            for key, value in self._train(task, study.part(name)).items()
        }
        return variables, coordinates(condition=CONDITIONS)

    def claims(self, record: Record) -> Checks:
        """At the longest delay flossed networks solve the XOR that plain surrogate training fails."""
        none, before, flossed = record[f"xor{self.delays[-1]}_final"]
        what, spread = f"XOR at a delay of {self.delays[-1]}", "standard deviation over seeds"
        least, most = (partial(side, kind="question") for side in (at_least, at_most))
        yield most("xor none", f"{what}, not flossed: mean accuracy", 0.75, none.mean())
        yield least("xor before", f"{what}, flossed before: mean accuracy", 0.9, before.mean())
        yield least("xor adaptive", f"{what}, adaptive: mean accuracy", 0.9, flossed.mean())
        yield most("xor adaptive spread", f"{what}, adaptive: {spread}", 0.1, flossed.std())
        for code in CODES:
            means = record[f"{code}_final"].mean(-1)
            gain, sentence = means[1:].max() - means[0], f"{code} patterns: accuracy gained by flossing"
            yield least(f"{code} gain", sentence, 0.0, gain)

    def model(self, task: SpikingXOR | SpikePatterns, ids: Tensor) -> Model:
        """The networks `ids`, untrained."""
        study, n = Study(self.seed), self.hidden_size
        surrogate = surrogates.fast_sigmoid(torch.full(ids.shape, self.sharpness))
        cell = LIFCell(task.input_size, n, surrogate=surrogate, **study.ensemble(ids))
        fluctuation_driven(cell, input_rate=25.0, std=0.7, member_ids=ids, generator=study.generator())
        whose: dict[str, Any] = {"member_ids": ids, "generator": study.generator()}
        readout = LeakyReadout(cell, task.output_size, scale=n**-0.5, **whose)
        return Model(cell, readout, loss=task.loss)

    def _train(self, task: SpikingXOR | SpikePatterns, study: Study) -> dict[str, Any]:
        ids, condition = copies(len(CONDITIONS), self.seeds, first=self.first)
        model = self.model(task, ids)
        floss = {"steps": self.steps, "target": self.target, "lr": self.lr, "clip": 1.0}
        pre = self.flossing(condition >= 1, **floss)
        # those flossed before start as those flossed adaptively do, but have no episodes
        often = replace(pre, who=condition >= 2)
        _, fit = adaptive(self.epochs, often, episode_epochs=self.episode_epochs, check_every=50)
        rates: dict[str, Any] = {"lr": self.lr, "clip": self.clip, "clip_mode": "global", "every": self.every}
        found = self.learn(study, model, task, (pre, fit), ids, task.period, **rates)
        # how fast they fire after training, on trials of a stream of its own
        inputs = task.inputs(Draw(self.seed, task.period, self.batch, member_ids=ids, stream="rate"))
        assert isinstance(model.cell, LIFCell)
        with torch.no_grad():
            spikes = spike_statistics(model.cell, model.states(inputs)).rates
        found["final"] = found.pop("final_accuracy")
        return {**found, "rate": (("condition", "seed"), spikes.mean((-2, -1)), {"units": "Hz"})}
