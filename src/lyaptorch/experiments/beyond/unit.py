"""Flossing by unit parameters: gains and time constants alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch._random import Stream
from lyaptorch.cells import Form, FormCell
from lyaptorch.cells.activation import activation
from lyaptorch.cells.form import Residual
from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, declare
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import PALETTE, label_accuracy, label_spectra, picture, scores, spectrum
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import TemporalXOR
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model, Readout
from lyaptorch.training.model import settled_state

FLOSSED = ("none", "gains", "time constants", "both", "weights")
"""What flossing may change."""
FASTEST = 3.0
"""The first logit of a rate: a = 0.95, which may still grow."""


class UnitCell(FormCell):
    """h' = (1 - a) h + a (W (g tanh(h)) + V x + b), with a gain g and a rate a = 1 / tau for each unit.

    Where `gains`, `rates` or `weights` is false, no gradient reaches what they name, member by member.
    Initially W ~ N(0, 1/n), V ~ N(0, 1), b = 0, g = 1 and a = 0.95. What is trained is log g and logit a.
    """

    per_member = ("gains", "rates", "weights")

    def __init__(self, input_size: int, hidden_size: int, member_ids: Tensor, seed: int) -> None:
        super().__init__(input_size, hidden_size, tuple(member_ids.shape))
        n = hidden_size
        self.activation = activation("tanh")
        self.weight_hh = nn.Parameter(
            Stream(seed, "weight_hh").normal((n, n), member_ids=member_ids) / n**0.5
        )
        self.weight_ih = nn.Parameter(
            Stream(seed, "weight_ih").normal((n, input_size), member_ids=member_ids)
        )
        self.bias = nn.Parameter(torch.zeros(*self.ensemble, n))
        self.log_gain = nn.Parameter(torch.zeros(*self.ensemble, n))
        self.logit_rate = nn.Parameter(torch.full((*self.ensemble, n), FASTEST))
        for name in ("gains", "rates", "weights"):
            self.register_buffer(name, torch.ones(self.ensemble, dtype=torch.bool))

    def form(self) -> Form:
        """The leak as a diagonal residual, the rate as coupling, the gain in the columns of W."""
        gain = self._open("log_gain", "gains").exp()
        rate = self._open("logit_rate", "rates").sigmoid()
        W, V, b = (self._open(name, "weights") for name in ("weight_hh", "weight_ih", "bias"))
        leak = Residual(1 - rate, "diagonal")
        return Form(W * gain.unsqueeze(-2), V, (b,), self.activation, None, leak, rate)

    def _open(self, name: str, group: str) -> Tensor:
        """A parameter, detached for the members for whom its group is closed."""
        parameter: Tensor = getattr(self, name)
        mask = getattr(self, group)
        mask = mask.reshape(*mask.shape, *[1] * (parameter.dim() - mask.dim()))
        return torch.where(mask, parameter, parameter.detach())


@picture(3, width=3.5)
def units(record: Record, axes: list[Axes]) -> None:
    """Exponents after flossing; the time constants and gains it chose; accuracy against delay."""
    spectra, each, learning = axes
    for i, name in enumerate(record["flossed"]):
        color = PALETTE[i % len(PALETTE)]
        spectrum(spectra, record["exponents"][i].mean(0), color, str(name))
        times, gains = record["time_constant"][i].ravel(), record["gain"][i].ravel()
        each.plot(times, gains, "o", color=color, alpha=0.5, markersize=2)
        scores(learning, record["delay"], record["final_accuracy"][i], color)
    label_spectra(spectra, "After flossing")
    each.set(yscale="log", xlabel="time constant (steps)", ylabel="gain", title="Units")
    label_accuracy(learning, "delay", "After training")
    spectra.legend(title="flossed by")


@declare(
    PAPER,
    "unit-parameters",
    "flossing gains and time constants alone: exponents, and learning the temporal XOR",
    cost=("2 s", "20 s", "a day; 1 h on a GPU"),
    smoke={**SMOKE, "delays": (4,)},
    small={**SMALL, "delays": (16, 20)},
    draw=units,
)
@dataclass(frozen=True)
class UnitParameters(Learning):
    """Networks flossed through their gains, time constants, both, or W, V and b; then all is trained.

    Attributes:
        floss_lr: learning rate of flossing, the same for all.
    """

    delays: tuple[int, ...] = (20, 30, 40)
    seeds: int = 10
    floss_lr: float = 1e-2

    def run(self, study: Study) -> Results:
        """`exponents (flossed, rank)` after flossing, `final_accuracy (flossed, delay, seed)`."""
        shape = (len(FLOSSED), len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        task = TemporalXOR(torch.tensor(self.delays)[None, :, None].expand(shape))
        cell = UnitCell(1, self.hidden_size, ids, self.seed)
        readout = Readout(self.hidden_size, 1, ensemble=shape, member_ids=ids, generator=study.generator())
        h0 = settled_state(cell, self.batch, member_ids=ids, generator=study.generator())
        model = Model(cell, readout, h0=h0, loss=task.loss)
        exponents, rates, gains = self._floss(study, model, cell, task, ids)
        record, final = self.learn(study, model, task, (FitPhase(self.epochs),), ids)
        dims = ("flossed", "delay", "seed")
        each = ("flossed", "seed", "unit")
        variables: dict[str, Given] = {
            "exponents": (("flossed", "seed", "rank"), exponents, {"units": "nats per step"}),
            "gain": (each, gains),
            "time_constant": (each, 1 / rates, {"units": "steps"}),
            "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
            "final_accuracy": (dims, final),
        }
        return self.found(variables, flossed=(("flossed",), np.array(FLOSSED)))

    def checks(self, record: Record) -> list[Check]:
        """Exponents that come closer to zero, and what that is worth in training."""
        squares = (record["exponents"][..., : self.k] ** 2).mean((1, 2))
        mean, found = record["final_accuracy"].mean((1, 2)), []
        for i, name in enumerate(FLOSSED[1:], 1):
            sentence, share = f"{name}: mean square exponent over that before", squares[i] / squares[0]
            found.append(at_most(f"{name} exponents", sentence, 0.5, share, kind="question"))
            sentence, added = f"{name}: accuracy added to that without flossing", mean[i] - mean[0]
            found.append(at_least(f"{name} accuracy", sentence, 0.1, added, kind="question"))
        return found

    def _floss(
        self, study: Study, model: Model, cell: UnitCell, task: TemporalXOR, ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Floss each group through its own parameters; exponents, rates and gains `(flossed, seed, n)`."""
        group = torch.arange(len(FLOSSED))[:, None, None].expand(ids.shape)
        opened = {"gains": (1, 3), "rates": (2, 3), "weights": (4,)}
        for name, groups in opened.items():
            setattr(cell, name, torch.isin(group, torch.tensor(groups)))
        phase = replace(self.flossing(group > 0), lr=self.floss_lr)
        sizes = {"batch": self.batch, "steps": self.length}
        study.part("flossing").train(model, task, (phase,), member_ids=ids, **sizes)
        for name in opened:
            setattr(cell, name, torch.ones_like(group, dtype=torch.bool))
        inputs = task.inputs(Draw(self.seed, 350, member_ids=ids, stream="measure"))
        with torch.no_grad():
            after = lyapunov_spectrum(cell, inputs, h0=model.initial_state(1), tangent_transient=50)
            rates, gains = cell.logit_rate.sigmoid(), cell.log_gain.exp()
        # networks of all delays are equal until they are trained
        return after.exponents[:, 0, :, 0], rates[:, 0], gains[:, 0]
