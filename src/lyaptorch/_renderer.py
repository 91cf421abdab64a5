"""The renderer of Records: what draws a kind stands in `plots` or is declared in `experiments`.

Only `lyaptorch/__init__.py` imports this, and only when something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lyaptorch import plots
from lyaptorch.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(record: Record) -> Figure:
    """The figure of a Record, from its data alone.

    Raises:
        ValueError: for a kind of Record that has no figure.
    """
    return (_declared(record.kind) or plots.figure_of_kind(record.kind))(record)


def page(record: Record) -> str:
    """The page of a Record, one self-contained file of HTML, from its data alone."""
    made = plots.PAGES.get(record.kind)
    if made is not None:
        return made(record)
    drawn = _declared(record.kind) or plots.FIGURES.get(record.kind)
    return plots.plain_page(record, None if drawn is None else drawn(record))


def _declared(kind: str) -> Callable[[Record], Figure] | None:
    """What draws the figure of a paper that is declared beside its experiment."""
    paper, _, name = kind.partition(" ")
    if not name:
        return None
    # lazily: spectra and trainings are drawn without any paper's experiments
    from lyaptorch.experiments import FIGURES

    draw: Callable[[Record], Figure] | None = getattr(FIGURES.get(paper, {}).get(name), "draw", None)
    return draw
