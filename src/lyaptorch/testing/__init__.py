"""Oracles: exact systems, networks with known answers, lambda_1 without a Jacobian, and `check_cell`."""

from lyaptorch.testing.conformance import CellReport, check_cell
from lyaptorch.testing.flows import SYSTEMS, System
from lyaptorch.testing.systems import (
    CAT_EXPONENT,
    HENON_SUM,
    LOGISTIC_EXPONENT,
    LORENZ_EXPONENTS,
    LORENZ_SUM,
    cat,
    copy_network,
    divergence_rate,
    henon,
    linear,
    logistic,
    lorenz,
    spatial_xor_network,
    uncoupled,
    xor_network,
)

__all__ = [
    "CAT_EXPONENT",
    "HENON_SUM",
    "LOGISTIC_EXPONENT",
    "LORENZ_EXPONENTS",
    "LORENZ_SUM",
    "SYSTEMS",
    "CellReport",
    "System",
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
