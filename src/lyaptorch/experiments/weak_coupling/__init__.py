"""Figures of Fading memory as inductive bias in residual recurrent networks (Dubinin & Effenberger 2024)."""

from typing import Any

from lyaptorch.experiments.weak_coupling.adding import Table1
from lyaptorch.experiments.weak_coupling.comparison import Table2
from lyaptorch.experiments.weak_coupling.critical import Fig2
from lyaptorch.experiments.weak_coupling.drawn import Fig1
from lyaptorch.experiments.weak_coupling.heterogeneity import Fig5, Fig6
from lyaptorch.experiments.weak_coupling.images import Fig4, Images
from lyaptorch.experiments.weak_coupling.learning import Fig3

FIGURES: tuple[type[Any], ...] = (Fig1, Fig2, Fig3, Fig4, Fig5, Fig6, Table1, Table2, Images)
