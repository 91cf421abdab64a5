"""Figures of a diagnosis, each with its alternative text, its caption and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyaptorch.plots.style import BLUE, GREY, ORANGE, PALETTE, panels, style
from lyaptorch.record import Record

Array = NDArray[np.floating]
DASHES = ("-", "--", ":", "-.")
KEPT = {"1/e": 1.0, "1/1000": float(np.log(1e3))}
"""What is left of a perturbation, and its negative logarithm."""


class Drawing(NamedTuple):
    """A figure for a page."""

    name: str
    draw: Callable[[Record, Axes], None]
    alt: str
    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]

    def figure(self, record: Record) -> Figure:
        """It alone, in a size that is readable on a phone."""
        with style():
            drawn, (axes,) = panels(1, width=3.9, height=2.9)
            self.draw(record, axes)
        return drawn


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
        f"{k} Lyapunov exponents, descending, from {values[0]:.3g} to {values[-1]:.3g} nats per step.",
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
        -KEPT["1/1000"] / T, color=GREY, linewidth=0.9, linestyle=":", label=f"1/1000 left after {T}"
    )
    bars = np.where(np.isfinite(error), error, 0.0)[finite]
    axes.errorbar(index[finite], values[finite], yerr=bars, color=BLUE, marker=".", markersize=4, linewidth=1)
    lost = finite & ~reliable
    axes.plot(index[lost], values[lost], "o", mfc="white", color=ORANGE, markersize=4)
    axes.set(xlabel="index i", ylabel="λᵢ (nats per step)", title="Lyapunov spectrum")
    axes.set_xlim(0, len(values) + 1)
    axes.legend()


def survival(record: Record) -> Drawing:
    """How many directions survive how many steps."""
    T, at = record.config["horizon"], _steps(record)
    counts = {name: _surviving(record["exponents"], at, kept) for name, kept in KEPT.items()}
    now = int(_surviving(record["exponents"], np.array([T]), KEPT["1/1000"])[0])
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
        counts = _surviving(record["exponents"], at, kept)
        axes.plot(at, counts, dash, color=color, linewidth=1.6, label=f"more than {name} left")
    axes.axvline(T, color=GREY, linewidth=0.9, linestyle=":", label=f"horizon, {T}")
    axes.set(xscale="log", xlabel="steps", ylabel="directions", title="What survives")
    axes.set_ylim(-0.03 * len(record["exponents"]), 1.05 * len(record["exponents"]))
    axes.legend()


def _steps(record: Record) -> NDArray[np.int64]:
    return np.unique(np.geomspace(1, 2 * record.config["horizon"], 60).astype(np.int64))


def _surviving(exponents: Array, at: NDArray[np.int64], kept: float) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = (exponents[:, None] * at > -kept).sum(0)
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


def _predicted(record: Record) -> Array:
    first = record["exponents"][0]
    line: Array = np.arange(len(record["gradient"])) * (first if np.isfinite(first) else np.nan) / np.log(10)
    return line


def _ten(nats: float) -> str:
    return f"10^{nats / np.log(10):.1f}" if np.isfinite(nats) else "0"


def parts(record: Record) -> Drawing:
    """Growth within each part, and how many of its units are silent."""
    names = [str(name) for name in record["part"]]
    rows = [
        (name, float(record["rate"][i]), float(record["part_silent"][i]), *record["passage"][:, i].tolist())
        for i, name in enumerate(names)
    ]
    told = ", ".join(f"{name} {rate:.3g}" for name, rate in zip(names, record["rate"], strict=True))
    return Drawing(
        "parts",
        draw_parts,
        f"Growth of a perturbation held to one part, in nats per step: {told}.",
        "A perturbation in one part, all else held: what falls far below 0 keeps nothing by itself.",
        ("part", "growth alone", "silent share", *(f"gain to {name}" for name in names)),
        rows,
    )


def draw_parts(record: Record, axes: Axes) -> None:
    """Bars of the growth within each part, with the share of silent units written on them."""
    names, rates = [str(name) for name in record["part"]], record["rate"]
    finite = rates[np.isfinite(rates)]
    floor = min(2 * float(finite.min(initial=0.0)), -0.01)
    at = np.arange(len(names))
    axes.barh(at, np.where(np.isfinite(rates), rates, floor), color=BLUE, height=0.55)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for i, share in enumerate(record["part_silent"]):
        rate = "gone at once" if not np.isfinite(rates[i]) else f"{rates[i]:+.3g}"
        axes.annotate(f"{rate}, {share:.0%} silent", (0, i), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(at, [_short(name) for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="growth alone (nats per step)", title="Each part by itself")
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, 0) + 0.6 * (max(high, 0) - low))


def shares(record: Record) -> Drawing:
    """In which part the gradient is on its way back."""
    names = [str(name) for name in record["part"]]
    rows = [(s, *row) for s, row in enumerate(record["gradient_share"].tolist())]
    end = ", ".join(f"{n} {v:.0%}" for n, v in zip(names, record["gradient_share"][-1], strict=True))
    return Drawing(
        "shares",
        draw_shares,
        f"The share of the gradient's squared norm in each part against steps back; at the last: {end}.",
        "Where a gradient lives on its way back.",
        ("steps back", *names),
        rows,
    )


def draw_shares(record: Record, axes: Axes) -> None:
    """The shares over steps back, a line and a dash for each part."""
    rows = record["gradient_share"]
    back = np.arange(len(rows))
    # a label that begins with _ would be left out
    for i, name in enumerate(record["part"]):
        dash, color = DASHES[i % len(DASHES)], PALETTE[i % len(PALETTE)]
        axes.plot(back + 1, rows[:, i], dash, color=color, linewidth=1.6, label=f" {_short(str(name))}")
    axes.set(
        xscale="log",
        xlabel="1 + steps back",
        ylabel="share",
        title="Where the gradient is",
        ylim=(-0.03, 1.03),
    )
    for text in axes.legend().get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def silence(record: Record) -> Drawing:
    """How often each unit is silent."""
    silent = record["silent"]
    order = np.argsort(-silent, kind="stable")
    return Drawing(
        "silence",
        draw_silence,
        f"The share of moments at which each of {len(silent)} units was silent; "
        f"{(silent >= 0.9).sum()} were nearly always.",
        "Silent: a unit takes up or passes on less than 5% of a perturbation in one step.",
        ("unit", "share of moments"),
        [(int(i), float(silent[i])) for i in order],
    )


def draw_silence(record: Record, axes: Axes) -> None:
    """Silence of all units, the most silent first."""
    silent = -np.sort(-record["silent"])
    axes.fill_between(np.arange(len(silent)), silent, step="post", color=BLUE, alpha=0.7, linewidth=0)
    axes.axhline(0.9, color=GREY, linewidth=0.9, linestyle=":")
    axes.set(
        xlabel="units, most silent first", ylabel="share of moments", title="Silent units", ylim=(0, 1.03)
    )


def gates(record: Record) -> Drawing:
    """Mean gate values of all units."""
    named = _gates(record)
    told = ", ".join(f"{name} {values.mean():.2f}" for name, values in named.items())
    rows = [
        (name, *(float(np.quantile(values, q)) for q in (0, 0.25, 0.5, 0.75, 1)))
        for name, values in named.items()
    ]
    return Drawing(
        "gates",
        draw_gates,
        f"Mean value of each gate over units, sorted; on average: {told}.",
        "What each gate lets through, 0 shut and 1 open, over units in ascending order.",
        ("gate", "least", "quarter", "median", "three quarters", "most"),
        rows,
    )


def draw_gates(record: Record, axes: Axes) -> None:
    """Sorted gate values, a line and a dash for each gate."""
    for i, (name, values) in enumerate(_gates(record).items()):
        share = np.linspace(0, 1, len(values))
        dash, color = DASHES[i % len(DASHES)], PALETTE[i % len(PALETTE)]
        axes.plot(share, np.sort(values), dash, color=color, linewidth=1.6, label=name)
    axes.set(xlabel="share of units", ylabel="mean value", title="Gates", ylim=(-0.03, 1.03))
    axes.legend()


def _gates(record: Record) -> dict[str, Array]:
    names = [name for name in record.variables if name.startswith("gate_")]
    return {record.variables[name].attributes["long_name"]: record[name] for name in names}
