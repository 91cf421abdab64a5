"""Triggers: the members for which one fires, and what its action changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch.schedules import At, Every, Scale, When


def fired(
    when: Every | At | When, epoch: Tensor, among: Tensor, due: bool, metric: Callable[[str], Tensor]
) -> Tensor:
    """For which members `*e` it is time.

    Args:
        when: epochs, or a condition on a metric.
        epoch: task epochs that each member has behind it.
        among: who may fire.
        due: whether conditions on metrics are evaluated now.
        metric: the values of a metric `*e`; NaN where there is none yet.
    """
    if isinstance(when, Every):
        # not at epoch 0: what comes before all training is a phase of its own
        return among & (epoch > 0) & (epoch % when.epochs == 0)
    if isinstance(when, At):
        return among & torch.isin(epoch, torch.tensor(when.epochs, dtype=epoch.dtype, device=epoch.device))
    # a metric may cost a scan: it is asked for only when it is due, and somebody may fire
    late = among & (epoch >= when.after)
    if not due or not late.any():
        return torch.zeros_like(among)
    # NaN, where there is no value yet, compares as false: nobody fires on it
    return late & torch.stack([c.holds(metric(c.metric)) for c in when.conditions]).any(0)


def quiet(when: Every | At | When, epoch: Tensor, among: Tensor, until_due: int) -> int | None:
    """How many epochs from now, at least 1, `fired` need not be asked; None for never again.

    Args:
        when: epochs, or a condition on a metric.
        epoch: task epochs that each member has behind it.
        among: who may fire.
        until_due: epochs until conditions on metrics are evaluated.
    """
    left = epoch[among]
    if isinstance(when, Every):
        # who stands at a multiple was asked before this epoch, and has the whole interval left
        return int((when.epochs - left % when.epochs).min())
    if isinstance(when, At):
        ahead = [at - now for at in when.epochs for now in set(left.tolist()) if at > now]
        return min(ahead, default=None)
    # no value of the metric can fire before it is looked at
    return until_due


@torch.no_grad()
def act(
    model: nn.Module, action: Scale, who: Tensor | None = None, own: Mapping[str, Tensor] | None = None
) -> None:
    """Do what an action says to the members where the bool mask `*e` is true, or to all.

    Args:
        model: what is changed.
        action: how.
        who: for whom.
        own: by name, what belongs to members, as `Model.of_members` gives it.

    Raises:
        ValueError: if the model has nothing of that name, or one thing for all members.
    """
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if action.optional and action.name not in named:
        return
    tensor = named[_checks.choice("parameter to scale", action.name, named)]
    if who is None:
        tensor.mul_(action.factor)
        return
    if own is None or own.get(action.name) is not tensor:
        raise ValueError(
            f"{action.name} must have the leading dimensions {tuple(who.shape)} of the ensemble to be "
            f"scaled, got {tuple(tensor.shape)}: members that share it are not independent"
        )
    tensor[who] = tensor[who] * action.factor
