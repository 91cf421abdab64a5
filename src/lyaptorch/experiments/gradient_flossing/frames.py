"""Initial frames of flossing: fixed, redrawn, carried over."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import random_frame
from lyaptorch.experiments.check import (
    OURS,
    Checks,
    at_least,
    at_most,
    where,
)
from lyaptorch.experiments.figure import Along, Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.comparisons import SOLVED
from lyaptorch.experiments.gradient_flossing.setting import (
    Condition,
    Networks,
    Setting,
    figure,
)
from lyaptorch.plots.primitives import (
    GREY,
    PALETTE,
    footnote,
    label_accuracy,
    picture,
)
from lyaptorch.record import Record
from lyaptorch.schedules import FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Adam
from lyaptorch.training.optim import MemberOptimizer, clip

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
            deviation = f"{mode}: standard deviation of lambda_1 over initial frames"
            ratio = where(np.isfinite(error), spread / error)
            sentence = f"{deviation} / standard error of one measurement"
            yield at_most(f"{mode} spread", sentence, 1.0, ratio, **OURS)
            final = record["final_accuracy"][i]
            success = where(np.isfinite(final).all(), (final > SOLVED).mean())
            sentence = f"{mode}: share of initial frames after which the network solves the task"
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
