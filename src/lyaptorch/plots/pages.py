"""Pages of Records: of a diagnosis, of a spectrum, of any other, and of a folder of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from lyaptorch._brief import counted, tally
from lyaptorch._units import Clock
from lyaptorch.plots import html
from lyaptorch.plots.curves import draw_convergence, draw_exponents, error_of_mean
from lyaptorch.plots.diagnosis import drawings
from lyaptorch.plots.html import Section
from lyaptorch.plots.primitives import Drawing, drawing, finite_mean
from lyaptorch.record import Record

SIGNS = {
    "healthy": "✓",
    "vanishing": "▼",
    "exploding": "▲",
    "chaotic": "▲",
    "narrow": "◆",
    "integrating": "∑",
    "blocked": "■",
}
"""A shape for each verdict, so that none is told by colour."""
VERSIONS = ("lyaptorch", "torch", "python", "platform", "host", "threads", "time")


def diagnosis_page(record: Record) -> str:
    """The page of a diagnosis: words, suggestions, figures, how it was measured."""
    config, texts = record.config, [str(text) for text in record["finding"]]
    lead = (
        f'<p><span class="badge">{SIGNS[config["verdict"]]} {escape(config["verdict"])}</span></p>'
        f'<p class="lead">{escape(texts[0])}</p>'
    )
    sections = [
        Section("What was found", html.bullets(texts[1:])),
        Section("What to try", _suggestions(record)),
        html.figures(drawings(record)),
        Section("How it was measured", _configuration(record)),
    ]
    return html.frame(f"Diagnosis of {config.get('target', config['name'])}", sections, lead=lead)


def _suggestions(record: Record) -> str:
    # a Record holds no variable of no values
    if "suggestion_title" not in record:
        return html.paragraph("Nothing: over this horizon gradients need nothing.")
    columns = (record[f"suggestion_{name}"].tolist() for name in ("title", "reason", "code"))
    return "".join(
        f"<h3>{escape(title)}</h3>{html.paragraph(reason)}{html.code(code)}"
        for title, reason, code in zip(*columns, strict=True)
    )


def spectrum_page(record: Record) -> str:
    """The page of a spectrum: the exponents, and how they converged."""
    k, rate = record["exponents"].shape[-1], Clock(record.config["dt"]).rate
    exponents = record["exponents"].reshape(-1, k)
    draws = {"spectrum": draw_exponents, "convergence": draw_convergence}
    shown = [drawing(record, name, draw) for name, draw in draws.items()]
    trusted = [row[-1] for row in shown[0].rows].count("yes")
    lead = html.paragraph(
        f"λ₁ = {finite_mean(exponents, 0)[0]:+.4g} ± {error_of_mean(record)[0]:.2g} {rate}, the mean of "
        f"{counted(len(exponents), 'trajectory', 'trajectories')}; "
        f"{trusted} of {k} exponents stand above round-off."
    )
    sections = [html.figures(shown), Section("How it was measured", _configuration(record))]
    named = f" of {record.config['target']}" if "target" in record.config else ""
    return html.frame(f"Lyapunov spectrum{named}", sections, lead=lead)


def plain_page(record: Record, drawn: Figure | None) -> str:
    """The page of any other Record: its figure, if it has one, and configuration."""
    if drawn is None:
        first = Section("Variables", html.table(*_sizes(record)))
    else:
        alt = f"The figure of the Record {record.kind}."
        first = Section("Figure", html.figure(Drawing("figure", drawn, "", alt, *_sizes(record))))
    return html.frame(record.kind, [first, Section("How it was measured", _configuration(record))])


def _sizes(record: Record) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """Head and rows of a table of what a Record holds."""
    rows = [(name, " by ".join(map(str, v.values.shape))) for name, v in record.variables.items()]
    return ("variable", "size"), rows


def _configuration(record: Record) -> str:
    return html.table(("setting", "value"), [(key, str(value)) for key, value in record.config.items()])


class Claim(NamedTuple):
    """A check of a figure, as a row of a table."""

    check: str
    expected: str
    measured: float
    outcome: str
    kind: str


class Entry(NamedTuple):
    """A Record of the page of a folder.

    Attributes:
        name: of its file.
        record: itself.
        drawn: its figure, or why there is none.
        checks: what the figure claims, and what came of it.
        host: seconds, versions and other volatile facts.
    """

    name: str
    record: Record
    drawn: Figure | str
    checks: Sequence[Claim]
    host: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """What it took, 0 where nobody knows."""
        seconds = self.host.get("seconds", 0.0)
        # of a file that anyone may have written
        return float(seconds) if isinstance(seconds, int | float) else 0.0


def runs_page(title: str, entries: Sequence[Entry], unreadable: Sequence[tuple[str, str]] = ()) -> str:
    """One self-contained page: every Record with its figure, checks, configuration, cost and versions.

    Args:
        title: of the page.
        entries: the Records.
        unreadable: names of files that cannot be read, and why.
    """
    checks = [check for entry in entries for check in entry.checks]
    lead = f"{counted(len(entries), 'Record')}, {duration(sum(e.seconds for e in entries))} of computing"
    if checks:
        lead += f"; {_told(checks)}"
    sections = [Section("Records", _contents(entries))]
    if unreadable:
        sections.append(Section("Not readable", html.bullets(f"{name}: {why}" for name, why in unreadable)))
    sections += [Section(entry.name, _body(i, entry)) for i, entry in enumerate(entries)]
    return html.frame(title, sections, lead=html.paragraph(f"{lead}."))


def _told(checks: Sequence[Claim]) -> str:
    return f"of {len(checks)} checks {tally(check.outcome for check in checks)}"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        # 90 s says more than 1.5 min
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _contents(entries: Sequence[Entry]) -> str:
    rows = []
    for i, entry in enumerate(entries):
        facts = [entry.record.kind]
        if entry.checks:
            facts.append(_told(entry.checks))
        if "seconds" in entry.host:
            facts.append(duration(entry.seconds))
        rows.append(f'<li><a href="#record{i}">{escape(entry.name)}</a>: {escape(", ".join(facts))}</li>')
    return f"<ul>{''.join(rows)}</ul>"


def _body(number: int, entry: Entry) -> str:
    record, parts = entry.record, [f'<div id="record{number}"></div>']
    if isinstance(entry.drawn, str):
        parts.append(html.paragraph(entry.drawn))
    else:
        alt = f"The figure of {entry.name}, a Record of {record.kind}."
        parts.append(html.figure(Drawing(f"f{number}", entry.drawn, "", alt, *_sizes(record))))
    if entry.checks:
        parts.append(html.table(Claim._fields, entry.checks))
    parts.append(html.folded("Configuration", _configuration(record)))
    facts = [(key, str(entry.host[key])) for key in VERSIONS if key in entry.host]
    if "seconds" in entry.host:
        facts.insert(0, ("cost", duration(entry.seconds)))
    if facts:
        parts.append(html.folded("Cost and versions", html.table(("fact", "value"), facts)))
    return "".join(parts)
