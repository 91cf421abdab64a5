"""Controls, which do not replace flossing: penalties on single steps, gain and clipping; the joint loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.check import (
    OURS,
    Checks,
    WithinChance,
    as_sure,
    at_least,
    at_most,
    beyond_error,
    sure,
)
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.comparisons import MARGIN
from lyaptorch.experiments.gradient_flossing.delays import BITS
from lyaptorch.experiments.gradient_flossing.setting import (
    DIMS,
    SMOOTH,
    Condition,
    DelaySweep,
    bundles,
    figure,
    number,
    smoothed,
)
from lyaptorch.experiments.trainings import mean_field_gain
from lyaptorch.plots.primitives import GREY, TINY, footnote, label_accuracy, look, picture, smooth
from lyaptorch.record import Record
from lyaptorch.tasks import make_task

# a number, because every network has a bound of its own, and None would be for all of them
UNCLIPPED = 1e6
"""A norm that no gradient reaches."""
CONTROLS = ("spectral radius", "one-step Jacobians", "mean-field slope", "mean-field gain", "no clipping")
READ_AS = {"one-step Jacobians": "one-step Jacobians (leading k singular values to 1)"}
"""What the paper leaves open, in the way that it is read here."""
NULL: dict[str, Any] = {**OURS, "because": "The claim of figure 4c, repeated."}
"""Of the gain that controls are compared with."""
MOMENTS = ("first", "last")
"""Tenths of the steps of a penalty, over which it is averaged."""
UNSAID = CONTROLS[3:]
"""Controls that the paper does not speak of."""


def fallen(losses: NDArray[np.floating]) -> NDArray[np.floating]:
    """`(member, floss_epoch)` as means over the first and the last tenth, `(member, 2)`."""
    tenth = max(1, losses.shape[-1] // 10)
    return np.stack([losses[:, :tenth].mean(-1), losses[:, -tenth:].mean(-1)], -1)


@picture(lambda record: 2 * len(record["delay"]), width=3.6, height=3.3)
def conditions(record: Record, axes: list[Axes]) -> None:
    """Accuracy over epochs, and after training a row for each condition, for each delay."""
    names = [str(name) for name in record["condition"]]
    for j, delay in enumerate(record["delay"]):
        over_epochs, final = axes[2 * j : 2 * j + 2]
        bundles(over_epochs, smooth(record["accuracy"][:, j], SMOOTH), names)
        for i, rows in enumerate(record["final_accuracy"][:, j]):
            color, _ = look(i)
            final.plot(rows, np.full(len(rows), i), "o", color=color, alpha=0.4, markersize=4)
            final.plot(rows.mean(), i, "|", color=color, markersize=16, markeredgewidth=2)
        label_accuracy(over_epochs, "epoch", f"delay {delay}")
        final.axvline(0.5, color=GREY, linestyle=":", linewidth=0.8)
        final.set_yticks(range(len(names)), names)
        final.invert_yaxis()
        final.set(xlabel="accuracy", xlim=BITS, title="After training")
    handles = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(*handles, loc="outside right upper")
    footnote(axes[0], number(record), "thick: means; bands: 25 to 75%; thin, dots: each", smoothed(record))


@figure(
    "controls",
    "penalties on single steps, gain and clipping in place of flossing; joint loss",
    cost=("2 s", "3 min"),
    smoke={"delays": (4,)},
    small={"delays": (30,), "seeds": 3, "epochs": 1000, "floss_epochs": 400},
    draw=conditions,
)
class Controls(DelaySweep):
    """Flossing beside what could replace it, on the binary temporal XOR.

    Three penalties that look at single steps, minimised before training as exponents are; the gain at which
    mean-field theory puts lambda_1 at 0; task gradients that are not clipped; and the flossing loss added to
    the task loss instead of phases of its own, which is no control but flossing in another form.

    Attributes:
        joint_weight: of the flossing loss beside the task loss; ours.
    """

    delays: tuple[int, ...] = (50, 60)
    joint_weight: float = 0.1

    def conditions(self) -> tuple[Condition, ...]:
        """Flossing first, then what leaves networks at chance, then the joint loss."""
        gain = mean_field_gain(make_task(self.task, delay=self.delays[0]))
        return (
            Condition("flossing before", before=True),
            Condition("none"),
            Condition("spectral radius", before=True, penalty="spectral_radius"),
            Condition("one-step Jacobians", before=True, penalty="one_step_jacobians"),
            Condition("mean-field slope", before=True, penalty="mean_field_slope"),
            Condition("mean-field gain", gain=gain),
            Condition("no clipping", clip=UNCLIPPED),
            Condition("joint loss", flossing_weight=self.joint_weight),
        )

    def run(self, study: Study) -> Results:
        """As of all sweeps, and `penalty (condition, delay, seed, moment)`, NaN where nothing is flossed."""
        variables, networks, record = self.swept(study)
        penalty = fallen(record["floss_loss"]).reshape(*networks.ids.shape, len(MOMENTS))
        variables["penalty"] = ((*DIMS, "moment"), penalty)
        return self.compared(variables, **coordinates(moment=MOMENTS))

    def claims(self, record: Record) -> Checks:
        """Flossing is an improvement, controls do not yield half of it, and their penalties did fall."""
        yield from self._accuracies(record)
        # Records that were made before penalties were kept
        for i, condition in enumerate(self.conditions() if "penalty" in record else ()):
            for j, delay in enumerate(record["delay"].tolist() if condition.before else ()):
                first, last = np.maximum(record["penalty"][i, j], TINY).T
                fall = sure(np.log(last / first), 0.0)
                sentence = f"d = {delay}: penalty after / before its steps, {condition.name} (geometric mean)"
                key = f"penalty of {condition.name}, d {delay}"
                yield at_most(key, sentence, 1.0, as_sure(fall, np.exp(fall)), **OURS)

    def _accuracies(self, record: Record) -> Checks:
        claim: dict[str, Any] = {"source": "Gradient Flossing, section 7"}
        for j, delay in enumerate(record["delay"].tolist()):
            final = dict(zip(record["condition"].tolist(), record["final_accuracy"][:, j], strict=True))
            gain = beyond_error(final["flossing before"] - final["none"], MARGIN)
            sentence = f"d = {delay}: mean accuracy, flossed before training − not flossed"
            yield at_least(f"flossing before, d {delay}", sentence, MARGIN, gain, **NULL)
            for name in CONTROLS:
                own, half = final[name] - final["none"], (final["flossing before"] - final["none"]) / 2
                sentence = f"d = {delay}: increase in accuracy with {READ_AS.get(name, name)} / with flossing"
                said = OURS if name in UNSAID else {**claim, "part_of": name}
                # of twins, which have one error: whether half of the gain is reached
                told = gain > 0 and not isinstance(gain, WithinChance)
                beyond = as_sure(sure(own - half, 0.0), own.mean() / gain) if told else np.nan
                yield at_most(f"{name}, d {delay}", sentence, 0.5, beyond, **said)
