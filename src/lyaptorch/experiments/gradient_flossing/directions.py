"""Directions of the gradient over training, flossed or not: figures 10 and 11."""

from __future__ import annotations

import math
import warnings
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import effective_rank, onset
from lyaptorch.experiments.check import (
    OURS,
    Checks,
    as_sure,
    at_least,
    at_most,
    claimed,
    sure,
    where,
)
from lyaptorch.experiments.gradient_flossing.comparisons import (
    CHANCE,
    DOUBLED,
    leaves_chance,
    mean_of,
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
    figure,
    smoothed,
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
        footnote(values, said, "solid: flossed; dashed: its twin, not flossed", smoothed(record))


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
        # of each network `(delay, seed, index)`, over its episodes
        logs = np.median(np.log(peaks / still), 2)
        peak = np.exp(np.median(logs, (0, 1)))
        for rank in self.ranks:
            sentence = f"sigma_{rank} of dL/dW: jump factor at an episode, flossed / not flossed (median)"
            said = claimed(source, "jumps")
            yield at_least(f"jump {rank}", sentence, 1.5, peak[rank - 1], **said)
        slight = (logs[..., 0] - logs[..., ranks].mean(-1)).ravel()
        others = f"sigma_{', '.join(map(str, self.ranks))}"
        sentence = f"sigma_1 of dL/dW: this jump factor / that of {others} (geometric means)"
        yield at_most("jump 1", sentence, 0.5, ratio_of(slight, 0.5), source=source)
        yield from self._ranks(record, none, flossed)
        # of networks that never learn without flossing, from the first later episode on
        never = ~np.isfinite(onset(torch.from_numpy(record["accuracy"][0]), which="last").numpy())
        late = [values[never][:, at >= min(self.episodes)] for values in (none, flossed)]
        below = np.median(np.log(late[0] / late[1]), 1)
        for rank in self.ranks:
            sentence = (
                f"sigma_{rank} of dL/dW from epoch {min(self.episodes)} on, not flossed / flossed, networks "
                "that never learn without flossing (geometric mean)"
            )
            small = ratio_of(below[:, rank - 1], 1 / ROSE)
            yield at_most(f"small {rank}", sentence, 1 / ROSE, small, source=source, part_of="small")
        nearer = np.abs(below[:, 0]) - np.abs(below[:, ranks]).min(-1, initial=np.inf)
        sentence = (
            "sigma_1 of dL/dW: factor between not flossed and flossed (>= 1) / the smallest such factor of "
            f"{others} (same networks; geometric mean)"
        )
        yield at_most("leading alike", sentence, 1.0, ratio_of(nearer, 1.0), source=source)
        yield from self._before(record)

    def _ranks(self, record: Record, none: Rows, flossed: Rows) -> Checks:
        """The effective rank is larger with flossing; what is learned raises it, too, and is not counted."""
        at, own, twin = record["measured_at"], *map(_effective, (flossed, none))
        left = onset(torch.from_numpy(record["accuracy"][1]), CHANCE).numpy()[..., None]
        waits = (at >= min(self.episodes)) & ~(at >= left)
        with warnings.catch_warnings():
            # of a network that learns before there is nothing
            warnings.simplefilter("ignore", RuntimeWarning)
            ratios = np.nanmedian(np.where(waits, own / twin, np.nan), -1).ravel()
        sentence = (
            f"effective rank of dL/dW, flossed / not flossed, from epoch {min(self.episodes)} until learning "
            "(mean over networks)"
        )
        larger = mean_of(ratios, 1.0)
        yield at_least("rank", sentence, 1.0, larger, source=self.source)

    def _before(self, record: Record) -> Checks:
        """Subordinate values grow before accuracy leaves chance."""
        at, (none, flossed) = record["measured_at"], record["singular_values"]
        left = leaves_chance(record["accuracy"][1], self.episodes)
        for rank in self.ranks:
            rises = [
                rise(values[..., rank - 1], at, left, self.episodes, self.rising)
                for values in (flossed, none)
            ]
            sentence = (
                f"sigma_{rank} of dL/dW: increase of log10 in the last (at most) {self.rising} epochs at "
                "chance, flossed − not flossed (same epochs; mean)"
            )
            grown, said = mean_of(rises[0] - rises[1], DOUBLED), claimed(self.source, "rises")
            yield at_least(f"rises before {rank}", sentence, DOUBLED, grown, **said)


@figure(
    "fig11",
    "as figure 10, for the network whose accuracy leaves chance last",
    cost=("10 s", "2 min"),
    measured_by="fig10",
)
class Fig11(Fig10):
    """The same run as figure 10; the network is drawn and checked that leaves chance last."""

    def claims(self, record: Record) -> Checks:
        """It does so after the last episode, and later than the first one."""
        left = leaves_chance(record["accuracy"][1], self.episodes)
        known = left[np.isfinite(left)]
        latest = known.max(initial=-np.inf)
        said = {**OURS, "because": "It is how the network is chosen; what is claimed of it is in figure 10."}
        sentence = "flossed: epoch at which the last network leaves chance (bound: last episode)"
        yield at_least("late", sentence, max(self.episodes), where(known.size, latest), **said)
        later = where(known.size > 1, latest - known.min(initial=np.inf))
        sentence = (
            "flossed: epochs between the first and the last network leaving chance "
            "(without those an episode threw back)"
        )
        yield at_least("later", sentence, float(self.every), later, **said)


def ratio_of(logs: Rows, bound: float) -> float:
    """The geometric mean of ratios, by their logarithms; within chance where it may be the bound."""
    mean = sure(logs, math.log(bound))
    return as_sure(mean, math.exp(mean))


def _effective(values: Rows) -> Rows:
    """Effective ranks; NaN of singular values that are not known."""
    known = np.isfinite(values).all(-1)
    ranks = np.full(known.shape, np.nan)
    ranks[known] = effective_rank(torch.from_numpy(values[known])).numpy()
    return ranks
