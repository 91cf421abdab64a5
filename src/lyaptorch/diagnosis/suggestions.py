"""Suggestions: lines of Python to try, and what they did to a copy where that is quickly tried."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from lyaptorch.cells import Form
from lyaptorch.diagnosis.findings import DEAD, FOLD, MEMORY_GATES, dead_units, unsettled, verdict
from lyaptorch.diagnosis.trial import Suggestion, Trial, cell_of

FLOSS_STEPS = 55
"""Steps of a scan in `lt.floss`, where nothing else is asked for."""
HELPS = 0.8
"""A change helps if it brings the growth this much closer to 0."""


@torch.no_grad()
def suggestions(trial: Trial) -> tuple[Suggestion, ...]:
    """What to try, the most direct first; empty where nothing ails the network."""
    word, found = verdict(trial.measured), [_revive(trial)]
    if word != "healthy":
        found += [_reset_mode(trial), _gain(trial), _memory_gates(trial), _orthogonal(trial), _floss(trial)]
    if word in ("vanishing", "narrow"):
        found.append(_residual(trial))
    if word in ("chaotic", "exploding"):
        found += [_input(trial), _clip(trial)]
    found += [_precision(trial), _longer(trial)]
    return tuple(suggestion for suggestion in found if suggestion is not None)


def _revive(trial: Trial) -> Suggestion | None:
    """Dead units: of bias, input and recurrent weights, weaken those whose weakening wakes most of them."""
    dead = dead_units(trial.measured)
    best, code, cause = 0.5, "", ""
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
            silence = trial.changed(partial(_scale, paths, factor, units)).silence()
            left = (silence[[i + where.start for i in units]] >= DEAD).double().mean().item()
            if left < best:
                rows, best, cause = _rows(units), left, what
                code = "\n".join(f"{trial.spell(path)}.data[{rows}] *= {factor:g}" for path in paths)
    if not code:
        return None
    return Suggestion(
        "Wake the dead units",
        f"Their {cause} hold them where the slope is zero: weakened in a copy, {1 - best:.0%} of them woke.",
        code,
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


def _recurrent(trial: Trial) -> list[str]:
    """Paths of the recurrent weights h' = f(W g(h) + ..) of the layers that block."""
    forms = [cell.form() for cell in trial.blocking_cells()]
    plain = [form for form in forms if isinstance(form, Form) and form.residual is None]
    paths = [trial.path(form.weight_hh) for form in plain]
    return [path for path in paths if path is not None]


def _scale(paths: list[str], factor: float, rows: list[int] | slice, network: nn.Module) -> None:
    for path in paths:
        network.get_parameter(path).data[rows] *= factor


def _tried(
    trial: Trial, reached: float, title: str, reason: tuple[str, str], code: str, share: float = HELPS
) -> Suggestion | None:
    """What was tried on a copy, with what came of it amid its reason; None where it did not help enough.

    Args:
        trial: of the network as it is.
        reached: the growth of the copy, per step.
        title: of the suggestion.
        reason: what stands before and after the outcome.
        code: that does it.
        share: of the growth that may be left, in size.
    """
    what, start = trial.worst_part
    # a NaN on either side is no help
    if not abs(reached) < share * abs(start):
        return None
    expected = trial.measured.clock.per_time(reached)
    before, after = reason
    return Suggestion(title, f"{before} {what} was {expected:+.3g}{after}", code, expected)


def _gain(trial: Trial) -> Suggestion | None:
    """A factor on the recurrent weights that brings the growth close to 0, found on copies."""
    paths, (_, start) = _recurrent(trial), trial.worst_part
    factor, reached = 1.0, start
    if not paths or not math.isfinite(start):
        return None
    for _ in range(8):
        if abs(reached) * trial.measured.horizon < 1 or not math.isfinite(reached):
            break
        # W -> c W adds log c to every exponent of a linear network, so c = e^-lambda_1 brings the first to 0;
        # a bounded one answers less than in proportion, hence the rounds; e^1.5 a round, lest it explode
        factor = float(f"{factor * math.exp(-max(-1.5, min(1.5, reached))):.4g}")
        reached = trial.changed(partial(_scale, paths, factor, slice(None))).rate()
    title = f"{'Raise' if factor > 1 else 'Lower'} the gain"
    reason = f"With recurrent weights {factor:g} times as large,", " in a copy."
    code = "\n".join(f"{trial.spell(path)}.data *= {factor:g}" for path in paths)
    return _tried(trial, reached, title, reason, code, 0.5)


def _orthogonal(trial: Trial) -> Suggestion | None:
    """An orthogonal start, where it brings the growth closer to 0."""
    paths = _recurrent(trial)
    if not paths:
        return None

    def change(network: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        for path in paths:
            nn.init.orthogonal_(network.get_parameter(path), generator=generator)

    reason = (
        "Orthogonal recurrent weights keep lengths in every direction:",
        " in a copy. They replace what was learned, so train again.",
    )
    code = "\n".join(f"torch.nn.init.orthogonal_({trial.spell(path)})" for path in paths)
    return _tried(trial, trial.changed(change).rate(), "Start orthogonal", reason, code)


def _memory_gates(trial: Trial) -> Suggestion | None:
    """Biases of the forget or update gate for memories of up to T steps, where they help."""
    T, rows = max(trial.measured.horizon, 3), []
    for cell in trial.blocking_cells():
        gates, path = getattr(cell, "gates", ()), trial.path(getattr(cell, "bias_hh", None))
        at = next((i for i, gate in enumerate(gates) if gate in MEMORY_GATES), None)
        if path is not None and at is not None:
            n = int(getattr(cell, "hidden_size", 0))
            rows.append((path, at * n, (at + 1) * n))
    if not rows:
        return None

    def change(network: nn.Module) -> None:
        for path, a, b in rows:
            gate = network.get_parameter(path).data
            # sigmoid(log tau) = tau / (1 + tau): a unit that keeps this share forgets by e in about tau steps
            gate[..., a:b] = torch.linspace(2, T, b - a, dtype=gate.dtype, device=gate.device).log()

    reason = f"Biases of log 2 .. log {T} let units keep their memory for up to {T} steps:", " in a copy."
    code = "\n".join(
        f"{trial.spell(path)}.data[..., {a}:{b}] = torch.linspace(2, {T}, {b - a}).log()"
        for path, a, b in rows
    )
    return _tried(trial, trial.changed(change).rate(), "Open the gates that keep the memory", reason, code)


def _reset_mode(trial: Trial) -> Suggestion | None:
    """Another way to differentiate the reset of a spiking cell, where it helps."""
    now = getattr(trial.cell, "reset_grad", None)
    if now is None or cell_of(trial.network) is not trial.cell:
        return None
    inside = trial.cell is not trial.network

    def change(mode: str, network: Any) -> None:
        (network.cell if inside else network).reset_grad = mode

    others = [mode for mode in ("full", "detach", "ignore") if mode != now]
    tried = {mode: trial.changed(partial(change, mode)).rate() for mode in others}
    best = min(tried, key=lambda mode: abs(tried[mode]))
    reason = (
        f'The gradient of the reset is "{now}"; with "{best}"',
        " in a copy. It changes what backpropagation sees, not what the network does.",
    )
    code = f'{trial.cell_name}.reset_grad = "{best}"'
    return _tried(trial, tried[best], f'Reset mode "{best}"', reason, code)


def _residual(trial: Trial) -> Suggestion | None:
    """In place of plain recurrent layers h' = f(W g(h) + ..), which have nothing beside their weights."""
    m, T = trial.inputs.shape[-1], trial.measured.horizon
    n = trial.cell.output_size or trial.measured.state_size
    if not _recurrent(trial):
        return None
    # log r = -1 / T: a diagonal r forgets by e in T steps
    keep = math.exp(-1 / T)
    return Suggestion(
        "Add a residual connection",
        f"A weakly coupled residual network keeps exponents near log {keep:.5g} = {-1 / T:.2g} per step by "
        "design. It is a network of its own, to be trained in place of this one.",
        f"cell = lt.ResidualCell({m}, {n}, residual=lt.residuals.decay({keep:.5g}), coupling=0.03)",
    )


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
