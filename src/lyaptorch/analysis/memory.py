"""How long a network remembers: time scales, the fading of a perturbation, and what can be read out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._random import Stream, seed_from
from lyaptorch._types import Inputs
from lyaptorch.cells import Cell, Network, as_cell, fit, settle, unroll
from lyaptorch.cells.unroll import ADVICE
from lyaptorch.tangent.start import fit_padded, framed

CHANCE = 64
"""Steps ahead at which chance is measured: what is still to come no state can tell."""


def time_scales(exponents: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """-1 / lambda: the steps (or, with exponents per unit of time, the time) in which a memory fades by e.

    A direction that does not contract never forgets: its time scale is inf.

    Of any shape, whose units and order stay. Cost O(1) each.

    Raises:
        ValueError: for NaN.

    Example:
        >>> time_scales(torch.tensor([0.0, -0.01, -0.5]))
        tensor([ inf, 100.,   2.])
    """
    return torch.where(_checks.known("exponents", exponents) < 0, -1 / exponents, torch.inf)


@measures
@torch.no_grad()
def fading_memory(
    cell: Network, inputs: Inputs, *, h0: Any = None, transient: int = 0
) -> Float[Tensor, "t1 *e b"]:
    """|D_t ... D_1|_F / sqrt n after 0, 1, ..., t steps: what is left of a random unit perturbation.

    For one common exponent this is exp(lambda t).

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(transient + t, *e, b, m)`.
        h0: initial state, `(*e, b, n)` or in the network's own structure; zeros when missing.
        transient: first steps, before the perturbation.

    Returns:
        The root mean square over directions. Cost O(t b n^3) per network.

    Raises:
        ValueError: for inputs that do not fit the cell, or none behind the transient.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.ResidualCell(1, 10, residual=lt.residuals.decay(0.9), coupling=0.0)
        >>> fading_memory(cell, torch.zeros(3, 1, 1))[:, 0]
        tensor([1.0000, 0.9000, 0.8100, 0.7290])

    Source: Fading memory as inductive bias in residual recurrent networks, section 2.1.
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    if not 0 <= transient < len(inputs):
        raise ValueError(f"transient must be in 0..{len(inputs) - 1}, got {transient}; pass more inputs")
    h = settle(cell, inputs[:transient], h)
    n = h.shape[-1] - cell.travelling
    Q = framed(torch.eye(n, dtype=h.dtype, device=h.device), cell).expand(*h.shape, n) / n**0.5
    log_size = torch.zeros_like(h[..., 0])
    curve = [log_size]
    for x in inputs[transient:]:
        h, Q = cell.pushforward(x, h, Q)
        size = torch.linalg.matrix_norm(Q)
        # log |D_t .. D_1 Q| is the sum of the logarithms of what is divided out, so that products of long
        # sequences neither under- nor overflow
        Q = Q / torch.where(size > 0, size, 1.0)[..., None, None]
        log_size = log_size + size.log()
        curve.append(log_size)
    return torch.stack(curve).exp()


@dataclass(frozen=True)
class Recalled:
    """What a linear readout recovers of a probe, and what the same estimator finds where nothing can be.

    Attributes:
        share: `(lags, *e)`, R^2 after 0, 1, ... steps.
        chance: `(CHANCE, *e)`, the same of probes that are still to come: pure scatter.
        steps: N, counted states.
    """

    share: Tensor
    chance: Tensor
    steps: int

    def error(self) -> Tensor:
        """Standard error `(*e,)` of a share where little is remembered."""
        return self.chance.square().mean(0).sqrt()


@measures
@torch.no_grad()
def memory_capacity(
    cell: Network,
    lags: int,
    *,
    inputs: Inputs | PackedSequence | Padded | None = None,
    lengths: Lengths = None,
    h0: Any = None,
    steps: int = 4000,
    transient: int | None = None,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "lags *e"]:
    """The share of a random input's variance that a linear readout recovers after 0, 1, ..., lags - 1 steps.

    The input is a probe, independent and uniform, the same on all channels, and nothing else drives the
    network; or it is added to given `inputs`. These are then taken twice, once with the probe added and once
    with it taken away, and the readout sees the difference of the two states, in which the inputs' own part
    cancels: what is told is how a fixed readout follows perturbations of the very trajectories that are
    given, whatever their correlations. Every sequence is run as often as `steps` needs, with other probes
    each time; one that is shorter than twice the lags is taken several times in a row.

    Of each half of the steps a readout with offset is fitted and scored on the other half: `R^2`, averaged.
    A fit of p <= n + 1 numbers to N steps errs more than the best readout, by a factor of at least 1 + p / N,
    which is divided out; what is left of that bias vanishes as (p / N)^2, and of states that fade slowly as
    p / N. Where nothing is remembered the answer scatters about 0, below as well as above, with a standard
    error of about 4 sqrt(p) / steps. Summed over all lags it is at most n, and of a linear
    network with a controllable input n, up to that error for each lag at which nothing is remembered. Of the
    best readout after l steps, 1 / R^2 is the number of steps over which it smears what it recovers.

    Args:
        cell: anything that `as_cell` takes and, without inputs, whose state size is known.
        lags: how many.
        inputs: `(t, *e, b, m)` to which the probe is added, or a PackedSequence; none when missing.
        lengths: steps of each trajectory of the inputs, `(b,)`, where they differ.
        h0: state before the inputs, `(*e, b, n)` or in the network's own structure; zeros when missing.
        steps: counted states, over all trajectories, at least 4 (n + 1); some more may be taken.
        transient: steps that are not counted, besides the first lags - 1; missing, 200 without inputs,
            and 0 with them.
        scale: size of the probe. Without inputs it is uniform on [-scale, scale]; with them its standard
            deviation on a channel is `scale` times that of the channel, over steps and trajectories, so that
            a channel that never varies (a bias) has no probe. If none varies, as without inputs.
        generator: seeds the probe; None is a fixed seed.

    Returns:
        `R^2 (lags, *e)`. Cost O(steps n (n + lags)) per network, twice the states with inputs.

    Raises:
        ValueError: for too few steps or lags below 1, or inputs, lengths or h0 that do not fit.
        FloatingPointError: if the dynamics overflow.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 10, gain=0.5)
        >>> capacity = memory_capacity(cell, lags=30)
        >>> bool(capacity[0] > capacity[-1]), bool(capacity.sum() < 10)
        (True, True)
        >>> bits = (torch.arange(80) % 3 == 0).float().reshape(80, 1, 1)
        >>> memory_capacity(cell, lags=30, inputs=bits).shape
        torch.Size([30])

    Source: Jaeger (2001), Short term memory in echo state networks.
    """
    _checks.integer("lags", lags, 1)
    _checks.positive("scale", scale)
    seed, cell = seed_from(generator), as_cell(cell)
    if inputs is None:
        transient = _checks.integer("transient", 200 if transient is None else transient, 0)
        _checks.integer("steps", steps, 1)
        like = next(iter(cell.tensors()), torch.empty(0, device="cpu"))
        length = lags - 1 + transient + steps
        quiet = torch.zeros(length, 1, cell.input_size, dtype=like.dtype, device=like.device)
        x, h = fit(cell, quiet, h0)
        return recall(cell, lags, x, h, None, steps, transient, scale, seed, driven=False).share
    x, h, ends = fit_padded(cell, padded(cell.embedded(inputs), lengths), h0)
    transient = _checks.integer("transient", transient or 0, 0)
    return recall(cell, lags, x, h, ends, steps, transient, scale, seed).share


def recall(
    cell: Cell,
    lags: int,
    inputs: Tensor,
    h: Tensor,
    ends: Tensor | None,
    steps: int,
    transient: int,
    scale: float,
    seed: int,
    *,
    driven: bool = True,
) -> Recalled:
    """What `memory_capacity` measures, and its scatter, of inputs and a state that fit the cell.

    Args:
        cell: who runs.
        lags: how many.
        inputs: `(t, *e, b, m)`.
        h: `(*e, b, n)`.
        ends: steps `(b,)` of each trajectory, all t when missing.
        steps: counted states.
        transient: uncounted ones, besides the first lags - 1.
        scale: of the probe.
        seed: of the probe.
        driven: whether the inputs' own part is to be cancelled.
    """
    n = h.shape[-1] - cell.travelling
    _checks.integer("steps", steps, 4 * (n + 1), do="each half must fit n + 1 numbers")
    wait = lags - 1 + transient
    size = _probe_size(inputs, ends, scale)
    x, ends = _in_a_row(inputs, ends, wait)
    # a trajectory counts from step `wait` on, where all lags of the probe lie within its run
    counts = torch.arange(len(x), device=x.device).unsqueeze(-1)
    there = (counts >= wait) & (counts < ends)
    copies = -(-steps // int(there.sum()))
    x, there = x.repeat(*[1] * (x.dim() - 2), copies, 1), there.repeat(1, copies)
    h = h.repeat(*[1] * (h.dim() - 2), copies, 1)
    shape = (len(x) + CHANCE, x.shape[-2])
    shares = Stream(seed, "capacity").uniform(shape, member_ids=0, dtype=x.dtype).to(x.device)
    u = 2 * shares - 1
    probe = (u[: len(x)].unsqueeze(-1) * size).reshape(len(x), *[1] * (x.dim() - 3), -1, x.shape[-1])
    # an even answer to the probe cancels with the inputs' own part; both runs are driven equally hard
    states = unroll(cell, x + probe, h) - (unroll(cell, x - probe, h) if driven else 0)
    if not torch.isfinite(states).all():
        raise FloatingPointError(f"the state is not finite within {len(x)} steps: {ADVICE}")
    # rows are trajectory by trajectory, so that the halves are different ones where there are several
    rows = there[wait:].mT
    X = states[wait:, ..., :n].movedim(0, -2)[..., rows, :]
    X = torch.cat([X, torch.ones_like(X[..., :1])], -1).double()
    span = range(-CHANCE, lags)
    Y = torch.stack([u[wait - lag : len(x) - lag].mT[rows] for lag in span], -1).double()
    # each half is scored by the fit of the other: a fit scored on itself remembers noise, R^2 = p / N
    half = len(Y) // 2
    halves = [slice(0, half), slice(half, None)]
    rtol = 10 * torch.finfo(x.dtype).eps
    scores = [_explained(X, Y, fit_on, score_on, rtol) for fit_on, score_on in (halves, halves[::-1])]
    share = torch.stack(scores).mean(0).movedim(-1, 0).to(x.dtype)
    return Recalled(share[CHANCE:], share[:CHANCE].flip(0), len(Y))


def _probe_size(inputs: Tensor, ends: Tensor | None, scale: float) -> Tensor:
    """Half the width of the probe on each channel, `(m,)`."""
    within = inputs.reshape(len(inputs), -1, *inputs.shape[-2:])
    if ends is None:
        seen = within.flatten(0, -2)
    else:
        steps = torch.arange(len(inputs), device=inputs.device).unsqueeze(-1)
        seen = within.movedim(1, 2)[steps < ends].flatten(0, -2)
    spread = seen.std(0, correction=0)
    # of a uniform number on [-a, a] the standard deviation is a / sqrt 3
    varies = (seen != seen[:1]).any(0)
    return scale * torch.where(varies, 3**0.5 * spread, 0.0 if varies.any() else 1.0)


def _in_a_row(inputs: Tensor, ends: Tensor | None, wait: int) -> tuple[Tensor, Tensor]:
    """Each trajectory so often in a row that at least half of its steps lie behind the wait, and its ends."""
    if ends is None:
        ends = torch.full(inputs.shape[-2:-1], len(inputs), dtype=torch.int64, device=inputs.device)
    runs = ends * (-(-2 * wait // ends)).clamp_min(1)
    at = torch.arange(int(runs.max()), device=inputs.device).unsqueeze(-1) % ends
    at = at.reshape(len(at), *[1] * (inputs.dim() - 3), -1, 1)
    return inputs.gather(0, at.expand(-1, *inputs.shape[1:])), runs


def _explained(X: Tensor, Y: Tensor, fit_on: slice, score_on: slice, rtol: float) -> Tensor:
    """1 - residual over variance, of a least-squares fit elsewhere, without what that fit itself adds."""
    X_fit = X[..., fit_on, :]
    # by its pseudo-inverse, w = X^+ y: units may be dead or equal, and X^T X would square their condition
    inverse = torch.linalg.pinv(X_fit, rtol=rtol)
    error = (X[..., score_on, :] @ (inverse @ Y[fit_on]) - Y[score_on]).square().mean(-2)
    # y = X w + e with e of variance s^2 gives w + X^+ e, which errs on another sample x of the same kind by
    # s^2 + E |x^T X^+ e|^2 = s^2 (1 + tr(<x x^T> (X^T X)^-1)) = s^2 (1 + p / N) to first order. The rank p is
    # the trace of the projection X X^+ onto the columns, sum_ij (X^+)_ji X_ij
    own = 1 + (inverse.mT * X_fit).sum((-2, -1)) / X_fit.shape[-2]
    share: Tensor = 1 - error / own.unsqueeze(-1) / Y[score_on].var(0, correction=0)
    return share
