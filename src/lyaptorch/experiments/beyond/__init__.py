"""Beyond the papers: questions that they leave open."""

from lyaptorch.experiments.beyond.auto import AutoFlossing
from lyaptorch.experiments.beyond.chaos import InputSuppressesChaos
from lyaptorch.experiments.beyond.cheap import CheapFlossing
from lyaptorch.experiments.beyond.depth import Depths
from lyaptorch.experiments.beyond.memory import MemoryLimit
from lyaptorch.experiments.checks import Experiment

FIGURES: tuple[type[Experiment], ...] = (
    *(Depths, InputSuppressesChaos, CheapFlossing),
    *(AutoFlossing, MemoryLimit),
)
