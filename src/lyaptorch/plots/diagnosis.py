"""Figures of a diagnosis, each with its alternative text, its caption and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lyaptorch._units import Clock
from lyaptorch.plots.primitives import (
    BLUE,
    DASHES,
    GREY,
    NO_ERROR,
    ORANGE,
    PALETTE,
    Drawing,
    Rows,
    Told,
    drawing,
    picture,
)
from lyaptorch.record import Record

KEPT = {"1/e": 1.0, "1/1000": float(np.log(1e3))}
"""What is left of a perturbation, and its negative logarithm."""


@picture(lambda record: 3 + _remembers(record))
def diagnosis_figure(record: Record, axes: list[Axes]) -> None:
    """The spectrum, what survives, a gradient on its way back, and what the state holds of the past."""
    draws = [draw_spectrum, draw_survival, draw_gradient]
    for panel, draw in zip(axes, draws + [draw_memory] * _remembers(record), strict=True):
        draw(record, panel)


def _remembers(record: Record) -> bool:
    """Whether the memory capacity was measured; Records of before have none."""
    return "capacity" in record and record["capacity"].size > 0


def drawings(record: Record) -> list[Drawing]:
    """All figures that this record has something to show in."""
    found: dict[str, Callable[[Record, Axes], Told]] = {
        "spectrum": draw_spectrum,
        "survival": draw_survival,
        "gradient": draw_gradient,
    }
    if _remembers(record):
        found["memory"] = draw_memory
    if len(record["part"]) > 1:
        found |= {"parts": draw_parts, "shares": draw_shares}
    if (record["silent"] > 0.5).any():
        found["silence"] = draw_silence
    if "gate_0" in record:
        found["gates"] = draw_gates
    return [drawing(record, name, draw) for name, draw in found.items()]


def draw_spectrum(record: Record, axes: Axes) -> Told:
    """Exponents, errors, and the border below which a direction is lost."""
    values, error, T = record["exponents"], record["stderr"], record.config["horizon"]
    clock, finite, reliable = _clock(record), np.isfinite(values), record["reliable"]
    index = np.arange(1, len(values) + 1)
    axes.axhline(0, color=GREY, linewidth=0.8)
    # exp(lambda T) = 1/1000 after T steps
    border = clock.per_time(-KEPT["1/1000"] / T)
    axes.axhline(border, color=GREY, linewidth=0.9, linestyle=":", label=f"1/1000 left after {T} steps")
    bars = np.where(np.isfinite(error), error, 0.0)[finite]
    axes.errorbar(index[finite], values[finite], yerr=bars, color=BLUE, marker=".", markersize=4, linewidth=1)
    lost, unknown = finite & ~reliable, finite & ~np.isfinite(error)
    axes.plot(index[lost], values[lost], "o", mfc="white", color=ORANGE, markersize=4)
    if unknown.any():
        # without a bar they would look exact
        axes.plot(index[unknown], values[unknown], "x", color=GREY, markersize=5, label=NO_ERROR)
    axes.set(xlabel="index i", ylabel=f"λᵢ ({clock.rate})", title="Lyapunov spectrum")
    axes.set_xlim(0, len(values) + 1)
    axes.legend()
    steps = (record[f"{name}_steps"].tolist() for name in ("efold", "thousandth", "round_off"))
    trusted = ["yes" if r else "no" for r in reliable]
    return (
        "How fast a perturbation grows (above 0) or fades (below) along each direction. Below the dotted "
        "line less than a thousandth is left after the horizon.",
        f"{len(values)} Lyapunov exponents, descending, from {values[0]:.3g} to {values[-1]:.3g} "
        f"{clock.rate}.",
        ("i", "λ", "± error", "reliable", "steps to 1/e", "to 1/1000", "to round-off"),
        list(zip(index.tolist(), values.tolist(), error.tolist(), trusted, *steps, strict=True)),
    )


def draw_survival(record: Record, axes: Axes) -> Told:
    """Surviving directions against steps, for two shares that are left."""
    T, n = record.config["horizon"], len(record["exponents"])
    at = np.unique(np.geomspace(1, 2 * T, 60).astype(np.int64))
    counts = [_surviving(record, at, kept) for kept in KEPT.values()]
    for name, count, color, dash in zip(KEPT, counts, (ORANGE, BLUE), DASHES, strict=False):
        axes.plot(at, count, dash, color=color, linewidth=1.6, label=f"more than {name} left")
    axes.axvline(T, color=GREY, linewidth=0.9, linestyle=":", label=f"horizon, {T}")
    axes.set(xscale="log", xlabel="steps", ylabel="directions", title="What survives")
    axes.set_ylim(-0.03 * n, 1.05 * n)
    axes.legend()
    now = int(_surviving(record, np.array([T]), KEPT["1/1000"])[0])
    return (
        "Directions along which more than the given share of a perturbation, or of a gradient, is left.",
        f"How many of {n} directions keep a part of a perturbation, against steps: "
        f"{now} keep a thousandth over {T} steps.",
        ("steps", "more than 1/e left", "more than 1/1000 left"),
        list(zip(at.tolist(), *(count.tolist() for count in counts), strict=True)),
    )


def _surviving(record: Record, at: NDArray[np.int64], kept: float) -> NDArray[np.int64]:
    """Of how many directions more than exp(-kept) is left after each number of steps: lambda_i t > -kept."""
    return np.asarray((_per_step(record)[:, None] * at > -kept).sum(0))


def draw_gradient(record: Record, axes: Axes) -> Told:
    """Norms of a gradient over steps back, as measured and as the first exponent predicts them."""
    nats, first = record["gradient"], _per_step(record)[0]
    tens, back = nats / np.log(10), np.arange(len(nats))
    # |g_s| = |g_0| exp(lambda_1 s); of a dead direction there is nothing to predict
    predicted = back * (first if np.isfinite(first) else np.nan) / np.log(10)
    axes.plot(back, np.where(np.isfinite(tens), tens, np.nan), color=BLUE, linewidth=1.6, label="measured")
    axes.plot(back, predicted, "--", color=ORANGE, linewidth=1.2, label="from λ₁")
    axes.axhline(-3, color=GREY, linewidth=0.9, linestyle=":", label="1/1000")
    axes.set(xlabel="steps back in time", ylabel="log₁₀ of the norm", title="A gradient on its way back")
    axes.legend()
    end = f"10^{tens[-1]:.1f}" if np.isfinite(tens[-1]) else "0"
    return (
        "A random gradient at the end of the run, carried back step by step, and what the first exponent "
        "predicts. Where the two part, single layers or bursts matter.",
        f"The norm of a gradient sent back from the end, by powers of ten: {end} after {len(nats) - 1} "
        "steps back.",
        ("steps back", "log₁₀ of the norm", "predicted"),
        list(zip(back.tolist(), tens.tolist(), predicted.tolist(), strict=True)),
    )


def draw_memory(record: Record, axes: Axes) -> Told:
    """The memory capacity over lags, with the older half of the horizon, whose sum counts, and chance."""
    share, T = record["capacity"], record.config["horizon"]
    lags, error = np.arange(len(share)), 2 * record.config["capacity_error"]
    first = (len(share) + 1) // 2
    held = share[first:].sum()
    axes.axhspan(-error, error, color=GREY, alpha=0.25, linewidth=0, label="chance")
    axes.fill_between(
        lags[first:], share[first:], color=ORANGE, alpha=0.35, linewidth=0, label=f"sum {held:.2g}"
    )
    axes.plot(lags, share, color=BLUE, marker=".", markersize=4 if T < 60 else 0, linewidth=1.4)
    axes.axvline(T, color=GREY, linewidth=0.9, linestyle=":", label=f"horizon, {T}")
    axes.set(xlabel="lag (steps)", ylabel="share recovered", title="Memory capacity")
    axes.set_ylim(min(-0.03, share.min()), 1.05)
    axes.legend()
    return (
        "The share of a white probe on the inputs that a linear readout of the state recovers after so many "
        "steps. Of what is older than half of the horizon it holds as many numbers as the filled area; "
        "telling two times apart takes two.",
        f"Memory capacity against lag: {share[0]:.0%} at once, {share[-1]:.1%} after {T} steps, chance is "
        f"{error:.1%}; {share.sum():.2g} in all, {held:.2g} in the older half.",
        ("lag", "share recovered"),
        list(zip(lags.tolist(), share.tolist(), strict=True)),
    )


def _clock(record: Record) -> Clock:
    # Records of before `dt` was one of the arguments are in steps
    return Clock(record.config.get("dt", 1.0))


def _per_step(record: Record) -> Rows:
    return np.asarray(record["exponents"] * _clock(record).dt)


def draw_parts(record: Record, axes: Axes) -> Told:
    """Bars of the growth within each part, with the share of silent units written on them."""
    names, rates, silent = [str(name) for name in record["part"]], record["rate"], record["part_silent"]
    finite, rate = rates[np.isfinite(rates)], _clock(record).rate
    # a part whose perturbation is gone at once has rate -inf: a bar twice as long as the longest
    floor = min(2 * float(finite.min(initial=0.0)), -0.01)
    at = np.arange(len(names))
    axes.barh(at, np.where(np.isfinite(rates), rates, floor), color=BLUE, height=0.55)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for i, share in enumerate(silent):
        growth = "gone at once" if not np.isfinite(rates[i]) else f"{rates[i]:+.3g}"
        text = f"{growth}, {share:.0%} silent"
        axes.annotate(text, (0, i), (4, 0), textcoords="offset points", va="center")
    # the names of a user's layers may hold $ and _
    axes.set_yticks(at, [_short(name) for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel=f"growth alone ({rate})", title="Each part by itself")
    low, high = axes.get_xlim()
    # room for the words to the right of 0
    axes.set_xlim(low, max(high, 0) + 0.6 * (max(high, 0) - low))
    told = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, rates, strict=True))
    return (
        "A perturbation in one part, all else held: what falls far below 0 keeps nothing by itself.",
        f"Growth of a perturbation held to one part, in {rate}: {told}.",
        ("part", "growth alone", "silent share", *(f"gain to {name}" for name in names)),
        list(zip(names, rates.tolist(), silent.tolist(), *record["passage"].tolist(), strict=True)),
    )


def draw_shares(record: Record, axes: Axes) -> Told:
    """The share of the gradient in each part over steps back, a line and a dash for each part."""
    names, rows = [str(name) for name in record["part"]], record["gradient_share"]
    since = 1 + np.arange(len(rows))
    # a label that begins with _ would be left out
    _lines(axes, ((f" {_short(name)}", since, rows[:, i]) for i, name in enumerate(names)))
    axes.set(
        xscale="log",
        xlabel="1 + steps back",
        ylabel="share",
        title="Where the gradient is",
        ylim=(-0.03, 1.03),
    )
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    end = ", ".join(f"{n} {v:.0%}" for n, v in zip(names, rows[-1], strict=True))
    return (
        "Where a gradient lives on its way back.",
        f"The share of the gradient's squared norm in each part against steps back; at the last: {end}.",
        ("steps back", *names),
        [(s, *row) for s, row in enumerate(rows.tolist())],
    )


def _lines(axes: Axes, curves: Iterable[tuple[str, Rows, Rows]]) -> None:
    for i, (label, x, curve) in enumerate(curves):
        # colour and dash change together, so that no two lines are told apart by colour alone
        dash, color = DASHES[i % len(DASHES)], PALETTE[i % len(PALETTE)]
        axes.plot(x, curve, dash, color=color, linewidth=1.6, label=label)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def draw_silence(record: Record, axes: Axes) -> Told:
    """How often each unit is silent, the most silent first."""
    order = np.argsort(-record["silent"], kind="stable")
    silent = record["silent"][order]
    axes.fill_between(np.arange(len(silent)), silent, step="post", color=BLUE, alpha=0.7, linewidth=0)
    axes.axhline(0.9, color=GREY, linewidth=0.9, linestyle=":")
    axes.set(
        xlabel="units, most silent first", ylabel="share of moments", title="Silent units", ylim=(0, 1.03)
    )
    return (
        "Silent: a unit takes up or passes on less than 5% of a perturbation in one step.",
        f"The share of moments at which each of {len(silent)} units was silent; "
        f"{(silent >= 0.9).sum()} were nearly always.",
        ("unit", "share of moments"),
        list(zip(order.tolist(), silent.tolist(), strict=True)),
    )


def draw_gates(record: Record, axes: Axes) -> Told:
    """Mean values of each gate, sorted over units, a line and a dash for each gate."""
    gates = {
        variable.attributes["long_name"]: np.sort(record[name])
        for name, variable in record.variables.items()
        if name.startswith("gate_")
    }
    _lines(axes, ((name, np.linspace(0, 1, len(values)), values) for name, values in gates.items()))
    axes.set(xlabel="share of units", ylabel="mean value", title="Gates", ylim=(-0.03, 1.03))
    axes.legend()
    told = ", ".join(f"{name} {values.mean():.2f}" for name, values in gates.items())
    return (
        "What each gate lets through, 0 shut and 1 open, over units in ascending order.",
        f"Mean value of each gate over units, sorted; on average: {told}.",
        ("gate", "least", "quarter", "median", "three quarters", "most"),
        [(name, *np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()) for name, values in gates.items()],
    )
