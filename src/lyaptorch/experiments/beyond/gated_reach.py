"""How far gated networks reach: the longest delay that each start learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.beyond.gated import FLOSSED, SMOKE, Gated
from lyaptorch.experiments.beyond.learners import asks_at_least, figure
from lyaptorch.experiments.check import Checks, where
from lyaptorch.experiments.figure import Study
from lyaptorch.plots.primitives import footnote, label_accuracy, level, look, picture, scores
from lyaptorch.record import Record

SOLVED = 0.95
"""Accuracy from which a delay counts as learned."""
FARTHER = 1.5
"""How much farther mixing is to reach, and by how much its delays are longer."""
REFERENCE = ("torch", "open gates", "orthogonal")
"""What others advise."""


@picture(lambda record: len(record["kind"]), width=4.0)
def reach(record: Record, axes: list[Axes]) -> None:
    """Accuracy against delay under each start, a panel for each kind."""
    for i, (panel, kind) in enumerate(zip(axes, record["kind"], strict=True)):
        for s, name in enumerate(record["start"]):
            color, dash = look(s)
            accuracy = record["final_accuracy"][i, :, 0, s]
            scores(panel, record["lag"][i, :, s], accuracy, color, str(name), dash=dash)
        level(panel, SOLVED)
        label_accuracy(panel, "delay", str(kind))
    axes[0].legend()
    footnote(axes[0], f"n = {record['final_accuracy'].shape[-1]} networks", "each, and their mean")


@figure(
    "gated-reach",
    "the longest delay that gated networks learn under several starts",
    cost=("3 s", "1 min", "15 min"),
    smoke={**SMOKE, "starts": ("torch", "open gates", "orthogonal", "mixing")},
    small={"delays": (10, 20), "seeds": 3, "rates": (3e-3,), "epochs": 900, "floss_epochs": 30},
    draw=reach,
)
class GatedReach(Gated):
    """How far each start reaches with four times the steps: mixing learns delays 1.5 times as long.

    A part of the networks is to learn each of `delays`, and the same with mixing 1.5 times that.
    """

    delays: tuple[int, ...] = (22, 24, 26)
    starts: tuple[str, ...] = (*REFERENCE, "mixing", FLOSSED)
    seeds: int = 3
    tuning: int = 1
    epochs: int = 3600

    def claims(self, record: Record) -> Checks:
        """Mixing learns 1.5 times the longest delay that any of what others advise learns."""
        names, delays = record["start"].tolist(), record["delay"].tolist()
        for i, kind in enumerate(record["kind"]):
            accuracy = dict(zip(names, record["final_accuracy"][i, :, 0].mean(-1).T, strict=True))
            others = np.max([accuracy[name] for name in REFERENCE if name in accuracy], 0)
            farthest = max(np.flatnonzero(others >= SOLVED), default=-1)
            for name in (name for name in ("mixing", FLOSSED) if name in accuracy):
                own = float(accuracy[name][farthest])
                # who learns the longest delay may reach farther, which cannot make up for a miss
                known = farthest >= 0 and (farthest < len(delays) - 1 or own < SOLVED)
                any_of = ", ".join(f"[{reference}]" for reference in REFERENCE)
                best = f"{FARTHER} times the longest delay that any of {any_of} learns"
                sentence = f"{kind}: mean accuracy of [{name}] at {best}"
                yield asks_at_least(f"{kind} {name}", sentence, SOLVED, where(known, own))

    def _at(self, kind: str, delay: int, study: Study) -> dict[str, Any]:
        """What is measured of networks that learn a delay or a longer one, `lag (start)`."""
        lags = [delay if name in REFERENCE else round(FARTHER * delay) for name in self.starts]
        found: dict[str, Any] = {"lag": (("start",), np.array(lags))}
        for lag in sorted(set(lags)):
            rows = [i for i, own in enumerate(lags) if own == lag]
            part = replace(self, starts=tuple(self.starts[i] for i in rows))
            for name, (dims, values, *rest) in Gated._at(part, kind, lag, study.part(lag)).items():
                axis, values = dims.index("start"), np.asarray(values)
                shape = [len(lags) if j == axis else n for j, n in enumerate(values.shape)]
                whole = found.setdefault(name, (dims, np.zeros(shape, values.dtype), *rest))[1]
                whole[(slice(None),) * axis + (rows,)] = values
        return found
