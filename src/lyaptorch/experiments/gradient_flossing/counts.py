"""How many exponents, and which frames: figures 5 and 7, and flossing from fixed, redrawn, carried frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import random_frame
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.delay_sweep import A_DAY, BESIDE, DelaySweep, points
from lyaptorch.experiments.gradient_flossing.delays import HARD, exceeds
from lyaptorch.experiments.gradient_flossing.setting import PAPER, SMOKE, Condition, Setting
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import label_accuracy, level, picture
from lyaptorch.plots.style import GREY, PALETTE
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Draw
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Adam, Model
from lyaptorch.training.optim import MemberOptimizer
from lyaptorch.training.steps import Clip

CHANCE = 0.6
"""Mean accuracy up to which networks count as being at chance."""


@picture(lambda record: 2 * len(record.config["schedules"]), width=3.2)
def counts(record: Record, axes: list[Axes]) -> None:
    """Accuracy against delay for each k, and against k for each delay, for each schedule."""
    ks, schedules, delays = record.config["ks"], record.config["schedules"], record["delay"]
    final = record["final_accuracy"].reshape(len(schedules), len(ks), len(delays), -1)
    for row, schedule in enumerate(schedules):
        left, right = axes[2 * row : 2 * row + 2]
        points(left, delays, final[row], [f"$k = {k}$" for k in ks])
        points(right, np.asarray(ks), final[row].swapaxes(0, 1), [f"$d = {delay}$" for delay in delays])
        for panel, label in ((left, "delay"), (right, "exponents flossed $k$")):
            level(panel, 0.5)
            label_accuracy(panel, label, f"Flossed {schedule}")
            panel.legend(**BESIDE)


@declare(
    PAPER,
    "fig5",
    "accuracy on binary temporal XOR over k and delay, flossed during training (a, b)",
    cost=("2 s", "2 min", A_DAY),
    smoke={**SMOKE, "ks": (1, 12), "episode": 5},
    small={"delays": (20, 40), "ks": (1, 16, 75), "seeds": 3, "epochs": 1200, "floss_clip": 1.0},
    draw=counts,
)
@dataclass(frozen=True)
class Fig5(DelaySweep):
    """Accuracy on the binary temporal XOR over k and delay, with flossing before and during training.

    Attributes:
        ks: numbers of exponents flossed.
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
        return tuple(
            Condition(f"{schedule}, k = {k}", before=True, episodes=self._episodes(schedule), k=k)
            for schedule in self.schedules
            for k in self.ks
        )

    def checks(self, record: Record) -> list[Check]:
        """Longer delays need more exponents, and one exponent does not bridge a delay of 40."""
        found, delays = [], record["delay"].tolist()
        means = record["final_accuracy"].mean(-1).reshape(len(self.schedules), len(self.ks), -1)
        for schedule, accuracy in zip(self.schedules, means, strict=True):
            least = [
                min((k for k, yes in zip(self.ks, row, strict=True) if yes), default=0)
                for row in (accuracy >= SOLVED).T
            ]
            for (d, k), (longer, more) in pairwise(zip(delays, least, strict=True)):
                if k and more:
                    key = f"{schedule}, least k at d {longer}"
                    sentence = f"{schedule}: least k that solves d = {longer}, at least that of d = {d}"
                    found.append(at_least(key, sentence, k, more, source=self.source))
            for j, d in enumerate(delays):
                if d >= 40 and 1 in self.ks:
                    key, one = f"{schedule}, d {d}", accuracy[self.ks.index(1), j]
                    sentence = f"{schedule}: accuracy at d = {d} with k = 1"
                    found.append(at_most(f"{key}, k 1", sentence, CHANCE, one, source=self.source))
                    gain, ends = accuracy[-1, j] - accuracy[0, j], f"k = {self.ks[-1]} over {self.ks[0]}"
                    sentence = f"{schedule}: gain in accuracy at d = {d} of {ends}"
                    found.append(at_least(f"{key}, gain", sentence, 0.1, gain, source=self.source))
        return found

    def _episodes(self, schedule: str) -> tuple[int, ...]:
        return (self.episode,) if schedule == "before and during" else ()


@declare(
    PAPER,
    "fig7",
    "accuracy over k and delay, flossed during training (a-c) or before it alone (d)",
    cost=("2 s", "2 min", A_DAY),
    smoke=Fig5.scales["smoke"],
    small={**Fig5.scales["small"], "delays": (40, 60), "ks": (16, 75), "seeds": 2},
    draw=counts,
)
@dataclass(frozen=True)
class Fig7(Fig5):
    """Figure 5 with flossing before training alone beside flossing during training."""

    schedules: tuple[str, ...] = ("before and during", "before")

    def checks(self, record: Record) -> list[Check]:
        """As figure 5; and flossing all exponents before training does not replace flossing during it."""
        during, before = record["final_accuracy"].mean(-1).reshape(2, len(self.ks), -1)[:, -1]
        hard = record["delay"] >= min(HARD[0], self.delays[-1])
        both = f"k = {self.ks[-1]}, before and during"
        gains = exceeds(both, "before", record["delay"][hard], during[hard], before[hard], self.source)
        return [*super().checks(record), *gains]


MODES = ("fixed", "redrawn", "carried over")
SOLVED = 0.9
"""Accuracy from which on a task counts as solved."""


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
    label_accuracy(right, "")
    right.set(xticks=range(len(record["mode"])), xticklabels=record["mode"])


@declare(
    PAPER,
    "frames",
    "spread of exponents and success over initial frames: fixed, redrawn, carried over",
    cost=("3 s", "30 s", "a day; minutes on a GPU"),
    smoke={**SMOKE, "delays": (4,), "epochs": 10, "floss_epochs": 4, "measure": 60},
    small={"delays": (20,), "seeds": 3, "epochs": 600, "floss_clip": 1.0},
    draw=exponents_and_accuracy,
)
@dataclass(frozen=True)
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

    def run(self, study: Study) -> Results:
        """`exponents (mode, delay, frame, index)` after flossing, `accuracy`, `final_accuracy`."""
        conditions = tuple(Condition(mode) for mode in MODES)
        model, task, ids = self.networks(conditions, same=True)
        frame_ids = torch.arange(self.seeds).expand(ids.shape)
        self._floss(model, task, ids, frame_ids)
        exponents = self._spectrum(model, task, ids)
        record = self.train(study, model, task, conditions, ids)
        _, final = self.test(study, model, task, ids)
        dims = ("mode", "delay", "frame")
        variables: dict[str, Given] = {
            "exponents": ((*dims, "index"), exponents, {"units": "nats per step"}),
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "final_accuracy": (dims, final),
        }
        return self.found(variables, mode=(("mode",), np.array(MODES)))

    def checks(self, record: Record) -> list[Check]:
        """The frame matters little: exponents after flossing agree, and so does success."""
        found: list[Check] = []
        ours: dict[str, Any] = {"kind": "question", "source": "ours"}
        for i, mode in enumerate(record["mode"]):
            first = record["exponents"][i, ..., 0]
            spread = float(first.std(-1, ddof=1).mean())
            sentence = f"{mode}: standard deviation of lambda_1 over frames"
            found.append(at_most(f"{mode} spread", sentence, 0.1, spread, **ours))
            success = float((record["final_accuracy"][i] > SOLVED).mean())
            sentence = f"{mode}: share of frames after which the task is solved"
            found.append(at_least(f"{mode} solved", sentence, 0.5, success, **ours))
        return found

    def _floss(self, model: Model, task: LaggedTask, ids: Tensor, frame_ids: Tensor) -> None:
        """Floss every network in its own way; what `train` does, but for the frames."""
        cell, phase, ensemble = model.cell, FlossPhase(self.floss_epochs), tuple(ids.shape)
        optimizer = MemberOptimizer(list(cell.parameters()), ensemble, phase.lr, Adam())
        state = model.initial_state(1)
        assert state is not None
        mode = torch.arange(len(MODES))[:, None, None, None, None, None]
        carried = self._frames(frame_ids, 0)
        for epoch in range(self.floss_epochs):
            drawn = torch.where(mode == MODES.index("fixed"), self._frames(frame_ids, 0), carried)
            frames = torch.where(mode == MODES.index("redrawn"), self._frames(frame_ids, epoch), drawn)
            inputs = self._inputs(task, ids, epoch, phase.steps, "floss")
            spectrum = lyapunov_spectrum(
                cell,
                inputs,
                k=self.k,
                h0=state.detach(),
                tangent_transient=phase.tangent_transient,
                frame=frames,
            )
            loss = flossing_loss(spectrum.exponents)
            gradients = torch.autograd.grad(loss, optimizer.parameters)
            optimizer.step(Clip(self.floss_clip)(gradients, ensemble))
            carried = spectrum.final_frame.detach()

    def _frames(self, frame_ids: Tensor, epoch: int) -> Tensor:
        """`(mode, delay, frame, 1, n, k)`: every frame id its own columns."""
        frame = random_frame(self.hidden_size, self.k, Stream(self.seed, "frame"), frame_ids, epoch)
        return frame.unsqueeze(-3)

    @torch.no_grad()
    def _spectrum(self, model: Model, task: LaggedTask, ids: Tensor) -> Tensor:
        inputs = self._inputs(task, ids, 0, 100 + self.measure, "measure")
        spectrum = lyapunov_spectrum(
            model.cell, inputs, k=self.k, h0=model.initial_state(1), tangent_transient=100
        )
        return spectrum.exponents[..., 0, :]

    def _inputs(self, task: LaggedTask, ids: Tensor, epoch: int, length: int, stream: str) -> Tensor:
        return task.inputs(Draw(self.seed, length, member_ids=ids, epoch=epoch, stream=stream))
