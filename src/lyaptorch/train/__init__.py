"""One loop: models, optimisers for ensembles, flossing and training."""

from lyaptorch.train.floss import floss
from lyaptorch.train.loop import evaluate, train
from lyaptorch.train.model import Model, Readout, settled_state
from lyaptorch.train.optim import SGD, Adam
from lyaptorch.train.presets import PRESETS
from lyaptorch.train.scores import best_so_far, iterations_to

__all__ = [
    "PRESETS",
    "SGD",
    "Adam",
    "Model",
    "Readout",
    "best_so_far",
    "evaluate",
    "floss",
    "iterations_to",
    "settled_state",
    "train",
]
