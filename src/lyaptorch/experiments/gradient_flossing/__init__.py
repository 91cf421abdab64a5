"""Figures of Gradient Flossing (Engelken 2023)."""

from lyaptorch.experiments.gradient_flossing.control import Fig1b, Fig1c, Fig1d
from lyaptorch.experiments.gradient_flossing.units import Fig6
from lyaptorch.experiments.gradient_flossing.xor import Fig4c, Fig8

__all__ = ["Fig1b", "Fig1c", "Fig1d", "Fig4c", "Fig6", "Fig8"]
