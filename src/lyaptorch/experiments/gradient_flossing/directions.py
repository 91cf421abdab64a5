"""Gradients over training, flossed or not: figures 10 and 11, appendix D's covariant vectors, figure 12."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import Checks, at_least
from lyaptorch.experiments.figure import Results
from lyaptorch.experiments.gradient_flossing.episodes import (
    LONG,
    ROSE,
    Episodes,
    draw_norms,
    mark_episodes,
    of_each_delay,
    share,
    share_before,
)
from lyaptorch.experiments.gradient_flossing.setting import Condition, bundles, figure
from lyaptorch.plots.primitives import BLUE, ORANGE, PALETTE, TINY, finite_mean, label_accuracy, smooth
from lyaptorch.record import Record


@of_each_delay(2)
def singular_values(record: Record, delay: int, axes: list[Axes]) -> None:
    """Singular values of dL/dW of one network, solid flossed and dashed not, and its accuracy."""
    values, accuracy = axes
    seed, at = int(record["shown"][delay]), record["measured_at"]
    for i, rank in enumerate((1, *record.config["ranks"])):
        for condition, line in ((1, "-"), (0, "--")):
            # a value of 0 stands at the bottom of a logarithmic axis
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
    names, curves = record["condition"], smooth(record["accuracy"][:, delay], 20)
    bundles(overlap, record["overlap"][:, delay], names, x=record["measured_at"], thick=finite_mean)
    bundles(accuracy, curves, names, thick=finite_mean)
    overlap.set(xlabel="epoch", ylabel=r"|cos| of $dL/dh$ and $v_1$", title=title)
    label_accuracy(accuracy, "epoch", title)
    overlap.legend(title="flossed")
    mark_episodes(record, axes)


@of_each_delay(3)
def by_schedule(record: Record, delay: int, axes: list[Axes]) -> None:
    """Accuracy, loss and |dL/dh0| over epochs: not flossed, flossed early, flossed throughout."""
    accuracy, loss, norms = axes
    for panel, name in ((accuracy, "accuracy"), (loss, "loss")):
        bundles(panel, smooth(record[name][:, delay], 5), record["condition"], linewidth=1.4)
    for rows, color in zip(record["gradient_norm"][:, delay], PALETTE, strict=False):
        draw_norms(norms, rows, color, record["measured_at"], linewidth=1.4)
    label_accuracy(accuracy, "epoch", f"delay {record['delay'][delay]}")
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    norms.set(xlabel="epoch")
    if delay == 0:
        handles, names = accuracy.get_legend_handles_labels()
        accuracy.figure.legend(handles, names, title="flossed", loc="outside right upper")


@figure(
    "fig10",
    "singular values of dL/dW over epochs, with and without flossing, and accuracy",
    cost=("10 s", "2 min", LONG),
    smoke={"ranks": (2, 4)},
    draw=singular_values,
)
class Fig10(Episodes):
    """Singular values of dL/dW over epochs, with and without flossing; one network is drawn.

    Attributes:
        ranks: indices of the subordinate singular values that are checked and drawn, from 1.
    """

    ranks: tuple[int, ...] = (2, 5, 10, 20)

    measured: ClassVar[tuple[str, str]] = ("singular_values", "singular_values")
    axes: ClassVar[tuple[str, ...]] = ("index",)

    def complete(self, record: Record) -> Results:
        """Beside `singular_values (condition, delay, seed, measurement, index)` also `shown (delay)`."""
        left = onset(torch.from_numpy(record["accuracy"][1]), which="last")
        return {**record.variables, "shown": (("delay",), self.shown(left))}, record.coordinates

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the first to leave chance."""
        # argmin takes NaN before any number: here that is a network that never leaves chance
        return left_chance.nan_to_num(nan=torch.inf).argmin(-1)

    def claims(self, record: Record) -> Checks:
        """Subordinate values jump at each episode, and exceed those without flossing before chance ends."""
        (none, flossed), at = np.maximum(record["singular_values"], TINY), record["measured_at"]
        # the first measurement after an episode, and the last before it
        place = np.searchsorted(at, self.episodes)
        jumps = np.median(flossed[..., place, :] / flossed[..., place - 1, :], (0, 1, 2))
        left = onset(torch.from_numpy(record["accuracy"][1]), which="last").numpy()
        rose = "share that exceeds tenfold that of no flossing before learning"
        for rank in self.ranks:
            sentence = f"singular value {rank}: median jump at an episode"
            yield at_least(f"jump {rank}", sentence, 1.5, jumps[rank - 1], source=self.source)
        for rank in self.ranks:
            risen = share_before((flossed >= ROSE * none)[..., rank - 1], at, left)
            sentence = f"singular value {rank}: {rose}"
            yield at_least(f"rose before {rank}", sentence, 0.5, risen, source=self.source)


@figure(
    "fig11",
    "as figure 10, for the network whose accuracy leaves chance last",
    cost=("10 s", "2 min", LONG),
    measured_by="fig10",
)
class Fig11(Fig10):
    """The same run as figure 10; the network is drawn that leaves chance last."""

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the last to leave chance, of those that do."""
        return left_chance.nan_to_num(nan=-torch.inf).argmax(-1)


@figure(
    "appD-clv",
    "overlap of dL/dh with the first covariant vector over epochs, flossed or not",
    cost=("10 s", "80 s", LONG),
    small={"delays": (20,)},
    draw=overlaps,
)
class CovariantOverlap(Episodes):
    """Overlap of dL/dh with the first covariant Lyapunov vector over epochs.

    The gradient is that after a third of a trial, where the vector is known.

    Attributes:
        around: epochs before and after accuracy leaves chance that are compared.
    """

    around: int = 200

    measured: ClassVar[tuple[str, str]] = ("covariant_overlap", "overlap")

    def claims(self, record: Record) -> Checks:
        """The overlap rises around the epoch at which accuracy leaves chance for good."""
        at, source = record["measured_at"], "Gradient Flossing, appendix D"
        for i, condition in enumerate(record["condition"]):
            left = onset(torch.from_numpy(record["accuracy"][i]), which="last").numpy().reshape(-1)
            changes = []
            for row, epoch in zip(record["overlap"][i].reshape(-1, len(at)), left, strict=True):
                # nothing is before or after NaN, the epoch of a network that never learns
                before = row[(at < epoch) & (at >= epoch - self.around)]
                after = row[(at >= epoch) & (at <= epoch + self.around)]
                if len(before) and len(after):
                    changes.append(after.mean() / before.mean())
            change = float(np.median(changes)) if changes else float("nan")
            sentence = f"{condition}: overlap after leaving chance over before, median"
            yield at_least(f"{condition} rise", sentence, 1.0, change, source=source)


@figure(
    "fig12",
    "flossing every 100 epochs to the end: accuracy, error, |dL/dh0| (a-c)",
    cost=("10 s", "1 min", LONG),
    smoke={"period": 4},
    small={"delays": (30,), "seeds": 2, "epochs": 1200, "floss_epochs": 200},
    draw=by_schedule,
)
class Fig12(Episodes):
    """Accuracy, error and gradient norm: no flossing, early episodes, and episodes to the end.

    Attributes:
        period: task epochs between episodes of the networks that are flossed to the end.
    """

    period: int = 100

    curves: ClassVar[tuple[str, ...]] = ("accuracy", "loss")

    def conditions(self) -> tuple[Condition, ...]:
        """None, early, and to the end."""
        throughout = tuple(range(self.period, self.epochs, self.period))
        return (
            Condition("none"),
            Condition("early", before=True, episodes=self.episodes),
            Condition("throughout", before=True, episodes=throughout),
        )

    def claims(self, record: Record) -> Checks:
        """Accuracy drops at late episodes, and ends lower than with early episodes alone."""
        early, throughout = record["accuracy"][1:].reshape(2, -1, self.epochs)
        late = [e for e in range(self.period, self.epochs, self.period) if e > max(self.episodes)]
        # accuracy is back within a period, so that only the first epochs after an episode show the drop
        few = max(1, self.period // 10)
        before = np.stack([throughout[:, e - few : e].mean(-1) for e in late])
        after = np.stack([throughout[:, e : e + few].mean(-1) for e in late])
        # at chance there is nothing to drop
        above = before > 0.6
        drops = share((before - after)[above] > 0.05)
        lead = float(early[:, -few:].mean() - throughout[:, -few:].mean())
        number = "networks and late episodes before which accuracy is above 0.6"
        lower = "of these, share after which accuracy is lower by 0.05"
        end = "accuracy at the end, early episodes alone above episodes to the end by"
        yield at_least("above", number, 1.0, float(above.sum()), source=self.source)
        yield at_least("drops", lower, 0.8, drops, source=self.source)
        yield at_least("end", end, 0.02, lead, source=self.source)
