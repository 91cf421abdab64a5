"""Convergence of the surrogate exponents of spiking networks: figures 7 and 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import LIFCell, random_frame, surrogates
from lyaptorch.cells.weights import fluctuation_driven
from lyaptorch.experiments.checks import Check, at_most, near, slopes
from lyaptorch.record import Given, Record
from lyaptorch.tangent import lyapunov_spectrum

WEIGHTS = ("random", "fixed")
"""Every realisation has weights of its own, or all have those of the first."""


@dataclass(frozen=True)
class Fig7:
    """Running estimates of all exponents of LIF networks with surrogate sharpness 1.

    Realisations differ in input, initial state and frame, and in the weights unless these are fixed. Weights
    are drawn for the fluctuation-driven regime; the reset is ignored in the Jacobian, as in the paper. The
    Poisson input and the transient are ours, because the paper names neither.

    Attributes:
        sharpness: g of the fast-sigmoid surrogate.
        hidden_size: neurons; there are twice as many exponents.
        networks: realisations, with random and with fixed weights.
        steps: counted, of 2 ms.
        transient: of state and frame, each, not counted.
        channels: of Poisson input.
        input_rate: of each, in Hz.
        points: times at which the estimates are kept, evenly spaced in their logarithm.
        seed: determines everything.
    """

    sharpness: float = 1.0
    hidden_size: int = 64
    networks: int = 10
    steps: int = 750
    transient: int = 100
    channels: int = 64
    input_rate: float = 25.0
    points: int = 60
    seed: int = 0

    figure: ClassVar[str] = "fig7"
    shows: ClassVar[str] = (
        "convergence of the exponents of LIF networks, sharpness 1, weights random or fixed"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"hidden_size": 5, "networks": 3, "steps": 60, "transient": 10, "channels": 5, "points": 12},
        "small": {"networks": 8},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "1 s", "paper": "2 s"}

    def network(self, ids: Tensor) -> LIFCell:
        """Networks; those of equal numbers have equal weights."""
        cell = LIFCell(
            self.channels,
            self.hidden_size,
            surrogate=surrogates.fast_sigmoid(self.sharpness),
            reset_grad="ignore",
            ensemble=tuple(ids.shape),
        ).double()
        generator = torch.Generator().manual_seed(self.seed)
        return fluctuation_driven(cell, input_rate=self.input_rate, member_ids=ids, generator=generator)

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`running (weights, time, network, index)` and `time`."""
        own = torch.arange(self.networks).expand(len(WEIGHTS), -1)
        cell = self.network(torch.stack([own[0], torch.zeros_like(own[0])]))
        n = cell.state_size
        length = 2 * self.transient + self.steps
        uniform = Stream(self.seed, "inputs").uniform((length, 1, self.channels), member_ids=own)
        inputs = (uniform < self.input_rate * cell.dt).double().movedim(-3, 0)
        # potentials up to the threshold, currents around 0
        h0 = Stream(self.seed, "h0").uniform((1, n), member_ids=own, dtype=torch.float64)
        h0[..., self.hidden_size :] -= 0.5
        frame = random_frame(n, n, Stream(self.seed, "frame"), own, dtype=torch.float64)
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell,
                inputs,
                h0=h0,
                frame=frame.unsqueeze(-3),
                transient=self.transient,
                tangent_transient=self.transient,
            )
        kept = np.unique(np.geomspace(1, self.steps, self.points).round().astype(int))
        running = spectrum.running()[kept - 1].squeeze(-2).movedim(0, 1)
        variables: dict[str, Given] = {
            "running": (("weights", "time", "network", "index"), running, {"units": "nats per step"})
        }
        coordinates: dict[str, Given] = {
            "weights": (("weights",), np.array(WEIGHTS)),
            "time": (("time",), kept),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Fixed weights scatter less, and their scatter falls like t^-1/2."""
        time, scatter = record["time"], record["running"].std(2, ddof=1)
        random, fixed = scatter[:, -1]
        late = time >= self.steps / 10
        power = slopes(np.log(time[late]), np.log(scatter[1, late]).mean(-1))
        ratio = float(np.exp(np.log(fixed / random).mean()))
        return [
            at_most("scatter, fixed over random weights, geometric mean of all exponents", 1.0, ratio),
            at_most("scatter of lambda_1, fixed over random weights", 1.0, float(fixed[0] / random[0])),
            near("scatter with fixed weights, power of t", -0.5, float(power), 0.15),
        ]


@dataclass(frozen=True)
class Fig8(Fig7):
    """Figure 7 with surrogate sharpness 20."""

    sharpness: float = 20.0

    figure: ClassVar[str] = "fig8"
    shows: ClassVar[str] = "convergence of the exponents of LIF networks, sharpness 20"
