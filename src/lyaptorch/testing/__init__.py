"""Oracles: exact systems, networks with known answers, lambda_1 without a Jacobian, and `check_cell`."""

from lyaptorch.testing.conformance import CellReport, check_cell
from lyaptorch.testing.nearby import divergence_rate
from lyaptorch.testing.networks import copy_network, spatial_xor_network, xor_network
from lyaptorch.testing.systems import (
    CAT_EXPONENT,
    HENON_SUM,
    LOGISTIC_EXPONENT,
    LORENZ_EXPONENTS,
    LORENZ_SUM,
    cat,
    henon,
    linear,
    logistic,
    lorenz,
    uncoupled,
)

__all__ = [
    "CAT_EXPONENT",
    "HENON_SUM",
    "LOGISTIC_EXPONENT",
    "LORENZ_EXPONENTS",
    "LORENZ_SUM",
    "CellReport",
    "cat",
    "check_cell",
    "copy_network",
    "divergence_rate",
    "henon",
    "linear",
    "logistic",
    "lorenz",
    "spatial_xor_network",
    "uncoupled",
    "xor_network",
]
