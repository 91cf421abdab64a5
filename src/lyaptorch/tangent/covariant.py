"""`covariant_vectors`: the directions in which perturbations grow at each exponent, by Ginelli's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._brief import counted, leading, trajectories
from lyaptorch._caller import measures
from lyaptorch._padded import Padded
from lyaptorch._random import DEFAULT_SEED, Stream
from lyaptorch._shown import Shown
from lyaptorch._types import Exponents, Inputs
from lyaptorch._units import Clock
from lyaptorch.cells import Network
from lyaptorch.record import Record
from lyaptorch.tangent.automatic import AUTO, late_drift
from lyaptorch.tangent.dynamics import Dynamics, bind
from lyaptorch.tangent.error_bars import discretisation, moments
from lyaptorch.tangent.growth import Growth
from lyaptorch.tangent.scan import Tape, spans, stack_growth, sweep
from lyaptorch.tangent.start import start

SETTLED = 1e-6
"""Sine of the angle below which a vector no longer remembers where the backward recursion began."""


@dataclass(frozen=True)
class CovariantVectors(Shown):
    """Covariant Lyapunov vectors along a trajectory of t counted steps.

    Attributes:
        vectors: `(t+1, *e, b, n, k)`, unit columns; `vectors[s]` at the state before step s. Zero for a
            column that died.
        growth: log |D_s v_s| of every step: what perturbations along the vectors really gained. Its means
            are the exponents up to a bounded term over t.
        orthogonal_growth: log R_ii of the same steps, as `lyapunov_spectrum` has it.
        covariance_error: `(t, *e, b, k)`, 1 - |cos(D_s v_s, v_{s+1})|, from D_s itself; 0 where dead.
        backward_error: `(t+1, *e, b, k)`, the sine of the angle between vectors that were grown back from
            two different ends; it falls like exp(-(lambda_{i-1} - lambda_i) s) from the end.
        dt: time per step.
        discretisation: `(*e, b, k)`, what the length of a `Flow`'s steps may change in each exponent, as in
            `Spectrum`; None for maps.
    """

    vectors: Float[Tensor, "t1 *e b n k"]
    growth: Growth
    orthogonal_growth: Growth
    covariance_error: Float[Tensor, "t *e b k"]
    backward_error: Float[Tensor, "t1 *e b k"]
    dt: float = 1.0
    discretisation: Exponents | None = None

    def __repr__(self) -> str:
        _, *shape, n, k = self.vectors.shape
        steps, rate = len(self.covariance_error), Clock(self.dt).rate
        lines = [
            f"CovariantVectors: {k} of {n} numbers, {trajectories(tuple(shape))}, {counted(steps, 'step')}",
            *leading(self.exponents, self.orthogonal_growth.stderr(self.dt), rate),
            f"{self.converged.float().mean():.0%} converged; .vectors, .local(), .angles(), .plot()",
        ]
        return "\n  ".join(lines)

    @property
    def exponents(self) -> Exponents:
        """`(*e, b, k)`, those of `lyapunov_spectrum`, in nats per step (per unit of time with `dt`)."""
        return self.orthogonal_growth.exponents(self.dt)

    @property
    def converged(self) -> Bool[Tensor, "t1 *e b k"]:
        """Where the backward recursion has converged, to a sine of 1e-6, and the column is alive."""
        return (self.backward_error < SETTLED) & self.growth.healthy[-1]

    def local(self) -> Float[Tensor, "t *e b k"]:
        """The local exponents: the growth rate along each vector at each step."""
        return self.growth.local(self.dt)

    def finite_time(self, window: int) -> Float[Tensor, "s *e b k"]:
        """The mean growth rate along each vector in successive windows of `window` steps."""
        return self.growth.finite_time(window, self.dt)

    def angles(self) -> Float[Tensor, "t1 *e b k k"]:
        """The angles between the vectors, radians in 0..pi/2; pi/2 beside a dead column."""
        return (self.vectors.mT @ self.vectors).abs().clamp_max(1.0).arccos()

    def overlap(self, gradient: Tensor) -> Float[Tensor, "s *e b k"]:
        """|cos| of the angle between each vector and a loss gradient, 0 where either is zero.

        Args:
            gradient: dL/dh `(s, *e, b, n)` at the first s <= t+1 states; `gradient[0]` is dL/dh0.

        Raises:
            ValueError: for another shape, NaN or inf.
        """
        have, given = self.vectors.shape, tuple(gradient.shape)
        if len(given) != len(have) - 1 or given[1:] != have[1:-1] or not 1 <= given[0] <= have[0]:
            raise ValueError(
                f"gradient must have shape (s, *e, b, n) = {('s', *have[1:-1])} with s in 1..{have[0]}, got "
                f"{given}; for dL/dh0 alone pass gradient.unsqueeze(0)"
            )
        _checks.finite("gradient", gradient, do="see FloatingPointError of lyapunov_spectrum")
        length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        unit = gradient / torch.where(length > 0, length, 1.0)
        return (self.vectors[: given[0]].mT @ unit.unsqueeze(-1)).squeeze(-1).abs()

    def record(self) -> Record:
        """The same as a Record: exponents, and of every step the local ones, angles and both errors."""
        dims, nats = ("step", "trajectory", "index"), {"units": Clock(self.dt).rate}
        steps, k = len(self.covariance_error), self.vectors.shape[-1]
        angles = self.angles().reshape(steps + 1, -1, k, k)
        variables: dict[str, Any] = {
            "exponents": (dims[1:], self.exponents.reshape(-1, k), nats),
            "local": (dims, self.local().reshape(steps, -1, k), nats),
            "angles": (("state", *dims[1:], "other"), angles, {"units": "radians"}),
            "covariance_error": (dims, self.covariance_error.reshape(steps, -1, k)),
            "backward_error": (("state", *dims[1:]), self.backward_error.reshape(steps + 1, -1, k)),
        }
        return Record("covariant", {"dt": self.dt}, variables)


@measures
@torch.no_grad()
def covariant_vectors(
    cell: Network,
    inputs: Inputs,
    *,
    k: int | None = None,
    h0: Any = None,
    transient: int | str = 0,
    tangent_transient: int = 0,
    backward_transient: int = 0,
    frame: Tensor | None = None,
    generator: torch.Generator | None = None,
    dt: float | None = None,
) -> CovariantVectors:
    """The first k covariant Lyapunov vectors along a driven trajectory.

    Forwards `D_s Q_s = Q_{s+1} R_{s+1}`; backwards `C_s = R_{s+1}^{-1} C_{s+1}`, its columns normalised;
    `v_s = Q_s C_s`. Then `D_s v_s` is parallel to `v_{s+1}` for any C at the end. That they are also the
    Oseledets vectors takes a `tangent_transient` (for Q) and a `backward_transient` (for C), of some
    multiples of 1 / (lambda_i - lambda_{i+1}) steps; `.converged` tells where C no longer matters. Nothing
    here is differentiable.

    Args:
        cell: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`; t = transient + tangent_transient + counted + backward_transient.
        k: how many vectors, 1..n; all n when missing.
        h0: initial state `(*e, b, n)`; zeros when missing.
        transient: first steps, of the state only, or "auto", as in `lyapunov_spectrum`.
        tangent_transient: next steps, of state and frame.
        backward_transient: last steps, from which only C is taken.
        frame: orthonormal `(n, k)` or `(*e, b, n, k)`; random when missing.
        generator: seeds the random frame.
        dt: time per step; the cell's own when missing.

    Returns:
        `CovariantVectors`. Cost: that of two spectra at interval 1, O(t n^2 k) for a dense cell, and memory
        for 2 t n k numbers.

    Raises:
        ValueError: as `lyapunov_spectrum` does.
        FloatingPointError: if the dynamics overflow; names the step.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 16, gain=1.5).double()
        >>> x = torch.randn(120, 1, 1, dtype=torch.float64)
        >>> clv = lt.covariant_vectors(cell, x, k=3, tangent_transient=50, backward_transient=50)
        >>> clv.vectors.shape, bool(clv.covariance_error.max() < 1e-12)
        (torch.Size([21, 1, 16, 3]), True)

    Source: Ginelli et al. (2007), Characterizing dynamics with covariant Lyapunov vectors.
    """
    if isinstance(inputs, PackedSequence | Padded):
        raise ValueError(
            f"covariant_vectors takes all trajectories to one end, got a {type(inputs).__name__}, whose "
            "sequences end where they do; call it for each sequence"
        )
    chosen = transient == AUTO
    cell, inputs, h, Q, dropped, *_ = start(
        cell,
        Padded(inputs),
        k=k,
        h0=h0,
        transient=transient,
        uncounted={"tangent_transient": tangent_transient, "backward_transient": backward_transient},
        frame=frame,
        generator=generator,
    )
    tangent_transient, backward_transient = int(tangent_transient), int(backward_transient)
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    dynamics, last = bind(cell, cell.form(), inputs, []), len(inputs) - backward_transient
    before = sweep(dynamics, h, Q, None, spans(0, tangent_transient, 1)) if tangent_transient else None
    if before is not None:
        h, Q = before.h, before.Q
    tape, over = Tape(), spans(0, len(inputs), 1)[tangent_transient:]
    # orthonormal to round-off at every step, so that a column of C is as long as its vector
    seen = moments(cell, over, Q)
    end = sweep(dynamics, h, Q, before and before.dead, over, method="cholesky2", tape=tape, watch=seen)
    log_r, healthy = stack_growth(end.pivots, end.deaths)
    counted = last - tangent_transient
    steps = torch.ones(counted, dtype=torch.int64, device=h.device)
    vectors, gained, backward_error = _backwards(tape, end.Q, healthy[-1], counted)
    alive = healthy[-1].expand_as(gained)
    orthogonal = Growth(log_r[:counted], steps, healthy[:counted])
    if chosen:
        late_drift(orthogonal, dropped, dt)
    return CovariantVectors(
        vectors,
        Growth(torch.where(alive, gained, -torch.inf), steps, alive),
        orthogonal,
        _covariance_error(dynamics, tape.states, tangent_transient, vectors),
        backward_error,
        dt,
        discretisation(seen, inputs, orthogonal.exponents, dt)[0],
    )


def _backwards(tape: Tape, Q: Tensor, alive: Tensor, counted: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors at the first counted + 1 states, log |D_s v_s|, and the angle to vectors of another end."""
    C = torch.diag_embed(alive.to(Q.dtype))
    # a second end, of another upper triangle, shows where the first is forgotten
    noise = Stream(DEFAULT_SEED, "covariant").normal(
        C.shape[-2:], member_ids=0, dtype=Q.dtype, device=Q.device
    )
    other, _ = _unit(C + C @ torch.triu(noise, 1) @ C)
    tape.frames.append(Q)
    vectors = Q.new_empty(counted + 1, *Q.shape)
    gained = Q.new_empty(counted, *C.shape[:-1])
    error = Q.new_empty(counted + 1, *C.shape[:-1])
    for s in range(len(tape.factors), -1, -1):
        if s < len(tape.factors):
            R = tape.factors[s]
            # C_s = R^-1 C_{s+1} / length, so that D_s v_s = Q_{s+1} R C_s = v_{s+1} / length
            C, length = _unit(torch.linalg.solve_triangular(R, C, upper=True))
            other, _ = _unit(torch.linalg.solve_triangular(R, other, upper=True))
            if s < counted:
                gained[s] = -length.log()
        if s <= counted:
            vectors[s] = tape.frames[s] @ C
            along = (C * other).sum(-2, keepdim=True)
            error[s] = torch.linalg.vector_norm(other - along * C, dim=-2)
        tape.frames.pop()
    return vectors, gained, error


def _unit(C: Tensor) -> tuple[Tensor, Tensor]:
    """Unit columns (zero where dead), and their lengths (1 where dead)."""
    length = torch.linalg.vector_norm(C, dim=-2)
    length = torch.where(length > 0, length, 1.0)
    return C / length.unsqueeze(-2), length


def _covariance_error(dynamics: Dynamics, states: list[Tensor], first: int, vectors: Tensor) -> Tensor:
    errors = []
    for s in range(len(vectors) - 1):
        _, pushed = dynamics.pushforward(first + s, states[s], vectors[s])
        pushed, _ = _unit(pushed)
        cosine = (pushed * vectors[s + 1]).sum(-2).abs()
        dead = torch.linalg.vector_norm(vectors[s + 1], dim=-2) == 0
        errors.append(torch.where(dead, 0.0, (1 - cosine).clamp_min(0.0)))
    return torch.stack(errors)
