"""Figures of Gradient Flossing (Engelken 2023)."""

from typing import Any

from lyaptorch.experiments.gradient_flossing.alignment import CovariantOverlap, Fig9
from lyaptorch.experiments.gradient_flossing.conditioning import Fig2a, Fig2b, Fig2c
from lyaptorch.experiments.gradient_flossing.controls import Controls
from lyaptorch.experiments.gradient_flossing.convergence import Fig16
from lyaptorch.experiments.gradient_flossing.cost import Table1
from lyaptorch.experiments.gradient_flossing.counts import Fig5, Fig7, LinearNetworks
from lyaptorch.experiments.gradient_flossing.delays import Fig3c, Fig3d, Fig4c, Fig4d, Fig14c, Fig14d
from lyaptorch.experiments.gradient_flossing.directions import Fig10, Fig11
from lyaptorch.experiments.gradient_flossing.episodes import Fig8
from lyaptorch.experiments.gradient_flossing.exponents import Fig1b, Fig1c, Fig15
from lyaptorch.experiments.gradient_flossing.frames import Frames
from lyaptorch.experiments.gradient_flossing.noise_driven import Fig6
from lyaptorch.experiments.gradient_flossing.schematic import Fig1a
from lyaptorch.experiments.gradient_flossing.sizes import AppendixF
from lyaptorch.experiments.gradient_flossing.spectra import Fig1d
from lyaptorch.experiments.gradient_flossing.throughout import Fig12
from lyaptorch.experiments.gradient_flossing.trained_exponents import Fig13

FIGURES: tuple[type[Any], ...] = (
    *(Fig1a, Fig1b, Fig1c, Fig1d),
    *(Fig2a, Fig2b, Fig2c),
    *(Fig3c, Fig3d, Fig4c, Fig4d),
    *(Fig5, Fig6, Fig7),
    *(Fig8, Fig9, Fig10, Fig11, CovariantOverlap, Fig12),
    *(Fig13, Fig14c, Fig14d, Fig15, Fig16),
    *(Table1, LinearNetworks, AppendixF, Frames, Controls),
)
