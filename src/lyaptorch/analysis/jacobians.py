"""The long-term Jacobian T_t = D_{t-1} .. D_0: its condition number, and what of it is usable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._brief import brief
from lyaptorch._caller import measures
from lyaptorch._random import Stream, seed_from
from lyaptorch._types import Exponents, Inputs
from lyaptorch.analysis.products import graded_log_singular_values, precise_log_singular_values
from lyaptorch.cells import Network, as_cell, fit, random_frame, settle
from lyaptorch.tangent.dynamics import bind
from lyaptorch.tangent.scan import Tape, spans, stack_growth, sweep
from lyaptorch.tangent.start import framed
from lyaptorch.theory import log_condition_number

GUARD_BITS = 64
"""Bits beyond those that the spread of the spectrum needs."""


@dataclass(frozen=True)
class ConditionNumber:
    """How singular the long-term Jacobian is, after each of several times.

    Attributes:
        times: `(s,)`, numbers of steps, that is, of factors.
        log_singular_values: `(s, *e, b, k)`, float64, descending, of T_t Q, Q orthonormal `(n, k)`.
            -inf for each direction that the product maps to nothing, as for each column of Q that died.
        exponents: `(*e, b, k)`, lambda_1 .. lambda_k of the same run, in the frame's order, nats per step.
        bits: of the arithmetic; 53 for float64.
        arithmetic: "float64", "python-flint" or "mpmath".

    Example:
        >>> import lyaptorch as lt
        >>> cell, x = lt.RateCell(1, 8), torch.zeros(50, 1, 1)
        >>> found = lt.analysis.condition_number(cell, x, k=2, every=25)
        >>> found.times.tolist(), found.log_singular_values.shape
        ([25, 50], torch.Size([2, 1, 2]))
    """

    times: Tensor
    log_singular_values: Float[Tensor, "s *e b k"]
    exponents: Exponents
    bits: int
    arithmetic: str

    __repr__ = brief

    @property
    def log_kappa(self) -> Float[Tensor, "s *e b"]:
        """The logarithm of kappa_k(t) = sigma_1 / sigma_k."""
        return self.log_singular_values[..., 0] - self.log_singular_values[..., -1]

    @property
    def predicted(self) -> Float[Tensor, "s *e b"]:
        """What the exponents say: log kappa_k(t) = (lambda_1 - lambda_k) t."""
        t = self.times.reshape(-1, *[1] * (self.exponents.dim() - 1))
        return log_condition_number(self.exponents, t)[..., -1]


@measures
def step_jacobians(cell: Network, inputs: Inputs, h0: Any = None) -> Float[Tensor, "t *e b n n"]:
    """D_s = dh_{s+1}/dh_s of every step. Cost O(t b n^3), memory O(t b n^2).

    Example:
        >>> import lyaptorch as lt
        >>> step_jacobians(lt.RateCell(1, 8), torch.zeros(5, 2, 1)).shape
        torch.Size([5, 2, 8, 8])
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    # D 1 = D: all n columns in one pushforward
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device).expand(*h.shape, h.shape[-1])
    jacobians = []
    for x in inputs:
        h, D = cell.pushforward(x, h, eye)
        jacobians.append(D)
    return torch.stack(jacobians)


@measures
@torch.no_grad()
def condition_number(
    cell: Network,
    inputs: Inputs,
    *,
    k: int | None = None,
    h0: Any = None,
    transient: int = 0,
    every: int | None = None,
    bits: int | str | None = None,
    generator: torch.Generator | None = None,
) -> ConditionNumber:
    """Condition number kappa_k(t) = sigma_1 / sigma_k of k orthonormal vectors carried along by T_t.

    It grows like `exp((lambda_1 - lambda_k) t)`, so the plain product loses its small singular values in
    float64 when that passes 1e16. There are two ways around it. The factors R_t .. R_1 of the scan have the
    same singular values: one sweep over the chain orders them, and an ordered product keeps them. Or the
    Jacobians themselves are multiplied with enough bits, `(lambda_1 - lambda_k) t / ln 2 + 64`.

    Args:
        cell: a cell, or anything that `as_cell` takes. Its dtype is that of the Jacobians; use float64.
        inputs: `(t, *e, b, m)`.
        k: how many vectors; all n when missing, and then these are the singular values of T_t itself.
        h0: initial state `(*e, b, n)`; zeros when missing.
        transient: first steps, of the state only.
        every: steps between two results; one at the end, and no other when missing.
        bits: None for float64 by the factors of the scan; "auto" for the plain product with as many bits as
            the spectrum asks for; a number for the plain product with that many, which saturates where
            kappa passes 2^bits. Products with bits use python-flint, or mpmath (slower) where it is missing.
        generator: seeds the frame.

    Returns:
        A `ConditionNumber`. Cost of float64: O(s t k^3); of bits: O(t n^2 k)
        products and s singular value decompositions, one network and trajectory after the other.

    Raises:
        ValueError: for arguments out of range, or bits="auto" where an exponent is -inf.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 6, gain=1.0).double()
        >>> found = condition_number(cell, torch.zeros(40, 1, 1, dtype=torch.float64), every=20)
        >>> found.log_kappa.shape, found.times.tolist(), found.arithmetic
        (torch.Size([2, 1]), [20, 40], 'float64')

    Source: Gradient Flossing, eq 10 and Fig 2; sweeps: Oliveira & Stewart (2000), Exponential splittings of
    products of matrices and accurately computing singular values of long products.
    """
    cell = as_cell(cell)
    inputs, h = fit(cell, inputs, h0)
    t = len(inputs) - _checks.integer("transient", transient, 0, len(inputs) - 1)
    n = h.shape[-1] - cell.travelling
    k = n if k is None else _checks.integer("k", k, 1, n, do=f"a state of size {n} has {n} exponents")
    every = t if every is None else _checks.integer("every", every, 1)
    if isinstance(bits, str):
        _checks.choice("bits", bits, ("auto",))
    elif bits is not None:
        _checks.integer("bits", bits, 2)
    h, inputs = settle(cell, inputs[:transient], h), inputs[transient:]
    shared_id = torch.zeros((), dtype=torch.int64, device=h.device)
    # T_t Q = Q_t R_t .. R_1 with Q_t orthonormal: the factors of the scan have the singular values of T_t Q
    frame = random_frame(n, k, Stream(seed_from(generator), "frame"), shared_id, dtype=h.dtype)
    frame = framed(frame, cell)
    tape = Tape()
    dynamics = bind(cell, cell.form(), inputs, [])
    end = sweep(dynamics, h, frame.expand(*h.shape, k), None, spans(0, t, 1), method="cholesky2", tape=tape)
    log_r, healthy = stack_growth(end.pivots, end.deaths)
    growth = log_r.double().cumsum(0)
    times = torch.tensor(sorted({*range(every, t + 1, every), t}), device=h.device)
    exponents = growth[-1] / t
    if bits is None:
        factors = torch.stack(tape.factors).double()
        values = torch.stack([graded_log_singular_values(factors[:s], healthy[:s]) for s in times.tolist()])
        return ConditionNumber(times, values, exponents, 53, "float64")
    if isinstance(bits, str):
        bits = _enough_bits(growth)
    values, arithmetic = precise_log_singular_values(step_jacobians(cell, inputs, h), frame, times, bits)
    return ConditionNumber(times, values, exponents, bits, arithmetic)


def usable_dimensions(exponents: Float[Tensor, "*e k"], steps: int | float, kappa: float) -> Tensor:
    """How many gradient directions survive `steps` steps: those i with exp((lambda_1 - lambda_i) t) <= kappa.

    Cost O(k).

    Args:
        exponents: in any order; -inf never counts.
        steps: t over which the error has to travel.
        kappa: the worst condition number that is acceptable, for example 1 / eps of the arithmetic.

    Returns:
        `(*e)`, 1..k, int64; 0 where every exponent is -inf.

    Raises:
        ValueError: for NaN, steps that are not above 0, or a kappa below 1.

    Example:
        >>> usable_dimensions(torch.tensor([0.0, -0.1, -0.5, -2.0]), steps=30, kappa=1e7)
        tensor(3)

    Source: Gradient Flossing, section 5 and Fig 2B.
    """
    _checks.positive("steps", steps)
    if not kappa >= 1:
        raise ValueError(f"kappa must be at least 1, got {kappa}; it is a ratio of singular values")
    ordered = _checks.known("exponents", exponents).detach().sort(-1, descending=True).values
    return (torch.isfinite(ordered) & (log_condition_number(ordered, steps) <= math.log(kappa))).sum(-1)


def _enough_bits(growth: Tensor) -> int:
    """For the widest spread of summed growth `(t, *e, b, k)` at any time."""
    spread = growth.amax(-1) - growth.amin(-1)
    if not torch.isfinite(spread).all():
        raise ValueError(
            "no number of bits is enough where an exponent is -inf, and a column died; lower k, or give bits"
        )
    # the smallest stands e^-spread = 2^(-spread / ln 2) below the largest
    return math.ceil(spread.max().item() / math.log(2)) + GUARD_BITS
