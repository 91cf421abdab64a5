"""Parts of a state: how much each grows, silences and gates; units that hand on and keep nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lyaptorch._brief import brief
from lyaptorch._random import Stream
from lyaptorch.cells import Cell
from lyaptorch.cells.products import repeat_batch
from lyaptorch.diagnosis.trajectories import Run
from lyaptorch.tangent import mean_over_trajectories

SILENT = 0.05
"""A unit that takes up, or passes on, less than this share of a perturbation in one step is silent."""
PROBES = 64
"""Random vectors that stand for all n where the state is larger."""
MOMENTS = 16
"""Moments of a run at which its Jacobian is looked at."""

Groups = Mapping[str, slice | Sequence[int]]


@dataclass(frozen=True)
class Parts:
    """A state by named parts, and what each does to a perturbation.

    Attributes:
        names: of the G parts.
        assignment: `(n, G)`, 1 where a variable belongs to a part, else 0.
        separate: whether the parts are units of their own (layers, groups), not variables of the same units.
        rates: `(G,)`, growth of a perturbation in this part while all else is held, nats per step.
        passage: `(G, G)`, root-mean-square gain of one step, from the part of the column to that of the row.
        silent: `(n,)`, share of the moments at which each variable was silent; 0 of one with `finite_memory`,
            or without tangents.
    """

    names: tuple[str, ...]
    assignment: Tensor
    separate: bool
    rates: Tensor
    passage: Tensor
    silent: Tensor

    __repr__ = brief

    def mean(self, values: Tensor) -> Tensor:
        """Means over each part, of `(..., n)` numbers: `(..., G)`."""
        return values @ self.assignment / self.assignment.sum(0)


def memberships(cell: Cell, n: int, groups: Groups | None) -> tuple[tuple[str, ...], Tensor, bool]:
    """Names, `(n, G)` memberships and `separate`: of the user's groups, or of the parts the cell names.

    What has no tangents belongs to none.

    Raises:
        ValueError: for a group that is empty, or has units twice or beyond the state.
    """
    chosen: Groups = groups or cell.parts() or {"state": slice(None)}
    assignment = torch.zeros(n, len(chosen), dtype=torch.float32, device="cpu")
    n -= cell.travelling
    for j, (name, where) in enumerate(chosen.items()):
        units = list(range(n)[where] if isinstance(where, slice) else where)
        if not units or len(set(units)) < len(units) or not all(0 <= i < n for i in units):
            raise ValueError(
                f"group {name!r} must be a slice or a list of different units within 0..{n - 1}, got {where};"
                " mend it or leave it out"
            )
        assignment[units, j] = 1.0
    return tuple(chosen), assignment, bool(groups) or cell.layered


def measure(cell: Cell, run: Run, groups: Groups | None, moments: int = MOMENTS) -> Parts:
    """Parts of a run. Cost O(t) steps with G columns."""
    names, assignment, separate = memberships(cell, run.states.shape[-1], groups)
    assignment = assignment.to(run.states)
    rates = own_rates(cell, run.inputs, run.states[0], assignment, run.steps)
    squares = run.mean(moments, lambda x, h: block_squares(cell, x, h, assignment))
    # E |B v|^2 = |B|_F^2 / n for a block B and a random unit vector v of its columns' part of n variables
    passage = squares.sqrt() / assignment.sum(0).sqrt()
    return Parts(names, assignment, separate, rates, passage, silence(cell, run, moments))


def own_rates(cell: Cell, inputs: Tensor, h: Tensor, assignment: Tensor, steps: Tensor) -> Tensor:
    """The first exponent of each part alone: of the product of the Jacobians' own blocks, `(G,)`.

    Each trajectory counts for its own `steps (*e, b)`.
    """
    Q = assignment * normal(assignment.shape, "own", assignment)
    Q = (Q / Q.norm(dim=-2)).expand(*h.shape, -1)
    total = torch.zeros_like(Q[..., 0, :])
    for s, x in enumerate(inputs):
        there = (steps > s).unsqueeze(-1)
        after, pushed = cell.pushforward(x, h, Q)
        # only the part's own rows and columns of D: what comes by way of the others is cut off at every step
        pushed = pushed * assignment
        norm = pushed.norm(dim=-2, keepdim=True)
        total += torch.where(there, norm.squeeze(-2).log(), 0.0)
        h = torch.where(there, after, h)
        Q = torch.where(there.unsqueeze(-1), pushed / norm.clamp_min(torch.finfo(Q.dtype).tiny), Q)
    return mean_over_trajectories((total / steps.unsqueeze(-1)).flatten(0, -2))


def silence(cell: Cell, run: Run, moments: int = MOMENTS) -> Tensor:
    """The share of moments, and trajectories, at which each variable is silent, `(n,)`.

    What passes a variable is the lesser of the norms of its row of D (what it takes up) and its column (what
    it passes on). Of more than `PROBES` variables both are estimated, to 10%, from random vectors.
    """
    S = probes(run.states.shape[-1], run.states)

    def silent(x: Tensor, h: Tensor) -> Tensor:
        Q = S.expand(*h.shape, -1)
        taken_up = cell.pushforward(x, h, Q)[1].norm(dim=-1)
        passed_on = pull_back(cell, x, h, Q).norm(dim=-1)
        found = (torch.minimum(taken_up, passed_on) < SILENT).to(h.dtype)
        # a number without tangents is no unit
        found[..., h.shape[-1] - cell.travelling :] = 0
        return found

    return run.mean(moments, silent)


def block_squares(cell: Cell, x: Tensor, h: Tensor, assignment: Tensor) -> Tensor:
    """Squared norms `(*e, b, G, G)` of the blocks of D, its columns' part last."""
    S = probes(len(assignment), assignment)
    # with E[S S^T] = 1 the sum of D_ij^2 over j in part H is E |(D M_H S)_i|^2, M_H the mask of H: one pass
    # with the columns of all parts side by side, squared, summed over the probes, then over each part's rows
    by_part = (assignment.unsqueeze(-1) * S.unsqueeze(-2)).flatten(1)
    rows = cell.pushforward(x, h, by_part.expand(*h.shape, -1))[1].square()
    rows = torch.unflatten(rows, -1, (assignment.shape[1], -1)).sum(-1)
    return assignment.mT @ rows


def probes(n: int, like: Tensor) -> Tensor:
    """S `(n, p)` with E[S S^T] = 1: the identity, or random vectors where n is large."""
    if n <= PROBES:
        return torch.eye(n, dtype=like.dtype, device=like.device)
    # p columns s with E[s s^T] = 1 / p each
    S: Tensor = normal((n, PROBES), "probes", like) / PROBES**0.5
    return S


def pull_back(cell: Cell, x: Tensor, h: Tensor, Z: Tensor) -> Tensor:
    """D^T Z for cotangents Z `(*e, b, n, p)`; zero where the step has no graph."""
    return _pulled(cell, x, h, Z, wanted=1)[0]


def jacobian_rows(cell: Cell, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """D and dh'/dx of one step, `(*e, b, n, n)` and `(*e, b, n, m)`. Cost n steps."""
    rows = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device).expand(*h.shape, -1)
    D, from_input = _pulled(cell, x, h, rows, wanted=2)
    return D.mT, from_input.mT


def _pulled(cell: Cell, x: Tensor, h: Tensor, Z: Tensor, wanted: int) -> list[Tensor]:
    """Cotangents of the state, and of the input where two are wanted."""
    b, p = Z.shape[-3], Z.shape[-1]
    with torch.enable_grad():
        given = [repeat_batch(z.detach(), p) for z in (h, x)]
        leaves = [z.requires_grad_() for z in given[:wanted]]
        after = cell.step(given[1], given[0])
    bars = [torch.zeros_like(z) for z in leaves]
    # without a graph all of the step is under torch.no_grad
    if after.requires_grad:
        rows = Z.mT.flatten(-3, -2)
        bars = list(torch.autograd.grad(after, leaves, rows, materialize_grads=True))
    return [torch.unflatten(bar, -2, (b, p)).mT for bar in bars]


def normal(shape: tuple[int, ...], stream: str, like: Tensor) -> Tensor:
    """N(0, 1), the same in every diagnosis."""
    shared_id = torch.zeros((), dtype=torch.int64, device=like.device)
    return Stream(0, stream).normal(shape, member_ids=shared_id, dtype=like.dtype)


LOOKED_AT = 4
"""Moments of a run at which the whole Jacobian is looked at."""
LARGEST = 2048
"""Variables of the largest state that is looked at: it takes as many rows of a Jacobian."""


def finite_memory(cell: Cell, run: Run) -> Tensor:
    """Which variables `(n,)` hand a perturbation on, and lie on no loop along which it could come back.

    Such a part of the state is nilpotent: it has a finite impulse response, and an exponent of -inf for each
    variable. A variable counts that takes something up, from the state or from the input, and either passes
    it on or is an exact copy of what another was: the last place of a register, which only a readout sees.
    A saturated unit does neither. Nothing is found in states above `LARGEST`. Cost O(n) steps at each of
    `LOOKED_AT` moments, of one of the longest trajectories.
    """
    n, known = run.states.shape[-1], cell.registers()
    if known is not None:
        return known
    if n > LARGEST:
        return torch.zeros(n, dtype=torch.bool, device="cpu")
    linked = torch.zeros(n, n, dtype=torch.bool, device="cpu")
    copy, alive = ~linked[0], linked[0].clone()
    for x, h, _ in run.longest().moments(LOOKED_AT):
        rows, from_input = (z.reshape(n, -1).cpu() for z in jacobian_rows(cell, x, h))
        largest = rows.abs().amax(-1)
        # a row with a single entry of size 1 and nothing else copies one variable
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

    # a node is on a cycle if its strong component has others, or if it is linked with itself
    _, label = connected_components(csr_array(linked.numpy()), directed=True, connection="strong")
    labels = torch.as_tensor(label, dtype=torch.int64, device="cpu")
    return (torch.bincount(labels)[labels] > 1) | linked.diagonal()
