"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import tasks
from lyaptorch.cells import Activation, Cell, ElmanCell, RateCell, as_cell
from lyaptorch.flossing import FitPhase, FlossPhase, Schedule, flossing_loss
from lyaptorch.record import Record
from lyaptorch.tangent import Growth, Spectrum, lyapunov_spectrum
from lyaptorch.train import Model, Readout, evaluate, presets, train
from lyaptorch.train import floss as floss

__all__ = [
    "Activation",
    "Cell",
    "ElmanCell",
    "FitPhase",
    "FlossPhase",
    "Growth",
    "Model",
    "RateCell",
    "Readout",
    "Record",
    "Schedule",
    "Spectrum",
    "as_cell",
    "evaluate",
    "floss",
    "flossing_loss",
    "lyapunov_spectrum",
    "presets",
    "tasks",
    "train",
]
