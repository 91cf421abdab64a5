"""Spoken digits and digits in rows of pixels, learned by networks that start in many ways."""

from __future__ import annotations

import math
import time
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch.experiments.beyond.digit_tasks import Rows, Tones
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
from lyaptorch.tasks import SpokenDigits, Task
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model
from lyaptorch.training.choice import RECURRENT

CHANCE, AT_CHANCE, LEARNED = 0.1, 0.25, 0.6
"""Accuracy of who knows nothing of ten digits; below which a kind is at chance; from which it has learned."""
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
    "spoken digits as frames and as samples, and images in rows: how networks should start",
    cost=("6 s", "9 min", "days; hours on a GPU"),
    smoke={
        "hidden_size": 4,
        "iterations": (2, 2),
        "measure_every": 1,
        "batch": 4,
        "seeds": 1,
        "floss_epochs": 1,
        "rate": 500,
        "made_up": True,
        "tasks": ("frames", "samples"),
        "starts": ("Elman", "residual, informed", "GRU, open", "GRU, mixing", "GRU, mixing, flossed", "LIF"),
        "compiled": ("samples",),
    },
    small={
        "hidden_size": 64,
        "iterations": (300, 200, 300),
        "starts": tuple(start.name for start in STARTS if start.kind != "two LIF"),
        "measure_every": 50,
        "seeds": 3,
        "floss_epochs": 60,
        "rate": 2000,
        "compiled": ("samples",),
    },
    draw=learned,
)
class SpokenDigitsLearned(Figure):
    """Networks learn to tell ten digits apart, from sound or images, after different starts.

    Attributes:
        tasks: "frames" and "samples" of spoken digits, and "rows" of MNIST: these are for gated networks
            alone, without flossing, which looks at more steps than they have.
        starts: names of `STARTS`.
        compiled: tasks that only networks with compiled steps learn: GRU, LSTM and two layers take too long.
        hidden_size: units.
        coupling: of residuals, where they do not draw their own.
        seeds: networks of each start.
        first: the number of the first of them.
        rate: samples per second.
        iterations: task steps of each task.
        measure_every: task steps between two tests.
        batch: recordings or images of a step.
        lr: learning rate of all.
        clip: of the whole gradient.
        floss_epochs: flossing steps before training, on recurrent weights alone, of half of the exponents.
        floss_lr: learning rate of flossing.
        made_up: tones in the place of speech.
    """

    tasks: tuple[str, ...] = ("frames", "samples", "rows")
    starts: tuple[str, ...] = tuple(start.name for start in STARTS)
    compiled: tuple[str, ...] = ()
    hidden_size: int = 128
    coupling: float = 0.1
    seeds: int = 5
    first: int = 0
    rate: int = 4000
    iterations: tuple[int, ...] = (4500, 4500, 4500)
    measure_every: int = 90
    batch: int = 30
    lr: float = 3e-3
    clip: float = 1.0
    floss_epochs: int = 200
    floss_lr: float = 2e-3
    made_up: bool = False

    cut: ClassVar[tuple[Along, ...]] = (Along("seed", "seeds"),)

    def run(self, study: Study) -> Results:
        """`test_accuracy (task, start, seed, measurement)`, `final_accuracy`, and what a step costs.

        NaN where a start does not learn a task.
        """
        found = {}
        for i, name in enumerate(self.tasks):
            task, steps = self._task(name), self.iterations[i]
            for j, start in enumerate(self.starts):
                if not self._left_out(name, BY_NAME[start]):
                    found[i, j] = self._learn(study.part(name, start), task, BY_NAME[start], steps)
        whole = _side_by_side(found, (len(self.tasks), len(self.starts)))
        dims = ("task", "start", "seed")
        measured: dict[str, Given] = {
            "test_accuracy": ((*dims, "measurement"), whole["test_accuracy"]),
            "measured_at": (("task", "measurement"), np.fmax.reduce(whole["measured_at"], 1)),
            "final_accuracy": (dims, whole["final_accuracy"]),
            "flops": (dims, whole["flops"]),
            "step_seconds": (dims[:2], whole["step_seconds"], {"units": "s"}),
        }
        return measured, coordinates(task=self.tasks, start=self.starts)

    def claims(self, record: Record) -> Checks:
        """Of each task: what is advised, against how a kind starts; mixing, flossing and the residuals."""
        for i, task in enumerate(record["task"]):
            final = dict(zip(map(str, record["start"]), record["final_accuracy"][i], strict=True))
            scores = {n: own for n, own in final.items() if not self._left_out(str(task), BY_NAME[n])}
            yield _rescued(str(task), scores)
            yield from _compared(str(task), scores)

    def _left_out(self, task: str, start: Start) -> bool:
        if task == "rows":
            return start.kind not in GATED or start.flossed
        return task in self.compiled and start.kind in (*GATED, "two LIF")

    def _task(self, name: str) -> Any:
        if name == "rows":
            return Rows()
        return (Tones if self.made_up else SpokenDigits)(name, rate=self.rate)

    def _learn(self, study: Study, task: Any, start: Start, steps: int) -> dict[str, NDArray[Any]]:
        """Start, floss, train for so many steps, and test the networks of one start."""
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
        tests = {"metrics": ("test",), "metrics_every": self.measure_every, "test_batches": TESTS}
        record = study.train(model, task, (FitPhase(steps),), **fit, **tests)
        final = study.evaluate(model, task, batch=self.batch, batches=TESTS, member_ids=ids)
        # the last measurement of a training comes before its last steps
        after = np.nanmax(record["measured_at"], 0), [steps]
        return {
            "test_accuracy": np.column_stack([record["test_accuracy"], final["accuracy"]]),
            "measured_at": np.concatenate(after),
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


def _side_by_side(
    found: dict[tuple[int, int], dict[str, NDArray[Any]]], shape: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    """What was found at each place, of this shape in front; NaN elsewhere, and behind a shorter curve."""
    whole: dict[str, NDArray[Any]] = {}
    for key in next(iter(found.values())):
        values = {place: one[key] for place, one in found.items()}
        most = np.max([value.shape for value in values.values()], 0).astype(int)
        whole[key] = np.full((*shape, *most), np.nan)
        for place, value in values.items():
            at: tuple[int | slice, ...] = (*place, *(slice(n) for n in value.shape))
            whole[key][at] = value
    return whole


def _rescued(task: str, scores: dict[str, NDArray[Any]]) -> Any:
    """The best that is advised to a kind which, as it starts, stays at chance."""
    lost = [kind for kind in ADVISED if kind in scores and scores[kind].mean() < AT_CHANCE]
    advised = [scores[name].mean() for kind in lost for name in ADVISED[kind] if name in scores]
    best = max((score for score in advised if np.isfinite(score)), default=math.nan)
    sentence = f"{task}: accuracy with what is advised, of a kind that stays below {AT_CHANCE} as it starts"
    return asks_at_least(f"{task} rescued", sentence, LEARNED, best)


PAIRS = (
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
            yield asks_at_least(f"{task} {own} {null}", f"{task}: {own} above {null}", 0.0, told)
