"""Table 1 on the adding problem: homogeneous and heterogeneous residuals, and a plain Elman network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, ElmanCell, ResidualCell, residuals
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.weak_coupling.training import by_member, generator, trained
from lyaptorch.record import Record
from lyaptorch.tasks import Adding
from lyaptorch.train import Adam, best_so_far, iterations_to

MEAN_PREDICTOR = (1 / 6) ** 0.5
NETWORKS = ("homogeneous", "heterogeneous", "Elman")


@dataclass(frozen=True)
class Table1:
    """RMS error on the adding problem, and the task steps until it falls below 0.3.

    The paper trains by gradient descent for 150 epochs; Adam, whose rate is ours, is faster.

    Attributes:
        length: steps of a sequence.
        seeds: networks of each kind.
        hidden_size: n.
        batch: sequences of a task step.
        iterations: task steps.
        lr: of Adam.
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
    hidden_size: int = 64
    batch: int = 64
    iterations: int = 8000
    lr: float = 1e-3
    clip: float = 1.0
    decay: float = 0.995
    decays: tuple[float, float] = (0.98, 1.0)
    coupling: float = 0.03
    couplings: tuple[float, float] = (0.01, 0.1)
    measure_every: int = 100
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
            "measure_every": 2,
        },
        "small": {"seeds": 2},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "1 s", "small": "10 min", "paper": "30 min"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`test_loss (network, seed, measurement)`, `best_loss`, `iterations_to_minimal`."""
        ids, task = torch.arange(self.seeds), Adding(self.length)
        parts = []
        for name, cell in self._cells(ids).items():
            record = trained(
                cell,
                task,
                self.iterations,
                members=torch.as_tensor(ids.expand(cell.ensemble)),
                seed=self.seed,
                batch=self.batch,
                lr=self.lr,
                measure_every=self.measure_every,
                test_batches=10,
                show_progress=show_progress,
                checkpoint=None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-{name}"),
                optimizer=Adam(),
                clip=self.clip,
                clip_mode="global",
            )
            parts.append(
                (
                    by_member(record, "test_loss", cell.ensemble),
                    best_so_far(record, "test_loss")[:, -1].reshape(cell.ensemble),
                    iterations_to(record, self.threshold, "test_loss").reshape(cell.ensemble),
                    record["measured_at"][0],
                )
            )
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

    def _cells(self, ids: torch.Tensor) -> dict[str, Cell]:
        """The residual networks in one ensemble `(2, seeds)`, the Elman networks in another `(1, seeds)`."""
        n, shape = self.hidden_size, (2, self.seeds)

        def draw(name: str, low: float, high: float) -> torch.Tensor:
            return low + (high - low) * Stream(self.seed, name).uniform((n,), members=ids)

        decays, couplings = draw("decays", *self.decays), draw("couplings", *self.couplings)
        residual = ResidualCell(
            2,
            n,
            residual=residuals.decay(torch.stack([torch.full_like(decays, self.decay), decays])),
            coupling=torch.stack([torch.full_like(couplings, self.coupling), couplings]),
            ensemble=shape,
            members=ids.expand(shape),
            generator=generator(self.seed),
        )
        elman = ElmanCell(2, n, ensemble=(1, self.seeds), members=ids[None], generator=generator(self.seed))
        return {"residual": residual, "Elman": elman}

    def checks(self, record: Record) -> list[Check]:
        """Residual networks add, an Elman network stays at the mean."""
        homogeneous, heterogeneous, elman = (record["best_loss"][i] for i in range(3))
        return [
            at_most("RMS of homogeneous residuals, median", 0.1, float(np.median(homogeneous))),
            at_most(
                "heterogeneous residuals: the median network's RMS", 0.1, float(np.median(heterogeneous))
            ),
            at_least(
                "RMS of Elman networks, the best one: near the mean's 0.408",
                MEAN_PREDICTOR,
                float(elman.min()),
                0.05,
            ),
        ]
