"""How long a network remembers: time scales, the fading of a perturbation, and what can be read out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lyaptorch import _checks
from lyaptorch._caller import measures
from lyaptorch._random import Stream, seed_from
from lyaptorch._types import Inputs
from lyaptorch.cells import Cell, as_cell, fit, settle, unroll
from lyaptorch.cells.unroll import ADVICE


def time_scales(exponents: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """-1 / lambda: the steps (or, with exponents per unit of time, the time) in which a memory fades by e.

    A direction that does not contract never forgets: its time scale is inf.

    Example:
        >>> time_scales(torch.tensor([0.0, -0.01, -0.5]))
        tensor([ inf, 100.,   2.])
    """
    return torch.where(exponents < 0, -1 / exponents, torch.inf)


@measures
@torch.no_grad()
def fading_memory(
    cell: Cell | nn.Module, inputs: Inputs, *, h0: Tensor | None = None, transient: int = 0
) -> Float[Tensor, "t1 *e b"]:
    """|D_t ... D_1|_F / sqrt n after 0, 1, ..., t steps: what is left of a random unit perturbation.

    For one common exponent this is exp(lambda t).

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(transient + t, *e, b, m)`.
        h0: initial state `(*e, b, n)`; zeros when missing.
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
    n = h.shape[-1]
    Q = torch.eye(n, dtype=h.dtype, device=h.device).expand(*h.shape, n) / n**0.5
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


@measures
@torch.no_grad()
def memory_capacity(
    cell: Cell | nn.Module,
    lags: int,
    *,
    steps: int = 4000,
    transient: int = 200,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "lags *e"]:
    """The share of a random input's variance that a linear readout recovers after 0, 1, ..., lags - 1 steps.

    The input is independent and uniform on [-scale, scale], the same on all channels. Of each half of the
    steps a readout with offset is fitted and scored on the other half: `R^2`, averaged. A fit of p <= n + 1
    numbers to N steps errs more than the best readout, by a factor of at least 1 + p / N, which is divided
    out; what is left of that bias lowers the answer, and vanishes as (p / N)^2. Where nothing is remembered
    the answer scatters about 0, below as well as above, with a standard error of about 4 sqrt(p) / steps.
    Summed over all lags it is at most n, and of a linear network with a controllable input n, up to that
    error for each lag at which nothing is remembered: they scatter together.

    Args:
        cell: anything that `as_cell` takes and whose state size is known.
        lags: how many.
        steps: counted steps, at least 4 (n + 1).
        transient: steps before.
        scale: of the input.
        generator: seeds the input; None is a fixed seed.

    Returns:
        `R^2 (lags, *e)`. Cost O(steps n^2) per network.

    Raises:
        ValueError: for too few steps or lags below 1.
        FloatingPointError: if the dynamics overflow.

    Example:
        >>> import lyaptorch as lt
        >>> capacity = memory_capacity(lt.RateCell(1, 10, gain=0.5), lags=30)
        >>> bool(capacity[0] > capacity[-1]), bool(capacity.sum() < 10)
        (True, True)

    Source: Jaeger (2001), Short term memory in echo state networks.
    """
    cell = as_cell(cell)
    _checks.integer("lags", lags, 1)
    _checks.integer("transient", transient, 0)
    _checks.integer("steps", steps, 4 * (cell.state_size + 1), do="each half must fit n + 1 numbers")
    dtype = next((z.dtype for z in cell.tensors()), torch.get_default_dtype())
    length = lags - 1 + transient + steps
    shares = Stream(seed_from(generator), "capacity").uniform((length,), member_ids=0, dtype=dtype)
    u = scale * (2 * shares - 1)
    inputs, h = fit(cell, u[:, None, None].expand(-1, 1, cell.input_size), None)
    # so that all lags of the first counted step lie within the input, whatever the transient
    start = length - steps
    states = unroll(cell, inputs[start:], settle(cell, inputs[:start], h))[..., 0, :].movedim(0, -2)
    if not torch.isfinite(states).all():
        raise FloatingPointError(f"the state is not finite within {length} steps: {ADVICE}")
    X = torch.cat([states, torch.ones_like(states[..., :1])], -1).double()
    Y = torch.stack([u[start - lag : length - lag] for lag in range(lags)], -1).double()
    # each half is scored by the fit of the other: a fit scored on itself remembers noise, R^2 = p / N
    halves = [slice(0, steps // 2), slice(steps // 2, steps)]
    rtol = 10 * torch.finfo(dtype).eps
    scores = [_explained(X, Y, fit_on, score_on, rtol) for fit_on, score_on in (halves, halves[::-1])]
    return torch.stack(scores).mean(0).movedim(-1, 0).to(dtype)


def _explained(X: Tensor, Y: Tensor, fit_on: slice, score_on: slice, rtol: float) -> Tensor:
    """1 - residual over variance, of a least-squares fit elsewhere, without what that fit itself adds."""
    X_fit, Y_fit = X[..., fit_on, :], Y[fit_on].expand(*X.shape[:-2], -1, -1)
    # by its pseudo-inverse, w = X^+ y: units may be dead or equal, and X^T X would square their condition
    inverse = torch.linalg.pinv(X_fit, rtol=rtol)
    error = (X[..., score_on, :] @ (inverse @ Y_fit) - Y[score_on]).square().mean(-2)
    # y = X w + e with e of variance s^2 gives w + X^+ e, which errs on another sample x of the same kind by
    # s^2 + E |x^T X^+ e|^2 = s^2 (1 + tr(<x x^T> (X^T X)^-1)) = s^2 (1 + p / N) to first order. The rank p is
    # the trace of the projection X X^+ onto the columns, sum_ij (X^+)_ji X_ij
    own = 1 + (inverse.mT * X_fit).sum((-2, -1)) / X_fit.shape[-2]
    share: Tensor = 1 - error / own.unsqueeze(-1) / Y[score_on].var(0, correction=0)
    return share
