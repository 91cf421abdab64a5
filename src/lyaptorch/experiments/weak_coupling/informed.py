"""Residuals informed by the data, beside others, and at other sizes, on image sequences."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Checks, at_least, at_most, near, where
from lyaptorch.experiments.figure import Results, Study, numbers, stacked
from lyaptorch.experiments.weak_coupling.image_runs import (
    CHANCE,
    ROTATION,
    Conditions,
    ImageRun,
    beside_spectra,
    best_of,
    best_scores,
    later,
    learning_curves,
    least,
    seeded,
    spectrum_checks,
)
from lyaptorch.experiments.weak_coupling.rotations import OFF
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, figure, network
from lyaptorch.plots.primitives import PALETTE, level, scores, single
from lyaptorch.record import Record
from lyaptorch.tasks import SequentialImages


@figure(
    "images",
    "sequential MNIST: identity, rotation at the data's frequency, heterogeneity",
    cost=("5 s", "8 min", "a day; an hour on a GPU"),
    small={"learning_rates": (1e-3, 3e-3)},
    draw=beside_spectra(learning_curves),
)
class Images(ImageRun):
    """Identity, rotation at the data's frequency and beside it, informed heterogeneity, random orthonormal.

    Of pixels in order and permuted; the random orthonormal residual in order alone.
    """

    permuted: tuple[bool, ...] = (False, True)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """As the paper draws them: angles U(0, 2 w0), decays U(0.98, 1), couplings U(0.01, 0.2)."""
        n, seeds = self.hidden_size, len(ids)
        drawn = residuals.informed(spectrum, n, **study.ensemble(ids))
        none, ones, w0 = torch.zeros(seeds, n // 2), torch.ones(seeds, n), spectrum.frequency
        even = self.coupling * ones
        return (
            ["identity", "rotation", "heterogeneous", *OFF],
            torch.stack([none, none + w0, drawn.angles, none + 0.5 * w0, none + 1.5 * w0]),
            torch.stack([ones, ones, drawn.decays, ones, ones]),
            torch.stack([even, even, drawn.couplings, even, even]),
        )

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """The random orthonormal residual, in order: `orthonormal_accuracy (lr, seed, measurement)`."""
        shape = (len(self.learning_rates), self.seeds)
        ids, part = numbers(self.first, self.seeds).expand(shape), study.part("orthonormal")
        turn = residuals.orthogonal(self.hidden_size, generator=study.generator())
        cell = ResidualCell(1, self.hidden_size, residual=turn, coupling=self.coupling, **study.ensemble(ids))
        task = SequentialImages(self.images)
        record = self.fit(
            part,
            network(part, cell, task, ids),
            task,
            ids,
            self.iterations,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            metrics_every=self.measure_every,
            test_batches=self.test_batches,
        )
        curves = record["test_accuracy"].reshape(*shape, -1)
        return {"orthonormal_accuracy": (("lr", "seed", "measurement"), curves)}

    def claims(self, record: Record) -> Checks:
        """Rotation at the frequency of the data beats others; heterogeneity is not far behind."""
        table = partial(at_most, source=f"{AUTHORS}, table 1")
        for order, permuted in enumerate(record["permuted"]):
            best, before = best_of(record, order), "permuted " if permuted else ""
            even = max(score for name, score in best.items() if name != "heterogeneous")
            known = max(best.values()) >= MINIMAL[bool(permuted)]
            lag = where(known, even - best["heterogeneous"])
            sentence = f"{before}heterogeneity is within 0.05 of the best homogeneous residual"
            yield table(f"{before}heterogeneity", sentence, 0.05, lag)
            if permuted:
                continue
            gain = best["rotation"] - max(best[name] for name in OFF)
            sentence = "rotation at w0 beats that at half and three halves of it in accuracy, by"
            yield least("rotation", sentence, 0.0, where(known, gain))
            later_by = later(record, "rotation", OFF, order)
            yield least(
                "efficiency", "and reaches minimal performance earlier, by so many steps", 0.0, later_by
            )
            # of each seed the best of all measurements, at the rate that is best on average
            turned = np.nan_to_num(record["orthonormal_accuracy"]).max(-1).mean(-1).max()
            sentence = "a random orthonormal residual is as good as informed heterogeneity, to 0.05"
            away = turned - best["heterogeneous"]
            yield near("orthonormal", sentence, 0.0, where(known, away), 0.05, source=ROTATION)
        yield from spectrum_checks(record)


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
    cost=("5 s", "3 min", "a day on a GPU"),
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
        best = best_scores(record)[:, 0]
        gains = best[:, 0] - best[:, 1]
        sentence = "w0 beats half of it at every number of units and batch: least gain in accuracy"
        told = where((best.max(-1) >= MINIMAL[False]).all(), gains.min())
        yield at_least("sizes", sentence, 0.0, told, source=f"{AUTHORS}, section 4")
