"""Measure, predict and control how gradients flow through recurrent networks."""

from lyaptorch import analysis, cells, integrations, kernels, schedules, tasks, theory
from lyaptorch._random import draw_with as _draw_with
from lyaptorch.cells import (
    Activation,
    BinaryCell,
    Cell,
    ElmanCell,
    Flow,
    GRUCell,
    LeakyRateCell,
    LIFCell,
    LSTMCell,
    RateCell,
    ResidualCell,
    as_cell,
    closed_loop,
    forced,
    residuals,
    surrogates,
    weights,
)
from lyaptorch.cells.unroll import use as _use
from lyaptorch.compile.operators import register as _register
from lyaptorch.diagnosis import diagnose
from lyaptorch.kernels.draws import drawn as _drawn
from lyaptorch.record import Record
from lyaptorch.record import Renderer as _Renderer
from lyaptorch.record import render_with as _render_with
from lyaptorch.schedules import FitPhase, FlossPhase, flossing_loss
from lyaptorch.tangent import Spectrum, covariant_vectors, depth_spectrum, lyapunov_spectrum
from lyaptorch.tasks import Batch, Task
from lyaptorch.training import SGD, Adam, Model, Readout, evaluate, floss, presets, train

__all__ = [  # noqa: RUF022
    # measure
    "Spectrum",
    "covariant_vectors",
    "depth_spectrum",
    "diagnose",
    "lyapunov_spectrum",
    # control
    "Adam",
    "FitPhase",
    "FlossPhase",
    "Model",
    "Readout",
    "SGD",
    "evaluate",
    "floss",
    "flossing_loss",
    "presets",
    "schedules",
    "train",
    # what evolves
    "Activation",
    "BinaryCell",
    "Cell",
    "ElmanCell",
    "Flow",
    "GRUCell",
    "LIFCell",
    "LSTMCell",
    "LeakyRateCell",
    "RateCell",
    "ResidualCell",
    "as_cell",
    "cells",
    "closed_loop",
    "forced",
    "residuals",
    "surrogates",
    "weights",
    # data and results
    "Batch",
    "Record",
    "Task",
    "tasks",
    # knowledge and engines
    "analysis",
    "integrations",
    "kernels",
    "theory",
]

# streams, cells and tangent know of no kernels: here they are told, and it is the only place
_draw_with(_drawn)
_use(kernels.FusedRecurrence("cpu"))
_use(kernels.FusedRecurrence("triton"))
_register()


def _open_renderer() -> _Renderer:
    """What draws Records, imported when the first is drawn: matplotlib takes its time."""
    from lyaptorch import _renderer

    return _renderer


_render_with(_open_renderer)


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for."""
    if name == "__version__":
        from lyaptorch._files import host_facts

        return str(host_facts().get("lyaptorch", "not installed"))
    raise AttributeError(f"module 'lyaptorch' has no attribute {name!r}")
