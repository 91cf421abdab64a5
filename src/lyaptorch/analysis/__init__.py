"""What a spectrum means: long-term Jacobians, gradients, memory, and what a cell's weights say of them."""

from lyaptorch.analysis.memory import fading_memory, memory_capacity, time_scales
from lyaptorch.analysis.residual import ResidualExponents, residual_exponents

__all__ = [
    "ResidualExponents",
    "fading_memory",
    "memory_capacity",
    "residual_exponents",
    "time_scales",
]
