"""Cost against reach: cheaper ways of flossing, and flossing against a larger network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, Kind, at_least, at_most
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.gradient_flossing.setting import Condition
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import GREY, ORANGE, PALETTE, label_accuracy, picture, smooth
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training.metrics import fit_flops, floss_flops

SOLVED = 0.9
"""Mean accuracy from which a delay counts as reached."""
WINDOW = 20
"""Epochs over which accuracy is averaged."""
SURPLUS = 1.5
"""How much longer than equal operations ask for the plain networks train, so that equal time is seen, too."""


@picture(4, width=3.1)
def per_cost(record: Record, axes: list[Axes]) -> None:
    """Mean accuracy over all delays against what was spent; accuracy against delay at equal cost."""
    for j, (what, word) in enumerate((("flops", "operations"), ("seconds", "seconds"))):
        spending, reached = axes[2 * j : 2 * j + 2]
        for i, name in enumerate(record["network"]):
            color = ORANGE if i == 0 else PALETTE[(0, 2, 3, 5)[(i - 1) % 4]]
            curve = smooth(record["accuracy"][i], 20).mean((0, 1))
            once, each = record[f"{what}_of_flossing"][i], record[f"{what}_of_an_epoch"][i]
            spending.plot(once + each * np.arange(len(curve)), curve, color=color, label=str(name))
            reached.plot(record["delay"], record[f"at_equal_{what}"][i], "o-", color=color)
        label_accuracy(spending, f"{word} of a network", y="mean accuracy")
        label_accuracy(reached, "delay", f"At equal {word}")
    axes[0].legend()


@declare(
    PAPER,
    "horizon-per-cost",
    "the longest delay reached, flossed or with more units, at equal operations and time",
    cost=("3 s", "20 s", "days; hours on a GPU"),
    smoke={**SMOKE, "delays": (4, 6), "sizes": (8, 12)},
    small={**SMALL, "delays": (8, 12, 16, 20), "sizes": (32, 64)},
    draw=per_cost,
)
@dataclass(frozen=True)
class HorizonPerCost(Learning):
    """Preflossed networks of n units, and plain ones of n and more, learn the temporal XOR.

    Operations and seconds of the flossed networks, flossing included, are the budget of each. Plain networks
    are read where they have spent as much.

    Attributes:
        sizes: units of the plain networks.
        epochs: of the flossed networks.
    """

    delays: tuple[int, ...] = (10, 20, 30, 40, 50)
    seeds: int = 10
    sizes: tuple[int, ...] = (80, 160, 240)

    def run(self, study: Study) -> Results:
        """`accuracy (network, delay, seed, epoch)`, and what was reached `(network, delay)` at equal cost."""
        sizes = (self.hidden_size, *self.sizes)
        budget = self._work(self.hidden_size) * self.epochs + self.floss_epochs * floss_flops(
            self.hidden_size, self.k, FlossPhase(0).steps
        )
        curves, costs = [], []
        for i, n in enumerate(sizes):
            part = replace(
                self,
                hidden_size=n,
                floss_epochs=0 if i else self.floss_epochs,
                epochs=round(SURPLUS * budget / self._work(n)) if i else self.epochs,
            )
            curve, cost = part._train(study.part(i))
            curves.append(curve)
            costs.append(cost)
        longest = max(curve.shape[-1] for curve in curves)
        padded = [
            np.pad(c, ((0, 0), (0, 0), (0, longest - c.shape[-1])), constant_values=np.nan) for c in curves
        ]
        names = [f"n = {n}, flossed" if i == 0 else f"n = {n}" for i, n in enumerate(sizes)]
        return self._results(names, np.stack(padded), np.array(costs))

    def checks(self, record: Record) -> list[Check]:
        """At equal operations, and at equal time, the flossed network reaches as far as each other."""
        found = []
        kinds: dict[str, Kind] = {"flops": "question", "seconds": "timing"}
        for what, kind in kinds.items():
            reached = record[f"at_equal_{what}"]
            horizon = [
                max((d for d, a in zip(self.delays, row, strict=True) if a >= SOLVED), default=0)
                for row in reached
            ]
            once, each = record[f"{what}_of_flossing"], record[f"{what}_of_an_epoch"]
            trained = np.isfinite(record["accuracy"][:, 0, 0]).sum(-1)
            share = (once + trained * each) / (once[0] + self.epochs * each[0])
            for i, name in enumerate(record["network"][1:], 1):
                # so fast that its training ended before
                short = f", which spent {share[i]:.0%} of it" if share[i] < 0.99 else ""
                sentence = f"equal {what}: delay reached flossed, minus that of {name}{short}"
                ahead = float(horizon[0] - horizon[i])
                found.append(at_least(f"{what} {name} delay", sentence, 0.0, ahead, kind=kind))
            sentence = f"equal {what}: mean accuracy flossed, minus the best other"
            ahead = float(reached[0].mean()) - float(reached[1:].mean(-1).max())
            found.append(at_least(f"{what} accuracy", sentence, 0.0, ahead, kind=kind))
        return found

    def _train(self, study: Study) -> tuple[NDArray[np.floating], tuple[float, float, float, float]]:
        """Accuracy `(delay, seed, epoch)`; operations and seconds of all flossing and of one epoch."""
        model, task, ids = self.networks()
        floss, fit = self.flossing(ids >= 0), FitPhase(self.epochs)
        record, _ = self.learn(study, model, task, (floss, fit), ids)
        flops = float(record["floss_flops"][0]) if self.floss_epochs else 0.0
        seconds = self.floss_epochs * self.seconds(floss) if self.floss_epochs else 0.0
        curve = record["accuracy"].reshape(*ids.shape[1:], -1)
        return curve, (flops, self._work(self.hidden_size), seconds, self.seconds(fit))

    def _work(self, n: int) -> float:
        """Operations of an epoch of training."""
        task = TemporalXOR(min(self.delays))
        batch = task.draw(Draw(self.seed, self.length, self.batch))
        return float(fit_flops(batch, n, 1))

    def _results(
        self, names: list[str], curves: NDArray[np.floating], costs: NDArray[np.floating]
    ) -> Results:
        """Curves, costs, and what is reached when all have spent what the flossed networks spend."""
        variables: dict[str, Given] = {"accuracy": (("network", "delay", "seed", "epoch"), curves)}
        for j, what in enumerate(("flops", "seconds")):
            once, each = costs[:, 2 * j], costs[:, 2 * j + 1]
            spent = once[0] + self.epochs * each[0]
            # once + ends * each = spent, or where the training ended before
            ends = np.minimum(((spent - once) / each).astype(int), np.isfinite(curves[:, 0, 0]).sum(-1))
            at = [
                row[..., max(0, e - WINDOW) : max(1, e)].mean((-1, -2))
                for row, e in zip(curves, ends, strict=True)
            ]
            variables |= {
                f"{what}_of_flossing": (("network",), once),
                f"{what}_of_an_epoch": (("network",), each),
                f"at_equal_{what}": (("network", "delay"), np.stack(at)),
            }
        return self.found(variables, network=(("network",), np.array(names)))


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
