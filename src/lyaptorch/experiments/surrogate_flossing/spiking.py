"""Adaptive surrogate flossing of spiking networks: what neither the paper nor its code shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.analysis import spike_statistics
from lyaptorch.cells import LeakyReadout, LIFCell, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase
from lyaptorch.schedules.named import adaptive
from lyaptorch.tasks import SpikePatterns, SpikingXOR
from lyaptorch.training import Model, evaluate, train

CONDITIONS = ("none", "before", "adaptive")
"""When networks are flossed."""


@dataclass(frozen=True)
class Spiking:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "spiking"
    shows: ClassVar[str] = "LIF networks, flossed and not, on the delayed XOR and on spike patterns"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
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
        "small": {"delays": (60, 80), "seeds": 5},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "5 min", "paper": "20 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """For each task `<task>_accuracy (condition, seed, epoch)`, `_final`, `_gradient_norm`, `_rate`."""
        variables: dict[str, Any] = {}
        tasks: dict[str, SpikingXOR | SpikePatterns] = {f"xor{d}": SpikingXOR(d) for d in self.delays}
        for code in ("poisson", "latency"):
            tasks[code] = SpikePatterns(self.pattern_delay, code=code)
        for name, task in tasks.items():
            path = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{name}")
            for key, value in self._train(task, path, show_progress).items():
                variables[f"{name}_{key}"] = value
        coordinates = {"condition": (("condition",), np.array(CONDITIONS))}
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """At the longest delay flossed networks solve the XOR that plain surrogate training fails."""
        none, before, flossed = record[f"xor{self.delays[-1]}_final"]
        what = f"XOR at a delay of {self.delays[-1]}"
        found = [
            at_most(f"{what}, not flossed: mean accuracy", 0.75, float(none.mean())),
            at_least(f"{what}, flossed before: mean accuracy", 0.9, float(before.mean())),
            at_least(f"{what}, adaptive: mean accuracy", 0.9, float(flossed.mean())),
            at_most(f"{what}, adaptive: standard deviation over seeds", 0.1, float(flossed.std())),
        ]
        for name in ("poisson", "latency"):
            means = record[f"{name}_final"].mean(-1)
            gain = float(means[1:].max() - means[0])
            found.append(at_least(f"{name} patterns: accuracy gained by flossing", 0.0, gain))
        return found

    def model(self, task: SpikingXOR | SpikePatterns, shape: tuple[int, ...], ids: Tensor) -> Model:
        """Untrained networks of an ensemble."""
        cell = LIFCell(
            task.input_size,
            self.hidden_size,
            surrogate=surrogates.fast_sigmoid(torch.full(shape, self.sharpness)),
            ensemble=shape,
            member_ids=ids,
        )
        fluctuation_driven(cell, input_rate=25.0, std=0.7, member_ids=ids, generator=self._generator())
        readout = LeakyReadout(
            cell,
            task.output_size,
            scale=self.hidden_size**-0.5,
            member_ids=ids,
            generator=self._generator(),
        )
        return Model(cell, readout, loss=task.loss)

    def _train(
        self, task: SpikingXOR | SpikePatterns, checkpoint: Path | None, show_progress: bool | None
    ) -> dict[str, Any]:
        shape = (len(CONDITIONS), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        condition = torch.arange(len(CONDITIONS))[:, None].expand(shape)
        model = self.model(task, shape, ids)
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
        record = train(
            model,
            task,
            (pre, fit),
            batch=self.batch,
            length=task.period,
            lr=self.lr,
            clip=self.clip,
            clip_mode="global",
            metrics=("initial_gradient_norm",),
            metrics_every=self.every,
            member_ids=ids,
            generator=self._generator(),
            unstable="mark",
            checkpoint=checkpoint,
            show_progress=show_progress,
        )
        _, final = evaluate(
            model, task, batch=self.batch, length=task.period, member_ids=ids, generator=self._generator()
        )
        dims = ("condition", "seed")
        norms = record["initial_gradient_norm"].reshape(*shape, -1)
        return {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final": (dims, final),
            "gradient_norm": ((*dims, "measurement"), norms),
            "rate": (dims, self._rate(model, task, ids), {"units": "Hz"}),
            "sharpness": (dims, model.state_dict()["cell.activation.sharpness"][..., 0, 0]),
        }

    @torch.no_grad()
    def _rate(self, model: Model, task: SpikingXOR | SpikePatterns, ids: Tensor) -> Tensor:
        """Mean rate of each network after training."""
        x = task.inputs(
            self.seed, member_ids=ids, epoch=0, batch=self.batch, length=task.period, stream="rate"
        )
        cell = model.cell
        assert isinstance(cell, LIFCell)
        return spike_statistics(cell, model.states(x)).rates.mean((-2, -1))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
