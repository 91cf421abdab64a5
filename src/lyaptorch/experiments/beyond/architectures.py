"""Flossing beyond rate networks: GRU, LSTM and S4; and through gains and time constants alone."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, Form, FormCell, GRUCell, LSTMCell, S4DCell
from lyaptorch.cells.activation import activation
from lyaptorch.cells.form import Residual
from lyaptorch.experiments.beyond.learners import LEARNED, Learning, asks_at_least, asks_at_most, figure
from lyaptorch.experiments.check import Checks, where
from lyaptorch.experiments.figure import Results, Study, coordinates, stacked
from lyaptorch.plots.primitives import (
    BLUE,
    ORANGE,
    footnote,
    label_accuracy,
    label_spectra,
    letters,
    look,
    picture,
    scores,
    spectrum,
)
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import DelayedCopy, TemporalXOR
from lyaptorch.training import Model, Readout
from lyaptorch.training.model import settled_state

KINDS = ("GRU", "LSTM", "S4")
MODES = 8


@picture(lambda record: len(record["kind"]), rows=2, width=3.2, height=2.6)
def cells(record: Record, axes: list[Axes]) -> None:
    """Exponents and accuracy of each kind of cell, plain and flossed."""
    kinds = record["kind"]
    for i, kind in enumerate(kinds):
        spectra, learning = axes[i], axes[len(kinds) + i]
        for j, (color, label) in enumerate(((BLUE, "plain"), (ORANGE, "flossed"))):
            spectrum(spectra, record["exponents"][i, j], color, alpha=0.6)
            scores(learning, record["delay"], record["final_accuracy"][i, j], color, label)
        label_spectra(spectra, str(kind))
        label_accuracy(learning, "delay")
    axes[len(kinds)].legend()
    counted = f"n = {record['final_accuracy'].shape[-1]} networks"
    footnote(axes[0], counted, "above: each", "below: each, and their mean")


@figure(
    "flossed-cells",
    "flossed GRU, LSTM and S4: exponents, and learning the delayed copy",
    cost=("5 s", "70 s", "a day"),
    smoke={"hidden_size": 16, "delays": (4,), "seeds": 1},
    small={"delays": (10, 20), "k": 16, "length": 60, "floss_epochs": 100},
    draw=cells,
)
class FlossedCells(Learning):
    """GRU, LSTM and diagonal S4 networks learn to copy bits, as they start and flossed.

    All start as usual: torch's weights, S4D-Lin.

    Attributes:
        kinds: of cells; the networks of one kind are one ensemble.
        hidden_size: units; an LSTM has two state variables for each, an S4 as many in all.
        floss_lr: learning rate of flossing.
        lr: learning rate of training.
    """

    kinds: tuple[str, ...] = KINDS
    delays: tuple[int, ...] = (20, 40, 60)
    seeds: int = 10
    k: int = 40
    floss_lr: float = 1e-2
    lr: float = 3e-3

    def run(self, study: Study) -> Results:
        """`exponents (kind, flossed, seed, rank)` before training, `final_accuracy (kind, flossed, ...)`."""
        parts = [self._learn_kind(kind, study.part(kind)) for kind in self.kinds]
        return stacked("kind", parts), coordinates(delay=self.delays, kind=self.kinds, flossed=(False, True))

    def claims(self, record: Record) -> Checks:
        """Flossing brings the exponents of each kind to zero; where they were far from it, it helps."""
        for i, kind in enumerate(record["kind"]):
            plain, flossed = (float((record["exponents"][i, j] ** 2).mean()) for j in (0, 1))
            sentence = f"{kind}: mean square of the first {self.k} exponents, flossed / not flossed"
            yield asks_at_most(f"{kind} exponents", sentence, 0.5, flossed / plain)
            before, after = record["final_accuracy"][i].mean((1, 2))
            sentence = f"{kind}: mean accuracy, flossed − not flossed"
            # where nobody leaves chance there is nothing to add to
            told = where(record["final_accuracy"][i].max() > LEARNED, after - before)
            yield asks_at_least(f"{kind} accuracy", sentence, 0.0, told, 0.02)

    def _learn_kind(self, kind: str, study: Study) -> dict[str, Any]:
        """Exponents `(flossed, seed, rank)` before training, accuracy over epochs, and after."""
        shape = (2, len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        task = DelayedCopy(torch.tensor(self.delays)[None, :, None].expand(shape), binary=True)
        cell = self._cell(kind, ids, study)
        readout = Readout(cell.output_size, 1, **study.ensemble(ids))
        model = Model(cell, readout, loss=task.loss)
        flossed = torch.arange(2)[:, None, None].expand(shape) == 1
        dims = ("flossed", "delay", "seed")
        phase = self.flossing(flossed, lr=self.floss_lr)
        study.part("flossing").train(model, task, (phase,), member_ids=ids, **self.trial)
        # networks of all delays are equal until they are trained
        before = self.spectrum(model, task, ids, 150, self.k, 50).exponents[:, 0, :, 0]
        fit: dict[str, Any] = {"schedule": (FitPhase(self.epochs),), "lr": self.lr, **self.trial}
        _, learned = study.learn(model, task, ids, dims, **fit)
        return {"exponents": (("flossed", "seed", "rank"), before, {"units": "nats per step"}), **learned}

    def _cell(self, kind: str, ids: Tensor, study: Study) -> Cell:
        if kind == "S4":
            # a mode is complex, and so two numbers of the state
            channels = self.hidden_size // (2 * MODES)
            return S4DCell(1, channels, MODES, **study.ensemble(ids))
        make = GRUCell if kind == "GRU" else LSTMCell
        return make(1, self.hidden_size, **study.ensemble(ids))


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
        # W (g tanh(h)) = (W diag(g)) tanh(h), and diag(g) scales columns
        gain = self._open("log_gain", "gains").exp()
        rate = self._open("logit_rate", "rates").sigmoid()
        W, V, b = (self._open(name, "weights") for name in ("weight_hh", "weight_ih", "bias"))
        # h' = (1 - a) h + a (...), a for each unit
        leak = Residual(1 - rate, "diagonal")
        return Form(W * gain.unsqueeze(-2), V, (b,), self.activation, None, leak, rate)

    def _open(self, name: str, group: str) -> Tensor:
        """A parameter, detached for the members for whom its group is closed."""
        parameter: Tensor = getattr(self, name)
        mask = getattr(self, group)
        mask = mask.reshape(*mask.shape, *[1] * (parameter.dim() - mask.dim()))
        # where a group is closed the gradient is 0, and a step of Adam that saw nothing else is 0 / (0 + eps)
        return torch.where(mask, parameter, parameter.detach())


@picture(3, width=3.5)
def units(record: Record, axes: list[Axes]) -> None:
    """Exponents after flossing; the time constants and gains it chose; accuracy against delay."""
    spectra, each, learning = axes
    for i, name in enumerate(record["flossed"]):
        color, _ = look(i)
        spectrum(spectra, record["exponents"][i].mean(0), color, str(name))
        times, gains = record["time_constant"][i].ravel(), record["gain"][i].ravel()
        each.plot(times, gains, "o", color=color, alpha=0.5, markersize=2)
        scores(learning, record["delay"], record["final_accuracy"][i], color)
    label_spectra(spectra, "After flossing")
    each.set(xlabel="time constant (steps)", ylabel="gain", title="Units")
    # gains lie within a decade, where a logarithmic axis has one label or none
    each.locator_params(nbins=5)
    label_accuracy(learning, "delay", "After training")
    spectra.legend(title="flossed by")
    letters(axes, "ABC")
    networks, units = record["gain"].shape[1:]
    said = f"n = {networks} networks of {units} units"
    footnote(spectra, said, "A: mean", "B: each unit of all networks", "C: each network, mean")


@figure(
    "unit-parameters",
    "flossing gains and time constants alone: exponents, and learning the temporal XOR",
    cost=("2 s", "20 s", "3 h"),
    smoke={"delays": (4,)},
    small={"delays": (16, 20)},
    draw=units,
)
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
        readout = Readout(self.hidden_size, 1, **study.ensemble(ids))
        h0 = settled_state(cell, self.batch, member_ids=ids, generator=study.generator())
        model = Model(cell, readout, h0=h0, loss=task.loss)
        exponents, rates, gains = self._floss(study, model, cell, task, ids)
        dims, each = ("flossed", "delay", "seed"), ("flossed", "seed", "unit")
        _, learned = study.learn(model, task, ids, dims, schedule=(FitPhase(self.epochs),), **self.trial)
        variables: dict[str, Given] = {
            "exponents": (("flossed", "seed", "rank"), exponents, {"units": "nats per step"}),
            "gain": (each, gains),
            "time_constant": (each, 1 / rates, {"units": "steps"}),
            **learned,
        }
        return variables, coordinates(delay=self.delays, flossed=FLOSSED)

    def claims(self, record: Record) -> Checks:
        """Exponents that come closer to zero, and what that is worth in training."""
        squares = (record["exponents"][..., : self.k] ** 2).mean((1, 2))
        mean = record["final_accuracy"].mean((1, 2))
        for i, name in enumerate(FLOSSED[1:], 1):
            share = squares[i] / squares[0]
            sentence = f"{name}: mean square of the first {self.k} exponents, flossed / not flossed"
            yield asks_at_most(f"{name} exponents", sentence, 0.5, share)
            sentence = f"{name}: mean accuracy, flossed − not flossed"
            known = record["final_accuracy"].max() > LEARNED
            yield asks_at_least(f"{name} accuracy", sentence, 0.1, where(known, mean[i] - mean[0]))

    def _floss(
        self, study: Study, model: Model, cell: UnitCell, task: TemporalXOR, ids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Floss each group through its own parameters; exponents, rates and gains `(flossed, seed, n)`."""
        group = torch.arange(len(FLOSSED))[:, None, None].expand(ids.shape)
        opened = {"gains": (1, 3), "rates": (2, 3), "weights": (4,)}
        # positions in FLOSSED: gains alone and both, time constants alone and both, weights
        for name, groups in opened.items():
            setattr(cell, name, torch.isin(group, torch.tensor(groups)))
        phase = self.flossing(group > 0, lr=self.floss_lr)
        study.part("flossing").train(model, task, (phase,), member_ids=ids, **self.trial)
        for name in opened:
            setattr(cell, name, torch.ones_like(group, dtype=torch.bool))
        after = self.spectrum(model, task, ids, 300, transient=50).exponents[:, 0, :, 0]
        with torch.no_grad():
            rates, gains = cell.logit_rate.sigmoid(), cell.log_gain.exp()
        return after, rates[:, 0], gains[:, 0]
