"""Experiments: configuration in, Record and checks out; one module for each paper."""

from __future__ import annotations

from lyaptorch.experiments import surrogate_flossing as sf
from lyaptorch.experiments.checks import SCALES, Check, Experiment
from lyaptorch.experiments.demo import Demo
from lyaptorch.experiments.gradient_flossing import Fig1b, Fig1c, Fig1d, Fig4c, Fig8
from lyaptorch.experiments.starts import mean_field_gain

FIGURES: dict[str, dict[str, type[Experiment]]] = {
    "gradient-flossing": {figure.figure: figure for figure in (Fig1b, Fig1c, Fig1d, Fig4c, Fig8)},
    "surrogate-flossing": {
        figure.figure: figure
        for figure in (
            sf.Fig1b,
            sf.Fig1d,
            sf.Fig2a,
            sf.Fig2b,
            sf.Fig3,
            sf.Fig4,
            sf.AppF,
            sf.AppG,
            sf.LimitsG,
            sf.Spiking,
        )
    },
}
"""Papers and their figures."""

__all__ = ["FIGURES", "SCALES", "Check", "Demo", "Experiment", "mean_field_gain"]
