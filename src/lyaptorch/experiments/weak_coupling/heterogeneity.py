"""Decays that differ between units (figure 5)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import fading_memory, gradient_norms, hessian_spectrum
from lyaptorch.cells import ResidualCell
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Checks, at_least, where
from lyaptorch.experiments.figure import Along, Study, numbers
from lyaptorch.experiments.weak_coupling.edge import unsteadiness
from lyaptorch.experiments.weak_coupling.image_runs import (
    SOMETHING,
    Conditions,
    ImageRun,
    ahead,
    earlier,
    learning_curves,
    scores_of,
    seeded,
    steps_of,
)
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, figure, network
from lyaptorch.plots.primitives import PALETTE, letters, picture
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import SequentialImages
from lyaptorch.tasks.batch import Draw


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
    # as the paper has them: accuracy, the spectrum of memory, gradients, Hessian
    letters(axes, "AB CD")
    seeded(axes[0], record)


@figure(
    "fig5",
    "heterogeneous decays around a subcritical one: accuracy, exponents, gradients",
    cost=("5 s", "5 min"),
    smoke={"spreads": (0.0, 0.04), "rank": 2, "eigenvalues": 1, "hessian_steps": 2, "sample": 2},
    small={
        "learning_rates": (3e-3, 1e-2),
        "spreads": (0.0, 0.04, 0.1),
        "seeds": 3,
        "iterations": 2500,
        "measure_every": 250,
        "eigenvalues": 5,
        "hessian_steps": 12,
        "sample": 16,
    },
    draw=spreads,
    cut=(Along("seed", "seeds"), Along("condition", "spreads"), Along("lr", "learning_rates")),
)
class Fig5(ImageRun):
    """Decays drawn from U(r - delta, r + delta) around a subcritical r.

    Attributes:
        decay: r.
        spreads: delta, one group of networks for each.
        rank: exponents measured, of networks before training.
        eigenvalues: leading ones of the Hessian, of networks before training.
        hessian_steps: of the Lanczos iteration.
        sample: images of gradients and curvature.
    """

    iterations: int = 23_400
    decay: float = 0.95
    spreads: tuple[float, ...] = (0.0, 0.02, 0.04, 0.06, 0.1)
    rank: int = 16
    eigenvalues: int = 10
    hessian_steps: int = 30
    sample: int = 64

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """A spread for each; the same draws, scaled."""
        n = self.hidden_size
        # U(-1, 1), the same for all spreads: groups differ by delta alone, and lambda_1 rises with it
        drawn = 2 * Stream(self.seed, "decays").uniform((n,), member_ids=ids) - 1
        decays = self.decay + torch.tensor(self.spreads)[:, None, None] * drawn
        couplings = torch.full_like(decays, self.coupling)
        return [f"{d:g}" for d in self.spreads], torch.zeros(*decays.shape[:-1], n // 2), decays, couplings

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """Before training: exponents, the fading of a perturbation, gradients over time, the Hessian."""
        ids = numbers(self.first, self.seeds).expand(len(self.spreads), -1)
        cell = self.cell(study, conditions, ids)
        x = SequentialImages(self.images).inputs(Draw(self.seed, 400, stream="measure"))
        # one input for all, so that only the networks differ
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
            Draw(self.seed, task.length, self.sample, member_ids=ids, stream="test", dtype=torch.float64)
        )

        def loss(states: Tensor) -> Tensor:
            return model.score(batch, states)[0]

        # curvature over W, which has n^2 entries
        k, norms = min(self.eigenvalues, self.hidden_size**2), gradient_norms(cell, batch.inputs, loss)
        found = hessian_spectrum(cell, batch.inputs, loss, k=k, steps=self.hessian_steps)
        return {
            "gradient_norm": (("condition", "seed", "time"), norms.mean(-1).movedim(0, -1)),
            "hessian": (("condition", "seed", "index"), found.eigenvalues),
        }

    def claims(self, record: Record) -> Checks:
        """Heterogeneity lengthens memory; a moderate one helps, a strong one makes learning unstable."""
        leading = record["exponents"][..., 0].mean(-1)
        # logarithms, because gradients and curvature of the groups differ by decades
        norms = np.log(record["gradient_norm"]).mean(1)
        # sizes in order, so that if each is larger more of them are above any threshold
        sizes = np.log(np.sort(np.abs(record["hessian"]), -1)).mean(1)
        arriving, rise = norms[:, 0] - norms[:, -1], "smallest increase from one spread to the next"
        scaled: dict[str, Any] = {
            "kind": "identity",
            "because": "Spreads are the same draws, scaled: log(r + delta max u) rises with delta.",
        }
        for key, sentence, values, more in (
            ("exponents", f"mean lambda_1 before training: {rise}", leading, scaled),
            (
                "gradient",
                f"log (|dL/dh_s| at the first / last step) before training: {rise}",
                arriving,
                scaled,
            ),
            (
                "curvature",
                f"log |each of the leading Hessian eigenvalues| before training: {rise}",
                sizes,
                {},
            ),
        ):
            told = np.diff(values, axis=0).min() if len(values) > 1 else np.nan
            yield at_least(key, sentence, 0.0, told, source=f"{AUTHORS}, section 4.3", **more)
        yield from self._trained_claims(record, [str(name) for name in record["condition"]])

    def _trained_claims(self, record: Record, names: list[str]) -> Checks:
        """A moderate spread is better than none, and than the strongest; seed by seed, which start alike."""
        least = partial(at_least, source=f"{AUTHORS}, section 4.3")
        of, steps = scores_of(record), steps_of(record)
        # r + delta < 1: no unit's memory grows
        moderate = [name for name in names if 0 < float(name) < 1 - self.decay]
        known = max(rows.mean() for rows in of.values()) > SOMETHING
        # their mean: the best of several would be better than a single one by luck alone
        for rows in (of, steps):
            rows.update({"moderate": np.mean([rows[name] for name in moderate], 0)} if moderate else {})
        for key, other, words in (("moderate", "0", "none"), ("strongest", names[-1], "strongest")):
            sentence = f"accuracy, moderate spreads (r + delta < 1) − {words} (mean)"
            yield least(key, sentence, 0.0, where(known, ahead(of, "moderate", (other,))))
        # of all rates, so that none is chosen
        dropped = dict(zip(names, unsteadiness(record)[0].mean(1), strict=True))
        if moderate:
            dropped["moderate"] = np.mean([dropped[name] for name in moderate], 0)
        sentence = "mean drop of accuracy below its best so far, strongest − moderate spreads (mean)"
        # who never leaves chance is steady, too
        both = all(name in of and of[name].mean() > SOMETHING for name in ("moderate", names[-1]))
        yield least("unsteady", sentence, 0.0, where(both, ahead(dropped, names[-1], ("moderate",))))
        sentence = "task steps to minimal performance, no spread − moderate spreads (mean)"
        gain = earlier(steps, record["measured_at"][-1], "moderate", ("0",))
        yield least("efficiency", sentence, 0.0, gain)
