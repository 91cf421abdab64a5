"""Maps, flows and networks with known answers, and lambda_1 from two nearby trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch._types import Inputs
from lyaptorch.cells import Network, RateCell, as_cell, fit, random_frame, settle

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CAT_EXPONENT = math.log((3 + math.sqrt(5)) / 2)
"""The cat map's exponents are plus and minus this, at every point."""
LOGISTIC_EXPONENT = math.log(2)
"""The exponent of the logistic map at r = 4."""
HENON_SUM = math.log(0.3)
"""The sum of the Henon map's two exponents, log |det D| at every point; lambda_1 is about 0.4192."""

LORENZ_EXPONENTS = (0.9056, 0.0, -14.5723)
"""The exponents of Lorenz-63 per unit of time (Sprott, 2003, Chaos and Time-Series Analysis)."""
LORENZ_SUM = -(10 + 1 + 8 / 3)
"""The sum of its exponents, the divergence of the field at every point."""


def henon(x: Tensor, h: Tensor) -> Tensor:
    """h' = (1 - 1.4 u^2 + v, 0.3 u) for h = (u, v); Henon (1976).

    Inputs `(b, m)` are not read; states `(b, 2)`. Cost O(b).

    Example:
        >>> henon(torch.zeros(1, 1), torch.tensor([[1.0, 0.0]])).round(decimals=4)
        tensor([[-0.4000,  0.3000]])
    """
    u, v = h.unbind(-1)
    return torch.stack([1 - 1.4 * u.square() + v, 0.3 * u], -1)


def logistic(x: Tensor, h: Tensor) -> Tensor:
    """h' = 4 h (1 - h).

    Inputs `(b, m)` are not read; states `(b, 1)`. Cost O(b).

    Example:
        >>> logistic(torch.zeros(1, 1), torch.tensor([[0.25]]))
        tensor([[0.7500]])
    """
    return 4 * h * (1 - h)


def cat(x: Tensor, h: Tensor) -> Tensor:
    """h' = (2 u + v, u + v) modulo 1: Arnold's cat map, uniformly hyperbolic.

    Inputs `(b, m)` are not read; states `(b, 2)`. Cost O(b).

    Example:
        >>> cat(torch.zeros(1, 1), torch.tensor([[0.5, 0.25]]))
        tensor([[0.2500, 0.7500]])
    """
    u, v = h.unbind(-1)
    return torch.stack([2 * u + v, u + v], -1).remainder(1.0)


def lorenz(x: Tensor, h: Tensor) -> Tensor:
    """The field dh/dt of Lorenz (1963) at 10, 28, 8/3; `lt.Flow(lorenz, dt=0.01)` is the cell.

    Inputs `(b, m)` are not read; states `(b, 3)`. Cost O(b).

    Example:
        >>> lorenz(torch.zeros(1, 1), torch.tensor([[1.0, 1.0, 1.0]])).round(decimals=2)
        tensor([[ 0.0000, 26.0000, -1.6700]])
    """
    u, v, w = h.unbind(-1)
    return torch.stack([10 * (v - u), u * (28 - w) - v, u * v - 8 / 3 * w], -1)


def linear(rates: Sequence[float]) -> Step:
    """h' = U diag(exp(rates)) U^T h with a random orthogonal U: the exponents are the rates.

    A step costs O(b n^2).

    Example:
        >>> linear([0.1, -0.2])(torch.zeros(1, 1), torch.zeros(1, 2))
        tensor([[0., 0.]])
    """
    # A^t = U S^t U^T: its singular values are those of A to the power t, so the rates hold after any t
    scales = torch.tensor(rates, dtype=torch.float64, device="cpu").exp()
    shared_id = torch.zeros((), dtype=torch.int64, device="cpu")
    U = random_frame(len(rates), len(rates), Stream(DEFAULT_SEED, "linear"), shared_id, dtype=torch.float64)
    A = U @ torch.diag(scales) @ U.mT
    return lambda x, h: h @ A.to(h)


def uncoupled(peaks: Sequence[float]) -> tuple[Step, list[float]]:
    """Uncoupled chaotic units, and the exponent of each: tent maps on 0..1 with their peaks at p.

    h' = h / p below p and (1 - h) / (1 - p) above; the invariant density is flat, so the exponent is
    -p log p - (1 - p) log(1 - p).

    A step costs O(b n).

    Example:
        >>> step, exponents = uncoupled([0.3, 0.45])
        >>> [round(rate, 4) for rate in exponents]
        [0.6109, 0.6881]
    """
    p = torch.tensor(peaks, dtype=torch.float64, device="cpu")
    # a share p of the points is stretched by 1 / p, a share 1 - p by 1 / (1 - p)
    exponents = -(p * p.log() + (1 - p) * (1 - p).log())

    def step(x: Tensor, h: Tensor) -> Tensor:
        q = p.to(h)
        return torch.where(h < q, h / q, (1 - h) / (1 - q))

    return step, exponents.tolist()


def copy_network(delay: int, *, channels: int = 1, binary: bool = True) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `DelayedCopy(delay, binary)`, and, with two channels, `Recall(items, delay)`.

    Unit i holds the first channel of i steps ago.

    Returns a cell, R `(o, n)` and o `(o,)`. Cost O(n^2), n = delay + 1 and more.

    Example:
        >>> copy_network(4)[0].state_size
        5

    Source: Gradient Flossing, appendix E and H.1.
    """
    n = _checks.integer("delay", delay, 1) + 1
    cell = _line(n, delay + 1, channels)
    with torch.no_grad():
        # tasks give bits divided by the number of channels, so that their sum has one size
        cell.weight_ih[0, 0] = channels
    return cell, _readout(n, {delay: 1.0}), torch.tensor([-0.5 if binary else 0.0])


def xor_network(delay: int, *, binary: bool = True) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `TemporalXOR(delay, binary)`.

    Two units behind the line carry the difference of the two bits and its negative, whose rectified sum
    is |x_{t-d/2} - x_{t-d}|.

    Returns a cell, R `(1, n)` and o `(1,)`. Cost O(n^2).

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
    return cell, _readout(n, {delay + 2: 1.0, delay + 3: 1.0}), torch.tensor([-0.5 if binary else 0.0])


def spatial_xor_network(delay: int) -> tuple[RateCell, Tensor, Tensor]:
    """Solves `SpatialXOR(delay)`: the parity of a sum s of three bits is s - 2 (s - 1)_+ + 2 (s - 2)_+.

    Returns a cell, R `(1, n)` and o `(1,)`. Cost O(n^2).

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
    weight[0, list(weights)] = torch.tensor(list(weights.values()))
    return weight


@torch.no_grad()
def divergence_rate(
    cell: Network,
    inputs: Inputs,
    *,
    h0: Any = None,
    transient: int = 0,
    tangent_transient: int = 0,
    distance: float | None = None,
    dt: float | None = None,
) -> Float[Tensor, "*e b"]:
    """lambda_1 from the distance of two trajectories with the same inputs, set back at every step.

    With `h~ = h + distance * u`, |u| = 1, `lambda_1 = mean log(|step(h~) - step(h)| / distance)`, and the
    difference gives the next u. It reads nothing but the step, and is an oracle for `lyapunov_spectrum`; not
    for steps with a surrogate slope, whose tangent is not that of the step.

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`; t = transient + tangent_transient + counted.
        h0: initial state; zeros when missing.
        transient: first steps, of one trajectory.
        tangent_transient: next steps, of both, not counted.
        distance: between the trajectories, in units of 1 + |h|; the square root of eps when missing.
        dt: time per step; the cell's own when missing.

    Returns:
        `(*e, b)`, nats per step (per unit of time with `dt`), good to about `distance`; -inf where they meet.
        Cost 2 t steps.

    Raises:
        ValueError: for inputs that hold no counted step, and as `lyapunov_spectrum` does.
        FloatingPointError: if the state overflows.

    Example:
        >>> step = lambda x, h: 2 * h.remainder(0.5)
        >>> rate = divergence_rate(step, torch.zeros(20, 1, 1), h0=torch.full((1, 1), 0.3))
        >>> round(rate.item(), 3)
        0.693

    Source: Gradient Flossing, eq 22; Benettin, Galgani and Strelcyn (1976).
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    _checks.integer("transient", transient, 0, len(inputs) - 1)
    _checks.integer("tangent_transient", tangent_transient, 0, len(inputs) - transient - 1)
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    eps = torch.finfo(h.dtype).eps ** 0.5 if distance is None else _checks.positive("distance", distance)
    h, inputs = settle(cell, inputs[:transient], h), inputs[transient:]
    u = Stream(DEFAULT_SEED, "nearby").normal(tuple(h.shape), member_ids=0, dtype=h.dtype, device=h.device)
    # any start turns to the fastest direction; a random one is orthogonal to it with probability 0
    u = u / _length(u)
    total = torch.zeros_like(h[..., 0])
    for s, x in enumerate(inputs):
        # in units of 1 + |h|: a distance that h + apart * u can resolve, be h large or zero
        apart = eps * (1 + _length(h))
        after = cell.step(x, h)
        v = cell.step(x, h + apart * u) - after
        length = _length(v)
        if s >= tangent_transient:
            total += (length / apart).log().squeeze(-1)
        # where they met there is no new direction, and log 0 has made the total -inf for good
        u, h = torch.where(length > 0, v / torch.where(length > 0, length, 1.0), u), after
    if not torch.isfinite(h).all():
        raise FloatingPointError(f"the state is not finite after {len(inputs)} steps: {cell.advice}")
    return total / ((len(inputs) - tangent_transient) * dt)


def _length(u: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    return length
