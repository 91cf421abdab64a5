"""Flossing whose k, steps and interval follow from the spectrum of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, coordinates, declare
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import PALETTE, label_accuracy, label_spectra, picture, scores, spectrum
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase, Schedule
from lyaptorch.tangent import lyapunov_spectrum, mean_over_trajectories
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw

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
    spread = max(float(mean[0] - mean[k - 1]), 1e-3)
    transient = min(30, round((k - 1) / spread))
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
        mean, color = record["exponents"][j].mean(0), PALETTE[j % len(PALETTE)]
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


@declare(
    PAPER,
    "auto-flossing",
    "k, steps and interval chosen from the spectrum, against the published ones",
    cost=("2 s", "15 s", "a day; 1 h on a GPU"),
    smoke={**SMOKE, "delays": (4,), "gains": (0.5, 1.0)},
    small={**SMALL, "delays": (16, 20)},
    draw=choices,
)
@dataclass(frozen=True)
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
        model = self.model(study, task, ids, gain=self._gains(ids))
        exponents, fluctuation = self._spectra(study)
        chosen = [
            chosen_flossing(*pair, self.floss_epochs) for pair in zip(exponents, fluctuation, strict=True)
        ]
        gain = torch.arange(shape[0])[:, None, None, None].expand(shape)
        way = torch.arange(shape[1])[:, None, None].expand(shape)
        published = self.flossing(way == 1)
        own = [
            replace(phase, clip=self.floss_clip, who=(gain == i) & (way == 2))
            for i, phase in enumerate(chosen)
        ]
        schedule: Schedule = (published, *own, FitPhase(self.epochs))
        record, final = self.learn(study, model, task, schedule, ids)
        flops = np.nan_to_num(record["floss_flops"]).reshape(shape)[:, :, 0, 0]
        dims = ("gain", "way", "delay", "seed")
        settings = ("k", "steps", "tangent_transient", "interval")
        variables: dict[str, Given] = {
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final_accuracy": (dims, final),
            "flops": (("gain", "way"), flops),
            "exponents": (("gain", "seed", "rank"), exponents, {"units": "nats per step"}),
            **{name: (("gain",), np.array([getattr(p, name) for p in chosen])) for name in settings},
        }
        return self.found(variables, **coordinates(gain=self.gains, way=WAYS))

    def checks(self, record: Record) -> list[Check]:
        """Chosen flossing does what published flossing does, for less."""
        mean, found = record["final_accuracy"].mean((-1, -2)), []
        for i, gain in enumerate(record["gain"]):
            none, published, auto = (float(value) for value in mean[i])
            key, name = f"g {gain:g}", f"g = {gain:g}"
            sentence = f"{name}: accuracy, chosen minus published"
            found.append(at_least(f"{key} published", sentence, 0.0, auto - published, 0.05, kind="question"))
            sentence = f"{name}: accuracy, chosen minus not flossed"
            found.append(at_least(f"{key} none", sentence, 0.1, auto - none, kind="question"))
            sentence = f"{name}: operations of flossing, chosen over published"
            share = record["flops"][i, 2] / record["flops"][i, 1]
            found.append(at_most(f"{key} operations", sentence, 1.0, share, kind="question"))
        return found

    def _gains(self, ids: Tensor) -> Tensor:
        """Of networks `ids (gain, ..., seed)`, equal in all dimensions between."""
        return torch.tensor(self.gains).reshape(-1, *[1] * (ids.dim() - 1)).expand(ids.shape)

    @torch.no_grad()
    def _spectra(self, study: Study) -> tuple[Tensor, Tensor]:
        """Exponents `(gain, seed, n)` on inputs of the task, and their fluctuation from step to step."""
        ids = torch.arange(self.seeds).expand(len(self.gains), self.seeds)
        task = TemporalXOR(self.delays[0])
        model = self.model(study, task, ids, gain=self._gains(ids))
        inputs = task.inputs(Draw(self.seed, MEASURED + 50, member_ids=ids, stream="measure"))
        found = lyapunov_spectrum(model.cell, inputs, h0=model.initial_state(1), tangent_transient=50)
        return found.exponents[..., 0, :], found.stderr()[..., 0, :] * MEASURED**0.5
