"""Phase and Schedule: what is minimised, for how many steps, for which members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number

FRAMES = ("redrawn", "fixed")


@dataclass(frozen=True)
class FitPhase:
    """Minimise the task loss.

    Attributes:
        epochs: task steps, each on a fresh batch.
        members: bool `*e`, who takes part; everybody when missing.

    Example:
        >>> FitPhase(500).epochs
        500
    """

    epochs: int
    members: Tensor | None = None

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 0)


@dataclass(frozen=True)
class FlossPhase:
    """Minimise the flossing loss: push the first k exponents to a target.

    The defaults are the published setting (Gradient Flossing, section 7 and the authors' script).

    Attributes:
        epochs: flossing steps, each on fresh inputs.
        k: how many exponents, a number or one for each member; 75, or n where that is less, when missing.
        steps: steps of each scan, the tangent transient included.
        tangent_transient: first steps of the scan, not counted.
        interval: steps between reorthonormalisations.
        target: exponent to reach, nats per step; a number or one for each member.
        lr: learning rate of flossing's own Adam; a number or one for each member.
        clip: largest gradient norm of each tensor of each member, a number or one for each member; None, the
            published setting, for no limit.
        reduction: "mean" or "sum" over the exponents.
        frame: "redrawn" each epoch, or "fixed", as in the authors' script.
        batch: trajectories in each scan.
        state_grad: how far the gradient follows the trajectory, as in `lyapunov_spectrum`.
        members: bool `*e`, who takes part; everybody when missing.

    Example:
        >>> FlossPhase(500, k=16).steps
        55
    """

    epochs: int
    k: int | Tensor | None = None
    steps: int = 55
    tangent_transient: int = 16
    interval: int = 1
    target: Number = 0.0
    lr: Number = 1e-3
    clip: Number | None = None
    reduction: str = "mean"
    frame: str = "redrawn"
    batch: int = 1
    state_grad: str | int = "full"
    members: Tensor | None = None

    def __post_init__(self) -> None:
        _checks.integer("epochs", self.epochs, 0)
        _checks.integer("steps", self.steps, 1)
        _checks.integer(
            "tangent_transient", self.tangent_transient, 0, self.steps - 1, do="steps includes the transient"
        )
        _checks.integer("interval", self.interval, 1)
        _checks.integer("batch", self.batch, 1)
        _checks.choice("reduction", self.reduction, ("mean", "sum"))
        _checks.choice("frame", self.frame, FRAMES)


Phase: TypeAlias = FitPhase | FlossPhase
Schedule: TypeAlias = tuple[Phase, ...]
