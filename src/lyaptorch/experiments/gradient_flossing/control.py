"""Control of exponents: figures 1b, 1c and 1d."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch._types import Number
from lyaptorch.cells import RateCell
from lyaptorch.experiments.check import Check, at_least, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import PAPER
from lyaptorch.plots.primitives import GREY, PALETTE, band, bundle, single
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Noise
from lyaptorch.training import floss

SMOKE = {"networks": 2, "epochs": 10, "steps": 80, "measure": 100}
NATS = "(nats per step)"


@dataclass(frozen=True)
class NoiseDriven(Figure):
    """Random tanh networks driven by noise, and how they are flossed.

    The steps of a scan, the learning rate and the number of trajectories are ours; the paper names none.

    Attributes:
        networks: in each group.
        hidden_size: n.
        epochs: flossing steps.
        steps: of each scan.
        tangent_transient: of each scan.
        lr: learning rate.
        clip: largest norm of a gradient; None for no limit, which stalls a network that meets a huge one.
        batch: trajectories of each scan.
        measure: steps over which spectra are measured.
    """

    networks: int = 10
    hidden_size: int = 32
    epochs: int = 100
    steps: int = 200
    tangent_transient: int = 50
    lr: float = 1e-2
    clip: float | None = 1.0
    batch: int = 4
    measure: int = 2000

    def cell(self, ids: Tensor, gain: Number, hidden_size: int | None = None) -> RateCell:
        """The networks `ids`, in float64."""
        return RateCell(
            1,
            hidden_size or self.hidden_size,
            gain=gain,
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=self._generator(),
        ).double()

    def floss(
        self, cell: RateCell, ids: Tensor, k: Tensor, target: Tensor, lr: Number, show_progress: bool | None
    ) -> NDArray[np.floating]:
        """Floss in place; the exponents `(*e, floss_epoch, index)`."""
        record = floss(
            cell,
            Noise(),
            k=k,
            target=target,
            epochs=self.epochs,
            steps=self.steps,
            tangent_transient=self.tangent_transient,
            lr=lr,
            clip=self.clip,
            batch=self.batch,
            member_ids=ids,
            generator=self._generator(),
            show_progress=show_progress,
        )
        return record["exponents"].reshape(*ids.shape, self.epochs, -1)

    def noise(self, ids: Tensor, length: int, batch: int = 1, epoch: int = 0) -> Tensor:
        """Inputs that flossing never sees."""
        return Noise().inputs(
            self.seed,
            member_ids=ids,
            epoch=epoch,
            batch=batch,
            length=length,
            stream="measure",
            dtype=torch.float64,
        )

    @torch.no_grad()
    def spectrum(self, cell: RateCell, ids: Tensor) -> Tensor:
        """The exponents `(*e, n)`, over `measure` steps."""
        inputs = self.noise(ids, 200 + self.measure)
        return lyapunov_spectrum(cell, inputs, transient=100, tangent_transient=100).exponents[..., 0, :]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class Control(NoiseDriven):
    """Flossing to several targets, or several numbers of exponents: figures 1b, 1c and 1d.

    Attributes:
        targets: one group of networks for each target of lambda_1 .. lambda_k.
        ks: one group for each number of exponents.
    """

    targets: tuple[float, ...] = (0.0,)
    ks: tuple[int, ...] = (1,)

    def run(self, study: Study) -> Results:
        """`exponents (group, network, floss_epoch, index)` and spectra `(group, network, rank)` around it."""
        groups = [(target, k) for target in self.targets for k in self.ks]
        shape = (len(groups), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        cell = self.cell(ids, Stream(self.seed, "gain").uniform((), member_ids=ids))
        before = self.spectrum(cell, ids)
        k = torch.tensor([k for _, k in groups])
        target = torch.tensor([target for target, _ in groups])
        exponents = self.floss(
            cell,
            ids,
            k[:, None].expand(shape),
            target[:, None].expand(shape),
            self.lr,
            study.show_progress,
        )
        nats = {"units": "nats per step"}
        dims = ("group", "network", "rank")
        variables = {
            "exponents": (("group", "network", "floss_epoch", "index"), exponents, nats),
            "before": (dims, before, nats),
            "after": (dims, self.spectrum(cell, ids), nats),
        }
        return variables, {"target": (("group",), target), "k": (("group",), k)}


@single
def control(record: Record, axes: list[Axes]) -> None:
    """lambda_1 against flossing epochs, a colour for each target."""
    (panel,) = axes
    for group, target in enumerate(record["target"]):
        color = PALETTE[group % len(PALETTE)]
        panel.axhline(target, color=color, linestyle=":", linewidth=0.8)
        rows, label = record["exponents"][group, :, :, 0], f"target {target:+g}"
        bundle(panel, rows, color, label, alpha=0.25, linewidth=1.8)
    panel.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {NATS}", title="Control of the first exponent")
    panel.legend()


@single
def squares(record: Record, axes: list[Axes]) -> None:
    """Sum of squares of the first k exponents: median and quartiles over networks."""
    (panel,) = axes
    for group, k in enumerate(record["k"]):
        band(panel, (record["exponents"][group, :, :, :k] ** 2).sum(-1), PALETTE[group], f"$k = {k}$")
    panel.set_yscale("log")
    panel.set(xlabel="flossing epoch", ylabel=r"$\sum_{i \leq k} \lambda_i^2$", title="Flossing k exponents")
    panel.legend()


@single
def spectra(record: Record, axes: list[Axes]) -> None:
    """The whole spectrum before, and after flossing k exponents."""
    (panel,) = axes
    panel.axhline(0, color=GREY, linewidth=0.8)
    index = np.arange(1, record["after"].shape[-1] + 1)
    panel.plot(index, record["before"][0].mean(0), color=GREY, linewidth=1.4, label="before")
    for group, k in enumerate(record["k"]):
        rows = record["after"][group]
        bundle(panel, rows, PALETTE[group], f"$k = {k}$", x=index, alpha=0.25, linewidth=1.8)
    panel.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {NATS}", title="Spectrum after flossing")
    panel.legend()


@declare(
    PAPER,
    "fig1b",
    "lambda_1 against flossing epochs, for targets -1, -0.5, 0 and a positive one",
    cost=("1 s", "3 s", "20 s"),
    smoke=SMOKE,
    small={"networks": 4},
    draw=control,
)
@dataclass(frozen=True)
class Fig1b(Control):
    """The first exponent against flossing epochs, for several targets."""

    targets: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.25)

    def checks(self, record: Record) -> list[Check]:
        """Every target but the positive one is reached."""
        found = []
        for group, target in enumerate(record["target"].tolist()):
            reached = float(record["after"][group, :, 0].mean())
            if target <= 0:
                sentence = f"mean lambda_1 is {target:+.2f} after {self.epochs} epochs"
                found.append(near(f"target {target:g}", sentence, target, reached, 0.05))
            else:
                sentence = f"target {target:+.2f} is not reached: lambda_1 stays below half of it"
                found.append(at_most(f"target {target:g}", sentence, target / 2, reached))
        return found


@declare(
    PAPER,
    "fig1c",
    "sum of squares of the first k exponents against flossing epochs, k = 1, 16, 32",
    cost=("1 s", "30 s", "7 min"),
    smoke=SMOKE,
    small={"networks": 4},
    draw=squares,
)
@dataclass(frozen=True)
class Fig1c(Control):
    """The sum of squares of k exponents against flossing epochs."""

    ks: tuple[int, ...] = (1, 16, 32)
    epochs: int = 1000
    batch: int = 1

    def checks(self, record: Record) -> list[Check]:
        """The sum of squares falls at least a hundredfold for each k."""
        found = []
        for group, k in enumerate(record["k"]):
            rows = (record["exponents"][group, :, :, :k] ** 2).sum(-1)
            ratio = float(np.median(rows[:, 0] / rows[:, -10:].mean(1)))
            sentence = f"k = {k}: the sum of squares falls by 100 (median)"
            found.append(at_least(f"k {k}", sentence, 100.0, ratio))
        return found


@declare(
    PAPER,
    "fig1d",
    "the whole spectrum after flossing k = 1, 16, 32 exponents",
    cost=("1 s", "30 s", "7 min"),
    smoke=SMOKE,
    small={"networks": 4},
    draw=spectra,
)
@dataclass(frozen=True)
class Fig1d(Fig1c):
    """The whole spectrum after flossing k exponents."""

    def checks(self, record: Record) -> list[Check]:
        """The first k exponents are within .1 of 0 in the median network, the next ones are not."""
        found = []
        for group, k in enumerate(record["k"]):
            after = record["after"][group]
            middle, largest = np.median(after, 0), np.abs(after[:, :k]).max(1)
            worst, close = float(np.abs(middle[:k]).max()), float((largest <= 0.2).mean())
            sentence = f"k = {k}: |lambda_i| <= 0.1 for i <= {k}, median network"
            found.append(at_most(f"k {k} flossed", sentence, 0.1, worst))
            sentence = f"k = {k}: share of networks with all of these within 0.2"
            found.append(at_least(f"k {k} share", sentence, 0.8, close))
            if k < len(middle):
                sentence = f"k = {k}: the others are not: their median is below -0.1"
                found.append(at_most(f"k {k} others", sentence, -0.1, float(np.median(middle[k:]))))
        return found
