"""The figures of the papers, each from its Record alone."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lyaptorch.plots import beyond, coupled_tasks, coupled_training, coupling
from lyaptorch.plots.algorithm import fig15, fig16, frames, table1
from lyaptorch.plots.episodes import appendix_d, fig8, fig9, fig10, fig12
from lyaptorch.plots.style import GREY, PALETTE, panels, style
from lyaptorch.record import Record

PER_STEP = "(nats per step)"


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


_OWN = (fig6, fig8, fig9, fig10, fig12, fig15, fig16)
_MORE = (table1, frames)
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
    "gradient-flossing fig11": fig10,
    "gradient-flossing appD-clv": appendix_d,
    **{f"weak-coupling {f.__name__}": f for f in _COUPLING},
    **beyond.FIGURES,
}
"""By the kind of the Record."""
