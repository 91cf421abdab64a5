"""Figures of Fading memory as inductive bias in residual recurrent networks (Dubinin & Effenberger 2024)."""

from typing import Any

from lyaptorch.experiments.weak_coupling.adding import Fig2
from lyaptorch.experiments.weak_coupling.adding_table import Table1
from lyaptorch.experiments.weak_coupling.comparison import Table2
from lyaptorch.experiments.weak_coupling.edge import Fig3
from lyaptorch.experiments.weak_coupling.heterogeneity import Fig5
from lyaptorch.experiments.weak_coupling.informed import Images, SizesAndBatches
from lyaptorch.experiments.weak_coupling.nonlinear import Fig6
from lyaptorch.experiments.weak_coupling.rotations import Coupling, Fig4
from lyaptorch.experiments.weak_coupling.trained import Fig1

FIGURES: tuple[type[Any], ...] = (
    *(Fig1, Fig2, Fig3, Fig4, Fig5, Fig6, Table1, Table2),
    *(Images, Coupling, SizesAndBatches),
)
