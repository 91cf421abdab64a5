"""Figures of the parts of a state: layers, variables, units and gates."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from lyaptorch._units import Clock
from lyaptorch.plots.style import BLUE, DASHES, GREY, PALETTE, Array, Drawing
from lyaptorch.record import Record


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
        f"Growth of a perturbation held to one part, in {_rate(record)}: {told}.",
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
    axes.set(xlabel=f"growth alone ({_rate(record)})", title="Each part by itself")
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, 0) + 0.6 * (max(high, 0) - low))


def _rate(record: Record) -> str:
    return Clock(record.config.get("dt", 1.0)).rate


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
