"""Exponents after training, of networks that solve their task and of those that do not: figure 13."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.gradient_flossing.delays import DIMS, Fig4d
from lyaptorch.experiments.gradient_flossing.frames import SOLVED
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.lagged import LaggedTask
from lyaptorch.training import Model


@dataclass(frozen=True)
class Fig13(Fig4d):
    """lambda_1 and lambda_10 after training on the spatial XOR, flossed or not, against delay.

    Attributes:
        indices: which exponents, from 1.
        measure: steps over which they are measured.
    """

    indices: tuple[int, ...] = (1, 10)
    measure: int = 1000

    figure: ClassVar[str] = "fig13"
    shows: ClassVar[str] = "exponents after training on spatial XOR against delay, solved or not (a-d)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Fig4d.scales["smoke"], "measure": 60},
        "small": {**Fig4d.scales["small"], "delays": (10, 20, 40), "seeds": 2, "epochs": 1000},
    }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """That of figure 4d, and `exponents (condition, delay, seed, index)`."""
        variables, (model, task, ids) = self.swept(checkpoint, show_progress)
        values = self._exponents(model, task, ids)
        variables["exponents"] = ((*DIMS, "index"), values, {"units": "nats per step"})
        return self.swept_record(variables)

    def checks(self, record: Record) -> list[Check]:
        """lambda_1 = -c d^-p of the solved networks; at each delay the solved lie above the others."""
        solved = record["final_accuracy"] >= SOLVED
        delays = np.broadcast_to(record["delay"][:, None], solved.shape)
        power, error = power_law(delays[solved], record["exponents"][solved][:, 0])
        found = [
            at_least(
                f"solved: lambda_1 = -c d^-p, p over its standard error ({error:.2g})", 2.0, power / error
            )
        ]
        for i in self.indices:
            values = record["exponents"][..., i - 1]
            for j, delay in enumerate(record["delay"].tolist()):
                above, below = values[:, j][solved[:, j]], values[:, j][~solved[:, j]]
                if above.size and below.size:
                    sentence = (
                        f"lambda_{i} at d = {delay}: mean of solved networks above that of the others by"
                    )
                    found.append(at_least(sentence, 0.0, float(above.mean() - below.mean())))
        return found

    @torch.no_grad()
    def _exponents(self, model: Model, task: LaggedTask, ids: Tensor) -> Tensor:
        inputs = task.inputs(
            self.seed, member_ids=ids, epoch=0, batch=1, length=100 + self.measure, stream="measure"
        )
        spectrum = lyapunov_spectrum(
            model.cell, inputs, k=max(self.indices), h0=model.initial_state(1), tangent_transient=100
        )
        return spectrum.exponents[..., 0, :]


def power_law(delays: NDArray[np.integer], exponents: NDArray[np.floating]) -> tuple[float, float]:
    """p of lambda = -c d^-p by least squares of the logarithms, and its standard error; NaN if too few."""
    below = exponents < 0
    x, y = np.log(delays[below]), np.log(-exponents[below])
    if x.size < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(-slope), float(covariance[0, 0] ** 0.5)
