"""Cheaper flossing: what may be saved before accuracy suffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch.experiments.beyond.learning import Learning
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.gradient_flossing.setting import Condition
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase


@dataclass(frozen=True)
class CheapFlossing(Learning):
    """Preflossed networks learn the temporal XOR; a group for each way to save work in flossing.

    Ways: fewer QR steps (interval), shorter scans (steps), fewer exponents (k), a gradient that does not
    follow the trajectory, or only for some steps (state_grad), fewer flossing steps (epochs), and several of
    them together. The first group is not flossed, the second flossed as published.

    Attributes:
        fewest: least share of the published accuracy beyond chance that counts as kept.
    """

    delays: tuple[int, ...] = (30, 40, 50)
    seeds: int = 10
    fewest: float = 0.85

    figure: ClassVar[str] = "cheap-flossing"
    shows: ClassVar[str] = "accuracy against the cost of flossing, over interval, steps, k and state_grad"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Learning.SMOKE, "delays": (4,)},
        "small": {**Learning.SMALL, "delays": (16, 20)},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "3 s", "small": "25 s", "paper": "a day; 1 h on a GPU"}

    def ways(self) -> dict[str, FlossPhase | None]:
        """Flossing of each group."""
        full = FlossPhase(self.floss_epochs, k=self.k, clip=self.floss_clip)
        return {
            "none": None,
            "published": full,
            "interval 2": replace(full, interval=2),
            "interval 4": replace(full, interval=4),
            "28 steps": replace(full, steps=28, tangent_transient=8),
            "14 steps": replace(full, steps=14, tangent_transient=4),
            "k / 2": replace(full, k=max(1, self.k // 2)),
            "k / 4": replace(full, k=max(1, self.k // 4)),
            "state_grad 5": replace(full, state_grad=5),
            "detach": replace(full, state_grad="detach"),
            "epochs / 4": replace(full, epochs=max(1, self.floss_epochs // 4)),
            "together": replace(full, interval=2, steps=28, tangent_transient=8, state_grad="detach"),
        }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy (way, delay, seed, epoch)`, `final_accuracy`, and the cost of flossing of each way."""
        ways = self.ways()
        model, task, ids = self.networks([Condition("")] * len(ways))
        group = torch.arange(len(ways))[:, None, None].expand(ids.shape)
        phases = tuple(replace(p, who=group == i) for i, p in enumerate(ways.values()) if p is not None)
        seconds = [p.epochs * self.seconds(p) if p else 0.0 for p in ways.values()]
        record, final = self.learn(
            model, task, (*phases, FitPhase(self.epochs)), ids, checkpoint, show_progress
        )
        dims = ("way", "delay", "seed")
        flops = np.nan_to_num(record["floss_flops"]).reshape(ids.shape)[:, 0, 0]
        variables: dict[str, Given] = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "final_accuracy": (dims, final),
            "flops": (("way",), flops),
            "seconds": (("way",), np.array(seconds), {"units": "s of one core, for each network"}),
        }
        coordinates: dict[str, Given] = {
            "way": (("way",), np.array(list(ways))),
            "delay": (("delay",), np.array(self.delays)),
        }
        return Record(f"beyond {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """What keeps the accuracy of published flossing, and what the cheapest that does costs."""
        ways = record["way"].tolist()
        gained = record["final_accuracy"].mean((1, 2)) - record["final_accuracy"][0].mean()
        full = ways.index("published")
        found = [at_least("accuracy that published flossing adds", 0.1, float(gained[full]))]
        kept = gained / gained[full] if gained[full] > 0 else np.full(len(ways), np.nan)
        for i, way in enumerate(ways):
            if way not in ("none", "published"):
                found.append(at_least(f"{way}: share of it that remains", self.fewest, float(kept[i])))
        enough = [i for i in range(1, len(ways)) if kept[i] >= self.fewest]
        for name in ("flops", "seconds"):
            share = record[name][enough].min() / record[name][full] if enough else np.nan
            found.append(at_most(f"{name} of the cheapest that keeps it, over published", 0.5, float(share)))
        return found
