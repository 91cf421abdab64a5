"""Clock: how steps and time go together, and what units are called; the only place that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Rate = TypeVar("Rate", float, Tensor)


@dataclass(frozen=True)
class Clock:
    """What is reported is per unit of time; horizons, targets, losses and triggers are in steps.

    Where a step takes one unit of time the two are the same, and everything is told in steps.

    Attributes:
        dt: time per step.

    Example:
        >>> clock = Clock(0.01)
        >>> clock.rate, clock.per_time(-0.005), clock.duration(360)
        ('nats per unit of time', -0.5, '360 steps (a time of 3.6)')
        >>> Clock().rate, Clock().per_time(-0.005), Clock().duration(1)
        ('nats per step', -0.005, '1 step')
    """

    dt: float = 1.0

    @property
    def unit(self) -> str:
        """What rates are per."""
        return "step" if self.dt == 1.0 else "unit of time"

    @property
    def rate(self) -> str:
        """The unit of an exponent."""
        return f"nats per {self.unit}"

    @property
    def span(self) -> str:
        """What an axis of time shows."""
        return "time (steps)" if self.dt == 1.0 else "time (units of time)"

    def per_time(self, per_step: Rate) -> Rate:
        """A growth per step as it is reported."""
        return per_step / self.dt

    def per_step(self, reported: Rate) -> Rate:
        """A rate that was reported as growth per step."""
        return reported * self.dt

    def duration(self, steps: float | int) -> str:
        """A number of steps in words, with the time that they take where that is another number."""
        # inf and NaN, too: at a rate of 0 something lasts 1 / 0 steps
        if not steps < 1e6:
            return "more than a million steps"
        text = f"{steps:.0f}" if steps >= 10 else f"{steps:.2g}"
        time = "" if self.dt == 1.0 else f" (a time of {steps * self.dt:.3g})"
        return (f"{text} step" if text == "1" else f"{text} steps") + time
