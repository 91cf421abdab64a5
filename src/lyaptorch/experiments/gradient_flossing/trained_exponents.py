"""Exponents of trained networks: flossing to the end of training (figure 12), and after it (figure 13)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.experiments.check import Check, at_least
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.control import NATS
from lyaptorch.experiments.gradient_flossing.counts import SOLVED
from lyaptorch.experiments.gradient_flossing.delay_sweep import A_DAY, BESIDE, DIMS
from lyaptorch.experiments.gradient_flossing.delays import Fig4d
from lyaptorch.experiments.gradient_flossing.episodes import (
    LONG,
    QUICK,
    Episodes,
    draw_norms,
    of_each_delay,
)
from lyaptorch.experiments.gradient_flossing.setting import PAPER, Condition
from lyaptorch.experiments.study import Study
from lyaptorch.plots.curves import smooth
from lyaptorch.plots.primitives import bundle, label_accuracy, level, picture, scores
from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import BLUE, ORANGE, PALETTE
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Draw
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Model


@picture(lambda record: len(record.config["indices"]), width=3.6)
def exponents(record: Record, axes: list[Axes]) -> None:
    """Exponents against delay for each index: filled where solved, hollow where not, and the mean of each."""
    indices, delays = record.config["indices"], record["delay"]
    solved = record["final_accuracy"] >= SOLVED
    for panel, index in zip(axes, indices, strict=True):
        values = record["exponents"][..., index - 1]
        level(panel)
        for chosen, color, face, label in (
            (solved, ORANGE, ORANGE, "solved"),
            (~solved, BLUE, "none", "not solved"),
        ):
            rows = np.where(chosen, values, np.nan).transpose(1, 0, 2).reshape(len(delays), -1)
            scores(panel, delays, rows, color, label, thick=finite_mean, face=face, alpha=0.6, size=4.0)
        panel.set(xlabel="delay", ylabel=rf"$\lambda_{{{index}}}$ {NATS}", title="After training")
    axes[-1].legend(**BESIDE)


@declare(
    PAPER,
    "fig13",
    "exponents after training on spatial XOR against delay, solved or not (a-d)",
    cost=("2 s", "2 min", A_DAY),
    smoke={**Fig4d.scales["smoke"], "measure": 60},
    small={**Fig4d.scales["small"], "delays": (10, 20, 40), "seeds": 2, "epochs": 1000},
    draw=exponents,
)
@dataclass(frozen=True)
class Fig13(Fig4d):
    """lambda_1 and lambda_10 after training on the spatial XOR, flossed or not, against delay.

    Attributes:
        indices: which exponents, from 1.
        measure: steps over which they are measured.
    """

    indices: tuple[int, ...] = (1, 10)
    measure: int = 1000

    def run(self, study: Study) -> Results:
        """That of figure 4d, and `exponents (condition, delay, seed, index)`."""
        (variables, coordinates), trained = self.swept(study)
        values = ((*DIMS, "index"), self._exponents(*trained), {"units": "nats per step"})
        return {**variables, "exponents": values}, coordinates

    def checks(self, record: Record) -> list[Check]:
        """lambda_1 = -c d^-p of the solved networks; at each delay the solved lie above the others."""
        solved, source = record["final_accuracy"] >= SOLVED, self.source
        delays = np.broadcast_to(record["delay"][:, None], solved.shape)
        power, error = power_law(delays[solved], record["exponents"][solved][:, 0])
        sentence = f"solved: lambda_1 = -c d^-p, p over its standard error ({error:.2g})"
        found = [at_least("power law", sentence, 2.0, power / error, source=source)]
        for i in self.indices:
            values = record["exponents"][..., i - 1]
            for j, delay in enumerate(record["delay"].tolist()):
                above, below = values[:, j][solved[:, j]], values[:, j][~solved[:, j]]
                if above.size and below.size:
                    gap = above.mean() - below.mean()
                    sentence = (
                        f"lambda_{i} at d = {delay}: mean of solved networks above that of the others by"
                    )
                    found.append(at_least(f"lambda_{i}, d {delay}", sentence, 0.0, gap, source=source))
        return found

    @torch.no_grad()
    def _exponents(self, model: Model, task: LaggedTask, ids: Tensor) -> Tensor:
        inputs = task.inputs(Draw(self.seed, 100 + self.measure, member_ids=ids, stream="measure"))
        spectrum = lyapunov_spectrum(
            model.cell, inputs, k=max(self.indices), h0=model.initial_state(1), tangent_transient=100
        )
        return spectrum.exponents[..., 0, :]


def power_law(delays: NDArray[np.integer], exponents: NDArray[np.floating]) -> tuple[float, float]:
    """p of lambda = -c d^-p by least squares of the logarithms, and its standard error; NaN if too few."""
    below = exponents < 0
    x, y = np.log(delays[below]), np.log(-exponents[below])
    if x.size < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan")
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(-slope), float(covariance[0, 0] ** 0.5)


@of_each_delay(3)
def by_schedule(record: Record, delay: int, axes: list[Axes]) -> None:
    """Accuracy, loss and |dL/dh0| over epochs: not flossed, flossed early, flossed throughout."""
    accuracy, loss, norms = axes
    for i, condition in enumerate(record["condition"]):
        for panel, name in ((accuracy, "accuracy"), (loss, "loss")):
            bundle(panel, smooth(record[name][i, delay], 5), PALETTE[i], str(condition), linewidth=1.4)
        draw_norms(norms, record["gradient_norm"][i, delay], PALETTE[i], record["measured_at"], linewidth=1.4)
    label_accuracy(accuracy, "epoch", f"delay {record['delay'][delay]}")
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    norms.set(xlabel="epoch")
    if delay == 0:
        handles, names = accuracy.get_legend_handles_labels()
        accuracy.figure.legend(handles, names, title="flossed", loc="outside right upper")


@declare(
    PAPER,
    "fig12",
    "flossing every 100 epochs to the end: accuracy, error, |dL/dh0| (a-c)",
    cost=("10 s", "1 min", LONG),
    smoke={**QUICK, "period": 4},
    small={"delays": (30,), "seeds": 2, "epochs": 1200, "floss_epochs": 200, "floss_clip": 1.0},
    draw=by_schedule,
)
@dataclass(frozen=True)
class Fig12(Episodes):
    """Accuracy, error and gradient norm: no flossing, early episodes, and episodes to the end.

    Attributes:
        period: task epochs between episodes of the networks that are flossed to the end.
    """

    period: int = 100

    def run(self, study: Study) -> Results:
        """`accuracy`, `loss (condition, delay, seed, epoch)`, `gradient_norm (..., measurement)`."""
        throughout = tuple(range(self.period, self.epochs, self.period))
        conditions = (
            Condition("none"),
            Condition("early", before=True, episodes=self.episodes),
            Condition("throughout", before=True, episodes=throughout),
        )
        metric, curves = "initial_gradient_norm", ("accuracy", "loss")
        variables, _ = self.trained(study, conditions, metric, "gradient_norm", curves=curves)
        return self.compared(conditions, variables)

    def checks(self, record: Record) -> list[Check]:
        """Accuracy drops at late episodes, and ends lower than with early episodes alone."""
        early, throughout = record["accuracy"][1:].reshape(2, -1, self.epochs)
        late = [e for e in range(self.period, self.epochs, self.period) if e > max(self.episodes)]
        few = max(1, self.period // 10)
        before = np.stack([throughout[:, e - few : e].mean(-1) for e in late])
        after = np.stack([throughout[:, e : e + few].mean(-1) for e in late])
        above = before > 0.6
        drops = (before - after)[above] > 0.05
        share = float(drops.mean()) if drops.size else float("nan")
        lead = float(early[:, -few:].mean() - throughout[:, -few:].mean())
        number = "networks and late episodes before which accuracy is above 0.6"
        lower = "of these, share after which accuracy is lower by 0.05"
        end = "accuracy at the end, early episodes alone above episodes to the end by"
        return [
            at_least("above", number, 1.0, float(above.sum()), source=self.source),
            at_least("drops", lower, 0.8, share, source=self.source),
            at_least("end", end, 0.02, lead, source=self.source),
        ]
