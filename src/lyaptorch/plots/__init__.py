"""Records in, figures and pages out."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from lyaptorch._units import Clock
from lyaptorch.plots.curves import bench_figure, demo_figure, flossing_figure, sweep_figure, training_figure
from lyaptorch.plots.diagnosis import diagnosis_figure
from lyaptorch.plots.html import diagnosis_page, plain_page, spectrum_page
from lyaptorch.plots.papers import PAPERS
from lyaptorch.plots.spectra import covariant_figure, spectrum_figure
from lyaptorch.record import Record

__all__ = ["FIGURES", "PAGES", "figure_of_kind", "plain_page"]


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


def _spectrum(record: Record) -> Figure:
    k = record["exponents"].shape[-1]
    exponents, stderr, reliable = (
        record[name].reshape(-1, k) for name in ("exponents", "stderr", "reliable")
    )
    running = np.moveaxis(record["running"].reshape(-1, len(record["elapsed"]), k), 0, 1)
    return spectrum_figure(
        exponents, stderr, reliable, running, record["elapsed"], Clock(record.config["dt"])
    )


def _covariant(record: Record) -> Figure:
    k = record["local"].shape[-1]
    local, angles = record["local"].reshape(-1, k), record["angles"].reshape(-1, k, k)
    return covariant_figure(local, angles, Clock(record.config["dt"]))


FIGURES: dict[str, Callable[[Record], Figure]] = {
    "bench": bench_figure,
    "covariant": _covariant,
    "demo": demo_figure,
    "train": training_figure,
    "floss": flossing_figure,
    "spectrum": _spectrum,
    "diagnose": diagnosis_figure,
    "sweep": sweep_figure,
    **PAPERS,
}
"""What draws a Record, by its kind; figures of papers are declared in `experiments`."""
PAGES: dict[str, Callable[[Record], str]] = {"diagnose": diagnosis_page, "spectrum": spectrum_page}
"""What makes the page of a Record, by its kind; those of other kinds have a plain page."""
