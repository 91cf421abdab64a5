"""Figure 1: the tasks and the networks, drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch.cells import residuals
from lyaptorch.experiments.checks import Check, at_most, near
from lyaptorch.experiments.weak_coupling.training import generator
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages


@dataclass(frozen=True)
class Fig1:
    """A trial of each task, and the residual matrices of four kinds of networks.

    Attributes:
        images: the data set.
        length: steps of the adding problem.
        hidden_size: n.
        decay: r of the subcritical residual, and the middle of heterogeneous ones.
        spread: delta, how far heterogeneous decays are from r.
        angle: of the rotation, radians per step.
        seed: determines everything.
    """

    images: str = "mnist"
    length: int = 200
    hidden_size: int = 100
    decay: float = 0.95
    spread: float = 0.04
    angle: float = 2 * math.pi / 28
    seed: int = 0

    figure: ClassVar[str] = "fig1"
    shows: ClassVar[str] = "the tasks, and the networks with their residuals, drawn"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"length": 10, "hidden_size": 4},
        "small": {"length": 100, "hidden_size": 20},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "2 s", "paper": "2 s"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """An image `(row, column)` and its `pixels (order, step)`, a sum, and eigenvalues of residuals."""
        shared_id = torch.tensor(0)
        orders = [SequentialImages(self.images, permuted=p) for p in (False, True)]
        plain, permuted = (
            task.draw(self.seed, member_ids=shared_id, epoch=0, batch=1, length=task.length)
            for task in orders
        )
        pixels = torch.stack([batch.inputs[:, 0, 0] for batch in (plain, permuted)])
        side = math.isqrt(orders[0].length)
        adding = Adding(self.length).draw(
            self.seed, member_ids=shared_id, epoch=0, batch=1, length=self.length, dtype=torch.float64
        )
        heterogeneous = torch.linspace(-1, 1, self.hidden_size) * self.spread + self.decay
        recipes = {
            f"decay, r = {self.decay:g}": residuals.decay(self.decay),
            "rotation": residuals.rotation(self.angle),
            "heterogeneous": residuals.decay(heterogeneous),
            "random orthogonal": residuals.orthogonal(self.hidden_size, generator=generator(self.seed)),
        }
        made = [recipe(self.hidden_size, shared_id).dense().double() for recipe in recipes.values()]
        eigenvalues = torch.view_as_real(torch.stack([torch.linalg.eigvals(A) for A in made]))
        variables: dict[str, Any] = {
            "image": (("row", "column"), pixels[0].reshape(side, side)),
            "pixels": (("order", "step"), pixels),
            "label": ((), plain.targets[-1].reshape(())),
            "addends": (("channel", "time"), adding.inputs[:, 0].T),
            "sum": ((), adding.targets[-1].reshape(())),
            "eigenvalues": (("residual", "unit", "part"), eigenvalues),
        }
        coordinates = {
            "residual_name": (("residual",), list(recipes)),
            "part": (("part",), ["real", "imaginary"]),
        }
        return Record(f"weak-coupling {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """What is drawn is what it says."""
        numbers, cues = record["addends"]
        ordered, permuted = np.sort(record["pixels"], -1)
        sizes = np.hypot(*np.moveaxis(record["eigenvalues"], -1, 0))
        off = np.abs(sizes - np.array([self.decay, 1.0, self.decay, 1.0])[:, None]).max(-1)
        return [
            at_most("permuted, the pixels are the same ones", 0.0, float(abs(ordered - permuted).max())),
            near("the sum is that of the cued numbers", float(numbers @ cues), float(record["sum"]), 1e-12),
            at_most("homogeneous decays: |eigenvalues| are r", 1e-6, float(off[0])),
            at_most("rotations and orthogonal ones: they are 1", 1e-6, float(max(off[1], off[3]))),
            near("heterogeneous ones: they reach r + delta", self.spread, float(off[2]), 1e-6),
        ]
