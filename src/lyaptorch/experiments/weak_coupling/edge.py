"""Around the edge of chaos (figure 3): learning over the residual r, clipped and not, and curvature."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.experiments.check import Checks, at_least, at_most, typical, where
from lyaptorch.experiments.figure import Along, Results, Study, stacked
from lyaptorch.experiments.weak_coupling.image_runs import SOMETHING
from lyaptorch.experiments.weak_coupling.several_tasks import SeveralTasks, minimal_of, named, score_of
from lyaptorch.experiments.weak_coupling.trained import (
    AUTHORS,
    figure,
    learned,
    steps_to,
)
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, footnote, letter, picture, scores
from lyaptorch.record import Record

CLIPPED = (False, True)


@picture(4, rows=lambda record: len(record["name"]), width=3.25, height=2.7)
def curves(record: Record, axes: list[Axes]) -> None:
    """By task, a row: learning curves, plain and clipped, the best score against r, and curvature."""
    for i in range(len(record["name"])):
        _row(axes[4 * i : 4 * i + 4], record, i)
        letter(axes[4 * i], chr(ord("A") + i))
    axes[0].legend()
    counted = f"n = {record['test_loss'].shape[3]} networks for each r, each shown thin"
    footnote(axes[0], counted, "thick: median", "Hessian: one network")


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
    cost=("3 s", "4 min"),
    smoke={
        "tasks": ("mnist", "adding 8", "adding 12"),
        "decays": (0.98, 1.0, 1.02),
        "hidden_size": 4,
        "adding_iterations": 4,
        "curvatures": 1,
    },
    small={
        "tasks": ("mnist", "permuted mnist", "adding 30", "adding 60"),
        "decays": (0.95, 0.98, 0.995, 1.0, 1.005, 1.02),
        "seeds": 2,
        "coupling": 0.06,
        "iterations": 500,
        "adding_iterations": 10_000,
        "measurements": 10,
        "curvatures": 2,
    },
    draw=curves,
    cut=(Along("task", "tasks"), Along("decay", "decays")),
)
class Fig3(SeveralTasks):
    """Residuals r I on images and on the adding problem, by gradient descent; clipped and not.

    Attributes:
        decays: r, for each of which there are `seeds` networks.
        lr: learning rate on images.
        adding_lr: and on the adding problem.
        curvatures: of the Hessian, of the clipped network of the first seed; one more before training.
    """

    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 0.995, 1.0, 1.005, 1.01, 1.02)
    lr: float = 3e-3
    adding_lr: float = 1e-2
    curvatures: int = 8

    def networks(self) -> int:
        """Clipped and not, for each r; and once more one of each r for curvature."""
        return (len(CLIPPED) * self.seeds + 1) * len(self.decays)

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
            "curved_at": (("time",), curved["measured_at"][0]),
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
            clip=clip,
            metrics=(metric,),
        )

    def claims(self, record: Record) -> Checks:
        """Curvature grows or shrinks, images and sums want another r near 1, and clipping steadies r > 1."""
        r, off = record["r"], {}
        for i, name in enumerate(map(str, record["name"])):
            yield from self._task_claims(record, i)
            if name.startswith("adding"):
                off[int(name.split()[1])] = self._best(record, i)
        if len(off) > 1:
            # what is best at the end of what was tried may be better beyond it
            short, long = off[min(off)], off[max(off)]
            inside = all(r.min() < best < r.max() for best in (short, long))
            nearer = abs(1 - short) - abs(1 - long)
            sentence = "|1 − best r|, shortest − longest sum"
            # |1 - 0.98| and |1 - 1.02| may differ by round-off
            told = where(inside and abs(nearer) > 1e-6, nearer)
            yield at_least("length", sentence, 0.0, told, source=f"{AUTHORS}, section 4.1")
        yield from self._all_tasks(record)
        # twins of which both have learned something: who never leaves chance is steady, too
        best = known_scores(record).max(-1)[:, :, r > 1]
        both, lost = (best > SOMETHING).all(1), unsteadiness(record)[:, :, r > 1]
        plain, clipped = (lost[:, i][both].mean() if both.any() else np.nan for i in (0, 1))
        sentence = "mean drop of the score below its best so far, r > 1, clipped − not clipped"
        source = f"{AUTHORS}, section 4.1"
        yield at_most("clipped", sentence, 0.0, clipped - plain, source=source)
        over = (record["unstable_at"][:, :, r > 1] >= 0).sum((0, 2, 3))
        sentence = "number of networks with r > 1 that overflow, clipped / not clipped"
        yield at_most("overflow", sentence, 0.5, where(over[0], over[1] / max(over[0], 1)), source=source)

    def _all_tasks(self, record: Record) -> Checks:
        """Of all tasks together: where learning is unsteady, and which residual is the best overall."""
        least, r = partial(at_least, source=f"{AUTHORS}, section 4.1"), record["r"]
        # not clipped, of those that have learned something
        lost = np.where(known_scores(record).max(-1) > SOMETHING, unsteadiness(record), np.nan)[:, 0]
        above, below = (typical(lost[:, side], np.mean) for side in (r > 1, r < 1))
        sentence = "mean drop of the score below its best so far, not clipped, r > 1 − r < 1"
        yield least("unsteady", sentence, 0.0, above - below)
        each = known_scores(record)[:, -1].max(-1).mean((0, 2))
        near = np.flatnonzero(r == max(r[r < 1], default=np.nan))
        others = np.delete(each, near)
        sentence = (
            "accuracy or explained variance, mean over tasks, clipped: r nearest below 1 − best of all others"
        )
        told = near.size and others.size and each.max() > SOMETHING
        yield least("overall", sentence, 0.0, where(told, each[near].max(initial=0) - others.max(initial=0)))

    def _best(self, record: Record, task: int) -> float:
        """The r of the best median score of clipped networks; NaN where none reaches minimal performance."""
        score, least = minimal_of(str(record["name"][task]))
        sign = -1 if score == "test_loss" else 1
        best = np.median(np.nanmax(sign * record[score][task, -1], -1), -1)
        return where(best.max() >= sign * least, record["r"][best.argmax()])

    def _task_claims(self, record: Record, i: int) -> Checks:
        """Of one task, all of clipped networks: curvature, the better side, efficiency and the edge."""
        name, r = str(record["name"][i]), record["r"]
        least, most = (partial(side, source=f"{AUTHORS}, section 4.1") for side in (at_least, at_most))
        score, threshold = minimal_of(name)
        falls, curves, at = score == "test_loss", record[score][i, -1], record["measured_at"][i]
        steps = np.median(steps_to(curves, at, threshold, falls=falls), -1)
        learned, never = steps < at[-1], at[-1]
        # of the leading eigenvalue, whose sign may change, after training over before; where all is lost
        # to chance, or to overflow, curvature says nothing of learning
        changes = np.abs(record["curvature"][i, :, -1] / record["curvature"][i, :, 0])
        below, above = (typical(changes[side & learned]) for side in (r < 1, r >= 1))
        leading = f"{name}: |leading Hessian eigenvalue|, after / before training"
        yield least(f"{name} growth", f"{leading}, r < 1 (median over r that learn)", 1.0, below)
        yield most(f"{name} decline", f"{leading}, r >= 1 (median over r that learn)", 1.0, above)
        # the larger, the better
        best = np.median(np.nan_to_num((-1 if falls else 1) * curves, nan=-np.inf).max(-1), -1)
        below, above = (max(best[side], default=np.nan) for side in (r < 1, r > 1))
        gain = below - above if falls else above - below
        of = f"{name}: best {'RMS error' if falls else 'accuracy'}"
        sentence = f"{of}, r > 1 − r < 1"
        yield least(f"{name} side", sentence, 0.0, where(learned[r != 1].any(), gain))
        order = np.argsort(r)
        # the farthest below 1 and the nearest, which are one where there is one
        far, near = steps[order[r[order] < 1]][[0, -1]] if (r < 1).any() else (np.nan, np.nan)
        until = f"{name}: task steps to minimal performance"
        sentence = f"{until}, r farthest below 1 − r nearest below 1"
        yield least(f"{name} efficiency", sentence, 0.0, where(min(far, near) < never, far - near))
        # as many near the edge as at the ends: the best of more would be better by luck alone
        ends, inner = (max(best[at], default=np.nan) for at in (order[[0, -1]], nearest(r)))
        at_ends, at_edge = "smallest and largest r", "r nearest 1"
        more, less = (at_ends, at_edge) if falls else (at_edge, at_ends)
        sentence = f"{of}, {more} − {less}"
        yield least(f"{name} edge", sentence, 0.0, where(learned.any(), inner - ends))


def nearest(r: NDArray[np.floating]) -> list[int]:
    """Where the r next to 1 below and above it are; those that there are beside the ends."""
    inner = np.argsort(r)[1:-1]
    return [*inner[r[inner] < 1][-1:].tolist(), *inner[r[inner] > 1][:1].tolist()]


def known_scores(record: Record) -> NDArray[np.floating]:
    """Accuracy, or explained variance; none where it is negative or not a number."""
    # explained variance is below 0 where a network is worse than the mean
    return np.asarray(np.clip(np.nan_to_num(record["test_accuracy"]), 0.0, 1.0))


def unsteadiness(record: Record) -> NDArray[np.floating]:
    """How far a score is behind the best so far, averaged over training; all of it after an overflow."""
    known = known_scores(record)
    return np.asarray((np.maximum.accumulate(known, -1) - known).mean(-1))
