"""Phases of a schedule: what is minimised, for how many steps, for which members, and what interrupts it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.schedules.loss import PENALTIES, check_target
from lyaptorch.schedules.triggers import Moment, Scale, When
from lyaptorch.tangent.automatic import AUTO

FRAMES = ("redrawn", "fixed")
EXPONENTS = "exponents"


@dataclass(frozen=True)
class FlossPhase:
    """Minimise the flossing loss: push the first k exponents to a target.

    The defaults, the interval aside, are the published setting (Gradient Flossing, section 7 and the authors'
    script).

    Attributes:
        epochs: flossing steps, each on fresh inputs.
        k: how many exponents, a number or one for each member; when missing as many as the target has, or
            75, or n where that is less; but of LSTM, GRU and stacks of them half of all there are (of an LSTM
            as many as it has units), where `parameters` is missing, too.
        steps: steps of each scan, the tangent transient included.
        tangent_transient: first steps of the scan, not counted.
        interval: steps between reorthonormalisations, on which exponents depend by round-off alone. "auto"
            begins with 1 and takes, after every tenth flossing step, the longest that the growth then allows:
            each member its own in the CPU kernels, elsewhere all members; the published setting is 1.
        target: what exponents are to reach, nats per step: a number, a spectrum `(k,)`, one for each member
            `(*e, 1)`, or both, `(*e, k)`; it goes with the frame's columns, and must not increase.
        lr: learning rate of flossing's own Adam; a number or one for each member.
        clip: largest gradient norm of each tensor of each member, a number or one for each member; None, the
            published setting, for no limit.
        reduction: "mean" or "sum" over the exponents.
        frame: "redrawn" each epoch, or "fixed", as in the authors' script.
        batch: trajectories in each scan.
        state_grad: how far the gradient follows the trajectory, as in `lyapunov_spectrum`.
        parameters: names of the parameters that flossing changes, as `named_parameters()` of the network's
            module has them, or globs: `"*weight_hh*"` for recurrent weights alone. When missing all, but of
            LSTM, GRU and stacks of them the recurrent weights, where k is missing, too; `"*"` is for all.
        penalty: "exponents", or a control that looks at single steps only: "spectral_radius",
            "one_step_jacobians" or "mean_field_slope".
        who: bool `*e`, who takes part; everybody when missing.

    Example:
        >>> FlossPhase(500, k=16).steps
        55
    """

    epochs: int
    k: int | Tensor | None = None
    steps: int = 55
    tangent_transient: int = 16
    interval: int | str = AUTO
    target: Number = 0.0
    lr: Number = 1e-3
    clip: Number | None = None
    reduction: str = "mean"
    frame: str = "redrawn"
    batch: int = 1
    state_grad: str | int = "full"
    parameters: str | Sequence[str] | None = None
    penalty: str = EXPONENTS
    who: Tensor | None = None

    def __post_init__(self) -> None:
        for name, low in (("epochs", 0), ("steps", 1), ("interval", 1), ("batch", 1)):
            if name == "interval" and self.interval == AUTO:
                continue
            # numpy's integers as ints
            do = 'or pass "auto"' if name == "interval" else ""
            object.__setattr__(self, name, _checks.integer(name, getattr(self, name), low, do=do))
        wait = _checks.integer(
            "tangent_transient", self.tangent_transient, 0, self.steps - 1, do="steps includes the transient"
        )
        object.__setattr__(self, "tangent_transient", wait)
        _checks.choice("reduction", self.reduction, ("mean", "sum"))
        _checks.choice("frame", self.frame, FRAMES)
        _checks.state_grad(self.state_grad)
        _checks.rate("lr", self.lr)
        if self.clip is not None:
            _checks.rate("clip", self.clip)
        _checks.choice("penalty", self.penalty, (EXPONENTS, *PENALTIES))
        last = self.target.shape[-1] if isinstance(self.target, Tensor) and self.target.dim() else 1
        if self.k is None and last > 1:
            object.__setattr__(self, "k", last)
        object.__setattr__(self, "parameters", _patterns(self.parameters))

    @property
    def named(self) -> tuple[str, ...] | None:
        """The names and globs of `parameters`."""
        return None if self.parameters is None else tuple(self.parameters)


def _patterns(given: Any) -> tuple[str, ...] | None:
    """Names or globs as a tuple."""
    if given is None:
        return None
    found = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else ()
    if not found or not all(isinstance(pattern, str) for pattern in found):
        raise ValueError(
            f"parameters must be names or globs such as '*weight_hh*', or None for all, got {given!r}"
        )
    return found


@dataclass(frozen=True)
class Trigger:
    """When to interrupt a fit, what to run for the members that fired, and what to change before.

    Each member fires for itself: `lyaptorch/training/run.py` asks `when.fires` before every epoch of a fit.

    Example:
        >>> from lyaptorch.schedules import lambda1
        >>> Trigger(When(lambda1 > 0.2), FlossPhase(500)).when.condition.metric
        'lambda1'
    """

    when: Moment
    phase: FlossPhase
    action: Scale | None = None


@dataclass(frozen=True)
class FitPhase:
    """Minimise the task loss, plus `flossing_weight` times the flossing loss.

    Attributes:
        epochs: task steps, each on a fresh batch.
        who: bool `*e`, who takes part; everybody when missing.
        flossing_weight: weight of the flossing loss; a number or one for each member. Those whose weight is 0
            train first, and have none.
        flossing: what that loss is, its `epochs` and `lr` aside.
        triggers: what may interrupt this fit; a later one has its own.
        stop: a condition under which a member stops early; in the next phase it takes part again.
        check_every: task epochs between two evaluations of conditions on metrics. Before its first step no
            condition holds but one on `lambda1`: what earlier phases told is not asked.
        lr: learning rate of the task, a number or one for each member; that of `train` when missing.

    Example:
        Train for 1 000 steps, then for 500 at a tenth of the rate, with the optimiser's moments kept.

        >>> schedule = (FitPhase(1000), FitPhase(500, lr=1e-4))
        >>> schedule[1].lr
        0.0001
    """

    epochs: int
    who: Tensor | None = None
    flossing_weight: Number = 0.0
    flossing: FlossPhase = field(default_factory=lambda: FlossPhase(0))
    triggers: tuple[Trigger, ...] = ()
    stop: When | None = None
    check_every: int = 10
    lr: Number | None = None

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 0)
        _checks.integer("check_every", self.check_every, 1)
        if self.lr is not None:
            _checks.rate("lr", self.lr)

    @property
    def moments(self) -> list[Moment]:
        """Those of the triggers, and of the stop last."""
        return [trigger.when for trigger in self.triggers] + ([self.stop] if self.stop else [])


Phase: TypeAlias = FitPhase | FlossPhase
"""A stretch of training, and what is minimised in it."""
Schedule: TypeAlias = tuple[Phase, ...]
"""Phases, one after the other."""
P = TypeVar("P")


def select(phase: P, mask: Tensor, device: torch.device) -> P:
    """A phase for the members where `mask` is true, as an ensemble of their own, its tensors on a device.

    Where all are members the ensemble keeps its shape. Settings of a run are selected likewise.
    """
    chosen: dict[str, Any] = {}
    for item in fields(phase):  # type: ignore[arg-type]
        value = getattr(phase, item.name)
        if isinstance(value, FlossPhase):
            chosen[item.name] = select(value, mask, device)
        elif item.name == "target" and isinstance(value, Tensor) and value.dim() == 1:
            # a spectrum of all members alike, now of each: a part may have as many members as exponents
            front = mask.shape if mask.all() else mask.nonzero().shape[:1]
            chosen[item.name] = value.to(device).expand(*front, -1)
        elif isinstance(value, Tensor):
            # nobody is left out of an ensemble of those who take part
            among = value if mask.all() or not value.dim() else value[mask]
            chosen[item.name] = None if item.name == "who" else among.to(device)
    return replace(phase, **chosen)  # type: ignore[type-var]


def flossings(schedule: Schedule) -> set[tuple[str, ...] | None]:
    """What the flossing phases of a schedule name of the parameters; None for all of them."""
    fits = [phase for phase in schedule if isinstance(phase, FitPhase)]
    phases = [*schedule, *(trigger.phase for fit in fits for trigger in fit.triggers)]
    # of a schedule without any an empty checkpoint is that of all
    return {phase.named for phase in phases if isinstance(phase, FlossPhase)} or {None}


def check_per_member(phase: Phase, ensemble: tuple[int, ...]) -> None:
    """Raise unless what a phase gives for each member, `who` aside, has the shape of the ensemble."""
    given = {item.name: getattr(phase, item.name) for item in fields(phase) if item.name != "who"}
    # thresholds are compared with the values of all members at once, so they are `*e`, too
    if isinstance(phase, FitPhase):
        conditions = [c for when in phase.moments if isinstance(when, When) for c in when.conditions]
        given |= {f"threshold of {c.metric}": c.threshold for c in conditions}
    if isinstance(phase, FlossPhase):
        most = None if phase.k is None else int(_checks.numbers(phase.k).max())
        check_target(given.pop("target"), ensemble, most)
    for name, value in given.items():
        _checks.per_member(name, value, ensemble)


def plain(value: Any) -> Any:
    """A schedule, or any part of it, as JSON: types by name, tensors as lists."""
    if isinstance(value, Tensor | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {"type": type(value).__name__, **{k: plain(v) for k, v in vars(value).items()}}
    return value
