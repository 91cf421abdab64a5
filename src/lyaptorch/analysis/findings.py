"""Vital signs in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lyaptorch._units import Clock
from lyaptorch.analysis.jacobians import usable_dimensions
from lyaptorch.analysis.signs import FADED, Signs

NARROW = 0.25
"""Fewer surviving directions than this share of those measured are called few."""
DEAD = 0.9
"""A unit that is silent at this share of the moments is dead."""
MEMORY_GATES = ("forget", "update")
"""The gates whose value is what a unit keeps of its memory from one step to the next."""
FOLD = -math.log(FADED)


@dataclass(frozen=True)
class Finding:
    """One thing that was found: a name that programs can look for, and a few sentences."""

    name: str
    text: str


def verdict(signs: Signs) -> str:
    """One word: "vanishing", "chaotic", "exploding", "blocked", "narrow" or "healthy"."""
    growth = signs.grown
    if signs.overflow is not None or (growth > FOLD and signs.swelling > math.log(10)):
        return "exploding"
    if growth > FOLD:
        return "chaotic"
    if growth < -FOLD:
        return "vanishing"
    if killers(signs):
        return "blocked"
    return "narrow" if signs.surviving < NARROW * min(len(signs.exponents), signs.horizon) else "healthy"


def findings(signs: Signs) -> tuple[Finding, ...]:
    """Everything that the numbers say, the most important first."""
    found = [
        ("verdict", _headline(signs, verdict(signs))),
        ("deaths", _deaths(signs)),
        ("directions", _directions(signs)),
        ("explosion", _explosion(signs)),
        ("parts", _parts(signs)),
        ("silence", _silence(signs)),
        ("registers", _registers(signs)),
        ("gates", _gates(signs)),
        ("gradient", _gradient(signs)),
        ("reliability", _reliability(signs)),
    ]
    return tuple(Finding(name, text) for name, text in found if text)


def killers(signs: Signs) -> list[int]:
    """Layers or groups that lose a perturbation within the horizon, far sooner than the best of them."""
    parts = signs.parts
    if not parts.separate or len(parts.names) < 2:
        return []
    rates = signs.clock.per_step(parts.rates)
    best = rates.max().item()
    lost = rates * signs.horizon < -FOLD
    far = rates < min(3 * best, best - 1 / signs.horizon)
    return torch.nonzero(lost & far).flatten().tolist()


def dead_units(signs: Signs) -> list[int]:
    """Variables of the state that were silent nearly always."""
    return torch.nonzero(signs.parts.silent >= DEAD).flatten().tolist()


def _headline(signs: Signs, word: str) -> str:
    first, T, steps = _value(signs), signs.clock.duration(signs.horizon), signs.clock.duration
    lambda1 = signs.clock.per_step(signs.lambda1)
    if word == "exploding":
        when = "" if signs.overflow is None else f" It overflows at step {signs.overflow}."
        return f"The state explodes, and gradients with it: {first}.{when}"
    if word == "chaotic":
        return (
            f"The network is chaotic, so gradients explode: {first}. Nearby states part by a factor e every "
            f"{steps(1 / lambda1)}, and over {T} a gradient grows by about {_power(signs.grown)}."
        )
    if word == "vanishing":
        if math.isinf(lambda1):
            return f"Gradients vanish entirely: within {T} every direction dies."
        return (
            f"Gradients vanish: {first}. Even along the best direction a perturbation falls by a factor e "
            f"every {steps(-1 / lambda1)} and to a thousandth in {steps(-FOLD / lambda1)}; over {T} "
            f"{_left(signs.grown)} of it is left."
        )
    if word == "blocked":
        names = " and ".join(signs.parts.names[i] for i in killers(signs))
        return f"Gradients survive {T}, but not in {names}: {first} in the network as a whole."
    if word == "narrow":
        return (
            f"Gradients survive {T}, but along {_count(signs.surviving, 'direction')} only "
            f"(of {len(signs.exponents)} measured): {first}."
        )
    return f"Gradients neither vanish nor explode over {T}: {first}."


def _deaths(signs: Signs) -> str:
    """Where some, but not all, trajectories died."""
    if not 0 < signs.died < signs.trajectories:
        return ""
    left = signs.trajectories - signs.died
    return (
        f"In {signs.died} of {signs.trajectories} trajectories every direction died, so that no gradient "
        f"passes there; means are over the other {left if left > 1 else 'one'}."
    )


def _directions(signs: Signs) -> str:
    k = len(signs.exponents)
    wide = int(usable_dimensions(signs.per_step, signs.horizon, signs.round_off))
    of = "" if k == signs.state_size else f" (the state has {signs.state_size} dimensions)"
    return (
        f"{signs.surviving} of {_count(k, 'measured direction')}{of} keep more than a thousandth of a "
        f"perturbation over {signs.clock.duration(signs.horizon)}; {wide} can be told apart from round-off "
        "beside the strongest."
    )


def _explosion(signs: Signs) -> str:
    least, most = signs.grown - 2 * signs.uncertainty, signs.grown + 2 * signs.uncertainty
    if least > FOLD:
        steps = math.log(torch.finfo(signs.exponents.dtype).max) / signs.clock.per_step(signs.lambda1)
        told = signs.clock.duration(steps)
        return f"Risk of explosion: certain. {_dtype(signs)} gradients overflow after about {told}."
    burst = "within the run no perturbation grew"
    if signs.burst > 0.1:
        burst = f"within the run a perturbation grew by up to {_power(signs.burst)}"
    if most > FOLD and math.isfinite(signs.lambda1):
        return f"Risk of explosion: cannot be excluded, λ₁ is not known well enough; {burst}."
    if signs.burst > FOLD:
        return f"Risk of explosion: bursts. λ₁ is not large, yet {burst}."
    return f"Risk of explosion: low; {burst}."


def _parts(signs: Signs) -> str:
    parts = signs.parts
    if len(parts.names) < 2:
        return ""
    told = ", ".join(
        f"{name}: {_alone(rate.item(), signs.clock)}"
        for name, rate in zip(parts.names, parts.rates, strict=True)
    )
    found = killers(signs)
    if found:
        names = " and ".join(parts.names[i] for i in found)
        verb = "kills" if len(found) == 1 else "kill"
        share = [f"{parts.mean(parts.silent)[i]:.0%}" for i in found]
        return (
            f"{names} {verb} the signal. A perturbation held to one part only: {told}. Share of its units "
            f"that are silent: {', '.join(share)}."
        )
    if not parts.separate:
        best = int(parts.rates.argmax())
        return f"{parts.names[best]} carries the memory. A perturbation held to one variable only: {told}."
    return f"No part stands out. A perturbation held to one part only: {told}."


def _silence(signs: Signs) -> str:
    dead = dead_units(signs)
    if not dead:
        return ""
    if len(dead) == signs.state_size:
        return "Every unit takes up or passes on less than 5% of a perturbation in one step."
    listed = ", ".join(map(str, dead[:12])) + (", ..." if len(dead) > 12 else "")
    return (
        f"{len(dead)} of {signs.state_size} units are dead: they take up or pass on less than 5% of a "
        f"perturbation at nearly every step (units {listed}). They are saturated, shut, or without weights."
    )


def _registers(signs: Signs) -> str:
    finite, gone = int(signs.finite.sum()), int(torch.isinf(signs.exponents).sum())
    if not finite:
        return ""
    whose = "its exponent is" if finite == 1 else "their exponents are"
    return (
        f"{finite} of {_count(signs.state_size, 'variable')} only hand on what they take up, as in a shift "
        f"register: a finite impulse response. By design {whose} -inf ({min(gone, finite)} of the "
        f"{_count(len(signs.exponents), 'measured one')}), and nothing is wrong with that."
    )


def _gates(signs: Signs) -> str:
    told = []
    for name, values in signs.gates.items():
        text = f"{name} gate {values.mean():.2f} on average"
        if name.split()[-1] in MEMORY_GATES:
            memory = -1 / values.double().clamp(1e-6, 1 - 1e-9).log()
            text += (
                f" (a unit alone forgets by a factor e in {signs.clock.duration(memory.median().item())}, "
                f"the slowest in {signs.clock.duration(memory.max().item())})"
            )
        elif values.mean() < 0.1:
            text += ", nearly shut"
        told.append(text)
    return f"Gates: {'; '.join(told)}." if told else ""


def _gradient(signs: Signs) -> str:
    logs, told = signs.gradient - signs.gradient[0], "A gradient sent back from the end of the run"
    steps = signs.clock.duration
    below = torch.nonzero(logs < -FOLD).flatten()
    if len(below):
        return f"{told} was down to a thousandth {steps(float(below[0]))} earlier."
    last = logs[-1].item()
    if abs(last) < 0.1:
        return f"{told} had the same size {steps(len(logs) - 1)} earlier."
    verb = "grew" if last > 0 else "fell"
    return f"{told} {verb} by {_power(abs(last))} in {steps(len(logs) - 1)}."


def _reliability(signs: Signs) -> str:
    k, lost = len(signs.exponents), int((~signs.reliable).sum())
    dead = int(torch.isinf(signs.exponents).sum())
    told = [f"{k - lost} of {k} exponents stand above round-off"]
    if lost:
        told.append(f"{max(0, lost - dead - signs.coarse)} are lost to it, {dead} died")
    if signs.coarse:
        told.append(f"{signs.coarse} are off by the length of the flow's steps, which a smaller dt mends")
    sure = "the run is long enough for the verdict"
    if unsettled(signs):
        short = "the run is too short" if not signs.coarse else "run and steps are too coarse"
        sure = f"{short} to be sure of the verdict"
    told.append(sure)
    return f"Reliable: {'; '.join(told)}."


def unsettled(signs: Signs) -> bool:
    """Whether two standard errors of lambda_1 reach across the border of a verdict."""
    error = 2 * signs.uncertainty
    if not math.isfinite(error):
        return not math.isinf(signs.lambda1)
    return any(abs(signs.grown - border) < error for border in (-FOLD, FOLD))


def _value(signs: Signs) -> str:
    error = signs.error[0].item()
    known = f" ± {error:.2g}" if math.isfinite(error) else ""
    return f"λ₁ = {signs.lambda1:+.3g}{known} {signs.clock.rate}"


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


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _dtype(signs: Signs) -> str:
    return str(signs.exponents.dtype).removeprefix("torch.")
