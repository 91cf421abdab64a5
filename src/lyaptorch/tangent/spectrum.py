"""`lyapunov_spectrum`: differentiable Lyapunov exponents of any recurrent step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lyaptorch import _checks
from lyaptorch._notebook import framed
from lyaptorch._types import Exponents, Inputs, LogR, State
from lyaptorch._units import Clock
from lyaptorch.cells import Form, Network
from lyaptorch.tangent import growth as growth_of
from lyaptorch.tangent.adjoint import Problem, Scan
from lyaptorch.tangent.automatic import AUTO, choose_interval
from lyaptorch.tangent.dynamics import CellDynamics, bind
from lyaptorch.tangent.fused import FUSED, fused
from lyaptorch.tangent.fused import scan as fused_scan
from lyaptorch.tangent.growth import Growth
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
    def clock(self) -> Clock:
        """How its steps and time go together, and what its units are called."""
        return Clock(self.dt)

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
        """Standard error of each exponent, by batch means; inf where nothing can be said."""
        return growth_of.stderr(self.growth, self.dt)

    @property
    def reliable(self) -> Tensor:
        """`(*e, b, k)` bool: which exponents round-off has left standing."""
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
        thin = torch.unique(torch.linspace(0, len(running) - 1, 200).long())
        elapsed = self.growth.steps.cumsum(0).cpu()[thin] * self.dt
        dims, nats = ("trajectory", "index"), {"units": self.clock.rate}
        errors = growth_of.stderr_of_mean(self.growth, self.dt).reshape(-1, k)
        # members are independent networks
        error = errors.square().mean(0).div(len(errors)).sqrt()
        rows = running[thin].reshape(len(thin), -1, k).movedim(0, 1)
        variables = {
            "exponents": (dims, self.exponents.reshape(-1, k), nats),
            "stderr": (dims, self.stderr().reshape(-1, k), nats),
            "error_of_mean": (("index",), error, nats),
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
    inputs: Inputs,
    *,
    k: int | None = None,
    h0: Any = None,
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
        inputs: `(t, *e, b, m)`; a missing `*e` broadcasts. t = transient + tangent_transient + counted.
        k: how many exponents, 1..n; all n when missing.
        h0: initial state `(*e, b, n)`, or its parts as `as_cell` says; zeros when missing (a function needs
            it: its size comes from there).
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
    cell, inputs, h, Q, transient = start(
        cell,
        inputs,
        k=k,
        h0=h0,
        transient=transient,
        uncounted={"tangent_transient": tangent_transient},
        frame=frame,
        generator=generator,
    )
    dt = cell.time_step if dt is None else _checks.positive("dt", dt)
    t = len(inputs)
    if isinstance(interval, str):
        interval = choose_interval(cell, inputs, h, Q, t - tangent_transient)
    over = spans(tangent_transient, t, interval)
    form = cell.form()
    leaves: list[Tensor] = []
    problem = Problem(cell, form, (), _segments(over, checkpoint), cut, qr_method)
    compiled = fused(problem, h, backend)
    # under no_grad a Function would still see leaves that require a gradient, and keep its tape
    if torch.is_grad_enabled():
        if form is not None and (compiled is not None or isinstance(form, Form)):
            leaves = form.trained()
        else:
            leaves = cell.leaves(inputs[0], h)
        problem = replace(problem, leaves=tuple(leaves))
    if backend == "autograd":
        end = sweep(CellDynamics(cell, inputs, []), h, Q, None, over, method=qr_method, factor=qr, cut=cut)
        log_r, healthy = stack_growth(end.pivots, end.deaths)
        h, Q = end.h, end.Q.detach()
    elif compiled is not None:
        log_r, healthy, h, Q = fused_scan(problem, compiled, inputs, h, Q)
    elif torch.is_grad_enabled() and any(z.requires_grad for z in (inputs, h, Q, *leaves)):
        log_r, healthy, h, Q = Scan.apply(problem, inputs, h, Q, *leaves)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            end = sweep(bind(cell, form, inputs, []), h, Q, None, over, method=qr_method)
        (log_r, healthy), h, Q = stack_growth(end.pivots, end.deaths), end.h, end.Q
    first = sum(not span.counted for span in over)
    steps = _lengths(over[first:], log_r.device)
    return Spectrum(Growth(log_r[first:], steps, healthy[first:]), h, Q, dt, transient, interval)


@lru_cache(maxsize=16)
def _lengths(over: tuple[Span, ...], device: torch.device) -> Tensor:
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
