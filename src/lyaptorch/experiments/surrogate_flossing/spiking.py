"""Adaptive surrogate flossing of spiking networks: what neither the paper nor its code shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import spike_statistics
from lyaptorch.cells import LeakyReadout, LIFCell, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.surrogate_flossing.networks import PAPER
from lyaptorch.plots.primitives import PALETTE, learning, picture
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import SpikePatterns, SpikingXOR
from lyaptorch.training import Model

CONDITIONS = ("none", "before", "adaptive")
"""When networks are flossed."""
CODES = ("poisson", "latency")
"""Of spike patterns."""


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
        norms = np.maximum(record[f"{longest}_gradient_norm"][i], 1e-30)
        epochs = np.arange(norms.shape[-1]) * record.config["every"]
        axes[-1].semilogy(epochs, norms.T, color=color, alpha=0.5, linewidth=0.8)
    axes[0].legend()
    axes[-1].set(xlabel="epoch", ylabel=r"$|dL/dh_0|$", title=longest)


@declare(
    PAPER,
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
@dataclass(frozen=True)
class Spiking(Figure):
    """LIF networks on the delayed XOR of two cues and on spike patterns, flossed and not.

    Fluctuation-driven initial weights; a leaky readout of the spikes. All settings are ours.

    Attributes:
        delays: silent steps between the cues of the XOR.
        pattern_delay: silent steps between a pattern and the answer.
        seeds: networks for each task and condition.
        hidden_size: neurons.
        epochs: task steps.
        floss_epochs: flossing steps before training.
        episode_epochs: flossing steps of the episodes during training.
        k: exponents flossed.
        steps: of each flossing scan.
        target: exponent to reach.
        sharpness: of the fast-sigmoid surrogate at first.
        lr: learning rate of the task and of flossing.
        clip: largest norm of a gradient of the task, for all tensors together.
        batch: trials of a task step.
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
        return variables, {"condition": (("condition",), np.array(CONDITIONS))}

    def checks(self, record: Record) -> list[Check]:
        """At the longest delay flossed networks solve the XOR that plain surrogate training fails."""
        none, before, flossed = record[f"xor{self.delays[-1]}_final"]
        what = f"XOR at a delay of {self.delays[-1]}"
        spread = "standard deviation over seeds"
        ours: dict[str, Any] = {"kind": "question"}
        found = [
            at_most("xor none", f"{what}, not flossed: mean accuracy", 0.75, none.mean(), **ours),
            at_least("xor before", f"{what}, flossed before: mean accuracy", 0.9, before.mean(), **ours),
            at_least("xor adaptive", f"{what}, adaptive: mean accuracy", 0.9, flossed.mean(), **ours),
            at_most("xor adaptive spread", f"{what}, adaptive: {spread}", 0.1, flossed.std(), **ours),
        ]
        for code in CODES:
            means = record[f"{code}_final"].mean(-1)
            sentence = f"{code} patterns: accuracy gained by flossing"
            found.append(at_least(f"{code} gain", sentence, 0.0, means[1:].max() - means[0], **ours))
        return found

    def model(self, task: SpikingXOR | SpikePatterns, ids: Tensor) -> Model:
        """The networks `ids`, untrained."""
        seeded, shape = Study(self.seed).generator, tuple(ids.shape)
        cell = LIFCell(
            task.input_size,
            self.hidden_size,
            surrogate=surrogates.fast_sigmoid(torch.full(shape, self.sharpness)),
            ensemble=shape,
            member_ids=ids,
        )
        fluctuation_driven(cell, input_rate=25.0, std=0.7, member_ids=ids, generator=seeded())
        readout = LeakyReadout(
            cell,
            task.output_size,
            scale=self.hidden_size**-0.5,
            member_ids=ids,
            generator=seeded(),
        )
        return Model(cell, readout, loss=task.loss)

    def _train(self, task: SpikingXOR | SpikePatterns, study: Study) -> dict[str, Any]:
        shape = (len(CONDITIONS), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        condition = torch.arange(len(CONDITIONS))[:, None].expand(shape)
        model = self.model(task, ids)
        pre = FlossPhase(
            self.floss_epochs,
            k=self.k,
            steps=self.steps,
            target=self.target,
            lr=self.lr,
            clip=1.0,
            who=condition >= 1,
        )
        often = replace(pre, who=condition >= 2)
        _, fit = adaptive(self.epochs, often, episode_epochs=self.episode_epochs, check_every=50)
        trial: dict[str, Any] = {"batch": self.batch, "length": task.period, "member_ids": ids}
        record = study.train(
            model,
            task,
            (pre, fit),
            lr=self.lr,
            clip=self.clip,
            clip_mode="global",
            metrics=("initial_gradient_norm",),
            metrics_every=self.every,
            unstable="mark",
            **trial,
        )
        _, final = study.evaluate(model, task, **trial)
        inputs = task.inputs(self.seed, epoch=0, stream="rate", **trial)
        assert isinstance(model.cell, LIFCell)
        with torch.no_grad():
            rates = spike_statistics(model.cell, model.states(inputs)).rates
        dims = ("condition", "seed")
        norms = record["initial_gradient_norm"].reshape(*shape, -1)
        return {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final": (dims, final),
            "gradient_norm": ((*dims, "measurement"), norms),
            "rate": (dims, rates.mean((-2, -1)), {"units": "Hz"}),
            "sharpness": (dims, model.state_dict()["cell.activation.sharpness"][..., 0, 0]),
        }
