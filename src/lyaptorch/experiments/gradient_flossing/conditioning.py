"""The condition number of the long-term Jacobian: figures 2a, 2b and 2c."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.analysis import condition_number, usable_dimensions
from lyaptorch.cells import RateCell
from lyaptorch.experiments.checks import Check, at_least, at_most, near, slopes
from lyaptorch.experiments.gradient_flossing.control import NoiseDriven
from lyaptorch.record import Given, Record

GROUPS = ("random", "flossed")
PAPER_BITS = 256


@dataclass(frozen=True)
class Fig2a(NoiseDriven):
    """The condition number against time, with and without flossing all exponents, and what exponents predict.

    Attributes:
        horizon: t, factors of the long-term Jacobian.
        every: steps between two points.
        kappas: acceptable condition numbers of figure 2b.
    """

    epochs: int = 1000
    batch: int = 1
    measure: int = 8000
    horizon: int = 60
    every: int = 5
    kappas: tuple[float, ...] = (1e1, 1e2, 1e4, 1e7, 1e12, 1e16)

    figure: ClassVar[str] = "fig2a"
    shows: ClassVar[str] = (
        "condition number of the long-term Jacobian over time, flossed or not, and predicted"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "networks": 3,
            "hidden_size": 8,
            "epochs": 20,
            "steps": 80,
            "measure": 500,
            "horizon": 20,
        },
        "small": {"networks": 6, "epochs": 200},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "25 s", "paper": "10 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`log_kappa (group, network, time)`, `exponents (group, network, rank)`, ..."""
        shape = (len(GROUPS), self.networks)
        ids = torch.arange(self.networks).expand(shape)
        cell = self.cell(ids, 1.0)
        flossed = torch.tensor([0.0, 1.0])[:, None].expand(shape)
        k = torch.full(shape, self.hidden_size)
        self.floss(cell, ids, k, torch.zeros(shape), self.lr * flossed, show_progress)
        inputs = self.noise(ids, 100 + self.horizon, epoch=1)
        found = condition_number(cell, inputs, transient=100, every=self.every)
        exponents = self.spectrum(cell, ids).sort(-1, descending=True).values
        dims, alone = ("group", "network", "time"), ("group", "time")
        first = [self._first(cell, inputs, group) for group in range(len(GROUPS))]
        usable = [usable_dimensions(exponents, self.horizon, kappa) for kappa in self.kappas]
        variables: dict[str, Given] = {
            "log_kappa": (dims, found.log_kappa[..., 0].movedim(0, -1), {"units": "nats"}),
            "log_kappa_enough_bits": (alone, torch.stack([enough for enough, _, _ in first])),
            "log_kappa_paper_bits": (alone, torch.stack([paper for _, paper, _ in first])),
            "bits": (("group",), np.array([bits for _, _, bits in first])),
            "exponents": (("group", "network", "rank"), exponents, {"units": "nats per step"}),
            "usable": (("group", "network", "kappa"), torch.stack(usable, -1)),
        }
        coordinates = {
            "group": (("group",), np.array(GROUPS)),
            "time": (("time",), found.times),
            "kappa": (("kappa",), np.array(self.kappas)),
        }
        return Record(f"gradient-flossing {self.figure}", asdict(self), variables, coordinates)

    def _first(self, cell: RateCell, inputs: Tensor, group: int) -> tuple[Tensor, Tensor, int]:
        """The first network of a group, multiplied out with enough bits, and with the paper's."""
        alone = self.cell(torch.tensor([0]), 1.0)
        with torch.no_grad():
            for own, all_of_them in zip(alone.parameters(), cell.parameters(), strict=True):
                own.copy_(all_of_them[group, :1])
        enough, paper = (
            condition_number(alone, inputs[:, group, :1], transient=100, every=self.every, bits=bits)
            for bits in ("auto", PAPER_BITS)
        )
        return enough.log_kappa[:, 0, 0], paper.log_kappa[:, 0, 0], enough.bits

    def checks(self, record: Record) -> list[Check]:
        """Log kappa grows at lambda_1 - lambda_n; enough bits agree with float64; 256 saturate."""
        found = []
        gap = record["exponents"][..., 0] - record["exponents"][..., -1]
        slope = slopes(record["time"], record["log_kappa"])
        for i, group in enumerate(record["group"]):
            error = (slope[i] - gap[i]).std(ddof=1) / math.sqrt(self.networks)
            sentence = f"{group}: slope of log kappa is lambda_1 - lambda_n, within 2 standard errors"
            found.append(near(sentence, float(gap[i].mean()), float(slope[i].mean()), float(2 * error)))
            enough, plain = record["log_kappa_enough_bits"][i], record["log_kappa"][i, 0]
            sentence = f"{group}: log kappa at the end, float64 against {record['bits'][i]} bits"
            found.append(near(sentence, float(enough[-1]), float(plain[-1]), 1e-3))
            most, limit = float(record["log_kappa_paper_bits"][i].max()), PAPER_BITS * math.log(2)
            sentence = f"{group}: log kappa multiplied out with {PAPER_BITS} bits stays below their range"
            found.append(at_most(sentence, limit, most, 15.0))
        random, flossed = record["log_kappa"][..., -1].mean(1)
        sentence = "flossed: mean log kappa at the end is at most half that of the random networks"
        found.append(at_most(sentence, float(random / 2), float(flossed)))
        return found


@dataclass(frozen=True)
class Fig2b(Fig2a):
    """How many gradient directions are left at a given condition number."""

    figure: ClassVar[str] = "fig2b"
    shows: ClassVar[str] = "usable gradient dimensions at a given condition number, flossed or not"

    def checks(self, record: Record) -> list[Check]:
        """Flossing leaves more at every condition number."""
        random, flossed = record["usable"].mean(1)
        return [
            at_least(f"kappa = {kappa:.0e}: more dimensions than without flossing", float(a + 1), float(b))
            for kappa, a, b in zip(record["kappa"], random, flossed, strict=True)
        ]


@dataclass(frozen=True)
class Fig2c(NoiseDriven):
    """Measured against predicted condition number of single networks of several sizes.

    Attributes:
        sizes: n of each group.
        horizon: t.
        trajectories: of each network, over which log kappa is averaged.
    """

    measure: int = 8000
    sizes: tuple[int, ...] = (8, 16, 32, 64)
    horizon: int = 60
    trajectories: int = 8

    figure: ClassVar[str] = "fig2c"
    shows: ClassVar[str] = "condition number of single networks of finite size, measured against predicted"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"networks": 3, "sizes": (4, 8), "horizon": 20, "trajectories": 2, "measure": 500},
        "small": {"sizes": (8, 16, 32), "measure": 4000},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "1 s", "paper": "5 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`rate (size, network)`, log kappa_n(t) / t, and `gap (size, network)`, lambda_1 - lambda_n."""
        ids = torch.arange(self.networks)
        rates, gaps = [], []
        for n in self.sizes:
            cell = self.cell(ids, 1.0, n)
            inputs = self.noise(ids, 100 + self.horizon, self.trajectories, epoch=1)
            found = condition_number(cell, inputs, transient=100)
            rates.append(found.log_kappa[-1].mean(-1) / self.horizon)
            exponents = self.spectrum(cell, ids)
            gaps.append(exponents.amax(-1) - exponents.amin(-1))
        dims, nats = ("size", "network"), {"units": "nats per step"}
        variables = {"rate": (dims, torch.stack(rates), nats), "gap": (dims, torch.stack(gaps), nats)}
        coordinates = {"size": (("size",), np.array(self.sizes))}
        return Record(f"gradient-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """The exponents predict the condition number of each network, sizes apart."""
        found = []
        for n, gap, rate in zip(record["size"], record["gap"], record["rate"], strict=True):
            both = float(np.corrcoef(gap, rate)[0, 1])
            found.append(at_least(f"n = {n}: correlation of measured and predicted", 0.7, both))
            sentence = f"n = {n}: mean of log kappa over t is lambda_1 - lambda_n"
            found.append(near(sentence, float(gap.mean()), float(rate.mean()), 0.1 * float(gap.mean())))
        return found
