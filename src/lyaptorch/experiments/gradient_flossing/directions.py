"""The structure of the gradient over training: figures 10 and 11, and appendix D's covariant vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, Study, declare
from lyaptorch.experiments.gradient_flossing.episodes import (
    FEWER,
    LONG,
    QUICK,
    ROSE,
    Episodes,
    mark_episodes,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import PAPER
from lyaptorch.plots.primitives import BLUE, ORANGE, PALETTE, bundle, finite_mean, label_accuracy, smooth
from lyaptorch.record import Record

TINY = 1e-30
"""What stands for a singular value of 0 in a ratio and on a logarithmic axis."""


@of_each_delay(2)
def singular_values(record: Record, delay: int, axes: list[Axes]) -> None:
    """Singular values of dL/dW of one network, solid flossed and dashed not, and its accuracy."""
    values, accuracy = axes
    seed, at = int(record["shown"][delay]), record["measured_at"]
    for i, rank in enumerate((1, *record.config["ranks"])):
        for condition, line in ((1, "-"), (0, "--")):
            rows = np.maximum(record["singular_values"][condition, delay, seed, :, rank - 1], TINY)
            label = rf"$\sigma_{{{rank}}}$" if condition else None
            values.semilogy(at, rows, line, color=PALETTE[i % len(PALETTE)], linewidth=1.1, label=label)
    values.set(xlabel="epoch", ylabel="singular values of $dL/dW$", title=f"delay {record['delay'][delay]}")
    values.legend(ncols=2)
    for condition, line, color in ((1, "-", ORANGE), (0, "--", BLUE)):
        row = smooth(record["accuracy"][condition, delay, seed], 20)
        accuracy.plot(row, line, color=color, linewidth=1.2)
    label_accuracy(accuracy, "epoch", f"network {seed}")
    mark_episodes(record, axes)


@of_each_delay(2)
def overlaps(record: Record, delay: int, axes: list[Axes]) -> None:
    """Overlap with the first covariant vector, and accuracy, over epochs."""
    (overlap, accuracy), title = axes, f"delay {record['delay'][delay]}"
    for i, (condition, color) in enumerate(zip(record["condition"], (BLUE, ORANGE), strict=True)):
        rows, curves = record["overlap"][i, delay], smooth(record["accuracy"][i, delay], 20)
        bundle(overlap, rows, color, str(condition), x=record["measured_at"], thick=finite_mean)
        bundle(accuracy, curves, color, thick=finite_mean)
    overlap.set(xlabel="epoch", ylabel=r"|cos| of $dL/dh$ and $v_1$", title=title)
    label_accuracy(accuracy, "epoch", title)
    overlap.legend(title="flossed")
    mark_episodes(record, axes)


@declare(
    PAPER,
    "fig10",
    "singular values of dL/dW over epochs, with and without flossing, and accuracy",
    cost=("10 s", "2 min", LONG),
    smoke={**QUICK, "ranks": (2, 4)},
    small=FEWER,
    draw=singular_values,
)
@dataclass(frozen=True)
class Fig10(Episodes):
    """Singular values of dL/dW over epochs, with and without flossing; one network is drawn.

    Attributes:
        ranks: indices of the subordinate singular values that are checked and drawn, from 1.
    """

    ranks: tuple[int, ...] = (2, 5, 10, 20)

    def run(self, study: Study) -> Results:
        """`singular_values (condition, delay, seed, measurement, index)`, `accuracy`, `shown (delay)`."""
        conditions, name = self.conditions(), "singular_values"
        variables, _ = self.trained(study, conditions, name, name, axes=("index",))
        left = onset(torch.as_tensor(variables["accuracy"][1][1]), which="last")
        return self.compared(conditions, {**variables, "shown": (("delay",), self.shown(left))})

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the first to leave chance."""
        return left_chance.nan_to_num(nan=torch.inf).argmin(-1)

    def checks(self, record: Record) -> list[Check]:
        """Subordinate values jump at each episode, and exceed those without flossing before chance ends."""
        values, at = record["singular_values"][1], record["measured_at"]
        place = np.searchsorted(at, self.episodes)
        found = []
        for rank in self.ranks:
            rows = np.maximum(values[..., rank - 1], TINY)
            jump = np.median(np.stack([rows[..., p] / rows[..., p - 1] for p in place]))
            sentence = f"singular value {rank}: median jump at an episode"
            found.append(at_least(f"jump {rank}", sentence, 1.5, float(jump), source=self.source))
        for rank in self.ranks:
            share = self._risen_before(record, rank - 1)
            sentence = (
                f"singular value {rank}: share that exceeds tenfold that of no flossing before learning"
            )
            found.append(at_least(f"rose before {rank}", sentence, 0.5, share, source=self.source))
        return found

    def _risen_before(self, record: Record, index: int) -> float:
        """Of the flossed networks that learn, the share whose value has risen before."""
        values, at = record["singular_values"][..., index], record["measured_at"]
        left = onset(torch.from_numpy(record["accuracy"][1]), which="last").numpy()
        risen = [
            bool((flossed >= ROSE * np.maximum(none, TINY))[at <= epoch].any())
            for none, flossed, epoch in zip(*map(_rows, values), left.reshape(-1), strict=True)
            if np.isfinite(epoch)
        ]
        return float(np.mean(risen)) if risen else float("nan")


@declare(
    PAPER,
    "fig11",
    "as figure 10, for the network whose accuracy leaves chance last",
    cost=("10 s", "2 min", LONG),
    smoke={**QUICK, "ranks": (2, 4)},
    small=FEWER,
    draw=singular_values,
)
@dataclass(frozen=True)
class Fig11(Fig10):
    """The same run as figure 10; the network is drawn that leaves chance last."""

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the last to leave chance, of those that do."""
        return left_chance.nan_to_num(nan=-torch.inf).argmax(-1)


@declare(
    PAPER,
    "appD-clv",
    "overlap of dL/dh with the first covariant vector over epochs, flossed or not",
    cost=("10 s", "80 s", LONG),
    smoke=QUICK,
    small={**FEWER, "delays": (20,)},
    draw=overlaps,
)
@dataclass(frozen=True)
class CovariantOverlap(Episodes):
    """Overlap of dL/dh with the first covariant Lyapunov vector over epochs.

    The gradient is that after a third of a trial, where the vector is known.

    Attributes:
        around: epochs before and after accuracy leaves chance that are compared.
    """

    around: int = 200

    def run(self, study: Study) -> Results:
        """`overlap (condition, delay, seed, measurement)` and `accuracy`."""
        conditions = self.conditions()
        return self.compared(conditions, self.trained(study, conditions, "covariant_overlap", "overlap")[0])

    def checks(self, record: Record) -> list[Check]:
        """The overlap rises around the epoch at which accuracy leaves chance for good."""
        found, at, source = [], record["measured_at"], "Gradient Flossing, appendix D"
        for i, condition in enumerate(record["condition"]):
            left = onset(torch.from_numpy(record["accuracy"][i]), which="last").numpy().reshape(-1)
            changes = []
            for row, epoch in zip(_rows(record["overlap"][i]), left, strict=True):
                before = row[(at < epoch) & (at >= epoch - self.around)]
                after = row[(at >= epoch) & (at <= epoch + self.around)]
                if len(before) and len(after):
                    changes.append(after.mean() / before.mean())
            change = float(np.median(changes)) if changes else float("nan")
            sentence = f"{condition}: overlap after leaving chance over before, median"
            found.append(at_least(f"{condition} rise", sentence, 1.0, change, source=source))
        return found


def _rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values.reshape(-1, values.shape[-1])
