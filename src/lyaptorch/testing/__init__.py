"""Exact systems with known exponents, and networks with known answers."""

from lyaptorch.testing.networks import copy_network, spatial_xor_network, xor_network
from lyaptorch.testing.systems import CAT_EXPONENT, HENON_SUM, LOGISTIC_EXPONENT, cat, henon, logistic

__all__ = [
    "CAT_EXPONENT",
    "HENON_SUM",
    "LOGISTIC_EXPONENT",
    "cat",
    "copy_network",
    "henon",
    "logistic",
    "spatial_xor_network",
    "xor_network",
]
