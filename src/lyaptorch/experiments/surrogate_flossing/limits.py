"""Where flossing that trains the sharpness ends: section 6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.surrogate_flossing.xor import binary_network
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import DelayedCopy, OneHotXOR
from lyaptorch.tasks.batch import Task
from lyaptorch.training import train

CONDITIONS = ("none", "flossed")
"""When networks are flossed."""


@dataclass(frozen=True)
class LimitsG:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "limits-g"
    shows: ClassVar[str] = "the sharpness collapses when flossing trains it: copy is learned, XOR is not"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "delay": 2,
            "seeds": 2,
            "epochs": 15,
            "floss_epochs": 5,
            "k": 10,
            "hidden_size": 12,
            "batch": 4,
            "extra": 10,
        },
        "small": {"seeds": 4},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "40 s", "paper": "10 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`sharpness (condition, seed)`, `copy`, `xor (condition, seed, epoch)`: accuracies."""
        shape = (len(CONDITIONS), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        flossed = torch.tensor([False, True])[:, None].expand(shape)
        pre = FlossPhase(self.floss_epochs, k=self.k, lr=self.lr, clip=self.clip, who=flossed)
        dims = ("condition", "seed")
        variables: dict[str, Any] = {}
        tasks: dict[str, Task] = {"copy": DelayedCopy(self.delay, binary=True), "xor": OneHotXOR(self.delay)}
        for name, task in tasks.items():
            model = binary_network(
                task, self.hidden_size, self.batch, shape, ids, self.seed, floss_sharpness=True
            )
            record = train(
                model,
                task,
                (pre, FitPhase(self.epochs)),
                batch=self.batch,
                length=self.delay + self.extra,
                member_ids=ids,
                generator=torch.Generator().manual_seed(self.seed),
                checkpoint=None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{name}"),
                show_progress=show_progress,
            )
            variables[name] = ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1))
            variables["sharpness"] = (dims, model.state_dict()["cell.activation.sharpness"][..., 0, 0])
        coordinates = {"condition": (("condition",), np.array(CONDITIONS))}
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """G falls below half; the copy is learned, the XOR is not, which unflossed networks learn."""
        copy, xor = (record[name][..., -50:].mean(-1).mean(-1) for name in ("copy", "xor"))
        return [
            at_most("flossed: mean sharpness, from 1", 0.5, float(record["sharpness"][1].mean())),
            at_least("flossed: accuracy of the copy", 0.95, float(copy[1])),
            at_most("flossed: accuracy of the XOR", 0.75, float(xor[1])),
            at_least("not flossed: accuracy of the XOR", 0.95, float(xor[0])),
        ]
