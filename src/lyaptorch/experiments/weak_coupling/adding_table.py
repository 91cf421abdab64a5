"""Errors of residual and Elman networks on the adding problem (table 1)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import best_so_far, iterations_to
from lyaptorch.cells import Cell, ElmanCell, ResidualCell, residuals
from lyaptorch.experiments.check import Checks, at_least, at_most, failing, where
from lyaptorch.experiments.figure import Results, Study
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, Trained, figure, network, steps_to, uniform
from lyaptorch.plots.primitives import PALETTE, bundle, footnote, level, single
from lyaptorch.record import Record
from lyaptorch.tasks import Adding

# who always answers the mean is wrong by the deviation of a sum of two U(0, 1), of variance 1/12 each
MEAN_PREDICTOR = (1 / 6) ** 0.5
NETWORKS = ("homogeneous", "heterogeneous", "Elman")


SMALLER: dict[str, Any] = {
    "kind": "question",
    "source": f"{AUTHORS}, tables 1 and 2",
    "because": "The paper has 100 units and batches of 128; here are 32 of each, and the rate is ours.",
}
"""Of what is no test of the paper's networks."""


@single
def errors(record: Record, axes: list[Axes]) -> None:
    """Error over task steps, a line for each network, a colour for each kind."""
    (panel,) = axes
    for name, curves, color in zip(record["network_name"], record["test_loss"], PALETTE, strict=False):
        bundle(panel, curves, color, str(name), x=record["measured_at"], thick=np.median)
    level(panel, MEAN_PREDICTOR)
    level(panel, record.config["threshold"])
    counted = f"n = {record['test_loss'].shape[1]} networks, each shown thin"
    footnote(panel, counted, "thick: median", "dotted: the mean's error, minimal performance")
    panel.set(xlabel="task step", ylabel="RMS error", title="Adding problem", ylim=(0, 0.8))
    panel.legend()


@figure(
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
class Table1(Trained):
    """RMS error on the adding problem, and the task steps until it falls below 0.3.

    By gradient descent with momentum, as the paper trains. Its rate, its clipping and the last steps at a
    tenth of the rate are ours, and so are the ranges of the heterogeneous residuals: the paper's are lost.

    Attributes:
        length: steps of a sequence.
        seeds: networks of each kind.
        iterations: task steps.
        settling: further task steps at a tenth of the rate.
        lr: learning rate.
        elman_lr: that of the Elman networks.
        clip: largest norm of the whole gradient.
        decay: of the homogeneous residual.
        decays: range of the heterogeneous ones.
        couplings: range of the heterogeneous eps.
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
        n, ids, shape = self.hidden_size, torch.arange(self.seeds), (len(NETWORKS), self.seeds)
        decays = uniform(self.seed, "decays", n, *self.decays, ids)
        couplings = uniform(self.seed, "couplings", n, *self.couplings, ids)
        # homogeneous and heterogeneous residuals are one ensemble
        residual = ResidualCell(
            2,
            n,
            residual=residuals.decay(torch.stack([torch.full_like(decays, self.decay), decays])),
            coupling=torch.stack([torch.full_like(couplings, self.coupling), couplings]),
            **study.ensemble(ids.expand(2, -1)),
        )
        curves, at = self._train(study, "residual", residual, self.lr)
        elman = ElmanCell(2, n, **study.ensemble(ids[None]))
        curves = np.concatenate([curves, self._train(study, "Elman", elman, self.elman_lr)[0]])
        dims, names = ("member", "measurement"), ("network", "seed")
        measured = {"test_loss": (dims, curves), "measured_at": (dims, np.broadcast_to(at, curves.shape))}
        whole = Record("train", {}, measured)
        until = iterations_to(whole, self.threshold, "test_loss").reshape(shape)
        variables = {
            "test_loss": ((*names, "measurement"), curves.reshape(*shape, -1)),
            "best_loss": (names, best_so_far(whole, "test_loss")[:, -1].reshape(shape)),
            # -1: never
            "iterations_to_minimal": (names, np.nan_to_num(until, nan=-1.0)),
        }
        known = (("network",), list(NETWORKS))
        return variables, {"network_name": known, "measured_at": (("measurement",), at)}

    def _train(self, study: Study, name: str, cell: Cell, lr: float) -> tuple[Any, Any]:
        """Test losses `(member, measurement)` and when they were measured; in two stages."""
        ids, task = torch.arange(self.seeds).expand(cell.ensemble), Adding(self.length)
        model, losses, at = network(study, cell, task, ids), [], []
        stages = ((self.iterations, lr, 0), (self.settling, lr / 10, self.iterations))
        for stage, (iterations, rate, before) in enumerate(stages):
            record = self.fit(
                # with a seed of its own, or the second would see the batches of the first again
                study.part(name, stage, seed=self.seed + stage),
                model,
                task,
                ids,
                iterations,
                lr=rate,
                clip=self.clip,
                clip_mode="global",
                metrics_every=self.measure_every,
                test_batches=10,
            )
            losses.append(record["test_loss"])
            at.append(np.nanmax(record["measured_at"], 0) + before)
        return np.concatenate(losses, 1), np.concatenate(at)

    def claims(self, record: Record) -> Checks:
        """Residual networks add, heterogeneous ones as well as others; an Elman network stays at the mean."""
        homogeneous, heterogeneous, elman = record["best_loss"]
        best = min(homogeneous.min(), heterogeneous.min())
        low = partial(at_most, **SMALLER)
        sentence = "best RMS error of any residual network (bound: minimal performance)"
        yield low("residual", sentence, self.threshold, best)
        # where nobody adds, kinds do not differ
        solved = best <= self.threshold
        apart = np.median(heterogeneous) - np.median(homogeneous)
        sentence = "median best RMS error, heterogeneous − homogeneous residuals"
        yield low("heterogeneous", sentence, 0.0, where(solved, apart), 0.02)
        at = record["measured_at"]
        first = steps_to(record["test_loss"], at, self.threshold, falls=True)
        other, own = np.median(first[:2], -1)
        sentence = "task steps to minimal performance, heterogeneous / homogeneous residuals (medians)"
        yield low("efficiency", sentence, 1.0, where(min(own, other) < at[-1], own / other))
        sentence = "best RMS error of any Elman network (predicting the mean: 0.408)"
        told = failing(solved, elman.min(), MEAN_PREDICTOR - 0.05, below=False)
        yield at_least("Elman", sentence, MEAN_PREDICTOR, told, 0.05, **SMALLER)
