"""The demonstration of `lyap demo`: flossing makes an untrainable network trainable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch.experiments.figure import Study
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tangent import Spectrum, lyapunov_spectrum
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model
from lyaptorch.training.presets import gf2023

TRANSIENT = 100
"""Steps before, and again while, the frame settles, when the spectrum is measured."""


@dataclass(frozen=True)
class Demo:
    """Plain and preflossed copies of the same networks learn the same binary temporal XOR.

    Attributes:
        delay: longest lag of the task, even.
        seeds: networks in each of the two groups.
        hidden_size: units n.
        k: exponents flossed.
        floss_epochs: flossing steps before training.
        floss_clip: largest norm of a flossing gradient. The paper has no limit; then the rare huge gradients
            of a nearly singular step stall Adam, and one network in eight or so hardly flosses.
        epochs: training steps.
        batch: trajectories of a training step.
        length: steps of a trial.
        measure: steps over which the spectrum is measured.
        seed: determines everything.
    """

    delay: int = 30
    seeds: int = 3
    hidden_size: int = 80
    k: int = 75
    floss_epochs: int = 500
    floss_clip: float = 1.0
    epochs: int = 600
    batch: int = 16
    length: int = 300
    measure: int = 500
    seed: int = 1

    def check(self) -> None:
        """Raise before any work what would be raised in the middle of it."""
        for name in ("seeds", "hidden_size", "floss_epochs", "batch", "length", "measure"):
            _checks.integer(name, getattr(self, name), 1)
        _checks.integer("epochs", self.epochs, 0)
        _checks.rate("floss_clip", self.floss_clip)
        _checks.seed(self.seed)

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """Floss one group, measure both spectra, train all together; resume from `checkpoint` if it exists.

        Returns:
            A Record with `accuracy`, `loss (member, epoch)`, `exponents (member, floss_epoch, index)`,
            `spectrum`, `spectrum_error (member, rank)` before training, `final_accuracy (member)` on fresh
            batches, and the coordinates `flossed`, `network (member)`.
        """
        self.check()
        study = Study(self.seed, show_progress, checkpoint)
        # the same ids in both groups, and so the same weights and batches
        networks = torch.arange(self.seeds).repeat(2, 1)
        flossed = torch.tensor([False, True])[:, None].expand(2, self.seeds)
        task = TemporalXOR(self.delay)
        model = gf2023(task, hidden_size=self.hidden_size, rows=self.batch, **study.ensemble(networks))
        # a trial that is too short for the delay is refused now, not after the flossing
        task.draw(Draw(0, self.length, member_ids=networks))
        sizes: dict[str, Any] = {"batch": self.batch, "steps": self.length, "member_ids": networks}
        pre = FlossPhase(self.floss_epochs, k=self.k, clip=self.floss_clip, who=flossed)
        before = study.part("floss").train(model, task, (pre,), **sizes)
        spectrum = self._spectrum(model, task, networks)
        after = study.part("fit").train(model, task, (FitPhase(self.epochs),), **sizes)
        ranks, nats = ("member", "rank"), {"units": "nats per step"}
        variables: dict[str, Any] = {
            **{name: after.variables[name] for name in ("accuracy", "loss")},
            **{name: before.variables[name] for name in ("exponents", "floss_loss")},
            "spectrum": (ranks, spectrum.exponents.reshape(-1, self.hidden_size), nats),
            "spectrum_error": (ranks, spectrum.stderr().reshape(-1, self.hidden_size), nats),
            "final_accuracy": study.evaluate(model, task, **sizes).variables["accuracy"],
        }
        coordinates = {
            "flossed": (("member",), flossed.reshape(-1)),
            "network": (("member",), networks.reshape(-1)),
        }
        return Record("demo", asdict(self), variables, coordinates)

    @torch.no_grad()
    def _spectrum(self, model: Model, task: TemporalXOR, networks: Tensor) -> Spectrum:
        seed = Stream(self.seed, "demo").seed
        inputs = task.inputs(Draw(seed, 2 * TRANSIENT + self.measure, member_ids=networks, stream="spectrum"))
        return lyapunov_spectrum(
            model.cell,
            inputs,
            h0=model.initial_state(1),
            transient=TRANSIENT,
            tangent_transient=TRANSIENT,
        )
