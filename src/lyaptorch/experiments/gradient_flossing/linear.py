"""Linear networks, which can copy but not combine: appendix E."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.gradient_flossing.delays import DelaySweep
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition
from lyaptorch.record import Given, Record

TASKS = ("delayed_copy", "temporal_xor")


@dataclass(frozen=True)
class LinearNetworks(DelaySweep):
    """Share of variance explained by linear networks, preflossed or not: copy and temporal XOR of numbers.

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

    figure: ClassVar[str] = "appE"
    shows: ClassVar[str] = "linear networks, preflossed or not, on the copy and the temporal XOR of numbers"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": SMOKE,
        "small": {"delays": (20, 40), "seeds": 2, "epochs": 600, "floss_clip": 1.0},
    }
    cost: ClassVar[Mapping[str, str]] = {**DelaySweep.cost, "small": "50 s"}

    def conditions(self) -> tuple[Condition, ...]:
        """None and before, at the gain."""
        return (Condition("none", gain=self.gain), Condition("before", before=True, gain=self.gain))

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """The variables of a sweep, each with `task` as first dimension."""
        found = []
        for task in TASKS:
            path = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{task}")
            found.append(replace(self, task=task).swept(path, show_progress)[0])
        variables: dict[str, Given] = {
            name: (("task", *given[0]), np.stack([np.asarray(one[name][1]) for one in found]))
            for name, given in found[0].items()
        }
        record = self.swept_record(variables)
        return Record(
            record.kind,
            record.config,
            variables,
            {**record.coordinates, "task": (("task",), np.array(TASKS))},
        )

    def checks(self, record: Record) -> list[Check]:
        """Flossing helps to copy; no linear network solves the XOR."""
        copy, xor = record["final_accuracy"].mean(-1)
        gain = copy[1] - copy[0]
        found = [at_least("copy: variance explained, gain of flossing at its best", 0.1, float(gain.max()))]
        for condition, row in zip(record["condition"], xor, strict=True):
            name = "not flossed" if condition == "none" else f"flossed {condition}"
            found.append(at_most(f"temporal XOR: most variance explained, {name}", 0.1, float(row.max())))
        return found
