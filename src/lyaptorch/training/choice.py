"""What flossing of gated networks changes where neither exponents nor parameters were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from lyaptorch import _checks
from lyaptorch.cells import Cell, Stacked
from lyaptorch.cells.gates import GatedCell
from lyaptorch.schedules import FitPhase, FlossPhase, Phase, Schedule

RECURRENT = "*weight_hh*"


def chosen(phase: FlossPhase, cell: Cell) -> FlossPhase:
    """The phase with k and parameters of its own, where it has neither and the network is a gated one.

    Pushed to one value, all exponents of a gated network end where its gates stand still: its state then sums
    inputs and cannot tell when one came. So half of the exponents are pushed, of an LSTM as many as it has
    units, and the recurrent weights alone are moved.
    """
    sizes = _sizes(cell)
    moved = [p for name, p in cell.titled().items() if fnmatchcase(name, RECURRENT) and p.requires_grad]
    if phase.k is not None or phase.parameters is not None or not sizes or not moved:
        return phase
    return replace(phase, k=sum(max(1, n // 2) for n in sizes), parameters=RECURRENT)


def chosen_in(schedule: Sequence[Phase], cell: Cell) -> Schedule:
    """The same of all phases of a schedule, and of what interrupts them or is added to their loss."""

    def of(phase: Any) -> Any:
        if isinstance(phase, FlossPhase):
            return chosen(phase, cell)
        if not isinstance(phase, FitPhase):
            return phase
        joint = bool((_checks.numbers(phase.flossing_weight) != 0).any())
        return replace(
            phase,
            flossing=chosen(phase.flossing, cell) if joint else phase.flossing,
            triggers=tuple(replace(trigger, phase=of(trigger.phase)) for trigger in phase.triggers),
        )

    return tuple(of(phase) for phase in schedule)


def _sizes(cell: Cell) -> list[int]:
    """Numbers in the state of each layer of a network of gated layers; none of any other."""
    template = getattr(cell, "_template", None)
    if template is not None:
        return _sizes(template[0].cell)
    if isinstance(cell, GatedCell):
        return [cell.state_size]
    layers = [_sizes(layer) for layer in cell.layers] if isinstance(cell, Stacked) else []
    return [n for sizes in layers for n in sizes] if all(layers) else []
