"""Figure 6: residuals inside the non-linearity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.cells import ResidualCell, residuals
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.experiments.weak_coupling.images import SMALL, SMOKE, ImageRun
from lyaptorch.experiments.weak_coupling.training import generator
from lyaptorch.record import Record

KINDS = ("A", "B")


@dataclass(frozen=True)
class _OfKind(ImageRun):
    """The networks of one kind; attributes as `Fig6`."""

    decays: tuple[float, ...] = ()
    multiples: tuple[float, ...] = ()
    coupling: float = 0.03
    kind: str = "A"

    def conditions(self, w0: float, ids: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """First the decays, then the angles."""
        n, count = self.hidden_size, len(self.multiples)
        decays = torch.tensor([*self.decays, *[1.0] * count])
        angles = w0 * torch.tensor([*[0.0] * len(self.decays), *self.multiples])
        r, w = (z[:, None, None].expand(-1, len(ids), m) for z, m in ((decays, n), (angles, n // 2)))
        names = [f"r = {d:g}" for d in self.decays] + [f"{m:g} w0" for m in self.multiples]
        return names, w, r, torch.full_like(r, self.coupling)

    def cell(self, angles: Tensor, decays: Tensor, couplings: Tensor, ids: Tensor) -> ResidualCell:
        """Networks of this kind."""
        return ResidualCell(
            1,
            self.hidden_size,
            residual=residuals.rotation(angles) @ residuals.decay(decays),
            coupling=couplings,
            kind=self.kind,
            ensemble=tuple(ids.shape),
            member_ids=ids,
            generator=generator(self.seed),
        )


@dataclass(frozen=True)
class Fig6(ImageRun):
    """Kinds A, phi(A h) + eps phi(a), and B, phi(A h + eps a): over decays r, and over angles at r = 1.

    Attributes:
        decays: r of networks without rotation.
        multiples: angles of networks with r = 1, relative to the characteristic frequency; 0 is r = 1 above.
        coupling: eps.
    """

    iterations: int = 23_400
    decays: tuple[float, ...] = (0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05)
    multiples: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    coupling: float = 0.03

    figure: ClassVar[str] = "fig6"
    shows: ClassVar[str] = "kinds A and B: accuracy against r, and against the angle of a rotation"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            **SMOKE,
            "learning_rates": (1e-3,),
            "decays": (0.9, 1.0, 1.1),
            "multiples": (1.0,),
            "spectrum_images": 8,
        },
        "small": {
            **SMALL,
            "learning_rates": (1e-2,),
            "batch": 32,
            "iterations": 2500,
            "measure_every": 250,
            "decays": (0.95, 0.99, 1.0, 1.01, 1.05),
            "multiples": (0.5, 1.0, 1.5),
        },
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "3 s", "small": "2 min", "paper": "two hours on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """As `ImageRun.run`, each variable with a dimension `kind` in front."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = [
            _OfKind(**own, kind=kind).run(
                show_progress, checkpoint and checkpoint.with_name(f"{checkpoint.name}-{kind}")
            )
            for kind in KINDS
        ]
        first = parts[0]
        variables = {
            name: (("kind", *variable.dims), np.stack([part[name] for part in parts]))
            for name, variable in first.variables.items()
        }
        coordinates: dict[str, Any] = {**first.coordinates, "kind_name": (("kind",), list(KINDS))}
        return Record(f"weak-coupling {self.figure}", asdict(self), variables, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """A wants r < 1 and B r > 1, and B minds the angle more."""
        found, spans, r = [], [], np.array(self.decays)
        for kind, scores in zip(KINDS, best_over_rates(record), strict=True):
            by_decay = scores[: len(r)]
            below, above = float(by_decay[r < 1].max()), float(by_decay[r > 1].max())
            at_angles = [float(by_decay[r == 1].max()), *map(float, scores[len(r) :])]
            spans.append(max(at_angles) - min(at_angles))
            better, worse, words = (below, above, "r < 1") if kind == "A" else (above, below, "r > 1")
            found.append(at_least(f"kind {kind}: {words} is better than the other side", worse, better))
            gain = scores[len(r) + self.multiples.index(1.0)] - at_angles[0]
            found.append(at_least(f"kind {kind}: the characteristic frequency helps", 0.0, float(gain)))
        found.append(at_least("B is more sensitive to the angle than A", spans[0], spans[1]))
        return found


def best_over_rates(record: Record) -> np.ndarray:
    """Best accuracy `(kind, condition)` of digits in order, averaged over seeds, at the best rate."""
    return np.asarray(np.nan_to_num(record["best_accuracy"][:, 0]).mean(-1).max(-1))
