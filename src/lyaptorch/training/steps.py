"""Steps: one of a fit, one of flossing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._types import Number
from lyaptorch.schedules import FlossPhase
from lyaptorch.schedules.loss import member_losses
from lyaptorch.tangent import mean_over_trajectories
from lyaptorch.tangent.adjoint import warn_if_exploded
from lyaptorch.tasks.batch import Batch
from lyaptorch.training.ensemble import Ensemble, UnstableError, unstable
from lyaptorch.training.flossing import Flossing, Joint, Value
from lyaptorch.training.optim import MemberOptimizer


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
        raise unstable("loss", networks, ~torch.isfinite(loss), batch)
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
        raise unstable("gradient", networks, wrong, batch)
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
        flossed = loss()
    except FloatingPointError as error:
        raise FloatingPointError(f"at flossing epoch {epoch.reshape(-1)[0]}: {error}") from error
    value, exponents, allowed, prepared = flossed
    gradients = flossed.gradients(optimizer.parameters)
    wrong, _ = optimizer.step(gradients, phase.clip)
    if wrong is not None:
        if prepared is not None:
            warn_if_exploded(gradients, prepared.growth()[0])
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


def first_row(networks: Ensemble, phase: FlossPhase) -> Tensor | None:
    """Where flossing starts: the first row of the initial state, for each trajectory; None for rest."""
    # detached: flossing trains the cell, not the state that the task starts from
    row = networks.model.initial_state(1)
    return None if row is None else row.detach().expand(*row.shape[:-2], phase.batch, -1)
