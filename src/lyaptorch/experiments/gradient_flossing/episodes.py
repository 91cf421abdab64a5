"""Gradients over training with flossing episodes at 0, 100, 200, 300 and 400: figures 8 and 9."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.analysis import aligned, onset
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.gradient_flossing.setting import SMOKE, Condition, Setting
from lyaptorch.record import Given, Record
from lyaptorch.training.metrics import initial_gradient_norm

ROSE = 10.0
"""How many times a gradient must exceed that of the network without flossing to count as risen."""


@dataclass(frozen=True)
class Episodes(Setting):
    """Networks that are flossed before training and in several episodes early in it.

    Attributes:
        episodes: task epochs of the episodes after the first.
        every: task epochs between measurements of the gradient.
    """

    episodes: tuple[int, ...] = (100, 200, 300, 400)
    every: int = 10

    figure: ClassVar[str] = "episodes"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**SMOKE, "delays": (4,), "floss_epochs": 3, "episodes": (5, 10), "every": 2},
        "small": {"delays": (20, 40), "seeds": 3, "epochs": 1500, "floss_clip": 1.0},
    }
    cost: ClassVar[Mapping[str, str]] = {
        "smoke": "10 s",
        "small": "80 s",
        "paper": "hours; minutes on a GPU",
    }

    def trained(
        self, conditions: int, metric: str, checkpoint: Path | None, show_progress: bool | None
    ) -> tuple[Record, Tensor]:
        """The Record of training, the last condition flossed, and |dL/dh0| before it."""
        treated = (Condition("none"), Condition("flossed", before=True, episodes=self.episodes))[-conditions:]
        model, task, ids = self.networks(treated)
        first = task.draw(self.seed, member_ids=ids, epoch=0, batch=self.batch, length=self.length)
        before = initial_gradient_norm(model, first)
        record = self.train(model, task, treated, ids, checkpoint, show_progress, (metric,), self.every)
        return record, before


@dataclass(frozen=True)
class Fig8(Episodes):
    """|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, 200, 300, 400."""

    figure: ClassVar[str] = "fig8"
    shows: ClassVar[str] = "|dL/dh0| and accuracy over epochs, with flossing episodes at 0, 100, ..., 400"

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy (delay, seed, epoch)`, `gradient_norm (delay, seed, measurement)`, `unflossed_norm`."""
        shape, dims = (len(self.delays), self.seeds), ("delay", "seed")
        record, unflossed = self.trained(1, "initial_gradient_norm", checkpoint, show_progress)
        norms = record["initial_gradient_norm"].reshape(*shape, -1)
        return self.record(
            {
                "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
                "gradient_norm": ((*dims, "measurement"), norms),
                "unflossed_norm": (dims, unflossed[0]),
                "measured_at": (("measurement",), record["measured_at"][0].astype(np.int64)),
            }
        )

    def checks(self, record: Record) -> list[Check]:
        """In most networks that learn, the gradient has risen tenfold before accuracy leaves chance."""
        earlier, learned = 0, 0
        for accuracy, norm, unflossed in zip(
            record["accuracy"].reshape(-1, self.epochs),
            record["gradient_norm"].reshape(-1, len(record["measured_at"])),
            record["unflossed_norm"].reshape(-1),
            strict=True,
        ):
            left_chance = onset(torch.from_numpy(accuracy)).item()
            if left_chance == left_chance:
                learned += 1
                earlier += bool(norm[record["measured_at"] <= left_chance].max() >= ROSE * unflossed)
        share = earlier / learned if learned else float("nan")
        return [
            at_least("share of networks that leave chance", 0.5, learned / record["unflossed_norm"].size),
            at_least("of these, share in which |dL/dh0| rose tenfold before", 0.5, share),
        ]


@dataclass(frozen=True)
class Fig9(Fig8):
    """The networks of figure 8, each aligned to its own last epoch at chance, and of small gradients.

    Attributes:
        window: epochs shown before and after.
        accuracy_level: beyond which accuracy is not that of chance.
        norm_level: |dL/dh0| beyond which a gradient is not small; ours, because the paper's is lost.
    """

    window: int = 1000
    accuracy_level: float = 0.6
    norm_level: float = 1e-4

    figure: ClassVar[str] = "fig9"
    shows: ClassVar[str] = "|dL/dh0| and accuracy aligned to the last epoch at chance, and of small gradients"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Episodes.scales["smoke"], "window": 8, "accuracy_level": 0.3},
        "small": {**Episodes.scales["small"], "window": 500},
    }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """That of figure 8, `chance_ends`, `small_ends (delay, seed)` and the aligned curves."""
        record = super().run(show_progress, checkpoint)
        dims, places = ("delay", "seed"), self.window // self.every
        accuracy, norms = (torch.from_numpy(record[name]) for name in ("accuracy", "gradient_norm"))
        chance = onset(accuracy, self.accuracy_level, which="last")
        # after learning the loss, and every gradient with it, goes to zero: that counts for nothing
        at = torch.from_numpy(record["measured_at"])
        while_at_chance = torch.where(at > chance.unsqueeze(-1), torch.inf, norms)
        small = self.every * onset(while_at_chance, self.norm_level, width=1, which="last")
        aligned_norm = aligned(norms, (chance / self.every).round(), places, places)
        variables: dict[str, Given] = {
            **record.variables,
            "chance_ends": (dims, chance),
            "small_ends": (dims, small),
            "aligned_norm": ((*dims, "place"), aligned_norm),
            "aligned_accuracy": ((*dims, "offset"), aligned(accuracy, small, self.window, self.window)),
        }
        offsets = np.arange(-self.window, self.window + 1)
        return self.record(
            variables,
            offset=(("offset",), offsets),
            place=(("place",), self.every * np.arange(-places, places + 1)),
        )

    def checks(self, record: Record) -> list[Check]:
        """Gradients are not small any more before accuracy leaves chance for good."""
        learned = np.isfinite(record["chance_ends"])
        earlier = record["small_ends"][learned] < record["chance_ends"][learned]
        share = float(earlier.mean()) if learned.any() else float("nan")
        lead = (record["chance_ends"] - record["small_ends"])[learned]
        lead = float(np.nanmedian(lead)) if np.isfinite(lead).any() else float("nan")
        return [
            at_least("share of networks that leave chance for good", 0.5, float(learned.mean())),
            at_least("of these, share whose gradient grew before", 0.5, share),
            at_least("median lead of the gradient, epochs", float(self.every), lead),
        ]


@dataclass(frozen=True)
class Fig12(Episodes):
    """Accuracy, error and gradient norm: no flossing, early episodes, and episodes to the end.

    Attributes:
        period: task epochs between episodes of the networks that are flossed to the end.
    """

    period: int = 100

    figure: ClassVar[str] = "fig12"
    shows: ClassVar[str] = "flossing every 100 epochs to the end: accuracy, error, |dL/dh0| (a-c)"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Episodes.scales["smoke"], "period": 4},
        "small": {"delays": (30,), "seeds": 2, "epochs": 1200, "floss_epochs": 200, "floss_clip": 1.0},
    }
    cost: ClassVar[Mapping[str, str]] = {**Episodes.cost, "small": "1 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`accuracy`, `loss (condition, delay, seed, epoch)`, `gradient_norm (..., measurement)`."""
        throughout = tuple(range(self.period, self.epochs, self.period))
        conditions = (
            Condition("none"),
            Condition("early", before=True, episodes=self.episodes),
            Condition("throughout", before=True, episodes=throughout),
        )
        model, task, ids = self.networks(conditions)
        metric = "initial_gradient_norm"
        record = self.train(model, task, conditions, ids, checkpoint, show_progress, (metric,), self.every)
        dims = ("condition", "delay", "seed")
        variables: dict[str, Given] = {
            name: ((*dims, "epoch"), record[name].reshape(*ids.shape, -1)) for name in ("accuracy", "loss")
        }
        variables["gradient_norm"] = ((*dims, "measurement"), record[metric].reshape(*ids.shape, -1))
        variables["measured_at"] = (("measurement",), record["measured_at"][0].astype(np.int64))
        return self.record(variables, condition=(("condition",), np.array([c.name for c in conditions])))

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
        return [
            at_least(
                "networks and late episodes before which accuracy is above 0.6", 1.0, float(above.sum())
            ),
            at_least("of these, share after which accuracy is lower by 0.05", 0.8, share),
            at_least("accuracy at the end, early episodes alone above episodes to the end by", 0.02, lead),
        ]
