"""Whether a run was long enough, and its numbers precise enough, for what is said."""

from __future__ import annotations

import math

import torch

from lyaptorch.diagnosis.measure import FADED, Measurements

FOLD = -math.log(FADED)


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
    else:
        told.append("the run is long enough for the verdict")
    return f"Reliable: {'; '.join(told)}."


def unsettled(measured: Measurements) -> bool:
    """Whether two standard errors of lambda_1 reach across the border of a verdict."""
    error = 2 * measured.uncertainty
    # an error that is not known settles nothing, but that all directions died needs none
    if not math.isfinite(error):
        return not math.isinf(measured.lambda1)
    return any(abs(measured.grown - border) < error for border in (-FOLD, FOLD))
