"""Residuals inside the non-linearity (figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Checks, at_least, at_most, sure, where
from lyaptorch.experiments.figure import Results, Study, stacked
from lyaptorch.experiments.weak_coupling.edge import nearest
from lyaptorch.experiments.weak_coupling.image_runs import (
    CHANCE,
    Conditions,
    ImageRun,
    ahead,
    earlier,
    scores_of,
    seeded,
    steps_of,
)
from lyaptorch.experiments.weak_coupling.rotations import BESIDE, OFF
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, figure
from lyaptorch.plots.primitives import GREY, PALETTE, Rows, letters, level, picture, scores
from lyaptorch.record import Record

KINDS = ("A", "B")


@picture(lambda record: 2 * len(record["permuted"]))
def sides(record: Record, axes: list[Axes]) -> None:
    """Best accuracy of kinds A and B against r, and against the angle at r = 1."""
    r, multiples, label = record.config["decays"], record.config["multiples"], "best test accuracy"
    for order, permuted in enumerate(record["permuted"]):
        left, right = axes[2 * order : 2 * order + 2]
        for i, kind in enumerate(record["kind_name"]):
            # over learning rates, of each seed
            best = np.nan_to_num(record["best_accuracy"][i, order]).max(1)
            # the angle 0 is not trained again: it is r = 1
            at_rest = best[r.index(1.0)] if 1.0 in r else np.full(best.shape[-1], np.nan)
            turned = np.concatenate([at_rest[None], best[len(r) : len(r) + len(multiples)]])
            right.axhline(best[-1].mean(), color=PALETTE[i], linestyle="--", linewidth=1)
            scores(left, r, best[: len(r)], PALETTE[i], f"kind {kind}", alpha=0.4)
            scores(right, [0.0, *multiples], turned, PALETTE[i], alpha=0.4)
        title = "permuted" if permuted else "in order"
        left.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
        left.set(xlabel="$r$", ylabel=label, title=f"Decay, {title}", ylim=(0, 1.03))
        right.set(xlabel=r"angle / $\omega_0$", ylabel=label, title=f"Rotation, {title}", ylim=(0, 1.03))
        level(left, CHANCE)
        level(right, CHANCE)
        right.plot([], [], "--", color=GREY, label="heterogeneous, mean")
        right.legend()
        left.legend()
    letters(axes, "AB")
    seeded(axes[0], record)


@figure(
    "fig6",
    "kinds A and B: accuracy against r, and against the angle of a rotation",
    cost=("3 s", "2 min"),
    smoke={"decays": (0.9, 1.0, 1.1), "multiples": (1.0,)},
    small={
        "learning_rates": (1e-2,),
        "batch": 32,
        "iterations": 2500,
        "measure_every": 250,
        "decays": (0.95, 0.99, 1.0, 1.01, 1.05),
        "multiples": (0.5, 1.0, 1.5),
    },
    draw=sides,
)
class Fig6(ImageRun):
    """Kinds A, phi(A h) + eps phi(a), and B, phi(A h + eps a): over decays r, and over angles at r = 1.

    Attributes:
        decays: r of networks without rotation.
        multiples: angles of networks with r = 1, relative to the characteristic frequency; 0 is r = 1 above.
    """

    iterations: int = 23_400
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05)
    multiples: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """First the decays, then the angles, then informed heterogeneity, as in `images`."""
        decays = torch.tensor([*self.decays, *[1.0] * len(self.multiples)])
        angles = spectrum.frequency * torch.tensor([*[0.0] * len(self.decays), *self.multiples])
        names = [f"r = {d:g}" for d in self.decays] + [f"{m:g} w0" for m in self.multiples]
        names, *even = self.common(names, decays, angles, ids)
        drawn = residuals.informed(spectrum, self.hidden_size, **study.ensemble(ids))
        w, r, eps = (
            torch.cat([z, own[None]])
            for z, own in zip(even, (drawn.angles, drawn.decays, drawn.couplings), strict=True)
        )
        return [*names, "heterogeneous"], w, r, eps

    def operations(self) -> float:
        """Of both kinds."""
        return len(KINDS) * super().operations()

    def run(self, study: Study) -> Results:
        """As `ImageRun.run`, each variable with a dimension `kind` in front."""
        parts = [self.trained(study.part(kind), kind) for kind in KINDS]
        variables = stacked("kind", [variables for variables, _ in parts])
        return variables, {**parts[0][1], "kind_name": (("kind",), list(KINDS))}

    def claims(self, record: Record) -> Checks:
        """A wants r < 1 and B r > 1, and B minds the angle more; heterogeneity does as well as the best."""
        spans, learned = [], []
        for i, kind in enumerate(KINDS):
            # of digits in order, one kind
            own = {name: record[name][i] for name in ("best_accuracy", "iterations_to_minimal")}
            own |= {name: record[name] for name in ("condition", "measured_at")}
            of = scores_of(own)
            yield from self._kind_claims(kind, own, of)
            # among rotations, as in figure 4, of each network
            turned = np.array([of[f"{m:g} w0"] for m in self.multiples])
            spans.append(np.ptp(turned, axis=0))
            learned.append(turned.mean(-1).max() >= MINIMAL[False])
        told = where(all(learned), sure(spans[1] - spans[0], 0.0))
        sentence = "range of accuracy over rotation angles, kind B − kind A"
        yield at_least("sensitivity", sentence, 0.0, told, source=f"{AUTHORS}, section 4.4")

    def _kind_claims(self, kind: str, own: Mapping[str, Any], of: dict[str, Rows]) -> Checks:
        """Of one kind: the better side, the edge, the angle, heterogeneity."""
        source = f"{AUTHORS}, section 4.4"
        least, words = partial(at_least, source=source), f"kind {kind}: best accuracy"
        r = np.array(self.decays)
        below, above, ends = ([f"r = {x:g}" for x in r[at]] for at in (r < 1, r > 1, [0, -1]))
        inner = [f"r = {x:g}" for x in r[nearest(r)]]

        def best(names: Sequence[str]) -> str:
            return max(names, key=lambda name: of[name].mean(), default="")

        # who has not learned to tell digits does so on neither side
        decays, angles = ([*below, *above, "r = 1"], [f"{m:g} w0" for m in self.multiples])
        known, learned = (
            max(of[name].mean() for name in names if name in of) >= MINIMAL[False]
            for names in (decays, angles)
        )
        better, worse = (below, above) if kind == "A" else (above, below)
        sides = "r < 1 − r > 1" if kind == "A" else "r > 1 − r < 1"
        gain = ahead(of, best(better), worse)
        yield least(f"kind {kind} side", f"{words}, {sides}", 0.0, where(known, gain))
        # as many near the edge as at the ends: the best of more would be better by luck alone
        sentence, gain = f"{words}, r nearest 1 − smallest and largest r", ahead(of, best(inner), ends)
        yield least(f"kind {kind} edge", sentence, 0.0, where(known, gain))
        sentence, gain = f"{words}, w0 − better of {BESIDE}", ahead(of, "1 w0", OFF)
        yield least(f"kind {kind} rotation", sentence, 0.0, where(learned, gain))
        until = f"kind {kind}: task steps to minimal performance"
        gain = earlier(steps_of(own), own["measured_at"][-1], "1 w0", OFF)
        yield least(f"kind {kind} efficiency", f"{until}, quicker of {BESIDE} − w0", 0.0, gain)
        even = [name for name in of if name != "heterogeneous"]
        lag = ahead(of, best(even), ("heterogeneous",), 0.05)
        sentence = f"{words}, homogeneous residuals − heterogeneous"
        yield at_most(f"kind {kind} heterogeneity", sentence, 0.05, where(learned, lag), source=source)
