"""Image sequences: networks with a residual for each condition, and the spectrum of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.analysis import PowerSpectrum, best_so_far, characteristic_frequency, iterations_to
from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import ByName, Checks, at_least, at_most, near, sure, where
from lyaptorch.experiments.figure import Along, Results, Scales, Study, numbers, stacked
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, Trained, learned, network
from lyaptorch.plots.primitives import GREY, PALETTE, Picture, Rows, bundle, footnote, level, picture, scores
from lyaptorch.record import Record
from lyaptorch.tasks import SequentialImages
from lyaptorch.tasks.batch import Draw

Conditions: TypeAlias = tuple[list[str], Tensor, Tensor, Tensor]
"""Names, and for each condition angles `(c, *ids, n/2)`, decays and couplings `(c, *ids, n)`."""
ROTATION = f"{AUTHORS}, section 4.2"
least, most = (partial(side, source=ROTATION) for side in (at_least, at_most))
DATA: dict[str, Any] = {"kind": "identity", "source": ROTATION, "because": "It is a property of the images."}
"""Of checks that no network has a part in."""


class Measured(Protocol):
    """What is measured, by name: a Record, or what a part of one holds."""

    def __getitem__(self, name: str, /) -> Any:
        """Values."""


CUT = (Along("seed", "seeds"), Along("order", "permuted"), Along("lr", "learning_rates"))


class ImageRun(Trained):
    """Networks with different residuals on image sequences, at several learning rates.

    Attributes:
        images: the data set.
        permuted: one run for each: pixels in order, permuted, or both.
        learning_rates: of each condition.
        seeds: networks for each condition and learning rate.
        first: the number of the first of them.
        iterations: task steps; 4 680 are 10 epochs of MNIST.
        measure_every: task steps between two tests.
        test_batches: of each test.
        spectrum_images: images over which the power spectrum is averaged.
    """

    images: str = "mnist"
    permuted: tuple[bool, ...] = (False,)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    seeds: int = 5
    first: int = 0
    iterations: int = 4680
    measure_every: int = 468
    test_batches: int = 78
    spectrum_images: int = 10_000

    cut: ClassVar[tuple[Along, ...]] = CUT
    scales: ClassVar[Scales] = {
        "smoke": {
            "hidden_size": 4,
            "batch": 4,
            "iterations": 3,
            "measure_every": 2,
            "test_batches": 2,
            "seeds": 1,
            "learning_rates": (1e-3,),
            "spectrum_images": 8,
        },
        "small": {
            "hidden_size": 32,
            "batch": 64,
            "iterations": 1200,
            "measure_every": 200,
            "test_batches": 16,
            "seeds": 1,
        },
    }

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """What differs between the networks."""
        raise NotImplementedError

    def operations(self) -> float:
        """Of all task steps, with 6 for each weight at each pixel; tests are a few per cent more."""
        names, *_ = self.conditions(Study(self.seed), SimpleNamespace(frequency=1.0), numbers(0, 1))
        n, networks = self.hidden_size, len(names) * len(self.learning_rates) * self.seeds
        return 6.0 * self.batch * 784 * n * (n + 1) * self.iterations * networks * len(self.permuted)

    def common(self, names: list[str], decays: Tensor, angles: Tensor, ids: Tensor) -> Conditions:
        """Decays and angles `(c,)` that all units and all networks have in common."""
        n = self.hidden_size
        r, w = (z[:, None, None].expand(-1, len(ids), m) for z, m in ((decays, n), (angles, n // 2)))
        return names, w, r, torch.full_like(r, self.coupling)

    def run(self, study: Study) -> Results:
        """What `trained` returns."""
        return self.trained(study)

    def trained(self, study: Study, kind: str = "linear") -> Results:
        """`test_accuracy (order, condition, lr, seed, measurement)` and the data's `power (order, bin)`.

        A member that never reached minimal performance, or never overflowed, has -1 there.
        """
        tasks = [SequentialImages(self.images, permuted=permuted) for permuted in self.permuted]
        spectra = [self._spectrum(task) for task in tasks]
        in_order = self._spectrum(SequentialImages(self.images))
        conditions = self.conditions(study, in_order, numbers(self.first, self.seeds))
        parts = [self._train(study.part(task.permuted), task, conditions, kind) for task in tasks]
        power = [{"power": (("bin",), s.power), "power_stderr": (("bin",), s.stderr)} for s in spectra]
        variables = {**stacked("order", parts), **stacked("order", power)}
        # in every order the same
        _, at = variables.pop("measured_at")
        coordinates = {
            "condition": (("condition",), conditions[0]),
            "permuted": (("order",), list(self.permuted)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("measurement",), at[0].astype(float)),
        }
        return {**variables, **self.more(study, conditions)}, coordinates

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """Further variables."""
        return {}

    def cell(self, study: Study, conditions: Conditions, ids: Tensor, kind: str = "linear") -> ResidualCell:
        """The networks of an ensemble, with settings `(*ids, size)`."""
        turn, n = self.residual(study, conditions, ids), self.hidden_size
        return ResidualCell(1, n, residual=turn, coupling=conditions[-1], kind=kind, **study.ensemble(ids))

    def residual(self, study: Study, conditions: Conditions, ids: Tensor) -> residuals.Recipe:
        """A of these networks."""
        _, angles, decays, _ = conditions
        return residuals.rotation(angles) @ residuals.decay(decays)

    def _spectrum(self, task: SequentialImages) -> PowerSpectrum:
        pixels = task.draw(Draw(self.seed, task.length, self.spectrum_images, stream="spectrum")).inputs
        return characteristic_frequency(pixels)

    def _train(
        self, study: Study, task: SequentialImages, conditions: Conditions, kind: str
    ) -> dict[str, Any]:
        names, *settings = conditions
        shape, dims = (len(names), len(self.learning_rates), self.seeds), ("condition", "lr", "seed")
        ids = numbers(self.first, self.seeds).expand(shape)
        angles, decays, couplings = (z.unsqueeze(1).expand(*shape, z.shape[-1]) for z in settings)
        cell = self.cell(study, (names, angles, decays, couplings), ids, kind)
        record = self.fit(
            study,
            network(study, cell, task, ids),
            task,
            ids,
            self.iterations,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            metrics_every=self.measure_every,
            test_batches=self.test_batches,
        )
        found = learned(record, ids, dims)
        # no figure of images shows it
        del found["test_loss"]
        until = iterations_to(record, MINIMAL[task.permuted])
        return {
            **found,
            "best_accuracy": (dims, best_so_far(record)[:, -1].reshape(shape)),
            "iterations_to_minimal": (dims, np.nan_to_num(until, nan=-1.0).reshape(shape)),
        }


def best_scores(record: Record) -> NDArray[np.floating]:
    """The best accuracy `(..., order, condition)` at the best learning rate, averaged over seeds."""
    return np.asarray(np.nan_to_num(record["best_accuracy"]).mean(-1).max(-1))


def best_of(record: Record, order: int = 0) -> ByName:
    """The same by condition."""
    return ByName(record["condition"], best_scores(record)[order].tolist())


def scores_of(record: Measured, order: int = 0) -> dict[str, Rows]:
    """By condition the best accuracy of each network, at the learning rate that is best on average."""
    best = np.nan_to_num(record["best_accuracy"][order])
    return _at_rate(record, best, np.argmax)


def steps_of(record: Measured, order: int = 0) -> dict[str, Rows]:
    """By condition the task steps of each network to minimal performance, at the quickest rate.

    Of those that never reach it the steps of the training, as in the paper.
    """
    return _at_rate(record, steps_at_rates(record, order), np.argmin)


def steps_at_rates(record: Measured, order: int = 0) -> Rows:
    """The same `(condition, lr, seed)`, at every learning rate."""
    until, last = record["iterations_to_minimal"][order], record["measured_at"][-1]
    return np.asarray(np.where(until < 0, last, until))


def _at_rate(record: Measured, values: Rows, choose: Callable[[Rows], Any]) -> dict[str, Rows]:
    """By condition, of values `(condition, lr, seed)` those at the rate that is chosen by the mean."""
    names = map(str, record["condition"])
    return {name: rows[choose(rows.mean(-1))] for name, rows in zip(names, values, strict=True)}


def ahead(of: Mapping[str, Rows], own: str, others: Iterable[str], bound: float = 0.0) -> float:
    """By how much networks are above their twins of the best other condition, a mean; NaN without both."""
    there = [of[name] for name in others if name in of]
    if own not in of or not there:
        return math.nan
    return sure(of[own] - max(there, key=np.mean), bound)


def earlier(steps: Mapping[str, Rows], last: float, own: str, others: Sequence[str]) -> float:
    """By how many task steps networks are ahead of their twins; NaN if all take as many, or the `last`."""
    some = min((steps[name].mean() for name in (own, *others) if name in steps), default=last) < last
    gap = ahead({name: -rows for name, rows in steps.items()}, own, others)
    # measured now and then, those that learn before the first time are as quick as each other
    return where(some and gap != 0, gap)


def spectrum_checks(record: Record) -> Checks:
    """Bin 28 stands out of the digits in order, and none of the permuted ones."""
    for order, permuted in enumerate(record["permuted"]):
        # bin 0 is the mean, no frequency
        power = record["power"][order][1:]
        ratio = power / power.mean()
        if permuted:
            sentence = "permuted pixels: largest power / mean power (bins above 0)"
            yield at_most("permuted spectrum", sentence, 5.0, ratio.max(), **DATA)
        else:
            # what goes on from row to row, of 28 of the 784 pixels, has 784 / 28 = 28 periods
            sentence = "pixels in order: bin of largest power (above 0)"
            largest = where(np.isfinite(ratio).all(), ratio.argmax() + 1)
            yield near("frequency", sentence, 28.0, largest, 0.0, **DATA)
            sentence = "pixels in order: largest power / mean power (bins above 0)"
            yield at_least("peak", sentence, 30.0, ratio.max(), **DATA)


CHANCE = 0.1
"""The accuracy of who knows nothing of ten digits."""
SOMETHING = 0.2
"""Accuracy above which a network has learned something."""


def seeded(axes: Axes, record: Record) -> None:
    """Below a picture: how many networks there are of each condition and rate."""
    networks = record["best_accuracy"].shape[-1]
    footnote(axes, f"n = {networks} networks, each shown thin", "thick: mean", "dotted: chance")


def learning_curves(axes: Axes, record: Record, order: int, title: str) -> None:
    """Test accuracy over task steps for each condition at its best learning rate."""
    for i, name in enumerate(record["condition"]):
        best = int(np.nan_to_num(record["best_accuracy"][order][i]).mean(-1).argmax())
        curves = record["test_accuracy"][order][i, best]
        bundle(axes, curves, PALETTE[i % len(PALETTE)], str(name), x=record["measured_at"])
    axes.set(xlabel="task step", ylabel="test accuracy", title=title, ylim=(0, 1.03))
    level(axes, CHANCE)
    axes.legend()


def best_at_angles(axes: Axes, record: Record, order: int, title: str) -> None:
    """The best test accuracy against the angle, a colour for each learning rate."""
    for j, lr in enumerate(record["learning_rate"]):
        best, x = record["best_accuracy"][order][:, j], record.config["multiples"]
        scores(axes, x, best, PALETTE[j], f"{lr:g}", alpha=0.4)
    axes.set(xlabel=r"angle / $\omega_0$", ylabel="best test accuracy", title=title, ylim=(0, 1.03))
    level(axes, CHANCE)
    axes.legend(title="learning rate")


def beside_spectra(draw: Callable[[Axes, Record, int, str], None]) -> Picture:
    """A picture of what is drawn for each order of the pixels, and of the spectrum of the data."""

    @picture(lambda record: 2 * len(record["permuted"]))
    def both(record: Record, axes: list[Axes]) -> None:
        for order, permuted in enumerate(record["permuted"]):
            panel, power = axes[2 * order + 1], record["power"][order][1:]
            draw(axes[2 * order], record, order, "permuted" if permuted else "in order")
            panel.semilogy(np.arange(1, len(power) + 1), power / power.mean(), color=GREY, linewidth=0.8)
            level(panel, 1.0)
            panel.set(xlabel="bin", ylabel="power / mean", title="Spectrum of the data")
        seeded(axes[0], record)

    return both
