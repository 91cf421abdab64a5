"""Inputs and initial state as a cell takes them, checked before a trajectory is run."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.probe import probe


def fit(cell: Cell, inputs: Tensor, h0: Any) -> tuple[Tensor, Tensor]:
    """Inputs `(t, *e, b, m)` and state `(*e, b, n)` in full shape, checked against the cell.

    h0 may come in parts, as `cell.pack` takes them. A step that the library did not write is probed, once,
    and again where modules that it calls were put from `eval()` into `train()` since, or back.
    Warns where inputs look as if they came batch first.

    Raises:
        ValueError: for wrong shapes, dtypes, devices, NaN or inf in inputs, h0 or weights, a missing h0
            where the state size comes from it, or a step that breaks the contract of `probe`.
    """
    _checks.tensor("inputs", inputs, do="embed token ids first; of other integers pass .float()")
    h0 = None if h0 is None else cell.pack(h0)
    foreign = cell.state_size == 0
    if foreign and h0 is None and inputs.dim() == 3:
        h0 = cell.rest(inputs[0])
    ensemble = tuple(h0.shape[:-2]) if foreign and h0 is not None else cell.ensemble
    letters = "(t, b, m)" if not ensemble else "(t, *e, b, m)"
    if cell.ensemble and ensemble != cell.ensemble:
        raise ValueError(
            f"h0 must have shape (*e, b, n) with *e = {cell.ensemble} as the networks, got {tuple(h0.shape)}"
        )
    if inputs.dim() not in (3, len(ensemble) + 3) or inputs.shape[1:-2] not in ((), ensemble):
        raise ValueError(
            f"inputs must have shape {letters} with *e = {ensemble}, got {tuple(inputs.shape)}; time comes "
            "first, then the ensemble (or nothing), then trajectories and channels"
        )
    t, b, m = inputs.shape[0], *inputs.shape[-2:]
    if t < 1 or b < 1:
        raise ValueError(
            f"inputs must hold at least 1 step and 1 trajectory, got shape {tuple(inputs.shape)}"
        )
    if cell.batch_first and t < b:
        warnings.warn(
            f"inputs {tuple(inputs.shape)} are read time first, as {t} steps of {b} trajectories, but the "
            "network has batch_first=True; of a batch as it takes it pass x.transpose(0, 1)",
            stacklevel=3,
        )
    if not foreign and m != cell.input_size:
        raise ValueError(
            f"inputs must have {cell.input_size} channels for this cell, got {m}; the last dimension is m"
        )
    tensors = cell.tensors()
    for name, value in [*cell.named_parameters(), *cell.named_buffers()]:
        _checks.weight(name, value)
    if h0 is None:
        h0 = cell.rest(inputs[0])
    elif not foreign:
        _checks.shape("h0", _checks.tensor("h0", h0), (*ensemble, b, cell.state_size), "(*e, b, n)")
    elif _checks.tensor("h0", h0).dim() < 2 or h0.shape[-2] != b:
        raise ValueError(f"h0 must have shape (*e, b, n) with b = {b} as in inputs, got {tuple(h0.shape)}")
    if h0.shape[-1] < 1:
        raise ValueError(f"h0 must hold at least one unit, got shape {tuple(h0.shape)}; there is no state")
    reference = ("the weights", tensors[0]) if tensors else ("inputs", inputs)
    for name, value in (("inputs", inputs), ("h0", h0)):
        _checks.finite(name, _checks.alike(name, value, *reference))
    inputs = inputs.reshape(t, *[1] * (len(ensemble) + 3 - inputs.dim()), *inputs.shape[1:])
    inputs = inputs.expand(t, *ensemble, b, m)
    if cell.unproven or any((module, module.training) not in cell.ran for module, _ in cell.ran):
        probe(cell, inputs[0], h0)
    return inputs, h0
