"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import analysis, kernels, tasks, theory
from lyaptorch.cells import Activation, Cell, ElmanCell, Flow, RateCell, as_cell
from lyaptorch.cells.trajectory import use as _use
from lyaptorch.flossing import (
    SCHEDULES,
    At,
    Every,
    FitPhase,
    FlossPhase,
    Scale,
    Schedule,
    Trigger,
    When,
    accuracy,
    flossing_loss,
    gradient_norm,
    lambda1,
    task_loss,
)
from lyaptorch.record import Record
from lyaptorch.tangent import CovariantVectors, Growth, Spectrum, covariant_vectors, lyapunov_spectrum
from lyaptorch.train import SGD, Adam, Model, Readout, evaluate, presets, train
from lyaptorch.train import floss as floss

__all__ = [
    "SCHEDULES",
    "SGD",
    "Activation",
    "Adam",
    "At",
    "Cell",
    "CovariantVectors",
    "ElmanCell",
    "Every",
    "FitPhase",
    "FlossPhase",
    "Flow",
    "Growth",
    "Model",
    "RateCell",
    "Readout",
    "Record",
    "Scale",
    "Schedule",
    "Spectrum",
    "Trigger",
    "When",
    "accuracy",
    "analysis",
    "as_cell",
    "covariant_vectors",
    "evaluate",
    "floss",
    "flossing_loss",
    "gradient_norm",
    "kernels",
    "lambda1",
    "lyapunov_spectrum",
    "presets",
    "task_loss",
    "tasks",
    "theory",
    "train",
]

_use(kernels.FusedRecurrence())
