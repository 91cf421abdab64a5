"""Figure 2: what the residual says about exponents, gradients and curvature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.analysis import gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell, residuals, unroll
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.weak_coupling.training import generator, network, trained
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import Adding


@dataclass(frozen=True)
class Fig2:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "fig2"
    shows: ClassVar[str] = "trajectories, exponents, gradients over time and Hessian, for three residuals"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "hidden_size": 6,
            "length": 12,
            "sample": 4,
            "eigenvalues": 2,
            "hessian_steps": 6,
            "measure": 60,
            "iterations": 3,
            "batch": 4,
        },
        "small": {"hidden_size": 32, "sample": 50, "iterations": 300, "batch": 32},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "2 s", "paper": "10 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """Exponents before and after training, gradient norms over time, Hessian eigenvalues."""
        r = torch.tensor(self.decays)
        ids, shape = torch.zeros(len(r), dtype=torch.int64), (len(r),)
        cell = ResidualCell(
            2,
            self.hidden_size,
            residual=residuals.decay(r),
            coupling=self.coupling,
            ensemble=shape,
            member_ids=ids,
            generator=generator(self.seed),
        ).double()
        batch = Adding(self.length).draw(
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
        task = Adding(self.length)
        trained(
            network(cell.float(), task, ids, self.seed),
            task,
            self.iterations,
            member_ids=ids,
            seed=self.seed,
            batch=self.batch,
            lr=self.lr,
            measure_every=self.iterations,
            test_batches=1,
            show_progress=show_progress,
            checkpoint=checkpoint,
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
        return Record(f"weak-coupling {self.figure}", asdict(self), variables, {"r": (("decay",), r)})

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
        for i, r in enumerate(self.decays):
            off = float(np.abs(record["before"][i] - math.log(r)).max())
            found.append(at_most(f"r = {r:g}: exponents are log r, to 0.6 eps / r", bound / r, off))
            norms = np.log(record["gradient_norm"][i])
            # backwards in time, so that it falls where memory fades
            slope = float(np.polyfit(np.arange(len(norms)), norms[::-1], 1)[0])
            error = abs(slope - math.log(r))
            found.append(
                at_most(
                    f"r = {r:g}: the gradient changes by log r a step, to 10% or 0.6 eps",
                    max(0.1 * abs(math.log(r)), bound),
                    error,
                )
            )
            drift = float(np.abs(record["after"][i] - record["before"][i]).max())
            found.append(at_most(f"r = {r:g}: training moves no exponent by more than 0.05", 0.05, drift))
        leading = np.abs(record["hessian"][:, 0])
        found.append(
            at_least(
                "the leading Hessian eigenvalue grows with r: its least factor",
                1.0,
                float((leading[1:] / leading[:-1]).min()),
            )
        )
        return found
