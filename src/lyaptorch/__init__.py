"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import analysis, kernels, tasks, theory
from lyaptorch.cells import (
    Activation,
    AdaptiveLIFCell,
    BinaryCell,
    Cell,
    ElmanCell,
    GRUCell,
    LIFCell,
    LSTMCell,
    RateCell,
    ResidualCell,
    as_cell,
    residuals,
    surrogates,
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
    "AdaptiveLIFCell",
    "At",
    "BinaryCell",
    "Cell",
    "ElmanCell",
    "Every",
    "FitPhase",
    "FlossPhase",
    "GRUCell",
    "Growth",
    "LIFCell",
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
    "evaluate",
    "floss",
    "flossing_loss",
    "gradient_norm",
    "kernels",
    "lambda1",
    "lyapunov_spectrum",
    "presets",
    "residuals",
    "surrogates",
    "task_loss",
    "tasks",
    "theory",
    "train",
    "weights",
]

_use(kernels.FusedRecurrence())
