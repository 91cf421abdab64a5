"""Records in, figures and pages out."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from matplotlib.figure import Figure

from lyaptorch.plots import curves
from lyaptorch.plots.diagnosis import diagnosis_figure
from lyaptorch.plots.pages import diagnosis_page, plain_page, spectrum_page
from lyaptorch.record import Record

__all__ = ["FIGURES", "PAGES", "figure_of_kind", "plain_page"]

FIGURES: dict[str, Callable[[Record], Figure]] = {
    "bench": curves.bench_figure,
    "covariant": curves.covariant_figure,
    "demo": curves.demo_figure,
    "train": curves.training_figure,
    "floss": curves.flossing_figure,
    "spectrum": curves.spectrum_figure,
    "diagnose": diagnosis_figure,
    "sweep": curves.sweep_figure,
}
"""What draws a Record, by its kind; figures of papers are declared in `experiments`."""
PAGES: dict[str, Callable[[Record], str]] = {"diagnose": diagnosis_page, "spectrum": spectrum_page}
"""What makes the page of a Record, by its kind; those of other kinds have a plain page."""


def figure_of_kind(kind: str) -> Callable[[Record], Figure]:
    """What draws a Record of this kind.

    Raises:
        ValueError: for a kind of Record that has no figure.
    """
    if kind not in FIGURES:
        near = difflib.get_close_matches(kind, FIGURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "its page shows what it holds"
        raise ValueError(f"a Record {kind!r} cannot be drawn, there is no figure for it; {hint}")
    return FIGURES[kind]
