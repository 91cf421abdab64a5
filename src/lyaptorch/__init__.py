"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import analysis, integrations, kernels, tasks, theory
from lyaptorch.analysis import Diagnosis, diagnose
from lyaptorch.cells import (
    Activation,
    AdaptiveLIFCell,
    BinaryCell,
    Cell,
    CoRNNCell,
    Depth,
    ElmanCell,
    Flow,
    GRUCell,
    LeakyReadout,
    LIFCell,
    LSTMCell,
    RateCell,
    ResidualCell,
    S4DCell,
    URLSTMCell,
    as_cell,
    fluctuation_driven,
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
from lyaptorch.tangent import (
    CovariantVectors,
    Growth,
    Spectrum,
    covariant_vectors,
    depth_spectrum,
    lyapunov_spectrum,
)
from lyaptorch.train import SGD, Adam, Model, Readout, best_so_far, evaluate, iterations_to, presets, train
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
    "CoRNNCell",
    "CovariantVectors",
    "Depth",
    "Diagnosis",
    "ElmanCell",
    "Every",
    "FitPhase",
    "FlossPhase",
    "Flow",
    "GRUCell",
    "Growth",
    "LIFCell",
    "LSTMCell",
    "LeakyReadout",
    "Model",
    "RateCell",
    "Readout",
    "Record",
    "ResidualCell",
    "S4DCell",
    "Scale",
    "Schedule",
    "Spectrum",
    "Trigger",
    "URLSTMCell",
    "When",
    "accuracy",
    "analysis",
    "as_cell",
    "best_so_far",
    "covariant_vectors",
    "depth_spectrum",
    "diagnose",
    "evaluate",
    "floss",
    "flossing_loss",
    "fluctuation_driven",
    "gradient_norm",
    "integrations",
    "iterations_to",
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
_use(kernels.TritonRecurrence())


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for."""
    if name == "__version__":
        from lyaptorch._files import host_facts

        return str(host_facts().get("lyaptorch", "not installed"))
    raise AttributeError(f"module 'lyaptorch' has no attribute {name!r}")
