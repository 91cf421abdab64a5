"""Other units than tanh: figure 6."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, LSTMCell, RateCell
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import PAPER
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.growth import untold
from lyaptorch.tasks import Noise
from lyaptorch.training import floss

UNITS = ("LSTM", "ReLU")


@picture(lambda record: 2 * len(record["unit"]), width=3.2)
def exponents_and_squares(record: Record, axes: list[Axes]) -> None:
    """lambda_1 and its square against flossing epochs, two panels for each kind of unit."""
    for i, (unit, rows) in enumerate(zip(record["unit"], record["lambda_1"], strict=True)):
        exponent, square = axes[2 * i : 2 * i + 2]
        exponent.axhline(0, color=GREY, linestyle=":", linewidth=0.8)
        for panel, values in ((exponent, rows), (square, rows**2)):
            bundle(panel, values, PALETTE[i], thick=np.median, alpha=0.35, thin=0.8, linewidth=1.8)
        label = r"$\lambda_1$ (nats per step)"
        exponent.set(xlabel="flossing epoch", ylabel=label, title=f"{unit} networks")
        square.set(xlabel="flossing epoch", ylabel=r"$\lambda_1^2$", title="and its square", yscale="log")


@declare(
    PAPER,
    "fig6",
    "lambda_1 and its square against flossing epochs, LSTM and ReLU networks (a-d)",
    cost=("5 s", "1 min", "2 min"),
    smoke={"networks": 2, "hidden_size": 8, "epochs": 8, "steps": 30, "tangent_transient": 5}
    | {"batch": 1, "measure": 50},
    small={"networks": 6},
    draw=exponents_and_squares,
)
@dataclass(frozen=True)
class Fig6(Figure):
    """Flossing lambda_1 of random LSTM and ReLU networks driven by noise.

    As in the paper: LSTM weights N(0, g^2 / n) with a g ~ U(0, 1) for each gate, of its recurrent and of its
    input weights, biases 0; ReLU weights N(-1/n, g^2 / n). Sizes, the g of ReLU networks (U(0, 2), so that
    some are unstable), steps and learning rate are ours; the paper's numbers are lost or not given. States
    start at N(0, 1), because a rectified unit at exactly 0 has slope 0.

    Attributes:
        networks: of each kind.
        hidden_size: units; an LSTM has two state variables for each.
        relu_gain: the largest g of a ReLU network.
        epochs: flossing steps.
        steps: of each scan.
        tangent_transient: of each scan.
        lr: learning rate.
        clip: largest norm of a gradient.
        batch: trajectories of each scan.
        measure: steps over which lambda_1 is measured before and after.
    """

    networks: int = 10
    hidden_size: int = 32
    relu_gain: float = 2.0
    epochs: int = 100
    steps: int = 200
    tangent_transient: int = 50
    lr: float = 1e-2
    clip: float | None = 1.0
    batch: int = 4
    measure: int = 2000

    def run(self, study: Study) -> Results:
        """`lambda_1 (unit, network, floss_epoch)`; `before`, `after (unit, network)` over a long run."""
        ids = torch.arange(self.networks)
        before, during, after = [], [], []
        for cell in (self._lstm(study, ids), self._relu(study, ids)):
            before.append(self._leading(cell, ids))
            during.append(self._floss(study, cell, ids))
            after.append(self._leading(cell, ids))
        nats = {"units": "nats per step"}
        variables = {
            "lambda_1": (("unit", "network", "floss_epoch"), np.stack(during), nats),
            "before": (("unit", "network"), torch.stack(before), nats),
            "after": (("unit", "network"), torch.stack(after), nats),
        }
        return variables, {"unit": (("unit",), np.array(UNITS))}

    def checks(self, record: Record) -> list[Check]:
        """The median square falls a hundredfold; unstable networks are stabilised."""
        found, source = [], "Gradient Flossing, figure 6"
        for unit, during, before, after in zip(
            record["unit"], record["lambda_1"], record["before"], record["after"], strict=True
        ):
            # of medians, not of each network: one that starts at 0 has nowhere to fall
            falls = _median_square(during[:, 0]) / _median_square(during[:, -10:])
            sentence = f"{unit}: the median square of lambda_1 falls by 100 within {during.shape[1]} epochs"
            found.append(at_least(f"{unit} while flossed", sentence, 100.0, falls, source=source))
            falls = _median_square(before) / _median_square(after)
            sentence = f"{unit}: so it does in a long run with other inputs"
            found.append(at_least(f"{unit} afterwards", sentence, 100.0, falls, source=source))
            if (unstable := before > 0).any():
                sentence = f"{unit}: of {unstable.sum()} networks with lambda_1 > 0 the largest afterwards"
                largest = after[unstable].max()
                found.append(at_most(f"{unit} unstable", sentence, 0.05, largest, source=source))
        return found

    def _lstm(self, study: Study, ids: Tensor) -> Cell:
        n, shape = self.hidden_size, tuple(ids.shape)
        gains = {
            (gate, to): Stream(self.seed, f"gain {gate} {to}").uniform((), member_ids=ids)
            for gate in LSTMCell.gates
            for to in ("hh", "ih")
        }
        cell = LSTMCell(
            1,
            n,
            weights="gaussian",
            gain={gate: gains[gate, "hh"] for gate in LSTMCell.gates},
            ensemble=shape,
            member_ids=ids,
            generator=study.generator(),
        )
        assert cell.bias_ih is not None
        assert cell.bias_hh is not None
        with torch.no_grad():
            scale = torch.stack([gains[gate, "ih"] for gate in LSTMCell.gates], -1).repeat_interleave(n, -1)
            V = Stream(self.seed, "weight_ih").normal((4 * n, 1), member_ids=ids)
            cell.weight_ih.copy_(scale.unsqueeze(-1) * V / n**0.5)
            cell.bias_ih.zero_()
            cell.bias_hh.zero_()
        return cell.double()

    def _relu(self, study: Study, ids: Tensor) -> Cell:
        return RateCell(
            1,
            self.hidden_size,
            activation="relu",
            weights="shifted_mean",
            gain=self.relu_gain * Stream(self.seed, "gain").uniform((), member_ids=ids),
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=study.generator(),
        ).double()

    def _floss(self, study: Study, cell: Cell, ids: Tensor) -> NDArray[np.float64]:
        """lambda_1 `(network, floss_epoch)`."""
        shape = (self.batch, cell.state_size)
        with warnings.catch_warnings():
            # of a rectified network that falls silent: the Record has its -inf
            warnings.filterwarnings("ignore", "every tangent vector")
            record = floss(
                cell,
                Noise(),
                h0=Stream(self.seed, "h0").normal(shape, member_ids=ids, dtype=torch.float64),
                k=1,
                epochs=self.epochs,
                steps=self.steps,
                tangent_transient=self.tangent_transient,
                lr=self.lr,
                clip=self.clip,
                batch=self.batch,
                member_ids=ids,
                generator=study.generator(),
                show_progress=study.show_progress,
            )
        exponents: NDArray[np.float64] = record["exponents"][..., 0]
        return exponents

    @torch.no_grad()
    def _leading(self, cell: Cell, ids: Tensor) -> Tensor:
        inputs = Noise().inputs(
            self.seed,
            member_ids=ids,
            epoch=0,
            batch=1,
            length=200 + self.measure,
            stream="measure",
            dtype=torch.float64,
        )
        # some networks of ReLUs die, and are counted
        with untold():
            spectrum = lyapunov_spectrum(cell, inputs, k=1, transient=100, tangent_transient=100)
        return spectrum.exponents[..., 0, 0]


def _median_square(exponents: NDArray[np.float64]) -> float:
    return float(np.median(exponents**2))
