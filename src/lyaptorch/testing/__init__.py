"""Exact systems with known exponents, and networks with known answers."""

from lyaptorch.testing.systems import (
    CAT_EXPONENT,
    HENON_SUM,
    LOGISTIC_EXPONENT,
    cat,
    henon,
    logistic,
    xor_network,
)

__all__ = ["CAT_EXPONENT", "HENON_SUM", "LOGISTIC_EXPONENT", "cat", "henon", "logistic", "xor_network"]
