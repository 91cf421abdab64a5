"""Binary networks on the delayed copy: appendix C."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.surrogate_flossing.xor import binary_network
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import DelayedCopy
from lyaptorch.training import evaluate, train

CONDITIONS = ("none", "before")
"""When networks are flossed."""
SOLVED = 0.95
"""Mean accuracy from which a delay counts as reached."""


@dataclass(frozen=True)
class AppCCopy:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "appC-copy"
    shows: ClassVar[str] = (
        "accuracy of binary networks on the delayed copy over delays, with and without flossing"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "delays": (2, 3),
            "seeds": 2,
            "epochs": 10,
            "floss_epochs": 3,
            "hidden_size": 10,
            "batch": 3,
            "extra": 8,
        },
        "small": {"delays": (10, 16, 22, 30), "seeds": 3, "epochs": 600, "floss_epochs": 300},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "15 s", "paper": "1 hour"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy (condition, delay, seed, epoch)` and `final_accuracy`."""
        shape = (len(CONDITIONS), len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        flossed = torch.tensor([False, True])[:, None, None].expand(shape)
        task = DelayedCopy(torch.tensor(self.delays)[None, :, None].expand(shape), binary=True)
        model = binary_network(
            task, self.hidden_size, self.batch, shape, ids, self.seed, floss_sharpness=False
        )
        pre = FlossPhase(self.floss_epochs, k=self.k, target=self.target, clip=self.clip, who=flossed)
        length = max(self.delays) + self.extra
        record = train(
            model,
            task,
            (pre, FitPhase(self.epochs)),
            batch=self.batch,
            length=length,
            lr=self.lr,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
            checkpoint=checkpoint,
            show_progress=show_progress,
        )
        _, final = evaluate(
            model,
            task,
            batch=self.batch,
            length=length,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
        )
        dims = ("condition", "delay", "seed")
        variables: dict[str, Given] = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final_accuracy": (dims, final),
        }
        coordinates: dict[str, Given] = {
            "condition": (("condition",), np.array(CONDITIONS)),
            "delay": (("delay",), np.array(self.delays)),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Flossed networks solve a longer delay, and one that networks without flossing do not."""
        means, delays = record["final_accuracy"].mean(-1), record["delay"]
        none, flossed = (float(delays[row >= SOLVED].max(initial=0)) for row in means)
        gain = means[1] - means[0]
        return [
            at_least("longest delay solved with flossing, beyond that without", none + 1, flossed),
            at_least("largest gain in accuracy at one delay", 0.2, float(gain.max())),
            at_least("gain in accuracy, mean over delays", 0.0, float(gain.mean())),
        ]
