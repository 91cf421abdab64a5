"""Rotations (figure 4): accuracy over their angle, steps in phase; and eps beside the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.cells import Cell
from lyaptorch.cells.form import Form
from lyaptorch.cells.residuals import HasFrequency
from lyaptorch.experiments.check import OURS, ByName, Checks, at_least, at_most, of_enough, sure, where
from lyaptorch.experiments.figure import Along, Study, numbers
from lyaptorch.experiments.weak_coupling.edge import unsteadiness
from lyaptorch.experiments.weak_coupling.image_runs import (
    CUT,
    SOMETHING,
    Conditions,
    ImageRun,
    ahead,
    best_at_angles,
    best_of,
    earlier,
    least,
    most,
    scores_of,
    seeded,
    spectrum_checks,
    steps_at_rates,
    steps_of,
)
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, MINIMAL, figure, network
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    PALETTE,
    Rows,
    bundle,
    footnote,
    letters,
    level,
    picture,
    scores,
)
from lyaptorch.record import Record
from lyaptorch.tasks import SequentialImages
from lyaptorch.tasks.batch import Batch, Draw
from lyaptorch.training import Model

OFF = ("0.5 w0", "1.5 w0")
"""Angles beside the characteristic frequency, where a rotation has nothing to be in phase with."""
BESIDE = "w0/2 and 3 w0/2"
"""The same in sentences."""


def off_of(names: Any) -> list[str]:
    """Those of `OFF` that were tried."""
    return [name for name in OFF if name in names]


@picture(lambda record: 2 * len(record["permuted"]) + 1, width=3.2)
def angles(record: Record, axes: list[Axes]) -> None:
    """For each order best accuracy against the angle, and the data's spectrum; what is in phase."""
    panels = iter(axes)
    for order, permuted in enumerate(record["permuted"]):
        title = "permuted" if permuted else "in order"
        best_at_angles(next(panels), record, order, title)
        panel, power = next(panels), record["power"][order][1:]
        panel.semilogy(np.arange(1, len(power) + 1), power / power.mean(), color=GREY, linewidth=0.8)
        level(panel, 1.0)
        panel.set(xlabel="bin", ylabel="power / mean", title=f"Spectrum, {title}")
    at = [float(name.split()[0]) for name in record["condition"]]
    scores(axes[-1], at, record["in_phase"], BLUE, "")
    level(axes[-1], 0.0)
    axes[-1].set(xlabel=r"angle / $\omega_0$", title="In phase, before training")
    axes[-1].set_ylabel("gradient: |sum| / sum of |steps|")
    letters(axes, "A A B" if len(record["permuted"]) == 2 else "A B")
    seeded(axes[0], record)


@figure(
    "fig4",
    "accuracy against rotation angle on digits in order and permuted; data's spectrum",
    cost=("5 s", "5 min"),
    smoke={"multiples": (0.0, 1.0), "sample": 2},
    small={"multiples": (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0), "sample": 32},
    draw=angles,
    cut=(*CUT, Along("condition", "multiples")),
)
class Fig4(ImageRun):
    """Accuracy against the angle of a common rotation.

    Attributes:
        multiples: angles, relative to the characteristic frequency.
        sample: images of the gradient before training.
    """

    permuted: tuple[bool, ...] = (False, True)
    # 25 epochs, at the rate that was best in ten
    iterations: int = 11_700
    learning_rates: tuple[float, ...] = (3e-3,)
    multiples: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    sample: int = 64

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """A rotation for each multiple."""
        angles = spectrum.frequency * torch.tensor(self.multiples)
        names = [f"{m:g} w0" for m in self.multiples]
        return self.common(names, torch.ones_like(angles), angles, ids)

    def more(self, study: Study, conditions: Conditions) -> dict[str, Any]:
        """`in_phase (condition, seed)`, of digits in order before training: see `in_phase`."""
        ids = numbers(self.first, self.seeds).expand(len(conditions[0]), -1)
        task, cell = SequentialImages(self.images), self.cell(study, conditions, ids)
        model = network(study, cell, task, ids)
        draw = Draw(self.seed, task.length, self.sample, member_ids=ids, stream="test")
        return {"in_phase": (("condition", "seed"), in_phase(cell, model, task.draw(draw)))}

    def claims(self, record: Record) -> Checks:
        """The characteristic frequency and its harmonics help in order; permuted, the angle matters less."""
        yield from spectrum_checks(record)
        spans, known = {}, {}
        for order, permuted in enumerate(record["permuted"]):
            best = best_of(record, order)
            turned = [score for name, score in best.items() if name != "0 w0"]
            spans[bool(permuted)] = max(turned, default=np.nan) - min(turned, default=np.nan)
            known[bool(permuted)] = max(turned, default=0.0) >= MINIMAL[bool(permuted)]
            if not permuted:
                yield from self._in_order(record, best, order)
        if len(spans) == 2:
            # among rotations: who does not turn at all has no phase to be right or wrong
            sentence = "range of accuracy over rotation angles, permuted / in order"
            share = spans[True] / max(spans[False], 1e-9)
            yield most("permuted angle", sentence, 0.5, where(all(known.values()), share))

    def _in_order(self, record: Record, best: ByName, order: int) -> Checks:
        """What is said of digits in order."""
        beside, known = off_of(best), max(best.values()) >= MINIMAL[False]
        of = "pixels in order: accuracy"
        sentence = f"{of}, rotation by w0 − no rotation"
        # both must have left chance
        still = min(best["0 w0"], best["1 w0"]) > SOMETHING
        each = scores_of(record, order)
        yield least("no rotation", sentence, 0.1, where(still, ahead(each, "1 w0", ("0 w0",), 0.1)))
        gain = ahead(each, "1 w0", beside)
        sentence = f"{of}, rotation by w0 − better of {BESIDE}"
        yield least("rotation", sentence, 0.0, where(known, gain))
        until = "pixels in order: task steps to minimal performance"
        sentence = f"{until}, quicker of {BESIDE} − w0"
        gain = earlier(steps_of(record, order), record["measured_at"][-1], "1 w0", beside)
        yield least("efficiency", sentence, 0.0, gain)
        between = "2 w0 and 3 w0 − 1.5 w0 and 2.5 w0 (means of those that were tried)"
        yield least("harmonics", f"{of}, {between}", 0.0, where(known, _harmonics(each)))
        phases = dict(zip(map(str, record["condition"]), record["in_phase"], strict=True))
        of = "gradient of the input weights before training, |sum over steps| / sum of |steps|"
        sentence = f"{of}, w0 − larger of {BESIDE}"
        yield least("phase", sentence, 0.0, ahead(phases, "1 w0", beside), part_of="phase")
        yield least("phase harmonics", f"{of}, {between}", 0.0, _harmonics(phases), part_of="phase")
        sentence, at_rest = f"{of}, w0 − no rotation", ahead(phases, "1 w0", ("0 w0",))
        because = "The paper compares angles; a network that does not turn keeps steps in phase, too."
        yield at_least("phase at rest", sentence, 0.0, at_rest, **{**OURS, "because": because})


HARMONICS = ("2 w0", "3 w0")
BETWEEN = ("1.5 w0", "2.5 w0")


def _harmonics(each: Mapping[str, Rows]) -> float:
    """By how much networks are ahead at harmonics of w0, each in its mean over those that were tried."""
    means = {}
    for kind, names in (("harmonics", HARMONICS), ("between", BETWEEN)):
        if tried := [each[name] for name in names if name in each]:
            means[kind] = np.mean(tried, 0)
    return ahead(means, "harmonics", ("between",))


def in_phase(cell: Cell, model: Model, batch: Batch) -> Tensor:
    """How much of a trial's gradient of the input weights is left when its steps are added, `*e`.

    |sum of g_s| / sum of |g_s|, with g_s what the weights do to the loss at step s: 1 if all steps point the
    same way, 0 if they cancel; a mean over trials. Cost: one backpropagation through time.
    """
    form = cell.form()
    assert isinstance(form, Form)
    drives, states = form.drive(batch.inputs).detach().requires_grad_(), []
    h = cell.rest(batch.inputs[0])
    for drive in drives:
        h = form.step(drive, h)
        states.append(h)
    (g,) = torch.autograd.grad(model.score(batch, torch.stack(states))[0].sum(), drives)
    # (dL/da) x^T of a pixel x, which is a number
    steps = g * batch.inputs
    share: Tensor = steps.sum(0).norm(dim=-1) / steps.norm(dim=-1).sum(0)
    return share.mean(-1)


@picture(2, width=4.0)
def rates(record: Record, axes: list[Axes]) -> None:
    """Learning curves at one rate over eps; and pairs in which eps and the rate do the same."""
    curves, pairs = axes
    at, mid = record["measured_at"], len(record["learning_rate"]) // 2
    for i, eps in enumerate(record["condition"]):
        label = rf"$\epsilon$ = {eps}"
        bundle(curves, record["test_accuracy"][0, i, mid], PALETTE[i], label, x=at)
        for j, dash in enumerate(("-", "--", ":")[: len(record["learning_rate"])]):
            mean = record["test_accuracy"][0, i, j].mean(0)
            pairs.plot(at, mean, dash, color=PALETTE[i], linewidth=1.2)
    for j, dash in enumerate(("-", "--", ":")[: len(record["learning_rate"])]):
        pairs.plot([], [], dash, color=GREY, label=f"rate {record['learning_rate'][j]:g}")
    curves.set(title=f"Rate {record['learning_rate'][mid]:g}", ylabel="test accuracy", xlabel="task step")
    pairs.set(title="All rates", ylabel="test accuracy", xlabel="task step")
    curves.legend()
    pairs.legend()
    footnote(curves, f"n = {record['best_accuracy'].shape[-1]} networks", "thick: mean")


@figure(
    "coupling",
    "accuracy when doubling eps or quadrupling the learning rate",
    cost=("5 s", "3 min"),
    smoke={"couplings": (0.02, 0.04), "learning_rates": (1e-3, 4e-3)},
    small={"learning_rates": (7.5e-4, 3e-3), "measure_every": 50},
    draw=rates,
)
class Coupling(ImageRun):
    """Rotations at the characteristic frequency over eps and the learning rate.

    To first order a step of gradient descent on the input weights changes the state by eps^2 times the rate:
    eps carries the weights into the state, and the error back to them. The state is of the order of eps
    itself, so that a step on W changes it by eps^4 times the rate, and one on the readout by eps^2.

    Attributes:
        couplings: eps, each twice the one before.
    """

    couplings: tuple[float, ...] = (0.015, 0.03, 0.06)
    learning_rates: tuple[float, ...] = (7.5e-4, 3e-3, 1.2e-2)

    def conditions(self, study: Study, spectrum: HasFrequency, ids: Tensor) -> Conditions:
        """An eps for each."""
        n, count = self.hidden_size, len(self.couplings)
        ones = torch.ones(count, len(ids), n)
        angles = torch.full((count, len(ids), n // 2), spectrum.frequency)
        return (
            [f"{e:g}" for e in self.couplings],
            angles,
            ones,
            torch.tensor(self.couplings)[:, None, None] * ones,
        )

    def claims(self, record: Record) -> Checks:
        """More coupling learns earlier, and too much of it unsteadily, as at a larger rate."""
        source = f"{AUTHORS}, section 4.1"
        steps, last = steps_at_rates(record), record["measured_at"][-1]
        # at the smallest rate, and the smallest eps: neither is too large
        few, more = steps[:2, 0] if len(steps) > 1 else np.full((2, 1), last)
        sentence = "task steps to minimal performance, smallest eps − twice that (smallest learning rate)"
        gain = where(min(few.mean(), more.mean()) < last and (few != more).any(), sure(few - more, 0.0))
        yield at_least("efficiency", sentence, 0.0, gain, source=source)
        dropped, known = unsteadiness(record)[0], record["test_accuracy"][0] > SOMETHING
        for key, words, one, other in (
            ("stability", "largest − smallest eps (smallest learning rate)", (-1, 0), (0, 0)),
            ("stability rate", "largest − smallest learning rate (smallest eps)", (0, -1), (0, 0)),
        ):
            sentence = f"mean drop of accuracy below its best so far, {words}"
            both = min(known[at].any(-1).mean() for at in (one, other)) == 1
            yield at_least(
                key, sentence, 0.0, where(both, sure(dropped[one] - dropped[other], 0.0)), source=source
            )
        curves = record["test_accuracy"][0].mean(-2)
        # NaN where a part is alone at its eps or at its rate
        beside = np.full_like(curves[0, 0], np.nan)
        base, (doubled, quadrupled) = curves[0, 0], ([*own, beside][1] for own in (curves[:, 0], curves[0]))
        effect = np.abs(doubled - base).mean() + np.abs(quadrupled - base).mean()
        share = np.abs(doubled - quadrupled).mean() / max(effect / 2, 1e-9)
        sentence = (
            "mean |accuracy at 2 eps − accuracy at 4 x learning rate| over training / mean |change| by either"
        )
        share = of_enough(record["test_accuracy"].shape[-2], share)
        because = "The paper says that eps is similar to the rate, and not how many times the rate it is."
        ours = {**OURS, "because": because}
        yield at_most("rate", sentence, 0.5, where(effect / 2 > 0.05, share), **ours)
