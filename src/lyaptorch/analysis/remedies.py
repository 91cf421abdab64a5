"""What to try: each remedy a line of Python, and what it did to a copy where that is quickly tried."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lyaptorch.analysis.findings import DEAD, FOLD, MEMORY_GATES, dead_units, unsettled, verdict
from lyaptorch.analysis.patient import Change, Patient, Remedy, cell_of
from lyaptorch.cells import Form

FLOSS_STEPS = 55
"""Steps of a scan in `lt.floss`, where nothing else is asked for."""
HELPS = 0.8
"""A change helps if it brings the growth this much closer to 0."""


@torch.no_grad()
def remedies(patient: Patient) -> tuple[Remedy, ...]:
    """What to try, the most direct first; empty where nothing ails the network."""
    word, found = verdict(patient.signs), [_revive(patient)]
    if word != "healthy":
        found += [_reset_mode(patient), _gain(patient), _memory_gates(patient), _orthogonal(patient)]
        found.append(_floss(patient))
    if word in ("vanishing", "narrow"):
        found.append(_residual(patient))
    if word in ("chaotic", "exploding"):
        found += [_input(patient), _clip(patient)]
    found += [_precision(patient), _longer(patient)]
    return tuple(remedy for remedy in found if remedy is not None)


def _revive(patient: Patient) -> Remedy | None:
    """Dead units: of bias, input and recurrent weights, weaken those whose weakening wakes most of them."""
    dead = dead_units(patient.signs)
    best, code, cause = 0.5, "", ""
    for cell, where in patient.layers():
        units, form = [i - where.start for i in dead if i in where], cell.form()
        if not units or not isinstance(form, Form):
            continue
        for what, tensors, factor in (
            ("biases", form.biases, 0.0),
            ("input weights", (form.weight_ih,), 0.1),
            ("recurrent weights", (form.weight_hh,), 0.1),
        ):
            paths = [path for path in map(patient.path, tensors) if path is not None]
            if not paths:
                continue
            silence = patient.changed(_scaled(paths, factor, units)).silence()
            left = (silence[[i + where.start for i in units]] >= DEAD).double().mean().item()
            if left < best:
                rows, best, cause = _rows(units), left, what
                code = "\n".join(f"{patient.spell(path)}.data[{rows}] *= {factor:g}" for path in paths)
    if not code:
        return None
    return Remedy(
        "Wake the dead units",
        f"Their {cause} hold them where the slope is zero: weakened in a copy, {1 - best:.0%} of them woke.",
        code,
    )


def _rows(units: list[int]) -> str:
    whole = units == list(range(units[0], units[-1] + 1))
    return f"{units[0]}:{units[-1] + 1}" if whole else str(units)


def _floss(patient: Patient) -> Remedy | None:
    """Where there is something to floss, and a direction along which a gradient comes back at all."""
    signs = patient.signs
    if not patient.trained() or not signs.reliable.any():
        return None
    steps = min(FLOSS_STEPS, len(patient.inputs))
    # one direction for each step that is to be remembered, of those that round-off leaves
    k = min(int(signs.reliable.sum()), signs.horizon)
    options = [f"k={k}", "target=0.0", "epochs=500"]
    if steps < FLOSS_STEPS:
        options += [f"steps={steps}", f"tangent_transient={steps // 4}"]
    reason = (
        f"It pushes the {k} exponents that can be trusted towards 0, so that perturbations keep their size."
    )
    options += patient.given.floss()
    if signs.clock.per_step(signs.lambda1) * steps > FOLD:
        options += ['state_grad="detach"', "clip=1.0"]
        reason += " The gradient through the trajectory itself explodes here, so it is cut off."
    code = f"lt.floss({patient.cell_name}, inputs, {', '.join(options)})"
    return Remedy(f"Floss k = {k} exponents to 0", reason, code)


def _recurrent(patient: Patient) -> list[str]:
    """Paths of the recurrent weights h' = f(W g(h) + ..) of the sick layers."""
    forms = [cell.form() for cell in patient.sick_cells()]
    plain = [form for form in forms if isinstance(form, Form) and form.residual is None]
    paths = [patient.path(form.weight_hh) for form in plain]
    return [path for path in paths if path is not None]


def _scaled(paths: list[str], factor: float, rows: list[int] | None = None) -> Change:
    def change(network: nn.Module) -> None:
        for path in paths:
            network.get_parameter(path).data[slice(None) if rows is None else rows] *= factor

    return change


def _gain(patient: Patient) -> Remedy | None:
    """A factor on the recurrent weights that brings the growth close to 0, found on copies."""
    paths, (what, start) = _recurrent(patient), patient.ailing
    factor, reached = 1.0, start
    if not paths or not math.isfinite(start):
        return None
    for _ in range(8):
        if abs(reached) * patient.signs.horizon < 1 or not math.isfinite(reached):
            break
        # exact for a linear network; a bounded one answers less than in proportion
        factor = float(f"{factor * math.exp(-max(-1.5, min(1.5, reached))):.4g}")
        reached = patient.changed(_scaled(paths, factor)).rate()
    if not abs(reached) < abs(start) / 2:
        return None
    return Remedy(
        f"{'Raise' if factor > 1 else 'Lower'} the gain",
        f"With recurrent weights {factor:g} times as large, {what} was {patient.told(reached)} in a copy.",
        "\n".join(f"{patient.spell(path)}.data *= {factor:g}" for path in paths),
        patient.reported(reached),
    )


def _orthogonal(patient: Patient) -> Remedy | None:
    """An orthogonal start, where it brings the growth closer to 0."""
    paths, (what, start) = _recurrent(patient), patient.ailing
    if not paths:
        return None

    def change(network: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        for path in paths:
            nn.init.orthogonal_(network.get_parameter(path), generator=generator)

    reached = patient.changed(change).rate()
    if not abs(reached) < HELPS * abs(start):
        return None
    return Remedy(
        "Start orthogonal",
        f"Orthogonal recurrent weights keep lengths in every direction: {what} was "
        f"{patient.told(reached)} in a copy. They replace what was learned, so train again.",
        "\n".join(f"torch.nn.init.orthogonal_({patient.spell(path)})" for path in paths),
        patient.reported(reached),
    )


def _memory_gates(patient: Patient) -> Remedy | None:
    """Biases of the forget or update gate for memories of up to T steps, where they help."""
    T, (what, start), rows = max(patient.signs.horizon, 3), patient.ailing, []
    for cell in patient.sick_cells():
        gates, path = getattr(cell, "gates", ()), patient.path(getattr(cell, "bias_hh", None))
        at = next((i for i, gate in enumerate(gates) if gate in MEMORY_GATES), None)
        if path is not None and at is not None:
            n = int(getattr(cell, "hidden_size", 0))
            rows.append((path, at * n, (at + 1) * n))
    if not rows:
        return None

    def change(network: nn.Module) -> None:
        for path, a, b in rows:
            gate = network.get_parameter(path).data
            gate[..., a:b] = torch.linspace(2, T, b - a, dtype=gate.dtype, device=gate.device).log()

    reached = patient.changed(change).rate()
    if not abs(reached) < HELPS * abs(start):
        return None
    return Remedy(
        "Open the gates that keep the memory",
        f"Biases of log 2 .. log {T} let units keep their memory for up to {T} steps: {what} was "
        f"{patient.told(reached)} in a copy.",
        "\n".join(
            f"{patient.spell(path)}.data[..., {a}:{b}] = torch.linspace(2, {T}, {b - a}).log()"
            for path, a, b in rows
        ),
        patient.reported(reached),
    )


def _reset_mode(patient: Patient) -> Remedy | None:
    """Another way to differentiate the reset of a spiking cell, where it helps."""
    now, (what, start) = getattr(patient.cell, "reset_grad", None), patient.ailing
    if now is None or cell_of(patient.network) is not patient.cell:
        return None
    inside = patient.cell is not patient.network

    def change(mode: str) -> Change:
        def set_mode(network: Any) -> None:
            (network.cell if inside else network).reset_grad = mode

        return set_mode

    tried = {
        mode: patient.changed(change(mode)).rate() for mode in ("full", "detach", "ignore") if mode != now
    }
    best = min(tried, key=lambda mode: abs(tried[mode]))
    if not abs(tried[best]) < HELPS * abs(start):
        return None
    return Remedy(
        f'Reset mode "{best}"',
        f'The gradient of the reset is "{now}"; with "{best}" {what} was '
        f"{patient.told(tried[best])} in a copy. It changes what "
        "backpropagation sees, not what the network does.",
        f'{patient.cell_name}.reset_grad = "{best}"',
        patient.reported(tried[best]),
    )


def _residual(patient: Patient) -> Remedy | None:
    """In place of plain recurrent layers h' = f(W g(h) + ..), which have nothing beside their weights."""
    m, T = patient.inputs.shape[-1], patient.signs.horizon
    n = patient.cell.output_size or patient.signs.state_size
    if not _recurrent(patient):
        return None
    keep = math.exp(-1 / T)
    return Remedy(
        "Add a residual connection",
        f"A weakly coupled residual network keeps exponents near log {keep:.5g} = {-1 / T:.2g} per step by "
        "design. It is a network of its own, to be trained in place of this one.",
        f"cell = lt.ResidualCell({m}, {n}, residual=lt.residuals.decay({keep:.5g}), coupling=0.03)",
    )


def _input(patient: Patient) -> Remedy | None:
    """Stronger input, where it suppresses the chaos."""
    what, start = patient.ailing
    brief = patient.briefly()
    stronger = replace(brief, inputs=2 * brief.inputs).rate()
    if not stronger < start / 2:
        return None
    return Remedy(
        "Drive it harder",
        f"Input suppresses chaos: with twice the input {what} was {patient.told(stronger)}.",
        patient.given.stronger(),
        patient.reported(stronger),
    )


def _clip(patient: Patient) -> Remedy:
    signs = patient.signs
    growth, chunk = signs.clock.per_step(signs.lambda1), signs.horizon
    if growth > 0:
        chunk = max(1, min(chunk, int(FOLD / growth)))
    title, limit, code = "Cut gradients off", "", patient.given.chunks(chunk)
    if isinstance(patient.network, nn.Module) and any(True for _ in patient.network.parameters()):
        title, limit = "Clip gradients, and cut them off", ", and limit the norm before each update"
        code += f"\ntorch.nn.utils.clip_grad_norm_({patient.name}.parameters(), 1.0)"
    return Remedy(
        title,
        f"Within {chunk} steps a gradient grows by no more than a thousand: backpropagate through chunks of "
        f"that length, with the state detached between them{limit}.",
        code,
    )


def _precision(patient: Patient) -> Remedy | None:
    signs = patient.signs
    lost = int((~signs.reliable & torch.isfinite(signs.exponents)).sum()) - signs.coarse
    if lost <= 0 or signs.exponents.dtype == torch.float64:
        return None
    if not isinstance(patient.network, nn.Module):
        # what a function computes in is its own affair
        return None
    return Remedy(
        "Measure in float64",
        f"{lost} exponents lie so far below the first that float32 has lost them.",
        patient.given.again(patient.name),
    )


def _longer(patient: Patient) -> Remedy | None:
    if not unsettled(patient.signs):
        return None
    return Remedy(
        "Measure longer",
        "λ₁ is not known well enough for a verdict. New inputs are better than the same ones again.",
        patient.given.longer(patient.name),
    )
