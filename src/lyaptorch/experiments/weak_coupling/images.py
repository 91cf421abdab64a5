"""Image sequences: rotations, and the spectrum of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.analysis import PowerSpectrum, best_so_far, characteristic_frequency, iterations_to
from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.experiments.checks import Check, at_least, at_most, near
from lyaptorch.experiments.weak_coupling.training import (
    by_member,
    first_unstable,
    generator,
    network,
    trained,
)
from lyaptorch.record import Record
from lyaptorch.tasks import SequentialImages

SMALL = {"hidden_size": 32, "batch": 64, "iterations": 1200, "measure_every": 200, "test_batches": 16}
SMOKE = {"hidden_size": 4, "batch": 4, "iterations": 3, "measure_every": 2, "test_batches": 2, "seeds": 1}
MINIMAL = {False: 0.5, True: 0.3}
"""Accuracy that counts as minimal performance, of digits in order and permuted; the paper's are lost."""


@dataclass(frozen=True)
class ImageRun:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "images"

    def conditions(self, w0: float, ids: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """Names, and for each condition angles `(c, *ids, n/2)`, decays and couplings `(c, *ids, n)`."""
        raise NotImplementedError

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`test_accuracy (order, condition, lr, seed, measurement)` and the data's `power (order, bin)`.

        A member that never reached minimal performance, or never overflowed, has -1 there.
        """
        parts, spectra = [], []
        for permuted in self.permuted:
            task = SequentialImages(self.images, permuted=permuted)
            spectra.append(self._spectrum(task))
            path = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{permuted}")
            parts.append(self._train(task, spectra[0], show_progress, path))
        names, dims = parts[0]["names"], ("order", "condition", "lr", "seed")
        stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0] if name != "names"}
        variables = {
            "test_accuracy": ((*dims, "measurement"), stacked["test_accuracy"]),
            "best_accuracy": (dims, stacked["best_accuracy"]),
            "iterations_to_minimal": (dims, stacked["iterations_to_minimal"]),
            "unstable_at": (dims, stacked["unstable_at"]),
            "power": (("order", "bin"), np.stack([s.power for s in spectra])),
            "power_stderr": (("order", "bin"), np.stack([s.stderr for s in spectra])),
        }
        coordinates = {
            "condition": (("condition",), names),
            "permuted": (("order",), list(self.permuted)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("measurement",), parts[0]["measured_at"].astype(float)),
        }
        extra = self.more(names, spectra[0])
        return Record(f"weak-coupling {self.figure}", asdict(self), {**variables, **extra}, coordinates)

    def more(self, names: list[str], spectrum: PowerSpectrum) -> dict[str, Any]:
        """Further variables."""
        return {}

    def cell(self, angles: Tensor, decays: Tensor, couplings: Tensor, ids: Tensor) -> ResidualCell:
        """The networks of an ensemble."""
        return ResidualCell(
            1,
            self.hidden_size,
            residual=residuals.rotation(angles) @ residuals.decay(decays),
            coupling=couplings,
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=generator(self.seed),
        )

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
        self, task: SequentialImages, spectrum: PowerSpectrum, show_progress: bool | None, path: Path | None
    ) -> dict[str, Any]:
        own = torch.arange(self.seeds)
        names, *settings = self.conditions(spectrum.frequency, own)
        shape = (len(names), len(self.learning_rates), self.seeds)
        ids = own.expand(shape)
        lr = torch.tensor(self.learning_rates)[:, None].expand(shape)
        angles, decays, couplings = (z.unsqueeze(1).expand(*shape, z.shape[-1]) for z in settings)
        record = trained(
            network(self.cell(angles, decays, couplings, ids), task, ids, self.seed),
            task,
            self.iterations,
            member_ids=ids,
            seed=self.seed,
            batch=self.batch,
            lr=lr,
            measure_every=self.measure_every,
            test_batches=self.test_batches,
            show_progress=show_progress,
            checkpoint=path,
        )
        best = best_so_far(record)[:, -1].reshape(shape)
        until = iterations_to(record, MINIMAL[task.permuted])
        return {
            "names": names,
            "test_accuracy": by_member(record, "test_accuracy", shape),
            "best_accuracy": best,
            "iterations_to_minimal": np.nan_to_num(until, nan=-1.0).reshape(shape),
            "unstable_at": first_unstable(record, shape).numpy(),
            "measured_at": np.nanmax(record["measured_at"], 0),
        }


def best_of(record: Record, order: int = 0) -> dict[str, float]:
    """By condition, the best accuracy at the best learning rate, averaged over seeds."""
    scores = np.nan_to_num(record["best_accuracy"][order]).mean(-1).max(-1)
    return {str(name): float(score) for name, score in zip(record["condition"], scores, strict=True)}


@dataclass(frozen=True)
class Images(ImageRun):
    """Identity, rotation at the frequency of the data, and informed heterogeneity."""

    coupling: float = 0.03

    figure: ClassVar[str] = "images"
    shows: ClassVar[str] = "sequential MNIST: identity, rotation at the data's frequency, heterogeneity"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "learning_rates": (1e-3,), "spectrum_images": 8},
        "small": {**SMALL, "learning_rates": (1e-3, 3e-3)},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "8 min", "paper": "2 h; minutes on a GPU"}

    def conditions(self, w0: float, ids: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """As the paper draws them: angles U(0, 2 w0), decays U(0.98, 1), couplings U(0.01, 0.2)."""
        n, seeds = self.hidden_size, len(ids)
        drawn = residuals.informed(
            _Known(w0), n, ensemble=(seeds,), member_ids=ids, generator=generator(self.seed)
        )
        none, ones = torch.zeros(seeds, n // 2), torch.ones(seeds, n)
        return (
            ["identity", "rotation", "heterogeneous"],
            torch.stack([none, none + w0, drawn.angles]),
            torch.stack([ones, ones, drawn.decays]),
            torch.stack([self.coupling * ones, self.coupling * ones, drawn.couplings]),
        )

    def checks(self, record: Record) -> list[Check]:
        """Rotation beats the identity by ten points, and heterogeneity is not far behind."""
        best = best_of(record)
        gain = best["rotation"] - best["identity"]
        lag = best["rotation"] - best["heterogeneous"]
        return [
            at_least("rotation beats identity by 0.1 in test accuracy", 0.1, gain),
            at_most("heterogeneity is within 0.05 of rotation", 0.05, lag),
            *spectrum_checks(record),
        ]


@dataclass(frozen=True)
class _Known:
    """A frequency that is known."""

    frequency: float


def spectrum_checks(record: Record) -> list[Check]:
    """Bin 28 stands out of the digits in order, and none of the permuted ones."""
    found = []
    for order, permuted in enumerate(record["permuted"]):
        power = record["power"][order][1:]
        ratio = power / power.mean()
        if permuted:
            found.append(at_most("permuted, no bin exceeds 5 times the mean", 5.0, float(ratio.max())))
        else:
            found.append(near("the largest bin above zero is 28", 28.0, float(ratio.argmax() + 1), 0.0))
            found.append(at_least("it is 30 times the mean", 30.0, float(ratio.max())))
    return found


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

    figure: ClassVar[str] = "fig4"
    shows: ClassVar[str] = "accuracy against rotation angle on digits in order and permuted; data's spectrum"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "learning_rates": (1e-3,), "multiples": (0.0, 1.0), "spectrum_images": 8},
        "small": {**SMALL, "learning_rates": (3e-3,), "multiples": (0.0, 0.5, 1.0, 1.5, 2.0)},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "70 s", "paper": "an hour on a GPU"}

    def conditions(self, w0: float, ids: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """A rotation for each multiple."""
        n, seeds = self.hidden_size, len(ids)
        angles = w0 * torch.tensor(self.multiples)[:, None, None].expand(-1, seeds, n // 2)
        ones = torch.ones(len(self.multiples), seeds, n)
        return [f"{m:g} w0" for m in self.multiples], angles, ones, self.coupling * ones

    def checks(self, record: Record) -> list[Check]:
        """The characteristic frequency helps in order, and matters less when pixels are permuted."""
        found = spectrum_checks(record)
        spans = {}
        for order, permuted in enumerate(record["permuted"]):
            best = best_of(record, order)
            spans[bool(permuted)] = max(best.values()) - min(best.values())
            if not permuted:
                gain = best["1 w0"] - best["0 w0"]
                found.append(at_least("the characteristic frequency beats no rotation by 0.1", 0.1, gain))
        if len(spans) == 2:
            found.append(
                at_most("permuted, the angle matters less than half as much", spans[False] / 2, spans[True])
            )
        return found
