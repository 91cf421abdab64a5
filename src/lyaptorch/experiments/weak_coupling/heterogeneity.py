"""Figure 5: decays that differ between units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import PowerSpectrum, fading_memory, gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.weak_coupling.images import SMALL, SMOKE, ImageRun, best_of
from lyaptorch.experiments.weak_coupling.training import network
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import SequentialImages


@dataclass(frozen=True)
class Fig5(ImageRun):
    """Decays drawn from U(r - delta, r + delta) around a subcritical r.

    Attributes:
        decay: r.
        spreads: delta, one group of networks for each.
        coupling: eps.
        rank: exponents measured, of networks before training.
        eigenvalues: leading ones of the Hessian, of networks before training.
        hessian_steps: of the Lanczos iteration.
        sample: images of gradients and curvature.
    """

    iterations: int = 23_400
    decay: float = 0.95
    spreads: tuple[float, ...] = (0.0, 0.02, 0.04, 0.06, 0.1)
    coupling: float = 0.03
    rank: int = 16
    eigenvalues: int = 10
    hessian_steps: int = 30
    sample: int = 64

    figure: ClassVar[str] = "fig5"
    shows: ClassVar[str] = "heterogeneous decays around a subcritical one: accuracy, exponents, gradients"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            **SMOKE,
            "learning_rates": (1e-3,),
            "spreads": (0.0, 0.04),
            "rank": 2,
            "eigenvalues": 1,
            "hessian_steps": 2,
            "sample": 2,
            "spectrum_images": 8,
        },
        "small": {
            **SMALL,
            "learning_rates": (3e-3, 1e-2),
            "spreads": (0.0, 0.04, 0.1),
            "eigenvalues": 5,
            "hessian_steps": 12,
            "sample": 16,
        },
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "40 s", "paper": "an hour on a GPU"}

    def conditions(self, w0: float, ids: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """A spread for each; the same draws, scaled."""
        n = self.hidden_size
        drawn = 2 * Stream(self.seed, "decays").uniform((n,), member_ids=ids) - 1
        decays = self.decay + torch.tensor(self.spreads)[:, None, None] * drawn
        couplings = torch.full_like(decays, self.coupling)
        return [f"{d:g}" for d in self.spreads], torch.zeros(*decays.shape[:-1], n // 2), decays, couplings

    def more(self, names: list[str], spectrum: PowerSpectrum) -> dict[str, Any]:
        """Before training: exponents, the fading of a perturbation, gradients over time, the Hessian."""
        own = torch.arange(self.seeds)
        _, angles, decays, couplings = self.conditions(spectrum.frequency, own)
        ids = own.expand(len(names), self.seeds)
        cell = self.cell(angles, decays, couplings, ids)
        x = SequentialImages(self.images).inputs(
            self.seed, member_ids=torch.tensor(0), epoch=0, batch=1, length=400, stream="measure"
        )
        inputs = x[:, None, None].expand(-1, *cell.ensemble, -1, -1)
        with torch.no_grad():
            k = min(self.rank, self.hidden_size)
            exponents = lyapunov_spectrum(cell, inputs, k=k, tangent_transient=100).exponents[..., 0, :]
        curve = fading_memory(cell, inputs[:200])[..., 0].movedim(0, -1)
        dims = ("condition", "seed")
        return {
            "exponents": ((*dims, "rank"), exponents, {"units": "nats per step"}),
            "fading_memory": ((*dims, "step"), curve),
            **self._curvature(cell, ids),
        }

    def _curvature(self, cell: ResidualCell, ids: Tensor) -> dict[str, Any]:
        """In float64, because gradients of supercritical networks grow exponentially."""
        task = SequentialImages(self.images)
        model = network(cell, task, ids, self.seed).double()
        batch = task.draw(
            self.seed,
            member_ids=ids,
            epoch=0,
            batch=self.sample,
            length=task.length,
            stream="test",
            dtype=torch.float64,
        )

        def loss(states: Tensor) -> Tensor:
            return model.score(batch, states)[0]

        found = hessian_spectrum(
            cell, batch.inputs, loss, k=min(self.eigenvalues, self.hidden_size**2), steps=self.hessian_steps
        )
        return {
            "gradient_norm": (
                ("condition", "seed", "time"),
                gradient_norms(cell, batch.inputs, loss).mean(-1).movedim(0, -1),
            ),
            "hessian": (("condition", "seed", "index"), found.eigenvalues),
        }

    def checks(self, record: Record) -> list[Check]:
        """Heterogeneity lengthens memory; a moderate one helps, a strong one makes learning unstable."""
        best, leading = best_of(record), record["exponents"][..., 0].mean(-1)
        norms = np.log(record["gradient_norm"]).mean(1)
        curvature = np.log(np.abs(record["hessian"][..., 0])).mean(-1)
        names = [str(name) for name in record["condition"]]
        moderate = [name for name in names if 0 < float(name) < 1 - self.decay]
        found = [
            at_least("lambda_1 rises with the spread: its least rise", 0.0, float(np.diff(leading).min())),
            at_least(
                "more of the gradient arrives at the first step: least rise of its logarithm",
                0.0,
                float(np.diff(norms[:, 0] - norms[:, -1]).min()),
            ),
            at_least(
                "the leading Hessian eigenvalue rises: least rise of its logarithm",
                0.0,
                float(np.diff(curvature).min()),
            ),
        ]
        if moderate and "0" in best:
            gain = max(best[name] for name in moderate) - best["0"]
            found.append(at_least("moderate heterogeneity does not lose accuracy", 0.0, gain, 0.02))
            loss = max(best[name] for name in moderate) - best[names[-1]]
            found.append(at_least("the strongest loses some", 0.0, loss))
        return found
