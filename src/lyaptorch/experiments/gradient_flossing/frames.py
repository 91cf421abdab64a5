"""What the initial frame of flossing matters: fixed, redrawn each epoch, or carried over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import random_frame
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition, Setting
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FlossPhase, flossing_loss
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.lagged import LaggedTask
from lyaptorch.training import Adam, Model, evaluate
from lyaptorch.training.optim import MemberOptimizer
from lyaptorch.training.steps import Clip

MODES = ("fixed", "redrawn", "carried over")
SOLVED = 0.9
"""Accuracy from which on a task counts as solved."""


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

    figure: ClassVar[str] = "frames"
    shows: ClassVar[str] = "spread of exponents and success over initial frames: fixed, redrawn, carried over"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "delays": (4,), "epochs": 10, "floss_epochs": 4, "measure": 60},
        "small": {"delays": (20,), "seeds": 3, "epochs": 600, "floss_clip": 1.0},
    }
    cost: ClassVar[Mapping[str, str]] = {
        "smoke": "3 s",
        "small": "30 s",
        "paper": "a day; minutes on a GPU",
    }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`exponents (mode, delay, frame, index)` after flossing, `accuracy`, `final_accuracy`."""
        conditions = tuple(Condition(mode) for mode in MODES)
        model, task, ids = self.networks(conditions, same=True)
        frame_ids = torch.arange(self.seeds).expand(ids.shape)
        self._floss(model, task, ids, frame_ids)
        exponents = self._spectrum(model, task, ids)
        record = self.train(model, task, conditions, ids, checkpoint, show_progress)
        _, final = evaluate(
            model, task, batch=self.batch, length=self.length, member_ids=ids, generator=self._generator()
        )
        dims = ("mode", "delay", "frame")
        variables: dict[str, Given] = {
            "exponents": ((*dims, "index"), exponents, {"units": "nats per step"}),
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "final_accuracy": (dims, final),
        }
        return self.record(variables, mode=(("mode",), np.array(MODES)))

    def checks(self, record: Record) -> list[Check]:
        """The frame matters little: exponents after flossing agree, and so does success."""
        found = []
        for i, mode in enumerate(record["mode"]):
            first = record["exponents"][i, ..., 0]
            spread = float(first.std(-1, ddof=1).mean())
            found.append(at_most(f"{mode}: standard deviation of lambda_1 over frames", 0.1, spread))
            success = float((record["final_accuracy"][i] > SOLVED).mean())
            found.append(at_least(f"{mode}: share of frames after which the task is solved", 0.5, success))
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
        return task.inputs(self.seed, member_ids=ids, epoch=epoch, batch=1, length=length, stream=stream)
