"""The figures of the papers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots import coupled_tasks, coupled_training, coupling, delays
from lyaptorch.plots.algorithm import fig15, fig16, frames, table1
from lyaptorch.plots.conditioning import fig2a, fig2b, fig2c
from lyaptorch.plots.episodes import appendix_d, fig8, fig9, fig10, fig12
from lyaptorch.plots.style import GREY, PALETTE, panels, style
from lyaptorch.record import Record

PER_STEP = "(nats per step)"


def fig1b(record: Record) -> Figure:
    """lambda_1 against flossing epochs, a colour for each target."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        for group, target in enumerate(record["target"]):
            color = PALETTE[group % len(PALETTE)]
            rows = record["exponents"][group, :, :, 0]
            axes.axhline(target, color=color, linestyle=":", linewidth=0.8)
            axes.plot(rows.T, color=color, alpha=0.25, linewidth=0.7)
            axes.plot(rows.mean(0), color=color, linewidth=1.8, label=f"target {target:+g}")
        axes.set(
            xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {PER_STEP}", title="Control of the first exponent"
        )
        axes.legend()
    return figure


def fig1c(record: Record) -> Figure:
    """Sum of squares of the first k exponents: median and quartiles over networks."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        for group, k in enumerate(record["k"]):
            squares = (record["exponents"][group, :, :, :k] ** 2).sum(-1)
            low, middle, high = np.percentile(squares, (25, 50, 75), axis=0)
            epochs, color = np.arange(len(middle)), PALETTE[group]
            axes.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
            axes.semilogy(epochs, middle, color=color, linewidth=1.6, label=f"$k = {k}$")
        axes.set(
            xlabel="flossing epoch", ylabel=r"$\sum_{i \leq k} \lambda_i^2$", title="Flossing k exponents"
        )
        axes.legend()
    return figure


def fig1d(record: Record) -> Figure:
    """The whole spectrum before, and after flossing k exponents."""
    with style():
        figure, (axes,) = panels(1, width=4.4, height=3.2)
        axes.axhline(0, color=GREY, linewidth=0.8)
        index = np.arange(1, record["after"].shape[-1] + 1)
        axes.plot(index, record["before"][0].mean(0), color=GREY, linewidth=1.4, label="before")
        for group, k in enumerate(record["k"]):
            color = PALETTE[group]
            axes.plot(index, record["after"][group].T, color=color, alpha=0.25, linewidth=0.7)
            axes.plot(index, record["after"][group].mean(0), color=color, linewidth=1.8, label=f"$k = {k}$")
        axes.set(xlabel="index $i$", ylabel=rf"$\lambda_i$ {PER_STEP}", title="Spectrum after flossing")
        axes.legend()
    return figure


def fig6(record: Record) -> Figure:
    """lambda_1 above, its square below, against flossing epochs; LSTM on the left, ReLU on the right."""
    with style():
        figure, axes = panels(2 * len(record["unit"]), width=3.2)
        for i, (unit, rows) in enumerate(zip(record["unit"], record["lambda_1"], strict=True)):
            color, (above, below) = PALETTE[i], axes[2 * i : 2 * i + 2]
            above.axhline(0, color=GREY, linestyle=":", linewidth=0.8)
            above.plot(rows.T, color=color, alpha=0.35, linewidth=0.8)
            above.plot(np.median(rows, 0), color=color, linewidth=1.8)
            below.semilogy(rows.T**2, color=color, alpha=0.35, linewidth=0.8)
            below.semilogy(np.median(rows**2, 0), color=color, linewidth=1.8)
            above.set(xlabel="flossing epoch", ylabel=rf"$\lambda_1$ {PER_STEP}", title=f"{unit} networks")
            below.set(xlabel="flossing epoch", ylabel=r"$\lambda_1^2$", title="and its square")
    return figure


_OWN = (fig1b, fig1c, fig1d, fig2a, fig2b, fig2c, fig6, fig8, fig9, fig10, fig12, fig15, fig16)
_MORE = (delays.fig13, delays.controls, table1, frames)
_SWEEPS = ("fig3c", "fig3d", "fig4c", "fig4d", "fig14c", "fig14d")
_COUPLING = (
    coupled_tasks.fig1,
    coupling.fig2,
    coupled_training.fig3,
    coupling.fig4,
    coupling.fig5,
    coupled_training.fig6,
    coupling.table1,
    coupled_training.table2,
    coupling.images,
)
PAPERS = {
    **{f"gradient-flossing {f.__name__}": f for f in (*_OWN, *_MORE)},
    "surrogate-flossing table1": table1,
    **{f"gradient-flossing {name}": delays.sweep for name in _SWEEPS},
    **{f"gradient-flossing {name}": delays.counts for name in ("fig5", "fig7")},
    "gradient-flossing appE": delays.linear,
    "gradient-flossing fig11": fig10,
    "gradient-flossing appD-clv": appendix_d,
    **{f"weak-coupling {f.__name__}": f for f in _COUPLING},
}
"""By the kind of the Record."""
