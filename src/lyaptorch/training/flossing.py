"""What a phase of flossing minimises, and the intervals and frames of its scans."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._padded import Padded
from lyaptorch._random import Stream
from lyaptorch._types import Number
from lyaptorch.cells import Cell, random_frame
from lyaptorch.schedules import FlossPhase
from lyaptorch.schedules.loss import PENALTIES, member_losses
from lyaptorch.schedules.phases import EXPONENTS
from lyaptorch.tangent.automatic import AUTO, allowed_interval
from lyaptorch.tangent.engine import problem_of, run_scan
from lyaptorch.tangent.growth import in_spans
from lyaptorch.tangent.scan import Layout, layout
from lyaptorch.tangent.start import fit_padded, framed, name_too_short
from lyaptorch.training.prepared_floss import PreparedScan

PUBLISHED_K = 75
PERIOD = 10
"""Flossing steps after which an interval is chosen anew: the growth changes little in between."""

AHEAD = 8
"""Epochs whose frames are drawn together."""


class Flossed(NamedTuple):
    """What a flossing phase minimises now, `(*e)`, and the exponents `(*e, b, k)` if it is made of them.

    `allowed (*e)` is the interval that each member allows from here on, where it is to be chosen. `prepared`
    has the gradients, if the losses are a function of the exponents alone, whose gradient ends there.
    """

    losses: Tensor
    exponents: Tensor | None = None
    allowed: Tensor | None = None
    prepared: PreparedScan | None = None

    def gradients(self, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of each member's own loss by the parameters of a step."""
        total = self.losses.sum()
        if self.prepared is None or self.exponents is None:
            return torch.autograd.grad(total, parameters, materialize_grads=True)
        return self.prepared.gradients(torch.autograd.grad(total, self.exponents)[0])


Value: TypeAlias = Callable[[], Flossed]
Grown: TypeAlias = tuple[Tensor, Tensor | None, Sequence[int] | Tensor]
"""log R_ii, the longest columns and the cuts, as `allowed_interval` takes them."""


class Joint(NamedTuple):
    """A flossing loss that is added to that of the task.

    `weight` is a number or `*e`; `parameters` those that it moves, all for None.
    """

    value: Value
    weight: Number
    parameters: list[Tensor] | None


@dataclass
class Flossing:
    """What a phase minimises.

    Attributes:
        phase: the phase, its tensors where the networks are.
        k: the largest of any member, if one is given.
        seed: of the run.
        together: whether all members are at the same epoch, and so have the same frame.
        epoch: `(*e)`, where each member stands.
        allowed: `(*e)`, the interval that each allows; 0 where nobody has looked.
        trained: parameters whose gradients may be made without autograd; None where the loss needs a graph.
        interval: the one taken; read from `allowed` where numbers can be read.
        taken: that of each member `(*e)`, where it differs.
        ahead: frames of `AHEAD` epochs, by how many such blocks came before.
    """

    phase: FlossPhase
    k: int | None
    seed: int
    together: bool
    epoch: Tensor
    allowed: Tensor
    trained: Sequence[Tensor] | None = None
    interval: int = field(default=1, init=False)
    taken: int | Tensor = field(default=1, init=False)
    ahead: dict[int, Tensor] = field(default_factory=dict, init=False)

    def value(self, cell: Cell, driven: Padded, h0: Tensor | None) -> Flossed:
        """What the phase minimises, of trajectories that start at h0.

        Raises:
            ValueError: for arguments that `fit` refuses, trajectories that end within the transient, or
                sequences of different lengths and a penalty that looks at single steps.
        """
        if (known := self._without_graph(cell, driven, h0)) is not None:
            return known
        phase, (inputs, h, after) = self.phase, fit_padded(cell, driven, h0)
        k = most_exponents(self.k, h.shape[-1] - cell.travelling)
        if phase.penalty != EXPONENTS:
            if driven.lengths is not None:
                raise ValueError(
                    f"penalty {phase.penalty!r} looks at all steps of all sequences, got some of different "
                    f"lengths; pass penalty={EXPONENTS!r} or sequences of one length"
                )
            own = phase.k if isinstance(phase.k, Tensor) else k
            return Flossed(PENALTIES[phase.penalty](cell, inputs, h, own))
        wait, cut, copies = phase.tangent_transient, _checks.state_grad(phase.state_grad), cell.multiplicity
        frame = framed(self.frame(k, h[..., : h.shape[-1] - cell.travelling], copies), cell)
        if after is not None:
            name_too_short(after, wait)
        Q = frame.expand(*h.shape[:-1], *frame.shape[-2:])
        laid = self.lay(len(inputs), h.device)
        found = run_scan(problem_of(cell, h, laid, after, cut=cut), None, inputs, h, Q)
        growth = in_spans(laid, found.log_r, found.healthy, after).repeated(copies, k)
        # targets and losses are per step, whatever time a step takes
        exponents = growth.exponents()
        return self._flossed(exponents, lambda: (found.log_r.detach(), found.longest, laid.cuts))

    def _flossed(self, exponents: Tensor, growth: Callable[[], Grown], known: Any = None) -> Flossed:
        """What is minimised, of these exponents; `growth` is asked for where an interval is due."""
        phase, allowed = self.phase, None
        if phase.interval == AUTO:
            due = (self.epoch % PERIOD == 0) | (self.allowed == 0)
            if not _checks.can_look() or due.any():
                allowed = torch.where(due, allowed_interval(*growth()), self.allowed)
        losses = member_losses(exponents, phase.target, phase.reduction, phase.k)
        return Flossed(losses, exponents, allowed, known)

    @cached_property
    def _prepared(self) -> PreparedScan:
        return PreparedScan(self.trained or [])

    def _without_graph(self, cell: Cell, driven: Padded, h0: Tensor | None) -> Flossed | None:
        """The same by `PreparedScan`, where that can be."""
        size, prepared = cell.state_size, self._prepared
        if self.trained is None or self.phase.penalty != EXPONENTS or not size:
            return None
        found = prepared.of(self, most_exponents(self.k, size - cell.travelling), cell, driven, h0)
        return None if found is None else self._flossed(found, prepared.growth, prepared)

    def lay(self, steps: int, device: torch.device) -> Layout:
        """The spans of the next step, the same of all members."""
        return layout(self.phase.tangent_transient, steps, self.choose(), device)

    def choose(self) -> int:
        """The interval of the next step: the shortest that any member allows."""
        if isinstance(self.phase.interval, int):
            self.interval = self.phase.interval
        elif _checks.can_look():
            self.interval = max(1, int(self.allowed.min()))
        self.taken = self.interval
        return self.interval

    def wait(self) -> int:
        """How many steps are taken with the interval of the next one."""
        if self.phase.interval != AUTO:
            return sys.maxsize
        if (self.allowed == 0).any():
            return 1
        return int((-self.epoch % PERIOD).min()) + 1

    def frame(self, k: int, h0: Tensor, copies: int = 1) -> Tensor:
        """The frame of an epoch, the same for all members at that epoch; that of one copy."""
        n, k, stream = h0.shape[-1] // copies, -(-k // copies), Stream(self.seed, "floss_frame")
        epoch = self.epoch if self.phase.frame == "redrawn" else torch.zeros_like(self.epoch)
        # one frame for everybody at an epoch (member 0's): a member's frame does not depend on the company,
        # and an ensemble that is together draws and factors a single one
        if not self.together:
            frame = random_frame(n, k, stream, torch.zeros_like(epoch), epoch, dtype=h0.dtype)
            return frame.unsqueeze(-3).expand(*h0.shape[:-1], n, k)
        epoch = epoch.reshape(-1)[0]
        if h0.is_cuda or not _checks.can_look():
            return random_frame(n, k, stream, torch.zeros_like(epoch), epoch, dtype=h0.dtype)
        # on the CPU with those of the next epochs: most of the time of a small draw goes between operations
        first, at = divmod(int(epoch), AHEAD)
        if first not in self.ahead:
            epochs = torch.arange(AHEAD * first, AHEAD * (first + 1), device=h0.device)
            drawn = random_frame(n, k, stream, torch.zeros_like(epochs), epochs, dtype=h0.dtype)
            self.ahead = {first: drawn}
        return self.ahead[first][at]


def flossing_of(
    phase: FlossPhase,
    seed: int,
    epoch: Tensor,
    allowed: Tensor,
    trained: Sequence[Tensor] | None = None,
) -> Flossing:
    """Of a phase about to start or to go on at these epochs, with these intervals, both `*e`."""
    k = int(phase.k.max()) if isinstance(phase.k, Tensor) else phase.k
    together = phase.frame == "fixed" or bool((epoch == epoch.reshape(-1)[0]).all())
    return Flossing(phase, k, seed, together, epoch, allowed, trained)


def most_exponents(k: int | Tensor | None, n: int) -> int:
    """The largest k of any member of a phase.

    Raises:
        ValueError: if it is not in 1..n.
    """
    k = min(PUBLISHED_K, n) if k is None else k
    k = int(k.max()) if isinstance(k, Tensor) else k
    return _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")


def warn_of_death(exponents: Tensor, ids: Tensor) -> None:
    """Where no direction survives there is no gradient, and flossing would do nothing in silence.

    Args:
        exponents: of a step `(*e, k)`, averaged over trajectories.
        ids: of the members.
    """
    dead = exponents[..., 0] == -torch.inf
    if dead.any():
        warnings.warn(
            f"every tangent vector of member {ids.cpu()[dead].tolist()} dies (lambda_1 = -inf), so flossing "
            "has no gradient for it; rectified units have slope 0 at and below 0: pass an h0 that opens "
            "some, such as positive noise, or raise bias or gain",
            stacklevel=2,
        )
