"""Gradients over training with flossing episodes at 0, 100, 200, 300 and 400: figures 8 and 9."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.analysis import aligned, onset
from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, Study, declare
from lyaptorch.experiments.gradient_flossing.setting import PAPER, SMOKE, Condition, Setting
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
from lyaptorch.training.metrics import initial_gradient_norm

DrawDelay: TypeAlias = Callable[[Record, int, list[Axes]], None]
QUICK: dict[str, Any] = {**SMOKE, "delays": (4,), "floss_epochs": 3, "episodes": (5, 10), "every": 2}
"""What is small at smoke scale."""
FEWER: dict[str, Any] = {"delays": (20, 40), "seeds": 3, "epochs": 1500, "floss_clip": 1.0}
"""What is small at small scale."""
LONG = "hours; minutes on a GPU"
"""The cost at paper scale."""
ROSE = 10.0
"""How many times a gradient must exceed that of the network without flossing to count as risen."""


@dataclass(frozen=True)
class Episodes(Setting):
    """Networks that are flossed before training and in several episodes early in it.

    Attributes:
        episodes: task epochs of the episodes after the first.
        every: task epochs between measurements of the gradient.
    """

    episodes: tuple[int, ...] = (100, 200, 300, 400)
    every: int = 10

    def conditions(self) -> tuple[Condition, ...]:
        """Networks without flossing, and their twins with it."""
        return Condition("none"), Condition("flossed", before=True, episodes=self.episodes)

    def trained(
        self,
        study: Study,
        conditions: Sequence[Condition],
        metric: str,
        name: str,
        *,
        curves: Sequence[str] = ("accuracy",),
        axes: Sequence[str] = (),
    ) -> tuple[dict[str, Given], Tensor]:
        """Train networks under each of `conditions`; of one alone there is no dimension for it.

        Returns:
            `curves (condition, delay, seed, epoch)`, the metric as `name (..., measurement, *axes)` and
            `measured_at`; and |dL/dh0| before training.
        """
        model, task, ids = self.networks(conditions)
        first = task.draw(self.seed, member_ids=ids, epoch=0, batch=self.batch, length=self.length)
        before = initial_gradient_norm(model, first)
        record = self.train(study, model, task, conditions, ids, (metric,), self.every)
        left_out = 1 if len(conditions) == 1 else 0
        shape, dims = tuple(ids.shape)[left_out:], ("condition", "delay", "seed")[left_out:]
        measured = record[metric]
        variables: dict[str, Given] = {
            curve: ((*dims, "epoch"), record[curve].reshape(*shape, -1)) for curve in curves
        }
        variables[name] = ((*dims, "measurement", *axes), measured.reshape(*shape, *measured.shape[1:]))
        variables["measured_at"] = (("measurement",), record["measured_at"][0].astype(np.int64))
        return variables, before.reshape(shape)

    def compared(self, conditions: Sequence[Condition], variables: dict[str, Given]) -> Results:
        """What `run` returns of these conditions."""
        names = np.array([condition.name for condition in conditions])
        return self.found(variables, condition=(("condition",), names))


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
    bundle(panel, np.maximum(rows, TINY), color, x=at, thick=geometric_mean, **look)
    panel.set(ylabel=r"$|dL/dh_0|$", yscale="log")


def mark_episodes(record: Record, axes: list[Axes]) -> None:
    """A dotted line at each."""
    for panel in axes:
        for epoch in (0, *record.config["episodes"]):
            panel.axvline(epoch, color=GREY, linestyle=":", linewidth=0.7)


@of_each_delay(2)
def over_epochs(record: Record, delay: int, axes: list[Axes]) -> None:
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


@declare(
    PAPER,
    "fig8",
    "|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, ..., 400",
    cost=("10 s", "80 s", LONG),
    smoke=QUICK,
    small=FEWER,
    draw=over_epochs,
)
@dataclass(frozen=True)
class Fig8(Episodes):
    """|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, 200, 300, 400."""

    def run(self, study: Study) -> Results:
        """`accuracy (delay, seed, epoch)`, `gradient_norm (delay, seed, measurement)`, `unflossed_norm`."""
        flossed = self.conditions()[1:]
        variables, before = self.trained(study, flossed, "initial_gradient_norm", "gradient_norm")
        return self.found({**variables, "unflossed_norm": (("delay", "seed"), before)})

    def checks(self, record: Record) -> list[Check]:
        """In most networks that learn, the gradient has risen tenfold before accuracy leaves chance."""
        earlier, learned = 0, 0
        for accuracy, norm, unflossed in zip(
            record["accuracy"].reshape(-1, self.epochs),
            record["gradient_norm"].reshape(-1, len(record["measured_at"])),
            record["unflossed_norm"].reshape(-1),
            strict=True,
        ):
            left_chance = onset(torch.from_numpy(accuracy)).item()
            if not math.isnan(left_chance):
                learned += 1
                earlier += bool(norm[record["measured_at"] <= left_chance].max() >= ROSE * unflossed)
        share = earlier / learned if learned else float("nan")
        leave = learned / record["unflossed_norm"].size
        rose = "of these, share in which |dL/dh0| rose tenfold before"
        return [
            at_least("learned", "share of networks that leave chance", 0.5, leave, source=self.source),
            at_least("rose before", rose, 0.5, share, source=self.source),
        ]


@declare(
    PAPER,
    "fig9",
    "|dL/dh0| and accuracy aligned to the last epoch at chance, and of small gradients",
    cost=("10 s", "80 s", LONG),
    smoke={**QUICK, "window": 8, "accuracy_level": 0.3},
    small={**FEWER, "window": 500},
    draw=around_ends,
)
@dataclass(frozen=True)
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

    def run(self, study: Study) -> Results:
        """That of figure 8, `chance_ends`, `small_ends (delay, seed)` and the aligned curves."""
        variables, _ = super().run(study)
        dims, places = ("delay", "seed"), self.window // self.every
        accuracy, norms, at = (
            torch.as_tensor(variables[name][1]) for name in ("accuracy", "gradient_norm", "measured_at")
        )
        chance = onset(accuracy, self.accuracy_level, which="last")
        # after learning the loss, and every gradient with it, goes to zero: that counts for nothing
        while_at_chance = torch.where(at > chance.unsqueeze(-1), torch.inf, norms)
        small = self.every * onset(while_at_chance, self.norm_level, width=1, which="last")
        aligned_norm = aligned(norms, (chance / self.every).round(), places, places)
        variables = {
            **variables,
            "chance_ends": (dims, chance),
            "small_ends": (dims, small),
            "aligned_norm": ((*dims, "place"), aligned_norm),
            "aligned_accuracy": ((*dims, "offset"), aligned(accuracy, small, self.window, self.window)),
        }
        return self.found(
            variables,
            offset=(("offset",), np.arange(-self.window, self.window + 1)),
            place=(("place",), self.every * np.arange(-places, places + 1)),
        )

    def checks(self, record: Record) -> list[Check]:
        """Gradients are not small any more before accuracy leaves chance for good."""
        learned = np.isfinite(record["chance_ends"])
        earlier = record["small_ends"][learned] < record["chance_ends"][learned]
        share = float(earlier.mean()) if learned.any() else float("nan")
        lead = (record["chance_ends"] - record["small_ends"])[learned]
        lead = float(np.nanmedian(lead)) if np.isfinite(lead).any() else float("nan")
        leave = "share of networks that leave chance for good"
        return [
            at_least("learned", leave, 0.5, float(learned.mean()), source=self.source),
            at_least(
                "grew before", "of these, share whose gradient grew before", 0.5, share, source=self.source
            ),
            at_least(
                "lead", "median lead of the gradient, epochs", float(self.every), lead, source=self.source
            ),
        ]
