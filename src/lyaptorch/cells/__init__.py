"""What evolves: cells, their activations and weights, and other people's networks as cells."""

from lyaptorch.cells.activation import ACTIVATIONS, Activation
from lyaptorch.cells.adapt import FunctionCell, as_cell
from lyaptorch.cells.flow import Flow
from lyaptorch.cells.form import Form
from lyaptorch.cells.probe import fit
from lyaptorch.cells.protocol import Cell, FormCell
from lyaptorch.cells.rate import ElmanCell, RateCell
from lyaptorch.cells.trajectory import settle, unroll
from lyaptorch.cells.weights import WEIGHTS, random_frame

__all__ = [
    "ACTIVATIONS",
    "WEIGHTS",
    "Activation",
    "Cell",
    "ElmanCell",
    "Flow",
    "Form",
    "FormCell",
    "FunctionCell",
    "RateCell",
    "as_cell",
    "fit",
    "random_frame",
    "settle",
    "unroll",
]
