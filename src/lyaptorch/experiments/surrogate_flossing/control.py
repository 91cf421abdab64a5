"""Control of surrogate exponents: figures 2a and 2b."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lyaptorch.cells import BinaryCell
from lyaptorch.experiments.checks import Check, at_most, near
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.training import floss


@dataclass(frozen=True)
class Control:
    """Surrogate flossing of random binary networks driven by bits; W, V and the sharpness are trained.

    The paper names neither learning rate nor steps: the rate is ours, the steps are those of Gradient
    Flossing.

    Attributes:
        sharpness: initial g, one group of networks for each.
        ks: one group for each number of exponents.
        networks: in each group.
        hidden_size: n.
        epochs: flossing steps.
        steps: of each scan.
        tangent_transient: of each scan.
        lr: learning rate.
        clip: largest norm of a gradient.
        measure: steps over which the spectra are measured before and after.
        seed: determines everything.
    """

    sharpness: tuple[float, ...] = (1.0,)
    ks: tuple[int, ...] = (1,)
    networks: int = 9
    hidden_size: int = 80
    epochs: int = 150
    steps: int = 55
    tangent_transient: int = 16
    lr: float = 3e-3
    clip: float | None = 1.0
    measure: int = 1000
    seed: int = 0

    figure: ClassVar[str] = "fig2"

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`exponents (group, network, floss_epoch, index)`, spectra around it, and the final sharpness."""
        groups = [(g, k) for g in self.sharpness for k in self.ks]
        shape = (len(groups), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        start = torch.tensor([g for g, _ in groups])[:, None].expand(shape)
        cell = BinaryCell(
            1,
            self.hidden_size,
            sharpness=nn.Parameter(start[..., None, None].clone()),
            bias=False,
            ensemble=shape,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
        ).double()
        before = self._spectrum(cell, ids)
        record = floss(
            cell,
            DelayedCopy(1, binary=True),
            k=torch.tensor([k for _, k in groups])[:, None].expand(shape),
            epochs=self.epochs,
            steps=self.steps,
            tangent_transient=self.tangent_transient,
            lr=self.lr,
            clip=self.clip,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
            show_progress=show_progress,
        )
        nats, dims = {"units": "nats per step"}, ("group", "network", "rank")
        exponents = record["exponents"].reshape(*shape, self.epochs, -1)
        sharpness = cell.activation.arguments[0].detach()[..., 0, 0]
        variables: dict[str, Any] = {
            "exponents": (("group", "network", "floss_epoch", "index"), exponents, nats),
            "before": (dims, before, nats),
            "after": (dims, self._spectrum(cell, ids), nats),
            "final_sharpness": (("group", "network"), sharpness),
        }
        coordinates = {
            "sharpness": (("group",), np.array([g for g, _ in groups])),
            "k": (("group",), np.array([k for _, k in groups])),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    @torch.no_grad()
    def _spectrum(self, cell: BinaryCell, ids: Tensor) -> Tensor:
        inputs = DelayedCopy(1, binary=True).inputs(
            self.seed,
            member_ids=ids,
            epoch=0,
            batch=1,
            length=100 + self.measure,
            stream="measure",
            dtype=torch.float64,
        )
        return lyapunov_spectrum(cell, inputs, transient=50, tangent_transient=50).exponents[..., 0, :]


@dataclass(frozen=True)
class Fig2a(Control):
    """The first surrogate exponent against flossing epochs."""

    sharpness: tuple[float, ...] = (0.5, 1.0)

    figure: ClassVar[str] = "fig2a"
    shows: ClassVar[str] = "the first surrogate exponent against flossing epochs, for sharpness 0.5 and 1"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"networks": 2, "hidden_size": 12, "epochs": 5, "measure": 50},
        "small": {"networks": 5, "measure": 500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "2 s", "paper": "30 s"}

    def checks(self, record: Record) -> list[Check]:
        """From its mean-field value lambda_1 comes to 0."""
        found = []
        for group, g in enumerate(record["sharpness"].tolist()):
            if g == 1.0:
                start = float(record["before"][group, :, 0].mean())
                found.append(near("g = 1: mean lambda_1 before", -0.49, start, 0.05))
            reached = float(record["after"][group, :, 0].mean())
            found.append(near(f"g = {g:g}: mean lambda_1 after {self.epochs} epochs", 0.0, reached, 0.05))
        return found


@dataclass(frozen=True)
class Fig2b(Control):
    """The whole surrogate spectrum after flossing k exponents; more epochs than figure 2a (ours)."""

    ks: tuple[int, ...] = (1, 16, 32)
    epochs: int = 500

    figure: ClassVar[str] = "fig2b"
    shows: ClassVar[str] = "the surrogate spectrum after flossing k = 1, 16, 32 exponents, sharpness 1"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"networks": 2, "hidden_size": 40, "epochs": 3, "steps": 20, "measure": 50},
        "small": {"networks": 3, "measure": 500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "3 s", "small": "10 s", "paper": "5 min"}

    def checks(self, record: Record) -> list[Check]:
        """In the median network the first k exponents are within .1 of 0, and the others are not."""
        found = []
        for group, k in enumerate(record["k"].tolist()):
            middle = np.median(record["after"][group], 0)
            sentence = f"k = {k}: |lambda_i| <= 0.1 for i <= {k}, median network"
            found.append(at_most(sentence, 0.1, float(np.abs(middle[:k]).max())))
            rest = float(np.median(middle[k:]))
            found.append(at_most(f"k = {k}: the median of the others is below -0.1", -0.1, rest))
        return found
