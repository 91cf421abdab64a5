"""Steps: one of a fit, one of flossing; what a flossing phase minimises."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

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
from lyaptorch.tangent import mean_over_trajectories
from lyaptorch.tangent.automatic import AUTO, allowed_interval
from lyaptorch.tangent.engine import problem_of, run_scan
from lyaptorch.tangent.growth import in_spans
from lyaptorch.tangent.scan import layout
from lyaptorch.tangent.start import fit_padded, framed, name_too_short
from lyaptorch.tasks.batch import Batch
from lyaptorch.training.ensemble import GO_ON, Ensemble, UnstableError
from lyaptorch.training.optim import MemberOptimizer

PUBLISHED_K = 75
PERIOD = 10
"""Flossing steps after which an interval is chosen anew: the growth changes little in between."""

AHEAD = 8
"""Epochs whose frames are drawn together."""


class Flossed(NamedTuple):
    """What a flossing phase minimises now, `(*e)`, and the exponents `(*e, b, k)` if it is made of them.

    `allowed (*e)` is the interval that each member allows from here on, where it is to be chosen.
    """

    losses: Tensor
    exponents: Tensor | None = None
    allowed: Tensor | None = None


Value: TypeAlias = Callable[[], Flossed]


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
        interval: the one taken; read from `allowed` where numbers can be read.
        ahead: frames of `AHEAD` epochs, by how many such blocks came before.
    """

    phase: FlossPhase
    k: int | None
    seed: int
    together: bool
    epoch: Tensor
    allowed: Tensor
    interval: int = field(default=1, init=False)
    ahead: dict[int, Tensor] = field(default_factory=dict, init=False)

    def value(self, cell: Cell, driven: Padded, h0: Tensor | None) -> Flossed:
        """What the phase minimises, of trajectories that start at h0.

        Raises:
            ValueError: for arguments that `fit` refuses, trajectories that end within the transient, or
                sequences of different lengths and a penalty that looks at single steps.
        """
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
        laid = layout(wait, len(inputs), self.choose(), h.device)
        found = run_scan(problem_of(cell, h, laid, after, cut=cut), None, inputs, h, Q)
        growth = in_spans(laid, found.log_r, found.healthy, after).repeated(copies, k)
        # targets and losses are per step, whatever time a step takes
        exponents, allowed = growth.exponents(), None
        if phase.interval == AUTO:
            due = (self.epoch % PERIOD == 0) | (self.allowed == 0)
            if not _checks.can_look() or due.any():
                own = allowed_interval(found.log_r.detach(), found.longest, laid.cuts)
                allowed = torch.where(due, own, self.allowed)
        return Flossed(member_losses(exponents, phase.target, phase.reduction, phase.k), exponents, allowed)

    def choose(self) -> int:
        """The interval of the next step: the shortest that any member allows."""
        if isinstance(self.phase.interval, int):
            self.interval = self.phase.interval
        elif _checks.can_look():
            self.interval = max(1, int(self.allowed.min()))
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


def flossing_of(phase: FlossPhase, seed: int, epoch: Tensor, allowed: Tensor) -> Flossing:
    """Of a phase about to start or to go on at these epochs, with these intervals, both `*e`."""
    k = int(phase.k.max()) if isinstance(phase.k, Tensor) else phase.k
    together = phase.frame == "fixed" or bool((epoch == epoch.reshape(-1)[0]).all())
    return Flossing(phase, k, seed, together, epoch, allowed)


def fit_step(
    networks: Ensemble,
    batch: Batch,
    limit: Number | None,
    mode: str,
    joint: Joint | None,
) -> dict[str, Tensor]:
    """One task step of all `members`; loss, accuracy and gradient norm `(*e)` before it.

    Args:
        networks: those who take it.
        batch: what they see.
        limit: largest norm of a gradient, and of which, as `optim.clip` has it.
        mode: likewise.
        joint: a flossing loss to be added.

    Raises:
        UnstableError: before anything is changed, if a loss or gradient is not finite.
        FloatingPointError: likewise, if the dynamics of the flossing loss overflow.
    """
    gradients: Sequence[Tensor]
    prepared = None if joint is not None else networks.differentiated(batch)
    loss, right = networks.model.loss(batch) if prepared is None else prepared[:2]
    if not _checks.all_finite(loss):
        raise _unstable("loss", networks, ~torch.isfinite(loss), batch)
    if prepared is None:
        # members share no parameter, so the gradient of the sum is each member's own, whoever else takes part
        total, parameters = loss.sum(), networks.optimizer.parameters
        if joint is not None:
            flossed = joint.value()
            added = (joint.weight * flossed.losses).sum()
            total = total + added if joint.parameters is None else total
        gradients = torch.autograd.grad(total, parameters, materialize_grads=True)
        if joint is not None and joint.parameters is not None:
            own = torch.autograd.grad(added, joint.parameters, materialize_grads=True)
            more = {id(p): g for p, g in zip(joint.parameters, own, strict=True)}
            pairs = zip(parameters, gradients, strict=True)
            gradients = [g + more[id(p)] if id(p) in more else g for p, g in pairs]
    else:
        gradients = prepared.gradients
    wrong, lengths = networks.optimizer.step(gradients, limit, mode)
    if wrong is not None:
        raise _unstable("gradient", networks, wrong, batch)
    networks.epoch += 1
    # told before clipping: a trigger on it asks how gradients flow, not what the clip left of them
    size = networks.recurrent_norm(lengths)
    if joint is not None and flossed.allowed is not None:
        networks.allowed.copy_(flossed.allowed)
    return {"loss": loss.detach(), "accuracy": right, "gradient_norm": size}


def floss_step(loss: Value, flossing: Flossing, optimizer: MemberOptimizer, ids: Tensor) -> dict[str, Tensor]:
    """One flossing step; loss `(*e)` and exponents `(*e, k)`, averaged over trajectories, before it.

    A penalty that is not made of exponents gives a NaN in their place.
    """
    phase, epoch = flossing.phase, flossing.epoch
    try:
        value, exponents, allowed = loss()
    except FloatingPointError as error:
        raise FloatingPointError(f"at flossing epoch {epoch.reshape(-1)[0]}: {error}") from error
    gradients = torch.autograd.grad(value.sum(), optimizer.parameters, materialize_grads=True)
    wrong, _ = optimizer.step(gradients, phase.clip)
    if wrong is not None:
        raise UnstableError(
            f"the gradient is not finite at flossing epoch {epoch.reshape(-1)[0]} for member "
            f'{ids[wrong].tolist()}; use fewer steps, state_grad="detach" or a truncation length',
            wrong,
        )
    if allowed is not None:
        flossing.allowed.copy_(allowed)
    if exponents is None:
        value = value.detach()
        return {"floss_loss": value, "exponents": torch.full_like(value, torch.nan).unsqueeze(-1)}
    # recorded is the mean, whatever is minimised, so that curves of both reductions compare
    minimised = phase.reduction == "mean"
    mean = value.detach() if minimised else member_losses(exponents.detach(), phase.target, "mean", phase.k)
    return {"floss_loss": mean, "exponents": mean_over_trajectories(exponents.detach())}


def most_exponents(k: int | Tensor | None, n: int) -> int:
    """The largest k of any member of a phase.

    Raises:
        ValueError: if it is not in 1..n.
    """
    k = min(PUBLISHED_K, n) if k is None else k
    k = int(k.max()) if isinstance(k, Tensor) else k
    return _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")


def first_row(networks: Ensemble, phase: FlossPhase) -> Tensor | None:
    """Where flossing starts: the first row of the initial state, for each trajectory; None for rest."""
    # detached: flossing trains the cell, not the state that the task starts from
    row = networks.model.initial_state(1)
    return None if row is None else row.detach().expand(*row.shape[:-2], phase.batch, -1)


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


@torch.no_grad()
def _unstable(what: str, networks: Ensemble, wrong: Tensor, batch: Batch) -> UnstableError:
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
