"""Figures of Fading memory as inductive bias in residual recurrent networks (Dubinin & Effenberger 2024)."""

from lyaptorch.experiments.checks import Experiment
from lyaptorch.experiments.weak_coupling.adding import Table1
from lyaptorch.experiments.weak_coupling.critical import Fig2
from lyaptorch.experiments.weak_coupling.heterogeneity import Fig5
from lyaptorch.experiments.weak_coupling.images import Fig4, Images

FIGURES: tuple[type[Experiment], ...] = (Fig2, Fig4, Fig5, Table1, Images)
