"""One package per paper: its figures, each with checks, at three scales."""

from __future__ import annotations

from typing import Any

from lyaptorch.experiments import beyond, gradient_flossing, surrogate_flossing, weak_coupling
from lyaptorch.experiments.checks import SCALES, Check, Experiment
from lyaptorch.experiments.demo import Demo
from lyaptorch.experiments.study import mean_field_gain
from lyaptorch.experiments.training import Training, train_networks

FIGURES: dict[str, dict[str, type[Any]]] = {
    "gradient-flossing": {figure.figure: figure for figure in gradient_flossing.FIGURES},
    "surrogate-flossing": {figure.figure: figure for figure in surrogate_flossing.FIGURES},
    "beyond": {figure.figure: figure for figure in beyond.FIGURES},
    "weak-coupling": {figure.figure: figure for figure in weak_coupling.FIGURES},
}
"""Papers and their figures."""

__all__ = [
    "FIGURES",
    "SCALES",
    "Check",
    "Demo",
    "Experiment",
    "Training",
    "mean_field_gain",
    "train_networks",
]
