"""What a spectrum means: long-term Jacobians, gradients, and when things happen in training."""

from lyaptorch.analysis.diagnose import Diagnosis, diagnose
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

__all__ = [
    "ConditionNumber",
    "Diagnosis",
    "aligned",
    "condition_number",
    "diagnose",
    "effective_rank",
    "gradient_norms",
    "gradient_singular_values",
    "onset",
    "step_jacobians",
    "usable_dimensions",
]
