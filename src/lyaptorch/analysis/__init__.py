"""What a spectrum means: long-term Jacobians, gradients, memory, and when things happen in training."""

from lyaptorch.analysis.coupling import ResidualExponents, residual_exponents
from lyaptorch.analysis.curvature import HessianSpectrum, effective_learning_rates, hessian_spectrum
from lyaptorch.analysis.jacobians import ConditionNumber, condition_number, step_jacobians, usable_dimensions
from lyaptorch.analysis.loss_gradients import (
    effective_rank,
    gradient_norms,
    gradient_overlap,
    gradient_singular_values,
)
from lyaptorch.analysis.memory import fading_memory, memory_capacity, time_scales
from lyaptorch.analysis.signals import (
    PowerSpectrum,
    SpikeStatistics,
    characteristic_frequency,
    spike_statistics,
)
from lyaptorch.analysis.training_curves import aligned, best_so_far, iterations_to, onset

__all__ = [
    "ConditionNumber",
    "HessianSpectrum",
    "PowerSpectrum",
    "ResidualExponents",
    "SpikeStatistics",
    "aligned",
    "best_so_far",
    "characteristic_frequency",
    "condition_number",
    "effective_learning_rates",
    "effective_rank",
    "fading_memory",
    "gradient_norms",
    "gradient_overlap",
    "gradient_singular_values",
    "hessian_spectrum",
    "iterations_to",
    "memory_capacity",
    "onset",
    "residual_exponents",
    "spike_statistics",
    "step_jacobians",
    "time_scales",
    "usable_dimensions",
]
