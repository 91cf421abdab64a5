"""Gradients over training with flossing episodes at 0, 100, 200, 300 and 400, and without: figure 8."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import Checks, at_least, at_most, typical, where
from lyaptorch.experiments.figure import Along, Results, Scales, Study, over_epochs
from lyaptorch.experiments.gradient_flossing.setting import (
    CUT,
    DIMS,
    SMOKE,
    SMOOTH,
    Condition,
    Setting,
    bundles,
    figure,
    number,
    smoothed,
)
from lyaptorch.plots.primitives import (
    GREY,
    PALETTE,
    TINY,
    Picture,
    Rows,
    bundle,
    footnote,
    geometric_mean,
    label_accuracy,
    letter,
    picture,
    quartiles,
    smooth,
)
from lyaptorch.record import Record

DrawDelay: TypeAlias = Callable[[Record, int, list[Axes]], None]
ROSE = 10.0
"""How many times a gradient must exceed another to count as risen; ours."""
SMALL = 1e-4
"""|dL/dh0| up to which a gradient is small; ours, because the paper's number is lost."""


class Episodes(Setting):
    """Networks that are flossed before training and in several episodes early in it.

    Attributes:
        episodes: task epochs of the episodes after the first.
        every: task epochs between measurements of the gradient.
        measured: a metric of `lt.train`, and what the Record calls it.
        axes: its dimensions, of one network at one time.
        curves: what the Record has of every epoch.
    """

    episodes: tuple[int, ...] = (100, 200, 300, 400)
    every: int = 10

    measured: ClassVar[tuple[str, str]] = ("initial_gradient_norm", "gradient_norm")
    axes: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[tuple[str, ...]] = ("accuracy",)
    cut: ClassVar[tuple[Along, ...]] = CUT

    scales: ClassVar[Scales] = {
        "smoke": {**SMOKE, "delays": (4,), "floss_epochs": 3, "episodes": (5, 10), "every": 2},
        # without flossing networks learn the shorter delay, too; the longer one is learned after the episodes
        "small": {"delays": (20, 60), "seeds": 3, "epochs": 1500, "floss_clip": 1.0},
    }

    def conditions(self) -> tuple[Condition, ...]:
        """Networks without flossing, and their twins with it."""
        return Condition("none"), Condition("flossed", before=True, episodes=self.episodes)

    operations = Setting.operations_of_conditions

    def run(self, study: Study) -> Results:
        """Curves `(condition, delay, seed, epoch)`, what is measured `(..., measurement, *axes)`, when."""
        (metric, name), (model, task, ids) = self.measured, self.networks(self.conditions())
        treatment = {"metrics": (metric,), "metrics_every": self.every, **self.treatment()}
        record = study.train(model, task, member_ids=ids, **treatment)
        values = record[metric]
        values = values.reshape(*ids.shape, *values.shape[1:])
        return self.compared(
            {
                **over_epochs(record, self.curves, ids.shape, DIMS),
                name: ((*DIMS, "measurement", *self.axes), values),
                # every network is measured at the same epochs
                "measured_at": (("measurement",), record["measured_at"][0].astype(np.int64)),
            }
        )


def jumps(values: Rows, at: Rows, episodes: tuple[int, ...], axis: int = -1) -> Rows:
    """How many times values, measured at the epochs `at`, are larger after each later episode than before.

    Along `axis`, in the place of measurements; the first at or after the epoch of an episode sees it done.
    """
    place = np.searchsorted(at, episodes)
    after, before = (np.take(np.maximum(values, TINY), places, axis) for places in (place, place - 1))
    return np.asarray(after / before)


def of_each_delay(count: int) -> Callable[[DrawDelay], Picture]:
    """Turn a function that draws one delay, of which it is given the index, into one that draws all.

    Args:
        count: panels of a delay.
    """

    def decorate(draw: DrawDelay) -> Picture:
        @picture(lambda record: count * len(record["delay"]), width=3.2)
        @functools.wraps(draw)
        def drawn(record: Record, axes: list[Axes]) -> None:
            # delays are compared: the same panel of each has the same axis
            for i, panel in enumerate(axes[count:]):
                panel.sharey(axes[i % count])
            for delay in range(len(record["delay"])):
                draw(record, delay, axes[count * delay : count * (delay + 1)])

        return drawn

    return decorate


def draw_norms(panel: Axes, rows: Rows, color: str, at: Rows, **look: Any) -> None:
    """|dL/dh0| of each network on a logarithmic axis, and the geometric mean."""
    # norms spread over decades, where a plain mean is that of the largest
    quartiles(panel, np.maximum(rows, TINY), color, at)
    bundle(panel, np.maximum(rows, TINY), color, x=at, thick=geometric_mean, **look)
    panel.set(ylabel=r"$|dL/dh_0|$", yscale="log")


def mark_episodes(record: Record, axes: list[Axes]) -> None:
    """A dotted line at each."""
    for panel in axes:
        for epoch in (0, *record.config["episodes"]):
            panel.axvline(epoch, color=GREY, linestyle=":", linewidth=0.7)


@of_each_delay(2)
def norms_and_accuracy(record: Record, delay: int, axes: list[Axes]) -> None:
    """|dL/dh0| and accuracy over epochs, flossed and not; episodes as dotted lines."""
    (norms, accuracy), title = axes, f"delay {record['delay'][delay]}"
    names, at, quiet = record["condition"], record["measured_at"], {"alpha": 0.4, "thin": 0.8}
    for rows, name, color in zip(record["gradient_norm"][:, delay], names, PALETTE, strict=False):
        draw_norms(norms, rows, color, at, label=str(name), **quiet)
    bundles(accuracy, smooth(record["accuracy"][:, delay], SMOOTH), names, **quiet)
    mark_episodes(record, axes)
    norms.set(xlabel="epoch", title=title)
    label_accuracy(accuracy, "epoch", title)
    lettered(delay, axes)
    if delay == 0:
        beside(norms)
        said = "thick: geometric means (A), means (B); bands: 25 to 75%; thin: each; dotted: episodes"
        footnote(norms, number(record), said, smoothed(record))


def beside(panel: Axes) -> None:
    """The legend of a panel, at the right of the whole picture: curves run anywhere."""
    figure = panel.get_figure(root=True)
    assert figure is not None
    figure.legend(*panel.get_legend_handles_labels(), title="flossed", loc="outside right upper")


def lettered(delay: int, axes: list[Axes]) -> None:
    """Letters of the first delay's panels: the paper has one delay."""
    for panel, name in zip(axes, "ABC" if delay == 0 else "", strict=False):
        letter(panel, name)


@figure(
    "fig8",
    "|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, ..., 400, and without",
    cost=("10 s", "3 min"),
    draw=norms_and_accuracy,
)
class Fig8(Episodes):
    """|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, 200, 300, 400, and without."""

    def claims(self, record: Record) -> Checks:
        """Each episode makes the gradient spike; without any it stays small, and fewer networks learn."""
        (none, flossed), source = record["gradient_norm"], self.source
        learned = np.isfinite(onset(torch.from_numpy(record["accuracy"]), which="last").numpy())
        # the null: what the gradient does over the same epochs without an episode
        spikes, still = (jumps(rows, record["measured_at"], self.episodes) for rows in (flossed, none))
        spike = "jump factor of |dL/dh0| at a flossing episode, flossed / not flossed (same epochs; median)"
        yield at_least("spike", spike, ROSE, np.median(spikes / still), source=source)
        # of networks that never learn; the first epochs are those of a new readout
        later, since = record["measured_at"] >= min(self.episodes), f"from epoch {min(self.episodes)} on"
        largest = none[..., later].max(-1)[~learned[0]]
        small = f"largest |dL/dh0| {since}, not flossed, networks that never learn"
        yield at_most("small", small, SMALL, typical(largest, np.max), source=source)
        twins = typical(flossed[..., later].min(-1)[~learned[0]] / largest)
        above = (
            f"smallest |dL/dh0| flossed / largest not flossed, {since} "
            "(median over networks that never learn without flossing)"
        )
        yield at_least("above twins", above, ROSE, twins, source=source)
        leave = learned.reshape(2, -1).mean(1)
        more = (
            "share of networks that learn, flossed − not flossed (delays that not all learn without flossing)"
        )
        # both solve what is easy: of a delay at which all learn there is no more
        hard = ~learned[0].all(-1)
        gain = where(hard.any(), typical(learned[1][hard], np.mean) - typical(learned[0][hard], np.mean))
        yield at_least("learned", more, 0.5, where(leave.max() > 0, gain), source=source)
