"""Changes of parameters, and what they did to a copy: its first exponent, and the times it tells apart."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lyaptorch.cells import Form, as_cell
from lyaptorch.cells import residuals as keeps
from lyaptorch.cells.diagonal import MinGRUCell
from lyaptorch.cells.mixing import mixing_
from lyaptorch.cells.rate import ResidualCell
from lyaptorch.diagnosis.findings import MEMORY_GATES, verdict
from lyaptorch.diagnosis.reliability import FOLD
from lyaptorch.diagnosis.trial import Suggestion, Trial, cell_of

HELPS = 0.8
"""A change helps if it brings the growth this much closer to 0."""
SEARCHED = 100
"""Steps of the inputs on which the gain of a mixing start is searched."""
SATURATED = 5.0
"""Nats lost over the horizon at the gain of rest, beyond which so many units saturate that one is searched.

`python benchmarks/advice.py --gains --seeds 0 1 2`: LSTM, GRU and tanh networks of 32 units, delay 30,
inputs of five strengths. Up to it both gains learned the same within .03 in 27 of 33 networks, and that
of rest more in four of the other six; beyond it the searched one learned more in four of 12, and that of
rest in two, which lost less than 7 nats.
"""
COUPLING = 0.03
"""Of the residual network that is suggested."""
UNMIXED = (ResidualCell, MinGRUCell)
"""Cells whose units nothing in place can make to mix."""


def changes(trial: Trial, *made: Suggestion | None) -> list[Suggestion]:
    """Those that help, the best first: gradients survive, then more is held of what is old.

    Args:
        trial: of the network as it is.
        made: others that were tried.
    """
    word = verdict(trial.measured)
    # mixing before what keeps by standing still, where both do as well
    mixing = None if word == "blocked" else _mixing(trial)
    tried = [*made, _reset_mode(trial), mixing, _gain(trial), _memory_gates(trial)]
    found = [suggestion for suggestion in tried if suggestion is not None]

    def rank(suggestion: Suggestion) -> tuple[float, float]:
        lost = _lost(trial, suggestion)
        # what is held is known to about a tenth
        return lost if lost > FOLD else 0.0, -round(suggestion.held or 0.0, 1)

    return sorted(found, key=rank)


def _lost(trial: Trial, suggestion: Suggestion) -> float:
    """By how many factors of e gradients shrink or grow over the horizon, in its copy."""
    assert suggestion.expected is not None
    return abs(trial.measured.clock.per_step(suggestion.expected)) * trial.measured.horizon


def scale(paths: list[str], factor: float, rows: list[int] | slice, network: nn.Module) -> None:
    """Rows of parameters times a factor."""
    for path in paths:
        network.get_parameter(path).data[rows] *= factor


def _recurrent(trial: Trial) -> list[str]:
    """Paths of the recurrent weights h' = f(W g(h) + ..) of the layers that block."""
    forms = [cell.form() for cell in trial.blocking_cells()]
    plain = [form for form in forms if isinstance(form, Form) and form.residual is None]
    paths = [trial.path(form.weight_hh) for form in plain]
    return [path for path in paths if path is not None]


def _tried(
    trial: Trial, copy: Trial, title: str, reason: tuple[str, str], code: str, share: float = HELPS
) -> Suggestion | None:
    """What a copy showed, amid its reason; None where it did not help enough.

    Args:
        trial: of the network as it is.
        copy: of the changed one.
        title: of the suggestion.
        reason: what stands before and after the outcome.
        code: that does it.
        share: of the growth that may be left, in size.
    """
    what, start = trial.worst_part
    reached, held, measured = copy.rate(), None, trial.measured
    if verdict(measured) == "integrating":
        # nothing is wrong with its growth: what is wanted is more times that can be told apart
        if not abs(reached) * measured.horizon < FOLD:
            return None
    # a NaN on either side is no help
    elif not abs(reached) < share * abs(start):
        return None
    told = ""
    if not measured.memory.why and not trial.blocking and not (after := copy.memory()).why:
        held, before = after.sure, measured.memory
        error = 2 * math.hypot(after.held_error, before.held_error)
        if verdict(measured) == "integrating" and after.held - before.held < error:
            return None
        if max(held, before.sure):
            half = measured.clock.duration(measured.horizon / 2)
            told = f" and the state held {held:.2g} numbers older than {half}, not {before.sure:.2g},"
    expected = measured.clock.per_time(reached)
    return Suggestion(title, f"{reason[0]} {what} was {expected:+.3g}{told}{reason[1]}", code, expected, held)


def _gain(trial: Trial) -> Suggestion | None:
    """A factor on the recurrent weights that brings the growth close to 0, found on copies."""
    paths, (_, start) = _recurrent(trial), trial.worst_part
    factor, reached, copy = 1.0, start, trial
    if not paths or not math.isfinite(start):
        return None
    for _ in range(8):
        if abs(reached) * trial.measured.horizon < 1 or not math.isfinite(reached):
            break
        # W -> c W adds log c to every exponent of a linear network, so c = e^-lambda_1 brings the first to 0;
        # a bounded one answers less than in proportion, hence the rounds; e^1.5 a round, lest it explode
        factor = float(f"{factor * math.exp(-max(-1.5, min(1.5, reached))):.4g}")
        copy = trial.changed(partial(scale, paths, factor, slice(None)))
        reached = copy.rate()
    if copy is trial:
        return None
    title = f"{'Raise' if factor > 1 else 'Lower'} the gain"
    reason = f"With recurrent weights {factor:g} times as large,", " in a copy."
    code = "\n".join(f"{trial.spell(path)}.data *= {factor:g}" for path in paths)
    return _tried(trial, copy, title, reason, code, 0.5)


def _mixing(trial: Trial) -> Suggestion | None:
    """Orthogonal candidate weights with the gain at which gradients last over the horizon by mixing."""
    if not isinstance(trial.network, nn.Module):
        return None
    resting = _mixed(trial, None)
    if resting is not None and not _rectified(trial) and _lost(trial, resting) < SATURATED:
        return resting
    return (_mixed(trial, trial.inputs[:SEARCHED]) if trial.given.plain else None) or resting


def _rectified(trial: Trial) -> bool:
    """Whether units are: at rest half of them are taken to be open, but inputs decide which are."""
    forms = [form for cell in trial.blocking_cells() if (form := cell.form()) is not None]
    return any(phi.known == "relu" for form in forms for phi in form.activations())


def _mixed(trial: Trial, driven: Tensor | None) -> Suggestion | None:
    """The same, with a gain for these inputs, or for gates at rest."""
    T, given = trial.measured.horizon, ""
    if driven is not None:
        given = ", inputs=inputs" if len(driven) == len(trial.inputs) else f", inputs=inputs[:{SEARCHED}]"
    code = f"lt.weights.mixing_({trial.cell_name}, horizon={T}{given})"
    what = "Orthogonal recurrent weights rotate the state, which keeps inputs of different times apart:"
    if _gates(trial):
        what = (
            "Orthogonal weights of the candidate rotate the state, which keeps inputs of different times "
            "apart, where an open gate only sums them:"
        )
    reason = what, " in a copy. They replace what was learned, so train again."

    def change(network: Any) -> None:
        mixing_(cell_of(network), horizon=T, inputs=driven)

    try:
        copy = trial.changed(change)
    except ValueError:
        # it says itself for which networks there is no such start
        return None
    return _tried(trial, copy, "Start by mixing", reason, code)


def _gates(trial: Trial) -> list[tuple[str, int, int, str]]:
    """Biases of the forget or update gates: their parameter, first and last row, and sign."""
    rows = []
    for cell in trial.blocking_cells():
        gates, path = getattr(cell, "gates", ()), trial.path(getattr(cell, "bias_hh", None))
        at = next((i for i, gate in enumerate(gates) if gate in MEMORY_GATES), None)
        if path is not None and at is not None:
            n = int(getattr(cell, "hidden_size", 0))
            rows.append((path, at * n, (at + 1) * n, ""))
        elif isinstance(cell, MinGRUCell) and (path := trial.path(cell.bias)) is not None:
            # its gate lets in what the others keep out: 1 - sigmoid(a) = sigmoid(-a)
            rows.append((path, 0, cell.state_size, "-"))
    return rows


def _memory_gates(trial: Trial) -> Suggestion | None:
    """Biases of the forget or update gate for memories of up to T steps, where they help."""
    T, rows = max(trial.measured.horizon, 3), _gates(trial)
    if not rows:
        return None

    def change(network: nn.Module) -> None:
        for path, a, b, sign in rows:
            gate = network.get_parameter(path).data
            # sigmoid(log tau) = tau / (1 + tau): a unit that keeps this share forgets by e in about tau steps
            taus = torch.linspace(2, T, b - a, dtype=gate.dtype, device=gate.device)
            gate[..., a:b] = -taus.log() if sign else taus.log()

    reason = f"Biases of log 2 .. log {T} let units keep their memory for up to {T} steps:", " in a copy."
    code = "\n".join(
        f"{trial.spell(path)}.data[..., {a}:{b}] = {sign}torch.linspace(2, {T}, {b - a}).log()"
        for path, a, b, sign in rows
    )
    title = "Open the gates that keep the memory"
    return _tried(trial, trial.changed(change), title, reason, code)


def _reset_mode(trial: Trial) -> Suggestion | None:
    """Another way to differentiate the reset of a spiking cell, where it helps."""
    now = getattr(trial.cell, "reset_grad", None)
    if now is None or cell_of(trial.network) is not trial.cell:
        return None
    inside = trial.cell is not trial.network

    def change(mode: str, network: Any) -> None:
        (network.cell if inside else network).reset_grad = mode

    others = [mode for mode in ("full", "detach", "ignore") if mode != now]
    tried = {mode: trial.changed(partial(change, mode)) for mode in others}
    best = min(tried, key=lambda mode: abs(tried[mode].rate()))
    reason = (
        f'The gradient of the reset is "{now}"; with "{best}"',
        " in a copy. It changes what backpropagation sees, not what the network does.",
    )
    code = f'{trial.cell_name}.reset_grad = "{best}"'
    return _tried(trial, tried[best], f'Reset mode "{best}"', reason, code)


def residual(trial: Trial) -> Suggestion | None:
    """A weakly coupled network in place of one whose units nothing can be made to mix, or of plain layers."""
    m, T = trial.inputs.shape[-1], trial.measured.horizon
    n = trial.cell.output_size or trial.measured.state_size
    if not (isinstance(trial.cell, UNMIXED) or _recurrent(trial)):
        return None
    # log r = -1 / T: a diagonal r forgets by e in T steps
    keep = float(f"{math.exp(-1 / T):.5g}")
    recipe = keeps.orthogonal(n) @ keeps.decay(keep)
    alone = tuple(trial.h.shape[:-2])
    # where the inputs are, whatever device the caller makes things on
    with trial.inputs.device:
        cell = ResidualCell(m, n, residual=recipe, coupling=COUPLING, ensemble=alone).to(trial.inputs)
    copy = replace(trial, network=cell, cell=as_cell(cell), h=trial.h.new_zeros(*trial.h.shape[:-1], n))
    reason = (
        "A weakly coupled residual network keeps exponents near log "
        f"{keep:.5g} = {-1 / T:.2g} per step by design, and a rotation tells times apart:",
        " in one. It is a network of its own, to be trained in place of this one.",
    )
    code = (
        f"cell = lt.ResidualCell({m}, {n}, residual=lt.residuals.orthogonal({n}) @ "
        f"lt.residuals.decay({keep:.5g}), coupling={COUPLING})"
    )
    return _tried(trial, copy.briefly(), "Add a residual connection that turns", reason, code)
