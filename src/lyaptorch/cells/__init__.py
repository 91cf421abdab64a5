"""Cells, their activations and weights, and other people's networks as cells."""

from lyaptorch.cells import surrogates
from lyaptorch.cells.activation import ACTIVATIONS, Activation
from lyaptorch.cells.adapt import FunctionCell, Network, as_cell, copied, owned, unwrap
from lyaptorch.cells.adaptive_lif import AdaptiveLIFCell
from lyaptorch.cells.cell import Cell, FormCell
from lyaptorch.cells.delta import DeltaCell
from lyaptorch.cells.diagonal import LRUCell, MinGRUCell, SelectiveSSMCell
from lyaptorch.cells.flow import Flow
from lyaptorch.cells.form import AnyForm, Form, LIFForm
from lyaptorch.cells.gates import GRUCell
from lyaptorch.cells.leaky import LeakyRateCell
from lyaptorch.cells.leaky_readout import LeakyReadout
from lyaptorch.cells.loop import closed_loop
from lyaptorch.cells.lstm import LSTMCell, URLSTMCell
from lyaptorch.cells.matrices import WEIGHTS, random_frame
from lyaptorch.cells.modern import CoRNNCell, S4DCell
from lyaptorch.cells.ownership import Substituted
from lyaptorch.cells.probe import fit, probe
from lyaptorch.cells.rate import BinaryCell, ElmanCell, RateCell, ResidualCell
from lyaptorch.cells.readout import Readout
from lyaptorch.cells.spiking import LIFCell, SpikingCell
from lyaptorch.cells.stacked import Block, Depth, Stacked
from lyaptorch.cells.teacher import forced
from lyaptorch.cells.unroll import settle, unroll

__all__ = [
    "ACTIVATIONS",
    "WEIGHTS",
    "Activation",
    "AdaptiveLIFCell",
    "AnyForm",
    "BinaryCell",
    "Block",
    "Cell",
    "CoRNNCell",
    "DeltaCell",
    "Depth",
    "ElmanCell",
    "Flow",
    "Form",
    "FormCell",
    "FunctionCell",
    "GRUCell",
    "LIFCell",
    "LIFForm",
    "LRUCell",
    "LSTMCell",
    "LeakyRateCell",
    "LeakyReadout",
    "MinGRUCell",
    "Network",
    "RateCell",
    "Readout",
    "ResidualCell",
    "S4DCell",
    "SelectiveSSMCell",
    "SpikingCell",
    "Stacked",
    "Substituted",
    "URLSTMCell",
    "as_cell",
    "closed_loop",
    "copied",
    "fit",
    "forced",
    "owned",
    "probe",
    "random_frame",
    "settle",
    "surrogates",
    "unroll",
    "unwrap",
]
