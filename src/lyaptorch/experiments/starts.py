"""Starts tuned by theory."""

from __future__ import annotations

import torch

from lyaptorch._padded import padded
from lyaptorch.tasks import Task
from lyaptorch.theory import critical_gain

STEPS = 1000
"""Steps from which the strength of a task's inputs is estimated."""


def mean_field_gain(task: Task) -> float:
    """The gain at which mean-field theory puts lambda_1 of a `gf2023` network on this task at 0.

    Its units receive V x + b with V ~ N(0, 1) and b ~ U(0, 0.1): s^2 = sum_c E[x_c^2] + E[b^2]. Theory takes
    the input as white in time, so this is a guess for inputs with a mean, as bits have.

    Example:
        >>> from lyaptorch.tasks import TemporalXOR
        >>> 1.4 < mean_field_gain(TemporalXOR(10)) < 1.8
        True

    Source: Gradient Flossing, section 9 (mean-field tuned initialisation); `theory.critical_gain`.
    """
    shared_id = torch.zeros((), dtype=torch.int64)
    x = task.inputs(
        0, member_ids=shared_id, epoch=0, batch=1, length=STEPS, stream="gain", dtype=torch.float64
    )
    strength = padded(x).inputs.square().mean((0, 1)).sum() + 0.1**2 / 3
    return float(critical_gain(strength.sqrt()))
