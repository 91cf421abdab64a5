"""Directions of the gradient over training, flossed or not: figures 10 and 11."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import effective_rank, onset
from lyaptorch.experiments.check import Checks, at_least, at_most, typical, where
from lyaptorch.experiments.gradient_flossing.comparisons import (
    DOUBLED,
    leaves_chance,
    rise,
)
from lyaptorch.experiments.gradient_flossing.episodes import (
    ROSE,
    Episodes,
    jumps,
    lettered,
    mark_episodes,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import (
    SMOOTH,
    SMOOTHED,
    figure,
)
from lyaptorch.plots.primitives import (
    BESIDE,
    BLUE,
    ORANGE,
    PALETTE,
    TINY,
    Rows,
    footnote,
    label_accuracy,
    smooth,
)
from lyaptorch.record import Record


def shown(record: Record, latest: bool) -> Rows:
    """Which seed is drawn for each delay: the flossed network that leaves chance first, or last."""
    left = leaves_chance(record["accuracy"][1], tuple(record.config["episodes"]))
    # a network that never leaves chance is the last of the first, and the first of the last
    if latest:
        return np.asarray(np.where(np.isfinite(left), left, -np.inf).argmax(-1))
    return np.asarray(np.where(np.isfinite(left), left, np.inf).argmin(-1))


@of_each_delay(2)
def singular_values(record: Record, delay: int, axes: list[Axes]) -> None:
    """Singular values of dL/dW of one network, solid flossed and dashed not, and its accuracy."""
    values, accuracy = axes
    latest = record.kind.endswith("fig11")
    seed, at = int(shown(record, latest)[delay]), record["measured_at"]
    for i, rank in enumerate((1, *record.config["ranks"])):
        for condition, line in ((1, "-"), (0, "--")):
            # a value of 0 stands at the bottom of a logarithmic axis
            rows = np.maximum(record["singular_values"][condition, delay, seed, :, rank - 1], TINY)
            label = rf"$\sigma_{{{rank}}}$" if condition else None
            values.semilogy(at, rows, line, color=PALETTE[i % len(PALETTE)], linewidth=1.1, label=label)
    values.set(xlabel="epoch", ylabel="singular values of $dL/dW$", title=f"delay {record['delay'][delay]}")
    for condition, line, color in ((1, "-", ORANGE), (0, "--", BLUE)):
        row = smooth(record["accuracy"][condition, delay, seed], SMOOTH)
        accuracy.plot(row, line, color=color, linewidth=1.2)
    label_accuracy(accuracy, "epoch", f"network {seed}")
    mark_episodes(record, axes)
    lettered(delay, axes)
    if delay == 0:
        values.legend(**BESIDE)
        which = "last" if latest else "first"
        said = f"the one of {record.config['seeds']} networks that leaves chance {which}"
        footnote(values, said, "solid: flossed; dashed: its twin, not flossed", SMOOTHED)


@figure(
    "fig10",
    "singular values of dL/dW over epochs, with and without flossing, and accuracy",
    cost=("10 s", "2 min"),
    smoke={"ranks": (2, 4)},
    draw=singular_values,
)
class Fig10(Episodes):
    """Singular values of dL/dW over epochs, with and without flossing; one network is drawn.

    Attributes:
        ranks: indices of the subordinate singular values that are checked and drawn, from 1.
        rising: epochs over which they are compared before accuracy leaves chance; ours.
    """

    ranks: tuple[int, ...] = (2, 5, 10, 20)
    rising: int = 100

    measured: ClassVar[tuple[str, str]] = ("singular_values", "singular_values")
    axes: ClassVar[tuple[str, ...]] = ("index",)

    def claims(self, record: Record) -> Checks:
        """Subordinate values peak at each episode, the first one less, and are small without flossing."""
        (none, flossed), at = np.maximum(record["singular_values"], TINY), record["measured_at"]
        source, ranks = self.source, np.array(self.ranks) - 1
        # the null: what the twin does over the same epochs, without an episode
        peaks, still = (jumps(values, at, self.episodes, axis=2) for values in (flossed, none))
        peak = np.median(peaks / still, (0, 1, 2))
        for rank in self.ranks:
            sentence = f"singular value {rank}: median jump at an episode, over that of the twin"
            yield at_least(f"jump {rank}", sentence, 1.5, peak[rank - 1], source=source)
        subordinate = np.exp(np.log(peak[ranks]).mean())
        sentence = "singular value 1: its jump over that of the others (geometric mean) is slight"
        yield at_most("jump 1", sentence, 0.5, peak[0] / subordinate, source=source)
        yield from self._ranks(none, flossed, at)
        # of networks that never learn without flossing, from the first later episode on
        never = ~np.isfinite(onset(torch.from_numpy(record["accuracy"][0]), which="last").numpy())
        late = [values[never][:, at >= min(self.episodes)] for values in (none, flossed)]
        below = [typical(late[0][..., i] / late[1][..., i]) for i in (0, *ranks)]
        for rank, ratio in zip(self.ranks, below[1:], strict=True):
            sentence = f"singular value {rank}, not flossed and never learning: over that of the twin"
            yield at_most(f"small {rank}", sentence, 1 / ROSE, ratio, source=source)
        sentence = "singular value 1: decades between the same two"
        yield at_most("leading alike", sentence, DOUBLED, abs(math.log10(below[0])), source=source)
        yield from self._before(record, np.ones(flossed.shape[:2], dtype=bool))

    def _ranks(self, none: Rows, flossed: Rows, at: Rows) -> Checks:
        """The effective rank is larger with flossing, and rises at an episode."""
        twin, own = map(_effective, (none, flossed))
        rises = [jumps(rank, at, self.episodes) for rank in (own, twin)]
        sentence = "effective rank of dL/dW: median jump at an episode, over that of the twin"
        jump = where(np.isfinite(flossed).all(), np.median(rises[0] / rises[1]))
        yield at_least("rank jump", sentence, 1.1, jump, source=self.source)
        late = at >= min(self.episodes)
        sentence = "effective rank of dL/dW from the first later episode on, over that of the twin, median"
        ratio = np.median(own[..., late] / twin[..., late])
        yield at_least("rank", sentence, 1.1, ratio, source=self.source)

    def _before(self, record: Record, chosen: Rows) -> Checks:
        """Subordinate values of networks `(delay, seed)` grow before accuracy leaves chance."""
        at, (none, flossed) = record["measured_at"], record["singular_values"]
        left = np.where(chosen, leaves_chance(record["accuracy"][1], self.episodes), np.nan)
        for rank in self.ranks:
            rises = [
                rise(values[..., rank - 1], at, left, self.episodes, self.rising)
                for values in (flossed, none)
            ]
            sentence = (
                f"singular value {rank}: decades by which it grows in up to {self.rising} epochs before "
                "learning, above those of the twin, median"
            )
            grown = typical(rises[0] - rises[1])
            yield at_least(f"rises before {rank}", sentence, DOUBLED, grown, source=self.source)


@figure(
    "fig11",
    "as figure 10, for the network whose accuracy leaves chance last",
    cost=("10 s", "2 min"),
    measured_by="fig10",
)
class Fig11(Fig10):
    """The same run as figure 10; the network is drawn and checked that leaves chance last."""

    def claims(self, record: Record) -> Checks:
        """It does so after the last episode, later than the first one, and its subordinate values grow."""
        left, source = leaves_chance(record["accuracy"][1], self.episodes), self.source
        known = left[np.isfinite(left)]
        latest = known.max(initial=-np.inf)
        sentence = "epoch at which the last network leaves chance, after the last episode"
        yield at_least("late", sentence, max(self.episodes), where(known.size, latest), source=source)
        later = where(known.size > 1, latest - known.min(initial=np.inf))
        sentence = "that, after the first network, epochs"
        yield at_least("later", sentence, float(self.every), later, source=source)
        yield from self._before(record, left == latest)


def _effective(values: Rows) -> Rows:
    """Effective ranks; NaN of singular values that are not known."""
    known = np.isfinite(values).all(-1)
    ranks = np.full(known.shape, np.nan)
    ranks[known] = effective_rank(torch.from_numpy(values[known])).numpy()
    return ranks
