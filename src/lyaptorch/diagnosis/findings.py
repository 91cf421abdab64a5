"""Findings: the verdict, and what the measurements say, in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lyaptorch._brief import counted
from lyaptorch._units import Clock
from lyaptorch.analysis.jacobians import usable_dimensions
from lyaptorch.diagnosis.measure import Measurements
from lyaptorch.diagnosis.memory import told
from lyaptorch.diagnosis.reliability import FOLD, between, reliability

NARROW = 0.25
"""Fewer surviving directions than this share of those measured are called few."""
DEAD = 0.9
"""A unit that is silent at this share of the moments is dead."""
MEMORY_GATES = ("forget", "update")
"""The gates whose value is what a unit keeps of its memory from one step to the next."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found: a name that programs can look for, and a few sentences."""

    name: str
    text: str


def verdict(measured: Measurements) -> str:
    """One word: "vanishing", "chaotic", "exploding", "blocked", "narrow", "integrating" or "healthy"."""
    # lambda_1 T nats over the horizon: beyond +-FOLD, a factor 1000, a gradient counts as exploded or gone
    growth = measured.grown
    if measured.overflow is not None or (growth > FOLD and measured.swelling > math.log(10)):
        return "exploding"
    if growth > FOLD:
        return "chaotic"
    if growth < -FOLD:
        return "vanishing"
    if blocking_parts(measured):
        return "blocked"
    # one direction for each step is enough: over T steps nobody needs more than T of them
    needed = NARROW * min(len(measured.exponents), measured.horizon)
    if measured.surviving < needed:
        return "narrow"
    return "integrating" if measured.memory.integrates else "healthy"


def findings(measured: Measurements) -> tuple[Finding, ...]:
    """Everything that the numbers say, the most important first."""
    found = [
        ("verdict", _headline(measured, verdict(measured))),
        ("deaths", _deaths(measured)),
        ("directions", _directions(measured)),
        ("memory", _memory(measured)),
        ("explosion", _explosion(measured)),
        ("parts", _parts(measured)),
        ("silence", _silence(measured)),
        ("registers", _registers(measured)),
        ("gates", _gates(measured)),
        ("gradient", _gradient(measured)),
        ("parallel", _parallel(measured)),
        ("reliability", reliability(measured)),
    ]
    return tuple(Finding(name, text) for name, text in found if text)


def blocking_parts(measured: Measurements) -> list[int]:
    """Layers or groups that lose a perturbation within the horizon, far sooner than the best of them."""
    parts = measured.parts
    if not parts.separate or len(parts.names) < 2:
        return []
    rates = measured.clock.per_step(parts.rates)
    best = rates.max().item()
    # "far sooner": three times as fast where the best fades, and by e over the horizon where it hardly does
    lost = rates * measured.horizon < -FOLD
    far = rates < min(3 * best, best - 1 / measured.horizon)
    return torch.nonzero(lost & far).flatten().tolist()


def dead_units(measured: Measurements) -> list[int]:
    """Variables of the state that were silent nearly always."""
    return torch.nonzero(measured.parts.silent >= DEAD).flatten().tolist()


def _headline(measured: Measurements, word: str) -> str:
    first, T, steps = _value(measured), measured.clock.duration(measured.horizon), measured.clock.duration
    lambda1 = measured.clock.per_step(measured.lambda1)
    if word == "exploding":
        when = "" if measured.overflow is None else f" It overflows at step {measured.overflow}."
        return f"The state explodes, and gradients with it: {first}.{when}"
    if word == "chaotic":
        return (
            f"The network is chaotic, so gradients explode: {first}. Nearby states part by a factor e every "
            f"{steps(1 / lambda1)}, and over {T} a gradient grows by about {_power(measured.grown)}."
        )
    if word == "vanishing":
        if math.isinf(lambda1):
            return f"Gradients vanish entirely: within {T} every direction dies."
        return (
            f"Gradients vanish: {first}. Even along the best direction a perturbation falls by a factor e "
            f"every {steps(-1 / lambda1)} and to a thousandth in {steps(-FOLD / lambda1)}; over {T} "
            f"{_left(measured.grown)} of it is left."
        )
    if word == "blocked":
        names = " and ".join(measured.parts.names[i] for i in blocking_parts(measured))
        return f"Gradients survive {T}, but not in {names}: {first} in the network as a whole."
    if word == "narrow":
        return (
            f"Gradients survive {T}, but along {counted(measured.surviving, 'direction')} only "
            f"(of {len(measured.exponents)} measured): {first}."
        )
    if word == "integrating":
        return (
            f"The network integrates: gradients survive {T} because the state hardly changes. It sums its "
            f"inputs and cannot tell when they came: of those between {steps(measured.horizon / 2)} and {T} "
            f"ago it holds {measured.memory.held:.2g} numbers, where telling two times apart takes "
            f"{measured.memory.needed:g}. {first}."
        )
    memory = measured.memory
    deaf = "" if memory.why or memory.reached else ", but a linear readout recovers nothing of the inputs"
    return f"Gradients neither vanish nor explode over {T}: {first}{deaf}."


def _memory(measured: Measurements) -> str:
    T, duration = measured.horizon, measured.clock.duration
    return told(measured.memory, duration(T), duration(T / 2))


def _deaths(measured: Measurements) -> str:
    """Where some, but not all, trajectories died."""
    if not 0 < measured.died < measured.trajectories:
        return ""
    left = measured.trajectories - measured.died
    return (
        f"In {measured.died} of {measured.trajectories} trajectories every direction died, so that no "
        f"gradient passes there; means are over the other {left if left > 1 else 'one'}."
    )


def _directions(measured: Measurements) -> str:
    k = len(measured.exponents)
    # where sigma_1 / sigma_i > 1 / eps, direction i lies within the round-off of the first
    wide = int(usable_dimensions(measured.per_step, measured.horizon, measured.round_off))
    of = "" if k == measured.state_size else f" (the state has {measured.state_size} dimensions)"
    return (
        f"{measured.surviving} of {counted(k, 'measured direction')}{of} keep more than a thousandth of a "
        f"perturbation over {measured.clock.duration(measured.horizon)}; {wide} stay above "
        "round-off relative to the strongest."
    )


def _explosion(measured: Measurements) -> str:
    least, most = (measured.clock.per_step(rate) * measured.horizon for rate in between(measured))
    if least > FOLD:
        # e^(lambda_1 t) reaches the largest number of the dtype at t = log(max) / lambda_1
        dtype = measured.exponents.dtype
        steps = math.log(torch.finfo(dtype).max) / measured.clock.per_step(measured.lambda1)
        told = measured.clock.duration(steps)
        name = str(dtype).removeprefix("torch.")
        return f"Risk of explosion: certain. {name} gradients overflow after about {told}."
    burst = "within the run no perturbation grew"
    if measured.burst > 0.1:
        burst = f"within the run a perturbation grew by up to {_power(measured.burst)}"
    if most > FOLD and math.isfinite(measured.lambda1):
        return f"Risk of explosion: cannot be excluded, λ₁ is not known well enough; {burst}."
    if measured.burst > FOLD:
        return f"Risk of explosion: bursts. λ₁ is not large, yet {burst}."
    return f"Risk of explosion: low; {burst}."


def _parts(measured: Measurements) -> str:
    parts = measured.parts
    if len(parts.names) < 2:
        return ""
    alone = (_alone(rate, measured.clock) for rate in parts.rates.tolist())
    told = ", ".join(f"{name}: {growth}" for name, growth in zip(parts.names, alone, strict=True))
    found = blocking_parts(measured)
    if found:
        names = " and ".join(parts.names[i] for i in found)
        verb = "kills" if len(found) == 1 else "kill"
        share = [f"{parts.mean(parts.silent)[i]:.0%}" for i in found]
        return (
            f"{names} {verb} the signal. A perturbation restricted to one part: {told}. Share of its units "
            f"that are silent: {', '.join(share)}."
        )
    if not parts.separate:
        best = int(parts.rates.argmax())
        return f"{parts.names[best]} carries the memory. A perturbation restricted to one variable: {told}."
    return f"No part stands out. A perturbation restricted to one part: {told}."


def _silence(measured: Measurements) -> str:
    dead = dead_units(measured)
    if not dead:
        return ""
    if len(dead) == measured.state_size:
        return "Every unit takes up or passes on less than 5% of a perturbation in one step."
    listed = ", ".join(map(str, dead[:12])) + (", ..." if len(dead) > 12 else "")
    return (
        f"{len(dead)} of {measured.state_size} units are dead: they take up or pass on less than 5% of a "
        f"perturbation at nearly every step (units {listed}). They are saturated, shut, or without weights."
    )


def _registers(measured: Measurements) -> str:
    finite, gone = int(measured.finite.sum()), int(torch.isinf(measured.exponents).sum())
    if not finite:
        return ""
    whose = "its exponent is" if finite == 1 else "their exponents are"
    return (
        f"{finite} of {counted(measured.state_size, 'variable')} only hand on what they take up, as in a "
        f"shift register: a finite impulse response. By design {whose} -inf ({min(gone, finite)} of the "
        f"{counted(len(measured.exponents), 'measured one')}), and nothing is wrong with that."
    )


def _gates(measured: Measurements) -> str:
    told = []
    for name, values in measured.gates.items():
        text = f"{name} gate {values.mean():.2f} on average"
        if name.split()[-1] in MEMORY_GATES:
            # a unit keeps the share g of its memory a step, g^t = e^(t log g): it falls by e in -1 / log g
            memory = -1 / values.double().clamp(1e-6, 1 - 1e-9).log()
            text += (
                f" (a unit alone forgets by a factor e in {measured.clock.duration(memory.median().item())}, "
                f"the slowest in {measured.clock.duration(memory.max().item())})"
            )
        elif values.mean() < 0.1:
            text += ", nearly shut"
        told.append(text)
    return f"Gates: {'; '.join(told)}." if told else ""


def _gradient(measured: Measurements) -> str:
    logs, told = measured.gradient - measured.gradient[0], "A gradient sent back from the end of the run"
    steps = measured.clock.duration
    below = torch.nonzero(logs < -FOLD).flatten()
    if len(below):
        return f"{told} was down to a thousandth {steps(float(below[0]))} earlier."
    last = logs[-1].item()
    if abs(last) < 0.1:
        return f"{told} had the same size {steps(len(logs) - 1)} earlier."
    verb = "grew" if last > 0 else "fell"
    return f"{told} {verb} by {_power(abs(last))} in {steps(len(logs) - 1)}."


def _parallel(measured: Measurements) -> str:
    """Whether all steps could be evaluated at once, by the sign of lambda_1: Gonzalez et al. (2025)."""
    # an exponent of zero has no error where nothing fluctuates, but round-off
    (least, most), round_off = between(measured), 16 / measured.round_off
    if most + round_off < 0:
        return (
            "Parallel over time: possible. λ₁ < 0 on these inputs, so that the number of Newton "
            "iterations over all steps at once does not grow with the length of the sequence."
        )
    mend = "flossing with target < 0 makes it possible"
    if least - round_off > 0:
        return (
            "Parallel over time: not useful. λ₁ > 0 on these inputs, so that the number of Newton "
            f"iterations over all steps at once grows with the length of the sequence; {mend}."
        )
    if not measured.known:
        return (
            "Parallel over time: not known, on so few independent steps λ₁ has no error; pass longer inputs."
        )
    return f"Parallel over time: not known, λ₁ is 0 within its error; {mend}."


def _value(measured: Measurements) -> str:
    error = measured.error[0].item()
    known = f" ± {error:.2g}" if math.isfinite(error) else ""
    return f"λ₁ = {measured.lambda1:+.3g}{known} {measured.clock.rate}"


def _alone(rate: float, clock: Clock) -> str:
    if math.isinf(rate):
        return "gone at once"
    if rate > 0:
        return f"grows by a factor e in {clock.duration(1 / clock.per_step(rate))}"
    return f"falls by a factor e in {clock.duration(-1 / clock.per_step(rate))}" if rate else "stays"


def _power(nats: float) -> str:
    """e^nats, as a factor that can be read."""
    return f"a factor {math.exp(nats):.2g}" if nats < FOLD else f"a factor 10^{nats / math.log(10):.0f}"


def _left(nats: float) -> str:
    """e^nats, as a share that can be read."""
    return f"{math.exp(nats):.1g}" if nats > -20 else f"10^{nats / math.log(10):.0f}"
