"""What to expect: mean-field theory."""

from lyaptorch.theory.mean_field import MeanField, critical_gain, tanh_mean_field

__all__ = ["MeanField", "critical_gain", "tanh_mean_field"]
