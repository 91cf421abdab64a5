"""When a trigger fires, and what it changes: epochs, conditions on metrics, a parameter scaled."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._types import Number

Values: TypeAlias = Callable[[str], Tensor]
"""The values `*e` of a metric by its name, NaN before the first step of a fit; to ask may cost a scan."""


@dataclass(frozen=True)
class Condition:
    """A metric beyond a threshold: `lambda1 > 0.2`."""

    metric: str
    above: bool
    threshold: Number

    def holds(self, value: Tensor) -> Tensor:
        """For which members, bool; a NaN never counts."""
        return value > self.threshold if self.above else value < self.threshold


@dataclass(frozen=True)
class Metric:
    """The name of a metric; comparing it with a number makes a `Condition`."""

    name: str

    def __gt__(self, threshold: Number) -> Condition:
        return Condition(self.name, True, threshold)

    def __lt__(self, threshold: Number) -> Condition:
        return Condition(self.name, False, threshold)


lambda1 = Metric("lambda1")
"""The largest exponent on the task's inputs, nats per step."""
gradient_norm = Metric("gradient_norm")
"""The norm of the gradient of all that a fit minimises with respect to the recurrent weights, unclipped."""
task_loss = Metric("loss")
"""The task loss of the last step."""
accuracy = Metric("accuracy")
"""The accuracy of the last step's batch."""


@dataclass(frozen=True)
class Every:
    """At every multiple of `epochs` task epochs, 0 excluded.

    Example:
        >>> import lyaptorch as lt
        >>> again = lt.schedules.Trigger(Every(100), lt.FlossPhase(20))
        >>> lt.FitPhase(1000, triggers=(again,)).epochs
        1000
    """

    epochs: int

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 1)

    def fires(self, epoch: Tensor, among: Tensor, due: bool, values: Values) -> Tensor:
        """Who of `among` is at a multiple; arguments as of `When.fires`."""
        # not at epoch 0: what comes before all training is a phase of its own
        return among & (epoch > 0) & (epoch % self.epochs == 0)

    def times(self, epochs: int) -> int:
        """How often it fires in a fit of so many epochs, the first of the training."""
        # a fit is over before anybody is asked at its end
        return max(0, (epochs - 1) // self.epochs)

    def wait(self, epoch: Tensor, until_due: int) -> int:
        """Epochs from now, at least 1, within which it cannot fire; arguments as of `When.wait`."""
        # who stands at a multiple was asked before this epoch, and has the whole interval left
        return int((self.epochs - epoch % self.epochs).min())


@dataclass(frozen=True, init=False)
class At:
    """At these task epochs: `At(0, 100, 200)`.

    Example:
        >>> At(0, 100).epochs
        (0, 100)
    """

    epochs: tuple[int, ...]

    def __init__(self, *epochs: int) -> None:
        for epoch in epochs:
            _checks.integer("epochs", epoch, 0)
        object.__setattr__(self, "epochs", epochs)

    def fires(self, epoch: Tensor, among: Tensor, due: bool, values: Values) -> Tensor:
        """Who of `among` is at one of them; arguments as of `When.fires`."""
        return among & torch.isin(epoch, torch.tensor(self.epochs, dtype=epoch.dtype, device=epoch.device))

    def times(self, epochs: int) -> int:
        """How often it fires, as of `Every.times`."""
        return sum(at < epochs for at in set(self.epochs))

    def wait(self, epoch: Tensor, until_due: int) -> int | None:
        """Epochs from now, at least 1, within which it cannot fire; None for never again."""
        # epochs are each member's own: the nearest of all that lie ahead of anybody
        ahead = [at - now for at in self.epochs for now in set(epoch.flatten().tolist()) if at > now]
        return min(ahead, default=None)


@dataclass(frozen=True)
class When:
    """Whenever a condition, or any of several, holds at a check, from task epoch `after` on.

    Example:
        >>> When(gradient_norm < 1e-6, after=100).after
        100
    """

    condition: Condition | tuple[Condition, ...]
    after: int = 0

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them."""
        return self.condition if isinstance(self.condition, tuple) else (self.condition,)

    def fires(self, epoch: Tensor, among: Tensor, due: bool, values: Values) -> Tensor:
        """For which members `*e` it is time.

        Args:
            epoch: task epochs that each member has behind it.
            among: who may fire.
            due: whether conditions on metrics are evaluated now.
            values: of a metric, by its name.
        """
        late = among & (epoch >= self.after)
        # lambda1 costs a scan of 155 steps: it is asked for only where it is due and somebody may fire
        if not due or not late.any():
            return torch.zeros_like(among)
        # a NaN, no value yet, compares as false: nobody fires on it
        return late & functools.reduce(operator.or_, (c.holds(values(c.metric)) for c in self.conditions))

    def times(self, epochs: int) -> None:
        """Nobody can tell how often it fires."""

    def wait(self, epoch: Tensor, until_due: int) -> int:
        """Epochs from now, at least 1, within which it cannot fire.

        Args:
            epoch: task epochs of those who may fire.
            until_due: epochs until conditions on metrics are evaluated.
        """
        return until_due


Moment: TypeAlias = Every | At | When


@dataclass(frozen=True)
class Scale:
    """Multiply a parameter or buffer of the model, by its name, for the members that fired.

    With `optional`, a model without one is left alone.

    Example:
        >>> Scale("cell.weight_hh", 1.1).factor
        1.1
    """

    name: str
    factor: float
    optional: bool = False

    @torch.no_grad()
    def apply(
        self, model: nn.Module, who: Tensor | None = None, own: Mapping[str, Tensor] | None = None
    ) -> None:
        """Multiply it for the members where the bool mask `who (*e)` is true, or for all.

        Args:
            model: what is changed.
            who: for whom.
            own: by name, what belongs to members, as `Model.of_members` gives it.

        Raises:
            ValueError: if the model has nothing of that name, or one thing for all members.
        """
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        if self.optional and self.name not in named:
            return
        tensor = named[_checks.choice("parameter to scale", self.name, named)]
        if who is None:
            tensor.mul_(self.factor)
            return
        if own is None or own.get(self.name) is not tensor:
            raise ValueError(
                f"{self.name} must have the leading dimensions {tuple(who.shape)} of the ensemble to be "
                f"scaled, got {tuple(tensor.shape)}: members that share it are not independent"
            )
        tensor[who] = tensor[who] * self.factor
