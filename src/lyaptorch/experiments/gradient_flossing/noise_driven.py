"""Random networks driven by noise, and flossing of other units than tanh: figure 6."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch._types import Number
from lyaptorch.cells import Cell, LSTMCell, RateCell
from lyaptorch.experiments.check import Checks, at_least, at_most, claimed, where
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.setting import figure
from lyaptorch.plots.primitives import PALETTE, bundle, footnote, letter, level, picture, quartiles
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.growth import untold
from lyaptorch.tasks import Noise
from lyaptorch.tasks.batch import Draw

NATS = "(nats per step)"
UNITS = ("LSTM", "ReLU")


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

    def cell(self, ids: Tensor, gain: Number, hidden_size: int | None = None, **settings: Any) -> RateCell:
        """The networks `ids`, with more `settings` of `RateCell`, in float64."""
        n, networks = hidden_size or self.hidden_size, Study(self.seed).ensemble(ids)
        return RateCell(1, n, gain=gain, **networks, **settings).double()

    def floss(self, study: Study, cell: Cell, ids: Tensor, **settings: Any) -> NDArray[np.floating]:
        """Floss in place, with more `settings` of `lt.floss`; the exponents `(*e, floss_epoch, index)`."""
        record = study.floss(
            cell,
            Noise(),
            **{"lr": self.lr, **settings},
            epochs=self.epochs,
            steps=self.steps,
            tangent_transient=self.tangent_transient,
            clip=self.clip,
            batch=self.batch,
            member_ids=ids,
        )
        return record["exponents"].reshape(*ids.shape, self.epochs, -1)

    def noise(self, ids: Tensor, length: int, batch: int = 1, epoch: int = 0) -> Tensor:
        """Inputs that flossing never sees."""
        drawn = Draw(self.seed, length, batch, epoch, ids, stream="measure", dtype=torch.float64)
        return Noise().inputs(drawn)

    @torch.no_grad()
    def spectrum(self, cell: Cell, ids: Tensor, k: int | None = None) -> Tensor:
        """The first k exponents `(*e, k)`, all when missing, over `measure` steps."""
        # twice 100 steps are not counted: the state forgets its start, then the frame its own
        inputs = self.noise(ids, 200 + self.measure)
        return lyapunov_spectrum(cell, inputs, k=k, transient=100, tangent_transient=100).exponents[..., 0, :]


@picture(lambda record: 2 * len(record["unit"]), width=3.2)
def exponents_and_squares(record: Record, axes: list[Axes]) -> None:
    """lambda_1 and its square against flossing epochs, two panels for each kind of unit."""
    for i, (unit, rows) in enumerate(zip(record["unit"], record["lambda_1"], strict=True)):
        exponent, square = axes[2 * i : 2 * i + 2]
        level(exponent)
        for panel, values in ((exponent, rows), (square, rows**2)):
            shown = np.where(np.isfinite(values), values, np.nan)
            quartiles(panel, shown, PALETTE[i])
            bundle(panel, shown, PALETTE[i], thick=np.nanmedian, alpha=0.35, thin=0.8, linewidth=1.8)
        label = rf"$\lambda_1$ {NATS}"
        exponent.set(xlabel="flossing epoch", ylabel=label, title=f"{unit} networks")
        square.set(xlabel="flossing epoch", ylabel=r"$\lambda_1^2$", title="and its square", yscale="log")
    for panel, name in zip(axes, "ABCD", strict=False):
        letter(panel, name)
    said = f"n = {record['lambda_1'].shape[1]} networks each"
    footnote(axes[0], said, "thick: medians; bands: 25 to 75%; thin: each")


@figure(
    "fig6",
    "lambda_1 and its square against flossing epochs, LSTM and ReLU networks (a-d)",
    cost=("5 s", "1 min", "2 min"),
    smoke={"networks": 2, "hidden_size": 8, "epochs": 8, "steps": 30, "tangent_transient": 5}
    | {"batch": 1, "measure": 50},
    small={"networks": 6},
    draw=exponents_and_squares,
)
class Fig6(NoiseDriven):
    """Flossing lambda_1 of random LSTM and ReLU networks driven by noise.

    As in the paper: LSTM weights N(0, g^2 / n) with a g ~ U(0, 1) for each gate, of its recurrent and of its
    input weights, biases 0; ReLU weights N(-1/n, g^2 / n). Sizes, the g of ReLU networks (U(0, 2), so that
    some are unstable), steps and learning rate are ours; the paper's numbers are lost or not given. States
    start at N(0, 1), because a rectified unit at exactly 0 has slope 0.

    Attributes:
        relu_gain: the largest g of a ReLU network.
    """

    relu_gain: float = 2.0

    def run(self, study: Study) -> Results:
        """`lambda_1 (unit, network, floss_epoch)`; `before`, `after (unit, network)` over a long run."""
        ids = torch.arange(self.networks)
        before, during, after = [], [], []
        gain = self.relu_gain * Stream(self.seed, "gain").uniform((), member_ids=ids)
        relu = self.cell(ids, gain, activation="relu", weights="shifted_mean")
        for cell in (self._lstm(study, ids), relu):
            shape = (self.batch, cell.state_size)
            h0 = Stream(self.seed, "h0").normal(shape, member_ids=ids, dtype=torch.float64)
            # a rectified network may fall silent: the Record has its -inf, and the checks count it
            with untold(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "every tangent vector")
                before.append(self.spectrum(cell, ids, 1)[..., 0])
                during.append(self.floss(study, cell, ids, h0=h0, k=1)[..., 0])
                after.append(self.spectrum(cell, ids, 1)[..., 0])
        nats = {"units": "nats per step"}
        variables = {
            "lambda_1": (("unit", "network", "floss_epoch"), np.stack(during), nats),
            "before": (("unit", "network"), torch.stack(before), nats),
            "after": (("unit", "network"), torch.stack(after), nats),
        }
        return variables, coordinates(unit=UNITS)

    def claims(self, record: Record) -> Checks:
        """The median square falls a hundredfold; unstable networks are stabilised."""
        source = "Gradient Flossing, figure 6"
        names = ("unit", "lambda_1", "before", "after")
        for unit, during, before, after in zip(*(record[name] for name in names), strict=True):
            # of medians, not of each network: one that starts at 0 has nowhere to fall
            falls = _median_square(during[:, 0]) / _median_square(during[:, -10:])
            sentence = f"{unit}: median lambda_1^2, at the first / in the last 10 of {during.shape[1]} epochs"
            said = claimed(source, f"{unit} falls")
            yield at_least(f"{unit} while flossed", sentence, 100.0, falls, **said)
            falls = _median_square(before) / _median_square(after)
            sentence = f"{unit}: median lambda_1^2, before / after flossing, long runs on other inputs"
            yield at_least(f"{unit} afterwards", sentence, 100.0, falls, **said)
            if unit != "ReLU":
                # of LSTMs the paper does not say it: none is unstable
                continue
            # a network that falls silent, as rectified ones may, is not stabilised: it is dead
            stays = (before > 0) & np.isfinite(after)
            sentence = (
                f"{unit}: largest lambda_1 after flossing, networks that began with lambda_1 > 0 "
                "(without those that fell silent)"
            )
            largest = after[stays].max(initial=-np.inf)
            yield at_most(f"{unit} unstable", sentence, 0.05, where(stays.any(), largest), source=source)

    def _lstm(self, study: Study, ids: Tensor) -> Cell:
        n, gates = self.hidden_size, LSTMCell.gates
        recurrent, driving = (
            {g: Stream(self.seed, f"gain {g} {to}").uniform((), member_ids=ids) for g in gates}
            for to in ("hh", "ih")
        )
        cell = LSTMCell(1, n, weights="gaussian", gain=recurrent, **study.ensemble(ids))
        with torch.no_grad():
            # the rows of a gate are n of 4 n, in the order of `gates`; the cell has one gain for V, not four
            scale = torch.stack([driving[g] for g in gates], -1).repeat_interleave(n, -1)
            V = Stream(self.seed, "weight_ih").normal((4 * n, 1), member_ids=ids)
            cell.weight_ih.copy_(scale.unsqueeze(-1) * V / n**0.5)
            # the cell draws biases, the paper has none
            for bias in (cell.bias_ih, cell.bias_hh):
                assert bias is not None
                bias.zero_()
        return cell.double()


def _median_square(exponents: NDArray[np.floating]) -> float:
    return float(np.median(exponents**2))
