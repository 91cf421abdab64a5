"""Surrogate flossing of spiking networks on the delayed XOR and on spike patterns (ours)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import spike_statistics
from lyaptorch.cells import LeakyReadout, LIFCell, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import OURS, Checks, at_least, at_most, beyond_error, failing, sure
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.surrogate_flossing.random_binary import copies, figure
from lyaptorch.experiments.surrogate_flossing.trained_binary import Learning
from lyaptorch.plots.primitives import PALETTE, footnote, picture, quartiles, smooth
from lyaptorch.record import Record
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import SpikePatterns, SpikingXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model

CONDITIONS = ("none", "before", "adaptive")
"""When networks are flossed."""
CODES = ("poisson", "latency")
"""Of spike patterns."""


def tasks_of(record: Record) -> list[str]:
    """The names of the tasks."""
    return [name.removesuffix("_accuracy") for name in record.variables if name.endswith("_accuracy")]


@picture(lambda record: len(tasks_of(record)), rows=2, width=3.0, height=2.6)
def learned(record: Record, axes: list[Axes]) -> None:
    """By task: medians of accuracy over epochs above, and below each network after training."""
    names = tasks_of(record)
    for j, name in enumerate(names):
        curves, last = axes[j], axes[len(names) + j]
        for i, (condition, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
            rows = smooth(record[f"{name}_accuracy"][i], 50)
            curves.plot(np.nanmedian(rows, 0), color=color, linewidth=1.4, label=str(condition))
            quartiles(curves, rows, color)
            final = record[f"{name}_final"][i]
            # side by side, or equal networks would hide each other
            beside = i + np.linspace(-0.2, 0.2, len(final))
            last.plot(beside, np.sort(final), "o", color=color, alpha=0.6, markersize=4)
            last.plot([i - 0.3, i + 0.3], [final.mean()] * 2, color=color, linewidth=2)
        curves.set(xlabel="epoch", ylabel="accuracy", title=name, ylim=(0, 1.03))
        last.set(ylabel="final accuracy", ylim=(0, 1.03), xlim=(-0.6, len(record["condition"]) - 0.4))
        last.set_xticks(range(len(record["condition"])), [str(c) for c in record["condition"]])
    axes[0].legend()
    counted = f"n = {len(final)} networks"
    footnote(axes[0], counted, "above: median, band 25-75%, running mean of 50 epochs", "below: each, mean")


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
        what, spread = f"XOR at a delay of {self.delays[-1]}", "standard deviation of accuracy over networks"
        often = "flossed before and during training"
        least, most = (partial(side, **OURS) for side in (at_least, at_most))
        told = failing(max(before.max(), flossed.max()) > 0.6, none.mean(), 0.75)
        yield most("xor none", f"{what}, not flossed: mean accuracy", 0.75, told)
        yield least("xor before", f"{what}, flossed before training: mean accuracy", 0.9, sure(before, 0.9))
        yield least("xor adaptive", f"{what}, {often}: mean accuracy", 0.9, sure(flossed, 0.9))
        yield most("xor adaptive spread", f"{what}, {often}: {spread}", 0.1, flossed.std())
        for code in CODES:
            # seed by seed, which start alike
            gains = np.subtract(*record[f"{code}_final"][[1, 0]])
            sentence = f"{code} patterns: accuracy, flossed before training − not flossed (mean)"
            yield least(f"{code} gain", sentence, 0.0, beyond_error(gains))

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
