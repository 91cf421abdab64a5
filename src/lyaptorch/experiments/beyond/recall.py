"""More to remember, or for longer: which needs more exponents?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.learning import Learning
from lyaptorch.experiments.checks import Check, at_least
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import Recall
from lyaptorch.training.presets import gf2023


@dataclass(frozen=True)
class ItemsByDelay(Learning):
    """Preflossed networks learn `Recall`, with items and delay varied independently, over k.

    Attributes:
        items: bits to remember.
        delays: steps from a bit to its repetition; the networks of an item and a delay are one ensemble.
        ks: exponents flossed; 0 for none.
    """

    items: tuple[int, ...] = (2, 5, 10, 20)
    delays: tuple[int, ...] = (20, 40, 60)
    ks: tuple[int, ...] = (0, 1, 5, 10, 20, 40, 75)
    seeds: int = 5

    figure: ClassVar[str] = "items-x-delay"
    shows: ClassVar[str] = "the Recall task: whether more items or a longer delay needs more exponents"
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {**Learning.SMOKE, "items": (1, 2), "delays": (3, 5), "ks": (0, 1, 4)},
        "small": {**Learning.SMALL, "items": (2, 10), "delays": (20, 40), "ks": (0, 1, 4, 12, 30)}
        | {"seeds": 3, "epochs": 500},
    }
    cost: ClassVar[Mapping[str, str]] = {"smoke": "2 s", "small": "20 s", "paper": "a day; 1 h on a GPU"}

    def run(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """`final_accuracy (items, delay, k, seed)`."""
        shape = (len(self.ks), self.seeds)
        ids, k = torch.arange(self.seeds).expand(shape), torch.tensor(self.ks)[:, None].expand(shape)
        # of those that are not flossed k is not looked at
        phase = FlossPhase(self.floss_epochs, k=k.clamp_min(1), clip=self.floss_clip, who=k > 0)
        rows = []
        for items in self.items:
            for delay in self.delays:
                task = Recall(items, delay)
                model = gf2023(
                    task,
                    hidden_size=self.hidden_size,
                    rows=self.batch,
                    ensemble=shape,
                    member_ids=ids,
                    generator=self._generator(),
                )
                path = checkpoint and checkpoint.with_name(f"{checkpoint.name}-{items}-{delay}")
                schedule = (phase, FitPhase(self.epochs))
                rows.append(self.learn(model, task, schedule, ids, path, show_progress)[1])
        final = torch.stack(rows).reshape(len(self.items), len(self.delays), *shape)
        coordinates: dict[str, Given] = {
            "items": (("items",), np.array(self.items)),
            "delay": (("delay",), np.array(self.delays)),
            "k": (("k",), np.array(self.ks)),
        }
        dims = ("items", "delay", "k", "seed")
        return Record(f"beyond {self.figure}", asdict(self), {"final_accuracy": (dims, final)}, coordinates)

    def checks(self, record: Record) -> list[Check]:
        """More items need more exponents, and that matters more than a longer delay."""
        needed, best = exponents_needed(record), record["final_accuracy"].mean(-1).max(-1)
        items, delay = (float(np.diff(needed.mean(axis)[[0, -1]])[0]) for axis in (1, 0))
        return [
            at_least("best accuracy with most items, longest delay", 0.6, float(best[-1, -1])),
            at_least("exponents needed, with most items minus with fewest", 1.0, items),
            at_least("difference by items minus difference by delay", 0.0, items - delay),
        ]


def exponents_needed(record: Record) -> NDArray[np.float64]:
    """`(items, delay)`: the least k with 90% of what the best k brings; 0 where none is needed."""
    gain = record["final_accuracy"].mean(-1) - 0.5
    enough = gain >= 0.9 * gain.max(-1, keepdims=True)
    return np.asarray(record["k"][enough.argmax(-1)], np.float64)
