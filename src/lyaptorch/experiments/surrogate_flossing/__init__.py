"""Figures of Surrogate Gradient Flossing (Engelken & Abbott 2024), and what it leaves open."""

from typing import Any

from lyaptorch.experiments.surrogate_flossing.control import Fig2a, Fig2b
from lyaptorch.experiments.surrogate_flossing.convergence import Fig7, Fig8, Table1
from lyaptorch.experiments.surrogate_flossing.copying import AppCCopy, LimitsG
from lyaptorch.experiments.surrogate_flossing.gradients import AppF, AppG
from lyaptorch.experiments.surrogate_flossing.jacobian import Fig4
from lyaptorch.experiments.surrogate_flossing.spectra import Fig1b, Fig1d
from lyaptorch.experiments.surrogate_flossing.spiking import Spiking
from lyaptorch.experiments.surrogate_flossing.xor import Fig3

FIGURES: tuple[type[Any], ...] = (
    *(Fig1b, Fig1d, Fig2a, Fig2b, Fig3, Fig4, Fig7, Fig8),
    *(AppCCopy, AppF, AppG, LimitsG, Table1, Spiking),
)
