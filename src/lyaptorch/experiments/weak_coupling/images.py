"""Image sequences: networks with a residual for each condition, and the spectrum of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import PowerSpectrum, best_so_far, characteristic_frequency, iterations_to
from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import Check, at_least, at_most, near
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.weak_coupling.adding import AUTHORS, PAPER, ensemble, fit, learned, network
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, picture, scores
from lyaptorch.record import Record
from lyaptorch.tasks import SequentialImages

SMALL = {"hidden_size": 32, "batch": 64, "iterations": 1200, "measure_every": 200, "test_batches": 16}
SMOKE = {
    "hidden_size": 4,
    "batch": 4,
    "iterations": 3,
    "measure_every": 2,
    "test_batches": 2,
    "seeds": 1,
    "learning_rates": (1e-3,),
    "spectrum_images": 8,
}
MINIMAL = {False: 0.5, True: 0.3}
"""Accuracy that counts as minimal performance, of digits in order and permuted; the paper's are lost."""
Conditions: TypeAlias = tuple[list[str], Tensor, Tensor, Tensor]
"""Names, and for each condition angles `(c, *ids, n/2)`, decays and couplings `(c, *ids, n)`."""
ROTATION = f"{AUTHORS}, section 4.2"


@dataclass(frozen=True)
class ImageRun(Figure):
    """Networks with different residuals on image sequences, at several learning rates.

    Attributes:
        images: the data set.
        permuted: one run for each: pixels in order, permuted, or both.
        learning_rates: of each condition.
        seeds: networks for each condition and learning rate.
        hidden_size: n.
        batch: images of a task step.
        iterations: task steps; 4 680 are 10 epochs of MNIST.
        measure_every: task steps between two tests.
        test_batches: of each test.
        spectrum_images: images over which the power spectrum is averaged.
    """

    images: str = "mnist"
    permuted: tuple[bool, ...] = (False,)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    seeds: int = 1
    hidden_size: int = 100
    batch: int = 128
    iterations: int = 4680
    measure_every: int = 468
    test_batches: int = 78
    spectrum_images: int = 10_000

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """What differs between the networks."""
        raise NotImplementedError

    def run(self, study: Study, **of_cell: Any) -> Results:
        """`test_accuracy (order, condition, lr, seed, measurement)` and the data's `power (order, bin)`.

        A member that never reached minimal performance, or never overflowed, has -1 there.
        """
        tasks = [SequentialImages(self.images, permuted=permuted) for permuted in self.permuted]
        spectra = [self._spectrum(task) for task in tasks]
        conditions = self.conditions(study, spectra[0], torch.arange(self.seeds))
        parts = [self._train(study.part(task.permuted), task, conditions, **of_cell) for task in tasks]
        stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        dims = ("order", "condition", "lr", "seed")
        variables = {
            "test_accuracy": ((*dims, "measurement"), stacked["test_accuracy"]),
            "best_accuracy": (dims, stacked["best_accuracy"]),
            "iterations_to_minimal": (dims, stacked["iterations_to_minimal"]),
            "unstable_at": (dims, stacked["unstable_at"]),
            "power": (("order", "bin"), np.stack([s.power for s in spectra])),
            "power_stderr": (("order", "bin"), np.stack([s.stderr for s in spectra])),
        }
        coordinates = {
            "condition": (("condition",), conditions[0]),
            "permuted": (("order",), list(self.permuted)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("measurement",), parts[0]["measured_at"].astype(float)),
        }
        return {**variables, **self.more(study, conditions)}, coordinates

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """Further variables."""
        return {}

    def cell(
        self, study: Study, angles: Tensor, decays: Tensor, couplings: Tensor, ids: Tensor, **of_cell: Any
    ) -> ResidualCell:
        """The networks of an ensemble."""
        turn = residuals.rotation(angles) @ residuals.decay(decays)
        networks = ensemble(study, ids)
        return ResidualCell(1, self.hidden_size, residual=turn, coupling=couplings, **networks, **of_cell)

    def _spectrum(self, task: SequentialImages) -> PowerSpectrum:
        pixels = task.draw(
            self.seed,
            member_ids=torch.tensor(0),
            epoch=0,
            batch=self.spectrum_images,
            length=task.length,
            stream="spectrum",
        ).inputs
        return characteristic_frequency(pixels)

    def _train(
        self, study: Study, task: SequentialImages, conditions: Conditions, **of_cell: Any
    ) -> dict[str, Any]:
        names, *settings = conditions
        shape = (len(names), len(self.learning_rates), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        angles, decays, couplings = (z.unsqueeze(1).expand(*shape, z.shape[-1]) for z in settings)
        record = fit(
            study,
            network(study, self.cell(study, angles, decays, couplings, ids, **of_cell), task, ids),
            task,
            self.iterations,
            member_ids=ids,
            batch=self.batch,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            metrics_every=self.measure_every,
            test_batches=self.test_batches,
        )
        until = iterations_to(record, MINIMAL[task.permuted])
        return {
            **learned(record, shape),
            "best_accuracy": best_so_far(record)[:, -1].reshape(shape),
            "iterations_to_minimal": np.nan_to_num(until, nan=-1.0).reshape(shape),
        }


def best_of(record: Record, order: int = 0) -> dict[str, float]:
    """By condition, the best accuracy at the best learning rate, averaged over seeds."""
    means = np.nan_to_num(record["best_accuracy"][order]).mean(-1).max(-1)
    return {str(name): float(score) for name, score in zip(record["condition"], means, strict=True)}


def spectrum_checks(record: Record) -> list[Check]:
    """Bin 28 stands out of the digits in order, and none of the permuted ones."""
    found = []
    for order, permuted in enumerate(record["permuted"]):
        power = record["power"][order][1:]
        ratio = power / power.mean()
        largest = float(ratio.max())
        if permuted:
            sentence = "permuted, no bin exceeds 5 times the mean"
            found.append(at_most("permuted spectrum", sentence, 5.0, largest, source=ROTATION))
        else:
            found_at, sentence = float(ratio.argmax() + 1), "the largest bin above zero is 28"
            found.append(near("frequency", sentence, 28.0, found_at, 0.0, source=ROTATION))
            found.append(at_least("peak", "it is 30 times the mean", 30.0, largest, source=ROTATION))
    return found


def learning_curves(axes: Axes, record: Record, order: int, title: str) -> None:
    """Test accuracy over task steps for each condition at its best learning rate."""
    for i, name in enumerate(record["condition"]):
        best = int(np.nan_to_num(record["best_accuracy"][order][i]).mean(-1).argmax())
        curves = record["test_accuracy"][order][i, best]
        bundle(axes, curves, PALETTE[i % len(PALETTE)], str(name), x=record["measured_at"])
    axes.set(xlabel="task step", ylabel="test accuracy", title=title, ylim=(0, 1.03))
    axes.legend()


def _power(axes: Axes, record: Record, order: int) -> None:
    power = record["power"][order][1:]
    axes.semilogy(np.arange(1, len(power) + 1), power / power.mean(), color=GREY, linewidth=0.8)
    axes.axhline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    axes.set(xlabel="bin", ylabel="power / mean", title="Spectrum of the data")


@picture(lambda record: 2 * len(record["permuted"]))
def learning(record: Record, axes: list[Axes]) -> None:
    """By order of the pixels, learning curves and the spectrum of the data."""
    for order, permuted in enumerate(record["permuted"]):
        learning_curves(axes[2 * order], record, order, "permuted" if permuted else "in order")
        _power(axes[2 * order + 1], record, order)


@picture(lambda record: 2 * len(record["permuted"]))
def angles(record: Record, axes: list[Axes]) -> None:
    """By order of the pixels, the best test accuracy against the angle, and the spectrum of the data."""
    label = "best test accuracy"
    for order, permuted in enumerate(record["permuted"]):
        panel, title = axes[2 * order], "permuted" if permuted else "in order"
        for j, lr in enumerate(record["learning_rate"]):
            best, x = record["best_accuracy"][order][:, j], record.config["multiples"]
            scores(panel, x, best, PALETTE[j], f"{lr:g}", alpha=0.4)
        panel.set(xlabel=r"angle / $\omega_0$", ylabel=label, title=title)
        panel.legend(title="learning rate")
        _power(axes[2 * order + 1], record, order)


@declare(
    PAPER,
    "images",
    "sequential MNIST: identity, rotation at the data's frequency, heterogeneity",
    cost=("5 s", "8 min", "2 h; minutes on a GPU"),
    smoke=SMOKE,
    small={**SMALL, "learning_rates": (1e-3, 3e-3)},
    draw=learning,
)
@dataclass(frozen=True)
class Images(ImageRun):
    """Identity, rotation at the frequency of the data, and informed heterogeneity."""

    coupling: float = 0.03

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """As the paper draws them: angles U(0, 2 w0), decays U(0.98, 1), couplings U(0.01, 0.2)."""
        n, seeds = self.hidden_size, len(ids)
        drawn = residuals.informed(spectrum, n, **ensemble(study, ids))
        none, ones = torch.zeros(seeds, n // 2), torch.ones(seeds, n)
        return (
            ["identity", "rotation", "heterogeneous"],
            torch.stack([none, none + spectrum.frequency, drawn.angles]),
            torch.stack([ones, ones, drawn.decays]),
            torch.stack([self.coupling * ones, self.coupling * ones, drawn.couplings]),
        )

    def checks(self, record: Record) -> list[Check]:
        """Rotation beats the identity by ten points, and heterogeneity is not far behind."""
        best = best_of(record)
        gain = best["rotation"] - best["identity"]
        lag = best["rotation"] - best["heterogeneous"]
        sentence = "rotation beats identity by 0.1 in test accuracy"
        found = [at_least("rotation", sentence, 0.1, gain, source=ROTATION)]
        sentence, source = "heterogeneity is within 0.05 of rotation", f"{AUTHORS}, table 1"
        found.append(at_most("heterogeneity", sentence, 0.05, lag, source=source))
        return found + spectrum_checks(record)


@declare(
    PAPER,
    "fig4",
    "accuracy against rotation angle on digits in order and permuted; data's spectrum",
    cost=("5 s", "70 s", "an hour on a GPU"),
    smoke={**SMOKE, "multiples": (0.0, 1.0)},
    small={**SMALL, "learning_rates": (3e-3,), "multiples": (0.0, 0.5, 1.0, 1.5, 2.0)},
    draw=angles,
)
@dataclass(frozen=True)
class Fig4(ImageRun):
    """Accuracy against the angle of a common rotation.

    Attributes:
        multiples: angles, relative to the characteristic frequency.
        coupling: eps.
    """

    permuted: tuple[bool, ...] = (False, True)
    iterations: int = 23_400
    multiples: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    coupling: float = 0.03

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """A rotation for each multiple."""
        n, seeds = self.hidden_size, len(ids)
        turns = torch.tensor(self.multiples)[:, None, None].expand(-1, seeds, n // 2)
        ones = torch.ones(len(self.multiples), seeds, n)
        names = [f"{m:g} w0" for m in self.multiples]
        return names, spectrum.frequency * turns, ones, self.coupling * ones

    def checks(self, record: Record) -> list[Check]:
        """The characteristic frequency helps in order, and matters less when pixels are permuted."""
        found, spans = spectrum_checks(record), {}
        for order, permuted in enumerate(record["permuted"]):
            best = best_of(record, order)
            spans[bool(permuted)] = max(best.values()) - min(best.values())
            if not permuted:
                gain = best["1 w0"] - best["0 w0"]
                sentence = "the characteristic frequency beats no rotation by 0.1"
                found.append(at_least("rotation", sentence, 0.1, gain, source=ROTATION))
        if len(spans) == 2:
            sentence = "permuted, the angle matters less than half as much"
            found.append(at_most("permuted angle", sentence, spans[False] / 2, spans[True], source=ROTATION))
        return found
