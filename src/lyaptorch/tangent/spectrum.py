"""Spectrum: the exponents of one scan, with their errors, and how to look at them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lyaptorch._brief import counted, leading, trajectories
from lyaptorch._shown import Shown
from lyaptorch._types import Exponents, LogR, State
from lyaptorch._units import Clock
from lyaptorch.record import Record
from lyaptorch.tangent.growth import Growth


@dataclass(frozen=True)
class Spectrum(Shown):
    """The Lyapunov spectrum of one scan, and what follows from its growth.

    Attributes:
        growth: log R_ii per interval.
        final_state: `(*e, b, n)`, the state after the last step; differentiable.
        final_frame: `(*e, b, n, k)`, the orthonormal frame there.
        dt: time per step.
        transient: steps of the state alone, as given or chosen.
        interval: steps between reorthonormalisations, as given or chosen.
        died_at: `(*e, b, k)`, after how many inputs each column was found dead, -inf from then on because the
            Jacobian was singular there; 0 where it lives; None where all live.
        discretisation: `(*e, b, k)`, what the length of a `Flow`'s steps may change in each exponent, from
            the same steps taken in pieces at some moments; inf where they are too long to tell. None for
            maps: whether a step of your own stands for a flow, such as an Euler step, cannot be known.
        resolved: `(*e, b, k)` bool, where that is small beside the exponent, or beside the speed at which
            tangent vectors move; None for maps.
        drift: `(*e, b, k)`, with `transient="auto"` the part of each exponent that a drift of the growth
            explains, which only the whole run shows; None where there is none.
        segments: into how many pieces the orbit was cut, as asked for; 1 where it was scanned in one go.
        warm_up: steps for which each piece went on into the next one, in place of what that had found.
        seams: `(*e, b, k)`, what the new start of every piece may yet change in each exponent, from what
            pieces differ by at the end of the warm-up, and from the exponents' gaps; None without pieces.

    Example:
        >>> import lyaptorch as lt
        >>> spec = lt.lyapunov_spectrum(lt.RateCell(1, 16, gain=0.5), torch.zeros(100, 1, 1), k=4)
        >>> spec.exponents.shape, spec.stderr().shape, bool(spec.exponents[0, 0] < 0)
        (torch.Size([1, 4]), torch.Size([1, 4]), True)
    """

    growth: Growth
    final_state: State
    final_frame: Tensor
    dt: float = 1.0
    transient: int = 0
    interval: int = 1
    died_at: Tensor | None = None
    discretisation: Exponents | None = None
    resolved: Tensor | None = None
    drift: Exponents | None = None
    segments: int = 1
    warm_up: int = 0
    seams: Exponents | None = None

    @property
    def clock(self) -> Clock:
        """How its steps and time go together, and what its units are called."""
        return Clock(self.dt)

    @property
    def exponents(self) -> Exponents:
        """`(*e, b, k)`, in nats per step (per unit of time when `dt` was given), unsorted, differentiable.

        `.numpy()` and matplotlib take it as it is, as all rates here; of what is computed from it, and still
        carries a gradient, `.detach()` first.
        """
        return rates(self.growth.exponents(self.dt))

    def running(self) -> LogR:
        """The estimate after each interval, `(s, *e, b, k)`."""
        return rates(self.growth.running(self.dt))

    def local(self) -> LogR:
        """The growth rate in each interval, `(s, *e, b, k)`."""
        return rates(self.growth.local(self.dt))

    def finite_time(self, window: int) -> LogR:
        """The exponents of successive windows of `window` intervals, `(s // window, *e, b, k)`."""
        return rates(self.growth.finite_time(window, self.dt))

    def stderr(self) -> Exponents:
        """Standard error of each exponent; inf where it is dead, or too little was measured to judge.

        It has the `discretisation` of a flow, a `drift` and the `seams` of segments in it.
        """
        return functools.reduce(torch.hypot, self._biases(), self.growth.stderr(self.dt))

    def stderr_of_mean(self) -> Tensor:
        """Standard error `(*e, k)` of the mean of each exponent over the trajectories that have it.

        The `discretisation` of a flow, a `drift` and `seams` are taken as common to all trajectories: no
        number of them makes these smaller.
        """
        error, there = self.growth.stderr_of_mean(self.dt), self.growth.healthy[-1]
        for bias in self._biases():
            common = torch.where(there, bias, 0.0).sum(-2) / there.sum(-2).clamp_min(1)
            error = torch.hypot(error, common)
        return error

    def repeated(self, copies: int, k: int) -> Spectrum:
        """Its first k exponents, where the state holds so many copies of what these belong to."""
        if copies == 1:
            return self
        Q = self.final_frame
        many = torch.eye(copies, dtype=Q.dtype, device=Q.device)
        # rows (i, copy), columns (j, copy): that of each copy by itself
        Q = torch.einsum("...ij,cd->...icjd", Q, many).flatten(-4, -3).flatten(-2)[..., :k]
        each = {
            name: value.repeat_interleave(copies, -1)[..., :k]
            for name in ("died_at", "discretisation", "resolved", "drift", "seams")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, growth=self.growth.repeated(copies, k), final_frame=Q, **each)

    def _biases(self) -> list[Tensor]:
        return [bias for bias in (self.discretisation, self.drift, self.seams) if bias is not None]

    @property
    def too_short(self) -> Tensor:
        """`(*e, b)` bool: which trajectories ended within the transients, so that they have no exponents."""
        return self.growth.too_short()

    @property
    def reliable(self) -> Tensor:
        """`(*e, b, k)` bool: which exponents round-off, and the length of a flow's steps, left standing.

        `stderr` tells how far they can be trusted.
        """
        standing = self.growth.reliable()
        return standing if self.resolved is None else standing & self.resolved

    def kaplan_yorke(self) -> Tensor:
        """Kaplan-Yorke dimension `(*e, b)`; k where the sum never turns negative, a lower bound."""
        return rates(self.growth.kaplan_yorke())

    def entropy(self) -> Tensor:
        """Sum of positive exponents `(*e, b)`, nats per step (per unit of time with `dt`)."""
        return rates(self.growth.entropy(self.dt))

    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and coordinates for a Record; running estimates thinned to a few hundred moments."""
        k, running = self.exponents.shape[-1], self.running()
        errors = self.stderr_of_mean().reshape(-1, k)
        # members are independent networks: the variance of their mean is the mean of variances over their
        # number
        error = errors.square().mean(0).div(len(errors)).sqrt()
        places = torch.linspace(0, len(running) - 1, 200, dtype=torch.float32, device="cpu")
        thin = torch.unique(places.long())
        elapsed = self.growth.clock().cpu()[thin] * self.dt
        dims, nats = ("trajectory", "index"), {"units": self.clock.rate}
        rows = running[thin].reshape(len(thin), -1, k).movedim(0, 1)
        variables = {
            "exponents": (dims, self.exponents.reshape(-1, k), nats),
            "stderr": (dims, self.stderr().reshape(-1, k), nats),
            "error_of_mean": (("index",), error, nats),
            "reliable": (dims, self.reliable.reshape(-1, k)),
            "running": (("trajectory", "elapsed", "index"), rows, nats),
        }
        return variables, {"elapsed": (("elapsed",), elapsed.double())}

    def record(self) -> Record:
        """The same as a Record: the exponents of every trajectory, their errors, and how they converged."""
        names = ("dt", "transient", "interval", "segments", "warm_up")
        config = {name: getattr(self, name) for name in names}
        return Record("spectrum", config, *self.variables())

    def __repr__(self) -> str:
        *ensemble, k = self.growth.log_r.shape[1:]
        steps = int(self.growth.clock()[-1])
        reliable, all_of = int(self.reliable.sum()), self.reliable.numel()
        lines = [
            f"Spectrum: {counted(k, 'exponent')}, {trajectories(tuple(ensemble))}, {counted(steps, 'step')}",
            *leading(self.exponents, self.stderr(), self.clock.rate),
            f"{reliable} of {all_of} reliable; .exponents, .stderr(), .plot(), .save('spectrum.html')",
        ]
        return "\n  ".join(lines)


class Rates(Tensor):
    """A tensor whose array is that of its numbers. What is computed from it is a plain tensor.

    Saved, copied and printed it is a plain tensor, too; only its rows are of its kind.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """The numbers, without their gradient."""
        return self.detach().numpy(force=force)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Rates:
        return super().__getitem__(index).as_subclass(Rates)

    def __iter__(self) -> Iterator[Rates]:
        return (row.as_subclass(Rates) for row in self.unbind())

    def __deepcopy__(self, memo: dict[Any, Any]) -> Tensor:
        return copy.deepcopy(_plain(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(_plain(self))

    def __format__(self, spec: str) -> str:
        return format(_plain(self), spec)


def rates(value: Tensor) -> Tensor:
    """The same, readable as an array where it carries a gradient."""
    return value.as_subclass(Rates) if value.requires_grad else value


def _plain(value: Tensor) -> Tensor:
    return value.as_subclass(Tensor)
