"""Beyond the papers: questions that they leave open."""

from typing import Any

from lyaptorch.experiments.beyond.architectures import FlossedCells, UnitParameters
from lyaptorch.experiments.beyond.chaos import InputSuppressesChaos
from lyaptorch.experiments.beyond.cheaper import AutoFlossing, CheapFlossing
from lyaptorch.experiments.beyond.depth import Depths
from lyaptorch.experiments.beyond.gated import GatedStarts, GatedXOR
from lyaptorch.experiments.beyond.gated_reach import GatedReach
from lyaptorch.experiments.beyond.items import ItemsByDelay
from lyaptorch.experiments.beyond.prediction import Prediction
from lyaptorch.experiments.beyond.reach import HorizonPerCost, MemoryLimit
from lyaptorch.experiments.beyond.spoken import SpokenDigitsLearned

FIGURES: tuple[type[Any], ...] = (
    *(MemoryLimit, HorizonPerCost),
    *(CheapFlossing, AutoFlossing),
    *(ItemsByDelay, InputSuppressesChaos),
    *(UnitParameters, Depths, FlossedCells),
    *(GatedStarts, GatedXOR, GatedReach, Prediction),
    SpokenDigitsLearned,
)
