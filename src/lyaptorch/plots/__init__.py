"""Records in, figures out; the only place that imports matplotlib."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lyaptorch._units import Clock
from lyaptorch.plots import pages
from lyaptorch.plots.bench import bench_figure
from lyaptorch.plots.diagnosis import diagnosis_figure
from lyaptorch.plots.papers import PAPERS
from lyaptorch.plots.spectra import covariant_figure, spectrum_figure
from lyaptorch.plots.surrogate import SURROGATE
from lyaptorch.plots.sweeps import sweep_figure
from lyaptorch.plots.training import demo_figure, flossing_figure, training_figure
from lyaptorch.record import Record

if TYPE_CHECKING:
    from lyaptorch.analysis import Diagnosis
    from lyaptorch.tangent import CovariantVectors, Spectrum

__all__ = [
    "figure_of_kind",
    "plot_covariant",
    "plot_diagnosis",
    "plot_record",
    "plot_spectrum",
    "record_page",
]


def plot_spectrum(spectrum: Spectrum) -> Figure:
    """The figure of a `Spectrum`: exponents with error bars, and convergence."""
    running = spectrum.running().detach().cpu().numpy()
    steps = np.cumsum(spectrum.growth.steps.reshape(len(running), -1).amax(1).cpu().numpy()) * spectrum.dt
    exponents, stderr, reliable = (
        value.detach().cpu().numpy().reshape(-1, value.shape[-1])
        for value in (spectrum.exponents, spectrum.stderr(), spectrum.reliable)
    )
    running = running.reshape(len(steps), -1, exponents.shape[-1])
    return spectrum_figure(exponents, stderr, reliable, running, steps, spectrum.clock)


def plot_covariant(covariant: CovariantVectors) -> Figure:
    """The figure of `CovariantVectors`: local exponents, and angles between neighbours."""
    local, angles = covariant.local().cpu().numpy(), covariant.angles().cpu().numpy()
    k = local.shape[-1]
    return covariant_figure(local.reshape(-1, k), angles.reshape(-1, k, k), Clock(covariant.dt))


def plot_diagnosis(diagnosis: Diagnosis) -> Figure:
    """The figure of a `Diagnosis`: the spectrum, what survives, and a gradient on its way back."""
    return diagnosis_figure(diagnosis.record())


def record_page(record: Record) -> str:
    """The page of a Record, one self-contained file of HTML, from its data alone."""
    if record.kind == "diagnose":
        return pages.diagnosis_page(record)
    if record.kind == "spectrum":
        return pages.spectrum_page(record)
    return pages.plain_page(record, plot_record(record) if record.kind in FIGURES else None)


def plot_record(record: Record) -> Figure:
    """The figure of a Record, redrawn from its data alone.

    Raises:
        ValueError: for a kind of Record that has no figure.
    """
    return figure_of_kind(record.kind)(record)


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


def _recorded_spectrum(record: Record) -> Figure:
    k = record["exponents"].shape[-1]
    exponents, stderr, reliable = (
        record[name].reshape(-1, k) for name in ("exponents", "stderr", "reliable")
    )
    running = np.moveaxis(record["running"].reshape(-1, len(record["elapsed"]), k), 0, 1)
    return spectrum_figure(
        exponents, stderr, reliable, running, record["elapsed"], Clock(record.config["dt"])
    )


FIGURES: dict[str, Callable[[Record], Figure]] = {
    "bench": bench_figure,
    "demo": demo_figure,
    "train": training_figure,
    "floss": flossing_figure,
    "spectrum": _recorded_spectrum,
    "diagnose": diagnosis_figure,
    "sweep": sweep_figure,
    **PAPERS,
    **SURROGATE,
}
"""By the kind of the Record."""
