"""Units that hand a perturbation on and keep nothing of it, as in a shift register."""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch.analysis.runs import Run
from lyaptorch.cells import Cell
from lyaptorch.diagnosis.blocks import SILENT, jacobian_rows

MOMENTS = 4
"""Moments of a run at which the whole Jacobian is looked at."""
LARGEST = 2048
"""Variables of the largest state that is looked at: it takes as many rows of a Jacobian."""


def finite_memory(cell: Cell, run: Run) -> Tensor:
    """Which variables `(n,)` hand a perturbation on, and lie on no loop along which it could come back.

    Such a part of the state is nilpotent: it has a finite impulse response, and an exponent of -inf for each
    variable. A variable counts that takes something up, from the state or from the input, and either passes
    it on or is an exact copy of what another was: the last place of a register, which only a readout sees.
    A saturated unit does neither. Nothing is found in states above `LARGEST`. Cost O(n) steps at each of
    `MOMENTS` moments, of one of the longest trajectories.
    """
    n = run.states.shape[-1]
    if n > LARGEST:
        return torch.zeros(n, dtype=torch.bool, device="cpu")
    linked = torch.zeros(n, n, dtype=torch.bool, device="cpu")
    copy, alive = ~linked[0], linked[0].clone()
    for x, h, _ in run.longest().moments(MOMENTS):
        rows, from_input = (z.reshape(n, -1).cpu() for z in jacobian_rows(cell, x, h))
        largest = rows.abs().amax(-1)
        exact = (rows != 0).sum(-1) == 1
        copy &= exact & ((largest - 1).abs() < 1e-6)
        taken_up = torch.maximum(rows.norm(dim=-1), from_input.norm(dim=-1))
        alive |= (taken_up >= SILENT) & ((rows.norm(dim=-2) >= SILENT) | copy)
        linked |= rows != 0
    return alive & ~_on_loops(linked)


def _on_loops(linked: Tensor) -> Tensor:
    """Which nodes `(n,)` of a graph `(n, n)` lie on a cycle."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    _, label = connected_components(csr_array(linked.numpy()), directed=True, connection="strong")
    labels = torch.as_tensor(label, dtype=torch.int64, device="cpu")
    return (torch.bincount(labels)[labels] > 1) | linked.diagonal()
