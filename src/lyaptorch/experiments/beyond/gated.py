"""Flossed GRU, LSTM and S4: exponents, and learning to copy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import Cell, GRUCell, LSTMCell, S4DCell
from lyaptorch.experiments.beyond.learning import PAPER, SMALL, SMOKE, Learning
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Results, coordinates, declare
from lyaptorch.experiments.study import Study
from lyaptorch.plots.primitives import BLUE, ORANGE, label_accuracy, label_spectra, picture, scores, spectrum
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model, Readout

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


@declare(
    PAPER,
    "flossed-cells",
    "flossed GRU, LSTM and S4: exponents, and learning the delayed copy",
    cost=("5 s", "70 s", "days; hours on a GPU"),
    smoke={**SMOKE, "hidden_size": 16, "delays": (4,), "seeds": 1},
    small={**SMALL, "delays": (10, 20), "k": 16, "length": 60, "floss_epochs": 100},
    draw=cells,
)
@dataclass(frozen=True)
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
        exponents, accuracy, final = zip(*parts, strict=True)
        dims, ranks = ("kind", "flossed", "delay", "seed"), ("kind", "flossed", "seed", "rank")
        variables: dict[str, Given] = {
            "exponents": (ranks, torch.stack(exponents), {"units": "nats per step"}),
            "accuracy": ((*dims, "epoch"), np.stack(accuracy)),
            "final_accuracy": (dims, torch.stack(final)),
        }
        return self.found(variables, **coordinates(kind=self.kinds, flossed=(False, True)))

    def checks(self, record: Record) -> list[Check]:
        """Flossing brings the exponents of each kind to zero; where they were far from it, it helps."""
        found = []
        for i, kind in enumerate(record["kind"]):
            plain, flossed = (float((record["exponents"][i, j] ** 2).mean()) for j in (0, 1))
            sentence = f"{kind}: mean square exponent, flossed over plain"
            found.append(at_most(f"{kind} exponents", sentence, 0.5, flossed / plain, kind="question"))
            before, after = (float(value) for value in record["final_accuracy"][i].mean((1, 2)))
            sentence, added = f"{kind}: accuracy that flossing adds", after - before
            found.append(at_least(f"{kind} accuracy", sentence, 0.0, added, 0.02, kind="question"))
        return found

    def _learn_kind(self, kind: str, study: Study) -> tuple[Tensor, NDArray[np.floating], Tensor]:
        """Exponents `(flossed, seed, rank)` before training, accuracy over epochs, and after."""
        shape = (2, len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        task = DelayedCopy(torch.tensor(self.delays)[None, :, None].expand(shape), binary=True)
        cell = self._cell(kind, ids, study)
        readout = Readout(cell.output_size, 1, ensemble=shape, member_ids=ids, generator=study.generator())
        model = Model(cell, readout, loss=task.loss)
        flossed = torch.arange(2)[:, None, None].expand(shape) == 1
        phase = replace(self.flossing(flossed), lr=self.floss_lr)
        self.learn(study.part("flossing"), model, task, (phase,), ids)
        inputs = task.inputs(Draw(self.seed, 200, member_ids=ids[:, :1], stream="measure"))
        with torch.no_grad():
            before = lyapunov_spectrum(
                cell, inputs.expand(-1, *shape, -1, -1), k=self.k, tangent_transient=50
            )
        record, final = self.learn(study, model, task, (FitPhase(self.epochs),), ids, lr=self.lr)
        # networks of all delays are equal until they are trained
        return before.exponents[:, 0, :, 0], record["accuracy"].reshape(*shape, -1), final

    def _cell(self, kind: str, ids: Tensor, study: Study) -> Cell:
        shape, generator = tuple(ids.shape), study.generator()
        if kind == "S4":
            channels = self.hidden_size // (2 * MODES)
            return S4DCell(1, channels, MODES, ensemble=shape, member_ids=ids, generator=generator)
        make = GRUCell if kind == "GRU" else LSTMCell
        return make(1, self.hidden_size, ensemble=shape, member_ids=ids, generator=generator)
