"""How networks start that learn to tell sequences apart: as usual, open, mixing, with a residual; flossed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch._padded import padded
from lyaptorch.analysis import characteristic_frequency
from lyaptorch.cells import Cell, ElmanCell, GRUCell, LIFCell, LSTMCell, ResidualCell, Stacked, residuals
from lyaptorch.cells.gates import GatedCell
from lyaptorch.cells.mixing import mixing_
from lyaptorch.experiments.figure import Study
from lyaptorch.tasks import Task
from lyaptorch.tasks.batch import Draw

GATED = ("GRU", "LSTM")
KINDS = ("Elman", "residual", *GATED, "LIF", "two LIF")
MEMORY = ("forget", "update")
"""The gates that keep a memory."""


class Start(NamedTuple):
    """A kind of network, how its weights are drawn, and whether it is flossed then."""

    kind: str
    how: str = ""
    flossed: bool = False

    @property
    def name(self) -> str:
        """Such as "GRU, mixing, flossed"."""
        return ", ".join([self.kind, *filter(None, [self.how, "flossed" if self.flossed else ""])])


STARTS = (
    *(Start("Elman"), Start("Elman", "mixing"), Start("Elman", "mixing", True)),
    *(Start("residual", how) for how in ("identity", "rotation", "informed")),
    *(Start(kind, *how) for kind in GATED for how in (("",), ("open",), ("mixing",), ("mixing", True))),
    *(Start(kind, "", flossed) for kind in ("LIF", "two LIF") for flossed in (False, True)),
)
BY_NAME = {start.name: start for start in STARTS}
UNFLOSSED = {start.name: start._replace(flossed=False).name for start in STARTS if start.flossed}
"""Of each that is flossed, its twin that is not."""
MIXED_ON = 8
"""Trajectories on which a gain is searched."""
HEARD = 100
"""Trajectories whose spectrum is taken."""


def started(
    start: Start, task: Task, length: int, n: int, coupling: float, study: Study, ids: Tensor
) -> Cell:
    """The networks `ids` with n units, before flossing.

    Open gates keep memories of 2 to `length` steps; mixing has the gain of the gates at rest, without gates
    that at which lambda_1 is -1 / length on the task's inputs, or would be without them where these saturate
    the units at every gain. A residual is the identity, a rotation at the data's characteristic frequency w0,
    or informed by it: angles U(0, 2 w0), decays U(.98, 1), couplings U(.01, .2).
    """
    m, own = task.input_size, study.ensemble(ids)
    if start.kind == "residual":
        return _residual(start, task, length, n, coupling, own, study)
    cell = _plain(start.kind, m, n, own)
    if start.how == "mixing" and isinstance(cell, GatedCell):
        mixing_(cell, horizon=length, member_ids=ids, generator=study.generator())
    elif start.how == "mixing":
        x = padded(task.inputs(Draw(study.seed, length, MIXED_ON, member_ids=ids, stream="mixing"))).inputs
        own_ids: dict[str, Any] = {"member_ids": ids, "generator": study.generator()}
        try:
            mixing_(cell, horizon=length, inputs=x, **own_ids)
        except ValueError:  # inputs saturate the units at every gain
            mixing_(cell, horizon=length, **own_ids)
    if start.how == "open":
        assert isinstance(cell, GatedCell)
        assert cell.bias_hh is not None
        at = next(i for i, gate in enumerate(cell.gates) if gate in MEMORY) * n
        # sigmoid(log tau) = tau / (1 + tau): a unit forgets by e in about tau steps
        cell.bias_hh.data[..., at : at + n] = torch.linspace(2, max(length, 3), n).log()
    return cell


def _plain(kind: str, m: int, n: int, own: dict[str, Any]) -> Cell:
    if kind == "two LIF":
        # the second layer sees potentials and currents of the first
        return Stacked([LIFCell(m, n, **own), LIFCell(2 * n, n, **own)])
    makes = {"Elman": ElmanCell, "GRU": GRUCell, "LSTM": LSTMCell, "LIF": LIFCell}
    cell: Cell = makes[kind](m, n, **own)
    return cell


def _residual(
    start: Start, task: Task, length: int, n: int, coupling: float, own: dict[str, Any], study: Study
) -> Cell:
    heard = padded(task.inputs(Draw(study.seed, length, HEARD, stream="spectrum"))).inputs
    spectrum = characteristic_frequency(heard)
    if start.how == "informed":
        drawn = residuals.informed(spectrum, n, **own)
        return ResidualCell(task.input_size, n, residual=drawn.residual, coupling=drawn.couplings, **own)
    turn = residuals.decay(1.0) if start.how == "identity" else residuals.rotation(spectrum.frequency)
    return ResidualCell(task.input_size, n, residual=turn, coupling=coupling, **own)
