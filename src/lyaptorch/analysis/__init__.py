"""What a spectrum means: long-term Jacobians, gradients, and when things happen in training."""

from lyaptorch.analysis.events import aligned, onset
from lyaptorch.analysis.gradients import (
    effective_rank,
    gradient_norms,
    gradient_singular_values,
)
from lyaptorch.analysis.jacobians import (
    ConditionNumber,
    condition_number,
    step_jacobians,
    usable_dimensions,
)
from lyaptorch.analysis.spikes import SpikeStatistics, spike_statistics

__all__ = [
    "ConditionNumber",
    "SpikeStatistics",
    "aligned",
    "condition_number",
    "effective_rank",
    "gradient_norms",
    "gradient_singular_values",
    "onset",
    "spike_statistics",
    "step_jacobians",
    "usable_dimensions",
]
