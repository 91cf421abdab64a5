"""`lyapunov_spectrum`: differentiable Lyapunov exponents of any recurrent step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._notebook import framed
from lyaptorch._padded import Lengths, Padded
from lyaptorch._types import Exponents, Inputs, LogR, State
from lyaptorch.cells import Form, Network
from lyaptorch.tangent import growth as growth_of
from lyaptorch.tangent.adjoint import Problem, Scan
from lyaptorch.tangent.automatic import AUTO, choose_interval
from lyaptorch.tangent.dynamics import CellDynamics, Dynamics, bind
from lyaptorch.tangent.ended import Ended, Ends
from lyaptorch.tangent.fused import FUSED, fused
from lyaptorch.tangent.fused import scan as fused_scan
from lyaptorch.tangent.growth import Growth, ended
from lyaptorch.tangent.precision import full_precision
from lyaptorch.tangent.qr import METHODS, qr
from lyaptorch.tangent.scan import Span, spans, stack_growth, sweep
from lyaptorch.tangent.start import start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKENDS = ("torch", *FUSED, "autograd")


@dataclass(frozen=True)
class Spectrum:
    """The Lyapunov spectrum of one scan, and what follows from its growth.

    Attributes:
        growth: log R_ii per interval.
        final_state: `(*e, b, n)`, the state after the last step; differentiable.
        final_frame: `(*e, b, n, k)`, the orthonormal frame there.
        dt: time per step.
        transient: steps of the state alone, as given or chosen.
        interval: steps between reorthonormalisations, as given or chosen.
    """

    growth: Growth
    final_state: State
    final_frame: Tensor
    dt: float = 1.0
    transient: int = 0
    interval: int = 1

    @property
    def exponents(self) -> Exponents:
        """`(*e, b, k)`, in nats per step (per unit of time when `dt` was given), unsorted, differentiable."""
        return growth_of.exponents(self.growth, self.dt)

    def running(self) -> LogR:
        """The estimate after each interval, `(s, *e, b, k)`."""
        return growth_of.running(self.growth, self.dt)

    def local(self) -> LogR:
        """The growth rate in each interval, `(s, *e, b, k)`."""
        return growth_of.local(self.growth, self.dt)

    def finite_time(self, window: int) -> LogR:
        """The exponents of successive windows of `window` intervals, `(s // window, *e, b, k)`."""
        return growth_of.finite_time(self.growth, window, self.dt)

    def stderr(self) -> Exponents:
        """Standard error of each exponent; inf where it is dead, or too little was measured to judge."""
        return growth_of.stderr(self.growth, self.dt)

    @property
    def too_short(self) -> Tensor:
        """`(*e, b)` bool: which trajectories ended within the transients, so that they have no exponents."""
        return growth_of.too_short(self.growth)

    @property
    def reliable(self) -> Tensor:
        """`(*e, b, k)` bool: which exponents round-off has left standing; `stderr` tells how far they go."""
        return growth_of.reliable(self.growth)

    def kaplan_yorke(self) -> Tensor:
        """Kaplan-Yorke dimension `(*e, b)`; k where the sum never turns negative, a lower bound."""
        return growth_of.kaplan_yorke(self.growth)

    def entropy(self) -> Tensor:
        """Sum of positive exponents `(*e, b)`, nats per step (per unit of time with `dt`)."""
        return growth_of.entropy(self.growth, self.dt)

    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and coordinates for a Record; running estimates thinned to a few hundred moments."""
        k, running = self.exponents.shape[-1], self.running()
        # of the mean over members, too, which are independent
        error = growth_of.stderr_of_mean(self.growth, self.dt).reshape(-1, k)
        thin = torch.unique(torch.linspace(0, len(running) - 1, 200).long())
        elapsed = growth_of.clock(self.growth).cpu()[thin] * self.dt
        dims, nats = ("trajectory", "index"), {"units": "nats per unit of time"}
        rows = running[thin].reshape(len(thin), -1, k).movedim(0, 1)
        variables = {
            "exponents": (dims, self.exponents.reshape(-1, k), nats),
            "stderr": (dims, self.stderr().reshape(-1, k), nats),
            "error_of_mean": (("index",), error.square().sum(0).sqrt() / len(error), nats),
            "reliable": (dims, self.reliable.reshape(-1, k)),
            "running": (("trajectory", "elapsed", "index"), rows, nats),
        }
        return variables, {"elapsed": (("elapsed",), elapsed.double())}

    def page(self) -> str:
        """One self-contained page of HTML."""
        from lyaptorch.plots import spectrum_page

        return spectrum_page(self)

    def _repr_html_(self) -> str:
        return framed(self.page(), "Lyapunov spectrum")

    def plot(self) -> Figure:
        """The spectrum with error bars, and how the estimates converged."""
        from lyaptorch.plots import plot_spectrum

        return plot_spectrum(self)


@full_precision
def lyapunov_spectrum(
    cell: Network,
    inputs: Inputs | PackedSequence | Padded,
    *,
    k: int | None = None,
    h0: Any = None,
    lengths: Lengths = None,
    transient: int | str = 0,
    tangent_transient: int = 0,
    interval: int | str = 1,
    frame: Tensor | None = None,
    generator: torch.Generator | None = None,
    dt: float | None = None,
    state_grad: str | int = "full",
    backend: str | None = None,
    checkpoint: int | None = None,
    qr_method: str = "auto",
) -> Spectrum:
    """The first k Lyapunov exponents along a driven trajectory, differentiable.

    With `Qtilde = D_s Q_s = Q_{s+1} R_{s+1}` (QR, positive diagonal) at every `interval` steps and at
    the end, `lambda_i = sum_s log (R_s)_ii / steps`. They depend on `interval` only by round-off. The
    gradient runs through the Jacobians and, by `state_grad`, through the trajectory.

    Args:
        cell: anything that `as_cell` takes: a cell, a recurrent network of torch, a module or function
            `step(x, h)`, or a list of modules.
        inputs: `(t, *e, b, m)`; a missing `*e` broadcasts. t = transient + tangent_transient + counted. Or a
            PackedSequence, whose order is restored.
        k: how many exponents, 1..n; all n when missing.
        h0: initial state `(*e, b, n)`, or its parts as `as_cell` says; zeros when missing (a function needs
            it: its size comes from there).
        lengths: steps of each trajectory, integers `(b,)` or `(*e, b)`, where they differ: a trajectory ends
            where its sequence ends, its exponents are over its own counted steps, and final state and frame
            are those at its end. What stands in the padding, be it NaN, does not matter.
        transient: first steps, of the state only; without gradient. "auto" drops the steps whose growth is
            unlike the rest, at most half.
        tangent_transient: next steps, of state and frame, not counted, with gradient.
        interval: steps between reorthonormalisations. "auto" takes the longest for which a rough spectrum and
            the condition of the products allow it; `Spectrum` tells which.
        frame: orthonormal `(n, k)` or `(*e, b, n, k)`; random when missing, the same for all members.
        generator: seeds the random frame.
        dt: time per step; exponents come in nats per unit of time. The cell's own when missing: that of a
            `Flow`, 1 for all others.
        state_grad: "full", "detach" (the trajectory is a constant), or L: the state is detached every L
            steps after the transient, so that 1 is "detach".
        backend: "cpu" or "triton" (compiled, for cells with a form, on the CPU or a GPU; taken by themselves
            where they serve, see `lt.kernels.available()`), "torch" (one hand-written adjoint for the whole
            sequence, any cell and device), or "autograd" (plain autograd through every QR: slower, second
            derivatives).
        checkpoint: keep only the state and the frame at about every `checkpoint` steps and compute the rest
            again in the backward pass.
        qr_method: "auto", "cholesky2" or "householder".

    Returns:
        A `Spectrum`. Cost O(t n^2 k + (t / interval) n k^2) time per trajectory of a dense cell; memory,
        when a gradient is needed, t states and t / interval frames and triangles.

    Raises:
        ValueError: for arguments out of range, wrong shapes, dtypes or devices, NaN or inf, a frame that
            is not orthonormal, a step that mixes the batch, is random, or takes (state, input), or a
            backend that cannot serve the cell.
        FloatingPointError: if the dynamics overflow; names the step.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 32, gain=1.0)
        >>> spec = lt.lyapunov_spectrum(cell, torch.zeros(200, 1, 1), k=4, transient=100)
        >>> spec.exponents.shape
        torch.Size([1, 4])

    Source: Gradient Flossing, sections 2-3 and appendix J; Benettin et al. (1980).
    """
    if interval != AUTO:
        _checks.integer("interval", interval, 1, do='or pass "auto"')
    cut = _checks.state_grad(state_grad)
    _checks.choice("backend", "torch" if backend is None else backend, BACKENDS)
    _checks.choice("qr_method", qr_method, METHODS)
    if checkpoint is not None:
        _checks.integer("checkpoint", checkpoint, 1)
    cell, inputs, h, Q, transient, after = start(
        cell,
        inputs,
        k=k,
        h0=h0,
        transient=transient,
        uncounted={"tangent_transient": tangent_transient},
        frame=frame,
        generator=generator,
        lengths=lengths,
    )
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    t = len(inputs)
    if isinstance(interval, str):
        if after is not None:
            raise ValueError(
                'interval="auto" looks at all trajectories at once, and lengths were given; pass a number'
            )
        interval = choose_interval(cell, inputs, h, Q, t - tangent_transient)
    over = spans(tangent_transient, t, interval)
    ends = None if after is None else Ends(after, h.detach(), cut)
    if ends is not None:
        # a single pass of Cholesky leaves an error for the next factor to cancel: here none may follow
        cut, qr_method = None, "cholesky2" if qr_method == "auto" else qr_method
    problem = Problem(cell, cell.form(), (), _segments(over, checkpoint), cut, qr_method, ends)
    log_r, healthy, h, Q = _scan(problem, backend, inputs, h, Q)
    first = sum(not span.counted for span in over)
    growth = Growth(log_r[first:], _steps(over[first:], log_r.device), healthy[first:])
    if after is not None:
        growth = ended(growth, after - tangent_transient)
    return Spectrum(growth, h, Q, dt, transient, interval)


def _scan(
    problem: Problem, backend: str | None, inputs: Tensor, h: Tensor, Q: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(log_r of every span, healthy, final state, final frame) by the backend asked for, or the fastest."""
    cell, form, ends = problem.cell, problem.form, problem.ends
    compiled, leaves = fused(problem, h, backend), list[Tensor]()
    # under no_grad a Function would still see leaves that require a gradient, and keep its tape
    if torch.is_grad_enabled():
        if form is not None and (compiled is not None or isinstance(form, Form)):
            leaves = form.trained()
        else:
            leaves = cell.leaves(inputs[0], h)
        problem = replace(problem, leaves=tuple(leaves))
    over = tuple(span for segment in problem.segments for span in segment)
    found: tuple[Tensor, Tensor, Tensor, Tensor]
    if backend == "autograd":
        plain: Dynamics = CellDynamics(cell, inputs, [])
        plain = plain if ends is None else Ended(plain, ends)
        end = sweep(plain, h, Q, None, over, method=problem.method, factor=qr, cut=problem.cut)
        found = (*stack_growth(end.pivots, end.deaths), end.h, end.Q.detach())
    elif compiled is not None:
        found = fused_scan(problem, compiled, inputs, h, Q)  # type: ignore[assignment]
    elif torch.is_grad_enabled() and any(z.requires_grad for z in (inputs, h, Q, *leaves)):
        found = Scan.apply(problem, inputs, h, Q, *leaves)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            end = sweep(bind(cell, form, inputs, [], ends), h, Q, None, over, method=problem.method)
        found = (*stack_growth(end.pivots, end.deaths), end.h, end.Q)
    return found


@lru_cache(maxsize=16)
def _steps(over: tuple[Span, ...], device: torch.device) -> Tensor:
    """Steps of each span, on the device once and for all: a captured graph copies nothing from the host."""
    return torch.tensor([s.stop - s.start for s in over], device=device)


def _segments(over: tuple[Span, ...], checkpoint: int | None) -> tuple[tuple[Span, ...], ...]:
    """Consecutive spans of about `checkpoint` steps each."""
    if checkpoint is None:
        return (over,)
    groups: dict[int, list[Span]] = {}
    for span in over:
        groups.setdefault(span.start // checkpoint, []).append(span)
    return tuple(tuple(group) for group in groups.values())
