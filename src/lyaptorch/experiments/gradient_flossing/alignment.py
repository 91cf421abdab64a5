"""Around the epoch at which networks leave chance: figure 9, and appendix D's covariant vectors."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import aligned, onset
from lyaptorch.experiments.check import OURS, Checks, at_least, claimed, of_enough
from lyaptorch.experiments.gradient_flossing.comparisons import (
    DOUBLED,
    SOLVED,
    in_words,
    leaves_chance,
    mean_of,
    rise,
    share,
)
from lyaptorch.experiments.gradient_flossing.episodes import (
    Episodes,
    Fig8,
    beside,
    draw_norms,
    lettered,
    mark_episodes,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import SMOOTH, bundles, figure, number, smoothed
from lyaptorch.plots.primitives import (
    GREY,
    PALETTE,
    Rows,
    finite_mean,
    footnote,
    label_accuracy,
    smooth,
)
from lyaptorch.record import Record


@of_each_delay(2)
def around_ends(record: Record, delay: int, axes: list[Axes]) -> None:
    """|dL/dh0| around the last epoch at chance, accuracy around the last epoch of a small gradient."""
    norms, accuracy = axes
    window, at, quiet = record.config["window"], record["measured_at"], {"alpha": 0.4, "thin": 0.8}
    # as the Record has it: one that is kept may have fewer measurements than were made
    every = int(at[1] - at[0])
    places = window // every
    chance, small = ends(record)
    for i, (name, color) in enumerate(zip(record["condition"], PALETTE, strict=False)):
        event = torch.from_numpy(np.round(chance[i, delay] / every))
        rows = aligned(torch.from_numpy(record["gradient_norm"][i, delay]), event, places, places).numpy()
        x = every * np.arange(-places, places + 1)
        draw_norms(norms, rows, color, x, label=str(name), **quiet)
    event = torch.from_numpy(small[:, delay])
    curves = aligned(torch.from_numpy(smooth(record["accuracy"][:, delay], SMOOTH)), event, window, window)
    x = np.arange(-window, window + 1)
    bundles(accuracy, curves.numpy(), record["condition"], x=x, thick=finite_mean, **quiet)
    norms.axhline(record.config["norm_level"], color=GREY, linewidth=0.7)
    norms.set(xlabel="epochs after the last at chance", title=f"delay {record['delay'][delay]}")
    label_accuracy(accuracy, "epochs after the last small gradient")
    for panel in axes:
        panel.axvline(0, color=GREY, linestyle=":", linewidth=0.8)
    lettered(delay, axes)
    if delay == 0:
        beside(norms)
        said = (
            "of which those that learn; thick: geometric means (A), means (B); bands: 25 to 75%; thin: each"
        )
        footnote(norms, number(record), said, smoothed(record))


def ends(record: Record) -> tuple[Rows, Rows]:
    """The last epoch at chance, and that of a small gradient before success, `(condition, delay, seed)`.

    NaN where a network never learns, or an episode alone threw it back; where no gradient was ever small.
    """
    config, at = record.config, record["measured_at"]
    episodes = [tuple(config["episodes"]) if name != "none" else () for name in record["condition"]]
    level, rows = config["accuracy_level"], zip(record["accuracy"], episodes, strict=True)
    chance = np.stack([leaves_chance(accuracy, times, level) for accuracy, times in rows])
    # once a task is solved its loss, and every gradient with it, goes to zero: that counts for nothing
    solved = onset(torch.from_numpy(record["accuracy"]), SOLVED).nan_to_num(nan=torch.inf).numpy()
    small = (record["gradient_norm"] <= config["norm_level"]) & (at <= solved[..., None])
    last = np.where(small.any(-1), at[small.shape[-1] - 1 - small[..., ::-1].argmax(-1)], np.nan)
    return chance, np.where(np.isfinite(chance), last, np.nan)


# a smoke test teaches nothing: with a level below chance it has ends to align to all the same
@figure(
    "fig9",
    "|dL/dh0| and accuracy aligned to the last epoch at chance, and of small gradients",
    cost=("10 s", "3 min"),
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
        rising: epochs over which the gradient is compared before accuracy leaves chance; ours.
    """

    window: int = 1000
    accuracy_level: float = 0.6
    norm_level: float = 1e-3
    rising: int = 100

    def claims(self, record: Record) -> Checks:
        """Gradients grow before accuracy leaves chance, and accuracy leaves it after they are small."""
        chance, small = ends(record)
        at, (none, flossed) = record["measured_at"], record["gradient_norm"]
        grows = f"increase of log10 |dL/dh0| in the last (at most) {self.rising} epochs at chance"
        # the null: the twin without flossing, in the same epochs
        twin = rise(none, at, chance[1], self.episodes, self.rising)
        above = mean_of(rise(flossed, at, chance[1], self.episodes, self.rising) - twin, DOUBLED)
        sentence, source = f"{grows}, flossed − not flossed (same epochs; mean)", self.source
        yield at_least("flossed grows", sentence, DOUBLED, above, source=source)
        # a network without flossing has no twin: the null is the same one, as many epochs earlier
        earlier = np.where(chance[0] > self.rising, chance[0] - self.rising, np.nan)
        before = rise(none, at, earlier, (), self.rising)
        above = mean_of(rise(none, at, chance[0], (), self.rising) - before, DOUBLED)
        sentence = f"not flossed: {grows} − in the {self.rising} epochs before (mean)"
        yield at_least("none grows", sentence, DOUBLED, above, **OURS)
        # which is late, of networks that were small once: others have no such epoch. Where an episode ended
        # that, within two measurements, the lead is the time from it to learning, and says nothing
        two = 2 * (at[1] - at[0])
        between = [np.searchsorted(self.episodes, small[1] + later, "right") for later in (0, two)]
        ended = between[0] != between[1]
        lead = mean_of(np.where(ended, np.nan, chance[1] - small[1]), float(self.every))
        low = f"|dL/dh0| <= {self.norm_level:g}"
        sentence = f"flossed: epochs from the last with {low} before success to the last at chance (mean)"
        yield at_least("lead", sentence, float(self.every), lead, source=source)
        reliably = (
            f"flossed: share of learning networks whose last epoch with {low} precedes the last at chance"
        )
        first = (small[1] < chance[1])[np.isfinite(small[1]) & ~ended]
        told = of_enough(first.size, share(first))
        yield at_least("precedes", reliably, 0.9, told, source=source)


@of_each_delay(2)
def overlaps(record: Record, delay: int, axes: list[Axes]) -> None:
    """Overlap with the first covariant vector, and accuracy, over epochs."""
    (overlap, accuracy), title = axes, f"delay {record['delay'][delay]}"
    names, curves = record["condition"], smooth(record["accuracy"][:, delay], SMOOTH)
    bundles(overlap, record["overlap"][:, delay], names, x=record["measured_at"], thick=finite_mean)
    bundles(accuracy, curves, names, thick=finite_mean)
    overlap.set(xlabel="epoch", ylabel=r"|cos| of $dL/dh$ and $v_1$", title=title)
    label_accuracy(accuracy, "epoch", title)
    overlap.axhline(random_overlap(record.config["hidden_size"]), color=GREY, linewidth=0.8)
    mark_episodes(record, axes)
    if delay == 0:
        beside(overlap)
        said = "thick: means; bands: 25 to 75%; thin: each; grey: random directions"
        footnote(overlap, number(record), said, smoothed(record))


@figure(
    "appD-clv",
    "overlap of dL/dh with the first covariant vector over epochs, flossed or not",
    cost=("10 s", "80 s"),
    small={"delays": (20,)},
    draw=overlaps,
)
class CovariantOverlap(Episodes):
    """Overlap of dL/dh with the first covariant Lyapunov vector over epochs.

    L is the loss of the last step alone, so that only the longest path counts, and h the state after a third
    of a trial, before which the vector has the time to be found.

    Attributes:
        around: epochs before and after accuracy leaves chance that are compared.
    """

    around: int = 200

    measured: ClassVar[tuple[str, str]] = ("covariant_overlap", "overlap")

    def claims(self, record: Record) -> Checks:
        """The overlap rises around the epoch at which accuracy leaves chance, beyond that of chance."""
        at, source = record["measured_at"], "Gradient Flossing, appendix D"
        null = random_overlap(self.hidden_size)
        for i, condition in enumerate(record["condition"]):
            episodes, words = () if condition == "none" else self.episodes, in_words(condition)
            left = leaves_chance(record["accuracy"][i], episodes).reshape(-1)
            # nothing is before or after NaN, the epoch of a network that never learns
            since, rows = at - left[:, None], record["overlap"][i].reshape(-1, len(at))
            before = finite_mean(np.where((since < 0) & (since >= -self.around), rows, np.nan), -1)
            after = finite_mean(np.where((since >= 0) & (since <= self.around), rows, np.nan), -1)
            sentence = f"{words}: change of |cos(dL/dh, v_1)| when accuracy leaves chance (mean)"
            said = claimed(source, str(condition))
            yield at_least(f"{condition} rise", sentence, 0.0, mean_of(after - before, 0.0), **said)
            sentence = f"{words}: |cos(dL/dh, v_1)| after leaving chance / that of random directions (mean)"
            above = mean_of(after / null, 2.0)
            yield at_least(f"{condition} above random", sentence, 2.0, above, **said)


def random_overlap(n: int) -> float:
    """The mean |cos| of two random directions in n dimensions, about sqrt(2 / (pi n))."""
    # a coordinate of a random unit vector: Gamma(n / 2) / (sqrt(pi) Gamma((n + 1) / 2))
    return math.exp(math.lgamma(n / 2) - math.lgamma((n + 1) / 2)) / math.sqrt(math.pi)
