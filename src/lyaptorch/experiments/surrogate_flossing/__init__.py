"""Figures of Surrogate Gradient Flossing (Engelken & Abbott 2024), and what it leaves open."""

from typing import Any

from lyaptorch.experiments.surrogate_flossing.adaptive import Fig3, Fig3Printed
from lyaptorch.experiments.surrogate_flossing.drawn import Fig1ac, Fig1d
from lyaptorch.experiments.surrogate_flossing.driven import AppF, AppG, Fig2a, Fig2b
from lyaptorch.experiments.surrogate_flossing.lif import Fig7, Fig8, Table1
from lyaptorch.experiments.surrogate_flossing.lif_jacobian import Fig4
from lyaptorch.experiments.surrogate_flossing.random_binary import Fig1b
from lyaptorch.experiments.surrogate_flossing.spiking_training import Spiking
from lyaptorch.experiments.surrogate_flossing.trained_binary import AppCCopy, LimitsG

FIGURES: tuple[type[Any], ...] = (
    *(Fig1ac, Fig1b, Fig1d, Fig2a, Fig2b, Fig3, Fig3Printed, Fig4, Fig7, Fig8),
    *(AppCCopy, AppF, AppG, LimitsG, Table1, Spiking),
)
