"""Control of surrogate exponents: figures 2a and 2b."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch.cells import BinaryCell
from lyaptorch.experiments.check import Check, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.gradient_flossing.control import spectra
from lyaptorch.experiments.surrogate_flossing.networks import NATS, PAPER, random_networks
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, single
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.training import floss


@dataclass(frozen=True)
class Control(Figure):
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

    def run(self, study: Study) -> Results:
        """`exponents (group, network, floss_epoch, index)`, spectra around it, and the final sharpness."""
        groups = [(g, k) for g in self.sharpness for k in self.ks]
        shape = (len(groups), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        start = torch.tensor([g for g, _ in groups])[:, None].expand(shape)
        cell = random_networks(self.hidden_size, nn.Parameter(start[..., None, None].clone()), ids, self.seed)
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
            generator=study.generator(),
            show_progress=study.show_progress,
        )
        nats, dims = {"units": "nats per step"}, ("group", "network", "rank")
        exponents = record["exponents"].reshape(*shape, self.epochs, -1)
        sharpness = cell.activation.arguments[0].detach()[..., 0, 0]
        variables: dict[str, Given] = {
            "exponents": (("group", "network", "floss_epoch", "index"), exponents, nats),
            "before": (dims, before, nats),
            "after": (dims, self._spectrum(cell, ids), nats),
            "final_sharpness": (("group", "network"), sharpness),
        }
        coordinates = {
            "sharpness": (("group",), np.array([g for g, _ in groups])),
            "k": (("group",), np.array([k for _, k in groups])),
        }
        return variables, coordinates

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


@single
def first_exponent(record: Record, axes: list[Axes]) -> None:
    """lambda_1 against flossing epochs, a colour for each sharpness."""
    (panel,) = axes
    panel.axhline(0, color=GREY, linestyle=":", linewidth=0.8)
    for group, g in enumerate(record["sharpness"]):
        rows = record["exponents"][group, :, :, 0]
        bundle(panel, rows, PALETTE[group], f"$g = {g:g}$", alpha=0.25, linewidth=1.8)
    panel.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {NATS}", title="Control of $\\lambda_1$")
    panel.legend()


@declare(
    PAPER,
    "fig2a",
    "the first surrogate exponent against flossing epochs, for sharpness 0.5 and 1",
    cost=("1 s", "2 s", "30 s"),
    smoke={"networks": 2, "hidden_size": 12, "epochs": 5, "measure": 50},
    small={"networks": 5, "measure": 500},
    draw=first_exponent,
)
@dataclass(frozen=True)
class Fig2a(Control):
    """The first surrogate exponent against flossing epochs."""

    sharpness: tuple[float, ...] = (0.5, 1.0)

    def checks(self, record: Record) -> list[Check]:
        """From its mean-field value lambda_1 comes to 0."""
        found, source = [], "Surrogate Gradient Flossing, figure 2a"
        for group, g in enumerate(record["sharpness"].tolist()):
            if g == 1.0:
                start = float(record["before"][group, :, 0].mean())
                sentence = "g = 1: mean lambda_1 before"
                found.append(near("g 1 before", sentence, -0.49, start, 0.05, source=source))
            reached = float(record["after"][group, :, 0].mean())
            sentence = f"g = {g:g}: mean lambda_1 after {self.epochs} epochs"
            found.append(near(f"g {g:g} after", sentence, 0.0, reached, 0.05, source=source))
        return found


@declare(
    PAPER,
    "fig2b",
    "the surrogate spectrum after flossing k = 1, 16, 32 exponents, sharpness 1",
    cost=("3 s", "10 s", "5 min"),
    smoke={"networks": 2, "hidden_size": 40, "epochs": 3, "steps": 20, "measure": 50},
    small={"networks": 3, "measure": 500},
    draw=spectra,
)
@dataclass(frozen=True)
class Fig2b(Control):
    """The whole surrogate spectrum after flossing k exponents; more epochs than figure 2a (ours)."""

    ks: tuple[int, ...] = (1, 16, 32)
    epochs: int = 500

    def checks(self, record: Record) -> list[Check]:
        """In the median network the first k exponents are within .1 of 0, and the others are not."""
        found, source = [], "Surrogate Gradient Flossing, figure 2b"
        for group, k in enumerate(record["k"].tolist()):
            middle = np.median(record["after"][group], 0)
            worst, rest = float(np.abs(middle[:k]).max()), float(np.median(middle[k:]))
            sentence = f"k = {k}: |lambda_i| <= 0.1 for i <= {k}, median network"
            found.append(at_most(f"k {k} flossed", sentence, 0.1, worst, source=source))
            sentence = f"k = {k}: the median of the others is below -0.1"
            found.append(at_most(f"k {k} others", sentence, -0.1, rest, source=source))
        return found
