"""What to expect: mean-field theory."""

from lyaptorch.theory.conditioning import log_condition_number
from lyaptorch.theory.mean_field import MeanField, critical_gain, tanh_mean_field

__all__ = ["MeanField", "critical_gain", "log_condition_number", "tanh_mean_field"]
