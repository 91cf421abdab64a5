"""Theory: mean fields, spectra of random matrices, condition numbers."""

from lyaptorch.theory.leaky import LeakyMeanField, leaky_mean_field, quiescent_spectrum
from lyaptorch.theory.mean_field import (
    MeanField,
    binary_mean_field,
    critical_gain,
    critical_input,
    gaussian_states,
    log_condition_number,
    tanh_mean_field,
)
from lyaptorch.theory.random_matrices import free_probability_spectrum, gaussian_product, triangle_law

__all__ = [
    "LeakyMeanField",
    "MeanField",
    "binary_mean_field",
    "critical_gain",
    "critical_input",
    "free_probability_spectrum",
    "gaussian_product",
    "gaussian_states",
    "leaky_mean_field",
    "log_condition_number",
    "quiescent_spectrum",
    "tanh_mean_field",
    "triangle_law",
]
