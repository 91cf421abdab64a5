"""The figure of a sweep: a score against one setting, a line for each value of the others."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots.drawing import DASHES
from lyaptorch.plots.spectra import finite_mean
from lyaptorch.plots.style import PALETTE, panels, style
from lyaptorch.record import Record

FIRST = ("final_accuracy", "final_loss")
"""What is drawn, where it is there."""


def sweep_figure(record: Record) -> Figure:
    """Scores of all networks, and their mean, against the first setting that is varied."""
    axes = {name: values for name, values in record.config["axes"].items() if name != "network"}
    names = [n for n in FIRST if n in record] or list(record.variables)[:2]
    across = next((n for n, values in axes.items() if len(values) > 1), next(iter(axes), None))
    with style():
        figure, drawn = panels(max(1, len(names)), width=4.0)
        for panel, name in zip(drawn, names, strict=False):
            dims = record.variables[name].dims
            values = record[name] if "network" in dims else record[name][..., None]
            if across is not None:
                values = np.moveaxis(values, dims.index(across), -2)
            else:
                values = values[..., None, :]
            ticks = record[across] if across is not None else np.zeros(1)
            numeric = ticks.dtype.kind in "iuf"
            x = ticks if numeric else np.arange(len(ticks))
            others = [n for n in axes if n != across]
            for count, index in enumerate(np.ndindex(*values.shape[:-2])):
                color, dash = PALETTE[count % len(PALETTE)], DASHES[count // len(PALETTE) % len(DASHES)]
                label = ", ".join(f"{n} {axes[n][i]}" for n, i in zip(others, index, strict=True))
                panel.plot(x, values[index], "o", color=color, alpha=0.3, markersize=3)
                panel.plot(
                    x, finite_mean(values[index], -1), dash, marker="o", color=color, label=label or None
                )
            if not numeric:
                panel.set_xticks(x, [str(t) for t in ticks])
            panel.set(xlabel=across or "", ylabel=name.replace("_", " "))
            if others:
                panel.legend()
    return figure
