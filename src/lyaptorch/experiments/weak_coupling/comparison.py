"""Table 2: residual networks beside other networks, on all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from lyaptorch.analysis import best_so_far
from lyaptorch.cells import Cell, CoRNNCell, ElmanCell, LSTMCell, ResidualCell, S4DCell, URLSTMCell, residuals
from lyaptorch.experiments.check import ByName, Checks, at_least, at_most, failing, where
from lyaptorch.experiments.figure import Along, Results, Study, numbers, stacked
from lyaptorch.experiments.weak_coupling.image_runs import SOMETHING
from lyaptorch.experiments.weak_coupling.several_tasks import SeveralTasks, named, score_of
from lyaptorch.experiments.weak_coupling.trained import AUTHORS, figure, learned, uniform
from lyaptorch.plots.primitives import bundle, footnote, look, picture
from lyaptorch.record import Record
from lyaptorch.training import Adam

FREQUENCY = {"mnist": 2 * math.pi / 28, "fashion": 2 * math.pi / 28, "cifar10-grey": 2 * math.pi / 32}
"""Characteristic frequencies: a period is a row of the image."""
CUT = (Along("seed", "seeds"), Along("task", "tasks"), Along("lr", "learning_rates"))
KINDS = ("homogeneous", "heterogeneous", "linear", "Elman", "LSTM", "UR-LSTM", "S4D", "coRNN")
"""Names of networks."""
TABLE = f"{AUTHORS}, table 2"
ADDING = {
    "linear": "linear residual network",
    "Elman": "Elman network (identity start)",
}
"""Networks that are said to fail on the adding problem."""
LONGEST = "adding 800"
"""The length at which both are said to."""
SHORT: dict[str, Any] = {
    "kind": "question",
    "because": "The table says so of one network at all lengths, and its name is lost.",
}
LOST: dict[str, Any] = {
    "kind": "question",
    "because": "The numbers are lost; the text calls them competitive for some datasets.",
}
IMAGES = {
    "linear": "homogeneous residual network − the same without non-linearity",
    "Elman": "mean of residual networks − Elman network (identity start)",
    "LSTM": "mean of residual networks − LSTM",
}
"""What residual networks are said to be better than on images, as a difference."""


@picture(lambda record: len(record["name"]))
def curves(record: Record, axes: list[Axes]) -> None:
    """By task, learning curves of each network at its best rate."""
    for i, (name, panel) in enumerate(zip(record["name"], axes, strict=True)):
        score, label, limits = score_of(str(name))
        for j, kind in enumerate(record["network_name"]):
            # at the rate that is best on average over seeds
            best, (color, dash) = record[f"best_{score}"][i, j].mean(-1), look(j)
            own = record[f"test_{score}"][i, j, np.nanargmin(best) if score == "loss" else np.nanargmax(best)]
            style: dict[str, Any] = {"x": record["measured_at"][i], "dash": dash, "linewidth": 1.5}
            bundle(panel, own, color, str(kind), thick=np.median, **style)
        panel.set(xlabel="task step", ylabel=label, title=name, ylim=limits)
    axes[0].legend()
    counted = f"n = {record['test_loss'].shape[3]} networks of each kind, thin, at its best rate"
    footnote(axes[0], counted, "thick: median")


@figure(
    "table2",
    "residual networks, Elman, LSTM, UR-LSTM, S4D and coRNN on all tasks",
    cost=("5 s", "9 min"),
    smoke={
        "tasks": ("mnist", "adding 8"),
        "learning_rates": (1e-3,),
        "hidden_size": 8,
        "adding_iterations": 2,
    },
    small={
        "tasks": ("mnist", "adding 50"),
        "learning_rates": (3e-3, 1e-2),
        "seeds": 1,
        "iterations": 200,
        "adding_iterations": 2500,
        "measurements": 5,
    },
    draw=curves,
    cut=(*CUT, Along("network", "kinds")),
)
class Table2(SeveralTasks):
    """The best test score of each network on each task, with Adam and a clipped gradient for all.

    An S4D has n / 8 channels of 8 modes.

    Attributes:
        learning_rates: of each network; the best one counts.
        kinds: of networks.
    """

    tasks: tuple[str, ...] = (*SeveralTasks.tasks, "cifar10-grey")
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    kinds: tuple[str, ...] = KINDS
    coupling: float = 0.06
    iterations: int = 23_400
    measurements: int = 50
    test_batches: int = 78

    def networks(self) -> int:
        """Of each kind, at each rate; an LSTM counts for one, and does four times as much."""
        return len(self.kinds) * len(self.learning_rates) * self.seeds

    def run(self, study: Study) -> Results:
        """`test_loss, test_accuracy (task, network, lr, seed, measurement)`, `parameters (task, network)`."""
        rows = [
            [self._train(study.part(name, kind), name, NETWORKS[kind]) for kind in self.kinds]
            for name in self.tasks
        ]
        variables = stacked("task", [stacked("network", row) for row in rows])
        # all networks are tested at the same steps
        _, at = variables.pop("measured_at")
        coordinates = {
            "name": (("task",), list(self.tasks)),
            "network_name": (("network",), list(self.kinds)),
            "learning_rate": (("lr",), list(self.learning_rates)),
            "measured_at": (("task", "measurement"), at[:, 0]),
        }
        return variables, coordinates

    def _train(self, study: Study, name: str, make: Callable[..., Cell]) -> dict[str, Any]:
        """One kind of network, all rates and seeds at once."""
        shape, dims = (len(self.learning_rates), self.seeds), ("lr", "seed")
        ids = numbers(self.first, self.seeds).expand(shape)
        # what is permuted has no frequency, and neither have sums
        w0 = FREQUENCY.get(name, 0.0)
        cell = make(self, named(name).input_size, w0, study.ensemble(ids))
        record = self.learn(
            study,
            name,
            cell,
            ids,
            self.measurements,
            lr=torch.tensor(self.learning_rates)[:, None].expand(shape),
            optimizer=Adam(),
            clip=self.clip,
        )
        best = {
            f"best_{score}": (dims, best_so_far(record, f"test_{score}")[:, -1].reshape(shape))
            for score in ("loss", "accuracy")
        }
        # of one network of the ensemble; residuals and couplings are fixed and do not count
        parameters = sum(p.numel() for p in cell.parameters()) // ids.numel()
        return {**learned(record, ids, dims), **best, "parameters": ((), parameters)}

    def claims(self, record: Record) -> Checks:
        """The ordering of the table."""
        least = partial(at_least, source=TABLE)
        for i, name in enumerate(self.tasks):
            if name.startswith("adding"):
                loss = scores(record, "best_loss", i)
                # who always answers the mean is wrong by 0.408
                lowest = min(loss["homogeneous"], loss["heterogeneous"])
                sentence = f"{name}: best RMS error, better of homogeneous and heterogeneous residuals"
                told = where(np.isfinite(lowest), lowest)
                yield at_most(f"{name} residual", sentence, 0.3, told, source=TABLE)
                for other, words in ADDING.items():
                    told = failing(lowest <= 0.3, loss[other], 0.3, below=False)
                    sentence = f"{name}: best RMS error, {words}"
                    yield least(f"{name} {other}", sentence, 0.3, told, **({} if name == LONGEST else SHORT))
            else:
                accuracy = scores(record, "best_accuracy", i)
                # their mean: the better of two would be better than one by luck alone
                mean = (accuracy["homogeneous"] + accuracy["heterogeneous"]) / 2
                for other, words in IMAGES.items():
                    # both must have left chance
                    own = accuracy["homogeneous"] if other == "linear" else mean
                    told = where(min(own, accuracy[other]) > SOMETHING, own - accuracy[other])
                    sentence = f"{name}: best accuracy, {words}"
                    yield least(f"{name} {other}", sentence, 0.0, told, **(LOST if other == "LSTM" else {}))


def scores(record: Record, name: str, task: int) -> ByName:
    """By network, the score at the best rate, averaged over seeds."""
    # one seed that overflowed rules its rate out
    worst, best = (np.inf, np.min) if name.endswith("loss") else (-np.inf, np.max)
    means = np.nan_to_num(record[name][task], nan=worst).mean(-1)
    return ByName(record["network_name"], [float(best(row)) for row in means])


def _homogeneous(table: Table2, m: int, w0: float, networks: Any, activation: str = "tanh") -> Cell:
    """A rotation at the frequency of the data; a decay where they have none."""
    # 0.998 as in table 1: after ln 2 / 0.002 = 346 steps half is left
    turn = residuals.rotation(w0) if w0 else residuals.decay(0.998)
    return ResidualCell(
        m, table.hidden_size, residual=turn, coupling=table.coupling, activation=activation, **networks
    )


def _heterogeneous(table: Table2, m: int, w0: float, networks: Any) -> Cell:
    """Decays U(0.99, 1) and couplings U(0.02, 0.1), as in table 1; angles U(0, 2 w0)."""
    n, ids = table.hidden_size, networks["member_ids"]
    decays = uniform(table.seed, "decays", n, 0.99, 1.0, ids)
    couplings = uniform(table.seed, "couplings", n, 0.02, 0.1, ids)
    # w0 = 0 leaves the identity; two units make one rotation
    angles = uniform(table.seed, "angles", n // 2, 0.0, 2 * w0, ids)
    turn = residuals.rotation(angles) @ residuals.decay(decays)
    return ResidualCell(m, n, residual=turn, coupling=couplings, **networks)


def _s4d(table: Table2, m: int, w0: float, networks: Any) -> Cell:
    # n modes in all, as others have n units; they are complex, so that the state has 2n numbers
    return S4DCell(m, max(table.hidden_size // 8, 1), 8, **networks)


def _standard(
    kind: Callable[..., Cell], table: Table2, m: int, w0: float, networks: Any, **more: Any
) -> Cell:
    return kind(m, table.hidden_size, **more, **networks)


NETWORKS: dict[str, Callable[..., Cell]] = {
    "homogeneous": _homogeneous,
    "heterogeneous": _heterogeneous,
    "linear": partial(_homogeneous, activation="linear"),
    "Elman": partial(_standard, ElmanCell, weights="identity"),
    "LSTM": partial(_standard, LSTMCell),
    "UR-LSTM": partial(_standard, URLSTMCell),
    "S4D": _s4d,
    "coRNN": partial(_standard, CoRNNCell),
}
"""Makes an ensemble from the table, the inputs, the frequency of the data and what `ensemble` gives."""
