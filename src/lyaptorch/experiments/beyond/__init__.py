"""Beyond the papers: questions that they leave open."""

from lyaptorch.experiments.beyond.chaos import InputSuppressesChaos
from lyaptorch.experiments.beyond.depth import Depths
from lyaptorch.experiments.checks import Experiment

FIGURES: tuple[type[Experiment], ...] = (Depths, InputSuppressesChaos)
