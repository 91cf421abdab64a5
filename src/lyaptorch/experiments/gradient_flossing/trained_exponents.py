"""Exponents of trained networks (figure 13), and of networks flossed from several initial frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import random_frame
from lyaptorch.experiments.check import OURS, Checks, at_least, at_most, beyond_error, where
from lyaptorch.experiments.figure import Along, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.comparisons import SOLVED
from lyaptorch.experiments.gradient_flossing.delays import Fig4d
from lyaptorch.experiments.gradient_flossing.setting import (
    DIMS,
    Condition,
    Networks,
    Setting,
    figure,
    number,
)
from lyaptorch.plots.primitives import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    finite_mean,
    footnote,
    label_accuracy,
    letter,
    level,
    picture,
    scores,
)
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Adam
from lyaptorch.training.optim import MemberOptimizer, clip


@picture(lambda record: 2 * len(record.config["indices"]), width=3.2)
def exponents(record: Record, axes: list[Axes]) -> None:
    """Exponents against delay for each index: filled where solved, hollow where not; means; the fit."""
    indices, delays = record.config["indices"], record["delay"]
    solved = record["final_accuracy"] >= SOLVED
    groups = ((solved, ORANGE, ORANGE, "solved"), (~solved, BLUE, "none", "not solved"))
    for i, index in enumerate(indices):
        panel, logarithmic = axes[2 * i : 2 * i + 2]
        values = record["exponents"][..., index - 1]
        level(panel)
        for chosen, color, face, label in groups:
            # networks of all conditions together: what is compared is success, however it came about
            rows = np.where(chosen, values, np.nan).transpose(1, 0, 2).reshape(len(delays), -1)
            look: dict[str, Any] = {"face": face, "alpha": 0.6, "size": 4.0, "thick": finite_mean}
            scores(panel, delays, rows, color, label, **look)
            scores(logarithmic, delays, np.where(rows < 0, -rows, np.nan), color, **look)
        name = rf"\lambda_{{{index}}}"
        panel.set(xlabel="delay", ylabel=f"${name}$ (nats per step)", title="After training")
        every = np.broadcast_to(delays[:, None], solved.shape)[solved]
        power, _, factor = power_law(every, values[solved])
        if np.isfinite(power):
            law = rf"$-{factor:.2g}\, d^{{-{power:.2f}}}$"
            logarithmic.plot(delays, factor * delays**-power, ":", color=GREY, label=law)
            logarithmic.legend()
        # an axis without a dot that is positive cannot be logarithmic
        if (values < 0).any():
            logarithmic.set(xscale="log", yscale="log")
            logarithmic.set_xticks(delays, [str(d) for d in delays])
            logarithmic.set_xticks([], minor=True)
        logarithmic.set(xlabel="delay", ylabel=f"$-{name}$", title="and its power law")
        letter(panel, chr(ord("A") + 2 * i))
        letter(logarithmic, chr(ord("B") + 2 * i))
    axes[0].legend()
    footnote(axes[0], f"{number(record)}, of three conditions", "lines: means; dots: each network")


@figure(
    "fig13",
    "exponents after training on spatial XOR against delay, solved or not (a-d)",
    cost=("2 s", "2 min"),
    smoke={"measure": 60},
    small={"delays": (10, 20, 40), "seeds": 2, "epochs": 1000},
    draw=exponents,
)
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
        variables, networks = self.swept(study)
        values = self.spectrum(*networks, self.measure, max(self.indices)).exponents[..., 0, :]
        variables["exponents"] = ((*DIMS, "index"), values, {"units": "nats per step"})
        return self.compared(variables)

    def claims(self, record: Record) -> Checks:
        """lambda_1 = -c d^-p of the solved networks; at each delay the solved lie above the others."""
        solved, source = record["final_accuracy"] >= SOLVED, self.source
        delays = np.broadcast_to(record["delay"][:, None], solved.shape)
        power, error, _ = power_law(delays[solved], record["exponents"][solved][:, 0])
        sentence = f"solved: lambda_1 = -c d^-p, p over its standard error ({error:.2g})"
        yield at_least("power law", sentence, 2.0, power / error, source=source)
        for i in self.indices:
            values = record["exponents"][..., i - 1]
            ahead = "mean of solved networks above that of the others by"
            for j, delay in enumerate(record["delay"].tolist()):
                gap, error = apart(values[:, j], solved[:, j])
                gap = where(abs(gap) > 2 * error, gap)
                key, sentence = f"lambda_{i}, d {delay}", f"lambda_{i} at d = {delay}: {ahead}"
                yield at_least(key, sentence, 0.0, gap, source=source)
            # flossing alone raises exponents: of what success has to do with it only networks tell that
            # were treated alike
            rows = zip(values.reshape(-1, self.seeds), solved.reshape(-1, self.seeds), strict=True)
            gaps = np.array([apart(*row)[0] for row in rows])
            alike = beyond_error(gaps[np.isfinite(gaps)])
            sentence = f"lambda_{i}, networks of one delay that were treated alike: {ahead}"
            yield at_least(f"lambda_{i}, alike", sentence, 0.0, alike, source=source)


def apart(values: NDArray[np.floating], solved: NDArray[np.bool_]) -> tuple[float, float]:
    """The mean of what is solved above that of what is not, and its error; NaN without two of both."""
    groups = [z[np.isfinite(z)] for z in (values[solved], values[~solved])]
    if min(map(len, groups)) < 2:
        return float("nan"), float("nan")
    one, other = groups
    return float(one.mean() - other.mean()), float(sum(z.var(ddof=1) / len(z) for z in groups) ** 0.5)


def power_law(delays: NDArray[np.integer], exponents: NDArray[np.floating]) -> tuple[float, float, float]:
    """p of lambda = -c d^-p by least squares of the logarithms, its standard error, and c; NaN if too few."""
    # log(-lambda) = log c - p log d: a line of slope -p; an exponent above 0 has no logarithm
    below = exponents < 0
    x, y = np.log(delays[below]), np.log(-exponents[below])
    # the variance of a line through two points is 0 / 0
    if x.size < 3 or np.ptp(x) == 0:
        return float("nan"), float("nan"), float("nan")
    (slope, height), covariance = np.polyfit(x, y, 1, cov=True)
    return float(-slope), float(covariance[0, 0] ** 0.5), float(np.exp(height))


MODES = ("fixed", "redrawn", "carried over")


@picture(2, width=3.6)
def exponents_and_accuracy(record: Record, axes: list[Axes]) -> None:
    """Exponents after flossing from each frame, and the accuracy reached."""
    left, right = axes
    index = np.arange(1, record["exponents"].shape[-1] + 1)
    left.axhline(0, color=GREY, linewidth=0.8)
    for i, (mode, color) in enumerate(zip(record["mode"], PALETTE, strict=False)):
        rows = record["exponents"][i].reshape(-1, len(index))
        left.plot(index, rows.T, color=color, linewidth=0.6, alpha=0.5)
        left.plot([], [], color=color, label=str(mode))
        final = record["final_accuracy"][i].reshape(-1)
        right.plot(i + np.linspace(-0.2, 0.2, len(final)), final, "o", color=color, markersize=3.5)
    left.set(xlabel="index $i$", ylabel=r"$\lambda_i$ (nats per step)", title="After flossing")
    left.legend()
    label_accuracy(right, "", "After training")
    right.set(xticks=range(len(record["mode"])), xticklabels=record["mode"])
    footnote(left, f"n = {record.config['seeds']} frames each, of one network", "lines, dots: each")


@figure(
    "frames",
    "spread of exponents and success over initial frames: fixed, redrawn, carried over",
    cost=("3 s", "30 s"),
    smoke={"delays": (4,), "epochs": 10, "floss_epochs": 4, "measure": 60},
    small={"delays": (20,), "seeds": 3, "epochs": 600},
    draw=exponents_and_accuracy,
    cut=(Along("frame", "seeds", 4),),
)
class Frames(Setting):
    """One network, flossed from many initial frames in three ways, then trained.

    `seeds` counts frames. All networks begin equal and see equal inputs; they differ by their frames alone.
    A fixed frame is the same in each flossing epoch (the authors' script), a redrawn one is new in each, and
    one that is carried over is where the last epoch's scan ended.

    Attributes:
        measure: steps over which exponents are measured after flossing.
    """

    delays: tuple[int, ...] = (40,)
    measure: int = 1000

    def conditions(self) -> tuple[Condition, ...]:
        """What `train` does with each: no flossing, which is done before."""
        return tuple(Condition(mode) for mode in MODES)

    operations = Setting.operations_of_conditions

    def run(self, study: Study) -> Results:
        """`exponents (mode, delay, frame, index)` after flossing, `accuracy`, `final_accuracy`."""
        networks = self.networks(self.conditions(), same=True)
        self._floss(networks)
        measured, nats = self.spectrum(*networks, self.measure, self.k), {"units": "nats per step"}
        dims = ("mode", "delay", "frame")
        _, variables = study.learn(*networks, dims, **self.treatment())
        variables["exponents"] = ((*dims, "index"), measured.exponents[..., 0, :], nats)
        variables["error"] = ((*dims, "index"), measured.stderr()[..., 0, :], nats)
        return variables, coordinates(delay=self.delays, mode=MODES)

    def claims(self, record: Record) -> Checks:
        """The frame matters little: exponents after flossing agree, and so does success."""
        for i, mode in enumerate(record["mode"]):
            first = record["exponents"][i, ..., 0]
            spread = first.std(-1, ddof=1).mean() if first.shape[-1] > 1 else np.nan
            # equal inputs are measured on: what is left of their length is the error of one measurement
            error = record["error"][i, ..., 0].mean()
            sentence = f"{mode}: standard deviation of lambda_1 over frames, in errors of one measurement"
            ratio = where(np.isfinite(error), spread / error)
            yield at_most(f"{mode} spread", sentence, 1.0, ratio, **OURS)
            final = record["final_accuracy"][i]
            success = where(np.isfinite(final).all(), (final > SOLVED).mean())
            sentence = f"{mode}: share of frames after which the task is solved"
            yield at_least(f"{mode} solved", sentence, 0.5, success, **OURS)

    def _floss(self, networks: Networks) -> None:
        """Floss every network in its own way; what `train` does, but for the frames."""
        (model, task, ids), phase = networks, FlossPhase(self.floss_epochs)
        ensemble, frame_ids = tuple(ids.shape), self.numbers.expand(ids.shape)
        optimizer = MemberOptimizer(list(model.cell.parameters()), ensemble, phase.lr, Adam())
        # a dimension for the way, then those of delay, frame, trajectory, row and column
        mode = torch.arange(len(MODES))[:, None, None, None, None, None]
        carried = self._frames(frame_ids, 0)
        for epoch in range(self.floss_epochs):
            drawn = torch.where(mode == MODES.index("fixed"), self._frames(frame_ids, 0), carried)
            inputs = task.inputs(Draw(self.seed, phase.steps, epoch=epoch, member_ids=ids, stream="floss"))
            spectrum = lyapunov_spectrum(
                model.cell,
                inputs,
                k=self.k,
                h0=model.initial_state(1),
                tangent_transient=phase.tangent_transient,
                frame=torch.where(mode == MODES.index("redrawn"), self._frames(frame_ids, epoch), drawn),
            )
            # of the cell alone: readout and initial states are the task's to train
            gradients = torch.autograd.grad(flossing_loss(spectrum.exponents), optimizer.parameters)
            optimizer.step(clip(gradients, ensemble, self.floss_clip))
            carried = spectrum.final_frame.detach()

    def _frames(self, frame_ids: Tensor, epoch: int) -> Tensor:
        """`(mode, delay, frame, 1, n, k)`: every frame id its own columns."""
        frame = random_frame(self.hidden_size, self.k, Stream(self.seed, "frame"), frame_ids, epoch)
        return frame.unsqueeze(-3)
