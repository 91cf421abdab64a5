"""One package per paper: its figures, each with checks, at three scales."""

from __future__ import annotations

from lyaptorch.experiments import beyond, gradient_flossing, surrogate_flossing, weak_coupling
from lyaptorch.experiments.check import Check
from lyaptorch.experiments.demo import Demo
from lyaptorch.experiments.figure import SCALES, Figure
from lyaptorch.experiments.trainings import Training, train_networks

FIGURES: dict[str, dict[str, type[Figure]]] = {
    paper: {figure.figure: figure for figure in package.FIGURES}
    for paper, package in {
        "gradient-flossing": gradient_flossing,
        "surrogate-flossing": surrogate_flossing,
        "beyond": beyond,
        "weak-coupling": weak_coupling,
    }.items()
}
"""Papers and their figures."""

__all__ = ["FIGURES", "SCALES", "Check", "Demo", "Training", "train_networks"]
