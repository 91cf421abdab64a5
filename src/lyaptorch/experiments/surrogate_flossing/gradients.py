"""What surrogate exponents say about gradients: appendices F and G."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import condition_number
from lyaptorch.cells import BinaryCell, unroll
from lyaptorch.experiments.checks import Check, near
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy

TRANSIENT = 50
"""Steps before, and again while, the frame settles."""


@dataclass(frozen=True)
class Driven:
    """Random binary networks driven by bits, of which gradients and exponents are measured.

    Attributes:
        sharpness: g, one group of networks for each.
        networks: in each group.
        hidden_size: n.
        horizons: numbers of steps that a gradient travels.
        measure: steps over which exponents are measured.
        seed: determines everything.
    """

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0)
    networks: int = 20
    hidden_size: int = 80
    horizons: tuple[int, ...] = tuple(range(20, 201, 20))
    measure: int = 4000
    seed: int = 0

    def networks_of(self, sharpness: tuple[float, ...]) -> tuple[BinaryCell, Tensor, Tensor]:
        """The networks, inputs `(t, *e, 1, 1)` and states before them."""
        ensemble = (len(sharpness), self.networks)
        ids = torch.arange(self.networks).expand(ensemble)
        cell = BinaryCell(
            1,
            self.hidden_size,
            sharpness=torch.tensor(sharpness)[:, None].expand(ensemble),
            bias=False,
            ensemble=ensemble,
            member_ids=ids,
            generator=torch.Generator().manual_seed(self.seed),
        ).double()
        length = 2 * TRANSIENT + max(self.measure, *self.horizons)
        inputs = DelayedCopy(1, binary=True).inputs(
            self.seed, member_ids=ids, epoch=0, batch=1, length=length, dtype=torch.float64
        )
        h0 = Stream(self.seed, "h0").normal((1, self.hidden_size), member_ids=ids, dtype=torch.float64)
        return cell, inputs, h0

    def exponents(self, cell: BinaryCell, inputs: Tensor, h0: Tensor, k: int) -> Tensor:
        """The first k exponents `(*e, k)`."""
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell,
                inputs[: 2 * TRANSIENT + self.measure],
                k=k,
                h0=h0,
                transient=TRANSIENT,
                tangent_transient=TRANSIENT,
            )
        return spectrum.exponents[..., 0, :]

    def slope_checks(self, record: Record, name: str, expected: str, what: str) -> list[Check]:
        """The slope of `name` over the horizons is `expected`, within two standard errors over networks."""
        found = []
        for group, g in enumerate(record["sharpness"].tolist()):
            slopes = np.polyfit(record["horizon"], record[name][group].T, 1)[0]
            away = slopes - record[expected][group]
            error = float(away.std(ddof=1) / math.sqrt(len(away)))
            sentence = f"g = {g:g}: slope of {what}, within two standard errors"
            found.append(near(sentence, 0.0, float(away.mean()), 2 * error))
        return found


@dataclass(frozen=True)
class AppF(Driven):
    """The norm of a gradient with respect to the initial state against the steps it travelled."""

    figure: ClassVar[str] = "appF"
    shows: ClassVar[str] = "norm of the gradient with respect to h0 against exp(lambda_1 T)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"networks": 3, "hidden_size": 16, "horizons": (5, 10, 15), "measure": 50},
        "small": {"networks": 12, "horizons": (20, 40, 60, 80, 100, 120), "measure": 1500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "1 s", "paper": "2 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`log_norm (group, network, horizon)` and `lambda1 (group, network)`."""
        cell, inputs, h0 = self.networks_of(self.sharpness)
        with torch.no_grad():
            start = unroll(cell, inputs[:TRANSIENT], h0)[-1]
        start.requires_grad_()
        states = unroll(cell, inputs[TRANSIENT : TRANSIENT + max(self.horizons)], start)
        cotangent = torch.linspace(-1, 1, self.hidden_size, dtype=torch.float64)
        rows = []
        for horizon in self.horizons:
            loss = (states[horizon - 1] * cotangent).sum()
            (gradient,) = torch.autograd.grad(loss, start, retain_graph=True)
            rows.append(torch.linalg.vector_norm(gradient[..., 0, :], dim=-1).log())
        variables = {
            "log_norm": (("group", "network", "horizon"), torch.stack(rows, -1)),
            "lambda1": (("group", "network"), self.exponents(cell, inputs, h0, 1)[..., 0]),
        }
        coordinates = {
            "sharpness": (("group",), np.array(self.sharpness)),
            "horizon": (("horizon",), np.array(self.horizons)),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Log norms grow with lambda_1."""
        return self.slope_checks(record, "log_norm", "lambda1", "log |dL/dh0| - lambda_1")


@dataclass(frozen=True)
class AppG(Driven):
    """The condition number of the long-term surrogate Jacobian against its steps.

    Horizons are long, because singular values repel each other until their exponents have parted.

    Attributes:
        m: how many tangent directions.
    """

    m: int = 10
    horizons: tuple[int, ...] = tuple(range(200, 1001, 100))

    figure: ClassVar[str] = "appG"
    shows: ClassVar[str] = "condition number of m tangent directions against exp((lambda_1 - lambda_m) T)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"networks": 3, "hidden_size": 16, "horizons": (5, 10, 15), "measure": 50, "m": 4},
        "small": {"networks": 8, "horizons": (200, 300, 400, 500, 600), "measure": 1500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "1 s", "paper": "10 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`log_kappa (group, network, horizon)` and `spread (group, network)`, lambda_1 - lambda_m."""
        cell, inputs, h0 = self.networks_of(self.sharpness)
        every = math.gcd(*self.horizons)
        found = condition_number(
            cell,
            inputs[: TRANSIENT + max(self.horizons)],
            m=self.m,
            h0=h0,
            transient=TRANSIENT,
            every=every,
            generator=torch.Generator().manual_seed(self.seed),
        )
        wanted = [found.times.tolist().index(horizon) for horizon in self.horizons]
        exponents = self.exponents(cell, inputs, h0, self.m)
        variables = {
            "log_kappa": (("group", "network", "horizon"), found.log_kappa[wanted][..., 0].movedim(0, -1)),
            "spread": (("group", "network"), exponents[..., 0] - exponents[..., -1]),
        }
        coordinates = {
            "sharpness": (("group",), np.array(self.sharpness)),
            "horizon": (("horizon",), np.array(self.horizons)),
        }
        return Record(f"surrogate-flossing {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Log condition numbers grow with lambda_1 - lambda_m."""
        return self.slope_checks(record, "log_kappa", "spread", "log kappa - (lambda_1 - lambda_m)")
