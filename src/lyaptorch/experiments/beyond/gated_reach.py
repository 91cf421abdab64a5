"""How far gated networks reach: the longest delay that each start learns."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from lyaptorch.experiments.beyond.gated import FLOSSED, SMOKE, Gated
from lyaptorch.experiments.beyond.learners import asks_at_least, figure
from lyaptorch.experiments.check import Checks, where
from lyaptorch.plots.primitives import footnote, label_accuracy, level, look, picture, scores
from lyaptorch.record import Record

SOLVED = 0.95
"""Accuracy from which a delay counts as learned."""
FARTHER = 1.5
"""How much farther mixing is to reach."""
REFERENCE = ("torch", "open gates", "orthogonal")
"""What others advise."""


@picture(lambda record: len(record["kind"]), width=4.0)
def reach(record: Record, axes: list[Axes]) -> None:
    """Accuracy against delay under each start, a panel for each kind."""
    for i, (panel, kind) in enumerate(zip(axes, record["kind"], strict=True)):
        for s, name in enumerate(record["start"]):
            color, dash = look(s)
            scores(panel, record["delay"], record["final_accuracy"][i, :, 0, s], color, str(name), dash=dash)
        level(panel, SOLVED)
        label_accuracy(panel, "delay", str(kind))
    axes[0].legend()
    footnote(axes[0], f"n = {record['final_accuracy'].shape[-1]} networks", "each, and their mean")


@figure(
    "gated-reach",
    "the longest delay that gated networks learn under several starts",
    cost=("3 s", "2 min", "two hours"),
    smoke={**SMOKE, "starts": ("torch", "open gates", "orthogonal", "mixing")},
    small={"delays": (10, 20, 30), "seeds": 2, "rates": (3e-3,), "epochs": 900, "floss_epochs": 30},
    draw=reach,
)
class GatedReach(Gated):
    """How far each start reaches with four times the steps; on a grid of delays."""

    delays: tuple[int, ...] = (16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40)
    starts: tuple[str, ...] = (*REFERENCE, "gates at half", "mixing", FLOSSED)
    tasks: tuple[str, ...] = ("copy",)
    epochs: int = 3600

    def claims(self, record: Record) -> Checks:
        """Mixing reaches 1.5 times as far as the best of what others advise."""
        names, delays = record["start"].tolist(), record["delay"]
        for i, kind in enumerate(record["kind"]):
            learned = record["final_accuracy"][i, :, 0].mean(-1) >= SOLVED
            farthest = np.where(learned, delays[:, None], 0).max(0)
            own = dict(zip(names, farthest.tolist(), strict=True))
            best = max(own[name] for name in REFERENCE if name in own)
            for name in (name for name in ("mixing", FLOSSED) if name in own):
                # where nobody else learned the shortest delay there is nothing to compare with
                told = where(best, own[name] / max(best, 1))
                sentence = (
                    f"{kind}: longest delay learned with {name}, over the best of {', '.join(REFERENCE)}"
                )
                yield asks_at_least(f"{kind} {name}", sentence, FARTHER, told)
