"""Cheaper flossing: ways to save work, and k, steps and interval that follow from the spectrum."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.experiments.beyond.learners import LEARNED, Learning, asks_at_least, asks_at_most, figure
from lyaptorch.experiments.check import OURS, Checks, at_most, where
from lyaptorch.experiments.figure import Results, Study, coordinates
from lyaptorch.experiments.gradient_flossing.setting import Condition
from lyaptorch.plots.primitives import (
    GREY,
    ORANGE,
    PALETTE,
    footnote,
    label_accuracy,
    label_spectra,
    look,
    picture,
    scores,
    spectrum,
)
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase, Schedule
from lyaptorch.tangent import mean_over_trajectories
from lyaptorch.tasks import TemporalXOR


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
    _, delays, networks = record["final_accuracy"].shape
    footnote(axes[0], f"n = {networks} networks at {delays} delays", "mean; bars: 25-75% of networks")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)


@figure(
    "cheap-flossing",
    "accuracy against the cost of flossing, over interval, steps, k and state_grad",
    cost=("3 s", "25 s", "4 h"),
    smoke={"delays": (4,)},
    small={"delays": (16, 20)},
    draw=costs,
)
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
        full = self.flossing(interval=1)
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
        networks = self.networks([Condition("")] * len(ways))
        shape = networks.ids.shape
        group = torch.arange(len(ways))[:, None, None].expand(shape)
        phases = tuple(replace(p, who=group == i) for i, p in enumerate(ways.values()) if p is not None)
        seconds = [p.epochs * self.seconds(p) if p else 0.0 for p in ways.values()]
        schedule: Schedule = (*phases, FitPhase(self.epochs))
        record, learned = study.learn(*networks, ("way", "delay", "seed"), schedule=schedule, **self.trial)
        # networks that are never flossed have no operations of it: NaN
        flops = np.nan_to_num(record["floss_flops"]).reshape(shape)[:, 0, 0]
        variables: dict[str, Given] = {
            **learned,
            "flops": (("way",), flops),
            "seconds": (("way",), np.array(seconds), {"units": "s of one core, for each network"}),
        }
        return variables, coordinates(delay=self.delays, way=list(ways))

    def claims(self, record: Record) -> Checks:
        """What keeps the accuracy of published flossing, and what the cheapest that does costs."""
        ways = record["way"].tolist()
        gained = record["final_accuracy"].mean((1, 2)) - record["final_accuracy"][0].mean()
        full = ways.index("published")
        sentence = "mean accuracy, published flossing − not flossed"
        # where unflossed networks learn all, or flossed ones nothing, flossing has nothing to add
        finals = record["final_accuracy"].mean((1, 2))
        tells = finals[0] < SOLVED and record["final_accuracy"][[0, full]].max() > LEARNED
        yield asks_at_least("published", sentence, 0.1, where(tells, gained[full]))
        # a share of nothing, or of a loss, says nothing
        kept = gained / gained[full] if tells and gained[full] > 0 else np.full(len(ways), np.nan)
        for share, way in zip(kept, ways, strict=True):
            if way not in ("none", "published"):
                sentence = f"{way}: gain in accuracy / gain of published flossing"
                yield asks_at_least(way, sentence, self.fewest, share)
        enough = [i for i in range(1, len(ways)) if kept[i] >= self.fewest]
        for name, kind in (("flops", "question"), ("seconds", "timing")):
            # not decided where none keeps enough
            share = record[name][enough].min() / record[name][full] if enough else np.nan
            sentence = (
                f"{name} of the cheapest flossing that keeps {self.fewest:.0%} of the published gain / of "
                "published flossing"
            )
            yield at_most(f"cheapest {name}", sentence, 0.5, share, **{**OURS, "kind": kind})


SOLVED = 0.9
"""Mean accuracy from which there is nothing to add."""
WAYS = ("none", "published", "auto")
REACH = 3.0
"""A direction that falls behind the first by more than this in a step, 3 nats, is left alone."""
ROUND_OFF = 5.5
"""Half of the 11 nats by which directions may part between two QR steps in float32."""
ERROR = 0.05
"""Standard error, in nats per step, with which a scan should know an exponent."""
MEASURED = 400
"""Steps of the scan from which all is chosen."""


def chosen_flossing(exponents: Tensor, fluctuation: Tensor, epochs: int) -> FlossPhase:
    """Flossing as the whole spectrum suggests it.

        k         = #{i: lambda_i > lambda_1 - REACH}
        interval  = ROUND_OFF / (lambda_1 - lambda_k)
        transient = (k - 1) / (lambda_1 - lambda_k): in which neighbouring directions part by a factor e
        counted   = (s / ERROR)^2, s the median fluctuation of these k

    The transient is 30 steps at most, and 8 to 100 steps are counted.

    Args:
        exponents: `(networks, n)`; their mean is taken.
        fluctuation: `(networks, n)`, standard errors times the square root of the steps.
        epochs: flossing steps.

    Example:
        >>> phase = chosen_flossing(torch.tensor([[0.0, -1.0, -2.0, -9.0]]), torch.full((1, 4), 0.19), 100)
        >>> phase.k, phase.interval, phase.tangent_transient, phase.steps
        (3, 2, 1, 16)
    """
    mean, order = mean_over_trajectories(exponents).sort(descending=True)
    k = max(1, int((mean > mean[0] - REACH).sum()))
    # a flat spectrum, as of an orthogonal W, has no spread: then transient and interval meet their limits
    spread = max(float(mean[0] - mean[k - 1]), 1e-3)
    # neighbours lie spread / (k - 1) apart and part by a factor e in the inverse of that
    transient = min(30, round((k - 1) / spread))
    # s / sqrt(counted) = ERROR
    single = float(fluctuation.mean(0)[order[:k]].median())
    counted = math.ceil(min(100.0, max(8.0, (single / ERROR) ** 2)))
    return FlossPhase(
        epochs,
        k=k,
        steps=transient + counted,
        tangent_transient=transient,
        interval=max(1, min(counted, int(ROUND_OFF / spread))),
    )


@picture(lambda record: 1 + len(record["gain"]), width=3.1)
def choices(record: Record, axes: list[Axes]) -> None:
    """Spectra and what is chosen from them; accuracy against delay for each gain."""
    spectra, *learning = axes
    for j, (gain, panel) in enumerate(zip(record["gain"], learning, strict=True)):
        mean, color = record["exponents"][j].mean(0), look(j)[0]
        spectrum(spectra, mean, color, f"$g = {gain:g}$")
        k = int(record["k"][j])
        spectra.plot(k, mean[k - 1], "o", color=color, markersize=5)
        for i, way in enumerate(record["way"]):
            scores(panel, record["delay"], record["final_accuracy"][j, i], PALETTE[i], str(way))
        label_accuracy(panel, "delay")
        words = f"$k$ = {k}, {record['steps'][j]} steps, interval {record['interval'][j]}"
        panel.set_title(f"$g = {gain:g}$: {words}", fontsize=8)
    label_spectra(spectra, "Before flossing")
    spectra.legend()
    learning[0].legend()
    counted = f"n = {record['final_accuracy'].shape[-1]} networks"
    footnote(spectra, counted, "spectra: mean", "accuracy: each, and their mean")


@figure(
    "auto-flossing",
    "k, steps and interval chosen from the spectrum, against the published ones",
    cost=("2 s", "15 s", "3 h"),
    smoke={"delays": (4,), "gains": (0.5, 1.0)},
    small={"delays": (16, 20)},
    draw=choices,
)
class AutoFlossing(Learning):
    """Networks of several gains learn the temporal XOR: not flossed, as published, as chosen for each gain.

    Attributes:
        gains: of the initial recurrent weights.
    """

    gains: tuple[float, ...] = (0.5, 1.0, 1.5)
    delays: tuple[int, ...] = (20, 30, 40)
    seeds: int = 10

    def run(self, study: Study) -> Results:
        """`final_accuracy (gain, way, delay, seed)`, `flops (gain, way)`, spectra, and what was chosen."""
        shape = (len(self.gains), len(WAYS), len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        task = TemporalXOR(torch.tensor(self.delays)[:, None].expand(shape))
        model = self.model(task, ids, gain=self._gains(ids))
        exponents, fluctuation = self._spectra(study)
        chosen = [
            chosen_flossing(*pair, self.floss_epochs) for pair in zip(exponents, fluctuation, strict=True)
        ]
        # position of each network in gains and ways, to say who takes part in which phase
        gain = torch.arange(shape[0])[:, None, None, None].expand(shape)
        way = torch.arange(shape[1])[:, None, None].expand(shape)
        published = self.flossing(way == 1, interval=1)
        own = [
            replace(phase, clip=self.floss_clip, who=(gain == i) & (way == 2))
            for i, phase in enumerate(chosen)
        ]
        schedule: Schedule = (published, *own, FitPhase(self.epochs))
        dims = ("gain", "way", "delay", "seed")
        record, learned = study.learn(model, task, ids, dims, schedule=schedule, **self.trial)
        flops = np.nan_to_num(record["floss_flops"]).reshape(shape)[:, :, 0, 0]
        settings = ("k", "steps", "tangent_transient", "interval")
        variables: dict[str, Given] = {
            **learned,
            "flops": (("gain", "way"), flops),
            "exponents": (("gain", "seed", "rank"), exponents, {"units": "nats per step"}),
            **{name: (("gain",), np.array([getattr(p, name) for p in chosen])) for name in settings},
        }
        return variables, coordinates(delay=self.delays, gain=self.gains, way=WAYS)

    def claims(self, record: Record) -> Checks:
        """Chosen flossing does what published flossing does, for less."""
        mean = record["final_accuracy"].mean((-1, -2))
        for i, gain in enumerate(record["gain"]):
            none, published, auto = (float(value) for value in mean[i])
            key, name = f"g {gain:g}", f"g = {gain:g}"
            known = record["final_accuracy"][i].max() > LEARNED
            sentence = f"{name}: accuracy, chosen − published flossing"
            yield asks_at_least(f"{key} published", sentence, 0.0, where(known, auto - published), 0.05)
            sentence = f"{name}: accuracy, chosen flossing − not flossed"
            yield asks_at_least(f"{key} none", sentence, 0.1, where(known and none < SOLVED, auto - none))
            sentence = f"{name}: operations of flossing, chosen / published"
            share = record["flops"][i, 2] / record["flops"][i, 1]
            yield asks_at_most(f"{key} operations", sentence, 1.0, share)

    def _gains(self, ids: Tensor) -> Tensor:
        """Of networks `ids (gain, ..., seed)`, equal in all dimensions between."""
        return torch.tensor(self.gains).reshape(-1, *[1] * (ids.dim() - 1)).expand(ids.shape)

    def _spectra(self, study: Study) -> tuple[Tensor, Tensor]:
        """Exponents `(gain, seed, n)` on inputs of the task, and their fluctuation from step to step."""
        ids, task = torch.arange(self.seeds).expand(len(self.gains), self.seeds), TemporalXOR(self.delays[0])
        model = self.model(task, ids, gain=self._gains(ids))
        found = self.spectrum(model, task, ids, MEASURED, transient=50)
        # stderr = s / sqrt(steps)
        return found.exponents[..., 0, :], found.stderr()[..., 0, :] * MEASURED**0.5
