"""What does not replace flossing: penalties on single steps, gain and clipping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.gradient_flossing.counts import CHANCE
from lyaptorch.experiments.gradient_flossing.delays import DelaySweep
from lyaptorch.experiments.gradient_flossing.frames import SOLVED
from lyaptorch.experiments.gradient_flossing.setting import LAGGED, SMOKE, Condition
from lyaptorch.experiments.starts import mean_field_gain
from lyaptorch.record import Record

UNCLIPPED = 1e6
"""A norm that no gradient reaches."""


@dataclass(frozen=True)
class Controls(DelaySweep):
    """Flossing beside what could replace it, on the binary temporal XOR.

    Three penalties that look at single steps, minimised before training as exponents are; the gain at which
    mean-field theory puts lambda_1 at 0; task gradients that are not clipped; and the flossing loss added to
    the task loss instead of phases of its own, which is no control but flossing in another form.

    Attributes:
        joint_weight: of the flossing loss beside the task loss; ours.
    """

    delays: tuple[int, ...] = (40,)
    joint_weight: float = 0.1

    figure: ClassVar[str] = "controls"
    shows: ClassVar[str] = "penalties on single steps, gain and clipping in place of flossing; joint loss"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "delays": (4,)},
        "small": {"delays": (30,), "seeds": 2, "epochs": 1000, "floss_epochs": 400, "floss_clip": 1.0},
    }

    def conditions(self) -> tuple[Condition, ...]:
        """Flossing first, then what leaves networks at chance, then the joint loss."""
        gain = mean_field_gain(LAGGED[self.task](torch.tensor(self.delays[0])))
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

    def checks(self, record: Record) -> list[Check]:
        """Controls stay at chance where flossing solves."""
        found = []
        for j, delay in enumerate(record["delay"].tolist()):
            for i, name in enumerate(record["condition"]):
                mean = float(record["final_accuracy"][i, j].mean())
                if i == 0:
                    found.append(at_least(f"d = {delay}: accuracy, {name}", SOLVED, mean))
                elif name != "joint loss":
                    found.append(at_most(f"d = {delay}: accuracy, {name}", CHANCE, mean))
        return found
