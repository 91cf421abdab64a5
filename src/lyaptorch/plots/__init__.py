"""Records in, figures out; the only place that imports matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lyaptorch import _checks
from lyaptorch.plots.papers import PAPERS
from lyaptorch.plots.spectra import covariant_figure, spectrum_figure
from lyaptorch.plots.training import demo_figure, flossing_figure, training_figure
from lyaptorch.record import Record

if TYPE_CHECKING:
    from lyaptorch.tangent import CovariantVectors, Spectrum

__all__ = ["plot_covariant", "plot_record", "plot_spectrum"]


def plot_spectrum(spectrum: Spectrum) -> Figure:
    """The figure of a `Spectrum`: exponents with error bars, and convergence."""
    steps = spectrum.growth.steps.cumsum(0).cpu().numpy() * spectrum.dt
    exponents, stderr, reliable = (
        value.detach().cpu().numpy().reshape(-1, value.shape[-1])
        for value in (spectrum.exponents, spectrum.stderr(), spectrum.reliable)
    )
    running = spectrum.running().detach().cpu().numpy().reshape(len(steps), -1, exponents.shape[-1])
    unit = "step" if spectrum.dt == 1.0 else "unit of time"
    return spectrum_figure(exponents, stderr, reliable, running, steps, unit)


def plot_covariant(covariant: CovariantVectors) -> Figure:
    """The figure of `CovariantVectors`: local exponents, and angles between neighbours."""
    local, angles = covariant.local().cpu().numpy(), covariant.angles().cpu().numpy()
    k = local.shape[-1]
    unit = "step" if covariant.dt == 1.0 else "unit of time"
    return covariant_figure(local.reshape(-1, k), angles.reshape(-1, k, k), unit)


def plot_record(record: Record) -> Figure:
    """The figure of a Record, redrawn from its data alone.

    Raises:
        ValueError: for a kind of Record that has no figure.
    """
    figures = {
        "demo": demo_figure,
        "train": training_figure,
        "floss": flossing_figure,
        "spectrum": _recorded_spectrum,
        **PAPERS,
    }
    return figures[_checks.choice("kind of Record", record.kind, figures)](record)


def _recorded_spectrum(record: Record) -> Figure:
    k = record["exponents"].shape[-1]
    exponents, stderr, reliable = (
        record[name].reshape(-1, k) for name in ("exponents", "stderr", "reliable")
    )
    running = np.moveaxis(record["running"].reshape(-1, len(record["elapsed"]), k), 0, 1)
    unit = "step" if record.config["dt"] == 1.0 else "unit of time"
    return spectrum_figure(exponents, stderr, reliable, running, record["elapsed"], unit)
