"""Networks made by hand that solve a task without an error: `(cell, readout weight (1, n), bias (1,))`.

All are delay lines of rectified units, W shifts and nothing feeds back: W is nilpotent, so every exponent is
-inf from a known step on. Readouts are of h, not of phi(h).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch.cells import RateCell


def copy_network(delay: int, *, channels: int = 1, binary: bool = True) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `DelayedCopy(delay, binary)`, and, with two channels, `Recall(items, delay)`.

    Unit i holds the first channel of i steps ago.

    Example:
        >>> copy_network(4)[0].state_size
        5

    Source: Gradient Flossing, appendix E and H.1.
    """
    n = _checks.integer("delay", delay, 1) + 1
    cell = _line(n, delay + 1, channels)
    with torch.no_grad():
        cell.weight_ih[0, 0] = channels
    return cell, _readout(n, {delay: 1.0}), torch.tensor([-0.5 if binary else 0.0])


def xor_network(delay: int, *, binary: bool = True) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `TemporalXOR(delay, binary)`.

    Two units behind the line carry the difference of the two bits and its negative, whose rectified sum
    is |x_{t-d/2} - x_{t-d}|.

    Raises:
        ValueError: for an odd delay or one below 2.

    Example:
        >>> xor_network(4)[0].state_size
        8

    Source: Gradient Flossing, eq 21.
    """
    _checks.integer("delay", delay, 2)
    if delay % 2:
        raise ValueError(f"delay must be even, got {delay}; the shorter lag is half of it")
    n, plus, minus = delay + 4, delay, delay + 1
    cell = _line(n, delay)
    W, V = cell.weight_hh, cell.weight_ih
    with torch.no_grad():
        V[0] = 1.0
        for lag, sign in ((delay // 2, 1.0), (delay, -1.0)):
            # unit i holds x_{t-i} after step t, and is read one step later; one more step rectifies
            source = lag - 2
            if source < 0:
                V[plus], V[minus] = sign, -sign
            else:
                W[plus, source], W[minus, source] = sign, -sign
        W[delay + 2, plus] = W[delay + 3, minus] = 1.0
    bias = torch.tensor([-0.5 if binary else 0.0])
    return cell, _readout(n, {delay + 2: 1.0, delay + 3: 1.0}), bias


def spatial_xor_network(delay: int) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `SpatialXOR(delay)`: the parity of a sum s of three bits is s - 2 (s - 1)_+ + 2 (s - 2)_+.

    Example:
        >>> spatial_xor_network(4)[0].state_size
        9

    Source: Gradient Flossing, section 7 (where it is said to be possible).
    """
    length = _checks.integer("delay", delay, 1) - 1
    n = length + 6
    cell = _line(n, length, 3, bias=True)
    assert cell.bias is not None
    with torch.no_grad():
        if length:
            cell.weight_ih[0] = 3.0
        for j in range(3):
            # s - j, from the end of the line or, with delay 1, from the input; then its positive part
            if length:
                cell.weight_hh[length + j, length - 1] = 1.0
            else:
                cell.weight_ih[length + j] = 3.0
            cell.bias[length + j] = -float(j)
            cell.weight_hh[length + 3 + j, length + j] = 1.0
    weights = {length + 3 + j: weight for j, weight in enumerate((1.0, -2.0, 2.0))}
    return cell, _readout(n, weights), torch.tensor([-0.5])


def _line(n: int, length: int, channels: int = 1, *, bias: bool = False) -> RateCell:
    """n rectified units without input, the first `length` of them in a line."""
    cell = RateCell(channels, n, activation="relu", bias=bias)
    with torch.no_grad():
        for p in cell.parameters():
            p.zero_()
        for unit in range(1, length):
            cell.weight_hh[unit, unit - 1] = 1.0
    return cell


def _readout(n: int, weights: dict[int, float]) -> Tensor:
    weight = torch.zeros(1, n)
    for unit, value in weights.items():
        weight[0, unit] = value
    return weight
