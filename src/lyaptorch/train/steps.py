"""One step of a fit, one step of flossing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import Stream
from lyaptorch._types import Number
from lyaptorch.cells import Cell, fit, random_frame
from lyaptorch.flossing import FitPhase, FlossPhase
from lyaptorch.flossing.loss import member_losses
from lyaptorch.flossing.penalties import PENALTIES
from lyaptorch.flossing.schedule import EXPONENTS
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tasks.batch import Batch
from lyaptorch.train.optim import MemberOptimizer, finite, norms
from lyaptorch.train.optim import clip as clip_gradients
from lyaptorch.train.state import Members

PUBLISHED_K = 75


class UnstableError(FloatingPointError):
    """Some members overflowed; nothing was changed.

    Attributes:
        members: bool `*e`, which.
        step: `(count,)`, the step of the trial at which the state of each overflowed; NaN if none did, and
            only its gradient is not finite.
    """

    def __init__(self, what: str, members: Members, fine: Tensor, batch: Batch) -> None:
        self.members = ~fine
        self.step = _overflow(members, batch)[~fine]
        at = self.step[~self.step.isnan()]
        where = f", its state overflows at step {int(at.min())} of the trial" if len(at) else ""
        super().__init__(
            f"the {what} is not finite at epoch {int(members.epoch[~fine].min())} for member "
            f"{members.ids[~fine].tolist()}{where}; lower the learning rate, the clip, the gain or the "
            'length of a trial, or pass unstable="mark" to go on without it'
        )


@dataclass(frozen=True)
class Clip:
    """The largest gradient norm, a number or `*e`, of each tensor or of all ("global"); None for no limit."""

    norm: Number | None
    mode: str = "tensor"

    def __call__(self, gradients: tuple[Tensor, ...], ensemble: tuple[int, ...]) -> tuple[Tensor, ...]:
        """The clipped gradients."""
        if self.norm is None:
            return gradients
        return clip_gradients(gradients, ensemble, self.norm, self.mode)

    def select(self, mask: Tensor) -> Clip:
        """For some members."""
        norm = self.norm
        return Clip(norm[mask], self.mode) if isinstance(norm, Tensor) and norm.dim() else self


def fit_step(
    members: Members, batch: Batch, phase: FitPhase, clip: Clip, joint_inputs: Tensor | None, seed: int
) -> dict[str, Tensor]:
    """One task step of all `members`; loss, accuracy and gradient norm `(*e)` before it.

    Raises:
        UnstableError: before anything is changed, if a loss or gradient is not finite.
    """
    ensemble = tuple(members.ids.shape)
    loss, right = members.model.loss(batch)
    if not (fine := torch.isfinite(loss)).all():
        raise UnstableError("loss", members, fine, batch)
    total = loss.sum()
    if joint_inputs is not None:
        weight = torch.as_tensor(phase.flossing_weight, dtype=loss.dtype, device=loss.device)
        floss, _ = flossing_value(
            members.model.cell,
            joint_inputs,
            first_row(members, phase.flossing, joint_inputs),
            phase.flossing,
            seed,
            members.epoch,
        )
        total = total + (weight * floss).sum()
    gradients = torch.autograd.grad(total, members.optimizer.parameters, materialize_grads=True)
    if not (fine := finite(gradients, ensemble)).all():
        raise UnstableError("gradient", members, fine, batch)
    size = _recurrent_norm(members, gradients, ensemble)
    members.optimizer.step(clip(gradients, ensemble))
    members.epoch += 1
    return {"loss": loss, "accuracy": right, "gradient_norm": size}


def floss_step(
    cell: Cell,
    inputs: Tensor,
    h0: Tensor,
    phase: FlossPhase,
    optimizer: MemberOptimizer,
    seed: int,
    epoch: Tensor,
    ids: Tensor,
) -> dict[str, Tensor]:
    """One flossing step; loss `(*e)` and exponents `(*e, k)`, averaged over trajectories, before it.

    A penalty that is not made of exponents gives a NaN in their place.
    """
    ensemble = tuple(h0.shape[:-2])
    try:
        value, exponents = flossing_value(cell, inputs, h0, phase, seed, epoch)
    except FloatingPointError as error:
        raise FloatingPointError(f"at flossing epoch {epoch.reshape(-1)[0]}: {error}") from error
    gradients = torch.autograd.grad(value.sum(), optimizer.parameters, materialize_grads=True)
    fine = finite(gradients, ensemble)
    if not fine.all():
        raise FloatingPointError(
            f"the gradient is not finite at flossing epoch {epoch.reshape(-1)[0]} for member "
            f'{ids[~fine].tolist()}; use fewer steps, state_grad="detach" or a truncation length'
        )
    optimizer.step(Clip(phase.clip)(gradients, ensemble))
    if exponents is None:
        loss = value.detach()
        return {"floss_loss": loss, "exponents": torch.full_like(loss, torch.nan).unsqueeze(-1)}
    _warn_dead(exponents, ids)
    mean = member_losses(exponents.detach(), phase.target, "mean", phase.k)
    return {"floss_loss": mean, "exponents": exponents.detach().mean(-2)}


def flossing_value(
    cell: Cell, inputs: Tensor, h0: Tensor, phase: FlossPhase, seed: int, epoch: Tensor
) -> tuple[Tensor, Tensor | None]:
    """What a phase minimises, `(*e)`, and the exponents `(*e, b, k)` if it is made of them."""
    n = h0.shape[-1]
    k = most_exponents(phase, n)
    if phase.penalty != EXPONENTS:
        checked, h = fit(cell, inputs, h0)
        own = phase.k if isinstance(phase.k, Tensor) else k
        return PENALTIES[phase.penalty](cell, checked, h, own), None
    exponents = lyapunov_spectrum(
        cell,
        inputs,
        k=k,
        h0=h0,
        tangent_transient=phase.tangent_transient,
        interval=phase.interval,
        frame=_frame(n, k, seed, epoch if phase.frame == "redrawn" else torch.zeros_like(epoch), h0),
        state_grad=phase.state_grad,
    ).exponents
    return member_losses(exponents, phase.target, phase.reduction, phase.k), exponents


def most_exponents(phase: FlossPhase, n: int) -> int:
    """The largest k of any member.

    Raises:
        ValueError: if it is not in 1..n.
    """
    k = min(PUBLISHED_K, n) if phase.k is None else phase.k
    k = int(k.max()) if isinstance(k, Tensor) else k
    return _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")


def first_row(members: Members, phase: FlossPhase, inputs: Tensor) -> Tensor:
    """Where flossing starts: the first row of the initial state, for each of its trajectories."""
    row = members.model.initial_state(1)
    if row is not None:
        row = row.detach().expand(*row.shape[:-2], phase.batch, -1)
    return fit(members.model.cell, inputs, row)[1]


def _warn_dead(exponents: Tensor, ids: Tensor) -> None:
    """Where no direction survives there is no gradient, and flossing would do nothing in silence."""
    dead = (exponents[..., 0] == -torch.inf).all(-1)
    if dead.any():
        warnings.warn(
            f"every tangent vector of member {ids[dead].tolist()} dies (lambda_1 = -inf), so flossing has no "
            "gradient for it; rectified units have slope 0 at and below 0: pass an h0 that opens some, such "
            "as positive noise, or raise bias or gain",
            stacklevel=2,
        )


def _frame(n: int, k: int, seed: int, epoch: Tensor, h0: Tensor) -> Tensor:
    """The frame of an epoch, the same for all members at that epoch."""
    stream = Stream(seed, "floss_frame")
    if bool((epoch == epoch.reshape(-1)[0]).all()):
        epoch = epoch.reshape(-1)[0]
        return random_frame(n, k, stream, torch.zeros_like(epoch), epoch, dtype=h0.dtype)
    frame = random_frame(n, k, stream, torch.zeros_like(epoch), epoch, dtype=h0.dtype)
    return frame.unsqueeze(-3).expand(*h0.shape, k)


def _recurrent_norm(members: Members, gradients: tuple[Tensor, ...], ensemble: tuple[int, ...]) -> Tensor:
    """The norm of the gradient of W, or of all the cell's parameters where none has that name."""
    cell = members.model.cell
    chosen = [p for name, p in cell.named_parameters() if name == "weight_hh"] or list(cell.parameters())
    own = [
        norms(g, ensemble)
        for p, g in zip(members.optimizer.parameters, gradients, strict=True)
        if any(p is c for c in chosen)
    ]
    return torch.linalg.vector_norm(torch.stack(own), dim=0) if own else torch.zeros(ensemble)


@torch.no_grad()
def _overflow(members: Members, batch: Batch) -> Tensor:
    """The first step `(*e)` after which a state is not finite, from 1; NaN where there is none."""
    bad = ~torch.isfinite(members.model.states(batch.inputs)).all(-1).all(-1)
    first = bad.int().argmax(0).double() + 1
    return torch.where(bad.any(0), first, torch.nan)
