"""Figure 2: exponents, gradients and curvature of sub-, critical and supercritical residuals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell, residuals, unroll
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.weak_coupling.adding import AUTHORS, PAPER, ensemble, fit, network
from lyaptorch.plots.primitives import PALETTE, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Adding


@picture(4)
def responses(record: Record, axes: list[Axes]) -> None:
    """Trajectories, exponents, gradients over time and Hessian eigenvalues; a colour for each r."""
    states, spectra, norms, hessian = axes
    for i, r in enumerate(record["r"]):
        color = PALETTE[i % len(PALETTE)]
        states.plot(record["trajectory"][i], color=color, linewidth=0.8)
        spectra.axhline(np.log(r), color=color, linestyle=":", linewidth=0.8)
        spectra.plot(record["before"][i], color=color, label=f"$r = {r:g}$")
        spectra.plot(record["after"][i], color=color, linestyle="--", linewidth=0.8)
        norms.semilogy(record["gradient_norm"][i], color=color)
        hessian.semilogy(np.abs(record["hessian"][i]), "o-", color=color, markersize=3)
    states.set(xlabel="step", ylabel="state", title="Trajectories", yscale="symlog")
    spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
    norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
    hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
    spectra.legend(title="dashed: trained")


@declare(
    PAPER,
    "fig2",
    "trajectories, exponents, gradients over time and Hessian, for three residuals",
    cost=("2 s", "2 s", "10 min"),
    smoke={
        "hidden_size": 6,
        "length": 12,
        "sample": 4,
        "eigenvalues": 2,
        "hessian_steps": 6,
        "measure": 60,
        "iterations": 3,
        "batch": 4,
    },
    small={"hidden_size": 32, "sample": 50, "iterations": 300, "batch": 32},
    draw=responses,
)
@dataclass(frozen=True)
class Fig2(Figure):
    """Sub-, critical and supercritical residuals r I on the adding problem, before and after training.

    Attributes:
        decays: r.
        hidden_size: n.
        coupling: eps.
        length: steps of the adding problem.
        sample: trajectories of gradients and curvature.
        eigenvalues: leading ones of the Hessian.
        hessian_steps: of the Lanczos iteration.
        measure: steps over which exponents are measured.
        iterations: task steps of the training.
        lr: learning rate.
        batch: trajectories of a task step.
    """

    decays: tuple[float, ...] = (0.95, 1.0, 1.05)
    hidden_size: int = 100
    coupling: float = 0.01
    length: int = 100
    sample: int = 200
    eigenvalues: int = 5
    hessian_steps: int = 20
    measure: int = 1000
    iterations: int = 2000
    lr: float = 1e-3
    batch: int = 128

    def run(self, study: Study) -> Results:
        """Exponents before and after training, gradient norms over time, Hessian eigenvalues."""
        r, task = torch.tensor(self.decays), Adding(self.length)
        ids = torch.zeros(len(r), dtype=torch.int64)
        turn = residuals.decay(r)
        cell = ResidualCell(
            2, self.hidden_size, residual=turn, coupling=self.coupling, **ensemble(study, ids)
        ).double()
        batch = task.draw(
            self.seed, member_ids=ids, epoch=0, batch=self.sample, length=self.length, dtype=torch.float64
        )

        def loss(states: Tensor) -> Tensor:
            """Squared error of the mean unit, the same readout for all."""
            return 0.5 * (states[-1].mean(-1, keepdim=True) - batch.targets[-1]).square().mean((-2, -1))

        norms = gradient_norms(cell, batch.inputs, loss).mean(-1)
        curvature = hessian_spectrum(cell, batch.inputs, loss, k=self.eigenvalues, steps=self.hessian_steps)
        with torch.no_grad():
            start = torch.zeros(len(r), self.sample, self.hidden_size, dtype=torch.float64)
            states = unroll(cell, batch.inputs, start)
        before = self._spectrum(cell, ids)
        fit(
            study,
            network(study, cell.float(), task, ids),
            task,
            self.iterations,
            member_ids=ids,
            batch=self.batch,
            lr=self.lr,
            metrics_every=self.iterations,
            test_batches=1,
        )
        nats = {"units": "nats per step"}
        variables: dict[str, Any] = {
            "trajectory": (("decay", "step", "unit"), states[:, :, 0, :4].movedim(0, 1)),
            "before": (("decay", "rank"), before, nats),
            "after": (("decay", "rank"), self._spectrum(cell.double(), ids), nats),
            "gradient_norm": (("decay", "time"), norms.mT),
            "hessian": (("decay", "index"), curvature.eigenvalues),
            "contributions": (("decay", "step"), curvature.contributions[..., 0].mT),
        }
        return variables, {"r": (("decay",), r)}

    @torch.no_grad()
    def _spectrum(self, cell: ResidualCell, ids: Tensor) -> Tensor:
        inputs = Adding(2).inputs(
            self.seed,
            member_ids=ids,
            epoch=0,
            batch=1,
            length=self.measure,
            stream="measure",
            dtype=torch.float64,
        )
        return lyapunov_spectrum(cell, inputs, tangent_transient=self.measure // 4).exponents[..., 0, :]

    def checks(self, record: Record) -> list[Check]:
        """Exponents and the slope of the gradient are log r, and curvature grows with r."""
        found, bound = [], 0.6 * self.coupling
        theory: dict[str, Any] = {"kind": "identity", "source": f"{AUTHORS}, equation 13"}
        source = f"{AUTHORS}, section 4.1"
        for i, r in enumerate(self.decays):
            off = np.abs(record["before"][i] - math.log(r)).max()
            sentence = f"r = {r:g}: exponents are log r, to 0.6 eps / r"
            found.append(at_most(f"r {r:g} exponents", sentence, bound / r, off, **theory))
            norms = np.log(record["gradient_norm"][i])
            # backwards in time, so that it falls where memory fades
            slope = np.polyfit(np.arange(len(norms)), norms[::-1], 1)[0]
            largest, error = max(0.1 * abs(math.log(r)), bound), abs(slope - math.log(r))
            sentence = f"r = {r:g}: the gradient changes by log r a step, to 10% or 0.6 eps"
            found.append(at_most(f"r {r:g} gradient", sentence, largest, error, **theory))
            drift = np.abs(record["after"][i] - record["before"][i]).max()
            sentence = f"r = {r:g}: training moves no exponent by more than 0.05"
            found.append(at_most(f"r {r:g} training", sentence, 0.05, drift, source=source))
        leading = np.abs(record["hessian"][:, 0])
        sentence = "the leading Hessian eigenvalue grows with r: its least factor"
        found.append(at_least("curvature", sentence, 1.0, (leading[1:] / leading[:-1]).min(), source=source))
        return found
