"""Whether a run was long enough, and its numbers precise enough, for what is said."""

from __future__ import annotations

import math

import torch

from lyaptorch._brief import counted
from lyaptorch.diagnosis.measure import FADED, Measurements
from lyaptorch.tangent import mean_over_trajectories

FOLD = -math.log(FADED)
FEWEST = 4
"""Stretches into which a run is cut at least, where its growth is compared with itself."""


def reliability(measured: Measurements) -> str:
    """In words."""
    k, lost = len(measured.exponents), int((~measured.reliable).sum())
    dead = int(torch.isinf(measured.exponents).sum())
    told = [f"{k - lost} of {k} exponents stand above round-off"]
    if lost:
        # -inf is no round-off, and what is coarse is told on its own; the three may overlap
        told.append(f"{max(0, lost - dead - measured.coarse)} are lost to it, {dead} died")
    if measured.coarse:
        told.append(f"{measured.coarse} are off by the length of the flow's steps, which a smaller dt mends")
    if unsettled(measured):
        short = "run and steps are too coarse" if measured.coarse else "the run is too short"
        told.append(f"{short} to be sure of the verdict")
    elif measured.known or math.isinf(measured.lambda1):
        told.append("the run is long enough for the verdict")
    else:
        least, most = between(measured)
        of = counted(stretches(measured), "equal stretch", "equal stretches")
        told.append(
            "λ₁ has no error, because its growth is correlated over too much of the run, and the verdict "
            f"needs none: in each of {of} of the run, in every trajectory, it was between {least:+.3g} and "
            f"{most:+.3g} {measured.clock.rate}"
        )
    return f"Reliable: {'; '.join(told)}."


def between(measured: Measurements) -> tuple[float, float]:
    """Rates between which lambda_1 lies: two standard errors to either side.

    Without an error the growth over the run is a fact all the same: then they are those of the stretch of any
    trajectory that gained least, and most, as if all time were like it. Of a run of fewer than `FEWEST`
    intervals nothing is known.
    """
    first = measured.lambda1
    if math.isinf(first):
        return first, first
    if measured.known:
        error = 2 * measured.error[0].item()
        return first - error, first + error
    spectrum, pieces = measured.spectrum, stretches(measured)
    if pieces < FEWEST:
        return -math.inf, math.inf
    growth = spectrum.growth
    column = int(mean_over_trajectories(spectrum.exponents).flatten().argmax())
    alive, rates = growth.healthy[-1][..., column], []
    gained = growth.log_r[..., column].tensor_split(pieces)
    for log_r, steps in zip(gained, growth.steps.tensor_split(pieces), strict=True):
        # a trajectory with an end of its own has no steps beyond it
        elapsed = steps.sum(0).expand(alive.shape)
        rates.append((log_r.sum(0) / (elapsed * spectrum.dt))[alive & (elapsed > 0)])
    found, flow = torch.cat(rates), spectrum.discretisation
    # what the length of a flow's steps changes is the same in all of them
    wrong = 0.0 if flow is None else 2 * flow[..., column].max().item()
    return found.min().item() - wrong, found.max().item() + wrong


def stretches(measured: Measurements) -> int:
    """Into how many stretches the run is cut: of at least the horizon each, but `FEWEST` where it is long."""
    clock = measured.spectrum.growth.clock()
    return min(len(clock), max(FEWEST, int(clock[-1]) // measured.horizon))


def unsettled(measured: Measurements) -> bool:
    """Whether the rates between which lambda_1 lies reach across the border of a verdict."""
    horizon, run = measured.horizon, int(measured.spectrum.growth.clock()[-1])
    # without an error nothing is said of more steps than the run had, but that what is gone stays gone
    within = [horizon] if measured.known or horizon <= run else [horizon, run]
    least, most = (measured.clock.per_step(rate) for rate in between(measured))
    sides = [[(most * t < border, border < least * t) for border in (-FOLD, FOLD)] for t in within]
    # NaN settles nothing
    return not (all(any(side) for side in sides[0]) and sides[0] == sides[-1])
