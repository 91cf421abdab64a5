"""Does a diagnosis of its start predict what a network learns? Rank correlations over many starts."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch.analysis import memory_capacity
from lyaptorch.cells import Cell
from lyaptorch.diagnosis.measure import FADED
from lyaptorch.experiments.beyond.gated import ALIGN, MEASURED
from lyaptorch.experiments.beyond.learners import LEARNED, asks_at_least, asks_at_most, figure
from lyaptorch.experiments.beyond.starts import Start, floss_some, networks
from lyaptorch.experiments.check import Checks, where
from lyaptorch.experiments.figure import Figure, Results, Study, coordinates, numbers
from lyaptorch.plots.primitives import TINY, footnote, level, look, picture
from lyaptorch.record import Record
from lyaptorch.schedules import FitPhase
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks import DelayedCopy
from lyaptorch.tasks.batch import Draw
from lyaptorch.training import Model, Readout

GATES = (Start(), Start(opened=0.5), Start(opened=2.0), Start(passing=1.5), Start(passing=3.0))
"""Biases of gates: torch's, open for up to half and twice the delay, passing 82% and 95%."""
CANDIDATES = ("gaussian", "orthogonal")
STRONG = 1.4
"""The gain of the starts that are flossed."""
CHANCE = 0.55
"""Accuracy below which a network counts as at chance."""
RESAMPLED = 2000
"""Bootstrap samples of starts."""
PREDICTORS = ("lambda1", "surviving", "capacity", "recall", "both")
"""What is correlated with the accuracy; `both` is the mean rank of `surviving` and `recall`."""


@picture(4, width=3.1)
def against(record: Record, axes: list[Axes]) -> None:
    """Accuracy after training against each predictor, a dot for each start."""
    accuracy, kinds = record["final_accuracy"].mean(-1), record["kind"]
    labels = {
        "lambda1": r"$\lambda_1$ (nats per step)",
        "surviving": "directions that survive",
        "recall": "mean recall up to the horizon",
        "both": "mean rank of both",
    }
    for panel, (name, label) in zip(axes, labels.items(), strict=True):
        x = predictors(record)[name]
        for i, kind in enumerate(dict.fromkeys(kinds.tolist())):
            own = kinds == kind
            panel.plot(x[own], accuracy[own], "o", color=look(i)[0], alpha=0.6, markersize=3.5, label=kind)
        level(panel, 0.5)
        panel.set(xlabel=label, ylabel="accuracy", ylim=(0.45, 1.03))
        panel.set_title(f"rank correlation {rank_correlation(x, accuracy):.2f}")
    axes[0].legend(loc="upper left")
    count = record["final_accuracy"].shape[-1]
    footnote(axes[0], f"n = {len(kinds)} starts, each the mean of {count} network{'s' * (count > 1)}")


def rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's, of ties the mean rank; 0 where one of them is constant."""
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else 0.0


def predictors(record: Record) -> dict[str, NDArray[Any]]:
    """Each predictor `(start,)`, means over the networks of a start."""
    from scipy import stats

    own: dict[str, NDArray[Any]] = {name: record[name].mean(-1) for name in PREDICTORS[:-1]}
    ranks = stats.rankdata(own["surviving"]) + stats.rankdata(own["recall"])
    return {**own, "both": ranks / 2}


def gap(record: Record) -> tuple[float, float]:
    """By how much both together are ahead of the better of two numbers of exponents: 95% of bootstraps."""
    from scipy import stats

    found, accuracy = predictors(record), record["final_accuracy"].mean(-1)
    n = len(accuracy)
    drawn = np.random.default_rng(0).integers(n, size=(RESAMPLED, n))

    def ranks(x: NDArray[Any]) -> NDArray[Any]:
        """Those within each sample, of length 1."""
        own = stats.rankdata(x[drawn], axis=1) - (n + 1) / 2
        return np.asarray(own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), TINY))

    learned = ranks(accuracy)
    names = ("both", "lambda1", "surviving")
    both, *alone = ((ranks(found[name]) * learned).sum(1) for name in names)
    low, high = np.quantile(both - np.maximum(*alone), (0.025, 0.975))
    return float(low), float(high)


@figure(
    "prediction",
    "how well exponents and memory capacity before training predict accuracy",
    cost=("5 s", "2 min", "15 min"),
    smoke={
        "delay": 4,
        "gains": (1.4,),
        "kinds": ("RNN", "GRU"),
        "seeds": 1,
        "epochs": 3,
        "floss_epochs": 2,
        "hidden_size": 6,
        "batch": 2,
        "length": 20,
        "probe": 100,
    },
    small={"kinds": ("RNN", "GRU"), "gains": (0.7, 1.0, 1.4), "floss_epochs": 30},
    draw=against,
)
class Prediction(Figure):
    """Networks of many starts copy bits for 300 steps; their accuracy against what was measured before.

    Starts: kinds x Gaussian and orthogonal candidates x gains x gates, and some of them flossed. The
    predictors, their combination and the steps were chosen on networks of other numbers.

    Attributes:
        kinds: of cells.
        delay: of the copy.
        gains: of the candidate; without gates that of all recurrent weights.
        seeds: networks of each start.
        first: the number of the first of them.
        epochs: training steps.
        lr: learning rate.
        floss_epochs: flossing steps of the starts that are flossed.
        floss_lr: learning rate of flossing.
        hidden_size: units.
        batch: trajectories of a training step.
        length: steps of a trial.
        probe: steps on which the capacity is measured.
    """

    kinds: tuple[str, ...] = ("RNN", "GRU", "LSTM")
    delay: int = 30
    gains: tuple[float, ...] = (0.7, 1.0, 1.4, 2.0)
    seeds: int = 3
    first: int = 0
    epochs: int = 300
    lr: float = 3e-3
    floss_epochs: int = 60
    floss_lr: float = 4e-3
    hidden_size: int = 32
    batch: int = 16
    length: int = 100
    probe: int = 4000

    def starts(self, kind: str) -> list[Start]:
        """All starts of one kind; without gates there are fewer, and so more gains."""
        gated = kind != "RNN"
        gates = GATES if gated else GATES[:1]
        few = [GATES[i] for i in (0, 1, -1)] if gated else GATES[:1]
        own = self.gains if gated else (*self.gains, *(1.18 * g for g in self.gains))
        strong = (STRONG,) if gated else (0.7, 1.0, STRONG)
        plain = [replace(z, candidate=c, gain=g) for c, g, z in product(CANDIDATES, own, gates)]
        return plain + [
            replace(z, candidate=c, gain=g, flossed="W", share=share)
            for c, g, z, share in product(CANDIDATES, strong, few, (0.5, 1.0))
        ]

    def run(self, study: Study) -> Results:
        """`lambda1`, `surviving`, `capacity`, `recall`, `final_accuracy (start, seed)`."""
        parts = [self._of_kind(kind, study.part(kind)) for kind in self.kinds]
        dims = ("start", "seed")
        joined = {name: (dims, np.concatenate([part[name] for part in parts])) for name in parts[0]}
        kinds = [kind for kind in self.kinds for _ in self.starts(kind)]
        along = {"kind": (("start",), np.array(kinds)), **coordinates(start=range(len(kinds)))}
        return joined, along

    def claims(self, record: Record) -> Checks:
        """Both together predict, better than exponents alone; and not because most starts learn nothing."""
        accuracy = record["final_accuracy"].mean(-1)
        # where nobody learns nothing is predicted
        some = accuracy.max() > LEARNED
        at_chance = where(some, (accuracy < CHANCE).mean())
        sentence = f"share of {len(accuracy)} starts with mean accuracy below {CHANCE}"
        yield asks_at_most("chance", sentence, 1 / 3, at_chance)
        own = {name: rank_correlation(x, accuracy) for name, x in predictors(record).items()}
        both = "rank correlation with accuracy, surviving directions and mean recall combined"
        yield asks_at_least("both", both, 0.8, where(some, own["both"]))
        ends = "lower end of 95% bootstrap interval"
        sentence = f"{both} − better of lambda_1 and surviving directions ({ends})"
        yield asks_at_least("gap", sentence, 0.0, where(some, gap(record)[0]))
        words = {
            "lambda1": "lambda_1",
            "surviving": "surviving directions",
            "capacity": "memory capacity at the delay",
        }
        for name, word in {**words, "recall": "mean recall"}.items():
            sentence = f"{both} − {word} alone"
            yield asks_at_least(name, sentence, 0.0, where(some, own["both"] - own[name]))

    def _of_kind(self, kind: str, study: Study) -> dict[str, NDArray[Any]]:
        """All measurements `(start, seed)` of one kind."""
        ids, starts, task = numbers(self.first, self.seeds), self.starts(kind), DelayedCopy(self.delay, True)
        cell = networks(kind, self.hidden_size, starts, task, ids, study)
        floss_some(cell, starts, task, ids, study, epochs=self.floss_epochs, lr=self.floss_lr)
        each = ids.expand(cell.ensemble)
        found = self._measured(cell, task, each)
        model = Model(cell, Readout(self.hidden_size, 1, **study.ensemble(each)), loss=task.loss)
        fit: dict[str, Any] = {"schedule": (FitPhase(self.epochs),), "clip": 1.0, "clip_mode": "global"}
        trial: dict[str, Any] = {"batch": self.batch, "steps": self.length}
        _, learned = study.learn(model, task, each, ("start", "seed"), lr=self.lr, **trial, **fit)
        return {name: z.numpy() for name, z in found.items()} | {
            "final_accuracy": np.asarray(learned["final_accuracy"][1])
        }

    @torch.no_grad()
    def _measured(self, cell: Cell, task: DelayedCopy, each: Tensor) -> dict[str, Tensor]:
        drawn = Draw(self.seed, MEASURED + ALIGN, member_ids=each, stream="measure")
        inputs = task.inputs(drawn)
        exponents = lyapunov_spectrum(cell, inputs, tangent_transient=ALIGN).exponents[..., 0, :]
        shares = memory_capacity(cell, self.delay + 1, steps=self.probe).clamp(0, 1)
        return {
            "lambda1": exponents.amax(-1),
            "surviving": (exponents * self.delay > math.log(FADED)).sum(-1).float(),
            "capacity": shares[-1],
            # the correlation of what is recalled with what was, over lags up to the delay
            "recall": shares.sqrt().mean(0),
        }
