"""Figure 3: learning curves over the residual r, and curvature while networks learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.experiments.weak_coupling.adding import (
    AUTHORS,
    PAPER,
    ensemble,
    fit,
    learned,
    named,
    network,
)
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, scores, style
from lyaptorch.record import Record
from lyaptorch.training import SGD, Adam

CLIPPED = (False, True)
SOURCE = f"{AUTHORS}, section 4.1"


def curves(record: Record) -> Picture:
    """By task, a row: learning curves, plain and clipped, the best score against r, and curvature."""
    names = record["name"]
    with style():
        figure = Picture(figsize=(13, 2.7 * len(names)), layout="constrained")
        grid = figure.subplots(len(names), 4, squeeze=False)
        for i, row in enumerate(grid):
            _row(row, record, i)
        grid[0, 0].legend()
    return figure


def _row(row: NDArray[Any], record: Record, task: int) -> None:
    """The panels of a task; from blue, where memory fades, to red, where it grows."""
    name, r = record["name"][task], record["r"]
    shades = [to_hex(shade) for shade in colormaps["coolwarm"](np.linspace(0, 1, len(r)))]
    adding = str(name).startswith("adding")
    found = record["test_loss" if adding else "test_accuracy"][task]
    label = "RMS error" if adding else "test accuracy"
    for axes, clipped, of_clip in zip(row, record["clipped"], found, strict=False):
        for own, color, value in zip(of_clip, shades, r, strict=True):
            at = record["measured_at"][task]
            bundle(axes, own, color, f"$r = {value:g}$", x=at, thick=np.median, alpha=0.4)
        kind = "clipped" if clipped else "not clipped"
        axes.set(xlabel="task step", ylabel=label, title=f"{name}, {kind}")
        axes.set_ylim((0, 0.8) if adding else (0, 1.03))
    reached, curvature = row[2:]
    for i, own in enumerate(np.nanmin(found, -1) if adding else np.nanmax(found, -1)):
        kind = ("not clipped", "clipped")[i]
        scores(reached, r, own, PALETTE[i], kind, thick=np.median, alpha=0.4)
    reached.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    reached.set(xlabel="$r$", ylabel=f"best {label}", title="Best")
    reached.legend()
    for own, color in zip(np.abs(record["curvature"][task]), shades, strict=True):
        curvature.semilogy(record["curved_at"][task], own, "o-", color=color, markersize=3)
    curvature.set(xlabel="task step", ylabel="|leading eigenvalue|", title="Hessian, clipped")


@declare(
    PAPER,
    "fig3",
    "learning curves over r on images and adding, with and without clipping; Hessian",
    cost=("3 s", "4 min", "hours on a GPU"),
    smoke={
        "tasks": ("mnist", "adding 8", "adding 12"),
        "decays": (0.98, 1.0, 1.02),
        "seeds": 1,
        "hidden_size": 4,
        "batch": 4,
        "iterations": 2,
        "adding_iterations": 4,
        "measurements": 2,
        "curvatures": 1,
        "test_batches": 1,
    },
    small={
        "tasks": ("mnist", "permuted mnist", "adding 50", "adding 100"),
        "decays": (0.95, 0.98, 0.995, 1.0, 1.005, 1.02),
        "seeds": 2,
        "hidden_size": 32,
        "coupling": 0.06,
        "batch": 32,
        "iterations": 500,
        "adding_iterations": 5000,
        "measurements": 10,
        "curvatures": 2,
        "test_batches": 10,
    },
    draw=curves,
)
@dataclass(frozen=True)
class Fig3(Figure):
    """Residuals r I on images, by gradient descent, and on the adding problem, by Adam; clipped and not.

    Attributes:
        tasks: names, as `training.named` takes them.
        decays: r.
        seeds: networks for each r.
        hidden_size: n.
        coupling: eps.
        batch: trajectories of a task step.
        iterations: task steps on images.
        adding_iterations: and on the adding problem.
        lr: learning rate on images.
        adding_lr: and on the adding problem.
        clip: largest norm of the whole gradient, where it is clipped.
        measurements: of the test score, evenly spaced; one more before training.
        curvatures: of the Hessian, of the clipped network of the first seed; one more before training.
        test_batches: of each test.
    """

    tasks: tuple[str, ...] = (
        "mnist",
        "permuted mnist",
        "adding 100",
        "adding 200",
        "adding 400",
        "adding 800",
    )
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 0.995, 1.0, 1.005, 1.01, 1.02)
    seeds: int = 5
    hidden_size: int = 100
    coupling: float = 0.03
    batch: int = 128
    iterations: int = 93_600
    adding_iterations: int = 60_000
    lr: float = 3e-3
    adding_lr: float = 5e-3
    clip: float = 1.0
    measurements: int = 40
    curvatures: int = 8
    test_batches: int = 20

    def run(self, study: Study) -> Results:
        """`test_loss, test_accuracy (task, clip, decay, seed, measurement)`, `curvature (task, decay, time)`.

        A network that overflowed has NaN from there on. The accuracy of sums is the share of the variance
        that is explained.
        """
        parts = [self._learn(study, name) for name in self.tasks]
        dims = ("task", "clip", "decay", "seed")
        shapes = {
            "test_loss": (*dims, "measurement"),
            "test_accuracy": (*dims, "measurement"),
            "unstable_at": dims,
            "curvature": ("task", "decay", "time"),
            "measured_at": ("task", "measurement"),
            "curved_at": ("task", "time"),
        }
        variables = {name: (own, np.stack([part[name] for part in parts])) for name, own in shapes.items()}
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "clipped": (("clip",), list(CLIPPED)),
            "r": (("decay",), list(self.decays)),
        }
        return variables, coordinates

    def _learn(self, study: Study, name: str) -> dict[str, Any]:
        """Learning curves of all networks on a task; then curvature, of some that are trained again."""
        shape = (len(CLIPPED), len(self.decays), self.seeds)
        limits = torch.tensor([torch.finfo(torch.float32).max, self.clip])
        clip, ids = limits[:, None, None].expand(shape), torch.arange(self.seeds).expand(shape)
        # the clipped networks of the first seed
        few, own = ids[-1, :, 0], clip[-1, :, 0]
        tested = self._train(study.part(name, "test"), name, "test", ids, clip, self.measurements)
        again = study.part(name, "curvature")
        curved = self._train(again, name, "curvature", few, own, self.curvatures)
        found = {"curvature": curved["curvature"], "curved_at": np.nanmax(curved["measured_at"], 0)}
        return {**learned(tested, shape), **found}

    def _train(
        self, study: Study, name: str, metric: str, ids: Tensor, clip: Tensor, measurements: int
    ) -> Record:
        task, adding = named(name), name.startswith("adding")
        every = (self.adding_iterations if adding else self.iterations) // measurements
        r = torch.tensor(self.decays)
        # one r for each network, in front of the seeds where there are some
        r = (r if ids.dim() == 1 else r[:, None].expand(ids.shape)).unsqueeze(-1)
        cell = ResidualCell(
            task.input_size,
            self.hidden_size,
            residual=residuals.decay(r.expand(*ids.shape, self.hidden_size)),
            coupling=self.coupling,
            **ensemble(study, ids),
        )
        return fit(
            study,
            network(study, cell, task, ids),
            task,
            # what is measured before the last step is the end
            every * measurements + 1,
            member_ids=ids,
            batch=self.batch,
            lr=self.adding_lr if adding else self.lr,
            optimizer=Adam() if adding else SGD(momentum=0.9),
            clip=clip,
            clip_mode="global",
            metrics=(metric,),
            metrics_every=every,
            test_batches=self.test_batches,
        )

    def checks(self, record: Record) -> list[Check]:
        """Curvature grows or shrinks, images and sums want another r, and clipping helps where r > 1."""
        r, found, off = record["r"], [], {}
        for i, name in enumerate(map(str, record["name"])):
            changes = np.abs(record["curvature"][i, :, -1] / record["curvature"][i, :, 0])
            grown, kept = float(changes[r < 1].min()), float(changes[r >= 1].max())
            sentence = f"{name}: curvature grows where r < 1: its least factor"
            found.append(at_least(f"{name} growth", sentence, 1.0, grown, source=SOURCE))
            sentence = f"{name}: and shrinks elsewhere: its largest"
            found.append(at_most(f"{name} decline", sentence, 1.0, kept, source=SOURCE))
            # of clipped networks, the median over seeds
            accuracy = np.median(best(record, i)[-1], -1)
            below, above = float(accuracy[r < 1].max()), float(accuracy[r > 1].max())
            if name.startswith("adding"):
                off[int(name.split()[1])] = float(abs(1 - r[accuracy.argmax()]))
                sentence = f"{name}: r < 1 explains more than r > 1"
                found.append(at_least(f"{name} side", sentence, above, below, source=SOURCE))
            else:
                sentence = f"{name}: r > 1 is better than r < 1"
                found.append(at_least(f"{name} side", sentence, below, above, source=SOURCE))
        if len(off) > 1:
            rise = np.diff([off[length] for length in sorted(off)]).max()
            sentence = "the longer the sum, the nearer the best r is to 1"
            found.append(at_most("length", sentence, 0.0, rise, 1e-6, source=SOURCE))
        plain, clipped = (float(lost[r > 1].mean()) for lost in unsteadiness(record).mean((0, -1)))
        sentence = "clipped, networks with r > 1 fall back less"
        found.append(at_most("clipped", sentence, plain, clipped, source=SOURCE))
        return found


def best(record: Record, task: int) -> NDArray[np.floating]:
    """Best accuracy, or explained variance, of each network `(clip, decay, seed)`."""
    return np.asarray(_known(record["test_accuracy"][task]).max(-1))


def unsteadiness(record: Record) -> NDArray[np.floating]:
    """How far a score is behind the best so far, averaged over training; all of it after an overflow."""
    known = _known(record["test_accuracy"])
    return np.asarray((np.maximum.accumulate(known, -1) - known).mean(-1))


def _known(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.clip(np.nan_to_num(scores), 0.0, 1.0))
