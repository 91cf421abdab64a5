"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import analysis, kernels, tasks, theory
from lyaptorch.analysis import Diagnosis, diagnose
from lyaptorch.cells import (
    Activation,
    Cell,
    ElmanCell,
    GRUCell,
    LSTMCell,
    RateCell,
    ResidualCell,
    as_cell,
    residuals,
    weights,
)
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
from lyaptorch.tangent import Growth, Spectrum, lyapunov_spectrum
from lyaptorch.train import SGD, Adam, Model, Readout, evaluate, presets, train
from lyaptorch.train import floss as floss

__all__ = [
    "SCHEDULES",
    "SGD",
    "Activation",
    "Adam",
    "At",
    "Cell",
    "Diagnosis",
    "ElmanCell",
    "Every",
    "FitPhase",
    "FlossPhase",
    "GRUCell",
    "Growth",
    "LSTMCell",
    "Model",
    "RateCell",
    "Readout",
    "Record",
    "ResidualCell",
    "Scale",
    "Schedule",
    "Spectrum",
    "Trigger",
    "When",
    "accuracy",
    "analysis",
    "as_cell",
    "diagnose",
    "evaluate",
    "floss",
    "flossing_loss",
    "gradient_norm",
    "kernels",
    "lambda1",
    "lyapunov_spectrum",
    "presets",
    "residuals",
    "task_loss",
    "tasks",
    "theory",
    "train",
    "weights",
]

_use(kernels.FusedRecurrence())
