"""Suggestions: lines of Python to try, and what they did to a copy where that is quickly tried."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from lyaptorch.cells import Form
from lyaptorch.diagnosis.changes import UNMIXED, changes, residual, scale
from lyaptorch.diagnosis.findings import DEAD, dead_units, verdict
from lyaptorch.diagnosis.reliability import FOLD, unsettled
from lyaptorch.diagnosis.trial import Suggestion, Trial

FLOSS_STEPS = 55
"""Steps of a scan in `lt.floss`, where nothing else is asked for."""


@torch.no_grad()
def suggestions(trial: Trial) -> tuple[Suggestion, ...]:
    """What to try, the most direct first; empty where nothing is wrong."""
    word, revived = verdict(trial.measured), _revive(trial)
    other = residual(trial) if word in ("vanishing", "narrow", "integrating") else None
    # a network of its own comes last, but where nothing makes the units of this one mix
    first = other if isinstance(trial.cell, UNMIXED) else None
    found: list[Suggestion | None] = [revived] if word == "healthy" else [*changes(trial, revived, first)]
    if word not in ("healthy", "integrating"):
        found.append(_floss(trial))
    if first is None:
        found.append(other)
    if word in ("chaotic", "exploding"):
        found += [_input(trial), _clip(trial)]
    found += [_precision(trial), _longer(trial)]
    return tuple(suggestion for suggestion in found if suggestion is not None)


def _revive(trial: Trial) -> Suggestion | None:
    """Dead units: of bias, input and recurrent weights, weaken those whose weakening wakes most of them."""
    dead = dead_units(trial.measured)
    best, code, cause, copy = 0.5, "", "", trial
    for cell, where in trial.layers():
        units, form = [i - where.start for i in dead if i in where], cell.form()
        if not units or not isinstance(form, Form):
            continue
        for what, tensors, factor in (
            ("biases", form.biases, 0.0),
            ("input weights", (form.weight_ih,), 0.1),
            ("recurrent weights", (form.weight_hh,), 0.1),
        ):
            paths = [path for path in map(trial.path, tensors) if path is not None]
            if not paths:
                continue
            weakened = trial.changed(partial(scale, paths, factor, units))
            left = (weakened.silence()[[i + where.start for i in units]] >= DEAD).double().mean().item()
            if left < best:
                rows, best, cause, copy = _rows(units), left, what, weakened
                code = "\n".join(f"{trial.spell(path)}.data[{rows}] *= {factor:g}" for path in paths)
    if not code:
        return None
    return Suggestion(
        "Wake the dead units",
        f"Their {cause} hold them where the slope is zero: weakened in a copy, {1 - best:.0%} of them woke.",
        code,
        trial.measured.clock.per_time(copy.rate()),
        copy.memory().sure,
    )


def _rows(units: list[int]) -> str:
    whole = units == list(range(units[0], units[-1] + 1))
    return f"{units[0]}:{units[-1] + 1}" if whole else str(units)


def _floss(trial: Trial) -> Suggestion | None:
    """Where there is something to floss, and a direction along which a gradient comes back at all."""
    measured = trial.measured
    if not trial.cell.leaves(trial.inputs[0], trial.h) or not measured.reliable.any():
        return None
    steps = min(FLOSS_STEPS, len(trial.inputs))
    # one direction for each step that is to be remembered, of those that round-off leaves
    k = min(int(measured.reliable.sum()), measured.horizon)
    options = [f"k={k}", "target=0.0", "epochs=500"]
    if steps < FLOSS_STEPS:
        options += [f"steps={steps}", f"tangent_transient={steps // 4}"]
    reason = (
        f"It pushes the {k} exponents that can be trusted towards 0, so that perturbations keep their size."
    )
    options += trial.given.floss()
    if measured.clock.per_step(measured.lambda1) * steps > FOLD:
        options += ['state_grad="detach"', "clip=1.0"]
        reason += " The gradient through the trajectory itself explodes here, so it is cut off."
    code = f"lt.floss({trial.cell_name}, inputs, {', '.join(options)})"
    return Suggestion(f"Floss k = {k} exponents to 0", reason, code)


def _input(trial: Trial) -> Suggestion | None:
    """Stronger input, where it suppresses the chaos."""
    brief, (what, start) = trial.briefly(), trial.worst_part
    stronger = replace(brief, inputs=2 * brief.inputs).rate()
    # far below 0 is fine here: a network that is driven less can be had
    if not stronger < start / 2:
        return None
    expected = trial.measured.clock.per_time(stronger)
    reason = f"Input suppresses chaos: with twice the input {what} was {expected:+.3g}."
    return Suggestion("Drive it harder", reason, trial.given.stronger(), expected)


def _clip(trial: Trial) -> Suggestion:
    measured = trial.measured
    growth, chunk = measured.clock.per_step(measured.lambda1), measured.horizon
    if growth > 0:
        # e^(growth c) = 1000 at c = FOLD / growth
        chunk = max(1, min(chunk, int(FOLD / growth)))
    title, limit, code = "Cut gradients off", "", trial.given.chunks(chunk)
    if isinstance(trial.network, nn.Module) and any(True for _ in trial.network.parameters()):
        title, limit = "Clip gradients, and cut them off", ", and limit the norm before each update"
        code += f"\ntorch.nn.utils.clip_grad_norm_({trial.name}.parameters(), 1.0)"
    return Suggestion(
        title,
        f"Within {chunk} steps a gradient grows by no more than a thousand: backpropagate through chunks of "
        f"that length, with the state detached between them{limit}.",
        code,
    )


def _precision(trial: Trial) -> Suggestion | None:
    measured = trial.measured
    lost = int((~measured.reliable & torch.isfinite(measured.exponents)).sum()) - measured.coarse
    # what a function computes in is its own affair
    if lost <= 0 or measured.exponents.dtype == torch.float64 or not isinstance(trial.network, nn.Module):
        return None
    return Suggestion(
        "Measure in float64",
        f"{lost} exponents lie so far below the first that float32 has lost them.",
        trial.given.again(trial.name),
    )


def _longer(trial: Trial) -> Suggestion | None:
    if not unsettled(trial.measured):
        return None
    return Suggestion(
        "Measure longer",
        "λ₁ is not known well enough for a verdict. New inputs are better than the same ones again.",
        trial.given.longer(trial.name),
    )
