"""Figures of Gradient Flossing (Engelken 2023)."""

from lyaptorch.experiments.checks import Experiment
from lyaptorch.experiments.gradient_flossing.algorithm import Fig15, Fig16
from lyaptorch.experiments.gradient_flossing.conditioning import Fig2a, Fig2b, Fig2c
from lyaptorch.experiments.gradient_flossing.control import Fig1b, Fig1c, Fig1d
from lyaptorch.experiments.gradient_flossing.cost import Table1
from lyaptorch.experiments.gradient_flossing.directions import CovariantOverlap, Fig10, Fig11
from lyaptorch.experiments.gradient_flossing.episodes import Fig8, Fig9
from lyaptorch.experiments.gradient_flossing.frames import Frames
from lyaptorch.experiments.gradient_flossing.units import Fig6
from lyaptorch.experiments.gradient_flossing.xor import Fig4c

FIGURES: tuple[type[Experiment], ...] = (
    *(Fig1b, Fig1c, Fig1d),
    *(Fig2a, Fig2b, Fig2c),
    Fig4c,
    Fig6,
    *(Fig8, Fig9, Fig10, Fig11, CovariantOverlap),
    *(Fig15, Fig16, Table1, Frames),
)
