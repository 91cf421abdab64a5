"""Residuals informed by the data, beside others, and at other sizes, on image sequences."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Checks, at_least, at_most, near, sure, where
from lyaptorch.experiments.figure import Along, Results, Study, stacked
from lyaptorch.experiments.weak_coupling.image_runs import (
    CHANCE,
    CUT,
    ROTATION,
    Conditions,
    ImageRun,
    ahead,
    beside_spectra,
    best_of,
    earlier,
    learning_curves,
    least,
    scores_of,
    seeded,
    spectrum_checks,
    steps_of,
)
from lyaptorch.experiments.weak_coupling.rotations import BESIDE, OFF, off_of
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, figure
from lyaptorch.plots.primitives import PALETTE, level, scores, single
from lyaptorch.record import Record

ORTHONORMAL = "random orthonormal"
"""The residual that is a random orthonormal matrix."""


@figure(
    "images",
    "sequential MNIST: identity, rotation at the data's frequency, heterogeneity",
    cost=("5 s", "8 min"),
    small={"learning_rates": (1e-3, 3e-3)},
    draw=beside_spectra(learning_curves),
    cut=(*CUT, Along("condition", "compared")),
)
class Images(ImageRun):
    """Identity, rotation at the data's frequency and beside it, informed heterogeneity, random orthonormal.

    Of pixels in order and permuted.

    Attributes:
        compared: names of the residuals.
    """

    permuted: tuple[bool, ...] = (False, True)
    # 50 epochs, at the rate that was best for each in ten
    iterations: int = 23_400
    learning_rates: tuple[float, ...] = (3e-3,)
    compared: tuple[str, ...] = ("identity", "rotation", "heterogeneous", *OFF, ORTHONORMAL)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """As the paper draws them: angles U(0, 2 w0), decays U(0.98, 1), couplings U(0.01, 0.2)."""
        n, seeds = self.hidden_size, len(ids)
        drawn = residuals.informed(spectrum, n, **study.ensemble(ids))
        none, ones, w0 = torch.zeros(seeds, n // 2), torch.ones(seeds, n), spectrum.frequency
        turns = {"rotation": w0, **{name: float(name.split()[0]) * w0 for name in OFF}}
        settings = {name: (none + turns.get(name, 0.0), ones, self.coupling * ones) for name in self.compared}
        if "heterogeneous" in settings:
            settings["heterogeneous"] = drawn.angles, drawn.decays, drawn.couplings
        angles, decays, couplings = map(torch.stack, zip(*settings.values(), strict=True))
        return list(settings), angles, decays, couplings

    def residual(self, study: Study, conditions: Conditions, ids: Tensor) -> residuals.Recipe:
        """Rotations, and in the place of those called so random orthonormal matrices."""
        turn, names = super().residual(study, conditions, ids), conditions[0]
        if ORTHONORMAL not in names:
            return turn
        n = self.hidden_size
        A = turn(n, ids).dense().clone()
        random = residuals.orthogonal(n, generator=study.generator())
        at = names.index(ORTHONORMAL)
        A[at] = random(n, ids[at]).dense()
        return residuals.matrix(A)

    def claims(self, record: Record) -> Checks:
        """Rotation at the frequency of the data beats others; heterogeneity is not far behind."""
        table = partial(at_most, source=f"{AUTHORS}, table 1")
        for order, permuted in enumerate(record["permuted"]):
            best, before = best_of(record, order), "permuted " if permuted else ""
            pixels = "permuted pixels" if permuted else "pixels in order"
            known = max(best.values()) >= MINIMAL[bool(permuted)]
            lag = where(known, lag_of(record, order))
            sentence = f"{pixels}: accuracy, best homogeneous residual − heterogeneous"
            yield table(f"{before}heterogeneity", sentence, 0.01, lag)
            if permuted:
                steps = steps_of(record, order)
                even = [name for name in steps if name not in ("heterogeneous", ORTHONORMAL)]
                gain = earlier(steps, record["measured_at"][-1], "heterogeneous", even)
                until = f"{pixels}: task steps to minimal performance"
                sentence = f"{until}, quickest homogeneous residual − heterogeneous"
                yield at_least("permuted efficiency", sentence, 0.0, gain, source=f"{AUTHORS}, table 1")
                continue
            beside, of = off_of(best), scores_of(record, order)
            gain = ahead(of, "rotation", beside)
            sentence = f"{pixels}: accuracy, rotation by w0 − better of {BESIDE}"
            yield least("rotation", sentence, 0.0, where(known, gain))
            gain = earlier(steps_of(record, order), record["measured_at"][-1], "rotation", beside)
            until = f"{pixels}: task steps to minimal performance"
            sentence = f"{until}, quicker of {BESIDE} − w0"
            yield least("efficiency", sentence, 0.0, gain)
            sentence = f"{pixels}: accuracy, {ORTHONORMAL} − informed heterogeneous"
            away = np.subtract(of.get(ORTHONORMAL, math.nan), of.get("heterogeneous", math.nan))
            # where it is told from the nearer end of what is as good
            told = sure(np.atleast_1d(away), math.copysign(0.05, away.mean()))
            yield near("orthonormal", sentence, 0.0, where(known, told), 0.05, source=ROTATION)
        yield from spectrum_checks(record)


def lag_of(record: Record, order: int) -> float:
    """By how much heterogeneous networks are below their twins of the best homogeneous residual."""
    rows = scores_of(record, order)
    informed, even = rows.pop("heterogeneous", None), [z for n, z in rows.items() if n != ORTHONORMAL]
    if informed is None or not even:
        return math.nan
    return sure(max(even, key=np.mean) - informed, 0.01)


@single
def at_sizes(record: Record, axes: list[Axes]) -> None:
    """Best accuracy at, and beside, the characteristic frequency for each size and batch."""
    (panel,) = axes
    place = np.arange(len(record["size"]))
    for i, name in enumerate(record["condition"]):
        best = np.nan_to_num(record["best_accuracy"][:, 0, i]).max(1)
        scores(panel, place, best, PALETTE[i], str(name), alpha=0.4)
    level(panel, CHANCE)
    panel.set_xticks(place, [str(name) for name in record["size"]], fontsize=7)
    panel.set(xlabel="units, batch", ylabel="best test accuracy", ylim=(0, 1.03))
    panel.legend()
    seeded(panel, record)


@figure(
    "sizes",
    "accuracy at the data's frequency and beside it, for other numbers of units and batches",
    cost=("5 s", "3 min"),
    smoke={"units": (4,), "batches": (2, 4), "learning_rates": (1e-3,)},
    small={"units": (16, 32), "batches": (32, 64), "learning_rates": (3e-3,)},
    draw=at_sizes,
)
class SizesAndBatches(ImageRun):
    """Rotations at w0 and half of it, for several numbers of units and batches.

    Attributes:
        units: n.
        batches: images of a task step.
    """

    units: tuple[int, ...] = (50, 100, 200)
    batches: tuple[int, ...] = (64, 128, 256)

    def operations(self) -> float:
        """Of every number of units and batch."""
        runs = (replace(self, hidden_size=n, batch=b) for n in self.units for b in self.batches)
        return sum(ImageRun.operations(run) for run in runs)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """At w0, and at half of it."""
        angles = spectrum.frequency * torch.tensor([1.0, 0.5])
        return self.common(["1 w0", "0.5 w0"], torch.ones(2), angles, ids)

    def run(self, study: Study) -> Results:
        """As `ImageRun.run`, each variable with a dimension `size` in front."""
        names = [f"{n}, {b}" for n in self.units for b in self.batches]
        runs = [replace(self, hidden_size=n, batch=b) for n in self.units for b in self.batches]
        parts = [run.trained(study.part(name)) for name, run in zip(names, runs, strict=True)]
        variables = stacked("size", [variables for variables, _ in parts])
        return variables, {**parts[0][1], "size": (("size",), names)}

    def claims(self, record: Record) -> Checks:
        """At every size and batch the characteristic frequency is the better one."""
        names = record["condition"]
        each = [scores_of({"best_accuracy": own, "condition": names}) for own in record["best_accuracy"]]
        sentence = "accuracy, w0 − w0/2: smallest over network and batch sizes"
        learned = all(max(rows.mean() for rows in of.values()) >= MINIMAL[False] for of in each)
        told = where(learned, min(ahead(of, "1 w0", ("0.5 w0",)) for of in each))
        yield at_least("sizes", sentence, 0.0, told, source=f"{AUTHORS}, section 4")
