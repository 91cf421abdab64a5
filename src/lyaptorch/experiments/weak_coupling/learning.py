"""Figure 3: learning curves over the residual r, and curvature while networks learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.experiments.checks import Check, at_least, at_most
from lyaptorch.experiments.weak_coupling.training import (
    by_member,
    first_unstable,
    generator,
    named,
    network,
    trained,
)
from lyaptorch.record import Record
from lyaptorch.training import SGD, Adam

CLIPPED = (False, True)


@dataclass(frozen=True)
class Fig3:
    """Residuals r I on images, by gradient descent, and on the adding problem, by Adam; clipped and not.

    Attributes:
        tasks: names, as `training.named` takes them.
        decays: r.
        seeds: networks for each r.
        hidden_size: n.
        coupling: eps.
        batch: trajectories of a task step.
        iterations: task steps on images.
        adding_iterations: and on the adding problem.
        lr: learning rate on images.
        adding_lr: and on the adding problem.
        clip: largest norm of the whole gradient, where it is clipped.
        measurements: of the test score, evenly spaced; one more before training.
        curvatures: of the Hessian, of the clipped network of the first seed; one more before training.
        test_batches: of each test.
        seed: determines everything.
    """

    tasks: tuple[str, ...] = (
        "mnist",
        "permuted mnist",
        "adding 100",
        "adding 200",
        "adding 400",
        "adding 800",
    )
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 0.995, 1.0, 1.005, 1.01, 1.02)
    seeds: int = 5
    hidden_size: int = 100
    coupling: float = 0.03
    batch: int = 128
    iterations: int = 93_600
    adding_iterations: int = 60_000
    lr: float = 3e-3
    adding_lr: float = 5e-3
    clip: float = 1.0
    measurements: int = 40
    curvatures: int = 8
    test_batches: int = 20
    seed: int = 0

    figure: ClassVar[str] = "fig3"
    shows: ClassVar[str] = "learning curves over r on images and adding, with and without clipping; Hessian"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "tasks": ("mnist", "adding 8", "adding 12"),
            "decays": (0.98, 1.0, 1.02),
            "seeds": 1,
            "hidden_size": 4,
            "batch": 4,
            "iterations": 2,
            "adding_iterations": 4,
            "measurements": 2,
            "curvatures": 1,
            "test_batches": 1,
        },
        "small": {
            "tasks": ("mnist", "permuted mnist", "adding 50", "adding 100"),
            "decays": (0.95, 0.98, 0.995, 1.0, 1.005, 1.02),
            "seeds": 2,
            "hidden_size": 32,
            "coupling": 0.06,
            "batch": 32,
            "iterations": 500,
            "adding_iterations": 5000,
            "measurements": 10,
            "curvatures": 2,
            "test_batches": 10,
        },
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "3 s", "small": "4 min", "paper": "hours on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`test_loss, test_accuracy (task, clip, decay, seed, measurement)`, `curvature (task, decay, time)`.

        A network that overflowed has NaN from there on. The accuracy of sums is the share of the variance
        that is explained.
        """
        parts = [self._learn(name, show_progress, checkpoint) for name in self.tasks]
        dims = ("task", "clip", "decay", "seed")
        shapes = {
            "test_loss": (*dims, "measurement"),
            "test_accuracy": (*dims, "measurement"),
            "unstable_at": dims,
            "curvature": ("task", "decay", "time"),
            "measured_at": ("task", "measurement"),
            "curved_at": ("task", "time"),
        }
        variables = {name: (own, np.stack([part[name] for part in parts])) for name, own in shapes.items()}
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "clipped": (("clip",), list(CLIPPED)),
            "r": (("decay",), list(self.decays)),
        }
        return Record(f"weak-coupling {self.figure}", asdict(self), variables, coordinates)

    def _learn(self, name: str, show_progress: bool | None, checkpoint: Path | None) -> dict[str, Any]:
        """Learning curves of all networks on a task; then curvature, of some that are trained again."""
        shape = (len(CLIPPED), len(self.decays), self.seeds)
        limits = torch.tensor([torch.finfo(torch.float32).max, self.clip])
        clip, ids = limits[:, None, None].expand(shape), torch.arange(self.seeds).expand(shape)
        runs = []
        for metric, member_ids, limit, count in (
            ("test", ids, clip, self.measurements),
            ("curvature", ids[-1, :, 0], clip[-1, :, 0], self.curvatures),
        ):
            path = checkpoint and checkpoint.with_name(f"{checkpoint.name}-{name}-{metric}".replace(" ", "-"))
            runs.append(self._train(name, metric, member_ids, limit, count, show_progress, path))
        learning, curved = runs
        return {
            **{key: by_member(learning, key, shape) for key in ("test_loss", "test_accuracy")},
            "unstable_at": first_unstable(learning, shape).numpy(),
            "curvature": curved["curvature"],
            "measured_at": np.nanmax(learning["measured_at"], 0),
            "curved_at": np.nanmax(curved["measured_at"], 0),
        }

    def _train(
        self,
        name: str,
        metric: str,
        ids: Tensor,
        clip: Tensor,
        measurements: int,
        show_progress: bool | None,
        checkpoint: Path | None,
    ) -> Record:
        task, adding = named(name), name.startswith("adding")
        every = (self.adding_iterations if adding else self.iterations) // measurements
        r = torch.tensor(self.decays)
        # one r for each network, in front of the seeds where there are some
        r = (r if ids.dim() == 1 else r[:, None].expand(ids.shape)).unsqueeze(-1)
        cell = ResidualCell(
            task.input_size,
            self.hidden_size,
            residual=residuals.decay(r.expand(*ids.shape, self.hidden_size)),
            coupling=self.coupling,
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=generator(self.seed),
        )
        return trained(
            network(cell, task, ids, self.seed),
            task,
            # what is measured before the last step is the end
            every * measurements + 1,
            member_ids=ids,
            seed=self.seed,
            batch=self.batch,
            lr=self.adding_lr if adding else self.lr,
            optimizer=Adam() if adding else SGD(momentum=0.9),
            clip=clip,
            clip_mode="global",
            metrics=(metric,),
            measure_every=every,
            test_batches=self.test_batches,
            show_progress=show_progress,
            checkpoint=checkpoint,
        )

    def checks(self, record: Record) -> list[Check]:
        """Curvature grows or shrinks, images and sums want another r, and clipping helps where r > 1."""
        r, names = record["r"], [str(name) for name in record["name"]]
        found, off = [], {}
        for i, name in enumerate(names):
            changes = np.abs(record["curvature"][i, :, -1] / record["curvature"][i, :, 0])
            grown, kept = float(changes[r < 1].min()), float(changes[r >= 1].max())
            found.append(at_least(f"{name}: curvature grows where r < 1: its least factor", 1.0, grown))
            found.append(at_most(f"{name}: and shrinks elsewhere: its largest", 1.0, kept))
            # of clipped networks, the median over seeds
            scores = np.median(best(record, i)[-1], -1)
            below, above = float(scores[r < 1].max()), float(scores[r > 1].max())
            if name.startswith("adding"):
                off[int(name.split()[1])] = float(abs(1 - r[scores.argmax()]))
                found.append(at_least(f"{name}: r < 1 explains more than r > 1", above, below))
            else:
                found.append(at_least(f"{name}: r > 1 is better than r < 1", below, above))
        if len(off) > 1:
            rise = float(np.diff([off[length] for length in sorted(off)]).max())
            found.append(at_most("the longer the sum, the nearer the best r is to 1", 0.0, rise, 1e-6))
        plain, clipped = (float(lost[r > 1].mean()) for lost in unsteadiness(record).mean((0, -1)))
        found.append(at_most("clipped, networks with r > 1 fall back less", plain, clipped))
        return found


def best(record: Record, task: int) -> NDArray[np.floating]:
    """Best accuracy, or explained variance, of each network `(clip, decay, seed)`."""
    return np.asarray(_known(record["test_accuracy"][task]).max(-1))


def unsteadiness(record: Record) -> NDArray[np.floating]:
    """How far a score is behind the best so far, averaged over training; all of it after an overflow."""
    scores = _known(record["test_accuracy"])
    return np.asarray((np.maximum.accumulate(scores, -1) - scores).mean(-1))


def _known(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.clip(np.nan_to_num(scores), 0.0, 1.0))
