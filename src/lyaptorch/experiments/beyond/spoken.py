"""Spoken digits and digits pixel by pixel, learned by networks that start in many ways."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.digit_tasks import Tones
from lyaptorch.experiments.beyond.learners import asks_at_least, figure
from lyaptorch.experiments.beyond.sequence_starts import (
    BY_NAME,
    GATED,
    KINDS,
    STARTS,
    UNFLOSSED,
    Start,
    started,
)
from lyaptorch.experiments.check import Checks, beyond_error, where
from lyaptorch.experiments.figure import Along, Figure, Results, Study, coordinates, numbers
from lyaptorch.experiments.weak_coupling.trained import network
from lyaptorch.plots.primitives import DASHES, PALETTE, footnote, letters, level, picture
from lyaptorch.record import Given, Record
from lyaptorch.schedules import FitPhase, FlossPhase
from lyaptorch.tasks import SequentialImages, SpokenDigits, Task
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model
from lyaptorch.training.choice import RECURRENT

CHANCE, AT_CHANCE, LEARNED = 0.1, 0.25, 0.6
"""Accuracy of who knows nothing of ten digits; below which a kind is at chance; from which it has learned."""
STEPS = {"frames": 300, "2 kHz": 1200, "4 kHz": 1200, "pixels": 600}
"""Task steps of each task."""
ONLY = {
    "2 kHz": ("Elman", "residual, informed", "GRU", "GRU, open", "GRU, mixing", "LSTM", "LSTM, open", "LIF"),
    "4 kHz": ("GRU", "GRU, open"),
    "pixels": ("GRU", "GRU, open", "LSTM", "LSTM, open"),
}
"""Which starts learn long tasks, where a network takes minutes."""
TESTS = 10
"""Batches of a test: with 30 recordings in each these are all."""
ADVISED = {
    "Elman": ("residual, rotation", "residual, informed", "Elman, mixing"),
    "GRU": ("GRU, open", "GRU, mixing", "GRU, mixing, flossed"),
    "LSTM": ("LSTM, open", "LSTM, mixing", "LSTM, mixing, flossed"),
    "LIF": ("LIF, flossed",),
    "two LIF": ("two LIF, flossed",),
}
"""What this library offers to a network of each kind."""


@picture(2, rows=lambda record: len(record["task"]), width=5.4, height=3.6)
def learned(record: Record, axes: list[Axes]) -> None:
    """Of each task the accuracy of all starts, each network a dot; and how the mean of each grew."""
    names = [str(name) for name in record["start"]]
    for i, task in enumerate(record["task"]):
        dots, curves = axes[2 * i : 2 * i + 2]
        final = record["final_accuracy"][i]
        there = [j for j in range(len(names)) if np.isfinite(final[j]).any()]
        for row, j in enumerate(there):
            kind, same = (
                BY_NAME[names[j]].kind,
                [n for n in names if BY_NAME[n].kind == BY_NAME[names[j]].kind],
            )
            color, dash = PALETTE[KINDS.index(kind)], DASHES[same.index(names[j]) % len(DASHES)]
            dots.plot(final[j], np.full(final.shape[1], row), "o", color=color, alpha=0.5, markersize=4)
            dots.plot(final[j].mean(), row, "|", color=color, markersize=11, markeredgewidth=2)
            mean = record["test_accuracy"][i, j].mean(0)
            curves.plot(record["measured_at"][i], mean, dash, color=color, label=names[j], linewidth=1.3)
        dots.set_yticks(range(len(there)), [names[j] for j in there], fontsize=7)
        dots.axvline(CHANCE, color="0.6", linestyle=":", linewidth=0.9)
        dots.set(
            xlim=(0, 1), xlabel="test accuracy after training", title=str(task), ylim=(len(there) - 0.5, -0.5)
        )
        level(curves, CHANCE)
        curves.set(xlabel="task step", ylabel="test accuracy", ylim=(0, 1.03), title=f"{task}: learning")
        curves.legend(fontsize=5.5, ncols=2)
    letters(axes, "ABCDEF")
    count = record["final_accuracy"].shape[-1]
    footnote(
        axes[0], f"n = {count} networks of each start", "dots: each", "bars and lines: mean", "dotted: chance"
    )


@figure(
    "spoken-digits",
    "spoken digits as frames and as samples, and images pixel by pixel: how networks should start",
    cost=("6 s", "3 min", "1 h"),
    smoke={
        "hidden_size": 4,
        "iterations": {"frames": 2, "2 kHz": 2},
        "measurements": 2,
        "batch": 4,
        "seeds": 1,
        "floss_epochs": 1,
        "made_up": True,
        "tasks": ("frames", "2 kHz"),
        "starts": ("Elman", "residual, informed", "GRU, open", "GRU, mixing, flossed", "LIF", "two LIF"),
    },
    small={"tasks": ("frames",), "iterations": {"frames": 300}, "measurements": 6},
    draw=learned,
)
class SpokenDigitsLearned(Figure):
    """Networks learn to tell ten digits apart, from sound or images, after different starts.

    Attributes:
        tasks: "frames" of spoken digits, their samples, called by how many there are in a second, such as
            "2 kHz", and the 784 "pixels" of images of MNIST.
        starts: names of `STARTS`.
        hidden_size: units.
        coupling: of residuals, where they do not draw their own.
        seeds: networks of each start.
        first: the number of the first of them.
        iterations: task steps of each task.
        measurements: tests on the way, beside that at the end.
        batch: recordings or images of a step.
        lr: learning rate of all.
        clip: of the whole gradient.
        floss_epochs: flossing steps before training, on recurrent weights alone, of half of the exponents.
        floss_lr: learning rate of flossing.
        made_up: tones in the place of speech.
    """

    tasks: tuple[str, ...] = ("frames", "2 kHz", "4 kHz", "pixels")
    starts: tuple[str, ...] = tuple(start.name for start in STARTS)
    hidden_size: int = 64
    coupling: float = 0.1
    seeds: int = 3
    first: int = 0
    iterations: Mapping[str, int] = field(default_factory=lambda: STEPS)
    measurements: int = 15
    batch: int = 30
    lr: float = 3e-3
    clip: float = 1.0
    floss_epochs: int = 60
    floss_lr: float = 2e-3
    made_up: bool = False

    cut: ClassVar[tuple[Along, ...]] = (
        Along("seed", "seeds", 3),
        Along("task", "tasks"),
        Along("start", "starts"),
    )

    def run(self, study: Study) -> Results:
        """`test_accuracy (task, start, seed, measurement)`, `final_accuracy`, and what a step costs.

        NaN where a start does not learn a task.
        """
        every = [self._of_task(study, name) for name in self.tasks]
        found = {key: np.stack([one[key] for one in every]) for key in every[0]}
        dims = ("task", "start", "seed")
        at = [np.arange(self.measurements + 1) * self._every(name) for name in self.tasks]
        measured: dict[str, Given] = {
            "test_accuracy": ((*dims, "measurement"), found["test_accuracy"]),
            "measured_at": (("task", "measurement"), np.array(at, dtype=float)),
            "final_accuracy": (dims, found["final_accuracy"]),
            "flops": (dims, found["flops"]),
            "step_seconds": (dims[:2], found["step_seconds"], {"units": "s"}),
        }
        return measured, coordinates(task=self.tasks, start=self.starts)

    def claims(self, record: Record) -> Checks:
        """Of each task: what is advised, against how a kind starts; mixing, flossing and the residuals."""
        for i, task in enumerate(record["task"]):
            final = dict(zip(map(str, record["start"]), record["final_accuracy"][i], strict=True))
            scores = {n: own for n, own in final.items() if not self.left_out((task, n))}
            yield _rescued(str(task), scores)
            yield from _compared(str(task), scores)

    def left_out(self, point: tuple[Any, ...]) -> bool:
        """Starts that do not learn a task."""
        task, start = point
        return start not in ONLY.get(str(task), self.starts)

    def _every(self, task: str) -> int:
        """Task steps between two tests."""
        return self.iterations[task] // self.measurements

    def _task(self, name: str) -> Any:
        if name == "pixels":
            return SequentialImages("mnist")
        sounds = Tones if self.made_up else SpokenDigits
        return sounds() if name == "frames" else sounds("samples", rate=1000 * int(name.split()[0]))

    def _of_task(self, study: Study, name: str) -> dict[str, NDArray[Any]]:
        """Of one task what is measured of each start, side by side."""
        none = np.full(self.seeds, np.nan)
        nothing = {
            "test_accuracy": np.full((self.seeds, self.measurements + 1), np.nan),
            **dict.fromkeys(("final_accuracy", "flops"), none),
            "step_seconds": np.array(np.nan),
        }
        found = [
            nothing if self.left_out((name, start)) else self._learn(study, name, BY_NAME[start])
            for start in self.starts
        ]
        return {key: np.stack([one[key] for one in found]) for key in nothing}

    def _learn(self, study: Study, name: str, start: Start) -> dict[str, NDArray[Any]]:
        """Start, floss, train, and test the networks of one start."""
        study, task, every = study.part(name, start.name), self._task(name), self._every(name)
        ids, length = numbers(self.first, self.seeds), task.length
        cell = started(start, task, length, self.hidden_size, self.coupling, study, ids)
        model = network(study, cell, task, ids)
        fit: dict[str, Any] = {"batch": self.batch, "lr": self.lr, "clip": self.clip, "clip_mode": "global"}
        fit |= {"member_ids": ids, "unstable": "mark"}
        flops = np.zeros(self.seeds)
        if start.flossed:
            k, lr = max(1, cell.state_size // 2), self.floss_lr
            phase = FlossPhase(self.floss_epochs, k=k, lr=lr, clip=1.0, parameters=RECURRENT)
            flops += study.part("flossing").train(model, task, (phase,), **fit)["floss_flops"]
        seconds = self._step_seconds(model, task, fit)
        tests = {"metrics": ("test",), "metrics_every": every, "test_batches": TESTS}
        record = study.train(model, task, (FitPhase(every * self.measurements),), **fit, **tests)
        final = study.evaluate(model, task, batch=self.batch, batches=TESTS, member_ids=ids)
        return {
            # the last measurement of a training comes before its last steps
            "test_accuracy": np.column_stack([record["test_accuracy"], final["accuracy"]]),
            "final_accuracy": final["accuracy"],
            "flops": flops + record["fit_flops"],
            "step_seconds": np.array(seconds),
        }

    def _step_seconds(self, model: Model, task: Task, fit: dict[str, Any]) -> float:
        """Processor time of a task step of one network, forwards and backwards, the least of two."""
        batch = task.draw(Draw(0, getattr(task, "length"), self.batch, member_ids=fit["member_ids"]))  # noqa: B009
        taken = []
        for _ in range(2):
            start = time.process_time()
            loss, _ = model.loss(batch)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            taken.append(time.process_time() - start)
        model.zero_grad(set_to_none=True)
        return min(taken) / self.seeds


def _rescued(task: str, scores: dict[str, NDArray[Any]]) -> Any:
    """The best that is advised to a kind which, as it starts, stays at chance."""
    lost = [kind for kind in ADVISED if kind in scores and scores[kind].mean() < AT_CHANCE]
    advised = [scores[name].mean() for kind in lost for name in ADVISED[kind] if name in scores]
    best = max((score for score in advised if np.isfinite(score)), default=math.nan)
    lowest = f"kinds of network below {AT_CHANCE} with their default start"
    sentence = f"{task}: best mean accuracy with an advised start, among {lowest}"
    return asks_at_least(f"{task} rescued", sentence, LEARNED, best)


PAIRS = (
    *((f"{kind}, open", kind) for kind in GATED),
    *((f"{kind}, mixing", kind) for kind in ("Elman", *GATED)),
    *((f"{kind}, mixing", f"{kind}, open") for kind in GATED),
    *UNFLOSSED.items(),
    ("residual, rotation", "residual, identity"),
    ("residual, informed", "residual, identity"),
    ("residual, informed", "Elman"),
)
"""What is compared, network by network: a start, and its null."""


def _compared(task: str, scores: dict[str, NDArray[Any]]) -> Checks:
    for own, null in PAIRS:
        if own in scores and null in scores:
            both = np.stack([scores[own], scores[null]])
            # equal batches; nothing is told within two standard errors, nor where both stay at chance
            told = where(both.mean(1).max() > AT_CHANCE, beyond_error(both[0] - both[1]))
            sentence = f"{task}: accuracy, [{own}] − [{null}] (mean over networks)"
            yield asks_at_least(f"{task} {own} {null}", sentence, 0.0, told)
