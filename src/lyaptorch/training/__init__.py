"""One loop: models, optimisers for ensembles, flossing and training."""

from lyaptorch.cells.readout import Readout
from lyaptorch.training.floss import floss
from lyaptorch.training.model import Model, settled_state
from lyaptorch.training.optim import SGD, Adam
from lyaptorch.training.presets import PRESETS
from lyaptorch.training.train import evaluate, train

__all__ = [
    "PRESETS",
    "SGD",
    "Adam",
    "Model",
    "Readout",
    "evaluate",
    "floss",
    "settled_state",
    "train",
]
