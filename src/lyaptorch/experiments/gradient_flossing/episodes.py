"""Gradients over training with flossing episodes at 0, 100, 200, 300 and 400: figures 8 and 9."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.analysis import aligned, onset
from lyaptorch.experiments.check import Checks, at_least
from lyaptorch.experiments.figure import Along, Results, Scales, Study, coordinates, over_epochs
from lyaptorch.experiments.gradient_flossing.setting import CUT, DIMS, SMOKE, Condition, Setting, figure
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    ORANGE,
    TINY,
    Picture,
    Rows,
    bundle,
    finite_mean,
    geometric_mean,
    label_accuracy,
    picture,
    smooth,
)
from lyaptorch.record import Given, Record
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.metrics import initial_gradient_norm

DrawDelay: TypeAlias = Callable[[Record, int, list[Axes]], None]
LONG = "hours; minutes on a GPU"
"""The cost at paper scale."""
ROSE = 10.0
"""How many times a gradient must exceed that of the network without flossing to count as risen."""


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
        "small": {"delays": (20, 40), "seeds": 3, "epochs": 1500, "floss_clip": 1.0},
    }

    def conditions(self) -> tuple[Condition, ...]:
        """Networks without flossing, and their twins with it."""
        return Condition("none"), Condition("flossed", before=True, episodes=self.episodes)

    def run(self, study: Study) -> Results:
        """Curves `(condition, delay, seed, epoch)`, what is measured `(..., measurement, *axes)`, and when.

        Of one condition alone there is no dimension for it.
        """
        (metric, name), (model, task, ids) = self.measured, self.networks(self.conditions())
        treatment = {"metrics": (metric,), "metrics_every": self.every, **self.treatment()}
        record = study.train(model, task, member_ids=ids, **treatment)
        left_out = 1 if len(ids) == 1 else 0
        shape, dims = ids.shape[left_out:], DIMS[left_out:]
        values = record[metric]
        values = values.reshape(*shape, *values.shape[1:])
        variables: dict[str, Given] = {
            **over_epochs(record, self.curves, shape, dims),
            name: ((*dims, "measurement", *self.axes), values),
            # every network is measured at the same epochs
            "measured_at": (("measurement",), record["measured_at"][0].astype(np.int64)),
        }
        return (variables, coordinates(delay=self.delays)) if left_out else self.compared(variables)


def of_each_delay(count: int) -> Callable[[DrawDelay], Picture]:
    """Turn a function that draws one delay, of which it is given the index, into one that draws all.

    Args:
        count: panels of a delay.
    """

    def decorate(draw: DrawDelay) -> Picture:
        @picture(lambda record: count * len(record["delay"]), width=3.2)
        @functools.wraps(draw)
        def drawn(record: Record, axes: list[Axes]) -> None:
            for delay in range(len(record["delay"])):
                draw(record, delay, axes[count * delay : count * (delay + 1)])

        return drawn

    return decorate


def draw_norms(panel: Axes, rows: Rows, color: str, at: Rows, **look: Any) -> None:
    """|dL/dh0| of each network on a logarithmic axis, and the geometric mean."""
    # norms spread over decades, where a plain mean is that of the largest
    bundle(panel, np.maximum(rows, TINY), color, x=at, thick=geometric_mean, **look)
    panel.set(ylabel=r"$|dL/dh_0|$", yscale="log")


def mark_episodes(record: Record, axes: list[Axes]) -> None:
    """A dotted line at each."""
    for panel in axes:
        for epoch in (0, *record.config["episodes"]):
            panel.axvline(epoch, color=GREY, linestyle=":", linewidth=0.7)


@of_each_delay(2)
def norms_and_accuracy(record: Record, delay: int, axes: list[Axes]) -> None:
    """|dL/dh0| and accuracy over epochs; episodes as dotted lines."""
    (norms, accuracy), title = axes, f"delay {record['delay'][delay]}"
    draw_norms(norms, record["gradient_norm"][delay], BLUE, record["measured_at"], alpha=0.4, thin=0.8)
    bundle(accuracy, smooth(record["accuracy"][delay], 20), ORANGE, alpha=0.4, thin=0.8)
    mark_episodes(record, axes)
    norms.set(xlabel="epoch", title=title)
    label_accuracy(accuracy, "epoch", title)


@of_each_delay(2)
def around_ends(record: Record, delay: int, axes: list[Axes]) -> None:
    """|dL/dh0| around the last epoch at chance, accuracy around the last epoch of a small gradient."""
    norms, accuracy = axes
    draw_norms(norms, record["aligned_norm"][delay], BLUE, record["place"], alpha=0.4, thin=0.8)
    norms.axhline(record.config["norm_level"], color=GREY, linewidth=0.7)
    norms.set(xlabel="epochs after the last at chance", title=f"delay {record['delay'][delay]}")
    curves = smooth(record["aligned_accuracy"][delay], 20)
    bundle(accuracy, curves, ORANGE, x=record["offset"], thick=finite_mean, alpha=0.4, thin=0.8)
    label_accuracy(accuracy, "epochs after the last small gradient")
    for panel in axes:
        panel.axvline(0, color=GREY, linestyle=":", linewidth=0.8)


@figure(
    "fig8",
    "|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, ..., 400",
    cost=("10 s", "80 s", LONG),
    draw=norms_and_accuracy,
)
class Fig8(Episodes):
    """|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, 200, 300, 400."""

    def conditions(self) -> tuple[Condition, ...]:
        """Flossed networks alone."""
        return super().conditions()[1:]

    def run(self, study: Study) -> Results:
        """`accuracy (delay, seed, epoch)`, `gradient_norm (delay, seed, measurement)`, `unflossed_norm`."""
        variables, along = super().run(study)
        # the same networks again, as they were drawn
        model, task, ids = self.networks(self.conditions())
        first = task.draw(Draw(self.seed, self.length, self.batch, member_ids=ids))
        norm = initial_gradient_norm(model, first).reshape(ids.shape[1:])
        return {**variables, "unflossed_norm": (DIMS[1:], norm)}, along

    def claims(self, record: Record) -> Checks:
        """In most networks that learn, the gradient has risen tenfold before accuracy leaves chance."""
        left = onset(torch.from_numpy(record["accuracy"])).numpy()
        risen = record["gradient_norm"] >= ROSE * record["unflossed_norm"][..., None]
        before = share_before(risen, record["measured_at"], left)
        leave, rose = "share of networks that leave chance", "of these, share in which |dL/dh0| rose tenfold"
        yield at_least("learned", leave, 0.5, share(np.isfinite(left)), source=self.source)
        yield at_least("rose before", f"{rose} before", 0.5, before, source=self.source)


def share(yes: Rows) -> float:
    """Of how many it is so; NaN of none, which leaves a check undecided."""
    return float(yes.mean()) if yes.size else float("nan")


def share_before(risen: NDArray[np.bool_], at: Rows, left: Rows) -> float:
    """Of the networks that leave chance, at `left (*e)`, how many had `risen (*e, measurement)` before."""
    # `left` is NaN where a network never learns, and no epoch is before that
    before = risen & (at <= left[..., None])
    return share(np.any(before[np.isfinite(left)], -1))


# a smoke test teaches nothing: with a level below chance it has ends to align to all the same
@figure(
    "fig9",
    "|dL/dh0| and accuracy aligned to the last epoch at chance, and of small gradients",
    cost=("10 s", "80 s", LONG),
    smoke={"window": 8, "accuracy_level": 0.3},
    small={"window": 500},
    draw=around_ends,
    measured_by="fig8",
)
class Fig9(Fig8):
    """The networks of figure 8, each aligned to its own last epoch at chance, and of small gradients.

    Attributes:
        window: epochs shown before and after.
        accuracy_level: beyond which accuracy is not that of chance.
        norm_level: |dL/dh0| beyond which a gradient is not small; ours, because the paper's is lost.
    """

    window: int = 1000
    accuracy_level: float = 0.6
    norm_level: float = 1e-4

    def complete(self, record: Record) -> Results:
        """That of figure 8, `chance_ends`, `small_ends (delay, seed)` and the aligned curves."""
        dims = DIMS[1:]
        accuracy, norms, at = (
            torch.from_numpy(record[name]) for name in ("accuracy", "gradient_norm", "measured_at")
        )
        # in parts that are kept fewer measurements stand than were made
        every = int(at[1] - at[0])
        places = self.window // every
        chance = onset(accuracy, self.accuracy_level, which="last")
        # after learning the loss, and every gradient with it, goes to zero: that counts for nothing
        while_at_chance = torch.where(at > chance.unsqueeze(-1), torch.inf, norms)
        # norms have a value in `every` epochs, so a place among them times `every` is an epoch
        small = every * onset(while_at_chance, self.norm_level, width=1, which="last")
        aligned_norm = aligned(norms, (chance / every).round(), places, places)
        ends: dict[str, Given] = {
            "chance_ends": (dims, chance),
            "small_ends": (dims, small),
            "aligned_norm": ((*dims, "place"), aligned_norm),
            "aligned_accuracy": ((*dims, "offset"), aligned(accuracy, small, self.window, self.window)),
        }
        around = coordinates(
            offset=range(-self.window, self.window + 1),
            place=[every * i for i in range(-places, places + 1)],
        )
        return {**record.variables, **ends}, {**record.coordinates, **around}

    def claims(self, record: Record) -> Checks:
        """Gradients are not small any more before accuracy leaves chance for good."""
        learned = np.isfinite(record["chance_ends"])
        chance, small = record["chance_ends"][learned], record["small_ends"][learned]
        lead = chance - small
        # NaN where a gradient never was small
        lead = float(np.nanmedian(lead)) if np.isfinite(lead).any() else float("nan")
        leave, grew = "share of networks that leave chance for good", "of these, share whose gradient grew"
        ahead, source = "median lead of the gradient, epochs", self.source
        yield at_least("learned", leave, 0.5, float(learned.mean()), source=source)
        yield at_least("grew before", f"{grew} before", 0.5, share(small < chance), source=source)
        yield at_least("lead", ahead, float(self.every), lead, source=source)
