"""Gradient norms and condition numbers against surrogate exponents: appendices F and G."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import condition_number
from lyaptorch.cells import BinaryCell, unroll
from lyaptorch.experiments.check import Check, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.surrogate_flossing.networks import PAPER, random_networks
from lyaptorch.plots.primitives import PALETTE, Picture, single
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy

TRANSIENT = 50
"""Steps before, and again while, the frame settles."""
SMOKE = {"networks": 3, "hidden_size": 16, "horizons": (5, 10, 15), "measure": 50}


def growth(name: str, slope: str, ylabel: str, theory: str) -> Picture:
    """A picture of `name` over the steps for each sharpness, with its theoretical slope."""

    @single
    def draw(record: Record, axes: list[Axes]) -> None:
        (panel,) = axes
        steps = record["horizon"]
        for group, g in enumerate(record["sharpness"]):
            rows, color = record[name][group], PALETTE[group]
            mean = rows.mean(0)
            panel.plot(steps, rows.T, color=color, alpha=0.2, linewidth=0.6)
            panel.plot(steps, mean, "o-", color=color, markersize=3, label=f"$g = {g:g}$")
            line = mean.mean() + record[slope][group].mean() * (steps - steps.mean())
            label = theory if group == 0 else None
            panel.plot(steps, line, "--", color="black", linewidth=0.9, label=label)
        panel.set(xlabel="steps $T$", ylabel=ylabel)
        panel.legend()

    return draw


@dataclass(frozen=True)
class Driven(Figure):
    """Random binary networks driven by bits, of which gradients and exponents are measured.

    Attributes:
        sharpness: g, one group of networks for each.
        networks: in each group.
        hidden_size: n.
        horizons: numbers of steps that a gradient travels.
        measure: steps over which exponents are measured.
    """

    sharpness: tuple[float, ...] = (0.5, 1.0, 2.0)
    networks: int = 20
    hidden_size: int = 80
    horizons: tuple[int, ...] = tuple(range(20, 201, 20))
    measure: int = 4000

    def driven(self) -> tuple[BinaryCell, Tensor, Tensor]:
        """The networks, inputs `(t, *e, 1, 1)` and states before them."""
        ids = torch.arange(self.networks).expand(len(self.sharpness), -1)
        sharpness = torch.tensor(self.sharpness)[:, None].expand(ids.shape)
        cell = random_networks(self.hidden_size, sharpness, ids, self.seed)
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

    def results(self, name: str, measured: Tensor, slope: str, expected: Tensor) -> Results:
        """`name (group, network, horizon)` and its theoretical slope `(group, network)`."""
        variables = {
            name: (("group", "network", "horizon"), measured),
            slope: (("group", "network"), expected),
        }
        coordinates = {
            "sharpness": (("group",), np.array(self.sharpness)),
            "horizon": (("horizon",), np.array(self.horizons)),
        }
        return variables, coordinates

    def slope_checks(self, record: Record, name: str, expected: str, what: str, source: str) -> list[Check]:
        """The slope of `name` over the horizons is `expected`, within two standard errors over networks."""
        found = []
        for group, g in enumerate(record["sharpness"].tolist()):
            slopes = np.polyfit(record["horizon"], record[name][group].T, 1)[0]
            away = slopes - record[expected][group]
            error = 2 * float(away.std(ddof=1) / math.sqrt(len(away)))
            sentence = f"g = {g:g}: slope of {what}, within two standard errors"
            found.append(near(f"g {g:g}", sentence, 0.0, away.mean(), error, kind="identity", source=source))
        return found


@declare(
    PAPER,
    "appF",
    "norm of the gradient with respect to h0 against exp(lambda_1 T)",
    cost=("1 s", "1 s", "2 min"),
    smoke=SMOKE,
    small={"networks": 12, "horizons": (20, 40, 60, 80, 100, 120), "measure": 1500},
    draw=growth("log_norm", "lambda1", r"$\log |dL/dh_0|$", r"$\lambda_1 T$"),
)
@dataclass(frozen=True)
class AppF(Driven):
    """The norm of a gradient with respect to the initial state against the steps it travelled."""

    def run(self, study: Study) -> Results:
        """`log_norm (group, network, horizon)` and `lambda1 (group, network)`."""
        cell, inputs, h0 = self.driven()
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
        lambda1 = self.exponents(cell, inputs, h0, 1)[..., 0]
        return self.results("log_norm", torch.stack(rows, -1), "lambda1", lambda1)

    def checks(self, record: Record) -> list[Check]:
        """Log norms grow with lambda_1."""
        what, source = "log |dL/dh0| - lambda_1", "theory (Surrogate Gradient Flossing, appendix F)"
        return self.slope_checks(record, "log_norm", "lambda1", what, source)


@declare(
    PAPER,
    "appG",
    "condition number of m tangent directions against exp((lambda_1 - lambda_m) T)",
    cost=("1 s", "1 s", "10 min"),
    smoke={**SMOKE, "m": 4},
    small={"networks": 8, "horizons": (200, 300, 400, 500, 600), "measure": 1500},
    draw=growth("log_kappa", "spread", r"$\log \kappa_m$", r"$(\lambda_1 - \lambda_m) T$"),
)
@dataclass(frozen=True)
class AppG(Driven):
    """The condition number of the long-term surrogate Jacobian against its steps.

    Horizons are long, because singular values repel each other until their exponents have parted.

    Attributes:
        m: how many tangent directions.
    """

    m: int = 10
    horizons: tuple[int, ...] = tuple(range(200, 1001, 100))

    def run(self, study: Study) -> Results:
        """`log_kappa (group, network, horizon)` and `spread (group, network)`, lambda_1 - lambda_m."""
        cell, inputs, h0 = self.driven()
        found = condition_number(
            cell,
            inputs[: TRANSIENT + max(self.horizons)],
            m=self.m,
            h0=h0,
            transient=TRANSIENT,
            every=math.gcd(*self.horizons),
            generator=study.generator(),
        )
        wanted = [found.times.tolist().index(horizon) for horizon in self.horizons]
        exponents = self.exponents(cell, inputs, h0, self.m)
        log_kappa = found.log_kappa[wanted][..., 0].movedim(0, -1)
        return self.results("log_kappa", log_kappa, "spread", exponents[..., 0] - exponents[..., -1])

    def checks(self, record: Record) -> list[Check]:
        """Log condition numbers grow with lambda_1 - lambda_m."""
        what, source = "log kappa - (lambda_1 - lambda_m)", "theory (Surrogate Gradient Flossing, appendix G)"
        return self.slope_checks(record, "log_kappa", "spread", what, source)
