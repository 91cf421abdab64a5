"""Table 1 on the adding problem: homogeneous and heterogeneous residuals, and a plain Elman network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch._random import Stream
from lyaptorch.analysis import best_so_far, iterations_to
from lyaptorch.cells import Cell, ElmanCell, ResidualCell, residuals
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.weak_coupling.training import generator, network, trained
from lyaptorch.record import Record
from lyaptorch.tasks import Adding
from lyaptorch.training import Adam

MEAN_PREDICTOR = (1 / 6) ** 0.5
NETWORKS = ("homogeneous", "heterogeneous", "Elman")


@dataclass(frozen=True)
class Table1:
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
        seed: determines everything.
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
    seed: int = 0

    figure: ClassVar[str] = "table1"
    shows: ClassVar[str] = "adding problem: homogeneous and heterogeneous residuals, Elman network; RMS error"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "length": 10,
            "seeds": 2,
            "hidden_size": 6,
            "batch": 4,
            "iterations": 4,
            "settling": 2,
            "measure_every": 2,
        },
        "small": {"seeds": 2, "iterations": 15_000},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "4 min", "paper": "15 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`test_loss (network, seed, measurement)`, `best_loss`, `iterations_to_minimal`."""
        ids, task = torch.arange(self.seeds), Adding(self.length)
        parts = [
            self._train(name, cell, task, ids.expand(cell.ensemble), show_progress, checkpoint)
            for name, cell in self._cells(ids).items()
        ]
        curves, best, until, at = zip(*parts, strict=True)
        dims = ("network", "seed")
        return Record(
            f"weak-coupling {self.figure}",
            asdict(self),
            {
                "test_loss": ((*dims, "measurement"), np.concatenate(curves)),
                "best_loss": (dims, np.concatenate(best)),
                # -1: never
                "iterations_to_minimal": (dims, np.nan_to_num(np.concatenate(until), nan=-1.0)),
            },
            {"network_name": (("network",), list(NETWORKS)), "measured_at": (("measurement",), at[0])},
        )

    def _train(
        self,
        name: str,
        cell: Cell,
        task: Adding,
        ids: torch.Tensor,
        show_progress: bool | None,
        checkpoint: Path | None,
    ) -> tuple[Any, Any, Any, Any]:
        """Test losses, the best, steps to minimal performance, and when was measured; in two stages."""
        model, losses, at = network(cell, task, ids, self.seed), [], []
        lr = self.elman_lr if name == "Elman" else self.lr
        stages = ((self.iterations, lr, 0), (self.settling, lr / 10, self.iterations))
        for stage, (iterations, rate, before) in enumerate(stages):
            record = trained(
                model,
                task,
                iterations,
                member_ids=ids,
                seed=self.seed + stage,
                batch=self.batch,
                lr=rate,
                measure_every=self.measure_every,
                test_batches=10,
                show_progress=show_progress,
                checkpoint=checkpoint and checkpoint.with_name(f"{checkpoint.name}-{name}-{stage}"),
                optimizer=Adam(),
                clip=self.clip,
                clip_mode="global",
            )
            losses.append(record["test_loss"])
            at.append(np.nanmax(record["measured_at"], 0) + before)
        curves, when = np.concatenate(losses, 1), np.concatenate(at)
        dims = ("member", "measurement")
        whole = Record(
            "train",
            {},
            {"test_loss": (dims, curves), "measured_at": (dims, np.broadcast_to(when, curves.shape))},
        )
        return (
            curves.reshape(*ids.shape, -1),
            best_so_far(whole, "test_loss")[:, -1].reshape(ids.shape),
            iterations_to(whole, self.threshold, "test_loss").reshape(ids.shape),
            when,
        )

    def _cells(self, ids: torch.Tensor) -> dict[str, Cell]:
        """The residual networks in one ensemble `(2, seeds)`, the Elman networks in another `(1, seeds)`."""
        n, shape = self.hidden_size, (2, self.seeds)

        def draw(name: str, low: float, high: float) -> torch.Tensor:
            return low + (high - low) * Stream(self.seed, name).uniform((n,), member_ids=ids)

        decays, couplings = draw("decays", *self.decays), draw("couplings", *self.couplings)
        residual = ResidualCell(
            2,
            n,
            residual=residuals.decay(torch.stack([torch.full_like(decays, self.decay), decays])),
            coupling=torch.stack([torch.full_like(couplings, self.coupling), couplings]),
            ensemble=shape,
            member_ids=ids.expand(shape),
            generator=generator(self.seed),
        )
        elman = ElmanCell(
            2, n, ensemble=(1, self.seeds), member_ids=ids[None], generator=generator(self.seed)
        )
        return {"residual": residual, "Elman": elman}

    def checks(self, record: Record) -> list[Check]:
        """Residual networks add, an Elman network stays at the mean."""
        homogeneous, heterogeneous, elman = (record["best_loss"][i] for i in range(3))
        return [
            at_most("RMS of homogeneous residuals, median", 0.1, float(np.median(homogeneous))),
            at_most("RMS of heterogeneous residuals, median", 0.1, float(np.median(heterogeneous))),
            at_least(
                "RMS of Elman networks, the best one: near the mean's 0.408",
                MEAN_PREDICTOR,
                float(elman.min()),
                0.05,
            ),
        ]
