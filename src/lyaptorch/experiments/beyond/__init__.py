"""Beyond the papers: questions that they leave open."""

from typing import Any

from lyaptorch.experiments.beyond.auto import AutoFlossing
from lyaptorch.experiments.beyond.chaos import InputSuppressesChaos
from lyaptorch.experiments.beyond.depth import Depths
from lyaptorch.experiments.beyond.gated import FlossedCells
from lyaptorch.experiments.beyond.horizon import CheapFlossing, HorizonPerCost
from lyaptorch.experiments.beyond.recall import ItemsByDelay, MemoryLimit
from lyaptorch.experiments.beyond.unit import UnitParameters

FIGURES: tuple[type[Any], ...] = (
    *(MemoryLimit, HorizonPerCost),
    *(CheapFlossing, AutoFlossing),
    *(ItemsByDelay, InputSuppressesChaos),
    *(UnitParameters, Depths, FlossedCells),
)
