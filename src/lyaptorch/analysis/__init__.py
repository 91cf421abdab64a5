"""What a spectrum means: long-term Jacobians, gradients, and when things happen in training."""

from lyaptorch.analysis.events import aligned, onset
from lyaptorch.analysis.gradients import (
    effective_rank,
    gradient_norms,
    gradient_overlap,
    gradient_singular_values,
)
from lyaptorch.analysis.jacobians import (
    ConditionNumber,
    condition_number,
    step_jacobians,
    usable_dimensions,
)

__all__ = [
    "ConditionNumber",
    "aligned",
    "condition_number",
    "effective_rank",
    "gradient_norms",
    "gradient_overlap",
    "gradient_singular_values",
    "onset",
    "step_jacobians",
    "usable_dimensions",
]
