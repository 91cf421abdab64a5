"""Figure 5: decays that differ between units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import fading_memory, gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import declare
from lyaptorch.experiments.study import Study
from lyaptorch.experiments.weak_coupling.images import (
    SMALL,
    SMOKE,
    Conditions,
    ImageRun,
    best_of,
    learning_curves,
)
from lyaptorch.experiments.weak_coupling.training import AUTHORS, PAPER, network
from lyaptorch.plots.primitives import picture
from lyaptorch.plots.style import PALETTE
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import SequentialImages

SOURCE = f"{AUTHORS}, section 4.3"


@picture(5, width=3.0)
def spreads(record: Record, axes: list[Axes]) -> None:
    """Accuracy, exponents, fading memory, gradients and Hessian, a colour for each spread of the decays."""
    accuracy, spectra, memory, norms, hessian = axes
    learning_curves(accuracy, record, 0, "Learning")
    for i, name in enumerate(record["condition"]):
        color = PALETTE[i % len(PALETTE)]
        spectra.plot(record["exponents"][i].mean(0), "o-", color=color, markersize=3)
        memory.semilogy(record["fading_memory"][i].mean(0), color=color, label=rf"$\delta = {name}$")
        norms.semilogy(record["gradient_norm"][i].mean(0), color=color)
        hessian.semilogy(np.abs(record["hessian"][i]).mean(0), "o-", color=color, markersize=3)
    spectra.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="Exponents")
    memory.set(xlabel="steps", ylabel="perturbation left", title="Fading memory")
    norms.set(xlabel="step", ylabel=r"$|dL/dh_s|$", title="Gradients")
    hessian.set(xlabel="index", ylabel="|eigenvalue|", title="Hessian")
    memory.legend()


@declare(
    PAPER,
    "fig5",
    "heterogeneous decays around a subcritical one: accuracy, exponents, gradients",
    cost=("5 s", "40 s", "an hour on a GPU"),
    smoke={
        **SMOKE,
        "spreads": (0.0, 0.04),
        "rank": 2,
        "eigenvalues": 1,
        "hessian_steps": 2,
        "sample": 2,
    },
    small={
        **SMALL,
        "learning_rates": (3e-3, 1e-2),
        "spreads": (0.0, 0.04, 0.1),
        "eigenvalues": 5,
        "hessian_steps": 12,
        "sample": 16,
    },
    draw=spreads,
)
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

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """A spread for each; the same draws, scaled."""
        n = self.hidden_size
        drawn = 2 * Stream(self.seed, "decays").uniform((n,), member_ids=ids) - 1
        decays = self.decay + torch.tensor(self.spreads)[:, None, None] * drawn
        couplings = torch.full_like(decays, self.coupling)
        return [f"{d:g}" for d in self.spreads], torch.zeros(*decays.shape[:-1], n // 2), decays, couplings

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """Before training: exponents, the fading of a perturbation, gradients over time, the Hessian."""
        names, angles, decays, couplings = conditions
        ids = torch.arange(self.seeds).expand(len(names), -1)
        cell = self.cell(study, angles, decays, couplings, ids)
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
            **self._curvature(study, cell, ids),
        }

    def _curvature(self, study: Study, cell: ResidualCell, ids: Tensor) -> dict[str, Any]:
        """In float64, because gradients of supercritical networks grow exponentially."""
        task = SequentialImages(self.images)
        model = network(study, cell, task, ids).double()
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
        found = []
        for key, sentence, values in (
            ("exponents", "lambda_1 rises with the spread: its least rise", leading),
            (
                "gradient",
                "more of the gradient arrives at the first step: least rise of its logarithm",
                norms[:, 0] - norms[:, -1],
            ),
            ("curvature", "the leading Hessian eigenvalue rises: least rise of its logarithm", curvature),
        ):
            found.append(at_least(key, sentence, 0.0, float(np.diff(values).min()), source=SOURCE))
        if moderate and "0" in best:
            helped = max(best[name] for name in moderate)
            gain, loss = helped - best["0"], helped - best[names[-1]]
            sentence = "moderate heterogeneity does not lose accuracy"
            found.append(at_least("moderate", sentence, 0.0, gain, 0.02, source=SOURCE))
            found.append(at_least("strongest", "the strongest loses some", 0.0, loss, source=SOURCE))
        return found
