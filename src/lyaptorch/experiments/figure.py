"""Figures declared once: paper, name, costs, scales, picture; one run of one; what its Record says again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import numpy as np
import torch
from torch import Tensor

from lyaptorch.cells import Cell
from lyaptorch.experiments.check import LEAST_NETWORKS, Check, Checks
from lyaptorch.plots.pages import duration
from lyaptorch.plots.primitives import Picture
from lyaptorch.record import Given, Record
from lyaptorch.schedules import Schedule
from lyaptorch.tasks import Task
from lyaptorch.tasks.batch import Source
from lyaptorch.training import Model, evaluate, floss, train

SCALES = ("smoke", "small", "paper")
RATE = 4e10
"""Floating-point operations a second of one core, training small networks, where nothing was measured."""
Results: TypeAlias = tuple[Mapping[str, Given], Mapping[str, Given]]
"""Variables and coordinates of a Record."""
Scales: TypeAlias = Mapping[str, Mapping[str, Any]]
"""For "smoke" and "small", the fields that differ from paper scale."""
F = TypeVar("F", bound="Figure")


class Along(NamedTuple):
    """A dimension along which a figure is cut into parts.

    Attributes:
        dim: its name in the Record.
        field: of the figure: what stands along it, or how many networks, which count from the field `first`.
        most: how many of these a part has.
    """

    dim: str
    field: str
    most: int = 1


@dataclass(frozen=True)
class Study:
    """One run of a figure.

    Attributes:
        seed: determines everything.
        show_progress: None shows a bar on a terminal.
        checkpoint: a file to resume from if it exists, and to write to; None for none.
    """

    seed: int = 0
    show_progress: bool | None = None
    checkpoint: Path | None = None

    def generator(self) -> torch.Generator:
        """A fresh one of the seed, because each use takes a number from it."""
        return torch.Generator().manual_seed(self.seed)

    def ensemble(self, ids: Tensor) -> dict[str, Any]:
        """The arguments of a cell or readout that say which networks it holds, and draw them by the seed."""
        return {"ensemble": tuple(ids.shape), "member_ids": ids, "generator": self.generator()}

    def part(self, *words: object, seed: int | None = None) -> Study:
        """The same for one of several trainings, with a checkpoint of its own, named by these words."""
        name = "-".join(str(word).replace(" ", "-") for word in words)
        # one file for each part: a run that was killed in the second finds the first done
        path = self.checkpoint and self.checkpoint.with_name(f"{self.checkpoint.name}-{name}")
        return replace(self, checkpoint=path, seed=self.seed if seed is None else seed)

    def train(self, model: Model, task: Task, schedule: Schedule, **settings: Any) -> Record:
        """The Record of `lt.train`."""
        return train(
            model,
            task,
            schedule,
            generator=self.generator(),
            checkpoint=self.checkpoint,
            show_progress=self.show_progress,
            **settings,
        )

    def learn(
        self,
        model: Model,
        task: Task,
        ids: Tensor,
        dims: Sequence[str],
        scores: Sequence[str] = ("accuracy",),
        *,
        batch: int,
        steps: int,
        **settings: Any,
    ) -> tuple[Record, dict[str, Any]]:
        """Train and test networks `ids (*dims)`.

        Returns the Record of `lt.train`, and of each score its curve `(*dims, epoch)`, and `final_...
        (*dims)` on batches of the same size that training never saw.
        """
        trial: dict[str, Any] = {"member_ids": ids, "batch": batch, "steps": steps}
        record = self.train(model, task, **trial, **settings)
        final = self.evaluate(model, task, **trial)
        curves = over_epochs(record, scores, ids.shape, dims)
        return record, {
            **curves,
            **{f"final_{name}": (dims, final[name].reshape(ids.shape)) for name in scores},
        }

    def floss(self, cell: Cell, source: Source, *, epochs: int, **settings: Any) -> Record:
        """The Record of `lt.floss`, which changes the cell in place."""
        return floss(
            cell,
            source,
            epochs=epochs,
            generator=self.generator(),
            show_progress=self.show_progress,
            **settings,
        )

    def evaluate(self, model: Model, task: Task, **settings: Any) -> Record:
        """The Record of `lt.evaluate`."""
        return evaluate(model, task, generator=self.generator(), **settings)


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Figure:
    """A figure of a paper: its fields are its configuration, their defaults those of paper scale.

    A subclass is made a frozen dataclass. It writes `run` and `claims` and is declared by `declare`. Where
    some of its networks can be made without the others, `cut` says so: a part is the figure with fewer.

    Attributes:
        seed: determines everything.
        paper: where it is from.
        figure: its name on the command line.
        shows: what it shows, in a sentence.
        scales: for "smoke" and "small", the fields that differ from paper scale.
        cost: for each scale, roughly the processor time it takes, such as "2 min"; where `operations`
            tell that of paper scale it may be missing.
        draw: its picture, from its Record alone.
        cut: along what it is cut into parts, those first that parts are made of last.
        measured_by: the figure of the paper whose parts it is made from: its own name, or that of another
            which measures at least the same.
    """

    seed: int = 0

    paper: ClassVar[str]
    figure: ClassVar[str]
    shows: ClassVar[str]
    scales: ClassVar[Scales] = {"smoke": {}, "small": {}}
    cost: ClassVar[Mapping[str, str]]
    draw: ClassVar[Picture]
    cut: ClassVar[tuple[Along, ...]] = ()
    measured_by: ClassVar[str]

    def __init_subclass__(cls) -> None:
        # in place, as without slots
        dataclass(frozen=True)(cls)

    def run(self, study: Study) -> Results:
        """Variables and coordinates of the Record: all that is measured, of each network for itself."""
        raise NotImplementedError

    def complete(self, record: Record) -> Results:
        """The same with what follows from all networks together; given the Record of what `run` returns."""
        return record.variables, record.coordinates

    def operations(self) -> float | None:
        """Roughly the floating-point operations that it takes; None where only `cost` is known."""
        return None

    @classmethod
    def costs(cls) -> dict[str, str]:
        """`cost` of all scales: of paper scale, where it is missing, by `operations` at `RATE`."""
        if (known := dict(cls.cost)).keys() >= set(SCALES):
            return known
        work = cls().operations()
        assert work is not None, f"{cls.__name__} needs a cost at paper scale, or operations"
        return {**known, SCALES[-1]: duration(work / RATE)}

    def left_out(self, point: tuple[Any, ...]) -> bool:
        """Whether nothing is measured at a point, a label along each dimension of `cut` but networks'."""
        return False

    def claims(self, record: Record) -> Checks:
        """What the figure claims, from the Record alone."""
        raise NotImplementedError

    def checks(self, record: Record) -> list[Check]:
        """The same as a list; too few trained networks decide nothing but identities."""
        # the field of figures that train: networks at each point
        few = getattr(self, "seeds", LEAST_NETWORKS) < LEAST_NETWORKS
        exact = ("identity", "timing")
        return [replace(c, told=c.told and (not few or c.kind in exact)) for c in self.claims(record)]

    def record(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """Run it, resuming from `checkpoint` if that exists."""
        raw = self.raw(show_progress, checkpoint)
        return Record(raw.kind, asdict(self), *self.complete(raw))

    def raw(self, show_progress: bool | None = None, checkpoint: Path | None = None) -> Record:
        """What `run` returns."""
        found = self.run(Study(self.seed, show_progress, checkpoint))
        return Record(f"{self.paper} {self.figure}", asdict(self), *found)


def numbers(first: int, count: int) -> Tensor:
    """Of so many networks."""
    return torch.arange(first, first + count)


def coordinates(**values: Sequence[Any]) -> dict[str, Given]:
    """What stands along dimensions of these names."""
    return {name: ((name,), np.array(along)) for name, along in values.items()}


def declare(
    paper: str,
    name: str,
    shows: str,
    *,
    cost: tuple[str, ...] = (),
    draw: Picture | None = None,
    smoke: Mapping[str, Any] | None = None,
    small: Mapping[str, Any] | None = None,
    cut: tuple[Along, ...] | None = None,
    measured_by: str = "",
) -> Callable[[type[F]], type[F]]:
    """Declare a subclass of `Figure`; what is missing is that of the figure that it extends.

    Args:
        paper: where the figure is from.
        name: its name on the command line.
        shows: what it shows, in a sentence.
        cost: the processor time it takes at each of the three scales, or at the first two.
        draw: its picture, from its Record alone.
        smoke: fields that differ from paper scale, beside those that differ in the class that it extends.
        small: likewise.
        cut: along what it is cut into parts.
        measured_by: the figure from whose parts it is made, if that is another one; of the same fields at
            paper scale, but for those that it adds.

    Raises:
        TypeError: if neither it nor what it extends has a picture.
    """

    def decorate(cls: type[F]) -> type[F]:
        if not (draw or hasattr(cls, "draw")):
            raise TypeError(f"{cls.__name__} has no picture; give draw")
        cls.paper, cls.figure, cls.shows = paper, name, shows
        cls.measured_by = measured_by or name
        if cut is not None:
            cls.cut = cut
        cls.scales = {
            "smoke": {**cls.scales["smoke"], **(smoke or {})},
            "small": {**cls.scales["small"], **(small or {})},
        }
        if cost:
            cls.cost = dict(zip(SCALES, cost, strict=False))
        if draw:
            # a plain function would become a method
            cls.draw = staticmethod(draw)
        return cls

    return decorate


def over_epochs(
    record: Record, names: Iterable[str], shape: Sequence[int], dims: Sequence[str]
) -> dict[str, Given]:
    """Curves of a Record of `lt.train`, with networks in dimensions of this shape instead of one."""
    return {name: ((*dims, "epoch"), record[name].reshape(*shape, -1)) for name in names}


def stacked(dim: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The variables that all parts have, along a dimension in front."""
    # attributes, such as units, are those of the first part
    first, rest = parts[0], slice(2, None)
    return {
        name: ((dim, *given[0]), np.stack([part[name][1] for part in parts]), *given[rest])
        for name, given in first.items()
    }
