"""Setting of the figures that train: networks, task, what is done to which of them, sweeps over delays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from lyaptorch.experiments.figure import Along, Figure, Results, Scales, Study, coordinates, declare, numbers
from lyaptorch.experiments.thinning import stands_for
from lyaptorch.plots.primitives import Rows, bundle, look, quartiles
from lyaptorch.record import Given, Record, Variable
from lyaptorch.schedules import At, FitPhase, FlossPhase, Schedule, Trigger
from lyaptorch.tangent import Spectrum, lyapunov_spectrum
from lyaptorch.tasks import TASKS, Task
from lyaptorch.tasks.batch import Draw
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Model
from lyaptorch.training.metrics import fit_flops, floss_flops
from lyaptorch.training.presets import gf2023

SMOKE: dict[str, Any] = {
    "delays": (2, 4),
    "seeds": 2,
    "epochs": 20,
    "floss_epochs": 5,
    "k": 12,
    "hidden_size": 16,
    "batch": 4,
    "length": 30,
}
"""What is small at smoke scale."""
DIMS = ("condition", "delay", "seed")
CUT = (Along("seed", "seeds", 4), Along("delay", "delays"))
"""A part has four networks at one delay, under all conditions."""
SMOOTH = 20
"""Epochs over which drawn curves are averaged."""


figure = partial(declare, "gradient-flossing")
"""Declares a figure of this paper."""


def smoothed(record: Record, width: int = SMOOTH) -> str:
    """Over how many epochs drawn curves are averaged, for the note below a picture."""
    return f"over epochs: running means of {max(width, stands_for(record['accuracy']))}"


@dataclass(frozen=True)
class Condition:
    """What is done to some of the networks of a figure; by default they are trained and not flossed.

    Attributes:
        name: in tables and legends.
        before: whether they are flossed before training.
        episodes: task epochs of later flossing.
        k: exponents flossed; those of the setting when missing.
        penalty: what flossing minimises, as in `FlossPhase`.
        gain: of the initial weights.
        clip: largest norm of a task gradient.
        flossing_weight: of the flossing loss beside the task loss.
    """

    name: str
    before: bool = False
    episodes: tuple[int, ...] = ()
    k: int | None = None
    penalty: str = "exponents"
    gain: float = 1.0
    clip: float = 0.03
    flossing_weight: float = 0.0


class Networks(NamedTuple):
    """Networks, their task, and their ids `(condition, delay, seed)`."""

    model: Model
    task: LaggedTask
    ids: Tensor


class Setting(Figure):
    """Ensembles of `gf2023` networks trained on a task with a lag.

    Attributes:
        task: delayed_copy, spatial_xor or temporal_xor.
        analogue: whether inputs are numbers in [0, 1) instead of bits.
        delays: longest lags.
        seeds: networks for each delay.
        first: the number of the first of them.
        epochs: task steps.
        floss_epochs: flossing steps of an episode.
        k: exponents flossed.
        floss_clip: largest norm of a flossing gradient; None, as published, for no limit. At small scale 1,
            because without it one network in six or so flosses badly, and three are few.
        activation: of the units.
        weights: how recurrent weights are drawn at first.
        hidden_size: n.
        batch: trajectories of a task step.
        length: steps of a trial.
    """

    task: str = "temporal_xor"
    analogue: bool = False
    delays: tuple[int, ...] = (50,)
    seeds: int = 20
    first: int = 0
    epochs: int = 6000
    floss_epochs: int = 500
    k: int = 75
    floss_clip: float | None = None
    activation: str = "tanh"
    weights: str = "gaussian"
    hidden_size: int = 80
    batch: int = 16
    length: int = 300

    scales: ClassVar[Scales] = {"smoke": SMOKE, "small": {"floss_clip": 1.0}}

    @property
    def numbers(self) -> Tensor:
        """Of the networks at each delay."""
        return numbers(self.first, self.seeds)

    @property
    def source(self) -> str:
        """Where the paper makes the claims of this figure."""
        return f"Gradient Flossing, figure {self.figure.removeprefix('fig')}"

    def conditions(self) -> tuple[Condition, ...]:
        """What is compared."""
        return (Condition("none"), Condition("before", before=True))

    def networks(self, conditions: Sequence[Condition] = (Condition(""),), *, same: bool = False) -> Networks:
        """Equal networks under each condition.

        With `same` all seeds, too, are copies of one network and see the same batches.
        """
        shape = (len(conditions), len(self.delays), self.seeds)
        delays = torch.tensor(self.delays)[None, :, None].expand(shape)
        task: LaggedTask = TASKS[self.task](delays, binary=not self.analogue)
        # an id names weights and batches: with equal ids under each condition twins differ by what is done
        # to them alone, and a difference of means is one of pairs
        ids = torch.zeros(shape, dtype=torch.int64) if same else self.numbers.expand(shape)
        gain = self._shared([c.gain for c in conditions])
        return Networks(self.model(task, ids, gain=gain), task, ids)

    def model(self, task: Task, ids: Tensor, **settings: Any) -> Model:
        """The networks `ids`."""
        return gf2023(
            task,
            hidden_size=self.hidden_size,
            activation=self.activation,
            weights=self.weights,
            rows=self.batch,
            **Study(self.seed).ensemble(ids),
            **settings,
        )

    def schedule(self, conditions: Sequence[Condition]) -> Schedule:
        """Who is flossed when: networks that are treated alike share their phases."""
        k = self._shared([self.k if c.k is None else c.k for c in conditions])

        def flossing(chosen: Sequence[bool], penalty: str) -> FlossPhase:
            alike = [c.penalty == penalty for c in conditions]
            who = self._each(chosen) & self._each(alike)
            # interval 1, as published: `floss_share` is of operations, which a longer one saves
            published = FlossPhase(self.floss_epochs, k=k, clip=self.floss_clip, interval=1)
            return replace(published, penalty=penalty, who=who)

        # distinct values in the order of the conditions: a set of strings has another one in each process,
        # and a checkpoint counts phases
        first = dict.fromkeys(c.penalty for c in conditions if c.before)
        later = dict.fromkeys((c.episodes, c.penalty) for c in conditions if c.episodes)
        # all fits have all triggers: each flosses those of its own `who` that the fit trains
        triggers = tuple(
            Trigger(At(*episodes), flossing([c.episodes == episodes for c in conditions], penalty))
            for episodes, penalty in later
        )
        fits = tuple(
            FitPhase(
                self.epochs,
                who=self._each([c.flossing_weight == weight for c in conditions]),
                flossing_weight=weight,
                # how the loss beside the task loss is measured; it has no steps of its own
                flossing=FlossPhase(0, k=k, interval=1),
                triggers=triggers,
            )
            for weight in dict.fromkeys(c.flossing_weight for c in conditions)
        )
        return (*(flossing([c.before for c in conditions], penalty) for penalty in first), *fits)

    @property
    def trial(self) -> dict[str, Any]:
        """How many trajectories a task step has, and how long they are."""
        return {"batch": self.batch, "steps": self.length}

    def treatment(self) -> dict[str, Any]:
        """The arguments of `lt.train` that follow from the conditions."""
        conditions = self.conditions()
        clip = self._shared([c.clip for c in conditions])
        return {"schedule": self.schedule(conditions), "clip": clip, **self.trial}

    @torch.no_grad()
    def spectrum(
        self, model: Model, task: Task, ids: Tensor, steps: int, k: int | None = None, transient: int = 100
    ) -> Spectrum:
        """Exponents of the networks `(*e, 1, k)` over so many steps of one trajectory of the task."""
        # the frame takes its transient to turn towards the directions that grow most; states start where
        # those of training do
        inputs = task.inputs(Draw(self.seed, transient + steps, member_ids=ids, stream="measure"))
        h0 = model.initial_state(1)
        return lyapunov_spectrum(model.cell, inputs, k=k, h0=h0, tangent_transient=transient)

    def compared(self, variables: Mapping[str, Given], **along: Given) -> Results:
        """What `run` returns of variables along conditions and delays, and more coordinates."""
        names = [c.name for c in self.conditions()]
        return variables, {**coordinates(condition=names, delay=self.delays), **along}

    def complete(self, record: Record) -> Results:
        """Of networks that another figure measured those that are treated as here."""
        if "condition" not in record:
            return record.variables, record.coordinates
        names = [c.name for c in self.conditions()]
        mine = np.flatnonzero(np.isin(record["condition"], names))

        def chosen(variable: Variable) -> Variable:
            if "condition" not in variable.dims:
                return variable
            return variable._replace(values=variable.values.take(mine, variable.dims.index("condition")))

        return (
            {name: chosen(v) for name, v in record.variables.items()},
            {name: chosen(v) for name, v in record.coordinates.items()},
        )

    def operations_of_conditions(self) -> float:
        """Operations of all task steps and all flossing steps, episodes among them."""
        trial = TASKS[self.task](self.delays[0], binary=not self.analogue)
        fit = self.epochs * fit_flops(trial.draw(Draw(0, self.length, self.batch)), self.hidden_size, 1)
        flossing, total = FlossPhase(0, interval=1), 0.0
        for c in self.conditions():
            # a joint loss flosses at every task step, too
            steps = self.floss_epochs * (c.before + len(c.episodes)) + self.epochs * bool(c.flossing_weight)
            k = self.k if c.k is None else c.k
            total += fit + steps * flossing.batch * floss_flops(self.hidden_size, k, flossing.steps)
        return total * len(self.delays) * self.seeds

    def _each(self, values: Sequence[Any]) -> Tensor:
        """One value for each condition, over its delays and seeds."""
        return torch.tensor(values)[:, None, None].expand(len(values), len(self.delays), self.seeds)

    def _shared(self, values: Sequence[Any]) -> Any:
        """The value that all conditions have in common, or one for each."""
        return values[0] if len(set(values)) == 1 else self._each(values)


class DelaySweep(Setting):
    """Networks under several conditions, trained at several delays and tested."""

    cut: ClassVar[tuple[Along, ...]] = CUT

    operations = Setting.operations_of_conditions

    def run(self, study: Study) -> Results:
        """`accuracy`, `loss (condition, delay, seed, epoch)`, `final_accuracy`, `final_loss (...)`."""
        return self.compared(self.swept(study)[0])

    def swept(self, study: Study) -> tuple[dict[str, Given], Networks, Record]:
        """What every Record of a sweep holds, the trained networks, and the Record of `lt.train`."""
        networks = self.networks(self.conditions())
        record, variables = study.learn(*networks, DIMS, ("accuracy", "loss"), **self.treatment())
        # a Record has no flossing where no phase flosses
        flops = record["floss_flops"] if "floss_flops" in record else 0 * record["fit_flops"]
        share = flops / (flops + record["fit_flops"])
        variables["floss_share"] = (DIMS, share.reshape(networks.ids.shape))
        return variables, networks, record


def bundles(axes: Axes, values: Rows, names: Iterable[object], **more: Any) -> None:
    """A bundle, and its quartiles, for each group of `values (group, seed, point)`, each in its own look."""
    for i, (name, rows) in enumerate(zip(names, values, strict=True)):
        color, dash = look(i)
        quartiles(axes, rows, color, more.get("x"))
        bundle(axes, rows, color, str(name), dash=dash, **more)


def number(record: Record) -> str:
    """How many networks each curve stands for, in words."""
    return f"n = {record.config['seeds']} networks each"
