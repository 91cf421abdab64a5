"""The renderer of Records: what draws a kind stands in `plots` or is declared in `experiments`.

Only `lyaptorch/__init__.py` imports this, and only when something is drawn.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from lyaptorch import plots
from lyaptorch.plots.primitives import Picture
from lyaptorch.record import Record


def figure(record: Record) -> Figure:
    """The figure of a Record, from its data alone.

    Raises:
        ValueError: for a kind of Record that has no figure.
    """
    return (_declared(record) or plots.figure_of_kind(record.kind))(record)


def page(record: Record) -> str:
    """The page of a Record, one self-contained file of HTML, from its data alone."""
    made = plots.PAGES.get(record.kind)
    if made is not None:
        return made(record)
    drawn = _declared(record) or plots.FIGURES.get(record.kind)
    return plots.plain_page(record, None if drawn is None else drawn(record))


def _declared(record: Record) -> Picture | None:
    """What draws the figure of a paper that is declared beside its experiment."""
    if " " not in record.kind:
        return None
    # lazily: spectra and trainings are drawn without any paper's experiments
    from lyaptorch.experiments import FIGURES
    from lyaptorch.experiments.recorded import figure_of

    declared = figure_of(record, FIGURES)
    return None if declared is None else declared.draw
