"""What evolves: cells, their activations and weights, and other people's networks as cells."""

from lyaptorch.cells import surrogates
from lyaptorch.cells.activation import ACTIVATIONS, Activation
from lyaptorch.cells.adapt import FunctionCell, as_cell
from lyaptorch.cells.form import Form
from lyaptorch.cells.gated import GRUCell, LSTMCell
from lyaptorch.cells.oscillator import CoRNNCell
from lyaptorch.cells.probe import fit
from lyaptorch.cells.protocol import Cell, FormCell
from lyaptorch.cells.rate import BinaryCell, ElmanCell, RateCell
from lyaptorch.cells.refined import URLSTMCell
from lyaptorch.cells.residual import ResidualCell
from lyaptorch.cells.spiking import AdaptiveLIFCell, LIFCell, SpikingCell
from lyaptorch.cells.state_space import S4DCell
from lyaptorch.cells.trajectory import settle, unroll
from lyaptorch.cells.weights import WEIGHTS, random_frame

__all__ = [
    "ACTIVATIONS",
    "WEIGHTS",
    "Activation",
    "AdaptiveLIFCell",
    "BinaryCell",
    "Cell",
    "CoRNNCell",
    "ElmanCell",
    "Form",
    "FormCell",
    "FunctionCell",
    "GRUCell",
    "LIFCell",
    "LSTMCell",
    "RateCell",
    "ResidualCell",
    "S4DCell",
    "SpikingCell",
    "URLSTMCell",
    "as_cell",
    "fit",
    "random_frame",
    "settle",
    "surrogates",
    "unroll",
]
