"""Cheaper ways of flossing: their cost, and the accuracy that they keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, Kind, at_least, at_most
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.setting import Condition
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import picture
from lyaptorch.plots.style import GREY, ORANGE, PALETTE
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase


@picture(2, width=4.6, height=3.6)
def costs(record: Record, axes: list[Axes]) -> None:
    """Mean accuracy of each way of flossing against its operations, and against its seconds."""
    mean = record["final_accuracy"].mean((1, 2))
    for panel, (name, word) in zip(axes, (("flops", "operations"), ("seconds", "seconds")), strict=True):
        panel.axhline(mean[0], color=GREY, linestyle="--", linewidth=0.9, label="not flossed")
        for i, way in enumerate(record["way"][1:], 1):
            color = ORANGE if way == "published" else PALETTE[(i - 2) % len(PALETTE)]
            marker = "*" if way == "published" else "os^vD"[(i - 2) % 5]
            low, high = np.quantile(record["final_accuracy"][i].mean(0), (0.25, 0.75))
            panel.plot([record[name][i]] * 2, (low, high), color=color, linewidth=0.8, alpha=0.6)
            panel.plot(record[name][i], mean[i], marker, color=color, markersize=6, label=str(way))
        label = f"{word} of flossing of a network"
        panel.set(xscale="log", xlabel=label, ylabel="accuracy", ylim=(0.45, 1.03))
    axes[0].set_title("Accuracy against cost")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)


@declare(
    PAPER,
    "cheap-flossing",
    "accuracy against the cost of flossing, over interval, steps, k and state_grad",
    cost=("3 s", "25 s", "a day; 1 h on a GPU"),
    smoke={**SMOKE, "delays": (4,)},
    small={**SMALL, "delays": (16, 20)},
    draw=costs,
)
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

    def run(self, study: Study) -> Results:
        """`accuracy (way, delay, seed, epoch)`, `final_accuracy`, and the cost of flossing of each way."""
        ways = self.ways()
        model, task, ids = self.networks([Condition("")] * len(ways))
        group = torch.arange(len(ways))[:, None, None].expand(ids.shape)
        phases = tuple(replace(p, who=group == i) for i, p in enumerate(ways.values()) if p is not None)
        seconds = [p.epochs * self.seconds(p) if p else 0.0 for p in ways.values()]
        record, final = self.learn(study, model, task, (*phases, FitPhase(self.epochs)), ids)
        dims = ("way", "delay", "seed")
        flops = np.nan_to_num(record["floss_flops"]).reshape(ids.shape)[:, 0, 0]
        variables: dict[str, Given] = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*ids.shape, -1)),
            "final_accuracy": (dims, final),
            "flops": (("way",), flops),
            "seconds": (("way",), np.array(seconds), {"units": "s of one core, for each network"}),
        }
        return self.found(variables, way=(("way",), np.array(list(ways))))

    def checks(self, record: Record) -> list[Check]:
        """What keeps the accuracy of published flossing, and what the cheapest that does costs."""
        ways = record["way"].tolist()
        gained = record["final_accuracy"].mean((1, 2)) - record["final_accuracy"][0].mean()
        full = ways.index("published")
        sentence, source = "accuracy that published flossing adds", "Gradient Flossing, figure 4c"
        found = [at_least("published", sentence, 0.1, gained[full], source=source)]
        kept = gained / gained[full] if gained[full] > 0 else np.full(len(ways), np.nan)
        for share, way in zip(kept, ways, strict=True):
            if way not in ("none", "published"):
                sentence = f"{way}: share of it that remains"
                found.append(at_least(way, sentence, self.fewest, share, kind="question"))
        enough = [i for i in range(1, len(ways)) if kept[i] >= self.fewest]
        kinds: dict[str, Kind] = {"flops": "question", "seconds": "timing"}
        for name, kind in kinds.items():
            share = record[name][enough].min() / record[name][full] if enough else np.nan
            sentence = f"{name} of the cheapest that keeps it, over published"
            found.append(at_most(f"cheapest {name}", sentence, 0.5, share, kind=kind))
        return found
