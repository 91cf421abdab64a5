"""Figure 6: residuals inside the non-linearity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.study import Study
from lyaptorch.experiments.weak_coupling.images import SMALL, SMOKE, Conditions, ImageRun
from lyaptorch.experiments.weak_coupling.training import AUTHORS, PAPER
from lyaptorch.plots.primitives import picture, scores
from lyaptorch.plots.style import GREY, PALETTE
from lyaptorch.record import Record

KINDS = ("A", "B")
SOURCE = f"{AUTHORS}, section 4.4"


@picture(lambda record: 2 * len(record["permuted"]))
def sides(record: Record, axes: list[Axes]) -> None:
    """Best accuracy of kinds A and B against r, and against the angle at r = 1."""
    r, multiples, label = record.config["decays"], record.config["multiples"], "best test accuracy"
    for order, permuted in enumerate(record["permuted"]):
        left, right = axes[2 * order : 2 * order + 2]
        for i, kind in enumerate(record["kind_name"]):
            best = np.nan_to_num(record["best_accuracy"][i, order]).max(1)
            at_rest = best[r.index(1.0)] if 1.0 in r else np.full(best.shape[-1], np.nan)
            turned = np.concatenate([at_rest[None], best[len(r) :]])
            scores(left, r, best[: len(r)], PALETTE[i], f"kind {kind}", alpha=0.4)
            scores(right, [0.0, *multiples], turned, PALETTE[i], alpha=0.4)
        title = "permuted" if permuted else "in order"
        left.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
        left.set(xlabel="$r$", ylabel=label, title=f"Decay, {title}")
        right.set(xlabel=r"angle / $\omega_0$", ylabel=label, title=f"Rotation, {title}")
        left.legend()


@declare(
    PAPER,
    "fig6",
    "kinds A and B: accuracy against r, and against the angle of a rotation",
    cost=("3 s", "2 min", "two hours on a GPU"),
    smoke={**SMOKE, "decays": (0.9, 1.0, 1.1), "multiples": (1.0,)},
    small={
        **SMALL,
        "learning_rates": (1e-2,),
        "batch": 32,
        "iterations": 2500,
        "measure_every": 250,
        "decays": (0.95, 0.99, 1.0, 1.01, 1.05),
        "multiples": (0.5, 1.0, 1.5),
    },
    draw=sides,
)
@dataclass(frozen=True)
class Fig6(ImageRun):
    """Kinds A, phi(A h) + eps phi(a), and B, phi(A h + eps a): over decays r, and over angles at r = 1.

    Attributes:
        decays: r of networks without rotation.
        multiples: angles of networks with r = 1, relative to the characteristic frequency; 0 is r = 1 above.
        coupling: eps.
    """

    iterations: int = 23_400
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05)
    multiples: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    coupling: float = 0.03

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """First the decays, then the angles."""
        n, count = self.hidden_size, len(self.multiples)
        decays = torch.tensor([*self.decays, *[1.0] * count])
        angles = spectrum.frequency * torch.tensor([*[0.0] * len(self.decays), *self.multiples])
        r, w = (z[:, None, None].expand(-1, len(ids), m) for z, m in ((decays, n), (angles, n // 2)))
        names = [f"r = {d:g}" for d in self.decays] + [f"{m:g} w0" for m in self.multiples]
        return names, w, r, torch.full_like(r, self.coupling)

    def run(self, study: Study, **of_cell: Any) -> Results:
        """As `ImageRun.run`, each variable with a dimension `kind` in front."""
        parts = [ImageRun.run(self, study.part(kind), kind=kind, **of_cell) for kind in KINDS]
        first, coordinates = parts[0]
        variables = {
            name: (("kind", *dims), np.stack([found[name][1] for found, _ in parts]))
            for name, (dims, *_) in first.items()
        }
        return variables, {**coordinates, "kind_name": (("kind",), list(KINDS))}

    def checks(self, record: Record) -> list[Check]:
        """A wants r < 1 and B r > 1, and B minds the angle more."""
        found, spans, r = [], [], np.array(self.decays)
        for kind, accuracy in zip(KINDS, best_over_rates(record), strict=True):
            by_decay = accuracy[: len(r)]
            below, above = float(by_decay[r < 1].max()), float(by_decay[r > 1].max())
            at_angles = [float(by_decay[r == 1].max()), *map(float, accuracy[len(r) :])]
            spans.append(max(at_angles) - min(at_angles))
            better, worse, words = (below, above, "r < 1") if kind == "A" else (above, below, "r > 1")
            sentence = f"kind {kind}: {words} is better than the other side"
            found.append(at_least(f"kind {kind} side", sentence, worse, better, source=SOURCE))
            gain = float(accuracy[len(r) + self.multiples.index(1.0)] - at_angles[0])
            sentence = f"kind {kind}: the characteristic frequency helps"
            found.append(at_least(f"kind {kind} rotation", sentence, 0.0, gain, source=SOURCE))
        sentence = "B is more sensitive to the angle than A"
        found.append(at_least("sensitivity", sentence, spans[0], spans[1], source=SOURCE))
        return found


def best_over_rates(record: Record) -> np.ndarray:
    """Best accuracy `(kind, condition)` of digits in order, averaged over seeds, at the best rate."""
    return np.asarray(np.nan_to_num(record["best_accuracy"][:, 0]).mean(-1).max(-1))
