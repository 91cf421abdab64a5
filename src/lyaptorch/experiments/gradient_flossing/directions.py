"""The structure of the gradient over training: figures 10 and 11, and appendix D's covariant vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.analysis import onset
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.gradient_flossing.episodes import ROSE, Episodes
from lyaptorch.record import Record


@dataclass(frozen=True)
class Fig10(Episodes):
    """Singular values of dL/dW over epochs, with and without flossing; one network is drawn.

    Attributes:
        ranks: indices of the subordinate singular values that are checked and drawn, from 1.
    """

    ranks: tuple[int, ...] = (2, 5, 10, 20)

    figure: ClassVar[str] = "fig10"
    shows: ClassVar[str] = "singular values of dL/dW over epochs, with and without flossing, and accuracy"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Episodes.scales["smoke"], "ranks": (2, 4)},
        "small": Episodes.scales["small"],
    }
    cost: ClassVar[Mapping[str, str]] = {
        "smoke": "10 s",
        "small": "2 min",
        "paper": "hours; minutes on a GPU",
    }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`singular_values (condition, delay, seed, measurement, index)`, `accuracy`, `shown (delay)`."""
        shape = (2, len(self.delays), self.seeds)
        record, _ = self.trained(2, "singular_values", checkpoint, show_progress)
        accuracy = record["accuracy"].reshape(*shape, -1)
        values = record["singular_values"].reshape(*shape, -1, self.hidden_size)
        dims = ("condition", "delay", "seed")
        left = onset(torch.from_numpy(accuracy[1]), which="last")
        return self.record(
            {
                "accuracy": ((*dims, "epoch"), accuracy),
                "singular_values": ((*dims, "measurement", "index"), values),
                "measured_at": (("measurement",), record["measured_at"][0].astype(np.int64)),
                "shown": (("delay",), self.shown(left)),
            },
            condition=(("condition",), np.array(("none", "flossed"))),
        )

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the first to leave chance."""
        return left_chance.nan_to_num(nan=torch.inf).argmin(-1)

    def checks(self, record: Record) -> list[Check]:
        """Subordinate values jump at each episode, and exceed those without flossing before chance ends."""
        values, at = record["singular_values"][1], record["measured_at"]
        place = np.searchsorted(at, self.episodes)
        found = []
        for rank in self.ranks:
            rows = np.maximum(values[..., rank - 1], 1e-30)
            jump = np.median(np.stack([rows[..., p] / rows[..., p - 1] for p in place]))
            found.append(at_least(f"singular value {rank}: median jump at an episode", 1.5, float(jump)))
        for rank in self.ranks:
            share = self._risen_before(record, rank - 1)
            sentence = (
                f"singular value {rank}: share that exceeds tenfold that of no flossing before learning"
            )
            found.append(at_least(sentence, 0.5, share))
        return found

    def _risen_before(self, record: Record, index: int) -> float:
        """Of the flossed networks that learn, the share whose value has risen before."""
        values, at = record["singular_values"][..., index], record["measured_at"]
        left = onset(torch.from_numpy(record["accuracy"][1]), which="last").numpy()
        risen = [
            bool((flossed >= ROSE * np.maximum(none, 1e-30))[at <= epoch].any())
            for none, flossed, epoch in zip(*map(_rows, values), left.reshape(-1), strict=True)
            if np.isfinite(epoch)
        ]
        return float(np.mean(risen)) if risen else float("nan")


@dataclass(frozen=True)
class Fig11(Fig10):
    """The same run as figure 10; the network is drawn that leaves chance last."""

    figure: ClassVar[str] = "fig11"
    shows: ClassVar[str] = "as figure 10, for the network whose accuracy leaves chance last"

    def shown(self, left_chance: Tensor) -> Tensor:
        """Which seed is drawn for each delay: the last to leave chance, of those that do."""
        return left_chance.nan_to_num(nan=-torch.inf).argmax(-1)


@dataclass(frozen=True)
class CovariantOverlap(Episodes):
    """Overlap of dL/dh with the first covariant Lyapunov vector over epochs.

    The gradient is that after a third of a trial, where the vector is known.

    Attributes:
        around: epochs before and after accuracy leaves chance that are compared.
    """

    around: int = 200

    figure: ClassVar[str] = "appD-clv"
    shows: ClassVar[str] = "overlap of dL/dh with the first covariant vector over epochs, flossed or not"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": Episodes.scales["smoke"],
        "small": {**Episodes.scales["small"], "delays": (20,)},
    }

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`overlap (condition, delay, seed, measurement)` and `accuracy`."""
        record, _ = self.trained(2, "covariant_overlap", checkpoint, show_progress)
        shape, dims = (2, len(self.delays), self.seeds), ("condition", "delay", "seed")
        overlap = record["covariant_overlap"].reshape(*shape, -1)
        return self.record(
            {
                "accuracy": ((*dims, "epoch"), record["accuracy"].reshape(*shape, -1)),
                "overlap": ((*dims, "measurement"), overlap),
                "measured_at": (("measurement",), record["measured_at"][0].astype(np.int64)),
            },
            condition=(("condition",), np.array(("none", "flossed"))),
        )

    def checks(self, record: Record) -> list[Check]:
        """The overlap rises around the epoch at which accuracy leaves chance for good."""
        found, at = [], record["measured_at"]
        for i, condition in enumerate(record["condition"]):
            left = onset(torch.from_numpy(record["accuracy"][i]), which="last").numpy().reshape(-1)
            changes = []
            for row, epoch in zip(_rows(record["overlap"][i]), left, strict=True):
                before = row[(at < epoch) & (at >= epoch - self.around)]
                after = row[(at >= epoch) & (at <= epoch + self.around)]
                if len(before) and len(after):
                    changes.append(after.mean() / before.mean())
            change = float(np.median(changes)) if changes else float("nan")
            found.append(
                at_least(f"{condition}: overlap after leaving chance over before, median", 1.0, change)
            )
        return found


def _rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values.reshape(-1, values.shape[-1])
