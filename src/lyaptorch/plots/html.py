"""Records in, pages out."""

from __future__ import annotations

from html import escape

import numpy as np
from matplotlib.figure import Figure

from lyaptorch._units import Clock
from lyaptorch.plots import report
from lyaptorch.plots.diagnosis import drawings
from lyaptorch.plots.report import Section
from lyaptorch.plots.spectra import draw_convergence, draw_exponents, finite_mean
from lyaptorch.plots.style import panels, style
from lyaptorch.record import Record

SIGNS = {"healthy": "✓", "vanishing": "▼", "exploding": "▲", "chaotic": "▲", "narrow": "◆", "blocked": "■"}
"""A shape for each verdict, so that none is told by colour."""


def diagnosis_page(record: Record) -> str:
    """The page of a diagnosis: words, suggestions, figures, how it was measured."""
    config, texts = record.config, [str(text) for text in record["finding"]]
    lead = (
        f'<p><span class="badge">{SIGNS[config["verdict"]]} {escape(config["verdict"])}</span></p>'
        f'<p class="lead">{escape(texts[0])}</p>'
    )
    drawn = [
        report.figure(d.figure(record), d.name, d.alt, d.caption, report.table(d.head, d.rows))
        for d in drawings(record)
    ]
    sections = [
        Section("What was found", report.bullets(texts[1:])),
        Section("What to try", _suggestions(record)),
        Section("Figures", f'<div class="figures">{"".join(drawn)}</div>'),
        _configuration(record),
    ]
    return report.frame(f"Diagnosis of {config.get('target', config['name'])}", sections, lead=lead)


def spectrum_page(record: Record) -> str:
    """The page of a spectrum: the exponents, and how they converged."""
    rows = [
        record[name].reshape(-1, record["exponents"].shape[-1])
        for name in ("exponents", "stderr", "reliable")
    ]
    exponents, stderr, reliable = rows
    k, clock = exponents.shape[-1], Clock(record.config["dt"])
    running = np.moveaxis(record["running"].reshape(-1, len(record["elapsed"]), k), 0, 1)
    with style():
        first, (left,) = panels(1, width=3.9, height=2.9)
        draw_exponents(left, exponents, stderr, reliable, clock)
        second, (right,) = panels(1, width=3.9, height=2.9)
        draw_convergence(right, running, record["elapsed"], clock)
    means = finite_mean(exponents, 0)
    # Records of earlier versions hold single errors alone
    error = (
        record["error_of_mean"] if "error_of_mean" in record else np.sqrt((stderr**2).mean(0) / len(stderr))
    )
    trusted = [
        "yes" if row else "no" for row in np.all(reliable | np.isinf(exponents), axis=0) & reliable.any(0)
    ]
    numbers = list(zip(range(1, k + 1), means.tolist(), error.tolist(), trusted, strict=True))
    shown = sorted({0, k // 4, k // 2, k - 1})
    curves = finite_mean(running[:, :, shown], 1)
    moments = [(float(t), *row) for t, row in zip(record["elapsed"], curves.tolist(), strict=True)]
    figures = [
        report.figure(
            first,
            "spectrum",
            f"{k} Lyapunov exponents, the first {means[0]:.3g} and the last {means[-1]:.3g} {clock.rate}.",
            "Hollow circles: not reliable, lost to round-off or to steps that are too long.",
            report.table(("i", "λ", "± error", "reliable"), numbers),
        ),
        report.figure(
            second,
            "convergence",
            f"Running estimates of {len(shown)} exponents over time; they end at "
            f"{', '.join(f'{v:.3g}' for v in curves[-1])}.",
            "An estimate that still drifts at the end asks for a longer run.",
            report.table(("time", *(f"λ {i + 1}" for i in shown)), moments),
        ),
    ]
    of = f"{len(exponents)} trajector{'y' if len(exponents) == 1 else 'ies'}"
    lead = report.paragraph(
        f"λ₁ = {means[0]:+.4g} ± {error[0]:.2g} {clock.rate}, the mean of {of}; "
        f"{trusted.count('yes')} of {k} exponents stand above round-off."
    )
    sections = [Section("Figures", f'<div class="figures">{"".join(figures)}</div>'), _configuration(record)]
    named = f" of {record.config['target']}" if "target" in record.config else ""
    return report.frame(f"Lyapunov spectrum{named}", sections, lead=lead)


def plain_page(record: Record, drawn: Figure | None) -> str:
    """The page of any other Record: its figure, if it has one, and configuration."""
    sizes = [(name, " by ".join(map(str, v.values.shape))) for name, v in record.variables.items()]
    numbers = report.table(("variable", "size"), sizes)
    if drawn is None:
        return report.frame(record.kind, [Section("Variables", numbers), _configuration(record)])
    body = report.figure(drawn, "figure", f"The figure of the Record {record.kind}.", "", numbers)
    return report.frame(record.kind, [Section("Figure", body), _configuration(record)])


def _suggestions(record: Record) -> str:
    if "suggestion_title" not in record:
        return report.paragraph("Nothing: over this horizon gradients need nothing.")
    told = []
    for title, reason, code in zip(
        *(record[f"suggestion_{n}"] for n in ("title", "reason", "code")), strict=True
    ):
        heading = f"<h3>{escape(str(title))}</h3>"
        told.append(heading + report.paragraph(str(reason)) + report.code(str(code)))
    return "".join(told)


def _configuration(record: Record) -> Section:
    rows = [(key, str(value)) for key, value in record.config.items()]
    return Section("How it was measured", report.table(("setting", "value"), rows))
