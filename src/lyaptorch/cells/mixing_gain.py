"""The gain at which candidate weights keep gradients: from gates at rest, or searched on inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from lyaptorch._random import Stream
from lyaptorch.cells.cell import Cell
from lyaptorch.cells.form import Form
from lyaptorch.cells.gates import GatedCell, GRUCell
from lyaptorch.cells.lstm import LSTMCell
from lyaptorch.cells.matrices import per_matrix, random_frame

RATIOS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Gains that are tried first, in units of that of the gates' mean."""
CUTS = 16
"""At most, of the interval between two of them, in which lambda_1 crosses its target."""
CLOSE = 2e-3
"""How near to its target lambda_1 ends the search, in units of the target."""
EXCESS = 1.05
"""Of the gain of gated networks over the one that keeps a direction's length at rest."""
DRAWS = 4
"""Matrices that are tried: of some the slowest direction saturates all units before the target is reached."""
VECTORS = 8
"""Tangent vectors that tell lambda_1 together: of an orthogonal matrix many exponents are nearly one."""
SLIGHT = 1e-4
"""A drive at which an activation shows its slope at rest, to either side."""


class Layer(NamedTuple):
    """One layer in one direction.

    Attributes:
        name: of its recurrent weights.
        cell: it, on the network's own parameters.
        trial: a copy whose gates let the candidate through.
        rows: of the weights, those of the candidate.
        biases: of the gates, as they are set.
        backwards: whether it reads inputs from the last to the first.
    """

    name: str
    cell: Cell
    trial: Cell
    rows: slice
    biases: dict[str, float]
    backwards: bool

    @property
    def weight(self) -> Tensor:
        """Its recurrent weights."""
        weight = self.cell._parameters["weight_hh"]
        assert weight is not None
        return weight

    def put(self, W: Tensor) -> None:
        """Write candidate weights and the gates' biases into the network."""
        self.weight[..., self.rows, :] = W
        for name in ("bias_ih", "bias_hh") if self.biases else ():
            getattr(self.cell, name).copy_(getattr(self.trial, name))


def resting_gain(layer: Layer) -> Tensor:
    """(1 - keep) / gate of the gates' mean at rest, `*e`; a little more where the candidate saturates."""
    cell, weight = layer.trial, layer.weight
    x = weight.new_zeros(*cell.ensemble, 1, cell.input_size)
    if isinstance(cell, GatedCell):
        values = cell.gate_values(x, cell.rest(x))
        if isinstance(cell, LSTMCell):
            keep, gate = values["forget"], values["input"] * values["output"]
        elif isinstance(cell, GRUCell):
            keep = values["update"]
            gate = (1 - keep) * values["reset"]
        else:
            f, r = values["forget"], values["refine"]
            keep = 2 * r * f + (1 - 2 * r) * f.square()
            gate = (1 - keep) * values["output"]
        # the candidate is a tanh: inputs saturate it, and take away more than this little too much adds
        return EXCESS * (1 - keep).mean((-2, -1)) / gate.mean((-2, -1))
    # h' = (1 - leak) h + leak W phi(h): what leaks out is what comes in, so (1 - keep) / gate is 1 / phi'
    form = cell.form()
    assert isinstance(form, Form)
    phi = next(iter(form.activations()), None)
    if phi is None:
        return weight.new_ones(cell.ensemble)
    # of every unit, because an activation may have parameters of each
    h = torch.tensor([[-SLIGHT], [SLIGHT]], dtype=weight.dtype, device=weight.device)
    slopes = phi.slope(h.expand(*cell.ensemble, 2, weight.shape[-1]))
    # half of rectified units are open: the root mean square is by what a random vector shrinks
    return 1 / slopes.square().mean((-2, -1)).sqrt()


def orthogonal(layer: Layer, stream: Stream, ids: Tensor, draw: int = 0) -> Tensor:
    """A random orthogonal matrix of each member, `(*e, n, n)`."""
    n = layer.weight.shape[-1]
    return random_frame(n, n, stream, ids, epoch=draw, dtype=layer.weight.dtype)


def trial(layer: Layer, W: Tensor) -> Cell:
    """A copy of a layer with these candidate weights."""
    cell = copy.deepcopy(layer.trial)
    weight = cell._parameters["weight_hh"]
    assert weight is not None
    weight[..., layer.rows, :] = W
    return cell


def searched(
    layer: Layer, stream: Stream, ids: Tensor, inputs: Tensor, gain: Tensor, target: float
) -> tuple[Tensor, Tensor]:
    """The smallest gain at which lambda_1 crosses the target, and the matrix with it, of each member."""

    def measured(gain: Tensor) -> Tensor:
        return leading_exponent(trial(layer, per_matrix(gain, Q) * Q), inputs, stream, ids)[0]

    tried = torch.stack([gain * ratio for ratio in RATIOS])
    done = torch.zeros_like(gain, dtype=torch.bool)
    chosen, W = gain, orthogonal(layer, stream, ids)
    for draw in range(DRAWS):
        Q = orthogonal(layer, stream, ids, draw)
        above = [measured(tried[0]) - target]
        for g in tried[1:]:
            above.append(measured(g) - target)
            excess = torch.stack(above)
            crossed = (excess[:-1] < 0) & (excess[1:] >= 0)
            if (crossed.any(0) | done).all():
                break
        # argmax of 0 / 1 gives the first 1
        at = crossed.int().argmax(0).unsqueeze(0)
        start, end = ((tried.gather(0, i)[0], excess.gather(0, i)[0]) for i in (at, at + 1))
        high, missed = crossing(lambda g: measured(g) - target, start, end, -CLOSE * target)
        # where units fall into saturation together lambda_1 leaps, and may pass the target by far
        fine = crossed.any(0) & (missed.abs() <= -target / 2) & ~done
        chosen = torch.where(fine, high, chosen)
        W = torch.where(fine[..., None, None], per_matrix(high, Q) * Q, W)
        done = done | fine
        if done.all():
            return chosen, W
    raise _out_of_reach(layer, tried, excess + target, done, target)


End: TypeAlias = tuple[Tensor, Tensor]
"""Gains, and what is measured there."""


def crossing(measured: Callable[[Tensor], Tensor], start: End, end: End, close: float) -> End:
    """Gains between two ends, of each member, at which something measured is between 0 and `close`, if it is.

    The cut is where a line between the ends is 0; the end that stays twice counts half (the Illinois
    algorithm), so that both move. Where an end is infinite it is in the middle.
    """
    (low, a), (high, above) = ((gain.log(), value) for gain, value in (start, end))
    b, last = above, torch.zeros_like(above)
    for _ in range(CUTS):
        # each member by itself: one that is there stays there, whatever the others need; nor can one be that
        # does not begin below
        going = (above > close) & (a < 0)
        if not going.any():
            break
        share = a / (a - b)
        middle = low + torch.where(a.isfinite() & b.isfinite(), share, 0.5) * (high - low)
        value = measured(middle.exp())
        up = value >= 0
        a = torch.where(up, torch.where(last > 0, a / 2, a), value)
        b = torch.where(up, value, torch.where(last < 0, b / 2, b))
        low, last = torch.where(up, low, middle), torch.where(up, 1.0, -1.0)
        high, above = (torch.where(going & up, new, old) for new, old in ((middle, high), (value, above)))
    return high.exp(), above


def leading_exponent(cell: Cell, inputs: Tensor, stream: Stream, ids: Tensor) -> tuple[Tensor, Tensor]:
    """lambda_1 `*e` by a few tangent vectors, but for the first quarter; and what is read `(t, *e, b, .)`."""
    h = cell.rest(inputs[0])
    V = stream.normal((h.shape[-1], VECTORS), member_ids=ids, epoch=DRAWS, dtype=h.dtype)
    V = V.unsqueeze(-3).expand(*h.shape, VECTORS)
    wait, read, total = len(inputs) // 4, [], torch.zeros_like(h[..., 0])
    for i, x in enumerate(inputs):
        h, V = cell.pushforward(x, h, V)
        read.append(h[..., cell.readable])
        r = torch.linalg.matrix_norm(V, keepdim=True)
        # vectors of length 0 stay 0, and their exponent -inf
        V = V / torch.where(r > 0, r, 1.0)
        if i >= wait:
            total = total + r[..., 0, 0].log()
    found = total.mean(-1) / (len(inputs) - wait)
    return torch.where(found.isnan(), torch.inf, found), torch.stack(read)


def _out_of_reach(layer: Layer, gains: Tensor, exponents: Tensor, fine: Tensor, target: float) -> ValueError:
    """What is said of the first member whose gain was not found."""
    first = int((~fine).reshape(-1).int().argmax())
    gains, exponents = (z.reshape(len(z), -1)[:, first] for z in (gains, exponents))
    member = f" of member {first}" if fine.dim() else ""
    best = int((exponents - target).abs().argmin())
    why = (
        "the gates alone keep gradients that long; lower their biases, or pass a longer horizon"
        if exponents[0] >= target
        else "its units saturate; scale the inputs down, pass a shorter horizon or another generator"
    )
    return ValueError(
        f"no gain of {layer.name}{member} in {gains[0]:.3g}..{gains[-1]:.3g} brings lambda_1 to -1 / horizon "
        f"= {target:.4g}, the nearest was {exponents[best]:.4g} at {gains[best]:.3g}: {why}"
    )
