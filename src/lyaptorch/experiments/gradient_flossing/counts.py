"""Number of exponents that are flossed (figures 5 and 7), and controls, which do not replace flossing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.check import (
    THEORY,
    Checks,
    at_least,
    at_most,
    beyond_error,
    claimed,
    failing,
    where,
)
from lyaptorch.experiments.figure import Along, Results, Study, coordinates, stacked
from lyaptorch.experiments.gradient_flossing.comparisons import CHANCE, SOLVED, exceeds, further, in_words
from lyaptorch.experiments.gradient_flossing.delays import HARD, plane, points
from lyaptorch.experiments.gradient_flossing.setting import (
    SMOOTH,
    Condition,
    DelaySweep,
    bundles,
    figure,
    number,
    smoothed,
)
from lyaptorch.plots.primitives import (
    BESIDE,
    Rows,
    footnote,
    label_accuracy,
    letter,
    level,
    picture,
    smooth,
)
from lyaptorch.record import Record


@picture(3, rows=lambda record: len(record.config["schedules"]), width=3.4)
def counts(record: Record, axes: list[Axes]) -> None:
    """Accuracy against delay for each k, against k for each delay, and in their plane, for each schedule."""
    ks, schedules, delays = record.config["ks"], record.config["schedules"], record["delay"]
    final = record["final_accuracy"].reshape(len(schedules), len(ks), len(delays), -1)
    for row, schedule in enumerate(schedules):
        left, right, both = axes[3 * row : 3 * row + 3]
        points(left, delays, final[row], [f"$k = {k}$" for k in ks])
        points(right, np.asarray(ks), final[row].swapaxes(0, 1), [f"$d = {delay}$" for delay in delays])
        for panel, label in ((left, "delay"), (right, "exponents flossed $k$")):
            level(panel, 0.5)
            label_accuracy(panel, label, f"Flossed {schedule}")
            panel.legend(**BESIDE)
        plane(both, np.median(final[row], -1), delays, np.asarray(ks))
        # the paper has the plane alone of flossing before training: its panel D
        for panel, name in zip((left, right, both), "ABC" if row == 0 else ("", "", "D"), strict=True):
            letter(panel, name)
    footnote(axes[0], number(record), "lines: means; bands: 25 to 75%; dots: each; planes: medians")


@figure(
    "fig5",
    "accuracy on binary temporal XOR over k and delay, flossed during training (a, b)",
    cost=("2 s", "2 min"),
    smoke={"ks": (1, 12), "episode": 5},
    small={"delays": (20, 40), "ks": (1, 16, 75), "seeds": 3, "epochs": 1200},
    draw=counts,
    cut=(Along("seed", "seeds", 2), Along("delay", "delays")),
    measured_by="fig7",
)
class Fig5(DelaySweep):
    """Accuracy on the binary temporal XOR over k and delay, with flossing before and during training.

    Attributes:
        ks: numbers of exponents flossed, in rising order.
        episode: task epoch of the episode during training.
        schedules: when networks are flossed; figure 7 has both.
    """

    delays: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70)
    epochs: int = 10_000
    ks: tuple[int, ...] = (1, 5, 10, 20, 40, 60, 75)
    episode: int = 500
    schedules: tuple[str, ...] = ("before and during",)

    def conditions(self) -> tuple[Condition, ...]:
        """Every schedule with every k."""
        episodes = {"before and during": (self.episode,), "before": ()}
        return tuple(
            Condition(f"{schedule}, k = {k}", before=True, episodes=episodes[schedule], k=k)
            for schedule in self.schedules
            for k in self.ks
        )

    def claims(self, record: Record) -> Checks:
        """Longer delays need more exponents, and one exponent does not bridge a delay of 40."""
        delays = record["delay"].tolist()
        # conditions stand schedule by schedule, each with all of `ks`
        means = record["final_accuracy"].mean(-1).reshape(len(self.schedules), len(self.ks), -1)
        for schedule, accuracy in zip(self.schedules, means, strict=True):
            yield from self._least(schedule, delays, accuracy >= SOLVED)
            for j, d in enumerate(delays):
                if d >= 40 and 1 in self.ks:
                    key, one = f"{schedule}, d {d}", accuracy[self.ks.index(1), j]
                    # a delay that no number of exponents bridges says nothing of one
                    bridged, any_learns = accuracy[-1, j] > CHANCE, accuracy[:, j].max() > CHANCE
                    at = f"{in_words(schedule)}: mean accuracy at d = {d}"
                    told = failing(bridged, one, CHANCE)
                    said = claimed(self.source, f"{schedule}, one")
                    yield at_most(f"{key}, k 1", f"{at}, k = 1", CHANCE, told, **said)
                    sentence = f"{at}, k = {self.ks[-1]} − k = {self.ks[0]}"
                    gain = where(any_learns, accuracy[-1, j] - accuracy[0, j])
                    yield at_least(f"{key}, gain", sentence, 0.1, gain, **said)

    def _least(self, schedule: str, delays: list[int], solved: Rows) -> Checks:
        """The least k that solves a delay grows with it, and is more at the longest than at the shortest."""
        # argmax of booleans is the first that is true, and 0 also where none is
        least = np.where(solved.any(0), np.array(self.ks)[solved.argmax(0)], np.nan).tolist()
        for (d, k), (longer, more) in pairwise(zip(delays, least, strict=True)):
            key = f"{schedule}, least k at d {longer}"
            sentence = f"{in_words(schedule)}: smallest k that solves d = {longer} (bound: that for d = {d})"
            yield at_least(key, sentence, k, more, source=self.source, part_of=f"{schedule}, least k")
        known = [k for k in least if k == k]
        ratio = where(len(known) > 1, known[-1] / known[0] if known else 1)
        sentence = f"{in_words(schedule)}: smallest k that solves the longest solved delay / the shortest"
        # equal numbers would pass "at least": of those that are tried the closest differ by this factor
        step = min((b / a for a, b in pairwise(self.ks)), default=2.0)
        said = claimed(self.source, f"{schedule}, least k")
        yield at_least(f"{schedule}, least k grows", sentence, step, ratio, **said)


@figure(
    "fig7",
    "accuracy over k and delay, flossed during training (a-c) or before it alone (d)",
    cost=("2 s", "3 min"),
    small={"delays": (40, 60), "ks": (16, 75), "seeds": 3},
)
class Fig7(Fig5):
    """Figure 5 with flossing before training alone beside flossing during training."""

    schedules: tuple[str, ...] = ("before and during", "before")

    def claims(self, record: Record) -> Checks:
        """As figure 5; and flossing all exponents before training does not replace flossing during it."""
        finals = record["final_accuracy"]
        # with the most exponents, of each delay and network
        during, before = finals.reshape(2, len(self.ks), *finals.shape[1:])[:, -1]
        hard = record["delay"] >= min(HARD[0], self.delays[-1])
        both = f"k = {self.ks[-1]}, before and during"
        yield from super().claims(record)
        yield from further(both, "before", record["delay"], during, before, self.source)
        yield from exceeds(both, "before", record["delay"][hard], during[hard], before[hard])
        # where flossing during training does not solve it either, the delay is too long for both
        hardest = failing(during[-1].mean() >= SOLVED, before[-1].mean(), SOLVED)
        sentence = f"mean accuracy at d = {self.delays[-1]}, k = {self.ks[-1]}, {in_words('before')}"
        yield at_most("before, hardest", sentence, SOLVED, hardest, source=self.source)


TASKS = ("delayed_copy", "temporal_xor")


@picture(lambda record: 2 * len(record["task"]), width=3.0)
def explained(record: Record, axes: list[Axes]) -> None:
    """Variance explained against delay, and over epochs at the longest one, for each task."""
    names, label = record["condition"], "variance explained"
    for row, task in enumerate(record["task"]):
        over_epochs, final = axes[2 * row : 2 * row + 2]
        # 1 - error / variance has no lower bound: a linear network that runs away would take the whole axis
        bundles(over_epochs, smooth(record["accuracy"][row, :, -1].clip(-1), SMOOTH), names)
        points(final, record["delay"], record["final_accuracy"][row].clip(-1), names)
        title = str(task).replace("_", " ")
        over_epochs.set(xlabel="epoch", ylabel=label, title=f"{title}, d = {record['delay'][-1]}")
        final.set(xlabel="delay", ylabel=label, title=f"{title}, after training", ylim=(-1.05, 1.05))
        final.legend(title="flossed")
    footnote(axes[0], number(record), "thick: means; bands: 25 to 75%; thin, dots: each", smoothed(record))


@figure(
    "appE",
    "linear networks, flossed before training or not, on the copy and the temporal XOR of numbers",
    cost=("2 s", "75 s"),
    small={"delays": (20, 40), "seeds": 3, "epochs": 600},
    draw=explained,
)
class LinearNetworks(DelaySweep):
    """Variance explained by linear networks, flossed before training or not: copy and XOR of numbers.

    Of the temporal XOR no linear function of the inputs explains any variance. The paper gives no numbers;
    the gain is below 1 because a Gaussian matrix of gain 1 has a spectral radius a little above 1, and a
    linear network then runs away.

    Attributes:
        gain: of the initial weights.
    """

    task: str = "both"
    analogue: bool = True
    delays: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70)
    activation: str = "linear"
    gain: float = 0.8

    def conditions(self) -> tuple[Condition, ...]:
        """None and before, at the gain."""
        return (Condition("none", gain=self.gain), Condition("before", before=True, gain=self.gain))

    def run(self, study: Study) -> Results:
        """The variables of a sweep, each with `task` as first dimension."""
        # an ensemble has one task: two trainings, each with a checkpoint of its own
        each = [replace(self, task=task).swept(study.part(task))[0] for task in TASKS]
        return self.compared(stacked("task", each), **coordinates(task=TASKS))

    def operations(self) -> float:
        """Of both tasks."""
        return sum(DelaySweep.operations(replace(self, task=task)) for task in TASKS)

    def claims(self, record: Record) -> Checks:
        """Flossing helps to copy; no linear network solves the XOR."""
        # the XOR |a - b| stays as it is where the inputs a and b become 1 - a and 1 - b, which turns the sign
        # of a - 1/2 and b - 1/2: no linear function of them correlates with it
        finals = record["final_accuracy"]
        # a network that runs away explains nothing, and not less; of delays that somebody learns
        copy, xor = finals[0].clip(0), finals[1].mean(-1)
        tells = copy.mean(-1).max(0) > 0.1
        gains = (copy[1] - copy[0])[tells].mean(0) if tells.any() else np.array([])
        change = f"{in_words('before')} − {in_words('none')}"
        sentence = f"copy: variance explained, {change} (mean over delays learned in either condition)"
        gain = beyond_error(gains, 0.1)
        yield at_least("copy", sentence, 0.1, gain, source="Gradient Flossing, appendix E")
        for condition, row in zip(record["condition"], xor, strict=True):
            key = f"temporal XOR, {condition}"
            words = f"largest over d, {in_words(condition)} (theory: at most 0)"
            yield at_most(key, f"temporal XOR: mean variance explained, {words}", 0.1, row.max(), **THEORY)
