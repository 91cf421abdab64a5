"""Flossed GRU, LSTM and S4: exponents, and learning to copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import Cell, GRUCell, LSTMCell, S4DCell
from lyaptorch.experiments.beyond.learning import Learning
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.training import Model, Readout

KINDS = ("GRU", "LSTM", "S4")
MODES = 8


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

    figure: ClassVar[str] = "flossed-cells"
    shows: ClassVar[str] = "flossed GRU, LSTM and S4: exponents, and learning the delayed copy"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Learning.SMOKE, "hidden_size": 16, "delays": (4,), "seeds": 1},
        "small": {**Learning.SMALL, "delays": (10, 20), "seeds": 3, "epochs": 600, "k": 16, "length": 60}
        | {"floss_epochs": 100},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "5 s", "small": "70 s", "paper": "days; hours on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`exponents (kind, flossed, seed, rank)` before training, `final_accuracy (kind, flossed, ...)`."""
        parts = [
            self._learn_kind(
                kind, checkpoint and checkpoint.with_name(f"{checkpoint.name}-{kind}"), show_progress
            )
            for kind in self.kinds
        ]
        exponents, accuracy, final = zip(*parts, strict=True)
        dims = ("kind", "flossed", "delay", "seed")
        variables: dict[str, Given] = {
            "exponents": (
                ("kind", "flossed", "seed", "rank"),
                torch.stack(exponents),
                {"units": "nats per step"},
            ),
            "accuracy": ((*dims, "epoch"), np.stack(accuracy)),
            "final_accuracy": (dims, torch.stack(final)),
        }
        coordinates: dict[str, Given] = {
            "kind": (("kind",), np.array(self.kinds)),
            "flossed": (("flossed",), np.array([False, True])),
            "delay": (("delay",), np.array(self.delays)),
        }
        return Record(f"beyond {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """Flossing brings the exponents of each kind to zero; where they were far from it, it helps."""
        found = []
        for i, kind in enumerate(record["kind"]):
            plain, flossed = (float((record["exponents"][i, j] ** 2).mean()) for j in (0, 1))
            found.append(at_most(f"{kind}: mean square exponent, flossed over plain", 0.5, flossed / plain))
            before, after = (float(value) for value in record["final_accuracy"][i].mean((1, 2)))
            found.append(at_least(f"{kind}: accuracy that flossing adds", 0.0, after - before, 0.02))
        return found

    def _learn_kind(
        self, kind: str, checkpoint: Path | None, show_progress: bool | None
    ) -> tuple[Tensor, NDArray[np.floating], Tensor]:
        """Exponents `(flossed, seed, rank)` before training, accuracy over epochs, and after."""
        shape = (2, len(self.delays), self.seeds)
        ids = torch.arange(self.seeds).expand(shape)
        task = DelayedCopy(torch.tensor(self.delays)[None, :, None].expand(shape), binary=True)
        cell = self._cell(kind, ids)
        readout = Readout(cell.output_size, 1, ensemble=shape, member_ids=ids, generator=self._generator())
        model = Model(cell, readout, loss=task.loss)
        flossed = torch.arange(2)[:, None, None].expand(shape) == 1
        phase = replace(self.flossing(flossed), lr=self.floss_lr)
        path = checkpoint and checkpoint.with_name(f"{checkpoint.name}-flossing")
        self.learn(model, task, (phase,), ids, path, show_progress)
        inputs = task.inputs(self.seed, member_ids=ids[:, :1], epoch=0, batch=1, length=200, stream="measure")
        with torch.no_grad():
            spectrum = lyapunov_spectrum(
                cell, inputs.expand(-1, *shape, -1, -1), k=self.k, tangent_transient=50
            )
        fit = (FitPhase(self.epochs),)
        record, final = self.learn(model, task, fit, ids, checkpoint, show_progress, self.lr)
        # networks of all delays are equal until they are trained
        return spectrum.exponents[:, 0, :, 0], record["accuracy"].reshape(*shape, -1), final

    def _cell(self, kind: str, ids: Tensor) -> Cell:
        shape, generator = tuple(ids.shape), self._generator()
        if kind == "S4":
            channels = self.hidden_size // (2 * MODES)
            return S4DCell(1, channels, MODES, ensemble=shape, member_ids=ids, generator=generator)
        make = GRUCell if kind == "GRU" else LSTMCell
        return make(1, self.hidden_size, ensemble=shape, member_ids=ids, generator=generator)
