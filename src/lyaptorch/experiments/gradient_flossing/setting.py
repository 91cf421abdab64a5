"""The setting of the figures that train: networks, task, and what is done to which of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch.experiments.figure import Figure, Results
from lyaptorch.experiments.study import Study
from lyaptorch.record import Given, Record
from lyaptorch.schedules import At, FitPhase, FlossPhase, Schedule, Trigger
from lyaptorch.tasks import DelayedCopy, SpatialXOR, Task, TemporalXOR
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training import Model
from lyaptorch.training.presets import gf2023

T = TypeVar("T", bound=Callable[..., Any])
PAPER = "gradient-flossing"
LAGGED: dict[str, type[LaggedTask]] = {
    "delayed_copy": DelayedCopy,
    "spatial_xor": SpatialXOR,
    "temporal_xor": TemporalXOR,
}
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


def _or_as_before(train: T) -> T:
    """Until all subclasses are converted: `train`, which also takes what it took before."""

    def either(self: Any, study: Any, *given: Any, **more: Any) -> Record:
        if isinstance(study, Study):
            return train(self, study, *given, **more)  # type: ignore[no-any-return]
        task, conditions, ids, checkpoint, progress, *rest = given
        again = Study(self.seed, progress, checkpoint)
        return train(self, again, study, task, conditions, ids, *rest, **more)  # type: ignore[no-any-return]

    return either  # type: ignore[return-value]


@dataclass(frozen=True)
class Setting(Figure):
    """Ensembles of `gf2023` networks trained on a task with a lag.

    Attributes:
        task: delayed_copy, spatial_xor or temporal_xor.
        analogue: whether inputs are numbers in [0, 1) instead of bits.
        delays: longest lags.
        seeds: networks for each delay.
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
    epochs: int = 6000
    floss_epochs: int = 500
    k: int = 75
    floss_clip: float | None = None
    activation: str = "tanh"
    weights: str = "gaussian"
    hidden_size: int = 80
    batch: int = 16
    length: int = 300

    @property
    def source(self) -> str:
        """Where the paper makes the claims of this figure."""
        return f"Gradient Flossing, figure {self.figure.removeprefix('fig')}"

    def networks(
        self, conditions: Sequence[Condition] = (Condition(""),), *, same: bool = False
    ) -> tuple[Model, LaggedTask, Tensor]:
        """Equal networks under each condition, their task, and their ids `(condition, delay, seed)`.

        With `same` all seeds, too, are copies of one network and see the same batches.
        """
        shape = (len(conditions), len(self.delays), self.seeds)
        delays = torch.tensor(self.delays)[None, :, None].expand(shape)
        task = LAGGED[self.task](delays, binary=not self.analogue)
        ids = torch.zeros(shape, dtype=torch.int64) if same else torch.arange(self.seeds).expand(shape)
        model = gf2023(
            task,
            hidden_size=self.hidden_size,
            gain=_shared([c.gain for c in conditions], shape),
            activation=self.activation,
            weights=self.weights,
            rows=self.batch,
            ensemble=shape,
            member_ids=ids,
            generator=self._generator(),
        )
        return model, task, ids

    def schedule(self, conditions: Sequence[Condition]) -> Schedule:
        """Who is flossed when: networks that are treated alike share their phases."""
        shape = (len(conditions), len(self.delays), self.seeds)
        k = [self.k if c.k is None else c.k for c in conditions]
        exponents = _shared(k, shape)

        def flossing(chosen: Callable[[Condition], bool], penalty: str) -> FlossPhase:
            return FlossPhase(
                self.floss_epochs,
                k=exponents,
                clip=self.floss_clip,
                penalty=penalty,
                who=_spread([chosen(c) and c.penalty == penalty for c in conditions], shape),
            )

        first = dict.fromkeys(c.penalty for c in conditions if c.before)
        later = dict.fromkeys((c.episodes, c.penalty) for c in conditions if c.episodes)
        triggers = tuple(
            Trigger(At(*episodes), flossing(lambda c, now=episodes: c.episodes == now, penalty))  # type: ignore[misc]
            for episodes, penalty in later
        )
        fits = tuple(
            FitPhase(
                self.epochs,
                who=_spread([c.flossing_weight == weight for c in conditions], shape),
                flossing_weight=weight,
                flossing=FlossPhase(0, k=exponents),
                triggers=triggers,
            )
            for weight in dict.fromkeys(c.flossing_weight for c in conditions)
        )
        return (*(flossing(lambda c: c.before, penalty) for penalty in first), *fits)

    def record(self, *given: Any, **more: Any) -> Record:
        """Until all subclasses are converted: the same, and the Record of variables, as it was called."""
        if given and isinstance(given[0], Mapping):
            return Record(f"{PAPER} {self.figure}", asdict(self), *self.found(given[0], **more))
        if "show_progress" in inspect.signature(self.run).parameters:
            return self.run(*given, **more)  # type: ignore[return-value]
        return super().record(*given, **more)

    @_or_as_before
    def train(
        self,
        study: Study,
        model: Model,
        task: LaggedTask,
        conditions: Sequence[Condition],
        ids: Tensor,
        metrics: tuple[str, ...] = (),
        every: int = 100,
    ) -> Record:
        """The Record of `lt.train`, with the networks in one dimension."""
        return study.train(
            model,
            task,
            self.schedule(conditions),
            batch=self.batch,
            length=self.length,
            clip=_shared([c.clip for c in conditions], tuple(ids.shape)),
            metrics=metrics,
            metrics_every=every,
            member_ids=ids,
        )

    def test(self, study: Study, model: Model, task: Task, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy `(*e)` on batches of the same size that training never saw."""
        return study.evaluate(model, task, batch=self.batch, length=self.length, member_ids=ids)

    def found(self, variables: Mapping[str, Given], **coordinates: Given) -> Results:
        """What `run` returns: the variables, these coordinates, and the delays."""
        delays: Given = (("delay",), np.array(self.delays))
        return variables, {**coordinates, "delay": delays}

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _spread(values: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    """One value for each condition, over its delays and seeds."""
    return torch.tensor(values)[:, None, None].expand(shape)


def _shared(values: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The value that all conditions have in common, or one for each, spread."""
    return values[0] if len(set(values)) == 1 else _spread(values, shape)
