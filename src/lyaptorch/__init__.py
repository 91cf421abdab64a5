"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch.cells import Activation, Cell, ElmanCell, RateCell, as_cell
from lyaptorch.tangent import Growth, Spectrum, lyapunov_spectrum

__all__ = [
    "Activation",
    "Cell",
    "ElmanCell",
    "Growth",
    "RateCell",
    "Spectrum",
    "as_cell",
    "lyapunov_spectrum",
]
