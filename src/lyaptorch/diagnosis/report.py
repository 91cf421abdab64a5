"""`lt.diagnose`: what is wrong with the gradients of a network, in data, words and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lyaptorch import _checks
from lyaptorch._brief import counted
from lyaptorch._caller import measures
from lyaptorch._padded import Lengths, Padded, padded
from lyaptorch._random import seed_from
from lyaptorch._shown import Shown
from lyaptorch._types import Inputs, Tokens
from lyaptorch.cells import Cell, as_cell, settle
from lyaptorch.cells.settings import settings_of
from lyaptorch.diagnosis.blocks import Groups
from lyaptorch.diagnosis.findings import Finding, findings, verdict
from lyaptorch.diagnosis.measure import Measurements, before_overflow, measurements
from lyaptorch.diagnosis.memory import PROBE, remembered
from lyaptorch.diagnosis.suggestions import suggestions
from lyaptorch.diagnosis.trajectories import run, whole
from lyaptorch.diagnosis.trial import Suggestion, Trial, cell_of, given
from lyaptorch.record import Record
from lyaptorch.tangent import lyapunov_spectrum
from lyaptorch.tangent.growth import untold
from lyaptorch.tangent.start import fit_padded, name_too_short

MEASURED = 32
"""Exponents measured where k is not given: enough to see how many directions survive."""


@dataclass(frozen=True)
class Diagnosis(Shown):
    """What is wrong with the gradients of a network; `print` it, `plot` it, or `save` its page.

    Attributes:
        verdict: "healthy", "vanishing", "exploding", "chaotic", "narrow" (the gradient survives along few
            directions only), "integrating" (it survives, but the state cannot tell when something came) or
            "blocked" (a layer or group kills it).
        findings: what was found, in words, the verdict first.
        suggestions: what to try, each with the Python that does it.
        measured: every number behind them.
        config: how it was measured.
    """

    verdict: str
    findings: tuple[Finding, ...]
    suggestions: tuple[Suggestion, ...]
    measured: Measurements
    config: dict[str, Any]

    def summary(self) -> str:
        """The findings and suggestions in plain words."""
        lines = [f"{self.config['name']}: {self.verdict}", ""]
        lines += [f"- {finding.text}" for finding in self.findings]
        if self.suggestions:
            lines += ["", "What to try:"]
        for suggestion in self.suggestions:
            lines += [
                f"- {suggestion.title}. {suggestion.reason}",
                *(f"    {line}" for line in suggestion.code.split("\n")),
            ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        found, tried = counted(len(self.findings), "finding"), counted(len(self.suggestions), "suggestion")
        lines = [f"Diagnosis of {self.config['name']}: {self.verdict}", *(f.text for f in self.findings[:1])]
        return "\n  ".join([*lines, f"{found}, {tried}; print it, .plot() it, or .save('diagnosis.html')"])

    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and coordinates for a Record, from which page and figure are drawn."""
        s, p = self.measured, self.measured.parts
        nats = {"units": s.clock.rate}
        variables: dict[str, Any] = {
            "exponents": (("index",), s.exponents, nats),
            "stderr": (("index",), s.error, nats),
            "reliable": (("index",), s.reliable),
            "efold_steps": (("index",), s.steps_to(math.e), {"units": "steps"}),
            "thousandth_steps": (("index",), s.steps_to(1e3), {"units": "steps"}),
            "round_off_steps": (("index",), s.steps_to(s.round_off), {"units": "steps"}),
            "energy": (("index", "part"), s.energy),
            "rate": (("part",), p.rates, nats),
            "passage": (("to_part", "part"), p.passage),
            "part_silent": (("part",), p.mean(p.silent)),
            "silent": (("unit",), p.silent[: s.state_size]),
            "finite_memory": (("unit",), s.finite[: s.state_size]),
            "gradient": (("back",), s.gradient, {"units": "log of the norm"}),
            "gradient_share": (("back", "part"), s.gradient_share),
            "capacity": (("lag",), s.memory.shares, {"units": "share of the variance of a probe"}),
            "finding": (("finding_index",), [f.text for f in self.findings]),
            "finding_name": (("finding_index",), [f.name for f in self.findings]),
        }
        if self.suggestions:
            for name in ("title", "reason", "code"):
                texts = [getattr(suggestion, name) for suggestion in self.suggestions]
                variables[f"suggestion_{name}"] = (("suggestion",), texts)
        for i, (name, values) in enumerate(s.gates.items()):
            variables[f"gate_{i}"] = ((f"gate_unit_{i}",), values, {"long_name": name})
        return variables, {"part": (("part",), list(p.names))}

    def record(self) -> Record:
        """The same as a Record, from which page and figure are drawn."""
        return Record("diagnose", self.config, *self.variables())


@measures
def diagnose(
    network: Cell | nn.Module | Callable[..., Any],
    inputs: Inputs | Tokens | PackedSequence | Padded,
    *,
    k: int | None = None,
    h0: Any = None,
    lengths: Lengths = None,
    horizon: int | None = None,
    transient: int = 0,
    tangent_transient: int | None = None,
    dt: float | None = None,
    groups: Groups | None = None,
    generator: torch.Generator | None = None,
    name: str = "network",
) -> Diagnosis:
    """Say how far gradients reach in a network, how many directions survive, what kills them, what to try.

    A perturbation along direction i becomes e^{lambda_i t} times as large in a time t, and a gradient on its
    way back likewise. Over the horizon T a direction survives if more than a thousandth is left. What kills
    the others is sought in the blocks of the one-step Jacobian by layers, groups or state variables, in units
    that pass on less than 5%, and in gates. Means are over the trajectories that live to the end of the run;
    their errors know how alike these are.

    A gate also keeps a gradient by standing still: then the state only sums, and cannot tell when something
    came. The memory capacity tells (`analysis.memory_capacity`): a white probe, half as large as the inputs
    vary, is added to them, and a linear readout of the change in the state is scored, on steps that it was
    not fitted to, at recovering the probe after 0, 1, ..., T steps. The given sequences are run so often,
    with other probes, that 4000 states count, or 40 for each number of the state; those shorter than 2 T are
    taken several times in a row. Its sum over the lags between T / 2 and T is how many numbers the state
    holds of what came then. One number is a sum, whatever its weights; telling two times apart takes two. A
    network that holds fewer, beyond two standard errors, is called integrating.

    Suggestions that change parameters are tried on a copy, and come in the order of what it showed: that
    gradients survive, and how many such numbers it holds.

    Args:
        network: a cell, a `Model`, a `torch.nn` module or a function: anything that `as_cell` takes.
        inputs: `(t, *e, b, m)`, such as the network is trained on, or a PackedSequence; of a model of
            transformers also token ids `(b, t)`.
        k: how many exponents; 32, or n where that is less, when missing.
        h0: initial state `(*e, b, n)`, or in the network's own structure; a model's own, or zeros, when
            missing.
        lengths: steps of each trajectory, integers `(b,)`, where they differ: nothing after its end counts,
            trajectories weigh alike, and a gradient starts from each end. What stands in the padding does not
            matter. One that ends within the transients is named in a warning and left out.
        horizon: T, over how many steps gradients should survive; all that were counted, of the longest
            trajectory, when missing.
        transient: first steps, of the state only.
        tangent_transient: next steps, not counted; a tenth of the rest, of the longest trajectory, when
            missing.
        dt: time per step: exponents and growth are told in nats per unit of time, and durations in steps and
            in time. The cell's own when missing: that of a `Flow`, 1 for all others. The horizon is in steps
            all the same, and dt changes no verdict.
        groups: units by name, as slices or lists, to be told apart; else layers, or h and c, where the
            network has them.
        generator: seeds the frame.
        name: what the network is called in the answer.

    Returns:
        A `Diagnosis`. Cost about that of the spectrum, O(t n^2 k) for each trajectory, four times that of
        running the network forwards and backwards, and for the capacity O(N n (n + T)) with N = 4000 states
        or 40 n; trials on copies come on top. Memory O(t n + N n).

    Raises:
        ValueError: for arguments that do not fit, or an ensemble of several networks.
        FloatingPointError: if the state overflows before anything can be measured.

    Example:
        >>> import lyaptorch as lt
        >>> cell = lt.RateCell(1, 32, gain=0.5)
        >>> found = lt.diagnose(cell, torch.zeros(200, 1, 1), k=4)
        >>> found.verdict, found.suggestions[0].title
        ('vanishing', 'Start by mixing')

    Source: Gradient Flossing, sections 2 and 5; Jaeger (2001), Short term memory in echo state networks;
    White, Lee & Sompolinsky (2004), Short-term memory in orthogonal neural networks.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"name must be a name in Python, for the lines that use it, got {name!r}")
    numbers = {"k": k, "horizon": horizon, "transient": transient or None, "dt": dt}
    numbers |= {"tangent_transient": tangent_transient}
    cell = as_cell(cell_of(network))
    packed, found = isinstance(inputs, PackedSequence), padded(cell.embedded(inputs), lengths)
    _checks.inputs(found.inputs)
    said = given(numbers, {"h0": h0, "groups": groups}, found, packed)
    if h0 is None and cell_of(network) is not network:
        h0 = network.initial_state(found.inputs.shape[-2])  # type: ignore[union-attr, operator]
    inputs, h, ends = fit_padded(cell, found, h0)
    if math.prod(h.shape[:-2]) != 1:
        raise ValueError(
            f"diagnose takes one network, got an ensemble {tuple(h.shape[:-2])}; pick one: model.select(who)"
        )
    n, t = h.shape[-1] - cell.travelling, len(inputs)
    k = min(n, MEASURED) if k is None else _checks.integer("k", k, 1, n)
    transient = _checks.integer("transient", transient, 0, t - 1, do="inputs must hold more steps than that")
    left = t - transient
    # a tenth for the frame to turn: the error of a mean over the rest is 1 / sqrt(0.9) = 1.05 times as large
    tangent_transient = left // 10 if tangent_transient is None else tangent_transient
    tangent_transient = _checks.integer("tangent_transient", tangent_transient, 0, left - 1)
    horizon = None if horizon is None else _checks.integer("horizon", horizon, 1)
    dt = None if dt is None else _checks.positive("dt", dt)
    if ends is not None:
        inputs, h, ends = _long_enough(inputs, h, ends, transient + tangent_transient)
    shape = list(inputs.shape)
    h, inputs = settle(cell, inputs[:transient], h), inputs[transient:]
    ends = None if ends is None else ends - transient
    # the diagnosis says in its own words what died
    with torch.no_grad(), untold():
        followed, overflow = before_overflow(run(cell, inputs, h, ends), transient)
        spectrum = lyapunov_spectrum(
            cell,
            followed.inputs,
            k=k,
            h0=h,
            lengths=None if ends is None else followed.steps.flatten(),
            tangent_transient=min(tangent_transient, len(followed.inputs) // 2),
            dt=dt,
            generator=generator,
        )
        lasts = horizon or len(spectrum.growth.log_r)
        memory = remembered(cell, inputs, h, ends, lasts, seed_from(generator))
    measured = measurements(cell, followed, spectrum, horizon, overflow, groups, memory)
    trial = Trial(network, cell, name, inputs, h, measured, whole(inputs, h) if ends is None else ends, said)
    config = {
        "name": name,
        "network": type(network).__name__,
        "settings": settings_of(cell),
        "state_size": n,
        "k": k,
        "shape": shape,
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "transient": transient,
        "tangent_transient": tangent_transient,
        **_measured(measured),
    }
    config |= {} if ends is None else {"lengths": (ends + transient).flatten().tolist()}
    return Diagnosis(verdict(measured), findings(measured), suggestions(trial), measured, config)


def _long_enough(inputs: Tensor, h: Tensor, ends: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those trajectories that have steps beyond the first `least`, of one network; the others are named."""
    name_too_short(ends, least)
    ends = ends.expand(h.shape[:-1])
    stay = (ends > least).reshape(-1, ends.shape[-1])[0]
    return inputs[..., stay, :], h[..., stay, :], ends[..., stay]


def _measured(measured: Measurements) -> dict[str, Any]:
    """What a Record tells of the measurements beside its variables."""
    return {
        "verdict": verdict(measured),
        "horizon": measured.horizon,
        "dt": measured.clock.dt,
        "probe": PROBE,
        "capacity_steps": measured.memory.steps,
        "capacity_error": measured.memory.error,
    }
