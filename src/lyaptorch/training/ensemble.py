"""Ensembles of networks that train at once, and members told apart whose numbers overflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NoReturn, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from lyaptorch._padded import Padded, padded
from lyaptorch._random import ids_of
from lyaptorch._types import Number
from lyaptorch.cells import Cell
from lyaptorch.cells.ownership import named, shared_parameter
from lyaptorch.tasks.batch import Batch, Draw, Source, Task
from lyaptorch.training.model import Model
from lyaptorch.training.optim import Adam, MemberOptimizer, Rule
from lyaptorch.training.prepared import Differentiated, PreparedLoss

Named: TypeAlias = tuple[str, ...] | None
"""Names or globs of parameters, or None for all of them."""


@dataclass
class Ensemble:
    """An ensemble in training; every tensor has the leading dimensions `*e`.

    Attributes:
        model: the networks.
        ids: which random numbers each draws.
        optimizer: of the task.
        flossers: flossing's own, by what phases name of the cell's parameters; None is for all.
        epoch: task steps each has taken.
        floss_epoch: flossing steps each has taken.
        allowed: the interval that flossing may take of each, 0 where nobody has looked.
        everybody: ids of the ensemble that these were selected from, or theirs.
        places: where in it they are, as `nonzero(as_tuple=True)` gives it; None where they are all.
    """

    model: Model
    ids: Tensor
    optimizer: MemberOptimizer
    flossers: dict[Named, MemberOptimizer]
    epoch: Tensor
    floss_epoch: Tensor
    allowed: Tensor
    everybody: Tensor
    places: tuple[Tensor, ...] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return next(self.model.parameters()).dtype

    @cached_property
    def _recurrent(self) -> list[int]:
        """Which trained tensors are W, or else all of the cell's parameters that are trained."""
        # frozen ones have no gradient: what is asked for and what is trained are brought together by identity
        named = list(self.model.cell.named_parameters())
        chosen = [p for name, p in named if name == "weight_hh"] or [p for _, p in named]
        return [i for i, p in enumerate(self.optimizer.parameters) if any(p is c for c in chosen)]

    @cached_property
    def _prepared_loss(self) -> PreparedLoss:
        return PreparedLoss(self.model, self.optimizer.parameters)

    def differentiated(self, batch: Batch) -> Differentiated | None:
        """A task step's loss and gradients without autograd, where that can be."""
        return self._prepared_loss.of(batch) if self.optimizer.only_reads else None

    def recurrent_norm(self, lengths: Tensor) -> Tensor:
        """The norm of the gradient of W `*e`, or of the cell's, from those of all tensors `(tensors, *e)`."""
        own = [lengths[i] for i in self._recurrent]
        if not own:
            return torch.zeros_like(lengths[0])
        return own[0] if len(own) == 1 else torch.linalg.vector_norm(torch.stack(own), dim=0)

    def batch(self, task: Task, d: Draw) -> Batch:
        """What these see of a task; the draw may leave out whose it is, and has an epoch for all or each."""
        drawn = task.draw(self._of_everybody(d))
        return drawn if self.places is None else drawn.select(self.places)

    def inputs(self, source: Source, d: Draw) -> Padded:
        """The same of `Task.inputs`; those of a source that knows no members, `(t, b, m)`, are for all."""
        drawn, lengths = padded(source.inputs(self._of_everybody(d)))
        # a source that knows no members gives (t, b, m), which have no member's dimensions to choose from
        if self.places is not None and drawn.dim() > 3:
            at: tuple[slice | Tensor, ...] = (slice(None), *self.places)
            drawn = drawn[at]
        if self.places is not None and lengths is not None and lengths.dim() > 1:
            lengths = lengths[self.places]
        return Padded(drawn, lengths)

    def _of_everybody(self, d: Draw) -> Draw:
        """A draw of the whole ensemble: a task may have something of each member, such as a delay."""
        epoch = d.epoch
        if self.places is not None and isinstance(epoch, Tensor):
            epoch = epoch.new_zeros(self.everybody.shape).index_put(self.places, epoch)
        elif d.member_ids is self.everybody:
            return d
        return replace(d, member_ids=self.everybody, epoch=epoch)

    def select(self, mask: Tensor) -> Ensemble:
        """A copy of the members where the bool `mask` is true, as an ensemble `(count,)`."""
        model, places = self.model.select(mask), mask.to(self.ids.device).nonzero(as_tuple=True)
        return Ensemble(
            model,
            self.ids[mask],
            self.optimizer.select(trainable(model), mask),
            {name: f.select(flossed(model.cell, name), mask) for name, f in self.flossers.items()},
            self.epoch[mask],
            self.floss_epoch[mask],
            self.allowed[mask],
            self.everybody,
            places if self.places is None else tuple(at[places] for at in self.places),
        )

    def put(self, mask: Tensor, part: Ensemble) -> None:
        """Write what became of `select(mask)` back."""
        self.model.put(mask, part.model)
        self.optimizer.put(mask, part.optimizer)
        for name, flosser in self.flossers.items():
            flosser.put(mask, part.flossers[name])
        self.epoch[mask], self.floss_epoch[mask] = part.epoch, part.floss_epoch
        self.allowed[mask] = part.allowed

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name, to be saved or written into."""
        named = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        flossers = {" ".join(("flosser", *(name or ()))): f for name, f in self.flossers.items()}
        for name, optimizer in {"optimizer": self.optimizer, **flossers}.items():
            named[f"{name}.count"] = optimizer.count
            named |= {f"{name}.{i}": slot for i, slot in enumerate(optimizer.tensors())}
        return {**named, "epoch": self.epoch, "floss_epoch": self.floss_epoch, "allowed": self.allowed}

    @torch.no_grad()
    def load(self, saved: dict[str, Tensor]) -> None:
        """Write saved tensors into these.

        Raises:
            ValueError: if a name or a shape is not as here.
        """
        known = self.tensors()
        others = ("history.", "total.", "generator.", "spent.")
        if unknown := {n for n in saved if not n.startswith(others)} - known.keys():
            raise ValueError(f"the checkpoint holds {', '.join(sorted(unknown))}, which this model does not")
        # one of before the automatic interval has none: nobody has looked
        saved = {"allowed": torch.zeros_like(self.allowed), **saved}
        for name, own in known.items():
            if name not in saved or saved[name].shape != own.shape or saved[name].dtype != own.dtype:
                raise ValueError(f"the checkpoint must hold {name} {tuple(own.shape)}, and does not")
            own.copy_(saved[name])


def new_ensemble(
    model: Model,
    member_ids: int | Tensor | None,
    lr: Number,
    rule: Rule,
    flossing: Iterable[Named] = (None,),
) -> Ensemble:
    """Members about to start; `flossing` is what phases name of the cell's parameters.

    Raises:
        ValueError: if nothing is to be trained, a parameter is shared by all members, or a name is unknown.
    """
    device, own = device_of(model), trainable(model)
    ids = ids_of(model.ensemble, member_ids, device)
    if not own:
        raise ValueError("there is nothing to train: no parameter of the model has requires_grad; set it")
    mine = model.of_members()
    for name, p in model.named_parameters():
        if p.requires_grad and mine.get(name) is not p:
            raise shared_parameter(f"parameter {name}", p, model.ensemble)
    zero = torch.zeros(model.ensemble, dtype=torch.int64, device=device)
    optimizer = MemberOptimizer(own, model.ensemble, lr, rule)
    # the rate is that of each phase, set when it begins; moments stay from one episode to the next
    flossers = {
        name: MemberOptimizer(flossed(model.cell, name), model.ensemble, 1e-3, Adam()) for name in flossing
    }
    return Ensemble(model, ids, optimizer, flossers, zero, zero.clone(), zero.clone(), ids)


def device_of(model: Model) -> torch.device:
    """Where a model is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def trainable(module: torch.nn.Module) -> list[Tensor]:
    """Its parameters with `requires_grad`."""
    return [p for p in module.parameters() if p.requires_grad]


def flossed(cell: Cell, name: Named) -> list[Tensor]:
    """What a phase flosses of a cell, by what it names."""
    return named(cell, name, trainable(cell))


T = TypeVar("T")
OVERFLOWS: tuple[type[Exception], ...] = (FloatingPointError, LinAlgError)
"""How it is said that numbers are not finite, by torch's decompositions in the second way."""
GO_ON = 'or pass unstable="mark" to go on without it'


class UnstableError(FloatingPointError):
    """Some members overflowed; nothing was changed.

    Attributes:
        who: bool `*e`, which.
        step: `(count,)`, the step of the trial at which the state of each overflowed; NaN where that is not
            what overflowed.
    """

    def __init__(self, message: str, who: Tensor, step: Tensor | None = None) -> None:
        self.who = who
        self.step = torch.full((int(who.sum()),), torch.nan, device="cpu") if step is None else step
        super().__init__(message)


@torch.no_grad()
def unstable(what: str, networks: Ensemble, wrong: Tensor, batch: Batch) -> UnstableError:
    """What to raise where a loss or gradient of some members is not finite."""
    # a trajectory of any unit counts; argmax of 0 / 1 gives the first 1
    bad = ~torch.isfinite(networks.model.states(batch.inputs)).all(-1).all(-1)
    first = bad.int().argmax(0).double() + 1
    step = torch.where(bad.any(0), first, torch.nan)[wrong]
    at = step[~step.isnan()]
    where = f", its state overflows at step {int(at.min())} of the trial" if len(at) else ""
    return UnstableError(
        f"the {what} is not finite at epoch {int(networks.epoch[wrong].min())} for member "
        f"{networks.ids[wrong].tolist()}{where}; lower the learning rate, the clip, the gain or the steps "
        f"of a trial, {GO_ON}",
        wrong,
        step,
    )


def overflow_of(error: UnstableError | ValueError, networks: Ensemble) -> UnstableError:
    """That of members that overflowed, as weights may do in an update; any other error is raised."""
    if isinstance(error, UnstableError):
        return error
    finite = [torch.isfinite(z) for z in networks.model.of_members().values()]
    bad = ~torch.stack([z.reshape(*networks.ids.shape, -1).all(-1) for z in finite]).all(0)
    if not bad.any():
        raise error
    whose = f"at epoch {int(networks.epoch[bad].min())} for member {networks.ids[bad].tolist()}"
    return UnstableError(f"weights are not finite {whose}; lower the learning rate, {GO_ON}", bad)


def told_apart(networks: Ensemble, attempt: Callable[[Ensemble, Tensor], T]) -> T:
    """What an attempt gives for all these members.

    Args:
        networks: who takes part.
        attempt: a function, which changes nothing, of some of them and the mask `*e` of these.

    Raises:
        UnstableError: if it overflows, of those with whom alone it does.
    """
    try:
        return attempt(networks, torch.ones(networks.ids.shape, dtype=torch.bool, device="cpu"))
    except OVERFLOWS as error:
        blame(error, networks, attempt)


def blame(error: Exception, networks: Ensemble, attempt: Callable[[Ensemble, Tensor], object]) -> NoReturn:
    """Raise an error of all as that of those with whom alone an attempt overflows."""
    if isinstance(error, UnstableError):
        raise error
    gone = _overflowing(networks, attempt)
    # nobody alone: then it is no member's fault, and nobody may be dropped for it
    if not gone.any():
        raise error
    ids, epoch = networks.ids.cpu()[gone].tolist(), int(networks.epoch.cpu()[gone].min())
    named = f"{error} (member {ids} at epoch {epoch})"
    raise UnstableError(f"{named}, {GO_ON}", gone.to(networks.ids.device)) from error


def _overflowing(networks: Ensemble, attempt: Callable[[Ensemble, Tensor], object]) -> Tensor:
    """With whom alone it overflows, bool `*e`; halves are asked, so that few are asked alone."""
    # an error says that somebody overflowed, not who. By halves c culprits among E members take about
    # 2 c log2(E / c) attempts, one by one it would be E
    found = torch.zeros(networks.ids.shape, dtype=torch.bool, device="cpu")
    waiting = [torch.arange(found.numel(), device="cpu")]
    while waiting:
        places = waiting.pop()
        mask = torch.zeros_like(found)
        mask.view(-1)[places] = True
        try:
            attempt(networks if mask.all() else networks.select(mask.to(networks.ids.device)), mask)
        except OVERFLOWS:
            if len(places) == 1:
                found |= mask
            else:
                waiting += places.tensor_split(2)
    return found
