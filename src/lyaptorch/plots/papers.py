"""The figures of the papers, each from its Record alone."""

from __future__ import annotations

from lyaptorch.plots import beyond, coupled_tasks, coupled_training, coupling, delays
from lyaptorch.plots.conditioning import fig2a, fig2b, fig2c

_OWN = (fig2a, fig2b, fig2c, delays.fig13, delays.controls)
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
    **{f"gradient-flossing {f.__name__}": f for f in _OWN},
    **{f"gradient-flossing {name}": delays.sweep for name in _SWEEPS},
    **{f"gradient-flossing {name}": delays.counts for name in ("fig5", "fig7")},
    "gradient-flossing appE": delays.linear,
    **{f"weak-coupling {f.__name__}": f for f in _COUPLING},
    **beyond.FIGURES,
}
"""By the kind of the Record."""
