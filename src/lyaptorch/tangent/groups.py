"""Scans in groups: on the CPU, members of an ensemble that allow the same interval are scanned together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import kernels
from lyaptorch.cells import AnyForm, Cell
from lyaptorch.tangent.automatic import allowed_interval
from lyaptorch.tangent.engine import FusedEngine, choose, problem_of, run_by, run_scan
from lyaptorch.tangent.growth import in_spans
from lyaptorch.tangent.scan import Layout, Outcome, layout

TAKEN = (16, 3, 2, 1)
"""The intervals that members with their own take: few, as a group costs about what the next would save."""


class Group(NamedTuple):
    """Members by their places `(g,)` in the flattened ensemble, and how they are scanned.

    In rows `first` to `last - 1` of the growth stand their spans.
    """

    members: Tensor
    laid: Layout
    first: int
    last: int


class Grown(NamedTuple):
    """What a scan of an ensemble found.

    Attributes:
        exponents: per step, `(*e, b, k)`.
        found: all of it; of several groups with as many rows as any needs, which are 0 where there is no
            span.
        laid: the spans where all have the same.
        groups: else, who was scanned how.
        intervals: those taken, one for all or one for each member of the flattened ensemble.
    """

    exponents: Tensor
    found: Outcome
    laid: Layout
    groups: tuple[Group, ...]
    intervals: tuple[int, ...]

    def allowed(self) -> Tensor:
        """The interval that each member may take from here on, `(*e)`."""
        log_r, longest = self.found.log_r.detach(), self.found.longest
        if not self.groups or longest is None:
            return allowed_interval(log_r, longest, self.laid.cuts)
        e = log_r.dim() - 3
        own = torch.empty(log_r.shape[1:-2], dtype=torch.int64, device=log_r.device)
        for group in self.groups:
            rows, lengths = (_of(group.members, z[group.first : group.last], 1, e) for z in (log_r, longest))
            _put(group.members, own, 0, e, allowed_interval(rows, lengths, group.laid.cuts))
        return own


def grow(
    cell: Cell,
    inputs: Tensor,
    h: Tensor,
    Q: Tensor,
    intervals: Sequence[int],
    *,
    wait: int,
    after: Tensor | None = None,
    cut: int | None = None,
) -> Grown:
    """The scan between the checks of `lyapunov_spectrum` and its report, with an interval for each member.

    Where they differ each takes the longest of `TAKEN` that is not above its own. Where the compiled
    kernels of the CPU do not serve all take the shortest.

    Args:
        cell: what evolves.
        inputs: `(t, *e, b, m)`.
        h: `(*e, b, n)`.
        Q: `(*e, b, n, k)`.
        intervals: one for all, or one for each member of the flattened ensemble.
        wait: steps that are not counted.
        after: steps of each trajectory, if not all have the same.
        cut: detach the state every `cut` steps; None for never.
    """
    shortest = min(intervals)
    laid = layout(wait, len(inputs), shortest, h.device)
    problem = problem_of(cell, h, laid, after, cut=cut)
    if len(set(intervals)) == 1 or problem.form is None or choose(problem, h, None) != "cpu":
        found = run_scan(problem, None, inputs, h, Q)
        growth = in_spans(laid, found.log_r, found.healthy, after)
        return Grown(growth.exponents(), found, laid, (), (shortest,))
    own = tuple(next(i for i in TAKEN if i <= one) for one in intervals)
    lay = {i: layout(wait, len(inputs), i, h.device) for i in sorted(set(own))}
    # of all groups counting begins in the same row
    zero = max(laid.uncounted for laid in lay.values())
    groups = []
    for interval, laid in lay.items():
        members = torch.tensor([i for i, one in enumerate(own) if one == interval], device="cpu")
        first = zero - laid.uncounted
        groups.append(Group(members, laid, first, first + len(laid.over)))
    found = run_by(GroupEngine(problem.form, cut, tuple(groups)), inputs, h, Q)
    return Grown(found.log_r[zero:].sum(0) / (len(inputs) - wait), found, laid, tuple(groups), own)


@dataclass(frozen=True)
class GroupEngine:
    """A form in compiled code on the CPU, one group after the other.

    Of frames, drawn at random and left behind, nothing is put together: the first one stands for the final
    one, and gets no gradient.
    """

    form: AnyForm
    cut: int | None
    groups: tuple[Group, ...]

    def leaves(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        """Those of the form, which may be computed ones."""
        return self.form.trained()

    def forward(self, inputs: Tensor, h: Tensor, frame: Tensor, *, keep: bool) -> tuple[Outcome, Any]:
        """What the scans find, and their tapes.

        Raises:
            FloatingPointError: if a state or tangent vector overflows; names the step.
        """
        e, k, rows = h.dim() - 2, frame.shape[-1], max(group.last for group in self.groups)
        log_r, after = h.new_zeros(rows, *h.shape[:-1], k), torch.empty_like(h)
        healthy, longest = torch.ones_like(log_r, dtype=torch.bool), log_r.new_zeros(log_r.shape[:-1])
        own = []
        for group in self.groups:
            members, spans = group.members, slice(group.first, group.last)
            x, state, start = (_of(members, z, at, e) for z, at in ((inputs, 1), (h, 0), (frame, 0)))
            if inputs.requires_grad:
                # the kernels ask the tensor whether its gradient is wanted
                x = x.detach().requires_grad_()
            engine = FusedEngine(self.form, self._settings(group, h))
            found, tape = engine.forward(x, state, start, keep=keep)
            own.append(kernels.Saved(x, state, found.log_r, found.healthy, found.Q, tape))
            _put(members, log_r[spans], 1, e, found.log_r)
            _put(members, longest[spans], 1, e, found.longest)
            _put(members, healthy[spans], 1, e, found.healthy)
            # who is dead at the end is so in the empty rows after it
            if group.last < rows:
                last = found.healthy[-1:].expand(rows - group.last, *found.healthy.shape[1:])
                _put(members, healthy[group.last :], 1, e, last)
            _put(members, after, 0, e, found.h)
        return Outcome(log_r, healthy, after, frame, longest), own

    def adjoint(
        self, leaves: Sequence[Tensor], saved: kernels.Saved, c: Tensor, h_bar: Tensor
    ) -> list[Tensor | None]:
        """As `Engine` says, by the kernels."""
        h0, e = saved.h0, saved.h0.dim() - 2
        whole: dict[str, Tensor] = {}
        inputs_bar = torch.empty_like(saved.inputs) if saved.inputs.requires_grad else None
        bars = [inputs_bar, torch.empty_like(h0)]
        for group, own in zip(self.groups, saved.tape, strict=True):
            members = group.members
            own_c, own_bar = _of(members, c[group.first : group.last], 1, e), _of(members, h_bar, 0, e)
            found = kernels.scan_adjoint(
                self.form, leaves, self._settings(group, h0), own, own_c, own_bar, whole
            )
            for at, bar, part in zip((1, 0), bars, found, strict=False):
                _put(members, bar, at, e, part)
        return [*bars, None, *found[3:]]

    def _settings(self, group: Group, h: Tensor) -> kernels.Settings:
        chosen = kernels.Chosen(tuple(h.shape[:-2]), group.members)
        return kernels.Settings(group.laid.cuts, group.laid.twice, self.cut, chosen=chosen)


def _of(members: Tensor, z: Tensor, at: int, e: int) -> Tensor:
    """Of z, whose dimensions from `at` on are the ensemble's, what belongs to some members."""
    # what all share is not copied for each
    if not any(z.stride()[at : at + e]):
        for _ in range(e):
            z = z.select(at, 0)
        return z.unsqueeze(at).expand(*z.shape[:at], len(members), *z.shape[at:])
    return z.flatten(at, at + e - 1).index_select(at, members)


def _put(members: Tensor, z: Tensor | None, at: int, e: int, part: Tensor | None) -> None:
    """The way back, where both are asked for."""
    if z is not None and part is not None:
        z.flatten(at, at + e - 1).index_copy_(at, members, part)
