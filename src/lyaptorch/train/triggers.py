"""For which members a trigger fires."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lyaptorch.flossing import At, Every, When


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
        return among & (epoch > 0) & (epoch % when.epochs == 0)
    if isinstance(when, At):
        return among & torch.isin(epoch, torch.tensor(when.epochs, dtype=epoch.dtype))
    late = among & (epoch >= when.after)
    if not due or not late.any():
        return torch.zeros_like(among)
    return late & when.condition.holds(metric(when.condition.metric))
