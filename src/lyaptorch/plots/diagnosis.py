"""Figures of a diagnosis, each with its alternative text, its caption and the numbers behind it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch._units import Clock
from lyaptorch.plots.parts import gates, parts, shares, silence
from lyaptorch.plots.style import BLUE, DASHES, GREY, ORANGE, Array, Drawing, panels, style
from lyaptorch.record import Record

KEPT = {"1/e": 1.0, "1/1000": float(np.log(1e3))}
"""What is left of a perturbation, and its negative logarithm."""


def diagnosis_figure(record: Record) -> Figure:
    """Three panels: the spectrum, what survives, and a gradient on its way back."""
    with style():
        drawn, axes = panels(3)
        for panel, draw in zip(axes, (draw_spectrum, draw_survival, draw_gradient), strict=True):
            draw(record, panel)
    return drawn


def drawings(record: Record) -> list[Drawing]:
    """All figures that this record has something to show in."""
    found = [spectrum(record), survival(record), gradient(record)]
    if len(record["part"]) > 1:
        found += [parts(record), shares(record)]
    if (record["silent"] > 0.5).any():
        found.append(silence(record))
    if "gate_0" in record:
        found.append(gates(record))
    return found


def spectrum(record: Record) -> Drawing:
    """The exponents with their errors."""
    values, k = record["exponents"], len(record["exponents"])
    rows = list(
        zip(
            range(1, k + 1),
            *(record[n].tolist() for n in ("exponents", "stderr")),
            ["yes" if r else "no" for r in record["reliable"]],
            *(record[n].tolist() for n in ("efold_steps", "thousandth_steps", "round_off_steps")),
            strict=True,
        )
    )
    return Drawing(
        "spectrum",
        draw_spectrum,
        f"{k} Lyapunov exponents, descending, from {values[0]:.3g} to {values[-1]:.3g} "
        f"{_clock(record).rate}.",
        "How fast a perturbation grows (above 0) or fades (below) along each direction. Below the dotted "
        "line less than a thousandth is left after the horizon.",
        ("i", "λ", "± error", "reliable", "steps to 1/e", "to 1/1000", "to round-off"),
        rows,
    )


def draw_spectrum(record: Record, axes: Axes) -> None:
    """Exponents, errors, and the border below which a direction is lost."""
    values, error, T = record["exponents"], record["stderr"], record.config["horizon"]
    finite, reliable = np.isfinite(values), record["reliable"]
    index = np.arange(1, len(values) + 1)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axhline(
        _clock(record).per_time(-KEPT["1/1000"] / T),
        color=GREY,
        linewidth=0.9,
        linestyle=":",
        label=f"1/1000 left after {T} steps",
    )
    bars = np.where(np.isfinite(error), error, 0.0)[finite]
    axes.errorbar(index[finite], values[finite], yerr=bars, color=BLUE, marker=".", markersize=4, linewidth=1)
    lost = finite & ~reliable
    axes.plot(index[lost], values[lost], "o", mfc="white", color=ORANGE, markersize=4)
    axes.set(xlabel="index i", ylabel=f"λᵢ ({_clock(record).rate})", title="Lyapunov spectrum")
    axes.set_xlim(0, len(values) + 1)
    axes.legend()


def survival(record: Record) -> Drawing:
    """How many directions survive how many steps."""
    T, at = record.config["horizon"], _steps(record)
    counts = {name: _surviving(_per_step(record), at, kept) for name, kept in KEPT.items()}
    now = int(_surviving(_per_step(record), np.array([T]), KEPT["1/1000"])[0])
    return Drawing(
        "survival",
        draw_survival,
        f"How many of {len(record['exponents'])} directions keep a part of a perturbation, against steps: "
        f"{now} keep a thousandth over {T} steps.",
        "Directions along which more than the given share of a perturbation, or of a gradient, is left.",
        ("steps", "more than 1/e left", "more than 1/1000 left"),
        list(zip(at.tolist(), *(c.tolist() for c in counts.values()), strict=True)),
    )


def draw_survival(record: Record, axes: Axes) -> None:
    """Surviving directions against steps, for two shares that are left."""
    T, at = record.config["horizon"], _steps(record)
    for (name, kept), color, dash in zip(KEPT.items(), (ORANGE, BLUE), DASHES, strict=False):
        counts = _surviving(_per_step(record), at, kept)
        axes.plot(at, counts, dash, color=color, linewidth=1.6, label=f"more than {name} left")
    axes.axvline(T, color=GREY, linewidth=0.9, linestyle=":", label=f"horizon, {T}")
    axes.set(xscale="log", xlabel="steps", ylabel="directions", title="What survives")
    axes.set_ylim(-0.03 * len(record["exponents"]), 1.05 * len(record["exponents"]))
    axes.legend()


def _steps(record: Record) -> NDArray[np.int64]:
    return np.unique(np.geomspace(1, 2 * record.config["horizon"], 60).astype(np.int64))


def _surviving(per_step: Array, at: NDArray[np.int64], kept: float) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = (per_step[:, None] * at > -kept).sum(0)
    return counts


def gradient(record: Record) -> Drawing:
    """A gradient on its way back."""
    nats = record["gradient"]
    pairs = zip((nats / np.log(10)).tolist(), _predicted(record).tolist(), strict=True)
    rows = [(s, *pair) for s, pair in enumerate(pairs)]
    return Drawing(
        "gradient",
        draw_gradient,
        f"The norm of a gradient sent back from the end, by powers of ten: {_ten(float(nats[-1]))} after "
        f"{len(nats) - 1} steps back.",
        "A random gradient at the end of the run, carried back step by step, and what the first exponent "
        "predicts. Where the two part, single layers or bursts matter.",
        ("steps back", "log₁₀ of the norm", "predicted"),
        rows,
    )


def draw_gradient(record: Record, axes: Axes) -> None:
    """Measured and predicted norms over steps back."""
    tens = record["gradient"] / np.log(10)
    back = np.arange(len(tens))
    shown = np.where(np.isfinite(tens), tens, np.nan)
    axes.plot(back, shown, color=BLUE, linewidth=1.6, label="measured")
    axes.plot(back, _predicted(record), "--", color=ORANGE, linewidth=1.2, label="from λ₁")
    axes.axhline(-3, color=GREY, linewidth=0.9, linestyle=":", label="1/1000")
    axes.set(xlabel="steps back in time", ylabel="log₁₀ of the norm", title="A gradient on its way back")
    axes.legend()


def _clock(record: Record) -> Clock:
    # Records of before `dt` was one of the arguments are in steps
    return Clock(record.config.get("dt", 1.0))


def _per_step(record: Record) -> Array:
    per_step: Array = record["exponents"] * _clock(record).dt
    return per_step


def _predicted(record: Record) -> Array:
    first = _per_step(record)[0]
    line: Array = np.arange(len(record["gradient"])) * (first if np.isfinite(first) else np.nan) / np.log(10)
    return line


def _ten(nats: float) -> str:
    return f"10^{nats / np.log(10):.1f}" if np.isfinite(nats) else "0"
