"""`lyapunov_spectrum`: differentiable Lyapunov exponents of any recurrent step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._brief import counted, leading, trajectories
from lyaptorch._caller import measures
from lyaptorch._formats import save_as
from lyaptorch._notebook import framed
from lyaptorch._padded import Lengths, Padded
from lyaptorch._types import Exponents, Inputs, LogR, State
from lyaptorch.cells import Network
from lyaptorch.record import Record
from lyaptorch.tangent import growth as growth_of
from lyaptorch.tangent.adjoint import Problem
from lyaptorch.tangent.automatic import AUTO, choose_interval, late_drift
from lyaptorch.tangent.deaths import died_at, tell_of_deaths
from lyaptorch.tangent.discretisation import discretisation, moments
from lyaptorch.tangent.ended import Ends
from lyaptorch.tangent.engine import BACKENDS, run_scan, segments
from lyaptorch.tangent.growth import Growth, ended
from lyaptorch.tangent.qr import METHODS
from lyaptorch.tangent.rates import rates
from lyaptorch.tangent.scan import Span, spans
from lyaptorch.tangent.start import start

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        died_at: `(*e, b, k)`, after how many inputs each column was found dead, -inf from then on because the
            Jacobian was singular there; 0 where it lives; None where all live.
        discretisation: `(*e, b, k)`, what the length of a `Flow`'s steps may change in each exponent, from
            the same steps taken in pieces at some moments; inf where they are too long to tell. None for
            maps: whether a step of your own stands for a flow, such as an Euler step, cannot be known.
        resolved: `(*e, b, k)` bool, where that is small beside the exponent, or beside the speed at which
            tangent vectors move; None for maps.
        drift: `(*e, b, k)`, with `transient="auto"` the part of each exponent that a drift of the growth
            explains, which only the whole run shows; None where there is none.
    """

    growth: Growth
    final_state: State
    final_frame: Tensor
    dt: float = 1.0
    transient: int = 0
    interval: int = 1
    died_at: Tensor | None = None
    discretisation: Exponents | None = None
    resolved: Tensor | None = None
    drift: Exponents | None = None

    @property
    def exponents(self) -> Exponents:
        """`(*e, b, k)`, in nats per step (per unit of time when `dt` was given), unsorted, differentiable.

        `.numpy()` and matplotlib take it as it is, as all rates here; of what is computed from it, and still
        carries a gradient, `.detach()` first.
        """
        return rates(growth_of.exponents(self.growth, self.dt))

    def running(self) -> LogR:
        """The estimate after each interval, `(s, *e, b, k)`."""
        return rates(growth_of.running(self.growth, self.dt))

    def local(self) -> LogR:
        """The growth rate in each interval, `(s, *e, b, k)`."""
        return rates(growth_of.local(self.growth, self.dt))

    def finite_time(self, window: int) -> LogR:
        """The exponents of successive windows of `window` intervals, `(s // window, *e, b, k)`."""
        return rates(growth_of.finite_time(self.growth, window, self.dt))

    def stderr(self) -> Exponents:
        """Standard error of each exponent; inf where it is dead, or too little was measured to judge.

        It has the `discretisation` of a flow and a `drift` in it.
        """
        error = growth_of.stderr(self.growth, self.dt)
        for other in (self.discretisation, self.drift):
            error = error if other is None else torch.hypot(error, other)
        return error

    @property
    def too_short(self) -> Tensor:
        """`(*e, b)` bool: which trajectories ended within the transients, so that they have no exponents."""
        return growth_of.too_short(self.growth)

    @property
    def reliable(self) -> Tensor:
        """`(*e, b, k)` bool: which exponents round-off, and the length of a flow's steps, left standing.

        `stderr` tells how far they can be trusted.
        """
        standing = growth_of.reliable(self.growth)
        return standing if self.resolved is None else standing & self.resolved

    def kaplan_yorke(self) -> Tensor:
        """Kaplan-Yorke dimension `(*e, b)`; k where the sum never turns negative, a lower bound."""
        return rates(growth_of.kaplan_yorke(self.growth))

    def entropy(self) -> Tensor:
        """Sum of positive exponents `(*e, b)`, nats per step (per unit of time with `dt`)."""
        return rates(growth_of.entropy(self.growth, self.dt))

    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and coordinates for a Record; running estimates thinned to a few hundred moments."""
        k, running = self.exponents.shape[-1], self.running()
        # of the mean over members, too, which are independent
        error = growth_of.stderr_of_mean(self.growth, self.dt).reshape(-1, k)
        thin = torch.unique(
            torch.linspace(0, len(running) - 1, 200, dtype=torch.float32, device="cpu").long()
        )
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

    def record(self) -> Record:
        """The same as a Record: the exponents of every trajectory, their errors, and how they converged."""
        config = {"dt": self.dt, "transient": self.transient, "interval": self.interval}
        return Record("spectrum", config, *self.variables())

    def save(self, path: Path | str) -> Path:
        """Write the page (.html), the figure (.png, .pdf, .svg) or the Record (.nc); return the path.

        A name without any of these gets .html.

        Raises:
            ValueError: for another format, or if the file cannot be written.
        """
        return save_as(path, self.record(), ".html")

    def __repr__(self) -> str:
        *ensemble, k = self.growth.log_r.shape[1:]
        steps, unit = int(self.growth.steps.sum()), "step" if self.dt == 1.0 else "unit of time"
        reliable, all_of = int(self.reliable.sum()), self.reliable.numel()
        lines = [
            f"Spectrum: {counted(k, 'exponent')}, {trajectories(tuple(ensemble))}, {counted(steps, 'step')}",
            *leading(self.exponents, self.stderr(), unit),
            f"{reliable} of {all_of} reliable; .exponents, .stderr(), .plot(), .save('spectrum.html')",
        ]
        return "\n  ".join(lines)

    def page(self) -> str:
        """One self-contained page of HTML."""
        from lyaptorch.plots import record_page

        return record_page(self.record())

    def _repr_html_(self) -> str:
        return framed(self.page(), "Lyapunov spectrum")

    def plot(self) -> Figure:
        """The spectrum with error bars, and how the estimates converged."""
        from lyaptorch.plots import plot_spectrum

        return plot_spectrum(self)


@measures
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

    The caller's modes change nothing: a network counts as in `eval()`, autocast is left, and so is inference
    mode, of course without a graph. Half precision is measured in a float32 copy, also without one.

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
            unlike the rest, at most half; a warning, and the error bars, tell of a drift that only the whole
            run shows.
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
    chosen = transient == AUTO
    if interval != AUTO:
        interval = _checks.integer("interval", interval, 1, do='or pass "auto"')
    cut = _checks.state_grad(state_grad)
    _checks.choice("backend", "torch" if backend is None else backend, BACKENDS)
    _checks.choice("qr_method", qr_method, METHODS)
    if checkpoint is not None:
        checkpoint = _checks.integer("checkpoint", checkpoint, 1)
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
    tangent_transient = int(tangent_transient)
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
    seen = moments(cell, over, Q)
    problem = Problem(cell, cell.form(), (), segments(over, checkpoint), cut, qr_method, seen, ends)
    log_r, healthy, h, Q = run_scan(problem, backend, inputs, h, Q)
    first = sum(not span.counted for span in over)
    growth = Growth(log_r[first:], _steps(over[first:], log_r.device), healthy[first:])
    if after is not None:
        growth = ended(growth, after - tangent_transient)
    found = Spectrum(growth, h, Q, dt, transient, interval, died_at(healthy, over, transient))
    tell_of_deaths(found.died_at)
    if chosen and (moved := late_drift(growth, transient)) is not None:
        found = replace(found, drift=moved / dt)
    if seen is None:
        return found
    return replace(found, **discretisation(cell, inputs, seen, found.exponents.detach(), dt)._asdict())


@lru_cache(maxsize=16)
def _steps(over: tuple[Span, ...], device: torch.device) -> Tensor:
    """Steps of each span, on the device once and for all: a captured graph copies nothing from the host."""
    return torch.tensor([s.stop - s.start for s in over], device=device)
