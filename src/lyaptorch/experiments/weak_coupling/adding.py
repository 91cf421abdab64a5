"""What the figures of this paper share, and table 1 on the adding problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.analysis import best_so_far, iterations_to
from lyaptorch.cells import Cell, ElmanCell, ResidualCell, residuals
from lyaptorch.experiments.check import Check, at_least, at_most
from lyaptorch.experiments.figure import Figure, Results, Study, declare
from lyaptorch.plots.primitives import GREY, PALETTE, bundle, single
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tasks import Adding, SequentialImages
from lyaptorch.tasks.batch import Task
from lyaptorch.training import SGD, Adam, Model, Readout

PAPER = "weak-coupling"


AUTHORS = "Dubinin & Effenberger 2024"


def named(name: str) -> Task:
    """The task called "adding LENGTH", or images such as "mnist" and "permuted mnist"."""
    kind, _, last = name.rpartition(" ")
    return Adding(int(last)) if kind == "adding" else SequentialImages(last, permuted=kind == "permuted")


def ensemble(study: Study, ids: Tensor) -> dict[str, Any]:
    """The arguments of a cell or readout that say which networks it holds; the seed draws their weights."""
    return {"ensemble": tuple(ids.shape), "member_ids": ids, "generator": study.generator()}


def uniform(seed: int, name: str, size: int, low: float, high: float, ids: Tensor) -> Tensor:
    """Settings `(*ids, size)` of units, U(low, high)."""
    return low + (high - low) * Stream(seed, name).uniform((size,), member_ids=ids)


def network(study: Study, cell: Cell, task: Task, ids: Tensor) -> Model:
    """A cell with a readout that starts as `torch.nn.Linear` does, with its variance."""
    n = cell.output_size
    readout = Readout(n, task.output_size, scale=(3 * n) ** -0.5, offset=0.0, **ensemble(study, ids))
    return Model(cell, readout, loss=task.loss)


def fit(study: Study, model: Model, task: Task, iterations: int, **settings: Any) -> Record:
    """Train on the task alone, with test scores: by gradient descent with momentum 0.9, without a clip.

    Other `settings` of `lt.train` go before these. Members that overflow are marked and left out from there
    on.
    """
    usual = {"optimizer": SGD(momentum=0.9), "clip": None, "metrics": ("test",), "unstable": "mark"}
    return study.train(model, task, (FitPhase(iterations),), **{**usual, **settings})


def learned(record: Record, shape: tuple[int, ...]) -> dict[str, Any]:
    """Test scores `(*shape, measurement)`, when they were measured, and when members overflowed, or -1."""
    unstable = record["unstable_at"] if "unstable_at" in record else np.full(shape, -1.0, np.float32)
    return {
        "test_loss": record["test_loss"].reshape(*shape, -1),
        "test_accuracy": record["test_accuracy"].reshape(*shape, -1),
        "unstable_at": np.nan_to_num(unstable, nan=-1.0).reshape(shape),
        "measured_at": np.nanmax(record["measured_at"], 0),
    }


MEAN_PREDICTOR = (1 / 6) ** 0.5
NETWORKS = ("homogeneous", "heterogeneous", "Elman")


@single
def errors(record: Record, axes: list[Axes]) -> None:
    """Error over task steps, a line for each network, a colour for each kind."""
    (panel,) = axes
    for name, curves, color in zip(record["network_name"], record["test_loss"], PALETTE, strict=False):
        bundle(panel, curves, color, str(name), x=record["measured_at"], thick=np.median)
    panel.axhline(MEAN_PREDICTOR, color=GREY, linestyle=":", linewidth=0.8)
    panel.set(xlabel="task step", ylabel="RMS error", title="Adding problem", ylim=(0, 0.8))
    panel.legend()


@declare(
    PAPER,
    "table1",
    "adding problem: homogeneous and heterogeneous residuals, Elman network; RMS error",
    cost=("1 s", "4 min", "15 min"),
    smoke={
        "length": 10,
        "seeds": 2,
        "hidden_size": 6,
        "batch": 4,
        "iterations": 4,
        "settling": 2,
        "measure_every": 2,
    },
    small={"seeds": 2, "iterations": 15_000},
    draw=errors,
)
@dataclass(frozen=True)
class Table1(Figure):
    """RMS error on the adding problem, and the task steps until it falls below 0.3.

    The paper trains by gradient descent for 150 epochs; Adam, whose rates are ours, is faster. The last steps
    at a tenth of the rate settle what it stirs up.

    Attributes:
        length: steps of a sequence.
        seeds: networks of each kind.
        hidden_size: n.
        batch: sequences of a task step.
        iterations: task steps.
        settling: further task steps at a tenth of the rate.
        lr: of Adam.
        elman_lr: that of the Elman networks.
        clip: largest norm of the whole gradient.
        decay: of the homogeneous residual.
        decays: range of the heterogeneous ones.
        coupling: eps of the homogeneous one.
        couplings: range of the heterogeneous ones.
        measure_every: task steps between two tests.
        threshold: RMS of minimal performance; the paper's is lost.
    """

    length: int = 200
    seeds: int = 5
    hidden_size: int = 32
    batch: int = 32
    iterations: int = 20_000
    settling: int = 4000
    lr: float = 5e-3
    elman_lr: float = 1e-3
    clip: float = 1.0
    decay: float = 0.998
    decays: tuple[float, float] = (0.99, 1.0)
    coupling: float = 0.06
    couplings: tuple[float, float] = (0.02, 0.1)
    measure_every: int = 500
    threshold: float = 0.3

    def run(self, study: Study) -> Results:
        """`test_loss (network, seed, measurement)`, `best_loss`, `iterations_to_minimal`."""
        ids, task = torch.arange(self.seeds), Adding(self.length)
        parts = [
            self._train(study, name, cell, task, ids.expand(cell.ensemble))
            for name, cell in self._cells(study, ids).items()
        ]
        curves, best, until, at = zip(*parts, strict=True)
        dims = ("network", "seed")
        variables = {
            "test_loss": ((*dims, "measurement"), np.concatenate(curves)),
            "best_loss": (dims, np.concatenate(best)),
            # -1: never
            "iterations_to_minimal": (dims, np.nan_to_num(np.concatenate(until), nan=-1.0)),
        }
        names = (("network",), list(NETWORKS))
        return variables, {"network_name": names, "measured_at": (("measurement",), at[0])}

    def _train(
        self, study: Study, name: str, cell: Cell, task: Adding, ids: Tensor
    ) -> tuple[Any, Any, Any, Any]:
        """Test losses, the best, steps to minimal performance, and when was measured; in two stages."""
        model, losses, at = network(study, cell, task, ids), [], []
        lr = self.elman_lr if name == "Elman" else self.lr
        stages = ((self.iterations, lr, 0), (self.settling, lr / 10, self.iterations))
        for stage, (iterations, rate, before) in enumerate(stages):
            record = fit(
                study.part(name, stage, seed=self.seed + stage),
                model,
                task,
                iterations,
                member_ids=ids,
                batch=self.batch,
                lr=rate,
                optimizer=Adam(),
                clip=self.clip,
                clip_mode="global",
                metrics_every=self.measure_every,
                test_batches=10,
            )
            losses.append(record["test_loss"])
            at.append(np.nanmax(record["measured_at"], 0) + before)
        curves, when = np.concatenate(losses, 1), np.concatenate(at)
        dims = ("member", "measurement")
        measured = {"test_loss": (dims, curves), "measured_at": (dims, np.broadcast_to(when, curves.shape))}
        whole = Record("train", {}, measured)
        return (
            curves.reshape(*ids.shape, -1),
            best_so_far(whole, "test_loss")[:, -1].reshape(ids.shape),
            iterations_to(whole, self.threshold, "test_loss").reshape(ids.shape),
            when,
        )

    def _cells(self, study: Study, ids: Tensor) -> dict[str, Cell]:
        """The residual networks in one ensemble `(2, seeds)`, the Elman networks in another `(1, seeds)`."""
        n = self.hidden_size
        decays = uniform(self.seed, "decays", n, *self.decays, ids)
        couplings = uniform(self.seed, "couplings", n, *self.couplings, ids)
        residual = ResidualCell(
            2,
            n,
            residual=residuals.decay(torch.stack([torch.full_like(decays, self.decay), decays])),
            coupling=torch.stack([torch.full_like(couplings, self.coupling), couplings]),
            **ensemble(study, ids.expand(2, -1)),
        )
        return {"residual": residual, "Elman": ElmanCell(2, n, **ensemble(study, ids[None]))}

    def checks(self, record: Record) -> list[Check]:
        """Residual networks add, an Elman network stays at the mean."""
        homogeneous, heterogeneous, elman = record["best_loss"]
        found = []
        for name, rms in (("homogeneous", homogeneous), ("heterogeneous", heterogeneous)):
            sentence = f"RMS of {name} residuals, median"
            found.append(at_most(name, sentence, 0.1, float(np.median(rms)), source=f"{AUTHORS}, table 1"))
        sentence = "RMS of Elman networks, the best one: near the mean's 0.408"
        source = f"{AUTHORS}, section 4.4"
        found.append(at_least("Elman", sentence, MEAN_PREDICTOR, float(elman.min()), 0.05, source=source))
        return found
