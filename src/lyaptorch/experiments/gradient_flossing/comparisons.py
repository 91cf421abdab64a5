"""Comparisons with twins: equal networks and batches, of which one is flossed and the other is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lyaptorch.analysis import onset
from lyaptorch.experiments.check import (
    OURS,
    Checks,
    as_sure,
    at_least,
    beyond_error,
    sure,
    where,
)
from lyaptorch.experiments.thinning import resolution
from lyaptorch.plots.primitives import TINY, Rows
from lyaptorch.record import Record

SOLVED = 0.9
"""Accuracy from which on a task counts as solved."""
CHANCE = 0.6
"""Mean accuracy up to which networks count as being at chance."""
MARGIN = 0.02
"""By how much a condition must exceed another."""
POINTS: dict[str, Any] = {
    **OURS,
    "because": "The paper claims a longer reach, checked above; this is our breakdown by delay, undecided "
    "where both conditions solve it.",
}
"""Of checks of single delays."""
WORDS = {
    "none": "not flossed",
    "before": "flossed before training",
    "before and during": "flossed before and during training",
}
"""Conditions, by their names in Records, in sentences."""
DOUBLED = 0.3
"""Decades of a factor of two, from which on something has grown; ours."""


def in_words(condition: str) -> str:
    """A condition in a sentence, after a setting where it has one, as in "k = 75, before and during"."""
    *setting, name = condition.split(", ")
    return ", ".join([*setting, WORDS.get(name, name)])


def able(record: Record) -> NDArray[np.bool_]:
    """Which conditions have a network that was above chance once, at any delay.

    A condition that never learns anything says nothing about what was done to its networks.
    """
    accuracy = torch.from_numpy(record["accuracy"])
    learned = np.isfinite(onset(accuracy, CHANCE).numpy())
    return np.asarray(learned.reshape(len(learned), -1).any(1))


def further(more: str, less: str, delays: Rows, upper: Rows, lower: Rows, source: str) -> Checks:
    """Networks `(delay, network)` of one condition solve longer delays than their twins."""
    longest_of = [longest(delays, rows.T, SOLVED) for rows in (upper, lower)]
    sentence = f"longest delay solved per network, {in_words(more)} − {in_words(less)} (mean)"
    known = np.isfinite(upper).all() and np.isfinite(lower).all()
    gain = where(known, beyond_error(np.subtract(*longest_of)))
    yield at_least(f"{more} further than {less}", sentence, 0.0, gain, source=source)


def longest(delays: NDArray[np.integer], scores: NDArray[np.floating], level: float) -> NDArray[np.floating]:
    """For each row the delay up to which all scores `(row, delay)` reach a level; 0 for none."""
    # one delay that is solved beyond another that is not is luck, and no longer reach
    solved = np.logical_and.accumulate(scores >= level, axis=1)
    found: NDArray[np.floating] = np.where(solved, delays, 0).max(1).astype(float)
    return found


def exceeds(
    more: str,
    less: str,
    delays: NDArray[np.integer],
    upper: NDArray[np.floating],
    lower: NDArray[np.floating],
    both_able: object = True,
) -> Checks:
    """A question for each delay: accuracies `(delay, network)` of one condition above those of its twins.

    It is not decided where both are at chance, or both solve the delay, or one never left chance at any, or
    the error of their mean difference does not tell: a single network must not decide it.
    """
    for delay, high, low in zip(delays.tolist(), upper, lower, strict=True):
        means = high.mean(), low.mean()
        # above 1 - MARGIN there is no room to exceed by MARGIN
        told_apart = both_able and max(means) > CHANCE and min(means) < 1 - MARGIN
        sentence = f"mean accuracy at d = {delay}, {in_words(more)} − {in_words(less)}"
        gain = where(told_apart, beyond_error(high - low, MARGIN))
        yield at_least(f"{more} over {less}, d {delay}", sentence, MARGIN, gain, **POINTS)


def sooner(more: str, less: str, record: Record, source: str) -> Checks:
    """Where both of two conditions learn, one does so in fewer epochs."""
    accuracy = record["accuracy"]
    one, other = (accuracy[record["condition"].tolist().index(name)] for name in (more, less))
    # pairs of twins of which both leave chance for good
    epochs = [onset(torch.from_numpy(rows), CHANCE, which="last").numpy() for rows in (one, other)]
    both = np.isfinite(epochs[0]) & np.isfinite(epochs[1])
    # one that has learned within the first window, or the first point of a thinned curve, took that long
    first = max(WINDOW, resolution(accuracy.shape[-1]))
    fast, slow = (epoch[both] + first for epoch in epochs)
    ratio = f"task epochs until learning, {in_words(less)} / {in_words(more)}"
    both_learn = "(geometric mean over networks that learn in both)"
    sentence = f"{ratio} {both_learn}"
    yield at_least(f"{more} sooner than {less}", sentence, 1.0, times(slow, fast), source=source)
    floss = record.config["floss_epochs"]
    sentence = f"{ratio}, with its {floss} flossing steps added {both_learn}"
    yield at_least(f"{more} sooner, all", sentence, 1.0, times(slow, fast + floss), **OURS)


def times(slow: Rows, fast: Rows) -> float:
    """Their ratio, a geometric mean; within chance where that of its logarithm may be 0."""
    log = beyond_error(np.log(slow / fast))
    return as_sure(log, math.exp(log))


def share(yes: Rows) -> float:
    """Of how many it is so; NaN of none, which leaves a check undecided."""
    return float(yes.mean()) if yes.size else float("nan")


def mean_of(values: Rows, bound: float) -> float:
    """The mean of the networks of which it is finite, as `sure` of the bound."""
    return sure(values[np.isfinite(values)], bound)


def leaves_chance(accuracy: Rows, episodes: tuple[int, ...], level: float = CHANCE) -> Rows:
    """The last epoch at chance `(*e)` of networks that learn; NaN for others.

    NaN, too, for those of which it is but a dip: they had learned before, and an episode threw them back.
    """
    curves = torch.from_numpy(np.asarray(accuracy))
    first, last = (onset(curves, level, which=which).numpy() for which in ("first", "last"))
    # a window that holds an epoch of the dip begins some epochs before the episode
    dip = np.zeros(np.shape(last), dtype=bool)
    for episode in episodes:
        dip |= (first < episode) & (episode <= last + WINDOW)
    return np.where(dip, np.nan, last)


WINDOW = 10
"""Epochs over which `onset` averages; and measurements that are averaged."""
AVERAGED = 3
"""Measurements that make a level, before and after; two where no more are there, as in thinned parts."""
RELAXED = 50
"""Epochs after an episode in which gradients fall, because the readout learns to use what has changed."""


def rise(values: Rows, at: Rows, events: Rows, episodes: tuple[int, ...], window: int) -> Rows:
    """By how many decades `values (*e, measurement)` rise in the epochs before `events (*e)`.

    From a level `window` epochs before the event, or from that after the last episode and what follows on
    it, if that is later, to the one just before the event. NaN without an event, or without time between.
    """
    logs = np.log10(np.maximum(values, TINY)).reshape(-1, len(at))
    found = np.full(len(logs), np.nan)
    for i, (row, event) in enumerate(zip(logs, np.ravel(events), strict=True)):
        if not np.isfinite(event):
            continue
        # the start of training counts like an episode: a new readout changes gradients, too
        after = RELAXED + max(e for e in (0, *episodes) if e <= event)
        places = np.flatnonzero((at >= max(after, event - window)) & (at <= event))
        if len(places) >= 4:
            level = min(AVERAGED, len(places) // 2)
            found[i] = row[places[-level:]].mean() - row[places[:level]].mean()
    return found.reshape(np.shape(events))
