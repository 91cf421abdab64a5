"""The scan of flossing steps and its adjoint without autograd, prepared once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._padded import Padded
from lyaptorch.cells import Cell
from lyaptorch.cells.form import AnyForm
from lyaptorch.kernels.dispatch import missing, refusal
from lyaptorch.kernels.scanning import Cuts, Scanning, cuts_of
from lyaptorch.tangent.automatic import AUTO
from lyaptorch.tangent.scan import spans, twice_over
from lyaptorch.tangent.start import fit_padded
from lyaptorch.training.prepared import facts_of

if TYPE_CHECKING:
    from lyaptorch.training.flossing import Flossing


@dataclass(frozen=True, eq=False)
class Pieces:
    """Spans of all members, or of each its own.

    Attributes:
        cuts: where they lie.
        uncounted: how many of them, the first ones, are not counted.
        counted: steps of all others together.
    """

    cuts: Cuts
    uncounted: int
    counted: int


@lru_cache(maxsize=64)
def pieces_of(steps: tuple[int, ...], twice: tuple[bool, ...], uncounted: int) -> Pieces:
    """The same spans of all."""
    return Pieces(cuts_of(steps, twice), uncounted, steps[-1] - steps[uncounted])


@lru_cache(maxsize=64)
def pieces_apart(tangent_transient: int, steps: int, intervals: tuple[int, ...]) -> Pieces:
    """Spans of each member by its own interval; counting begins with the same one of all."""
    own = [spans(tangent_transient, steps, interval) for interval in intervals]
    waits = [sum(not span.counted for span in over) for over in own]
    before, after = max(waits), max(len(over) - wait for over, wait in zip(own, waits, strict=True))
    cuts, twice = [], []
    for over, wait in zip(own, waits, strict=True):
        head, tail = before - wait, after - len(over) + wait
        cuts.append([*[0] * (head + 1), *(span.stop for span in over), *[steps] * tail])
        twice.append([*[False] * head, *twice_over(over), *[False] * tail])
    laid = Cuts(torch.tensor(cuts, dtype=torch.int64, device="cpu"), torch.tensor(twice, device="cpu").byte())
    return Pieces(laid, before, steps - tangent_transient)


class _Prepared(NamedTuple):
    """What holds while nothing but numbers changes."""

    scanning: Scanning
    h: Tensor
    like: tuple[int, ...]
    pieces: Pieces
    gradients: list[Tensor]
    log_r: Tensor
    c: Tensor
    h_bar: Tensor


class PreparedScan:
    """The exponents of flossing steps and their gradients, to the bit those of `run_scan`.

    Args:
        parameters: what is trained.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self._of: tuple[Any, ...] | None = None
        self._prepared: _Prepared | None = None

    def of(self, flossing: Flossing, k: int, cell: Cell, driven: Padded, h0: Tensor | None) -> Tensor | None:
        """k exponents `(*e, b, k)`, whose graph begins with them; None where autograd has to do it."""
        # the state of a trajectory that ends apart, and what is traced or captured, are not for kernels
        if driven.lengths is not None or not _checks.can_look() or missing("cpu") is not None:
            return None
        form = cell.form()
        if form is None or any(p._backward_hooks for p in self.parameters):
            return None
        pieces, cut = self._pieces(flossing, driven.inputs), _checks.state_grad(flossing.phase.state_grad)
        now = _facts(form, driven.inputs, h0), k, pieces, cut
        if now != self._of:
            self._of, self._prepared = now, self._prepare(cell, form, driven, h0, k, pieces, cut)
        if (prepared := self._prepared) is None or not _see(form, driven.inputs, h0, prepared):
            flossing.taken = flossing.interval
            return None
        scanning, log_r = prepared.scanning, prepared.log_r
        scanning.forward(flossing.frame(k, prepared.h))
        if scanning.status.amax() >= 0:
            # the general path says what overflows
            scanning.forget()
            flossing.taken = flossing.interval
            return None
        torch.log(scanning.pivots, out=log_r)
        # the unit pivot of a dead column would read as growth 0
        if scanning.dead.any():
            log_r.masked_fill_(scanning.dead, -torch.inf)
        return log_r[pieces.uncounted :].sum(0).div_(pieces.counted).requires_grad_()

    def _pieces(self, flossing: Flossing, inputs: Tensor) -> Pieces:
        """By the interval of all, or by that of each member."""
        phase, allowed, steps = flossing.phase, flossing.allowed, len(inputs)
        laid = flossing.lay(steps, inputs.device)
        if phase.interval == AUTO and allowed.numel() > 1:
            own = tuple(max(1, interval) for interval in allowed.flatten().tolist())
            if len(set(own)) > 1:
                flossing.taken = allowed.clamp_min(1)
                return pieces_apart(phase.tangent_transient, steps, own)
        return pieces_of(laid.cuts, laid.twice, laid.uncounted)

    def growth(self) -> tuple[Tensor, Tensor, Tensor]:
        """log R_ii, the longest columns and the cuts, as `allowed_interval` has them."""
        assert self._prepared is not None
        scanning, log_r, cuts = (
            self._prepared.scanning,
            self._prepared.log_r,
            self._prepared.pieces.cuts.steps,
        )
        if cuts.dim() > 1:
            cuts = cuts.view(*log_r.shape[1:-2], -1)
        return log_r, scanning.longest, cuts

    def gradients(self, c: Tensor) -> list[Tensor]:
        """Those of the parameters, where that of the exponents is c, 0 of dead ones."""
        assert self._prepared is not None
        scanning, _, _, pieces, gradients, log_r, of_growth, h_bar = self._prepared
        of_growth[pieces.uncounted :] = c / pieces.counted
        h_bar.zero_()
        scanning.adjoint(of_growth, log_r, h_bar)
        scanning.forget()
        return gradients

    def _prepare(
        self,
        cell: Cell,
        form: AnyForm,
        driven: Padded,
        h0: Tensor | None,
        k: int,
        pieces: Pieces,
        cut: int | None,
    ) -> _Prepared | None:
        # what a cell computes before or after the form
        if any(
            getattr(type(cell), name) is not getattr(Cell, name) for name in ("rest", "embedded", "packed")
        ):
            return None
        if cell.multiplicity != 1 or cell.travelling or cell.nilpotent:
            return None
        # with all its checks
        inputs, h, after = fit_padded(cell, driven, h0)
        if (
            after is not None
            or inputs.requires_grad
            or h.requires_grad
            or refusal("cpu", form, h, frame=True)
        ):
            return None
        if h0 is not None and (h.shape != h0.shape or h.data_ptr() != h0.data_ptr()):
            return None
        # of computed weights, gradients have a way to go yet
        leaves, wanted = form.trained(), {id(p) for p in self.parameters}
        if not all(leaf.is_leaf for leaf in leaves):
            return None
        leaves = [leaf for leaf in leaves if id(leaf) in wanted]
        if not leaves or len(leaves) < len(self.parameters):
            return None
        scanning = Scanning(form, inputs, h, k, pieces.cuts, cut=cut or 0, keep=True)
        scanning.want(leaves)
        if not scanning.steady:
            return None
        found = dict(zip(map(id, leaves), scanning.found()[1:], strict=True))
        gradients = [g for p in self.parameters if (g := found[id(p)]) is not None]
        of_growth, h_bar = torch.zeros_like(scanning.pivots), torch.zeros_like(scanning.h)
        log_r = torch.empty_like(scanning.pivots)
        return _Prepared(scanning, h, tuple(inputs.shape), pieces, gradients, log_r, of_growth, h_bar)


def _see(form: AnyForm, inputs: Tensor, h0: Tensor | None, prepared: _Prepared) -> bool:
    """Take the numbers of a step, if all are finite; else the general path says which are not."""
    h, like = prepared.h if h0 is None else h0, prepared.like
    if not all(_checks.all_finite(z) for z in (inputs, h, *_tensors(form))):
        return False
    inputs = inputs.reshape(len(inputs), *[1] * (len(like) - inputs.dim()), *inputs.shape[1:])
    prepared.scanning.see(form, inputs.expand(like), h)
    return True


def _tensors(form: AnyForm) -> list[Tensor]:
    return [*form.weights(), *(p for f in form.activations() for p in f.arguments)]


def _facts(form: AnyForm, inputs: Tensor, h0: Tensor | None) -> tuple[Any, ...]:
    """All that decides about the arguments, but for numbers."""
    given = [(z.shape, z.stride(), z.dtype, z.device, z.requires_grad) for z in (inputs, h0) if z is not None]
    return facts_of(form), given, None if h0 is None else h0.data_ptr()
