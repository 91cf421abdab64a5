"""Measurements of a network: every number that a diagnosis rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lyaptorch._brief import brief
from lyaptorch._units import Clock
from lyaptorch.cells import Cell
from lyaptorch.diagnosis.blocks import MOMENTS, Groups, Parts, finite_memory, measure, normal, pull_back
from lyaptorch.diagnosis.memory import Memory
from lyaptorch.diagnosis.trajectories import Run
from lyaptorch.tangent import Spectrum, mean_over_trajectories

FADED = 1e-3
"""What is left of a perturbation, or of a gradient, that counts as gone."""
LOOKED_AT = 1000
"""Most steps, counted from the end, over which parts and the gradient are followed."""


@dataclass(frozen=True)
class Measurements:
    """What was measured; means over the trajectories that live to the end, exponents in descending order.

    Rates are in nats per unit of time, as `clock` has it: per step where no `dt` is given.

    Attributes:
        spectrum: of the run, as `lyapunov_spectrum` gives it.
        clock: of steps and time.
        horizon: T, the steps over which gradients should survive.
        state_size: n, without the numbers that have no tangents.
        exponents: `(k,)`.
        error: `(k,)`, standard errors of the means; inf where the run is too short to tell.
        reliable: `(k,)`, which of them round-off, and the length of a flow's steps, have left standing.
        trajectories: how many were followed.
        died: in how many of them every direction died.
        energy: `(k, G)`, the share of each direction that lies in each part at the end of the run.
        burst: nats, the largest growth of the first direction within the run of a trajectory.
        overflow: the step at which the state was no longer finite, or None.
        parts: by named slices of the state.
        finite: `(n,)` bool, which variables are of finite memory, as the places of a shift register.
        swelling: log of how much larger the state is at the end of the run than in its middle.
        gates: for each gate, by name, its mean value in each unit.
        gradient: `(s + 1,)`, log of the norm of a gradient 0, 1, .. s steps before the end, where it is 1;
            where trajectories have ends of their own, the mean over those that are so long.
        gradient_share: `(s + 1, G)`, how its squared norm divides among the parts.
        memory: what the state holds of a probe on the inputs, over lags.
    """

    spectrum: Spectrum
    clock: Clock
    horizon: int
    state_size: int
    exponents: Tensor
    error: Tensor
    reliable: Tensor
    trajectories: int
    died: int
    energy: Tensor
    burst: float
    overflow: int | None
    parts: Parts
    finite: Tensor
    swelling: float
    gates: dict[str, Tensor]
    gradient: Tensor
    gradient_share: Tensor
    memory: Memory

    __repr__ = brief

    @property
    def lambda1(self) -> float:
        """The first exponent."""
        return self.exponents[0].item()

    @property
    def per_step(self) -> Tensor:
        """The exponents in nats per step, for all that is counted in steps."""
        return self.clock.per_step(self.exponents)

    @property
    def grown(self) -> float:
        """Nats that the first direction gains over the horizon."""
        return self.clock.per_step(self.lambda1) * self.horizon

    @property
    def known(self) -> bool:
        """Whether the first exponent has a standard error."""
        return math.isfinite(self.error[0].item())

    @property
    def surviving(self) -> int:
        """How many directions keep more than `FADED` of a perturbation over the horizon."""
        return int((self.per_step * self.horizon > math.log(FADED)).sum())

    def steps_to(self, factor: float) -> Tensor:
        """After how many steps a perturbation along each direction falls by `factor`; inf if never."""
        falls = self.exponents < 0
        return torch.where(falls, math.log(factor) / -self.per_step.clamp_max(0), torch.inf)

    @property
    def coarse(self) -> int:
        """How many exponents the length of a flow's steps leaves unresolved."""
        resolved = self.spectrum.resolved
        return 0 if resolved is None else int((~resolved.flatten(0, -2).all(0)).sum())

    @property
    def round_off(self) -> float:
        """1 / eps of the dtype: a perturbation that has fallen so far is lost beside a 1."""
        return 1 / torch.finfo(self.exponents.dtype).eps


@torch.no_grad()
def measurements(
    cell: Cell,
    followed: Run,
    spectrum: Spectrum,
    horizon: int | None,
    overflow: int | None,
    groups: Groups | None,
    memory: Memory,
) -> Measurements:
    """Measure a run whose spectrum is known; two more passes over it find what kills.

    Args:
        cell: who ran.
        followed: the run, up to an overflow.
        spectrum: of the run.
        horizon: over how many steps gradients should survive; all that were counted when missing.
        overflow: the step of an overflow, or None.
        groups: units by name.
        memory: of the run.
    """
    (counted, *_, k), size = spectrum.growth.log_r.shape, followed.states.shape[-1]
    n = size - cell.travelling
    means = mean_over_trajectories(spectrum.exponents).reshape(k)
    errors = spectrum.stderr_of_mean().reshape(k)
    order = means.argsort(descending=True)
    # a column that died in one trajectory is unreliable there and of no weight in the mean: the mean is
    # trusted if each trajectory that has the column trusts it, and at least one has
    alive = spectrum.growth.healthy[-1].reshape(-1, k)
    reliable = spectrum.reliable.reshape(-1, k)
    recent = followed.recent(LOOKED_AT)
    parts = measure(cell, recent, groups)
    finite = finite_memory(cell, recent).to(alive.device)
    parts = replace(
        parts,
        rates=spectrum.clock.per_time(parts.rates),
        # a unit that hands on what it takes up is not silent for having kept nothing
        silent=torch.where(finite, 0.0, parts.silent),
    )
    gradient, share = gradient_back(cell, recent, parts)
    # columns q_i of the last frame are of unit length, so sum_j q_ij^2 = 1 divides among the parts; of a
    # dead column all are 0, hence the division by those that live
    squares = spectrum.final_frame.square().reshape(-1, size, k).sum(0)
    energy = squares / alive.sum(0).clamp_min(1)
    middle, end = (followed.state(s)[..., :n] for s in (followed.steps // 2, followed.steps))
    return Measurements(
        spectrum,
        spectrum.clock,
        horizon or counted,
        n,
        means[order],
        errors[order],
        ((reliable | ~alive).all(0) & alive.any(0))[order],
        len(alive),
        int((~alive).all(-1).sum()),
        (parts.assignment.mT @ energy).mT[order],
        largest_growth(spectrum.growth.log_r.reshape(counted, -1, k)[..., int(order[0])]),
        overflow,
        parts,
        finite,
        (log_norm(end) - log_norm(middle)).item(),
        mean_gates(cell, recent),
        gradient,
        share,
        memory,
    )


def before_overflow(followed: Run, transient: int) -> tuple[Run, int | None]:
    """The run up to the last state but one that is finite, and the step after which none is.

    A transient before the run is counted in.

    Raises:
        FloatingPointError: if the state overflows within the first 20 steps.
    """
    fine = torch.isfinite(followed.states).flatten(1).all(-1)
    if fine.all():
        return followed, None
    step = int((~fine).int().argmax())
    if step < 20:
        raise FloatingPointError(
            f"the state overflows at step {step}, too soon to measure anything; lower the gain or the inputs"
        )
    return followed.until(step - 1), step + transient


def log_norm(h: Tensor) -> Tensor:
    """The logarithm of the norm of all of h, whose square may overflow or vanish."""
    # log |h| = log m + log |h / m| with m = max |h_i|: no square leaves the range
    largest = h.abs().max().clamp_min(torch.finfo(h.dtype).tiny)
    scaled: Tensor = torch.linalg.vector_norm(h / largest)
    return largest.log() + scaled.clamp_min(1e-30).log()


def largest_growth(log_r: Tensor) -> float:
    """The largest sum over consecutive steps of `(t, b)` growth, and over trajectories; at least 0."""
    # with S_t the sum up to t the largest sum over any window is max_t (S_t - min_{s <= t} S_s);
    # a direction that dies falls far, not to -inf, from where no difference can be taken
    total = torch.cat([torch.zeros_like(log_r[:1]), log_r.double().clamp_min(-1e6).cumsum(0)])
    return (total - total.cummin(0).values).max().item()


def gradient_back(cell: Cell, followed: Run, parts: Parts) -> tuple[Tensor, Tensor]:
    """A random gradient at each end, carried back: log of its norm and its shares, at 0, 1, ... steps back.

    It starts in what a readout sees. One vector-Jacobian product a step; its norm is divided out each
    time, so that nothing vanishes or overflows. Means are over the trajectories that are so long.
    """
    steps = followed.steps
    g = torch.zeros_like(followed.states[-1])
    g[..., cell.readable] = normal(g[..., cell.readable].shape, "gradient", g)
    g[..., g.shape[-1] - cell.travelling :] = 0
    g = g / g.norm(dim=-1, keepdim=True)
    total = torch.zeros_like(g[..., :1])
    logs, shares = [mean_over_trajectories(total)], [_mean_shares(g, parts)]
    for back in range(len(followed.inputs)):
        there = (steps > back).unsqueeze(-1)
        x, h = followed.at((steps - 1 - back).clamp_min(0))
        g = pull_back(cell, x, h, g.unsqueeze(-1)).squeeze(-1)
        norm = g.norm(dim=-1, keepdim=True)
        g = torch.where(there, g / norm.clamp_min(torch.finfo(g.dtype).tiny), 0.0)
        total = torch.where(there, total + norm.log(), -torch.inf)
        logs.append(mean_over_trajectories(total))
        shares.append(_mean_shares(g, parts))
    return torch.cat(logs, -1).reshape(-1), torch.stack(shares)


def _mean_shares(g: Tensor, parts: Parts) -> Tensor:
    """How the squared norm of unit gradients divides, mean over those that are not gone."""
    shares = (g.square() @ parts.assignment).flatten(0, -2)
    return shares.sum(0) / (shares.sum(-1) > 0).sum().clamp_min(1)


def mean_gates(cell: Cell, followed: Run) -> dict[str, Tensor]:
    """The mean of every gate in each unit, over moments and trajectories."""
    sizes: dict[str, int] = {}

    def gates(x: Tensor, h: Tensor) -> Tensor:
        values = cell.gate_values(x, h)
        sizes.update({name: value.shape[-1] for name, value in values.items()})
        return torch.cat(list(values.values()), -1) if values else h[..., :0]

    mean = followed.mean(MOMENTS, gates)
    return dict(zip(sizes, torch.split(mean, list(sizes.values())), strict=True)) if sizes else {}
