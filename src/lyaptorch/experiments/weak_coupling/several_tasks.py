"""Networks on several tasks; figure 3: learning over the residual r, clipped and not, and curvature."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import Cell, ResidualCell, residuals
from lyaptorch.experiments.check import Checks, at_least, at_most
from lyaptorch.experiments.figure import Results, Scales, Study, stacked
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, Trained, figure, learned, network
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, picture, scores
from lyaptorch.record import Record
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Task
from lyaptorch.training import SGD, Adam


def named(name: str) -> Task:
    """The task called "adding LENGTH", or images such as "mnist" and "permuted mnist"."""
    kind, _, last = name.rpartition(" ")
    return Adding(int(last)) if kind == "adding" else SequentialImages(last, permuted=kind == "permuted")


def score_of(name: str) -> tuple[str, str, tuple[float, float]]:
    """The score of the task called so, as a Record has it; what an axis says of it, and where that ends."""
    if name.startswith("adding"):
        return "loss", "RMS error", (0.0, 0.8)
    return "accuracy", "test accuracy", (0.0, 1.03)


class SeveralTasks(Trained):
    """Networks that are trained on images and on the adding problem.

    Attributes:
        tasks: names, as `named` takes them.
        seeds: networks of each kind.
        first: the number of the first of them.
        iterations: task steps on images.
        adding_iterations: and on the adding problem.
        clip: largest norm of the whole gradient, where it is clipped.
        measurements: of the test score, evenly spaced; one more before training.
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
    seeds: int = 5
    first: int = 0
    iterations: int = 93_600
    adding_iterations: int = 60_000
    clip: float = 1.0
    measurements: int = 40
    test_batches: int = 20

    scales: ClassVar[Scales] = {
        "smoke": {"seeds": 1, "batch": 4, "iterations": 2, "measurements": 2, "test_batches": 1},
        "small": {"hidden_size": 32, "batch": 32, "test_batches": 10},
    }

    def learn(
        self, study: Study, name: str, cell: Cell, ids: Tensor, measurements: int, **settings: Any
    ) -> Record:
        """Train on the task called so, and measure that often."""
        task, images = named(name), not name.startswith("adding")
        every = (self.iterations if images else self.adding_iterations) // measurements
        return self.fit(
            study,
            network(study, cell, task, ids),
            task,
            ids,
            # what is measured before the last step is the end
            every * measurements + 1,
            clip_mode="global",
            metrics_every=every,
            test_batches=self.test_batches,
            **settings,
        )


CLIPPED = (False, True)


@picture(4, rows=lambda record: len(record["name"]), width=3.25, height=2.7)
def curves(record: Record, axes: list[Axes]) -> None:
    """By task, a row: learning curves, plain and clipped, the best score against r, and curvature."""
    for i in range(len(record["name"])):
        _row(axes[4 * i : 4 * i + 4], record, i)
    axes[0].legend()


def _row(row: list[Axes], record: Record, task: int) -> None:
    """The panels of a task; from blue, where memory fades, to red, where it grows."""
    name, r, at = str(record["name"][task]), record["r"], record["measured_at"][task]
    shades = [to_hex(shade) for shade in colormaps["coolwarm"](np.linspace(0, 1, len(r)))]
    score, label, limits = score_of(name)
    found, (*learning, reached, curvature) = record[f"test_{score}"][task], row
    # NaN are the scores after an overflow
    final = np.nanmin(found, -1) if score == "loss" else np.nanmax(found, -1)
    for i, (panel, kind) in enumerate(zip(learning, ("not clipped", "clipped"), strict=True)):
        for own, color, value in zip(found[i], shades, r, strict=True):
            bundle(panel, own, color, f"$r = {value:g}$", x=at, thick=np.median, alpha=0.4)
        panel.set(xlabel="task step", ylabel=label, title=f"{name}, {kind}", ylim=limits)
        scores(reached, r, final[i], PALETTE[i], kind, thick=np.median, alpha=0.4)
    reached.axvline(1.0, color=GREY, linestyle=":", linewidth=0.8)
    reached.set(xlabel="$r$", ylabel=f"best {label}", title="Best")
    reached.legend()
    for own, color in zip(np.abs(record["curvature"][task]), shades, strict=True):
        curvature.semilogy(record["curved_at"][task], own, "o-", color=color, markersize=3)
    curvature.set(xlabel="task step", ylabel="|leading eigenvalue|", title="Hessian, clipped")


@figure(
    "fig3",
    "learning curves over r on images and adding, with and without clipping; Hessian",
    cost=("3 s", "4 min", "hours on a GPU"),
    smoke={
        "tasks": ("mnist", "adding 8", "adding 12"),
        "decays": (0.98, 1.0, 1.02),
        "hidden_size": 4,
        "adding_iterations": 4,
        "curvatures": 1,
    },
    small={
        "tasks": ("mnist", "permuted mnist", "adding 50", "adding 100"),
        "decays": (0.95, 0.98, 0.995, 1.0, 1.005, 1.02),
        "seeds": 2,
        "coupling": 0.06,
        "iterations": 500,
        "adding_iterations": 5000,
        "measurements": 10,
        "curvatures": 2,
    },
    draw=curves,
)
class Fig3(SeveralTasks):
    """Residuals r I on images, by gradient descent, and on the adding problem, by Adam; clipped and not.

    Attributes:
        decays: r, for each of which there are `seeds` networks.
        lr: learning rate on images.
        adding_lr: and on the adding problem.
        curvatures: of the Hessian, of the clipped network of the first seed; one more before training.
    """

    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 0.995, 1.0, 1.005, 1.01, 1.02)
    lr: float = 3e-3
    adding_lr: float = 5e-3
    curvatures: int = 8

    def run(self, study: Study) -> Results:
        """`test_loss, test_accuracy (task, clip, decay, seed, measurement)`, `curvature (task, decay, time)`.

        A network that overflowed has NaN from there on. The accuracy of sums is the share of the variance
        that is explained.
        """
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "clipped": (("clip",), list(CLIPPED)),
            "r": (("decay",), list(self.decays)),
        }
        return stacked("task", [self._learn(study, name) for name in self.tasks]), coordinates

    def _learn(self, study: Study, name: str) -> dict[str, Any]:
        """Learning curves of all networks on a task; then curvature, of some that are trained again."""
        ids = torch.arange(self.seeds).expand(len(CLIPPED), len(self.decays), -1)
        # a limit that no gradient reaches, because either all members have one or none has
        limits = torch.tensor([torch.finfo(torch.float32).max, self.clip])
        clip = limits[:, None, None].expand(ids.shape)
        tested = self._train(study.part(name, "test"), name, "test", ids, clip, self.measurements)
        # a Hessian costs many gradients: only the clipped networks of the first seed have it
        few, own, again = ids[-1, :, 0], clip[-1, :, 0], study.part(name, "curvature")
        curved = self._train(again, name, "curvature", few, own, self.curvatures)
        return {
            **learned(tested, ids, ("clip", "decay", "seed")),
            "curvature": (("decay", "time"), curved["curvature"]),
            "curved_at": (("time",), np.nanmax(curved["measured_at"], 0)),
        }

    def _train(
        self, study: Study, name: str, metric: str, ids: Tensor, clip: Tensor, measurements: int
    ) -> Record:
        adding, n, r = name.startswith("adding"), self.hidden_size, torch.tensor(self.decays)
        # one r for all units, and for all seeds where there are several
        r = r[:, None] if ids.dim() == 1 else r[:, None, None]
        networks = {"residual": residuals.decay(r.expand(*ids.shape, n)), **study.ensemble(ids)}
        cell = ResidualCell(named(name).input_size, n, coupling=self.coupling, **networks)
        return self.learn(
            study,
            name,
            cell,
            ids,
            measurements,
            lr=self.adding_lr if adding else self.lr,
            # as in table 1, because gradient descent is slow on sums
            optimizer=Adam() if adding else SGD(momentum=0.9),
            clip=clip,
            metrics=(metric,),
        )

    def claims(self, record: Record) -> Checks:
        """Curvature grows or shrinks, images and sums want another r, and clipping helps where r > 1."""
        r, best, off = record["r"], known_scores(record).max(-1), {}
        least, most = (partial(side, source=f"{AUTHORS}, section 4.1") for side in (at_least, at_most))
        for i, name in enumerate(map(str, record["name"])):
            # of the leading eigenvalue, whose sign may change, after training over before
            changes = np.abs(record["curvature"][i, :, -1] / record["curvature"][i, :, 0])
            grown, kept = changes[r < 1].min(), changes[r >= 1].max()
            sentence = f"{name}: curvature grows where r < 1: its least factor"
            yield least(f"{name} growth", sentence, 1.0, grown)
            yield most(f"{name} decline", f"{name}: and shrinks elsewhere: its largest", 1.0, kept)
            # of clipped networks, the median over seeds
            accuracy = np.median(best[i, -1], -1)
            below, above = accuracy[r < 1].max(), accuracy[r > 1].max()
            if name.startswith("adding"):
                off[int(name.split()[1])] = abs(1 - r[accuracy.argmax()])
                yield least(f"{name} side", f"{name}: r < 1 explains more than r > 1", above, below)
            else:
                yield least(f"{name} side", f"{name}: r > 1 is better than r < 1", below, above)
        if len(off) > 1:
            # |1 - 0.98| and |1 - 1.02| may differ by round-off
            rise = np.diff([off[length] for length in sorted(off)]).max()
            yield most("length", "the longer the sum, the nearer the best r is to 1", 0.0, rise, 1e-6)
        # over all tasks and seeds
        plain, clipped = (lost[r > 1].mean() for lost in unsteadiness(record).mean((0, -1)))
        yield most("clipped", "clipped, networks with r > 1 fall back less", plain, clipped)


def known_scores(record: Record) -> NDArray[np.floating]:
    """Accuracy, or explained variance; none where it is negative or not a number."""
    # explained variance is below 0 where a network is worse than the mean
    return np.asarray(np.clip(np.nan_to_num(record["test_accuracy"]), 0.0, 1.0))


def unsteadiness(record: Record) -> NDArray[np.floating]:
    """How far a score is behind the best so far, averaged over training; all of it after an overflow."""
    known = known_scores(record)
    return np.asarray((np.maximum.accumulate(known, -1) - known).mean(-1))
