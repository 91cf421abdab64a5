"""Starts of recurrent networks: candidate weights, gates and flossing, side by side in one ensemble."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells import Cell, ElmanCell, GRUCell, LSTMCell
from lyaptorch.cells.gates import GatedCell
from lyaptorch.cells.matrices import weights
from lyaptorch.cells.mixing import mixing_
from lyaptorch.experiments.figure import Study
from lyaptorch.schedules import At, FitPhase, FlossPhase, Schedule, Trigger
from lyaptorch.tasks.delayed import LaggedTask
from lyaptorch.training.choice import RECURRENT

C = TypeVar("C", bound=Cell)
CELLS: dict[str, Callable[..., Cell]] = {"RNN": ElmanCell, "GRU": GRUCell, "LSTM": LSTMCell}
HOLDING = ("update", "forget")
"""Gates that keep the state."""
CANDIDATES = ("new", "cell")
"""What the gates let in."""
PASS = 3.0
"""Bias of a gate that lets the candidate through: it lets pass 95%."""


@dataclass(frozen=True)
class Start:
    """How a network begins; by default as torch starts it.

    Attributes:
        candidate: ensemble of the weights of its candidate, of all recurrent weights in a network without
            gates; torch's when missing.
        gain: of these.
        opened: T in delays: gates hold for 1 to T steps, log-uniform over units, and an input gate lets in
            as much as is lost; torch's biases when missing.
        passing: bias with which gates let the candidate through: what holds has it negative.
        mixed: whether it is that of `lt.weights.mixing_`, gates and all, at its gain from the gates at rest.
        flossed: whose weights are flossed: "W", the recurrent ones, or "all"; none when missing.
        share: of the exponents that are flossed.
        during: whether training is interrupted at its thirds to floss again.
    """

    candidate: str = ""
    gain: float = 1.0
    opened: float = 0.0
    passing: float = 0.0
    mixed: bool = False
    flossed: str = ""
    share: float = 0.5
    during: bool = False


MIXING = Start(mixed=True)
AT_HALF = Start("orthogonal", 2.0)
"""An orthogonal candidate with gates that stand at one half, as torch has them."""
STARTS = {
    "torch": Start(),
    "open gates": Start(opened=2.0),
    "orthogonal": Start("orthogonal"),
    "gates at half": AT_HALF,
    "gates at half, Gaussian": Start("gaussian", 2.0),
    "passing": Start(passing=PASS),
    "passing, Gaussian": Start("gaussian", 1.25, passing=PASS),
    "mixing": MIXING,
    "gates at half, W flossed, half": replace(AT_HALF, flossed="W"),
    "gates at half, W flossed": replace(AT_HALF, flossed="W", share=1.0),
    "mixing, W flossed, half": replace(MIXING, flossed="W"),
    "mixing, W flossed": replace(MIXING, flossed="W", share=1.0),
    "mixing, W flossed, quarter": replace(MIXING, flossed="W", share=0.25),
    "mixing, W flossed, half, during": replace(MIXING, flossed="W", during=True),
    "mixing, all flossed, half": replace(MIXING, flossed="all"),
    "mixing, all flossed": replace(MIXING, flossed="all", share=1.0),
}
MOVED = (("W", RECURRENT), ("all", None))
"""What a start calls the weights that are flossed, and what flossing does."""


@torch.no_grad()
def networks(kind: str, n: int, starts: Sequence[Start], task: LaggedTask, ids: Tensor, study: Study) -> Cell:
    """One network of one input for each start and id, `(start, id)`, before any flossing.

    Networks of equal ids have in common what their starts do not set, and differ in the gain alone if in
    nothing else.
    """
    cell = CELLS[kind](1, n, **study.ensemble(ids.expand(len(starts), *ids.shape)))
    weight = cell.get_parameter("weight_hh")
    for i, start in enumerate(starts):
        if start.candidate:
            drawn = weights(start.candidate, start.gain)(n, Stream(study.seed, "candidate"), ids)
            at = _candidate(cell) * n
            weight[i, ..., at : at + n, :] = drawn
        if isinstance(cell, GatedCell):
            _set_gates(cell, i, start, int(task.delay), ids, study.seed)
    rows = [i for i, start in enumerate(starts) if start.mixed]
    if rows:
        # all of them alike: one network of each id is set, and copied
        one = picked(cell, rows[0])
        mixing_(one, horizon=int(task.delay), member_ids=ids, generator=study.generator())
        _put(cell, rows, one)
    return cell


def _candidate(cell: Cell) -> int:
    """Which block of rows of the recurrent weights is the candidate's."""
    names = cell.gates if isinstance(cell, GatedCell) else ()
    return next((j for j, gate in enumerate(names) if gate in CANDIDATES), 0)


def _set_gates(cell: GatedCell, i: int, start: Start, delay: int, ids: Tensor, seed: int) -> None:
    """The biases of the gates of start i."""
    assert cell.bias_ih is not None
    assert cell.bias_hh is not None
    n = cell.hidden_size
    for j, gate in enumerate(cell.gates):
        rows, sign = slice(j * n, (j + 1) * n), 1.0 if gate in HOLDING else -1.0
        if gate in CANDIDATES:
            continue
        if start.passing:
            cell.bias_ih[i, ..., rows], cell.bias_hh[i, ..., rows] = -sign * start.passing, 0.0
        elif start.opened and gate in (*HOLDING, "input"):
            # held for T steps: sigmoid(b) = 1 - 1 / T, so that b = log(T - 1), here uniform from 0
            drawn = Stream(seed, "open").uniform((n,), member_ids=ids)
            longest = math.log(max(start.opened * delay - 1, 1.0))
            cell.bias_ih[i, ..., rows], cell.bias_hh[i, ..., rows] = sign * longest * drawn, 0.0


def floss_some(
    cell: Cell,
    starts: Sequence[Start],
    task: LaggedTask,
    ids: Tensor,
    study: Study,
    *,
    epochs: int,
    lr: float,
) -> None:
    """Floss the networks whose start says so, in place."""
    k = _exponents(starts, cell)
    for names, which in MOVED:
        rows = [i for i, start in enumerate(starts) if start.flossed == names]
        if not rows:
            continue
        some = picked(cell, rows)
        each = ids.expand(len(rows), *ids.shape)
        study.floss(
            some,
            task,
            k=k[rows].reshape(-1, *[1] * ids.dim()).expand(each.shape),
            epochs=epochs,
            lr=lr,
            parameters=which,
            member_ids=each,
        )
        _put(cell, rows, some)


def training(starts: Sequence[Start], cell: Cell, *, epochs: int, floss_epochs: int, lr: float) -> Schedule:
    """The task, interrupted at its thirds to floss those networks `(..., start, id)` that ask for it."""
    thirds = sorted({epochs // 3, 2 * epochs // 3})
    triggers = []
    for names, which in MOVED:
        who = torch.tensor([start.during and start.flossed == names for start in starts])
        if who.any():
            k, mask = (z.unsqueeze(-1).expand(cell.ensemble) for z in (_exponents(starts, cell), who))
            episode = FlossPhase(floss_epochs, k=k, lr=lr, parameters=which, who=mask)
            triggers.append(Trigger(At(*thirds), episode))
    return (FitPhase(epochs, triggers=tuple(triggers)),)


def _exponents(starts: Sequence[Start], cell: Cell) -> Tensor:
    """How many exponents of a network of each start are flossed."""
    return torch.tensor([max(1, round(start.share * cell.state_size)) for start in starts])


def picked(cell: C, index: Any) -> C:
    """A copy of an ensemble with this index of the leading dimensions of each parameter."""
    found = copy.deepcopy(cell)
    for p in found.parameters():
        p.data = p.detach()[index].clone()
    found.ensemble = tuple(torch.empty(cell.ensemble)[index].shape)
    return found


@torch.no_grad()
def _put(cell: Cell, rows: list[int], some: Cell) -> None:
    """Write networks back."""
    for p, new in zip(cell.parameters(), some.parameters(), strict=True):
        p[rows] = new
